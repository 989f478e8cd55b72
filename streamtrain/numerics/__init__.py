"""Arithmetic with the same bits everywhere, and where it runs.

`portable` has log2, exp2 and powers, `rng` the counter-based random numbers; `backend` compiles the
kernels for the host and calls them there or on a GPU, by how many threads (start there), `gpu_code`
compiles them for a GPU, `libraries` keeps what was compiled, `probe` tries it, `workspace` keeps
arrays for reuse.
"""
