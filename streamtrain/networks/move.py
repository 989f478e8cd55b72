"""A posterior of counts shifted and widened after the training, by the rank of halos in their map.

A maker of halo catalogues has more or fewer halos than another by a factor that depends on mass.
Which mass shines at L depends on the luminosity function: the N(>L) brightest halos are about the
heaviest ones. So what is shifted alike in all maps is what has the same N(>L), not the same L.

Axes: b map, k luminosity bin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from streamtrain.numerics.portable import LN10


@dataclass(frozen=True)
class Move:
    """Shift and ln of the width of ln N, linear in log10 N(>L) between knots, those of the nearest
    knot beyond them."""

    log10_N: tuple[float, ...]
    """The knots: log10 of the halos in the map above the lower edge of a bin, as a head's point
    estimate has them."""
    shift_dex: tuple[float, ...]
    """Added to log10 of the count."""
    width: tuple[float, ...]
    """Factor of the distance from the point estimate, in log10 of the count; above 0."""

    def at(self, centre: Tensor) -> tuple[Tensor, Tensor]:
        """Shift of ln N, and width, of every bin, float64 [B, num_bins] each.

        centre: ln of the point estimate of the counts [B, num_bins].
        """
        place = log10_above(centre)
        knots, shift, ln_width = (
            torch.tensor(row, dtype=torch.float64, device=centre.device)
            for row in (self.log10_N, self.shift_dex, np.log(self.width).tolist())
        )
        if len(knots) == 1:
            return LN10 * shift.expand_as(place), ln_width.exp().expand_as(place)
        left = torch.searchsorted(knots, place.contiguous()).clamp(1, len(knots) - 1) - 1
        share = ((place - knots[left]) / (knots[left + 1] - knots[left])).clamp(0.0, 1.0)
        moved, ln = (row[left] + share * (row[left + 1] - row[left]) for row in (shift, ln_width))
        return LN10 * moved, ln.exp()


def log10_above(centre: Tensor) -> Tensor:
    """log10 N(>L) at the lower edge of each bin, float64; centre: ln of counts [B, num_bins]."""
    return centre.double().flip(-1).logcumsumexp(-1).flip(-1) / LN10
