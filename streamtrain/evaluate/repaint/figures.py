"""The figure of a check by repainting: a map's statistics in the bands of painted maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
)
from numpy.typing import NDArray

from streamtrain.config import Config
from streamtrain.evaluate.repaint.statistics import TITLES, PaintedStatistics, Statistic
from streamtrain.figures import LABEL_SIZE, NETWORK, SHADES, SIGNED, TICK_SIZE, TRUTH, legend_below
from streamtrain.ranks import QUANTILES

Float = NDArray[np.float64]

COLOUR_SIGMA = 4.0
"""End of the colours of P(k_perp, k_par)."""
LARGEST_RATIO = 4.0
"""End of the axis of voxels over the painted median."""
UNITS = {"uK": r"$\mu$K", "Jy/sr": "Jy/sr"}


@dataclass(frozen=True)
class Drawn:
    """What the numbers of each statistic belong to."""

    k: Float
    """Mean |k| of the shells of P(k) [1/Mpc]."""
    rings: Float
    """Ends of the bins of k_perp [1/Mpc] [num_rings, 2]."""
    slabs: Float
    """Ends of the bins of k_par [1/Mpc] [num_slabs, 2]."""
    edges: Float
    """Edges of the bins of T [map units]."""
    nu_GHz: Float
    """Middle of each channel [GHz]."""
    units: str
    """Map units; '' where the map has none."""

    @classmethod
    def of(cls, config: Config, statistics: PaintedStatistics, edges: Float) -> Drawn:
        """config: of the run; edges: of the bins of T."""
        high, low = config.grid.nu_GHz
        number = statistics.input_map.box.shape[0]
        return cls(
            statistics.power.k,
            np.maximum(np.array(statistics.rings), 0.0),
            np.maximum(np.array(statistics.slabs), 0.0),
            edges,
            high + (low - high) * (np.arange(number) + 0.5) / number,
            statistics.input_map.units,
        )

    @property
    def unit(self) -> str:
        """The map units, after a number."""
        return f" {self.units}" if self.units else ""

    def place(self, name: str, number: int, size: int) -> str:
        """What a number of a statistic belongs to, in words."""
        if name == "power":
            return f"k = {self.k[number]:.3g} /Mpc"
        if name == "power_2d":
            ring, slab = divmod(number, len(self.slabs))
            (a, b), (c, d) = self.rings[ring], self.slabs[slab]
            return f"k_perp = {a:.2g}..{b:.2g}, k_par = {c:.2g}..{d:.2g} /Mpc"
        if name == "voxels":
            ends = ["-inf", *(f"{edge:.3g}" for edge in self.edges), "inf"]
            return f"T = {ends[number]}..{ends[number + 1]}{self.unit}"
        if name in ("means", "scatter"):
            return f"{self.nu_GHz[number]:.2f} GHz"
        return f"number {number + 1} of {size}" if name == "network" else ""

    def to_dict(self) -> dict[str, Any]:
        """What is drawn as plain data for a JSON file."""
        return {
            "k_per_Mpc": self.k.tolist(),
            "k_perp_per_Mpc": self.rings.tolist(),
            "k_par_per_Mpc": self.slabs.tolist(),
            "T_edges": self.edges.tolist(),
            "nu_GHz": self.nu_GHz.tolist(),
            "units": self.units,
        }


def check_figure(
    statistics: Sequence[Statistic], p_values: Mapping[str, float], drawn: Drawn, title: str
) -> Figure:
    """Bands of 68 and 95 % of the painted maps and the map's own curves.

    p_values: of each statistic, by name; drawn: what their numbers belong to.
    """
    of = {one.name: one for one in statistics}
    figure = Figure(figsize=(12.0, 7.2), dpi=150, layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    unit = UNITS.get(drawn.units, drawn.units)
    brackets = f" [{unit}]" if unit else ""
    power, voxels = panels[0], panels[2]
    _bands(power, drawn.k, of["power"])
    power.set_xscale("log")
    power.set_yscale("log")
    power.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    power.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    power.xaxis.set_minor_formatter(NullFormatter())
    _words(power, r"$k$ [Mpc$^{-1}$]", f"$P(k)$ [{unit}$^2$ Mpc$^3$]" if unit else "$P(k)$")
    legend_below(figure, power, 4)
    _two_dimensional(figure, panels[1], of["power_2d"], drawn)
    _voxels(voxels, of["voxels"], drawn)
    _words(voxels, f"$T${brackets}", "voxels / painted median")
    for axes, name in ((panels[3], "means"), (panels[4], "scatter")):
        if name in p_values:
            _bands(axes, drawn.nu_GHz, of[name])
        else:
            axes.axis("off")
        _words(axes, "frequency [GHz]", f"{TITLES[name]}{brackets}")
    _brightest(panels[5], of["brightest"])
    _words(panels[5], f"brightest voxel above the mean{brackets}", "painted maps")
    names = ("power", "power_2d", "voxels", "means", "scatter", "brightest")
    for axes, name in zip(panels, names, strict=True):
        said = f"p = {p_values[name]:.2g}" if name in p_values else "removed from every map"
        axes.set_title(f"{TITLES[name]}: {said}", fontsize=TICK_SIZE)
        axes.tick_params(labelsize=TICK_SIZE - 1)
    if "network" in p_values:
        title += f"; {TITLES['network']}: p = {p_values['network']:.2g}"
    figure.suptitle(f"the check of a map: {title}", fontsize=LABEL_SIZE)
    return figure


def _words(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=LABEL_SIZE - 1)
    axes.set_ylabel(y, fontsize=LABEL_SIZE - 1)


def _bands(axes: Axes, at: Float, one: Statistic) -> None:
    """Bands of the painted maps and the map, at points."""
    kept = ~np.broadcast_to(one.removed, one.value.shape)
    at, value = at[kept], one.value[kept]
    low95, low68, median, high68, high95 = _ends(one.painted[:, kept])
    axes.fill_between(at, low95, high95, color=SHADES[0], lw=0, label="95 % of the painted maps")
    axes.fill_between(at, low68, high68, color=SHADES[1], lw=0, label="68 % of them")
    axes.plot(at, median, color=NETWORK, lw=1.2, label="their median")
    axes.plot(at, value, "o-", color=TRUTH, ms=3, lw=1.0, label="the map")


def _ends(painted: Float) -> Float:
    return np.asarray(np.quantile(painted, QUANTILES, axis=0))


def _voxels(axes: Axes, one: Statistic, drawn: Drawn) -> None:
    """Numbers of voxels over their medians, in steps; the open bins are as wide as the next."""
    edges = drawn.edges
    edges = np.concatenate([[2 * edges[0] - edges[1]], edges, [2 * edges[-1] - edges[-2]]])
    unit = np.maximum(np.median(one.painted, axis=0), 1.0)
    low95, low68, _, high68, high95 = _ends(one.painted) / unit
    for low, high, colour in ((low95, high95, SHADES[0]), (low68, high68, SHADES[1])):
        axes.stairs(high, edges, baseline=low, fill=True, color=colour, lw=0)
    axes.axhline(1.0, color=NETWORK, lw=1.0)
    axes.stairs(one.value / unit, edges, baseline=None, color=TRUTH, lw=1.2)
    top = max(2.0, 1.2 * float(high95.max()), 1.1 * float((one.value / unit).max()))
    axes.set_ylim(0.0, min(top, LARGEST_RATIO))
    if edges[-1] - edges[-2] > 20.0 * (edges[len(edges) // 2 + 1] - edges[len(edges) // 2]):
        width = float(edges[len(edges) // 2 + 1] - edges[len(edges) // 2])
        axes.set_xscale("symlog", linthresh=max(4.0 * width, 1e-30))
        powers = 10.0 ** np.arange(np.ceil(np.log10(12.0 * width)), np.log10(edges[-1]))
        below = [-power for power in powers if -power > edges[0]]
        axes.xaxis.set_major_locator(FixedLocator([*below, 0.0, *powers]))


def _two_dimensional(figure: Figure, axes: Axes, one: Statistic, drawn: Drawn) -> None:
    """How unusual each cell is, with the ratio to the painted median written in."""
    shape = len(drawn.rings), len(drawn.slabs)
    sigma = one.score.reshape(shape).T
    ratio = (one.value / np.maximum(np.median(one.painted, axis=0), 1e-300)).reshape(shape).T
    image = axes.imshow(
        sigma, origin="lower", aspect="auto", cmap=SIGNED, vmin=-COLOUR_SIGMA, vmax=COLOUR_SIGMA
    )
    for (slab, ring), value in np.ndenumerate(ratio):
        dark = abs(sigma[slab, ring]) > 0.7 * COLOUR_SIGMA
        axes.text(
            ring, slab, f"{value:.2g}" if value >= 10.0 else f"{value:.2f}", ha="center",
            va="center", fontsize=TICK_SIZE - 4, color="white" if dark else TRUTH,
        )  # fmt: skip
    axes.set_xticks(np.arange(shape[0] + 1) - 0.5, _labels(drawn.rings), rotation=45)
    axes.set_yticks(np.arange(shape[1] + 1) - 0.5, _labels(drawn.slabs))
    _words(axes, r"$k_\perp$ [Mpc$^{-1}$]", r"$k_\parallel$ [Mpc$^{-1}$]")
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label("deviation [sigma]; written: map / painted", fontsize=TICK_SIZE - 2)
    bar.ax.tick_params(labelsize=TICK_SIZE - 2)


def _labels(spans: Float) -> list[str]:
    return [f"{end:.2g}" for end in (*spans[:, 0], spans[-1, 1])]


def _brightest(axes: Axes, one: Statistic) -> None:
    axes.hist(one.painted[:, 0], 25, color=SHADES[1])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.axvline(float(one.value[0]), color=TRUTH, lw=1.2)
