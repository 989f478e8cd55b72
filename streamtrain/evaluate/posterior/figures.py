"""The figure of a posterior: the luminosity function with its bands, N(>L) and integrals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import floor, log10

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from streamtrain.evaluate.posterior.functions import Curve
from streamtrain.figures import (
    GREY,
    LABEL_SIZE,
    NETWORK,
    SHADES,
    TICK_SIZE,
    TRUTH,
    legend_above,
    style,
)
from streamtrain.labels import QUANTITIES
from streamtrain.ranks import BAND, BANDS

Float = NDArray[np.float64]

UNITS = {"Lsun": r"$L_\odot$", "Mpc-3": r"Mpc$^{-3}$", "uK": r"$\mu$K", "sr-1": r"sr$^{-1}$"}
NAMES = {"rho_L": r"$\rho_L$", "<T>": r"$\langle T \rangle$", "<I>": r"$\langle I \rangle$"}
ABOVE_ALL = 3.0
"""The axis of a curve ends so far above what is drawn."""


@dataclass(frozen=True)
class Shown:
    """What is drawn of a posterior."""

    function: Curve
    """The luminosity function."""
    above: Curve
    """N(>L) of the same samples."""
    bin_edges: Float
    """log10(L/Lsun) [num_bins + 1]."""
    one_halo: Float
    """What one halo is worth in the label's quantity [num_bins]."""
    joint: bool
    """Whether the bins belong together; if not, N(>L) is drawn without errors."""
    texts: tuple[str, ...]
    """Integrals, see `with_errors`."""


def posterior_figure(
    shown: Shown, title: str = "", true: Float | None = None, about: Sequence[str] = ()
) -> Figure:
    """The luminosity function, and N(>L) beside it with the integrals above it.

    title: above both; default: what they are. true: halos per bin where they are known [num_bins];
    about: lines below the title.
    """
    figure = Figure(figsize=(9.6, 5.0), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_function(left, shown, true)
    legend_above(left, 2)
    draw_above(right, shown, true)
    lines = [title or "luminosity function of a map", *about]
    figure.suptitle("\n".join(lines), fontsize=TICK_SIZE if about else LABEL_SIZE)
    return figure


def draw_function(axes: Axes, shown: Shown, true: Float | None = None) -> None:
    """The luminosity function with the intervals of its bins and the band of the whole."""
    known = None if true is None else true * shown.one_halo
    bottom = 0.6 * float(shown.one_halo.min())
    top = _draw(axes, shown.function, bottom, known)
    if shown.function.quantity != "counts":
        at = shown.function.L_Lsun
        axes.plot(at, shown.one_halo, ":", color=GREY, lw=1.2, zorder=1, label="one halo")
    _finish(axes, shown.function, shown.bin_edges, (bottom, top))


def draw_above(axes: Axes, shown: Shown, true: Float | None = None) -> None:
    """N(>L) with the integrals above it."""
    known = None if true is None else np.flip(np.cumsum(np.flip(true)))
    top = None
    if shown.joint:
        top = _draw(axes, shown.above, 0.6, known)
    else:
        mean = shown.above.samples.mean(axis=0)
        axes.plot(shown.above.L_Lsun, mean, color=NETWORK, lw=1.8, label="mean")
    _finish(axes, shown.above, shown.bin_edges, (0.6, top))
    numbers = [text for text in shown.texts if "=" in text]
    rows = [",   ".join(numbers[k : k + 2]) for k in range(0, len(numbers), 2)]
    rows += [text for text in shown.texts if "=" not in text]
    axes.set_title("\n".join(rows), fontsize=TICK_SIZE - 1, linespacing=1.5)


def _draw(axes: Axes, curve: Curve, bottom: float, true: Float | None) -> float:
    """A curve with its band and intervals, and the upper end of the axis for it: what the truth and
    the intervals of bins need. What is zero lies below the axis; where the tails of the posterior
    are long, a part of the band lies above, which the legend says."""

    def fill(ends: Float, colour: str, label: str) -> None:
        low, high = np.clip(ends, 0.1 * bottom, 10.0 * top)
        axes.fill_between(curve.L_Lsun, low, high, color=colour, lw=0, label=label)

    seen = [curve.interval(BANDS[-1])[1], *([] if true is None else [true])]
    top = ABOVE_ALL * max(10.0 * bottom, *(float(values.max()) for values in seen))
    with suppress(ValueError):  # of few samples
        band = curve.band(BAND)
        most = float(band[1].max())
        beyond = f", up to {most:.1g}" if most > top else ""
        fill(band, SHADES[0], f"whole curve, {100 * BAND:g} %{beyond}")
    for level, colour in zip(BANDS[::-1], SHADES[1:], strict=True):
        fill(curve.interval(level), colour, f"each bin alone, {100 * level:g} %")
    (median,) = np.maximum(curve.quantiles([0.5]), 0.1 * bottom)
    axes.plot(curve.L_Lsun, median, color=NETWORK, lw=1.8, label="median")
    if true is not None:
        some = true > 0
        at = curve.L_Lsun[some]
        axes.plot(at, true[some], "o", color=TRUTH, ms=2.8, zorder=4, label="true")
    return top


def _finish(axes: Axes, curve: Curve, bin_edges: Float, ends: tuple[float, float | None]) -> None:
    axes.set_yscale("log")
    axes.set_ylim(*ends)
    style(axes, bin_edges)
    axes.set_axisbelow(False)
    axes.set_xlabel(r"$L$ [$L_\odot$]", fontsize=LABEL_SIZE)
    axes.set_ylabel(QUANTITIES[curve.quantity].axis, fontsize=LABEL_SIZE)


def with_errors(name: str, unit: str, value: float, ends: tuple[float, float] | None) -> str:
    """A number of a name, with its errors and unit, in matplotlib's mathematics.

    ends: of the 68 % interval, None where it is not known.
    """
    symbol = NAMES.get(name) or re.sub(r"N\(>10\^([\d.]+)\)", r"$N(>10^{\1}\,L_\\odot)$", name)
    words = " ".join(UNITS.get(word, word) for word in unit.split())
    size = max(abs(value), *(abs(end) for end in ends or ()), 0.0)
    if size == 0.0:
        return f"{symbol} = 0 {words}".rstrip()
    power = floor(log10(size)) if not 1e-2 <= size < 1e5 else 0
    scale = 10.0**power
    errors: Sequence[float] = ()
    if ends is not None:
        errors = ((ends[1] - value) / scale, (value - ends[0]) / scale)
    smallest = min((error for error in errors if error > 0), default=0.1 * size / scale)
    whole = not (power or unit or any(number % 1.0 for number in (value, *errors)))
    digits = 0 if whole else max(0, 1 - floor(log10(smallest)))
    number = f"{value / scale:.{digits}f}"
    if errors:
        number += f"^{{+{errors[0]:.{digits}f}}}_{{-{errors[1]:.{digits}f}}}"
    if power:
        number += rf"\times 10^{{{power}}}"
    return f"{symbol} = ${number}$ {words}".rstrip()
