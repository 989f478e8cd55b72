"""Integrals over a luminosity function that are quoted with an error: N(>L), rho_L and <T>.

All are sums over the bins of a label, linear in the halos of each, so that samples of whole
luminosity functions give samples of them. They know nothing of halos outside the label's bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.grid import Grid, distance_Mpc
from streamtrain.labels import LuminosityBins, luminosity_ranges

Float = NDArray[np.float64]
Interval = tuple[float, float]

ABOVE = (5.0, 6.0, 6.5)
"""log10(L/Lsun) of the N(>L) that are quoted, where they lie in the label's bins."""


@dataclass(frozen=True)
class Functional:
    """A sum over the bins of a luminosity function."""

    name: str
    """For tables and keys of JSON, such as 'N(>10^6)'."""
    unit: str
    """'' for a number, 'Lsun Mpc-3', 'uK', 'Jy sr-1'."""
    meaning: str
    """What it is, in words."""
    weights: Float
    """What one halo in each bin adds [num_bins]."""

    def of(self, counts: NDArray[np.floating]) -> Float:
        """The sums [...] of halos per bin [..., num_bins]."""
        return np.asarray(counts @ self.weights)


@dataclass(frozen=True)
class Estimate:
    """What is quoted of a number that follows from a luminosity function.

    Where the bins of a posterior are independent, the mean alone is known: median and intervals are
    None.
    """

    name: str
    unit: str
    """'' for a number."""
    meaning: str
    """What it is, in words."""
    mean: float
    median: float | None
    interval_68: Interval | None
    """Central interval, 16 to 84 %."""
    interval_95: Interval | None
    """Central interval, 2.5 to 97.5 %."""

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        if self.median is None or self.interval_68 is None:
            return f"{self.name} = {self.mean:.4g}{unit} (mean, error not known)"
        low, high = self.interval_68
        above, below = high - self.median, self.median - low
        size = max(abs(self.median), abs(low), abs(high))
        if not 1e-3 <= size < 1e6:
            return f"{self.name} = {self.median:.4g} +{above:.2g} -{below:.2g}{unit}"
        digits = max(0, 3 - int(np.floor(np.log10(size))))
        value, up, down = (f"{number:.{digits}f}" for number in (self.median, above, below))
        return f"{self.name} = {value} +{up} -{down}{unit}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file; without what is not known."""
        found: dict[str, Any] = {"unit": self.unit, "meaning": self.meaning, "mean": self.mean}
        if self.median is not None and self.interval_68 and self.interval_95:
            found |= {"median": self.median}
            found |= {"low_95": self.interval_95[0], "low_68": self.interval_68[0]}
            found |= {"high_68": self.interval_68[1], "high_95": self.interval_95[1]}
        return found


def functionals(
    bins: LuminosityBins, grid: Grid, Omega_m: float = 0.286, h: float = 0.7
) -> list[Functional]:
    """N(>L), rho_L and the mean brightness of the halos in a label's bins.

    bins: of the label; grid: of the field that is looked at; Omega_m, h: of its lightcones. A halo
    counts with the mean luminosity of its bin, where halos are evenly spread in ln L. N(>L) ends at
    the label's last edge. Where no edge lies at an L of `ABOVE` (within 0.02 dex), the edges
    nearest to where the label's two brightest ranges begin are taken instead.
    """
    edges = bins.edges
    found = [_above(edges, log10_L) for log10_L in _thresholds(edges)]
    density = bins.mean_Lsun / grid.volume_Mpc3(Omega_m, h)
    found.append(
        Functional(
            "rho_L",
            "Lsun Mpc-3",
            f"luminosity per comoving volume of halos of {edges[0]:g} to {edges[-1]:g} in "
            "log10(L/Lsun)",
            density,
        )
    )
    name, unit = ("<T>", "uK") if grid.units == "uK" else ("<I>", "Jy sr-1")
    found.append(
        Functional(
            name,
            unit,
            "mean brightness of the line from these halos, evenly spread in the field's volume",
            density * _brightness(grid, Omega_m, h),
        )
    )
    return found


def _thresholds(edges: Float) -> list[float]:
    """log10 L of the N(>L) that are quoted."""
    near = [float(edges[np.abs(edges - log10_L).argmin()]) for log10_L in ABOVE]
    inside = [
        edge
        for edge, log10_L in zip(near, ABOVE, strict=True)
        if abs(edge - log10_L) <= 0.02 and edge < edges[-1]
    ]
    lows = [float(edges[np.abs(edges[:-1] - low).argmin()]) for low, _ in luminosity_ranges(edges)]
    return inside or list(dict.fromkeys(lows[-2:]))


def _above(edges: Float, log10_L: float) -> Functional:
    inside = edges[:-1] >= log10_L - 1e-9
    name = f"N(>10^{log10_L:.4g})"
    return Functional(
        name, "", f"halos of {log10_L:.4g} to {edges[-1]:g} in log10(L/Lsun)", inside.astype(float)
    )


def _brightness(grid: Grid, Omega_m: float, h: float) -> float:
    """Mean of a cube's voxels [grid.units] for a luminosity density of 1 Lsun/Mpc^3.

    A voxel at comoving distance chi has the volume pixel chi^2 dchi, so that in T = c L / chi^2 the
    distance cancels but for the depth of the band.
    """
    steps = 256
    z = np.linspace(*grid.z_range, steps + 1)
    chi = np.array([distance_Mpc(float(value), Omega_m, h) for value in z])
    depth = np.diff(chi)
    if grid.units == "Jy/sr":
        depth = depth / (1.0 + 0.5 * (z[1:] + z[:-1])) ** 2
    return float(grid.intensity_factor * grid.pixel_sr * depth.sum() / grid.shape[0])
