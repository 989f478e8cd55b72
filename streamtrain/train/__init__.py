"""Training: the loop, its checkpoints, its ranks, its record.

Start with `trainer`. `checkpoint` and `folder` are what is on disk, `monitor` and `tensorboard`
what is shown, `distributed` how ranks work together.
"""
