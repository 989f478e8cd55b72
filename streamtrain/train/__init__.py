"""Training: the loop, its checkpoints, its ranks, what it shows.

Start with `trainer`. `checkpoint` and `folder` are what is on disk. `monitor` writes every scalar
and figure of TensorBoard, `tensorboard` its layout, its hyper-parameters and the log of
lightcones. `optimiser` has the learning rate, `start` other runs' weights and more steps,
`distributed` how ranks work together.
"""
