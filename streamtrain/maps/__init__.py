"""Maps in files: those of users and of other programs, and samples for other programs.

Start with `skymap`, a map with its axes and units; `read` chooses the reader of a file, `prepare`
brings a map to the grid of a network, `export` writes samples.
"""
