"""How the cost of a sample grows with halos, voxels, batch size and lightcone: rows, a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from streamtrain.bench.speed import halos_per_field
from streamtrain.bench.timing import ONE_THREAD, batch_maker, in_turn, one_torch_thread
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.rows import sky_angles_deg
from streamtrain.config import Config
from streamtrain.figures import LABEL_SIZE, NETWORK, write_png
from streamtrain.generator.generator import Generator

HALOS = (10_000, 30_000, 100_000, 300_000, 1_000_000, 2_000_000)
"""Halos in the field."""
SHAPES = ((16, 16, 16), (32, 32, 32), (10, 64, 64), (64, 64, 64), (50, 128, 128), (100, 256, 256))
"""Shapes of the cubes that are timed, (n_freq, n_dec, n_ra)."""
BATCHES = (1, 4, 16, 64, 256)
FOOTPRINTS = (1.0, 1.2, 1.4, 1.7)
"""Side of the lightcone over that of the field."""
USUAL_BATCH = {"cpu": 4, "cuda": 64}

Row = dict[str, Any]


def scaling(config: Config, device: str, seconds: float) -> list[Row]:
    """Milliseconds per sample, painted and converted to map units, without map operators: one row
    per point of the four series `halos`, `voxels`, `batch` and `lightcone`, the points of a series
    in turn. On a CPU: one thread, its CPU time.

    The lightcones are the training ones: thinned or laid upon each other for `halos`, cut for
    `lightcone`, whose last point is all of them side by side.
    """
    target = torch.device(device)
    plain = replace(config, observe={}, emit={"line": config.line})
    loaded = Generator(plain, "train", target, 1)
    lightcones = list(loaded.lightcones)
    size = USUAL_BATCH[target.type]
    here = halos_per_field(loaded, range(4))
    loaded.close()
    rows: list[Row] = []

    def measure(series: str, points: Sequence[tuple[str, Config, list[Lightcone], int]]) -> None:
        ways: dict[str, Callable[[], Any]] = {}
        made: dict[str, Row] = {}
        for name, changed, cones, batch in points:
            generator = Generator(changed, "train", target, 1, lightcones=cones)
            ways[name] = batch_maker(generator, batch)
            made[name] = {
                "series": series,
                "point": name,
                "halos": halos_per_field(generator, range(4)),
                "voxels": int(np.prod(generator.painter.shape)),
                "batch": batch,
                "lightcone_halos": sum(map(len, cones)),
            }
        with one_torch_thread():
            times = in_turn(ways, seconds / len(ways), target, clock=ONE_THREAD)
        rows.extend(
            {**made[name], "ms_per_sample": 1e3 * s / made[name]["batch"]}
            for name, s in times.items()
        )

    few = lightcones[:1]
    measure(
        "halos",
        [(f"{n:.0e}", plain, [_with_halos(lightcones, n / here)], size) for n in HALOS],
    )
    measure(
        "voxels",
        [(" x ".join(map(str, shape)), _with_shape(plain, shape), few, size) for shape in SHAPES],
    )
    measure("batch", [(str(batch), plain, few, batch) for batch in BATCHES])
    quarter = replace(plain, data=replace(plain.data, roll="quarter"))
    fov = config.grid.fov_deg
    cut = [(f"{s * fov[0]:.2f} deg", quarter, [_cut(few[0], s, fov)], size) for s in FOOTPRINTS]
    measure("lightcone", [*cut, (f"{len(lightcones)} lightcones", quarter, lightcones, size)])
    return rows


def _with_shape(config: Config, shape: tuple[int, int, int]) -> Config:
    return replace(config, grid=replace(config.grid, shape=shape))


def _with_halos(lightcones: list[Lightcone], share: float) -> Lightcone:
    """A lightcone with about `share` times the halos of the first: some of its halos, chosen at
    random, or with the others laid upon it."""
    parts = [lightcones[k % len(lightcones)] for k in range(int(np.ceil(share)))]
    chosen = [np.arange(len(p)) for p in parts]
    rest = share - (len(parts) - 1)
    mixed = np.random.default_rng(0).permutation(len(parts[-1]))
    chosen[-1] = np.sort(mixed[: max(1, round(rest * len(parts[-1])))])
    return _joined(parts, chosen)


def _cut(lightcone: Lightcone, over_field: float, fov_deg: tuple[float, float]) -> Lightcone:
    """The middle of a lightcone, `over_field` times as wide as the field, or all of it."""
    ra_min, ra_max, dec_min, dec_max = lightcone.footprint_deg
    middle = ((ra_min + ra_max) / 2, (dec_min + dec_max) / 2)
    half_ra = min(over_field * fov_deg[0], ra_max - ra_min) / 2
    half_dec = min(over_field * fov_deg[1], dec_max - dec_min) / 2
    positions = (getattr(lightcone, f"{a}_Mpc").astype(np.float64) for a in "xyz")
    ra, dec = sky_angles_deg(*positions)
    inside = (abs(ra - middle[0]) <= half_ra) & (abs(dec - middle[1]) <= half_dec)
    footprint = (
        middle[0] - half_ra,
        middle[0] + half_ra,
        middle[1] - half_dec,
        middle[1] + half_dec,
    )
    return _joined([lightcone], [np.flatnonzero(inside)], footprint)


def _joined(
    parts: list[Lightcone],
    rows: list[NDArray[np.int64]],
    footprint_deg: tuple[float, float, float, float] | None = None,
) -> Lightcone:
    def gather(name: str) -> NDArray[np.float32]:
        return np.concatenate([getattr(p, name)[r] for p, r in zip(parts, rows, strict=True)])

    columns = {
        name: np.concatenate([p.columns[name][r] for p, r in zip(parts, rows, strict=True)])
        for name in parts[0].columns
        if all(name in p.columns for p in parts)
    }
    return Lightcone.from_arrays(
        *(gather(name) for name in ("x_Mpc", "y_Mpc", "z_Mpc", "mass_Msun", "z_obs")),
        cosmology=parts[0].cosmology,
        columns=columns,
        footprint_deg=footprint_deg or parts[0].footprint_deg,
        z_range=parts[0].z_range,
        min_mass_Msun=parts[0].min_mass_Msun,
        realisation=parts[0].realisation,
    )


def report_scaling(rows: list[Row]) -> list[str]:
    """Lines of a table."""
    lines = []
    for series in dict.fromkeys(row["series"] for row in rows):
        lines.append(f"\na sample against {series}")
        for row in rows:
            if row["series"] == series:
                ms = row["ms_per_sample"]
                lines.append(
                    f"{row['point']:>16s} {row['halos']:9d} halos {row['voxels']:9d} voxels "
                    f"{ms:9.3f} ms {1e6 * ms / max(row['halos'], 1):7.2f} ns per halo"
                )
    return lines


AXES = {
    "halos": ("halos", "halos in the field"),
    "voxels": ("voxels", "voxels of the map"),
    "batch": ("batch", "samples per batch"),
    "lightcone": ("lightcone_halos", "halos of the lightcones in use"),
}
"""Name of a series to (key of a row that is its abscissa, label of that axis)."""


def draw_scaling(rows: list[Row], path: Path) -> None:
    """Four panels, one per series, milliseconds per sample."""
    figure = Figure(figsize=(9.0, 6.8), layout="constrained")
    top = 1.3 * max(row["ms_per_sample"] for row in rows)
    low = min(row["ms_per_sample"] for row in rows) / 1.3
    for axes, (series, (key, name)) in zip(
        figure.subplots(2, 2, sharey=True).flat, AXES.items(), strict=True
    ):
        mine = [row for row in rows if row["series"] == series]
        axes.loglog(
            [row[key] for row in mine], [row["ms_per_sample"] for row in mine], "o-", color=NETWORK
        )
        axes.set(xlabel=name, ylim=(low, top))
        axes.grid(alpha=0.3, which="both")
        if axes.get_subplotspec().is_first_col():
            axes.set_ylabel("one sample [ms]")
    figure.suptitle("time to make one sample, against what it is made of", fontsize=LABEL_SIZE)
    figure.set_dpi(110)
    write_png(figure, path)
