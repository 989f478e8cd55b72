"""Maps in files, those of users, of surveys and of other programs.

Start with `skymap`, a map with its axes and units; `read` chooses the reader of a file, `regrid`
brings a map to other voxels.
"""
