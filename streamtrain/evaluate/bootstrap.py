"""Standard errors from resampled test maps or lightcones, and the coverage of predicted intervals.

A head that predicts a distribution has quantiles of the label. Coverage is the share of bins in
which the truth lies between two of them, ends included: 0.68 and 0.95 for an honest network.
Sharpness is the mean width of the interval [dex]: of two honest networks the sharper knows more.
Numbers of a few halos are discrete, so their intervals cover more than 0.68 and 0.95, and, as in
the label, no halo and one halo are one value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.bins import ranges_with_bins

Float = NDArray[np.float64]

RESAMPLES, SEED = 400, 0
"""A standard error is known to about 4 %."""
ENOUGH_LIGHTCONES = 8
"""From this number of skies on they are resampled instead of maps; with fewer, the scatter between
them is hardly known."""
UNITS = ("auto", "maps", "lightcones")

_FEW = 2000
"""Up to this many values all resamples are ordered at once."""


class Bootstrap:
    """How often each test map is in each resample.

    blocks: number of the block that each map belongs to [num_maps]; blocks are drawn whole, with
    replacement. unit: what a block is, num_skies: those that the maps come from, for the record.
    Errors are None where there is one block, also of what a single one of them has.
    """

    def __init__(
        self,
        blocks: NDArray[np.int64],
        unit: str = "maps",
        num_skies: int | None = None,
    ) -> None:
        self.unit, self.num_skies = unit, num_skies
        _, block = np.unique(blocks, return_inverse=True)
        self._block, self.num_blocks = block, int(block.max()) + 1
        drawn = np.random.default_rng(SEED).multinomial(
            self.num_blocks, np.full(self.num_blocks, 1.0 / self.num_blocks), RESAMPLES
        )
        self._times = drawn.astype(np.float64)[:, block]

    @classmethod
    def of_maps(cls, num_maps: int, num_skies: int | None = None) -> Bootstrap:
        """Single maps are drawn."""
        return cls(np.arange(num_maps), "maps", num_skies)

    @classmethod
    def choose(cls, skies: Sequence[str], unit: str = "auto") -> Bootstrap:
        """Over the skies of the maps (`unit` "lightcones"), over single maps ("maps"), or over
        skies where there are `ENOUGH_LIGHTCONES` of them ("auto").

        skies: what each map was cut from [num_maps]. Raises ValueError where there is one sky.
        """
        if unit not in UNITS:
            raise ValueError(f"bootstrap over {unit!r} is none of {', '.join(UNITS)}")
        names, block = np.unique(np.asarray(skies), return_inverse=True)
        if unit == "lightcones" and len(names) < 2:
            raise ValueError(
                "errors cannot come from a bootstrap over lightcones: the test set has one"
            )
        if unit == "lightcones" or (unit == "auto" and len(names) >= ENOUGH_LIGHTCONES):
            return cls(block, "lightcones", len(names))
        return cls.of_maps(len(block), len(names))

    def describe(self) -> dict[str, Any]:
        """How errors are estimated, as plain data for a JSON file."""
        return {
            "resampled": self.unit,
            "number": self.num_blocks,
            "resamples": RESAMPLES,
            "seed": SEED,
            "skies": self.num_skies,
            "without": self._without(),
        }

    def _without(self) -> str | None:
        """What the errors do not know of, a sentence."""
        if self.unit != "maps" or self.num_skies is None or self.num_skies >= self.num_blocks:
            return None
        few = self.num_skies < ENOUGH_LIGHTCONES
        whence = "one sky" if self.num_skies == 1 else f"{self.num_skies} skies"
        return (
            f"the maps come from {whence}, and the scatter from sky to sky is not in the errors, "
            "which may make them several times too small; "
            + (
                f"from {ENOUGH_LIGHTCONES} test skies on it is"
                if few
                else "--bootstrap lightcones has it"
            )
        )

    @property
    def _growth(self) -> float:
        """What numbers of resamples of n blocks scatter too little by: the variance of their mean
        is that of a population of these n, (n - 1) / n of the unbiased one; 7 % of an error over 8
        skies."""
        return float(np.sqrt(self.num_blocks / (self.num_blocks - 1.0)))

    def ratio(self, sums: Float, counts: Float, *, root: bool = False) -> float | None:
        """Standard error of sum(sums) / sum(counts), or of its square root; both per map."""
        if self._alone(self._block[counts > 0]):
            return None
        totals, numbers = self._times @ sums, self._times @ counts
        ratios = totals[numbers > 0] / numbers[numbers > 0]
        if len(ratios) < 2:
            return None
        spread = np.std(np.sqrt(np.maximum(ratios, 0.0)) if root else ratios, ddof=1)
        return float(self._growth * spread)

    @staticmethod
    def _alone(blocks: NDArray[np.int64]) -> bool:
        """Whether less than two blocks have values: those of one scatter in no resample."""
        return not len(blocks) or bool((blocks == blocks[0]).all())

    def mean(self, values: Float) -> float | None:
        """Standard error of the mean of one value per map."""
        return self.ratio(values, np.ones(len(values)))

    def percentiles(
        self, values: Float, maps: NDArray[np.int64], percentiles: Sequence[float]
    ) -> list[float] | None:
        """Standard errors of percentiles (as `np.percentile` has them) of values that belong to
        `maps`; both [num_values]."""
        if self._alone(self._block[maps]):
            return None
        order = np.argsort(values, kind="stable")
        ordered, owner = values[order], maps[order]
        share = np.asarray(percentiles) / 100.0
        chunk = RESAMPLES if len(values) <= _FEW else 1
        made = []
        for first in range(0, RESAMPLES, chunk):
            reached = np.cumsum(self._times[first : first + chunk, owner], axis=1)
            reached = reached[reached[:, -1] > 0]
            place = share[:, None] * (reached[:, -1] - 1)
            below = np.floor(place)
            low, high = (
                ordered[_first_above(reached, np.minimum(rank, reached[:, -1] - 1))]
                for rank in (below, below + 1)
            )
            made.append(low + (place - below) * (high - low))
        spread = np.concatenate(made, axis=1)
        if spread.shape[1] < 2:
            return None
        return [float(self._growth * error) for error in np.std(spread, axis=1, ddof=1)]

    def among(self, chosen: NDArray[np.bool_]) -> Bootstrap:
        """These resamples, restricted to some of the maps; chosen: [num_maps]."""
        part = object.__new__(Bootstrap)
        part.unit, part.num_blocks = self.unit, self.num_blocks
        part.num_skies = self.num_skies
        part._block, part._times = self._block[chosen], self._times[:, chosen]
        return part


def _first_above(reached: Float, ranks: Float) -> NDArray[np.int64]:
    """Where each row of `reached` [n, num_values], which never falls, first exceeds its rank; ranks
    [num_percentiles, n]."""
    if len(reached) == 1:
        return np.searchsorted(reached[0], ranks, side="right")
    return np.stack([(reached <= rank[:, None]).sum(axis=1) for rank in ranks])


TOLERANCE_DEX = 1e-6
"""Labels are float32; a truth this far outside an interval lies on its end."""


@dataclass(frozen=True)
class RangeIntervals:
    """Coverage and sharpness in one luminosity range, over all bins and maps."""

    log10_L: tuple[float, float]
    coverage_68: float
    coverage_68_error: float | None
    coverage_95: float
    coverage_95_error: float | None
    width_68: float
    """Mean distance of the 16th and 84th percentile of log10 dN [dex]."""
    width_68_error: float | None
    width_95: float
    """Mean distance of the 2.5th and 97.5th percentile of log10 dN [dex]."""
    width_95_error: float | None


@dataclass(frozen=True)
class IntervalScore:
    """Coverage and width of the intervals that one network predicts."""

    ranges: list[RangeIntervals]
    whole: RangeIntervals


def score_intervals(
    quantiles: Float, true: Float, bin_edges: Float, bootstrap: Bootstrap
) -> IntervalScore:
    """Coverage and sharpness of predicted quantiles.

    quantiles: of log10 dN at `INTERVAL_ENDS` [4, num_samples, num_bins]; true: [num_samples,
    num_bins].
    """
    low95, low68, high68, high95 = quantiles
    made = [
        ((low - TOLERANCE_DEX <= true) & (true <= high + TOLERANCE_DEX), high - low)
        for low, high in ((low68, high68), (low95, high95))
    ]

    def of(bounds: tuple[float, float], inside: np.ndarray) -> RangeIntervals:
        numbers = []
        for covered, width in made:
            for values in (covered, width):
                per_map = values[:, inside].mean(axis=1)
                numbers.append((float(per_map.mean()), bootstrap.mean(per_map)))
        (c68, e68), (w68, f68), (c95, e95), (w95, f95) = numbers
        return RangeIntervals(bounds, c68, e68, c95, e95, w68, f68, w95, f95)

    everything = np.ones(true.shape[1], bool)
    return IntervalScore(
        [of(bounds, inside) for bounds, inside in ranges_with_bins(bin_edges)],
        of((float(bin_edges[0]), float(bin_edges[-1])), everything),
    )
