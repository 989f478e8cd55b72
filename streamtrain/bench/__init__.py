"""`streamtrain bench`: how fast samples are made, how fast the network trains, and both together.

All numbers of one call are measured in turn within one run, so that their ratios mean something on
a noisy machine; each is the median over repetitions. Start with `report`.
"""
