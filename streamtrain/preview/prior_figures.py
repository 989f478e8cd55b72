"""Figures of a prior: what its draws look like (prior.png), one map's label (luminosity.png)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from streamtrain.figures import (
    GREY,
    LABEL_SIZE,
    NETWORK,
    SERIES,
    TICK_SIZE,
    TRUTH,
    Float,
    legend_above,
    positions,
    style,
)
from streamtrain.ranks import PERCENTILES

Int = NDArray[np.int64]


Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class PaintedSamples:
    """What is kept of n painted samples: numbers, no cubes."""

    counts: Int
    """dN, halos per luminosity bin [n, num_bins]."""
    above: Int
    """Halos above the last edge [n]."""
    below: Int
    """Halos below the first edge [n]; a halo that a duty cycle switches off is one of them."""
    saturated: Int
    """Halos too bright for the cube's fixed-point range [n]."""
    mean: Float
    """Mean of the signal over the field [n], in the grid's units: no operator has touched it."""
    models: list[str]
    """Luminosity model of each sample."""
    lightcones: list[str]
    """Name of each sample's lightcone."""
    bin_edges: Float
    """log10(L/Lsun) [num_bins + 1]."""

    def __len__(self) -> int:
        return len(self.mean)

    @cached_property
    def num_of_model(self) -> dict[str, int]:
        """Samples of each luminosity model, the most frequent first."""
        return dict(Counter(self.models).most_common())

    def of_model(self, name: str) -> Bool:
        """Which samples a luminosity model made [n]."""
        return np.array([model == name for model in self.models])

    @property
    def halos(self) -> Int:
        """Halos below, inside and above the label's luminosities [n, 3]."""
        return np.stack([self.below, self.counts.sum(axis=1), self.above], axis=1)

    def count_percentiles(self, which: Bool | None = None) -> Float:
        """`PERCENTILES` of dN in each bin [5, num_bins]; each is the dN of a sample, 0 included."""
        counts = self.counts if which is None else self.counts[which]
        percentiles = np.percentile(counts, PERCENTILES, axis=0, method="inverted_cdf")
        return np.asarray(percentiles, np.float64)

    def mean_percentiles(self) -> tuple[float, float, float]:
        """2.5, 50 and 97.5 % of the mean signal, in the grid's units."""
        low, middle, high = np.percentile(self.mean, (2.5, 50.0, 97.5))
        return float(low), float(middle), float(high)


@dataclass(frozen=True)
class LuminosityFunctions:
    """The label's three forms for one map [num_bins each]."""

    above: Float
    """N(>L) at each bin's lower edge, halos above the last edge included."""
    phi: Float
    """dn/dL [Mpc^-3 Lsun^-1], n = N/V (Pfeffer, Breysse & Stein 2019, arXiv:1905.10376, eq. 3)."""
    phi_L: Float
    """dn/dlnL [Mpc^-3]; as bins are equal in log L, its shape is that of dN."""
    bin_edges: Float
    """log10(L/Lsun) [num_bins + 1]."""


COLOURS = SERIES[:-1]
LINES = ("-", "--", ":")
"""Models beyond the last begin again with the first colour and the next line."""
BELOW, INSIDE, ABOVE = GREY, to_hex("0.89"), TRUTH
"""Colours of halos below, inside and above the label's luminosities; no model has them."""
FLOOR = 0.4
"""Where dN = 0 is drawn on the logarithmic axis."""
BREAK = 0.63
"""Between dN = 0 and dN = 1: the axis is no scale below this line."""
NUM_SINGLE = 8
"""Samples that are drawn one by one, the first ones."""
_SYMBOLS = {"uK": (r"\langle T\rangle", r"$\mu$K"), "Jy/sr": (r"\langle I\rangle", "Jy/sr")}


def mean_text(mean: float, unit: str) -> str:
    """'<T> = 0.62 uK', for a figure."""
    symbol, written = _SYMBOLS[unit]
    return f"${symbol}$ = {_scientific(mean)} {written}"


def prior(painted: PaintedSamples, unit: str) -> Figure:
    """Samples of a prior: their luminosity functions, their mean signal, and the share of their
    halos below, inside and above the label's luminosities. unit: of the map, uK or Jy/sr."""
    figure = Figure(figsize=(10.6, 5.6), dpi=150, layout="constrained")
    figure.get_layout_engine().set(hspace=0.06, wspace=0.04)  # type: ignore[union-attr, call-arg]
    places = figure.add_gridspec(2, 2, width_ratios=(1.35, 1.0))
    _functions(figure.add_subplot(places[:, 0]), painted)
    _means(figure.add_subplot(places[0, 1]), painted, unit)
    _shares(figure.add_subplot(places[1, 1]), painted)
    names = list(painted.num_of_model)
    figure.suptitle(
        f"what {len(painted)} training samples show" + (f": {names[0]}" if len(names) == 1 else ""),
        fontsize=LABEL_SIZE,
    )
    return figure


