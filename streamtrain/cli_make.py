"""The command `streamtrain catalog make`, also for what a configuration needs."""

from __future__ import annotations

import argparse
import os
import shlex
from typing import TYPE_CHECKING

from streamtrain.catalogs import makeoptions

if TYPE_CHECKING:
    from streamtrain.generator.neededskies import Needed

BYTES_PER_HALO = 20
"""Of a file: position, mass, redshift in float32; a column or a component of the velocity is 4."""
SAID_BY_CONFIG = ("out", "prefix", "first_seed", "z_range", "min_mass_Msun")
"""Options that have no place beside --for."""


def make_catalog(arguments: argparse.Namespace) -> int:
    """Run the command."""
    return makeoptions.make(arguments) if arguments.config is None else _make_for(arguments)


def command_for(error: BaseException, arguments: argparse.Namespace) -> str:
    """The end of a sentence that says that a lightcone file is not there: what makes it."""
    from streamtrain.catalogs.bank import NoFileError

    config = getattr(arguments, "config", None)
    if not isinstance(error, NoFileError) or config is None:
        return ""
    settings = [word for word in getattr(arguments, "settings", []) if "=" in word]
    words = ["streamtrain", "catalog", "make", "--for", str(config), *settings]
    return f"; lightcones for this configuration: {shlex.join(words)}"


def _make_for(arguments: argparse.Namespace) -> int:
    from streamtrain.catalogs.make import make_lightcones
    from streamtrain.config import load_config
    from streamtrain.generator.neededskies import needed_skies
    from streamtrain.rng import SPLITS

    words = [*arguments.number, *arguments.settings]
    if plain := [word for word in words if "=" not in word]:
        raise ValueError(
            f"'{plain[0]}' is no key=value setting: how many lightcones is --number TRAIN "
            "VALIDATION TEST with --for"
        )
    given, how = makeoptions.chosen(arguments)
    for name in SAID_BY_CONFIG:
        if getattr(arguments, name, None) is not None or name in given:
            option = {"min_mass_Msun": "min_mass"}.get(name, name).replace("_", "-")
            raise ValueError(f"--{option} has no place beside --for: {arguments.config} says that")
    numbers = None
    if arguments.numbers is not None:
        if min(arguments.numbers) < 1:
            raise ValueError(f"--number {min(arguments.numbers)} must be at least 1")
        numbers = dict(zip(SPLITS, arguments.numbers, strict=True))
    config = load_config(arguments.config, words)
    needed = needed_skies(config, numbers, given, how)
    if os.environ.get("RANK", "0") == "0":
        for line in _describe(needed):
            print(line)
        for split in SPLITS:
            if not getattr(config.data, split):
                print(f"data.{split} names no files, and none are made for it")
    if arguments.plan:
        return 0
    for one in needed:
        if one.missing:
            make_lightcones(
                len(one.seeds),
                one.recipe,
                first_seed=one.seeds.start,
                processes=arguments.processes,
            )
    return 0


def _describe(needed: list[Needed]) -> list[str]:
    """What is there and what is to be made."""
    from streamtrain.catalogs.synthesize import expected_halos, memory_needed

    lines, files, halos, size, memory = [], 0, 0.0, 0.0, 0.0
    for one in needed:
        if one.there:
            lines.append(f"{one.where}: {_files(len(one.there))} of {one.pattern} there, which fit")
        if not one.missing:
            continue
        options, recipe, number = one.recipe.options, one.recipe, len(one.missing)
        each = expected_halos(options)
        row = BYTES_PER_HALO + 12 * recipe.velocities + 4 * recipe.sfr
        (width, height), (low, high) = options.footprint_deg, options.z_range
        last = f" to {one.missing[-1].name}" if number > 1 else ""
        lines.append(
            f"{one.where}: {_files(number)} to make, {one.missing[0]}{last}, each "
            f"{width:g} x {height:g} deg, z = {low:g}..{high:g}, above "
            f"{options.min_mass_Msun:.3g} Msun{', with a column sfr' if recipe.sfr else ''}: "
            f"about {each:.2g} halos, {_size(each * row)}"
        )
        files, halos, size = files + number, halos + number * each, size + number * each * row
        memory = max(memory, memory_needed(options))
    lines.append(
        f"in all {_files(files)} to make, about {halos:.2g} halos, {_size(size)}; making one "
        f"takes up to {_size(memory)} of memory"
        if files
        else "nothing is to be made"
    )
    return lines


def _files(number: int) -> str:
    return f"{number} file" + ("" if number == 1 else "s")


def _size(size: float) -> str:
    return f"{size / 1e9:.2g} GB" if size >= 1e9 else f"{max(size, 1e5) / 1e6:.3g} MB"
