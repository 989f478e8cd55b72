"""Training: the loop, its checkpoints, its ranks, what it shows.

Start with `trainer`. `checkpoint` and `folder` are what is on disk, `monitor` and `tensorboard`
what is shown, `distributed` how ranks work together.
"""