def _line(number: int) -> tuple[str, str]:
    """Colour and line of a model."""
    return COLOURS[number % len(COLOURS)], LINES[number // len(COLOURS) % len(LINES)]


def _short(name: str) -> str:
    """A model's name, its middle left out if it is long."""
    return name if len(name) <= 18 else f"{name[:8]}...{name[-7:]}"


def _functions(axes: Axes, painted: PaintedSamples) -> None:
    """68 % and 95 % of dN in all samples, the median of each model."""
    at = positions(painted.bin_edges, "counts")
    names = list(painted.num_of_model)
    alone = len(names) == 1
    for number, name in enumerate(names):
        colour, line = _line(number)
        median = on_axis(painted.count_percentiles(painted.of_model(name))[2])
        label = "median" if alone else _short(name)
        axes.plot(at, median, line, color=colour, lw=2, label=label)
    low95, low68, _, high68, high95 = on_axis(painted.count_percentiles())
    colour = NETWORK if alone else TRUTH
    axes.fill_between(at, low68, high68, alpha=0.25, color=colour, lw=0, label="68 %")
    axes.fill_between(at, low95, high95, alpha=0.15, color=colour, lw=0, label="95 %")
    for k in range(min(NUM_SINGLE, len(painted)) if alone else 0):
        label = "single samples" if k == 0 else ""
        axes.plot(at, on_axis(painted.counts[k]), color=TRUTH, lw=0.5, alpha=0.7, label=label)
    style(axes, painted.bin_edges)
    count_axis(axes, float(painted.counts.max()))
    axes.set_xlabel(r"$L$ [$L_\odot$]", fontsize=LABEL_SIZE)
    axes.set_ylabel("halos per bin, $dN$", fontsize=LABEL_SIZE)
    legend_above(
        axes, 4 if alone else 3, "" if alone else "all samples, and the median of each model"
    )


def on_axis(counts: Float) -> Float:
    """dN as drawn by `count_axis`: 0 at `FLOOR`."""
    return np.where(counts > 0, counts, FLOOR)


def count_axis(axes: Axes, largest: float) -> None:
    """Decades of dN from 1, and 0 below a break."""
    decades = range(int(np.ceil(np.log10(max(largest, 10.0)))) + 1)
    axes.set_yscale("log")
    axes.set_ylim(0.3, 3.0 * max(largest, 10.0))
    axes.yaxis.set_major_locator(FixedLocator([FLOOR, *(10.0**k for k in decades)]))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda v, _: "0" if v < BREAK else f"$10^{{{round(np.log10(v))}}}$")
    )
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.axhline(BREAK, color=TRUTH, lw=0.8, ls=(0, (4, 4)), zorder=1)


def _means(axes: Axes, painted: PaintedSamples, unit: str) -> None:
    """Histogram of the mean signal's logarithm with its percentiles."""
    symbol, written = _SYMBOLS[unit]
    shining = painted.mean > 0
    logs = np.log10(np.where(shining, painted.mean, 1.0))
    low, high = (logs[shining].min(), logs[shining].max()) if shining.any() else (0.0, 0.0)
    pad = max(0.03 * (high - low), 0.1)
    edges = np.linspace(low - pad, high + pad, 41)
    names = list(painted.num_of_model)
    axes.hist(
        [logs[painted.of_model(name) & shining] for name in names],
        edges.tolist(),
        stacked=True,
        color=[_line(number)[0] for number in range(len(names))],
        alpha=0.6,
    )
    percentiles = painted.mean_percentiles()
    for value in percentiles:
        if value > 0:
            axes.axvline(np.log10(value), color=TRUTH, lw=1.2, ls="--")
    low_text, middle_text, high_text = (_scientific(v) for v in percentiles)
    text = f"2.5 %: {low_text},  median: {middle_text},  97.5 %: {high_text} {written}"
    dark = int(np.count_nonzero(~shining))
    if dark:
        text += f"\nwithout any signal, not shown: {dark}"
    axes.set_title(text, fontsize=TICK_SIZE)
    axes.set_xlabel(rf"$\log_{{10}}\,{symbol}$ [{written}]", fontsize=LABEL_SIZE)
    axes.set_ylabel("samples", fontsize=LABEL_SIZE)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.tick_params(labelsize=TICK_SIZE)


