"""What a trained network is worth, and what it says of a map.

Start with `evaluation`: a test set (`testset`), the network of a run (`run`), its predictions,
their scores and figures. `infer` reads a user's map, which `prepare`
brings to the grid of the network; `scenarios`, `probes`, `layers` look further.
"""
