"""The lightcone files that a configuration needs: which are there, which are to be made and how."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatch
from glob import has_magic
from pathlib import Path
from typing import Any

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.skies import expand
from streamtrain.catalogs.synthesis.make import Recipe
from streamtrain.catalogs.synthesis.options import SkyOptions
from streamtrain.catalogs.synthesis.synthesize import is_sky_of, realisation_name
from streamtrain.config import Config
from streamtrain.generator.line import check_masses, check_redshifts
from streamtrain.generator.open import DIAGONALS, own_files
from streamtrain.generator.pose import check_fits
from streamtrain.grid import Grid
from streamtrain.luminosity.lines import line_name
from streamtrain.luminosity.mixture import Mixture
from streamtrain.luminosity.settings import InterloperConfig, LineConfig
from streamtrain.luminosity.trace import trace
from streamtrain.numerics.rng import SPLITS, Split
from streamtrain.schema import ConfigError

NUMBERS: dict[Split, int] = {"train": 64, "validation": 8, "test": 8}
"""Lightcones of each split; the scatter from sky to sky is known from 8 test skies or more."""
FIRST_SEEDS: dict[Split, int] = {"train": 0, "validation": 1000, "test": 2000}
"""Seeds of the splits are disjoint, so their skies are."""
SUFFIXES = (".h5", ".hdf5", ".hdf")
MOST = 1000
"""Lightcones of a split between two of these."""
MADE_COLUMNS = ("sfr", "abundance_matched_L")
"""What a luminosity model may read of a halo, besides mass and redshift, of a lightcone that is
made."""


@dataclass
class Needed:
    """The files that a path or glob of a configuration stands for."""

    where: str
    """The setting that names it."""
    split: Split
    pattern: str
    grids: list[Grid]
    """The grids of the lines that its halos shine in."""
    reads_sfr: bool
    """Whether one of their models takes a column of star-formation rates from the lightcone."""
    there: dict[Path, str] = field(default_factory=dict)
    """Files that are there, all of which fit, and their realisations."""
    seeds: range = range(0)
    """The seeds of the files that `recipe` makes, those that are there already among them."""
    recipe: Recipe = field(default_factory=lambda: Recipe(Path()))

    @property
    def missing(self) -> list[Path]:
        """Files that are to be made."""
        return [self.recipe.path(seed) for seed in self.seeds if not self._is_there(seed)]

    def _is_there(self, seed: int) -> bool:
        paths = map(self.recipe.path, self.recipe.candidates(seed))
        return any(path in self.there for path in paths)


def needed_skies(
    config: Config,
    numbers: Mapping[Split, int] | None = None,
    given: Mapping[str, Any] | None = None,
    how: Mapping[str, Any] | None = None,
) -> list[Needed]:
    """What the lightcones of all splits of a configuration, and of its interlopers, are.

    numbers: lightcones for each glob of a split, default: `NUMBERS`; a plain file name is one, or
    none where they are 0.
    given: further fields of `SkyOptions`, which say more than the configuration does; how: further
    fields of `Recipe`.
    Raises ConfigError or CatalogError, one sentence, for a name that none follows from, and for a
    file that is there and does not fit.
    """
    needed = _uses(config)
    if not needed:
        raise ConfigError(
            "the configuration names no lightcone files: name some, as in "
            "data.train=[lightcones/train_*.h5]"
        )
    seeds: dict[tuple[str, Split], int] = {}
    number_of = {}
    for one in needed:
        number = (numbers or NUMBERS)[one.split]
        number_of[id(one)] = number if has_magic(one.pattern) else min(number, 1)
    for one in needed:
        for path in expand([one.pattern], one.where, must_exist=False):
            one.there[path] = _check_fits(one, path, config)
        number = number_of[id(one)]
        first = seeds.setdefault((one.where, one.split), FIRST_SEEDS[one.split])
        _plan(one, config, number, first, numbers is not None, given or {}, how or {})
        seeds[one.where, one.split] = first + number
        if first + number > FIRST_SEEDS[one.split] + MOST:
            raise ConfigError(
                f"{one.where}: {first + number - FIRST_SEEDS[one.split]} lightcones are more than "
                f"the {MOST} of a split; with data.train={{synthesize: {{}}}} as many are made as "
                "a training needs"
            )
    for one in needed:
        beside = [a for a in needed if (a.where, a.split) == (one.where, one.split)]
        _let_others_in(one, sum(number_of[id(a)] for a in beside), needed)
    _check_disjoint(needed)
    return needed


def sky_of(config: Config) -> tuple[dict[str, Any], bool]:
    """What a configuration wants of a test lightcone: fields of `SkyOptions`, and whether it must
    have the column sfr. Raises ConfigError, one sentence, where it names no files of them."""
    one = next((one for one in _uses(config) if one.where == "data.test"), None)
    if one is None:
        raise ConfigError("data.test names no lightcone files: name some")
    return _options(one, config), one.reads_sfr


def _let_others_in(one: Needed, stride: int, needed: Sequence[Needed]) -> None:
    """Say which seeds take the place of those without a halo: later ones of the split, in steps of
    all that are wanted of it, but for skies and names of other splits."""
    if not one.seeds:
        return
    end = FIRST_SEEDS[one.split] + MOST
    others = [other for other in needed if other.split != one.split]
    skies = {name for other in others for name in other.there.values()}
    patterns = [str(Path(other.pattern)) for other in others]
    recipe = one.recipe
    taken = frozenset(
        seed
        for seed in range(FIRST_SEEDS[one.split], end)
        if is_sky_of(seed, recipe.options, skies)
        or any(fnmatch(str(recipe.path(seed)), pattern) for pattern in patterns)
    )
    recipe = replace(recipe, stride=stride, end=end, taken=taken)
    candidates = {other for seed in one.seeds for other in recipe.candidates(seed)}
    kept = frozenset(seed for seed in candidates if recipe.path(seed) in one.there)
    one.recipe = replace(recipe, kept=kept)


def _uses(config: Config) -> list[Needed]:
    """Every path and glob with the lines that shine in its halos; the same one twice is joined."""
    grid, data = config.grid, config.data
    shared: list[tuple[LineConfig, float]] = [(config.line, grid.nu_rest_GHz)]
    uses: list[tuple[str, dict[str, list[str]], list[tuple[LineConfig, float]]]] = []
    for name, section in config.emit.items():
        if isinstance(section, InterloperConfig):
            line = [(section.line, section.nu_rest_GHz)]
            own = own_files(section)
            if any(own.values()):
                uses.append((f"emit.{name}", own, line))
            else:
                shared += line
    uses.insert(0, ("data", {split: data.files(split) for split in SPLITS}, shared))
    found: dict[tuple[Split, str], Needed] = {}
    for where, files, lines in uses:
        grids = [replace(grid, nu_rest_GHz=nu) for _, nu in lines]
        sfr = any(_reads_sfr(section, nu, config, where) for section, nu in lines)
        for split in SPLITS:
            for pattern in files[split]:
                new = Needed(f"{where}.{split}", split, pattern, [], False)
                one = found.setdefault((split, pattern), new)
                one.grids += grids
                one.reads_sfr |= sfr
    return list(found.values())


def _reads_sfr(section: LineConfig, nu_rest_GHz: float, config: Config, where: str) -> bool:
    """Whether a model takes star-formation rates from a column of the lightcone."""
    names: set[str] = set()
    for model in Mixture(section).models:
        traced = trace(
            model.function,
            model.traced_parameters,
            {"nu_rest_GHz": nu_rest_GHz},
            sigma_dex=model.sigma_dex,
            on_fraction=model.on_fraction,
        )
        names |= {name for name, _ in traced.columns}
    if others := sorted(names - set(MADE_COLUMNS)):
        raise ConfigError(
            f"the luminosity model of {where} reads the column '{others[0]}', which lightcones "
            "that are made do not have: bring your own (`streamtrain catalog import`)"
        )
    return "sfr" in names and config.data.sfr == "column"


def _check_fits(one: Needed, path: Path, config: Config) -> str:
    """The realisation of a file; CatalogError if it cannot be used for what it is named for."""
    lightcone = Lightcone.open(path)
    data = config.data
    try:
        check_fits(lightcone.footprint_deg, config.grid.fov_deg, data.roll, lightcone.name)
        check_masses(lightcone, data.min_mass_Msun, "data.min_mass_Msun")
        for grid in one.grids:
            check_redshifts(lightcone, grid)
        if one.reads_sfr and "sfr" not in lightcone.columns:
            raise CatalogError(f"{path.name} has no column 'sfr', but data.sfr = column")
    except ValueError as error:
        raise CatalogError(
            f"{path}, a file of {one.where}, does not fit: {error}; or remove it, or give "
            f"{one.where} another name"
        ) from None
    return lightcone.realisation


def _plan(
    one: Needed,
    config: Config,
    number: int,
    first: int,
    asked: bool,
    given: Mapping[str, Any],
    how: Mapping[str, Any],
) -> None:
    """Which files are made, by what."""
    glob = has_magic(one.pattern)
    if not glob and not one.there and not one.pattern.endswith(SUFFIXES):
        raise ConfigError(
            f"{one.where}: '{one.pattern}' is no name of a lightcone file: name one that ends in "
            f".h5, or a glob such as lightcones/{one.split}_*.h5"
        )
    folder, name = Path(one.pattern).parent, Path(one.pattern).name
    try:
        prefix = _prefix(one, folder, name) if glob else ""
    except ConfigError:
        if one.there:
            return
        raise
    mine = re.compile(re.escape(prefix) + r"_\d{4,}\.h5")
    others = [path for path in one.there if not (glob and mine.fullmatch(path.name))]
    if others and not (glob and asked):
        return  # somebody else's lightcones are what the name stands for
    one.seeds = range(first, first + number)
    try:
        options = SkyOptions(**(_options(one, config) | dict(given)))
        width, height = (side / 2.0 for side in options.footprint_deg)
        made = (-width, width, -height, height)
        check_fits(made, config.grid.fov_deg, config.data.roll, "what would be made")
    except ValueError as error:
        why = _out_of_range(one) if str(error).startswith("z_range") else ""
        raise ConfigError(f"{one.where}: {error}{why}") from None
    more = {"velocities": False, "sfr": one.reads_sfr} | dict(how)
    if one.reads_sfr and not more["sfr"]:
        raise ConfigError(f"{one.where}: data.sfr = column needs the column that sfr: false omits")
    one.recipe = Recipe(folder, prefix, options, **more, name="" if glob else name)


def _options(one: Needed, config: Config) -> dict[str, Any]:
    """What the configuration says of a lightcone."""
    low = min(grid.z_range[0] for grid in one.grids)
    high = max(grid.z_range[1] for grid in one.grids)
    fov, roll = config.grid.fov_deg, config.data.roll
    side = DIAGONALS * math.hypot(*fov)
    ra, dec = {"any": (side, side), "none": fov}.get(roll, (max(fov), max(fov)))
    if roll != "any":  # an angle on the sky is a larger difference in ra away from the equator
        ra /= math.cos(math.radians(dec / 2.0))
    return {
        "footprint_deg": (_up(ra), _up(dec)),
        "z_range": (math.floor(1e3 * low) / 1e3, _up(high)),
        "min_mass_Msun": config.data.min_mass_Msun,
    }


def _out_of_range(one: Needed) -> str:
    """Of a line whose redshifts no lightcone can be made of, the frequencies that it may have."""
    [low, high] = next(f.metadata["span"] for f in fields(SkyOptions) if f.name == "z_range")
    for grid in one.grids:
        near, far = grid.z_range
        if near < low or far > high:
            rest = grid.nu_rest_GHz
            first, last = (rest / (1.0 + z) for z in (low, high))
            return (
                f": {line_name(rest)} is there at {first:.4g} to {last:.4g} GHz, and the band is "
                "{:g} to {:g} GHz".format(*grid.nu_GHz)
            )
    return ""


def _up(value: float) -> float:
    """The next number of three decimals, but for rounding errors."""
    return math.ceil(1e3 * value - 1e-6) / 1e3


def _prefix(one: Needed, folder: Path, name: str) -> str:
    """Start of the names of files that a glob matches."""
    prefix = name.partition("*")[0].rstrip("_") or one.split
    if has_magic(str(folder)) or has_magic(prefix) or not fnmatch(f"{prefix}_0000.h5", name):
        raise ConfigError(
            f"{one.where}: no name of a new file follows from '{one.pattern}'; one does from "
            f"lightcones/{one.split}_*.h5"
        )
    return prefix


def _check_disjoint(needed: Sequence[Needed]) -> None:
    """A file, and a sky, belong to one split."""
    skies: dict[str, tuple[Needed, Path]] = {}
    for one in needed:
        for other in needed:
            for path in [*one.there, *one.missing]:
                if other.split != one.split and fnmatch(str(path), str(Path(other.pattern))):
                    raise ConfigError(
                        f"{path} of {one.where} is named by {other.where} too: splits must be "
                        "different skies, with names of their own"
                    )
        known = dict(one.there)
        for seed in one.seeds:
            path = one.recipe.path(seed)
            if path not in known:
                known[path] = realisation_name(seed, one.recipe.options)
        for path, name in known.items():
            first, where = skies.setdefault(name, (one, path))
            if first.split != one.split:
                raise CatalogError(
                    f"the realisation '{name}' would be in two splits: {first.where} ({where}) and "
                    f"{one.where} ({path}); remove the file that is there, or give it another name"
                )
