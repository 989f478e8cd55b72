"""How far a posterior of counts is off, from drawn functions and truths of a few skies.

Halos of another maker have other luminosity functions behind maps that look alike. Here x is ln N
of a drawn function in a bin, c the head's point estimate of it, n = log10 N(>L) by that estimate,
and

    x' = c + s(n) + w(n) (x - c),

with s and ln w linear between knots in n. Why n and not L: see `streamtrain.networks.move`. Bins of
one function keep their correlation, so integrals stay those of the bins. `joint_counts` moves its
blocks and halves by what their bins move, which is the same for small moves, and its probability of
counts stays exact (`Head.moved`). s and w minimise the continuous ranked probability score
(Gneiting and Raftery 2007), a proper one, in posterior deviations of each map, of single bins and
of sums over bins, half and half: bins alone do not see whether their correlation is right. As much
weight as `PSEUDO_MAPS` maps have is on w = 1.

A few skies do not tell the mean of all of their maker: the error e of s, from the scatter between
skies, is missing in the scatter about s and is an error of s itself, so that w^2 grows by
2 (e / sigma)^2, where sigma is the posterior's deviation. With one or two skies the scatter is
mostly that of `SKY_SCATTER`.

Axes: s drawn function, b map, k luminosity bin, m sum over bins, j knot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.networks.move import log10_above
from streamtrain.numerics.portable import LN10

Float = NDArray[np.float64]

PSEUDO_MAPS = 30.0
"""Weight of the widths that the network has, in maps."""
CURVATURE = 0.141
"""Half of the second derivative of the score of a normal distribution by ln of its width, where it
is right, in deviations: phi(0) / sqrt(8)."""
KNOTS, WIDTH_KNOTS, ENDS = 16, 4, (0.005, 0.995)
"""Knots of the shift and of the width, and the shares of all bins below the first and the last."""
SKY_SCATTER, SKY_WEIGHT = 0.4, 3.0
"""Scatter between skies that is assumed before any is seen, in deviations of a bin's posterior, and
its weight in skies. Of the quickstart's network it is 0.15 to 0.6 on 16 of its own test skies."""
LARGEST_LN = 36.0
"""float64 holds every whole number up to here."""
STEPS = 40
"""Steps of the minimiser, at most."""


@dataclass(frozen=True)
class Fit:
    """Shift and width at knots [j]; see `streamtrain.evaluate.calibration.move_fit`."""

    log10_N: Float
    """The knots, log10 N(>L)."""
    shift_dex: Float
    shift_error_dex: Float
    """Standard error of the shift, from the scatter between skies."""
    width: Float
    """Factor of the distance from the point estimate, with the error of the shift."""
    width_of_maps: Float
    """Factor of that distance without the error of the shift."""
    score: tuple[float, float]
    """What is minimised, before and after."""


