"""Figures as files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from streamtrain.files import writing


def write_png(figure: Figure, path: Path) -> None:
    """Write a figure; its folder is made if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as part:
        figure.savefig(part, format="png")
