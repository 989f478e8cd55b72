"""Whether a map is one of those that a network was trained on.

Start with `alarm`: the test and its false-alarm rate, in the numbers of `statistics`. `watch`
keeps the alarm of a run and judges maps by it, `report` is the command `alarm`.
"""
