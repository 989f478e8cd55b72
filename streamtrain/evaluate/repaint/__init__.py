"""Whether a map is what its posterior paints: new maps painted from it, beside the map.

Start with `repaint`. `model_fit` finds luminosity models with given numbers of halos, `painter`
paints them, `statistics` is what painted maps and the map are compared in, `figures` shows it.
"""
