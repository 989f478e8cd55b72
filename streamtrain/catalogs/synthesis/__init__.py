"""Lightcones made by streamtrain: `catalog make`, and fresh ones during training.

The box of a field (`box`), its linear density (`density`), mass function (`massfunction`), halos
drawn from both (`halo_rates`, `sampler`), one lightcone (`synthesize`), many (`make`), endless ones
(`fresh`).
Start with `synthesize`; what can be chosen is in `options`.
"""
