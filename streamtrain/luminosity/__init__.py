"""Luminosity models: how brightly a halo of given mass and redshift shines in a line.

Start with `model`, what a model consists of, its scatter and its duty cycle among it (which
`kernels/paint.cu` applies to a halo); published ones are in `co` and `cii_lya`, and `registry`
finds them, or a user's, by name. `mixture` and `streamtrain.priors` say how parameters are drawn,
`modifiers` what else changes a halo's light, `columns` what a model reads of a halo besides;
`trace` turns a model's Python into kernel code, which `printer` writes. `settings` is the section
`emit`, `lines` has the lines' names and frequencies.
"""
