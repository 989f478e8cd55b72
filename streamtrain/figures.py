"""Figures that rooms share: luminosity functions, confusion, slices of a map; and their palette.

Each function returns a matplotlib Figure of its own (no pyplot, no global state), so they serve
files, TensorBoard and threads alike; `write_png` writes one whole or not at all. Every figure is to
be read alone: its title says what it shows, its legends lie beside the data. The colours of all
figures are here, those of Okabe & Ito, told apart by colour-blind readers: what has a name has its
colour in every figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator, LogLocator, NullLocator
from numpy.typing import NDArray

from streamtrain.labels import QUANTITIES
from streamtrain.machine.files import writing

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

NETWORK = "#0072B2"
REFERENCE = "#D55E00"
"""What always predicts the mean label."""
TRUTH = "#000000"
CHAIN = "#009E73"
GREY = "#8C8C8C"
"""A prior, an exact posterior, one halo, numbers that others have published."""
SERIES = (NETWORK, "#CC79A7", CHAIN, "#E69F00", "#56B4E9", GREY)
"""What stands side by side without a colour of its own, such as runs and luminosity models."""
SHADES = ("#CFE2F0", "#93BFDF", "#4C93C6")
"""From the widest interval to the narrowest: `NETWORK` on white, opaque, so that each has one shade
wherever it lies."""
WRONG = "#FBE3D6"
"""Behind what is wrong."""
SKY, SIGNED, SHARES = "cividis", "RdBu_r", "Blues"
"""Colour maps of maps, of what has a sign, of shares of one."""
LABEL_SIZE = 11
TICK_SIZE = 10
WIDE = 2.5
"""Width over height beyond which maps stand below one another."""
RATIO_TICKS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)


@dataclass(frozen=True)
class Slices:
    """One frequency slice of each of a few maps."""

    values: NDArray[np.floating]
    """[num_maps, n_dec, n_ra], in `unit`."""
    fov_deg: tuple[float, float]
    """(ra, dec) [deg]."""
    nu_GHz: float
    """Middle of the channel [GHz]."""
    unit: str


def luminosity_function(
    predicted: Float,
    true: Float,
    bin_edges: Float,
    *,
    occupied: Bool | None = None,
    reference: Float | None = None,
    blank: Float | None = None,
    titles: Sequence[str] = (),
    quantity: str = "counts",
    unit: Float | None = None,
    slices: Slices | None = None,
    band: Float | None = None,
    title: str = "predicted and true luminosity functions",
) -> Figure:
    """Predicted and true luminosity functions of a few maps, their ratio below.

    predicted, true: log10 of the count, [num_maps, num_bins]; one column of panels per map.
    bin_edges: log10(L/Lsun), [num_bins + 1]. occupied: bins with a halo, others are not drawn
    (default: true > 0). reference: mean label, log10 of the count, [num_bins]; blank: what the
    network predicts for maps without a halo, in the same form. quantity: of `QUANTITIES`, with
    `unit`, what one halo is worth in it, [num_maps or 1, num_bins] (default: 1). slices: of the
    maps, drawn above. band: ends of the simultaneous 95 % band of each function, log10 of the
    count, [2, num_maps, num_bins]. titles: of the maps; title: of the whole.
    """
    if predicted.shape != true.shape or true.ndim != 2:
        raise ValueError(f"shape mismatch: predicted {predicted.shape}, true {true.shape}")
    num_maps = len(true)
    top_height = 0.0 if slices is None else _height(slices.fov_deg, 2.5) + 0.8
    size = (1.2 + 3.4 * num_maps, 5.5 + top_height)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    part: Figure | SubFigure = figure
    if slices is not None:
        heights = (top_height, 4.8)
        top, part = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
        _draw_slices(top, slices, titles)
        titles = ()
    panels = part.subplots(
        2, num_maps, sharex=True, sharey="row", squeeze=False, height_ratios=(2.2, 1)
    )
    mask = true > 0 if occupied is None else occupied
    at = positions(bin_edges, quantity)
    unit_label = np.broadcast_to(1.0 if unit is None else unit, true.shape)
    highest = np.max(unit_label * 10 ** np.maximum(np.maximum(true, predicted), 0.0))
    if band is not None:
        highest = max(highest, float(np.max(unit_label * 10 ** band[1])))
    lowest = np.min(unit_label)
    for k in range(num_maps):
        upper, lower = panels[:, k]
        shown = mask[k]
        upper.plot(
            at[shown],
            (unit_label[k] * 10 ** true[k])[shown],
            "o",
            color=TRUTH,
            ms=2.8,
            zorder=4,
            label="true",
        )
        if band is not None:
            low, high = band[:, k]
            upper.fill_between(
                at, unit_label[k] * 10**low, unit_label[k] * 10**high, color=NETWORK, alpha=0.22,
                lw=0, label="95 % band",
            )  # fmt: skip
            ends = 10 ** (band[:, k] - true[k])
            lower.fill_between(at, *ends, where=shown, color=NETWORK, alpha=0.22, lw=0)
        curves = [("network", predicted[k], NETWORK, "-")]
        if reference is not None:
            curves.append(("mean label", reference, REFERENCE, "--"))
        for name, values, colour, line in curves:
            upper.plot(at, unit_label[k] * 10**values, line, color=colour, lw=1.8, label=name)
            ratio = np.where(shown, 10 ** (values - true[k]), np.nan)
            lower.plot(at, ratio, line, color=colour, lw=1.6)
        if blank is not None:
            upper.plot(
                at,
                unit_label[k] * 10**blank,
                "-.",
                color=GREY,
                lw=1.4,
                label="network, no halo in the map",
            )
        if unit is not None:
            upper.plot(at, unit_label[k], ":", color=GREY, lw=1.2, zorder=1, label="one halo")
        upper.set_yscale("log")
        upper.set_ylim(0.7 * lowest, 3 * highest)
        if k < len(titles):
            upper.set_title(titles[k], fontsize=TICK_SIZE)
        style(upper, bin_edges)
        style(lower, bin_edges)
        ratio_axis(lower, (0.2, 5.0))
        lower.set_xlabel(r"$L$ [$L_\odot$]", fontsize=LABEL_SIZE)
    panels[0, 0].set_ylabel(QUANTITIES[quantity].axis, fontsize=LABEL_SIZE)
    panels[1, 0].set_ylabel("predicted / true", fontsize=LABEL_SIZE)
    legend_below(figure, panels[0, 0], 5)
    figure.suptitle(title, fontsize=LABEL_SIZE)
    return figure


def _height(fov_deg: tuple[float, float], width: float) -> float:
    """Of a map of some width [inch], neither a line nor a tower."""
    return min(max(width * fov_deg[1] / fov_deg[0], 0.4), 3.0 * width)


def _draw_slices(figure: SubFigure, slices: Slices, titles: Sequence[str]) -> None:
    """In a row, on one colour scale."""
    panels = figure.subplots(1, len(slices.values), sharey=True, squeeze=False)[0]
    limits = colour_limits(slices.values)
    for k, axes in enumerate(panels):
        image = draw_slice(axes, slices.values[k], slices.fov_deg, limits)
        axes.set_xlabel("ra [deg]", fontsize=LABEL_SIZE)
        axes.tick_params(labelsize=TICK_SIZE)
        if k < len(titles):
            axes.set_title(titles[k], fontsize=TICK_SIZE)
    panels[0].set_ylabel("dec [deg]", fontsize=LABEL_SIZE)
    bar = figure.colorbar(image, ax=list(panels), pad=0.01, extend="both")
    bar.set_label(f"{slices.nu_GHz:.2f} GHz [{slices.unit}]", fontsize=LABEL_SIZE)
    bar.ax.tick_params(labelsize=TICK_SIZE)


def frequency_GHz(nu_GHz: tuple[float, float], channel: float, num: int) -> float:
    """Middle of a channel [GHz] of `num` in a band; nu_GHz: the band (high, low)."""
    return nu_GHz[0] + (channel + 0.5) * (nu_GHz[1] - nu_GHz[0]) / num


def map_slices(
    maps: Mapping[str, NDArray[np.floating]],
    *,
    fov_deg: tuple[float, float] | None = None,
    nu_GHz: tuple[float, float] | None = None,
    num_slices: int = 4,
    title: str = "slices of a map",
) -> Figure:
    """Frequency slices of maps of one field, evenly spaced, each map on a colour scale of its own;
    east is left. A field much wider than high has its slices below one another.

    maps: [n_freq, n_dec, n_ra] each, by what their colours mean. fov_deg: (ra, dec) [deg]; default:
    axes count voxels. nu_GHz: band (high, low) [GHz]; default: slices are numbered. title: above
    all.
    """
    num_freq, num_dec, num_ra = next(iter(maps.values())).shape
    chosen = np.unique(np.linspace(0, num_freq - 1, min(num_slices, num_freq)).round().astype(int))
    size_deg = fov_deg if fov_deg is not None else (float(num_ra), float(num_dec))
    flat = size_deg[0] > WIDE * size_deg[1]
    across, down = (len(maps), len(chosen)) if flat else (len(chosen), len(maps))
    width = 6.0 if flat else 2.6 * min(1.0, max(size_deg[0] / size_deg[1], 0.4))
    height = _height(size_deg, width) + (0.35 if flat else 0.0)
    lines = title.count("\n") + 1
    size = (1.3 + (width + 0.1) * across, 0.95 + 0.2 * lines + (height + 0.1) * down)
    size = (size[0] + (0.0 if flat else 0.9), size[1] + (0.8 if flat else 0.0))
    figure = Figure(figsize=size, dpi=150, layout="compressed")
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    by_map = panels.T if flat else panels
    for number, (unit, cube) in enumerate(maps.items()):
        row = by_map[number]
        limits = colour_limits(cube[chosen])
        for axes, k in zip(row, chosen, strict=True):
            image = draw_slice(axes, cube[k], size_deg, limits)
            heading = f"frequency slice {k}"
            if nu_GHz is not None:
                heading = f"{frequency_GHz(nu_GHz, k, num_freq):.2f} GHz"
            if flat or number == 0:
                axes.set_title(heading, fontsize=LABEL_SIZE)
            axes.tick_params(labelsize=TICK_SIZE)
        where = "bottom" if flat else "right"
        bar = figure.colorbar(image, ax=list(row), pad=0.01, extend="both", location=where)
        bar.set_label(unit, fontsize=LABEL_SIZE)
        bar.ax.tick_params(labelsize=TICK_SIZE)
    panels[0, 0].set_xlim(size_deg[0] / 2, -size_deg[0] / 2)  # shared axes: not inverted twice
    unit = "deg" if fov_deg else "voxels"
    for axes in panels[-1]:
        axes.set_xlabel(f"ra [{unit}]", fontsize=LABEL_SIZE)
    for axes in panels[:, 0]:
        axes.set_ylabel(f"dec [{unit}]", fontsize=LABEL_SIZE)
    figure.suptitle(title, fontsize=TICK_SIZE)
    return figure


def colour_limits(values: NDArray[np.floating]) -> tuple[float, float]:
    """Limits that a few bright or faint voxels do not move, and that differ."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, (0.5, 99.8)) if finite.size else (0.0, 0.0)
    if high <= low and finite.size:
        low, high = finite.min(), finite.max()
    return float(low), float(high) if high > low else float(low) + 1.0