def fit(
    drawn: Float,
    truth: Float,
    centre: Float,
    skies: Sequence[str],
    sums: Mapping[str, Float],
    seed: int = 0,
) -> Fit:
    """Shift and width that a posterior lacks.

    drawn: halos per bin [S, B, num_bins]; truth: [B, num_bins]; centre: ln of the counts that
    functions are moved about [B, num_bins]; skies: that of each map [B]; sums: weights [num_bins]
    of sums over bins, by name; seed: of where between two whole numbers a count lies.
    """
    rng = np.random.default_rng(seed)
    x, true = (np.log(values + 1.0 - rng.random(values.shape)) for values in (drawn, truth))
    place = log10_above(torch.from_numpy(centre)).numpy()
    knots = np.unique(np.quantile(place, np.linspace(*ENDS, KNOTS)).round(3))
    few = knots[np.unique(np.linspace(0, len(knots) - 1, WIDTH_KNOTS).round().astype(int))]
    hats, wide = (_hats(place, at) for at in (knots, few))
    median, sigma = np.median(x, axis=0), x.std(axis=0)
    start = _least_squares(hats, true - median, sigma)
    tensors = [torch.from_numpy(rows) for rows in (x, true, centre, hats, wide)]
    score = _Score(tensors, sums)
    theta = torch.from_numpy(np.concatenate([start / LN10, np.zeros(len(few))]))
    before = float(score.of(torch.zeros_like(theta)))
    theta.requires_grad_()
    minimiser = torch.optim.LBFGS([theta], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        minimiser.zero_grad()
        value = score.of(theta) + score.prior(theta)
        value.backward()
        return value

    minimiser.step(closure)
    found = theta.detach()
    shift, width = found[: len(knots)].numpy(), found[len(knots) :].exp().numpy()
    left = (true - median) / LN10 - hats @ shift
    deviation = np.sqrt(_means(wide, (sigma / LN10) ** 2))
    error = shift_error(wide, left, deviation, skies)
    grown = np.sqrt(width**2 + 2.0 * (error / deviation) ** 2)
    if not (np.isfinite(shift).all() and np.isfinite(grown).all()):
        raise ValueError("no shift and width are found: the network's posterior is not finite")
    error, grown, width = (np.interp(knots, few, row) for row in (error, grown, width))
    return Fit(knots, shift, error, grown, width, (before, float(score.of(found))))


def shift_error(hats: Float, left: Float, deviation: Float, skies: Sequence[str]) -> Float:
    """Standard error of the shift of a maker's skies at knots [j].

    hats: weight of each knot in each bin [B, num_bins, j]; left: of truths, when the shift is taken
    away [dex] [B, num_bins]; deviation: of the posterior [dex] [j]; skies: that of each map [B].
    The variance between skies is that of their means, beside `SKY_SCATTER` with its weight.
    """
    names, sky = np.unique(np.asarray(skies), return_inverse=True)
    means = np.stack([_means(hats[sky == k], left[sky == k]) for k in range(len(names))])
    squares = ((means - means.mean(axis=0)) ** 2).sum(axis=0)
    prior = SKY_WEIGHT * (SKY_SCATTER * deviation) ** 2
    return np.asarray(np.sqrt((prior + squares) / (SKY_WEIGHT + len(names) - 1.0) / len(names)))


def _hats(place: Float, knots: Float) -> Float:
    """Weights of linear interpolation [..., j] at places [...]."""
    return np.stack([np.interp(place, knots, row) for row in np.eye(len(knots))], axis=-1)


def _means(hats: Float, values: Float) -> Float:
    """Means of values [B, num_bins] around each knot [j]."""
    total = np.maximum(hats.sum(axis=(0, 1)), 1e-9)
    return np.asarray((hats * values[..., None]).sum(axis=(0, 1)) / total)


def _least_squares(hats: Float, values: Float, sigma: Float) -> Float:
    """What hats [B, num_bins, j] make of values in their deviations, the shift to begin with."""
    weight = 1.0 / np.maximum(sigma, np.median(sigma) / 10.0)
    rows = (hats * weight[..., None]).reshape(-1, hats.shape[-1])
    ridge = 1e-6 * len(rows) * np.eye(hats.shape[-1])
    return np.asarray(np.linalg.solve(rows.T @ rows + ridge, rows.T @ (values * weight).ravel()))


class _Score:
    """Mean score of moved functions in posterior deviations.

    tensors: ln of drawn and true counts [s, b, k] and [b, k], the centre [b, k], weights of the
    knots of shift and width [b, k, j]. theta: shifts, then ln of widths.
    """

    def __init__(self, tensors: Sequence[Tensor], sums: Mapping[str, Float]) -> None:
        x, true, centre, hats, wide = tensors
        self._order = x.argsort(dim=0)  # widths are positive: it stays
        self._x, self._centre, self._hats, self._wide = x - centre, centre, hats, wide
        self._weights = torch.from_numpy(np.stack(list(sums.values()), axis=1))
        positive = torch.where(self._weights > 0, self._weights, torch.inf)
        self._one = positive.amin(dim=0)
        number = len(x)
        rank = torch.arange(1.0, number + 1.0, dtype=torch.float64)
        self._rank = ((2.0 * rank - number - 1.0) / (number * (number - 1.0)))[:, None, None]
        self._true = self._scales(true.exp())
        self._sigma = [values.std(dim=0) for values in self._scales(x.exp())]
        self._sigma[1] = self._sigma[1].clamp(min=float(self._sigma[1].mean()) / 10.0)

    def of(self, theta: Tensor) -> Tensor:
        """The score, 0.56 for exact normal posteriors."""
        shift, ln_width = theta.split([self._hats.shape[-1], self._wide.shape[-1]])
        width = (self._wide @ ln_width).exp()
        moved = self._centre + LN10 * (self._hats @ shift) + width * self._x
        bins, sums = self._scales(moved.clamp(max=LARGEST_LN).exp())
        ordered = (bins.gather(0, self._order), sums.sort(dim=0).values)
        parts = [
            (((values - true).abs().mean(dim=0) - (self._rank * rows).sum(dim=0)) / sigma).mean()
            for values, rows, true, sigma in zip(
                (bins, sums), ordered, self._true, self._sigma, strict=True
            )
        ]
        return torch.stack(parts).mean()

    def prior(self, theta: Tensor) -> Tensor:
        """What the widths that the network has weigh."""
        ln_width = theta[self._hats.shape[-1] :]
        return PSEUDO_MAPS / len(self._centre) * CURVATURE * ln_width.square().mean()

    def _scales(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Bins as in `streamtrain.ranks.tell_apart`, and log10 of sums."""
        bins = torch.asinh(0.5 * counts) / LN10
        return bins, torch.maximum(counts @ self._weights, self._one).log10()
