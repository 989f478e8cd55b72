"""Runs to hand on: the small copy of one that predicts as it does, and which runs there are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from streamtrain.config import Config
from streamtrain.evaluate.folder import read_json, run_config
from streamtrain.evaluate.inference.prepare import map_taken
from streamtrain.evaluate.inference.trained_for import luminosity, trained_for_lines, wrapped
from streamtrain.machine.files import discard, write_text
from streamtrain.shipped import find_run, near_run, trained_networks
from streamtrain.tables import columns, rounded
from streamtrain.train.checkpoint import last_step, newest, save_checkpoint

HISTORY = "history.jsonl"
ENTRIES = 250
"""Training steps that a copy's history has at most, beside the validations."""
KEPT = (
    HISTORY,
    "lightcones.jsonl",
    "testset.json",
    "evaluation.json",
    "calibration.json",
    "recalibration.json",
    "infer_reference.json",
    "alarm.npz",
    "alarm.json",
    "scenarios.json",
    "catalogs.json",
    "blind.json",
)
"""Files of a run that a copy has beside its configuration, where the run has them."""
OF_A_TRAINING = ("optimiser", "average", "skipped_in_a_row")
"""Entries of a checkpoint that a copy's lacks; the average of the weights takes their place."""

HEAD = ("run", "line", "luminosity", "map", "label", "steps", "mse [dex^2]", "mean label's")
"""Columns of the table of runs."""


def pack(run: str | Path, out: str | Path) -> Path:
    """Copy what a run needs to predict into a folder, which `infer`, `evaluate` and `compare` take
    as they take the run: a checkpoint of the weights that predict, without the optimiser, and the
    numbers that were measured of the network, without figures and TensorBoard's files. Of the
    history of a long training it keeps every n-th entry, and all validations.

    run: the folder of a run, or the name of a trained network that ships with streamtrain. out: the
    folder, which must be new. Returns it. Raises ValueError, one sentence, for a run without an
    intact checkpoint, and where `out` is there.
    """
    folder, target = find_run(run), Path(out)
    config = replace(run_config(folder), run=target.name)  # not where it lay
    found = newest(folder / "checkpoints")
    if found is None:
        raise ValueError(f"the run folder {folder} has no checkpoint; train first")
    if os.path.lexists(target):
        raise ValueError(f"{target} is already there, and is not overwritten: name another")
    state = {name: value for name, value in found.state.items() if name not in OF_A_TRAINING}
    state["network"] = found.state["network"] | found.state.get("average", {})
    partial = target.with_name(f".{target.name}.tmp")
    discard(partial)
    try:
        version = int(found.manifest["generator_version"])
        save_checkpoint(partial / "checkpoints", state, config, version)
        write_text(partial / "config.yaml", config.to_yaml())
        for name in KEPT:
            if name == HISTORY and (folder / name).is_file():
                (partial / name).write_bytes(_thinned((folder / name).read_bytes()))
            elif (folder / name).is_file():
                shutil.copyfile(folder / name, partial / name)
        os.rename(partial, target)
    except BaseException:
        discard(partial)
        raise
    return target


def _thinned(history: bytes) -> bytes:
    """A history with at most `ENTRIES` training steps, evenly spaced up to the last."""
    lines = history.splitlines(keepends=True)
    steps = [k for k, line in enumerate(lines) if b"validation_loss" not in line]
    every = -(-len(steps) // ENTRIES) or 1
    left_out = set(steps) - set(steps[::-1][::every])
    return b"".join(line for k, line in enumerate(lines) if k not in left_out)


def describe_runs(folder: str | Path = "runs") -> list[str]:
    """Lines of a table of the trained networks that ship with streamtrain, and of the runs in a
    folder: what each was trained on, how long, and what it is worth on its test maps; below it, of
    those that ship, the maps that they are for. Of one run, or one network that ships, by its name,
    the same of it alone.

    Raises ValueError for a folder that is not there.
    """
    shipped = trained_networks()
    where = find_run(folder)
    if not where.is_dir() and where != Path("runs"):
        raise ValueError(f"there is no run or folder '{folder}': {near_run(folder)}")
    if (where / "config.yaml").is_file():
        name, config = str(folder), run_config(where)
        return [*columns(HEAD, [(name, *_row(where))], left=range(5)), "", *_told(name, config)]
    own = sorted(file.parent for file in where.glob("*/config.yaml"))
    rows: list[tuple[str, ...] | str] = []
    for name, path in [*shipped.items(), *((str(path), path) for path in own)]:
        try:
            rows.append((name, *_row(path)))
        except (ValueError, OSError) as error:
            rows.append(f"{name}: {error}")
    lines = columns(HEAD, rows, left=range(5))
    ships = f"Ships with streamtrain: {', '.join(shipped)}." if shipped else ""
    for name, path in shipped.items():
        lines += ["", *_told(name, run_config(path))]
    none = "" if own else f"No run is in {where}."
    return [*lines, "", *(text for text in (ships, none) if text)]


def _told(name: str, config: Config) -> list[str]:
    maps, went = trained_for_lines(config)
    return [*wrapped(maps, f"{name}: ", "    "), *wrapped(went, "    ", "    ")]


def _row(folder: Path) -> tuple[str, ...]:
    config, step = run_config(folder), last_step(folder / "checkpoints")
    grid = config.grid
    shape, fov = map_taken(config.observation).shape, grid.fov_deg
    evaluation = read_json(folder / "evaluation.json") or {}
    network, mean = (evaluation.get(name) or {} for name in ("network", "mean_label"))
    return (
        f"{grid.nu_rest_GHz:g} GHz at {grid.nu_GHz[1]:g}-{grid.nu_GHz[0]:g}",
        ", ".join(luminosity(config)),
        f"{' x '.join(map(str, shape))}, {fov[0]:g} x {fov[1]:g} deg",
        config.label.quantity,
        "-" if step is None else str(step),
        _mse(network),
        _mse(mean),
    )


def _mse(scores: Mapping[str, Any]) -> str:
    mse = scores.get("mse")
    return "-" if mse is None else rounded(float(mse), scores.get("mse_error"))
