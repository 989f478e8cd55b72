"""What a configuration will generate, before training on it.

`prior` shows the luminosity functions that its models and priors span, `sample` one of its samples
step by step; each has its figures beside it. `compare_catalogs` sets the maps that lightcones make
next to one another.
"""
