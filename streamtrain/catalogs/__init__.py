"""Halo lightcones: their files, who made them, and how they are made.

Start with `lightcone`: the halos of one random universe as the observer sees them. `headers` and
`skies` read what files say of themselves and keep splits apart, `settings` is the section `data`,
which says what files each split has; `rows` has the halos themselves, whose redshift z_obs contains
their motion, `sfr` gives them star-formation rates; `readers` has the catalogues of other programs,
`synthesis` the maker of new lightcones.
"""