def draw_slice(
    axes: Axes,
    values: NDArray[np.floating],
    fov_deg: tuple[float, float],
    limits: tuple[float, float],
) -> AxesImage:
    """One frequency slice, [n_dec, n_ra]; east is left. fov_deg: (ra, dec) [deg]; limits: of the
    colours, see `colour_limits`."""
    width, height = fov_deg
    image = axes.imshow(
        values,
        origin="lower",
        extent=(-width / 2, width / 2, -height / 2, height / 2),
        cmap=SKY,
        vmin=limits[0],
        vmax=limits[1],
        interpolation="nearest",
    )
    axes.invert_xaxis()
    return image


def confusion(counts: NDArray[np.integer], classes: Sequence[str]) -> Figure:
    """How often maps of each class were taken for each: shares of a row, numbers of maps.

    counts: [num_classes, num_classes], true class by predicted class.
    """
    num = len(classes)
    side = 2.6 + 0.8 * num
    figure = Figure(figsize=(side + 0.8, side), dpi=150, layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap=SHARES, vmin=0.0, vmax=1.0)
    for true in range(num):
        for predicted in range(num):
            share = shares[true, predicted]
            axes.text(
                predicted,
                true,
                f"{share:.2f}\n({int(counts[true, predicted])})",
                ha="center",
                va="center",
                fontsize=TICK_SIZE,
                color="white" if share > 0.6 else TRUTH,
            )
    axes.set_xticks(range(num), classes, rotation=30, ha="right", fontsize=TICK_SIZE)
    axes.set_yticks(range(num), classes, fontsize=TICK_SIZE)
    axes.set_xlabel("predicted model", fontsize=LABEL_SIZE)
    axes.set_ylabel("true model", fontsize=LABEL_SIZE)
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("share of the maps of a model", fontsize=LABEL_SIZE)
    axes.set_title("which model the network takes a map for", fontsize=LABEL_SIZE)
    bar.ax.tick_params(labelsize=TICK_SIZE)
    return figure


