"""What a trained network is worth, and what it says of a map.

Start with `evaluation`: a test set (`testset`), the network of a run (`run`), its predictions,
their `scores`, with errors by `bootstrap`, beside those of `baselines` (`report`), figures. Rooms
within ask more of a run: `posterior`, `calibration` and `alarm` whether to believe it, `robustness`
how it does elsewhere, `compare` other runs, `interpret` what it has learned; `inference` reads a
user's map and `repaint` paints it again.
"""
