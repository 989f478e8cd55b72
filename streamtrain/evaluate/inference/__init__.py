"""What a trained network says of a user's map.

Start with `infer`, the command. `prepare` brings a map to the grid of the network, `output`
writes what comes out, `parameters` is the posterior of the luminosity model, `reference` the
network's errors on its test set, `training_field` the field that all is quoted for.
"""