def legend_above(axes: Axes, columns: int, title: str = "") -> None:
    """What a panel shows, above it, where it covers nothing. title: of the panel."""
    axes.legend(
        title=title,
        title_fontsize=TICK_SIZE,
        fontsize=TICK_SIZE - 1,
        frameon=False,
        ncols=columns,
        loc="lower center",
        bbox_to_anchor=(0.5, 0.99),
        columnspacing=1.2,
        handlelength=1.5,
        borderaxespad=0.2,
    )


def legend_below(figure: Figure, axes: Axes, columns: int, *more: Artist) -> None:
    """One legend for all panels of a figure, below them. axes: the panel that has all entries;
    more: handles of what no panel has."""
    entries = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    entries |= {str(handle.get_label()): handle for handle in more}
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=min(columns, max(len(entries), 1)),
        fontsize=TICK_SIZE,
        frameon=False,
    )


def graded(number: int) -> list[tuple[float, ...]]:
    """Colours of what has an order, such as luminosity ranges, from the first to the last."""
    shades = colormaps["viridis"](np.linspace(0.0, 0.88, max(number, 1)))
    return [tuple(shade) for shade in shades]


def positions(bin_edges: Float, quantity: str) -> Float:
    """L of each bin [Lsun]: its centre, or its lower edge for N(>L)."""
    if QUANTITIES[quantity].at_lower_edge:
        return np.asarray(10.0 ** bin_edges[:-1])
    return np.asarray(10.0 ** (0.5 * (bin_edges[1:] + bin_edges[:-1])))


