"""What a network has learned, and what its layers do with a map.

Start with `probes`: maps changed in ways whose effect is known. `layers`, the command `layers`,
follows one map through the network; `layer_figures` draws it.
"""
