"""The classical method, beside the network: parameters from P(k) and VID by Markov chains.

Start with `inference`: simulations make an emulator and a covariance (`simulations`, `emulator`), a
likelihood is sampled (`likelihood`, `sampling`), and `report` says what came out.
"""
