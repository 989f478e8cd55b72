"""The lightcones that a configuration names, in files or made during training, opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streamtrain.catalogs.headers import Header
from streamtrain.catalogs.settings import SynthesizeConfig
from streamtrain.catalogs.skies import LightconeFiles, check_disjoint, check_once, expand
from streamtrain.catalogs.synthesis.fresh import FreshSkies
from streamtrain.catalogs.synthesis.options import SkyOptions
from streamtrain.config import Config
from streamtrain.luminosity.settings import InterloperConfig
from streamtrain.numerics.rng import SPLITS, Split
from streamtrain.schema import ConfigError

Report = Callable[[float, str], None]
DIAGONALS = 1.2
"""Side of a fresh lightcone in diagonals of the field, which can then be rolled and moved."""


def open_skies(
    config: Config,
    split: Split,
    report: Report | None = None,
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
