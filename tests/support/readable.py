"""Whether a figure can be read alone: a title, names on its axes, legends beside the data."""

from __future__ import annotations

import re
from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

FILE_NAME = re.compile(r"^\S+\.(h5|hdf5|fits|npz|png)$")


def problems(figure: Figure) -> list[str]:
    """What is wrong with a figure that has been drawn, a sentence each."""
    shown = [axes for axes in figure.axes if axes.get_visible() and axes.axison]
    data = [axes for axes in shown if axes.has_data() and axes.get_label() != "<colorbar>"]
    data = [axes for axes in data if axes.get_label() != "colours"]  # a colour bar, too
    found = []
    if data:
        found += _title(figure, shown)
        for way in ("x", "y"):
            found += _names(figure, data, way)
    for legend in _legends(figure, shown):
        found += _covers(legend, data)
    return found + _overlaps(figure, shown)


def _title(figure: Figure, shown: list[Axes]) -> list[str]:
    texts = [figure.get_suptitle()]
    texts += [axes.get_title(loc=place) for axes in shown for place in ("left", "center")]
    texts += [legend.get_title().get_text() for legend in _legends(figure, shown)]
    texts = [text for text in texts if text.strip()]
    if not texts:
        return ["it has no title"]
    return [f"its title {texts[0]} is a file's name"] if FILE_NAME.match(texts[0]) else []


def _names(figure: Figure, data: list[Axes], way: str) -> list[str]:
    """Axes whose quantity is named nowhere: not on them, nor on one with the same range."""
    if getattr(figure, f"get_sup{way}label")():
        return []
    named = [axes for axes in data if getattr(axes, f"get_{way}label")() or _words(axes, way)]
    limits = [getattr(axes, f"get_{way}lim")() for axes in named]
    return [
        f"a panel has no name of {way}: {axes.get_title()}"
        for axes in data
        if getattr(axes, f"get_{way}lim")() not in limits
        and len(getattr(axes, f"{way}axis").get_ticklocs())
    ]


def _words(axes: Axes, way: str) -> bool:
    """Whether the ticks are words, which name themselves."""
    labels = [text.get_text() for text in getattr(axes, f"get_{way}ticklabels")()]
    return any(re.search(r"[a-z]{3}", label.replace("mathdefault", "")) for label in labels)


def _legends(figure: Figure, shown: list[Axes]) -> Iterator[Legend]:
    every = [*figure.legends, *(axes.get_legend() for axes in shown)]
    yield from (legend for legend in every if legend is not None and legend.get_visible())


def _overlaps(figure: Figure, shown: list[Axes]) -> list[str]:
    """Titles and legends that lie on one another."""
    words = [(figure.get_suptitle(), figure._suptitle)]  # type: ignore[attr-defined]
    for axes in shown:
        words += [(t.get_text(), t) for t in (axes.title, axes._left_title)]  # type: ignore[attr-defined]
    words += [("a legend", legend) for legend in _legends(figure, shown)]
    boxes = [(text, artist.get_window_extent()) for text, artist in words if text.strip()]
    return [
        f"'{text}' lies on '{other}'"
        for k, (text, box) in enumerate(boxes)
        for other, its in boxes[:k]
        if min(box.x1, its.x1) - max(box.x0, its.x0) > 2.0
        and min(box.y1, its.y1) - max(box.y0, its.y0) > 2.0
    ]


def _covers(legend: Legend, data: list[Axes]) -> list[str]:
    """Panels that a legend lies on by more than its margin."""
    box = legend.get_window_extent()
    lines = []
    for axes in data:
        panel = axes.get_window_extent()
        wide = min(box.x1, panel.x1) - max(box.x0, panel.x0)
        high = min(box.y1, panel.y1) - max(box.y0, panel.y0)
        if wide > 5.0 and high > 0.02 * panel.height + 5.0:
            names = ", ".join(text.get_text() for text in legend.get_texts())
            lines.append(f"the legend ({names}) covers a panel")
    return lines
