"""The lightcones of one split, side by side in one set of arrays, ready for the device.

A halo's row in the bank is its row in its lightcone plus the lightcone's first row; its identity
for the random numbers is the row in its lightcone, so the other lightcones never matter.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamtrain import portable
from streamtrain.catalogs.lightcone import CatalogError, Lightcone
from streamtrain.resources import shipped

Float32 = NDArray[np.float32]


class NoFileError(CatalogError):
    """A lightcone file that is not there."""


class Bank:
    """Lightcones one after the other, on the host.

    Arrays [num_rows]: x, y, z [Mpc], log2_mass (of M/Msun), log2_1pz (of 1 + z_obs), float32.
    """

    def __init__(self, lightcones: Sequence[Lightcone]) -> None:
        if not lightcones:
            raise CatalogError("a generator needs at least one lightcone")
        self.lightcones = list(lightcones)
        sizes = [len(lightcone) for lightcone in lightcones]
        self.first_row = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        if self.num_rows >= 2**32:
            raise CatalogError(f"{self.num_rows} halos are more than a bank holds (2^32)")
        self.x, self.y, self.z = (
            self.gather(lambda c, name=name: getattr(c, name))  # type: ignore[misc]
            for name in ("x_Mpc", "y_Mpc", "z_Mpc")
        )
        self.log2_mass = self.gather(lambda c: portable.log2(c.mass_Msun))
        self.log2_1pz = self.gather(lambda c: portable.log2(1.0 + c.z_obs.astype(np.float64)))

    @property
    def num_rows(self) -> int:
        """Halos of all lightcones."""
        return int(self.first_row[-1])

    @property
    def footprints(self) -> NDArray[np.float64]:
        """ra_min, ra_max, dec_min, dec_max [deg] per lightcone [n, 4]."""
        return np.array([c.footprint_deg for c in self.lightcones])

    def gather(self, column: Callable[[Lightcone], NDArray[np.floating]]) -> Float32:
        """One number per halo, float32 [num_rows], computed lightcone by lightcone."""
        return np.concatenate([np.asarray(column(c), np.float32) for c in self.lightcones])


def expand(patterns: Sequence[str], where: str, must_exist: bool = True) -> list[Path]:
    """Files that paths and globs name, sorted by name; CatalogError if one names nothing and
    `must_exist`.

    `configs/...` also finds the files that ship with streamtrain, wherever one stands.
    """
    files: list[Path] = []
    for pattern in patterns:
        found = sorted(glob.glob(pattern, recursive=True))
        if not found and Path(pattern).parts[:1] == ("configs",):
            found = sorted(glob.glob(str(shipped(pattern)), recursive=True))
        if not found and must_exist:
            raise NoFileError(f"{where}: no file matches '{pattern}'")
        files += [Path(name) for name in found if Path(name) not in files]
    return files
