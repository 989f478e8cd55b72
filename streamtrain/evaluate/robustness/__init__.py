"""How a run does where skies, models, noise or beams are not those of its training.

Start with `scenarios`: a table of changed settings (`matrix`), as `scenario_sets` reads them or
makes them of published luminosity models, beside the error that no network can avoid
(`parameter_oracle`). `makers` takes halo catalogues of other makers, `blind` maps that no training
sees; all find their skies and folders with `other_skies`.
"""