def _shares(axes: Axes, painted: PaintedSamples) -> None:
    """Share of each sample's halos below, inside and above the label's luminosities, one strip per
    model; the samples of a strip are sorted from bright to faint."""
    names = list(painted.num_of_model)
    total = painted.halos.sum(axis=0)
    percent = 100.0 * total / max(total.sum(), 1)
    labels = [f"{k}: {v:.1f} %" for k, v in zip(("below", "inside", "above"), percent, strict=True)]
    for row, name in enumerate(reversed(names)):
        halos = painted.halos[painted.of_model(name)]
        shares = halos / np.maximum(halos.sum(axis=1, keepdims=True), 1)
        shares = shares[np.lexsort((shares[:, 1], shares[:, 0] - shares[:, 2]))]
        ends = 100.0 * np.arange(len(shares) + 1) / len(shares)
        tops = row + 0.9 * np.cumsum(np.vstack([shares, shares[-1:]]), axis=1)
        bottom = np.full(len(tops), float(row))
        for top, colour, label in zip(tops.T, (BELOW, INSIDE, ABOVE), labels, strict=True):
            shown = label if row == 0 else None
            axes.fill_between(ends, bottom, top, color=colour, lw=0, step="post", label=shown)
            bottom = top
    axes.set_xlim(0.0, 100.0)
    axes.set_ylim(0.0, len(names) - 0.1)
    axes.set_xlabel("samples, from bright to faint [%]", fontsize=LABEL_SIZE)
    if len(names) == 1:
        axes.set_yticks([0.0, 0.45, 0.9], ["0", "50", "100"])
        axes.set_ylabel("halos [%]", fontsize=LABEL_SIZE)
    else:
        axes.set_yticks(
            [row + 0.45 for row in range(len(names))], [_short(name) for name in names[::-1]]
        )
    axes.tick_params(labelsize=TICK_SIZE)
    low, high = (f"10^{{{painted.bin_edges[k]:.3g}}}" for k in (0, -1))
    legend_above(axes, 3, rf"halos and the label's range, ${low}$ to ${high}$ $L_\odot$")


def luminosity(functions: LuminosityFunctions, title: str = "") -> Figure:
    """N(>L), phi and phi*L of one map, each over its maximum, which the legend gives."""
    figure = Figure(figsize=(6.4, 5.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    centres = positions(functions.bin_edges, "counts")
    volume, density = r"Mpc$^{-3}$", r"Mpc$^{-3}\,L_\odot^{-1}$"
    edges = positions(functions.bin_edges, "cumulative")
    curves = (
        ("$N(>L)$", "", functions.above, edges, "--", TRUTH),
        (r"$\phi = dn/dL$", density, functions.phi, centres, "-s", SERIES[0]),
        (r"$\phi L = dn/d\ln L$", volume, functions.phi_L, centres, "-^", SERIES[1]),
    )
    lowest = 0.1
    for name, unit, values, at, line, colour in curves:
        largest = float(values.max())
        if largest <= 0.0:
            continue
        shown = np.where(values > 0, values / largest, np.nan)
        lowest = min(lowest, float(np.nanmin(shown)))
        label = f"{name}, maximum {_scientific(largest)} {unit}".rstrip()
        axes.plot(at, shown, line, ms=3.5, color=colour, lw=1.2, label=label)
    style(axes, functions.bin_edges)
    axes.set_yscale("log")
    axes.set_ylim(0.5 * lowest, 2.0)
    axes.set_xlabel(r"$L$ [$L_\odot$]", fontsize=LABEL_SIZE)
    axes.set_ylabel("each over its maximum", fontsize=LABEL_SIZE)
    figure.suptitle(title, fontsize=LABEL_SIZE)
    if axes.lines:
        legend_above(axes, 1)
    else:
        empty = "no halo has a luminosity of the label's range"
        axes.text(0.5, 0.5, empty, transform=axes.transAxes, ha="center", fontsize=LABEL_SIZE)
    return figure


def _scientific(value: float) -> str:
    """'$3.2\\times10^{-5}$', or a plain number where that is shorter."""
    if value == 0.0 or 0.01 <= value < 1e4:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return rf"${mantissa}\times10^{{{int(exponent)}}}$"
