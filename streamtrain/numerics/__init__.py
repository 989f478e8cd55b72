"""Arithmetic with the same bits everywhere, and where it runs.

`portable` has log2, exp2 and powers, `rng` the counter-based random numbers; `backend` compiles the
kernels for a GPU or for the host and calls them (start there), `workspace` keeps arrays for reuse.
"""
