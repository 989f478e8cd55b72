"""Training: the loop, its checkpoints, its ranks, what it shows.

Start with `trainer`. `checkpoint` is what a training goes on from, and whether it may; `folder` has
the history file and the lock. `monitor` writes every scalar and figure of TensorBoard,
`tensorboard` its layout, its hyper-parameters and the log of lightcones. `optimiser` has the
learning rate, `torch_state` the precision, `start` other runs' weights and more steps,
`distributed` devices, and how ranks work together.
"""
