"""Errors by the number of bright halos in a map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamtrain.evaluate.bootstrap import Bootstrap, Float
from streamtrain.evaluate.likelihood import deviance
from streamtrain.evaluate.metrics import Bool
from streamtrain.generator.bins import bright_above

NUM_GROUPS = 4
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class GroupScore:
    """Errors over all bins of the maps with a certain number of bright halos."""

    bright: tuple[int, int]
    """Fewest and most halos between `bright_above` and the last luminosity bin."""
    maps: int
    mse: float
    """Mean squared error of log10 dN, empty bins included [dex^2]."""
    mse_error: float | None
    rms_dex: float | None
    """Root mean square of p - t over occupied bins [dex]; None where there is none."""
    rms_dex_error: float | None
    deviance: float
    """Mean Poisson deviance per bin [nat]."""
    deviance_error: float | None


def num_bright(counts: Float, bin_edges: Float) -> Float | None:
    """Bright halos of each map [num_samples]; None where no bin is bright. counts: halos per bin
    [num_samples, num_bins]."""
    bright = bin_edges[:-1] >= bright_above(bin_edges) - _TOLERANCE
    return np.asarray(counts[:, bright].sum(axis=1)) if bright.any() else None


def score_groups(
    predicted: Float,
    rates: Float,
    true: Float,
    dN: Float,
    occupied: Bool,
    bright: Float,
    bootstrap: Bootstrap,
) -> list[GroupScore]:
    """Errors of a predictor for each quarter of the maps, ordered by their number of bright halos;
    maps with equal numbers stay together.

    predicted, rates, true, dN, occupied: as in `score` and `score_counts`; bright: [num_samples].
    """
    ends = np.unique(np.percentile(bright, np.linspace(0, 100, NUM_GROUPS + 1)))
    group = np.digitize(bright, ends[1:-1]) if len(ends) > 2 else np.zeros(len(bright), int)
    squares, costs = (predicted - true) ** 2, deviance(rates, dN).mean(axis=1)
    inside = np.where(occupied, squares, 0.0).sum(axis=1)
    number = occupied.sum(axis=1).astype(np.float64)
    per_map = squares.mean(axis=1)
    scores = []
    for k in np.unique(group):
        chosen = group == k
        some = bootstrap.among(chosen)
        held = number[chosen].sum()
        rms = float(np.sqrt(inside[chosen].sum() / held)) if held else None
        scores.append(
            GroupScore(
                bright=(int(bright[chosen].min()), int(bright[chosen].max())),
                maps=int(chosen.sum()),
                mse=float(per_map[chosen].mean()),
                mse_error=some.mean(per_map[chosen]),
                rms_dex=rms,
                rms_dex_error=some.ratio(inside[chosen], number[chosen], root=True),
                deviance=float(costs[chosen].mean()),
                deviance_error=some.mean(costs[chosen]),
            )
        )
    return scores
