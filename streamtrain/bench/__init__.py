"""`streamtrain bench`: how fast samples are made, how fast the network trains, and both together.

All numbers of one call are measured in turn within one run, so that their ratios mean something on
a noisy machine; each is the median over repetitions. Start with `report`. `speed` measures a
configuration as it is, `scaling` other sizes of batches, fields and lightcones, `models` other
models and operators, `training` the options of a step, `ranks` several processes; `roofline` is
what a sample must cost at least, `comparison` times one beside what one would write without
streamtrain (`alternatives`), `variants` the paint kernel with other numbers of threads.
"""
