"""Maps in files, those of users, of surveys and of other programs.

Start with `skymap`, a map with its axes and units; `read` chooses the reader of a file (`fits`,
whose axes and their kinds are in `fitsimage`, `hdf5`, `npz`, `comap`), `regrid` brings a map to
other voxels. `write` writes a cube as FITS; samples in HDF5 and npz files are written by
`generator.export`.
"""

READING = ("units", "nu_rest_GHz", "index", "hdu", "no_value", "sum_feeds")
"""What a user says of a file that is read, see `read.read_map`."""
