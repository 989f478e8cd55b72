"""Lightcones made by streamtrain: `catalog make`, and fresh ones during training.

Linear density field (`density`), mass function (`massfunction`), halos drawn from both
(`halo_rates`, `sampler`), one lightcone (`synthesize`), many (`make`), endless ones (`fresh`).
Start with `synthesize`; what can be chosen is in `options`.
"""