def style(axes: Axes, bin_edges: Float) -> None:
    """A logarithmic luminosity axis over the label's range."""
    axes.set_xscale("log")
    axes.set_xlim(10.0 ** bin_edges[0], 10.0 ** bin_edges[-1])
    axes.tick_params(labelsize=TICK_SIZE)
    axes.grid(alpha=0.25, lw=0.6)


def plain_ticks(axis: Axis, at: Locator | None = None) -> None:
    """Plain numbers at these places alone, or on a logarithmic axis at 1, 2 and 5 of a decade."""
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axis.set_major_formatter(plain)
    if at is not None:
        axis.set_major_locator(at)
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
        axis.set_minor_formatter(plain)


def ratio_axis(axes: Axes, limits: tuple[float, float]) -> None:
    """Logarithmic, with plain numbers, and a line at one."""
    axes.set_yscale("log")
    axes.set_ylim(*limits)
    plain_ticks(axes.yaxis, FixedLocator(RATIO_TICKS))
    axes.axhline(1.0, color=TRUTH, lw=0.8, zorder=1)


def as_name(name: str) -> str:
    """A name of a file or run as it stands in a figure, where matplotlib takes what is between two
    dollars for mathematics."""
    return name.replace("$", r"\$")


def write_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; its folder is made if needed. Raises ValueError for a name of another
    format."""
    if path.suffix.lower() != ".png":
        raise ValueError(
            f"{path}: a figure is written as PNG, so that its name must end in .png; the figure's "
            "savefig writes other formats"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as part:
        figure.savefig(part, format="png")
