"""What a trained network says of a user's map.

Start with `infer`, the command. `prepare` brings a map to the grid of the network, `output` writes
what comes out, `parameter_posterior` is that of the luminosity model, `known_errors` the network's
errors on its test set, `training_field` the field that all is quoted for. `processing` and `zeros`
ask what a survey has done to its map.
"""
