"""Figure of one sample, after that of Pfeffer, Breysse & Stein 2019 (arXiv:1905.10376): slices of
what it is made of, and its luminosity function within those of the prior."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from streamtrain.figures import (
    LABEL_SIZE,
    NETWORK,
    TICK_SIZE,
    TRUTH,
    Float,
    colour_limits,
    draw_slice,
    legend_above,
    positions,
    style,
)
from streamtrain.grid import Grid
from streamtrain.preview.prior_figures import PaintedSamples, count_axis, on_axis


@dataclass(frozen=True)
class Panel:
    """One frequency slice of a map, or of what a step added to it."""

    title: str
    image: Float
    """The slice that is drawn, [n_dec, n_ra]."""
    unit: str
    channel: int
    """Number of the slice."""
    num_channels: int
    terms: tuple[int, ...] = ()
    """Panels whose sum it is."""
    compared_with: int | None = None
    """Panel to its left, whose map it is to be compared with."""
    empty: bool = False
    """Zero in the whole cube."""


UNITS = {"uK": r"$\mu$K", "Jy/sr": "Jy/sr", "": "dimensionless"}
SIDE = 2.3
"""Longer side of a map [inch], as all lengths here."""
LEFT, RIGHT, BETWEEN = 0.85, 0.85, 0.95
"""Beside the maps: ticks and names of dec, a colour bar."""
INDENT = 0.65
"""Indent of the last panel where a colour bar stands to its left."""
LOWEST = 1.9
"""Height of the last panel beside flat maps."""
MARGIN = 0.3
LINE = 0.18
CHARACTER = 0.078
"""A line of text, and a character."""
AXIS = 0.55
"""Ticks and name of an axis below."""
BAR, BAR_GAP = 0.09, 0.07
MOST = 0.5


@dataclass(frozen=True)
class Places:
    """Where panels lie: cells of a grid, row by row."""

    cells: list[tuple[int, int]]
    """(row, column) of each map."""
    columns: int
    wide: tuple[int, int]
    """(row, first column) of the last panel, which ends with the row."""

    @property
    def rows(self) -> int:
        """Number of rows of panels."""
        return self.wide[0] + 1


def places(pairs: Sequence[bool]) -> Places:
    """The smallest arrangement in three or four columns. pairs: whether a map must stand to the
    right of the one before it."""
    possible = [_flow(pairs, columns) for columns in (4, 3)]
    return min(possible, key=lambda p: p.rows * p.columns)


def _flow(pairs: Sequence[bool], columns: int) -> Places:
    """Row by row; a row ends early where a pair would be split."""
    cells: list[tuple[int, int]] = []
    row = column = 0
    for k in range(len(pairs)):
        needs = 2 if k + 1 < len(pairs) and pairs[k + 1] and not pairs[k] else 1
        if column + needs > columns:
            row, column = row + 1, 0
        cells.append((row, column))
        column += 1
    return Places(cells, columns, (row, column) if column + 2 <= columns else (row + 1, 0))


def sample(
    panels: Sequence[Panel],
    grid: Grid,
    one: PaintedSamples,
    prior: PaintedSamples,
    title: str,
    model: str,
) -> Figure:
    """The maps of a sample, lettered, and its luminosity function.

    one: the sample, prior: those that it is compared with. model: name and parameters.
    """
    at = places([panel.compared_with is not None for panel in panels])
    longer = max(grid.fov_deg)
    width, height = (SIDE * side / longer for side in grid.fov_deg)
    pitch = SIDE + BETWEEN
    total_width = LEFT + at.columns * pitch - BETWEEN + RIGHT
    wide_left = LEFT + at.wide[1] * pitch + (INDENT if at.wide[1] else 0.0)
    wide_width = total_width - wide_left - MARGIN
    texts = _wrapped(model, wide_width)
    fine = panels[-1].num_channels
    heads = [_heading(k, panel, fine) for k, panel in enumerate(panels)]
    tops, bottoms = [], []
    for row in range(at.rows):
        cells = [k for k, cell in enumerate(at.cells) if cell[0] == row]
        lines = max([heads[k].count("\n") + 1 for k in cells], default=0)
        last = row == at.wide[0]
        tops.append(0.12 + LINE * max(lines, len(texts) + 2 if last else 0))
        ticks = last or any((row + 1, at.cells[k][1]) not in at.cells for k in cells)
        bottoms.append(AXIS if ticks else 0.1)
    row_heights = [height] * at.rows
    row_heights[-1] = SIDE if at.wide[1] == 0 else max(height, LOWEST)
    total_height = 0.4 + sum(tops) + sum(bottoms) + sum(row_heights)
    figure = Figure(figsize=(total_width, total_height), dpi=150)

    def axes_at(left: float, bottom: float, wide: float, high: float) -> Axes:
        size = (total_width, total_height) * 2
        box = (left, bottom, wide, high)
        return figure.add_axes(tuple(a / b for a, b in zip(box, size, strict=True)))  # type: ignore[arg-type]

    bottom_of, level = [], total_height - 0.4
    for top, bottom, high in zip(tops, bottoms, row_heights, strict=True):
        level -= top + high
        bottom_of.append(level)
        level -= bottom
    limits = _limits(panels)
    for k, (panel, cell) in enumerate(zip(panels, at.cells, strict=True)):
        left, bottom = LEFT + cell[1] * pitch, bottom_of[cell[0]]
        axes = axes_at(left, bottom, width, height)
        bar = axes_at(left + width + BAR_GAP, bottom, BAR, height)
        bar.set_label("colours")
        _map(axes, bar, panel, grid.fov_deg, limits[k])
        axes.set_title(heads[k], fontsize=TICK_SIZE, loc="left")
        ticks = bottoms[cell[0]] == AXIS
        axes.tick_params(labelbottom=ticks, labelleft=cell[1] == 0)
        if ticks:
            axes.set_xlabel("ra [deg]", fontsize=LABEL_SIZE)
        if cell[1] == 0:
            axes.set_ylabel("dec [deg]", fontsize=LABEL_SIZE)
    wide = axes_at(wide_left, bottom_of[-1], wide_width, row_heights[-1])
    _function(wide, one, prior)
    wide.set_title("\n".join(texts), fontsize=TICK_SIZE, pad=72 * LINE + 6)
    figure.suptitle(
        f"{title}: {_slice(panels[-1], grid)}", fontsize=LABEL_SIZE, y=1 - 0.12 / total_height
    )
    return figure


def _wrapped(model: str, width: float) -> list[str]:
    """Lines of a title that fit a width [inch]; a parameter stays with its value."""
    kept = model.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    kept = kept.replace("\N{NO-BREAK SPACE}-", "\N{NO-BREAK SPACE}\N{MINUS SIGN}")
    return textwrap.wrap(kept, max(20, int(width / CHARACTER)))


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def _limits(panels: Sequence[Panel]) -> list[tuple[float, float]]:
    """Of the colours of each panel. A smoothed map and the map before share those of the smoothed
    one, unless most of the map before lies outside."""
    limits = [colour_limits(panel.image) for panel in panels]
    for k, panel in enumerate(panels):
        if panel.compared_with is not None:
            other = panels[panel.compared_with].image
            low, high = limits[k]
            if other.min() >= 0:  # empty sky stays dark
                low = limits[panel.compared_with][0]
            if np.mean((other < low) | (other > high)) <= MOST:
                limits[panel.compared_with] = limits[k] = low, high
    return limits


def _heading(number: int, panel: Panel, num_channels: int) -> str:
    """'(c) combined: a + b', with the slice if it is not numbered as in the last map."""
    text = f"({_letter(number)}) {panel.title}"
    if panel.terms:
        text += ": " + " + ".join(_letter(term) for term in panel.terms)
    if panel.num_channels != num_channels:
        text += f"\n      slice {panel.channel} of 0..{panel.num_channels - 1}"
    return text


def _letter(number: int) -> str:
    """a, b, ... z, a1, b1, ..."""
    return chr(ord("a") + number % 26) + (str(number // 26) if number >= 26 else "")


def _slice(panel: Panel, grid: Grid) -> str:
    """'frequency slice 5 of 0..9, 29.6 GHz, z = 2.89'."""
    high, low = grid.nu_GHz
    nu_GHz = high + (panel.channel + 0.5) * (low - high) / panel.num_channels
    redshift = grid.nu_rest_GHz / nu_GHz - 1.0
    return (
        f"frequency slice {panel.channel} of 0..{panel.num_channels - 1}, {nu_GHz:.2f} GHz, "
        f"$z$ = {redshift:.2f}"
    )


def _map(
    axes: Axes, bar: Axes, panel: Panel, fov_deg: tuple[float, float], limits: tuple[float, float]
) -> None:
    """A slice with a colour bar of its own; large and small numbers as a power of ten."""
    image = draw_slice(axes, panel.image, fov_deg, limits)
    longer = max(fov_deg)
    for axis, side in zip((axes.xaxis, axes.yaxis), fov_deg, strict=True):
        axis.set_major_locator(MaxNLocator(max(1, round(4 * side / longer))))
    axes.tick_params(labelsize=TICK_SIZE)
    unit = UNITS[panel.unit]
    if panel.empty:
        bar.set_axis_off()
        axes.text(
            0.5,
            0.5,
            "none in this sample",
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=TICK_SIZE,
            color="white",
        )
        return
    largest = max(abs(limits[0]), abs(limits[1]))
    power = math.floor(math.log10(largest)) if largest > 0 else 0
    if -2 <= power < 4:
        power = 0
    else:
        unit = rf"$10^{{{power}}}$ {unit}"
    below, above = panel.image.min() < limits[0], panel.image.max() > limits[1]
    ends = ("neither", "max", "min", "both")[2 * int(below) + int(above)]
    colours = axes.figure.colorbar(image, cax=bar, extend=ends)
    bar.yaxis.set_major_locator(MaxNLocator(max(2, round(5 * fov_deg[1] / longer))))
    bar.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value / 10.0**power)))
    bar.tick_params(labelsize=TICK_SIZE - 1)
    colours.set_label(unit, fontsize=TICK_SIZE)


def _function(axes: Axes, one: PaintedSamples, prior: PaintedSamples) -> None:
    """dN of the sample within 95 % of those of the prior."""
    at = positions(one.bin_edges, "counts")
    low, _, middle, _, high = on_axis(prior.count_percentiles())
    shown = f"{len(prior)} samples"
    axes.fill_between(at, low, high, alpha=0.25, color=NETWORK, lw=0, label=f"95 % of {shown}")
    axes.plot(at, middle, "--", color=NETWORK, lw=1.4, label="their median")
    axes.plot(at, on_axis(one.counts[0]), "o-", color=TRUTH, ms=2.8, lw=1.0, label="this sample")
    style(axes, one.bin_edges)
    count_axis(axes, float(max(np.max(prior.counts), np.max(one.counts))))
    axes.set_xlabel(r"$L$ [$L_\odot$]", fontsize=LABEL_SIZE)
    axes.set_ylabel("halos per bin, $dN$", fontsize=LABEL_SIZE)
    legend_above(axes, 3)
