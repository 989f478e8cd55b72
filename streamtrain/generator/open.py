"""The lightcones that a configuration names, in files or made during training, opened.

Before that, the memory that they take is compared with what is free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streamtrain.catalogs.headers import Header
from streamtrain.catalogs.settings import SynthesizeConfig
from streamtrain.catalogs.skies import LightconeFiles, check_disjoint, check_once
from streamtrain.catalogs.synthesis.fresh import FreshSkies
from streamtrain.catalogs.synthesis.options import SkyOptions
from streamtrain.config import Config, ConfigError
from streamtrain.generator.halos import BANK_BYTES, expand
from streamtrain.generator.line import LinePlan
from streamtrain.generator.windows import KEPT, Schedule
from streamtrain.luminosity.settings import InterloperConfig
from streamtrain.machine.memory import free_memory
from streamtrain.numerics.rng import SPLITS, Split

Report = Callable[[float, str], None]
Line = tuple[LightconeFiles | FreshSkies, Schedule, LinePlan]
"""The lightcones whose halos shine in a line, when they are used, and what else makes the line."""

DIAGONALS = 1.2
"""Side of a fresh lightcone in diagonals of the field, which can then be rolled and moved."""


def open_skies(
    config: Config,
    split: Split,
    report: Report | None = None,
    threads: int | None = None,
    device: str = "cpu",
) -> LightconeFiles | FreshSkies:
    """The lightcones of a split.

    report: called while one is made, with (fraction done, what is being done). device: where fresh
    lightcones are made.
    Raises ConfigError or CatalogError, one sentence each, for what cannot be used.
    """
    data = config.data
    if split != "train" or data.fresh is None:
        return LightconeFiles(
            _open_files({name: data.files(name) for name in SPLITS}, split, "data")
        )
    others = [
        path
        for name in SPLITS
        for path in expand(data.files(name), f"data.{name}", must_exist=False)
    ]
    return FreshSkies(
        config.seed,
        sky_options(config, data.fresh),
        reserved=[Header.read(path) for path in others],
        threads=threads,
        device=device,
        report=report,
    )


def refuse_missing_files(config: Config, splits: Sequence[Split]) -> None:
    """Raise what `open_skies` and `open_interlopers` raise for a split whose lightcone files are
    not there, before any is read or made. Without any lightcones to train on there is no work that
    could be in vain."""
    if not config.data.train:
        return
    for split in splits:
        if split != "train" or config.data.fresh is None:
            _open_files({name: config.data.files(name) for name in SPLITS}, split, "data")
        for name, section in config.emit.items():
            own = own_files(section)
            if any(own.values()):
                _open_files(own, split, f"emit.{name}")


def own_files(section: object) -> dict[str, list[str]]:
    """Lightcones by split that an interloper does not share with the line."""
    if not isinstance(section, InterloperConfig):
        return {}
    return {split: getattr(section, split) for split in SPLITS}


def sky_options(config: Config, section: SynthesizeConfig) -> SkyOptions:
    """What decides the halos of fresh lightcones, besides their seeds."""
    grid, data = config.grid, config.data
    unsaid: dict[str, Any] = {
        "footprint_deg": round(DIAGONALS * float(np.hypot(*grid.fov_deg)), 3),
        "z_range": grid.z_range,
        "min_mass_Msun": data.min_mass_Msun,
    }
    try:
        return SkyOptions(**(unsaid | section.said()))
    except ValueError as error:
        raise ConfigError(f"data.train.synthesize: {error}") from None


def open_interlopers(
    config: Config, split: Split, skies: LightconeFiles | FreshSkies
) -> dict[str, LightconeFiles]:
    """Lightcones of interlopers with files of their own, by the interloper's name: those of the
    same files are one object, which may be `skies`, those of the line."""
    found: dict[str, LightconeFiles] = {}
    for name, section in config.emit.items():
        own = own_files(section)
        if any(own.values()):
            paths = _open_files(own, split, f"emit.{name}")
            _check_shared(config, own, f"emit.{name}")
            opened = (s for s in (skies, *found.values()) if isinstance(s, LightconeFiles))
            same = next((s for s in opened if s.sources == paths), None)
            found[name] = same or LightconeFiles(paths)
    return found


def _check_shared(config: Config, own: Mapping[str, Sequence[str]], where: str) -> None:
    """CatalogError when a sky of an interloper is in another split of the line."""
    together: dict[str, list[Path]] = {
        s: expand(config.data.files(s), f"data.{s}", must_exist=False)
        + expand(own[s], f"{where}.{s}", must_exist=False)
        for s in SPLITS
    }
    check_disjoint(together)


def _open_files(patterns: Mapping[str, Sequence[str]], split: Split, where: str) -> list[Path]:
    """The lightcone files of a split; the splits must be different realisations. patterns: files or
    globs for each split; where: the section they stand in."""
    paths: dict[str, list[Path]] = {
        name: expand(patterns[name], f"{where}.{name}", must_exist=name == split) for name in SPLITS
    }
    if not paths[split]:
        raise ConfigError(
            f"{where}.{split} names no lightcone: name some, as in "
            f"{where}.{split}=[lightcones/{split}_*.h5], which `streamtrain catalog make --for` "
            "then makes, or your own, see `streamtrain catalog import`"
        )
    check_once({f"{where}.{name}": files for name, files in paths.items()})
    check_disjoint(paths)
    return paths[split]


SHARE = 0.5
"""Share of the free memory that lightcones may take."""
GB = 1e9


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()


def bytes_in_use(lines: Sequence[Line], device: torch.device) -> float:
    """Memory that lightcones take on a device [bytes], while those of a window and of the next are
    held: every bank once, what every line adds to it, on a CPU the lightcones' own arrays too."""
    per_halo: dict[int, int] = {}
    for skies, _, plan in lines:
        per_halo[id(skies)] = per_halo.get(id(skies), BANK_BYTES) + plan.bytes_per_halo()
    total = 0.0
    for skies, schedule in {id(s): (s, schedule) for s, schedule, _ in lines}.values():
        number = schedule.active if schedule.turns else schedule.num or 0
        most = skies.most_bytes(number, per_halo[id(skies)], with_rows=device.type == "cpu")
        total += (KEPT if schedule.turns else 1) * most
    return total


def check_memory(lines: Sequence[Line], limit_GB: float | None, device: torch.device) -> None:
    """Raise ConfigError if the lightcones in use, and those that follow them, do not fit.

    lines: of the samples, the one of the label first; limit_GB: instead of half of what is free on
    the device.
    """
    first = lines[0][1]
    needed = bytes_in_use(lines, device)
    limit = SHARE * free_bytes(device) if limit_GB is None else GB * limit_GB
    if needed > limit:
        advice = "data.active, as in data.active=2,"
        if first.turns:
            advice = f"data.active below {first.active}"
        raise ConfigError(
            f"the lightcones in use need {needed / GB:.2g} GB, more than the {limit / GB:.2g} GB "
            f"there are for them: set {advice} to use fewer at a time"
        )
