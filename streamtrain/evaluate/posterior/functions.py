"""What is quoted of drawn luminosity functions: bands of their values, and integrals over them.

Quantiles are whole samples, the smallest value that at least this share does not exceed, so that
numbers of halos stay whole. The integrals N(>L), rho_L and <T> are sums over the bins of a label,
linear in the halos of each, so that samples of whole functions give samples of them. They know
nothing of halos outside the label's bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamtrain.arguments import all_numbers, number
from streamtrain.bins import LuminosityBins, luminosity_ranges
from streamtrain.cosmology import HUBBLE, OMEGA_M
from streamtrain.grid import Grid, distance_Mpc
from streamtrain.ranks import depth

Float = NDArray[np.float64]
Interval = tuple[float, float]

TAIL, LARGEST_SHARE = 0.01, 0.25
"""A mean is quoted where the outermost hundredth of the samples carries less than this share of
their distances from the median: of log-normal samples up to a deviation of 1.6 in ln, where 4000 of
them know the mean to 6 %."""
ABOVE = (5.0, 6.0, 6.5)
"""log10(L/Lsun) of the N(>L) that are quoted, where they lie in the label's bins."""
COARSE = 0.03
"""An integral of L that the width of bins may make too large by more than this share is told."""
UNEVEN = 1.3
"""A mean brightness is told to rest on an even spread of light where light at the near end of the
band is more than this much brighter."""
LITTLE = 0.7
"""A map tells little of a number whose 68 % interval is wider than this share of the prior's, in
the logarithm."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Samples of a function of luminosity."""

    samples: Float
    """A function in each row [num_samples, num_bins]."""
    L_Lsun: Float
    """Where each value belongs [Lsun] [num_bins]: centre of a bin; its lower edge for N(>L)."""
    quantity: str
    """A name of `streamtrain.labels.QUANTITIES`."""

    def quantiles(self, levels: ArrayLike) -> Float:
        """Quantiles of each value by itself [len(levels), num_bins]; levels: from 0 to 1."""
        chances = all_numbers(levels, "quantiles: levels")
        if chances.ndim != 1 or not ((chances >= 0.0) & (chances <= 1.0)).all():
            raise ValueError(f"quantiles: levels must be a list of numbers in 0..1, not {chances}")
        return whole_quantiles(self.samples, chances)

    def interval(self, level: float) -> Float:
        """Ends of the central interval of each value by itself [2, num_bins].

        level: the chance that it holds this one value, such as 0.68.
        """
        tail = 0.5 * (1.0 - _level(level))
        return self.quantiles([tail, 1.0 - tail])

    def band(self, level: float) -> Float:
        """Ends of the simultaneous band [2, num_bins]: a function of the posterior lies within it
        everywhere with the chance `level`, such as 0.95.

        It is made of central intervals of each value, all of one level, which is chosen so that the
        share `level` of the samples lie within in every bin, ends included, each looked at with the
        band that the others make. Raises ValueError where there are too few samples for it.
        """
        ends, held = simultaneous_band(self.samples, level)
        if held < level:
            raise ValueError(
                f"a simultaneous {100 * level:g} % band needs more than {len(self.samples)} "
                f"functions: the range of them all holds {100 * held:.1f} % of new ones"
            )
        return ends


def whole_quantiles(samples: Float, levels: ArrayLike) -> Float:
    """The smallest samples [len(levels), ...] that at least these shares of all do not exceed.

    samples: [num_samples, ...]; levels: from 0 to 1, which may be off by a rounding.
    """
    order = np.ceil(np.asarray(levels) * len(samples) - 1e-6).astype(int) - 1
    return np.asarray(np.sort(samples, axis=0)[np.clip(order, 0, len(samples) - 1)])


def has_mean(samples: Float) -> bool:
    """Whether samples [num_samples] have a mean that is worth quoting: one that all of them make,
    and not the few farthest from their median. A count that is drawn from a wide log-normal
    distribution has a mean of no meaning, which the next thousand samples multiply."""
    away = np.sort(np.abs(samples - np.median(samples)))
    total, tail = float(away.sum()), max(1, int(TAIL * len(away)))
    return total == 0.0 or float(away[-tail:].sum()) < LARGEST_SHARE * total


def simultaneous_band(samples: Float, level: float) -> tuple[Float, float]:
    """The band of `Curve.band` around functions [num_samples, num_bins], its ends [2, num_bins],
    and the share of the functions that lie within the band of the others.

    The share is less than `level` where even the range of all samples holds fewer of new ones.
    """
    num = len(samples)
    ordered = np.sort(samples, axis=0)
    # the band of order m reaches from the m-th lowest to the m-th highest value of each bin; a
    # sample lies within that of the others if it is at least m + 1 deep among all
    others = np.sort(depth(samples[:, None])[:, 0]) - 1
    place = int((1.0 - _level(level)) * num + 1e-9)
    order = max(1, int(others[min(place, num - 1)]))
    return np.stack([ordered[order - 1], ordered[num - order]]), float((others >= order).mean())


