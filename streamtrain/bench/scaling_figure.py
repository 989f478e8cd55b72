"""The cost of a sample against halos, voxels, batch size and the lightcone, as a figure."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from streamtrain.bench.scaling import Row
from streamtrain.evaluate.png import write_png

AXES = {
    "halos": ("halos", "halos in the field"),
    "voxels": ("voxels", "voxels of the map"),
    "batch": ("batch", "samples per batch"),
    "lightcone": ("lightcone_halos", "halos of the lightcones in use"),
}
"""Of each series: the number of a row that is its abscissa, and what that is called."""


def draw_scaling(rows: list[Row], path: Path) -> None:
    """Four panels, one per series, milliseconds per sample."""
    figure = Figure(figsize=(9.0, 6.4), layout="constrained")
    top = 1.3 * max(row["ms_per_sample"] for row in rows)
    low = min(row["ms_per_sample"] for row in rows) / 1.3
    for axes, (series, (key, name)) in zip(
        figure.subplots(2, 2, sharey=True).flat, AXES.items(), strict=True
    ):
        mine = [row for row in rows if row["series"] == series]
        axes.loglog(
            [row[key] for row in mine], [row["ms_per_sample"] for row in mine], "o-", color="C0"
        )
        axes.set(xlabel=name, ylim=(low, top))
        axes.grid(alpha=0.3, which="both")
        if axes.get_subplotspec().is_first_col():
            axes.set_ylabel("one sample [ms]")
    figure.set_dpi(110)
    write_png(figure, path)
