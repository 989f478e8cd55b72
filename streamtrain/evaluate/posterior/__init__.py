"""The joint posterior of a map's luminosity function, and what is quoted of it.

Start with `posterior`: drawn functions of one map, their bands and integrals (`functions`), the
figure (`figures`).
"""