def _level(level: float) -> float:
    level = number(level, "level")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level = {level:g} must lie between 0 and 1, such as 0.68 or 0.95")
    return level


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
    None. Where a few samples decide the mean, it is None (`has_mean`).
    """

    name: str
    unit: str
    """'' for a number."""
    meaning: str
    """What it is, in words."""
    mean: float | None
    median: float | None
    interval_68: Interval | None
    """Central interval, 16 to 84 %."""
    interval_95: Interval | None
    """Central interval, 2.5 to 97.5 %."""
    prior_68: Interval | None = None
    """The 68 % interval over maps of the prior, 16 to 84 %: what is known without the map. None
    where that is not known."""
    prior_95: Interval | None = None
    """The 95 % interval of the same maps, 2.5 to 97.5 %."""

    @property
    def value(self) -> float:
        """The median, or the mean where that alone is known."""
        found = self.mean if self.median is None else self.median
        assert found is not None
        return found

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        if self.median is None or self.interval_68 is None:
            return f"{self.name} = {self.value:.4g}{unit} (mean, error not known)"
        low, high = self.interval_68
        above, below = high - self.median, self.median - low
        size = max(abs(self.median), abs(low), abs(high))
        if not 1e-3 <= size < 1e6:
            return f"{self.name} = {self.median:.4g} +{above:.2g} -{below:.2g}{unit}"
        digits = max(0, 3 - int(np.floor(np.log10(size))))
        value, up, down = (f"{number:.{digits}f}" for number in (self.median, above, below))
        return f"{self.name} = {value} +{up} -{down}{unit}"

    @property
    def of_prior(self) -> float | None:
        """How wide the 68 % interval is beside the prior's, in the logarithm; None where one of
        them is not known, or the prior knows the number. Less than a hundredth of the prior's upper
        end counts as that."""
        if self.interval_68 is None or self.prior_68 is None:
            return None
        least = 0.01 * self.prior_68[1]
        own, prior = (
            float(np.log(max(high, least) / max(low, least))) if least > 0.0 else 0.0
            for low, high in (self.interval_68, self.prior_68)
        )
        return own / prior if prior > 0.0 else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file; without what is not known."""
        found: dict[str, Any] = {"unit": self.unit, "meaning": self.meaning}
        if self.mean is not None:
            found |= {"mean": self.mean}
        if self.median is not None and self.interval_68 and self.interval_95:
            found |= {"median": self.median}
            found |= {"low_95": self.interval_95[0], "low_68": self.interval_68[0]}
            found |= {"high_68": self.interval_68[1], "high_95": self.interval_95[1]}
        if self.prior_68 and self.prior_95:
            found |= {"prior_low_95": self.prior_95[0], "prior_low_68": self.prior_68[0]}
            found |= {"prior_high_68": self.prior_68[1], "prior_high_95": self.prior_95[1]}
        return found


def badly_known(found: Sequence[Estimate]) -> str:
    """The names of what a map tells little of, '' where there is nothing of the kind."""
    names = [each.name for each in found if (each.of_prior or 0.0) > LITTLE]
    return " and ".join(", ".join(names).rsplit(", ", 1))


def functionals(
    bins: LuminosityBins, grid: Grid, Omega_m: float = OMEGA_M, h: float = HUBBLE
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


def coarse(edges: Float, counts: Float) -> str:
    """A sentence where integrals of L suffer from the width of bins, else ''.

    edges: log10(L/Lsun) [num_bins + 1]; counts: halos per bin [num_bins]. Halos of a bin count with
    a mean luminosity as if they were evenly spread in ln L; of halos whose number falls as 1/L it
    is (2 cosh(w) - 2) / w^2 times that, with w the width of the bin in ln L.
    """
    width = np.log(10.0) * np.diff(edges)
    light = counts * np.diff(10.0 ** (edges - edges[-1])) / width
    real = light * width**2 / (2.0 * np.cosh(width) - 2.0)
    if not light.sum() > (1.0 + COARSE) * real.sum():
        return ""
    return (
        f"the luminosity bins are up to {np.diff(edges).max():.2g} dex wide, and rho_L and mean "
        "brightness count each halo with the mean luminosity of its bin as if halos were evenly "
        f"spread in ln L: where their number falls as 1/L, that is {light.sum() / real.sum():.2f} "
        "times what they have, which no interval holds; train with narrower bins"
    )


def uneven(grid: Grid, Omega_m: float = OMEGA_M, h: float = HUBBLE) -> str:
    """A sentence where the mean brightness depends on where in the depth of the band the light is,
    else ''; arguments as of `functionals`.

    The same luminosity makes T ~ 1 / chi^2 and I ~ 1 / (chi (1 + z))^2, of which the functional
    takes the mean over the volume.
    """
    z = np.array(grid.z_range)
    ends = 1.0 / distance_Mpc(z, Omega_m, h) ** 2
    if grid.units == "Jy/sr":
        ends = ends / (1.0 + z) ** 2
    num_voxels = float(np.prod(grid.shape))
    mean = num_voxels * _brightness(grid, Omega_m, h) / grid.volume_Mpc3(Omega_m, h)
    near, far = grid.intensity_factor * ends / mean
    if not near > UNEVEN:
        return ""
    name = "<T>" if grid.units == "uK" else "<I>"
    return (
        f"{name} takes the light to be evenly spread in the volume of z = {z[0]:.3g} to "
        f"{z[1]:.3g}: all of it at the near end would be {near:.2f} times as bright, at the far "
        f"end {far:.2f} times, which no interval holds; rho_L does not rest on it"
    )


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
    depth = np.diff(distance_Mpc(z, Omega_m, h))
    if grid.units == "Jy/sr":
        depth = depth / (1.0 + 0.5 * (z[1:] + z[:-1])) ** 2
    return float(grid.intensity_factor * grid.pixel_sr * depth.sum() / grid.shape[0])
