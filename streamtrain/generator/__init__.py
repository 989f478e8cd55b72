"""Samples as a pure function of (configuration, seed, split, index).

Start with `generator`. A sample is drawn from its index by a kernel (`kernel_draws`, whose formulas
`recorder` takes from what NumPy does in `line` and `expectation`; `draws` is NumPy alone), painted
from a window of lightcones (`windows`, `painter`; `halos` is what a device holds of them, `pose`
how a field is rolled and mirrored) and observed (`pipeline`). `paint` and `observe` are the same
for one map, `export` writes samples to files. `open` opens the lightcones of a configuration,
`scenes` makes what is painted of them, and refuses more halos than memory holds.
"""
