"""Evaluate a run's network on other skies or with other test settings, in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from streamtrain.catalogs.headers import Header
from streamtrain.catalogs.skies import check_once, expand
from streamtrain.catalogs.synthesis.box import METHOD
from streamtrain.config import Config
from streamtrain.evaluate import testset
from streamtrain.evaluate.folder import output_folder
from streamtrain.evaluate.run import Run
from streamtrain.generator.batch import Batch
from streamtrain.generator.generator import Generator
from streamtrain.generator.open import sky_options
from streamtrain.machine.files import naming
from streamtrain.train.folder import read_history

SOME_DRAWS = 256
"""So many cosmologies are drawn where the training draws one for every sky."""


def training_files(config: Config) -> list[Path]:
    """The lightcone files of the training that are there; none where it made them, or are gone."""
    return expand(config.data.files("train"), "data.train", must_exist=False)


def on_other_skies(run: Run, files: Sequence[str], option: str = "--on") -> Config:
    """A run's configuration with the lightcones `files` (files or globs) as its test skies.

    option: where they were named, for messages. Raises ValueError, one sentence, for one that is no
    lightcone, or is of a sky that the network was trained on.
    """
    paths = expand(files, option)
    if not paths:
        raise ValueError(f"{option} needs a lightcone file")
    check_once({option: paths})
    config = run.config
    training = [Header.read(path) for path in training_files(config)]
    made = read_history(run.folder / "lightcones.jsonl", "number")
    digests = {*(run.trained.lightcones or []), *(str(entry.get("digest")) for entry in made)}
    recipes = {*run.trained.recipes.values()}
    seeds = tuple(f"{METHOD}-{entry['seed']}-" for entry in made if "seed" in entry)
    for path in paths:
        sky = Header.read(path)
        where = next((other.path for other in training if sky.same_sky(other)), None)
        fresh = sky.realisation.startswith(seeds)
        if where is not None or fresh or sky.digest in digests or sky.recipe in recipes:
            also = f" ({where})" if where is not None and where != path else ""
            raise ValueError(
                f"{option} {path}: the network of {run.folder} was trained on this sky{also}, and "
                "is to be evaluated on others"
            )
    data = replace(config.data, test=[str(path) for path in paths], validation=[])
    return replace(config, data=data)


def default_folder(run: Run, files: Sequence[str] | None) -> Path:
    """In the current folder: RUN_on_NAME, after what the files' names begin with."""
    if files is None:
        return Path(f"{run.folder.resolve().name}_evaluated")
    stems = sorted(path.stem for path in expand(files, "--on"))
    common = stems[0] if stems else ""
    if len(stems) > 1:
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(stems[0], stems[-1], strict=False))
        common = "".join(one for one, _ in alike).rstrip("0123456789")
    name = re.sub(r"[^\w.+-]", "_", common).strip("_-.") or "skies"
    return Path(f"{run.folder.resolve().name}_on_{name}")


@contextlib.contextmanager
def new_folder(target: Path, run: Run) -> Iterator[Path]:
    """A folder to write into, which becomes `target` when all is written.

    Raises ValueError, one sentence, if there is something in `target`, or it lies in the run.
    """
    if run.folder.resolve() in (target.resolve(), *target.resolve().parents):
        raise ValueError(f"--out {target} lies in the run {run.folder}, which stays as it is")
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        raise ValueError(
            f"{target} is already there, and is not overwritten: name another with --out"
        )
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    with naming(target):
        part.mkdir(parents=True)
    try:
        yield part
        os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def folder_for(run: Run, out: str | Path | None) -> Iterator[Path]:
    """The folder of a run, if its settings are those of here, or a `new_folder` of the name `out`.
    Raises ValueError, one sentence."""
    if out is None:
        yield output_folder(run.config, None, test=False)
    else:
        with new_folder(Path(out), run) as folder:
            yield folder


def open_maps(
    run: Run, config: Config, path: Path, name: str, **more: Any
) -> tuple[Generator, Iterator[tuple[list[int], Batch]], list[str]]:
    """The generator of test maps, these, which are compared with the manifest `path` or make it,
    and a sentence where they cannot be compared.

    name: of the maps; more: other arguments of `Generator`. Raises ValueError, one sentence, for
    maps that the network does not take, and another manifest than theirs.
    """
    notes: list[str] = []
    if path.exists():
        with testset.kept(path):
            manifest, generator = run.reopened(path, config, **more)
        notes = testset.not_compared(manifest, generator)
        batches = testset.compared(manifest, generator)
    else:
        generator = run.testing(config, **more)
        batches = testset.made(config, path, generator)
    run.trained.check_maps(generator, f"the maps of {name}")
    return generator, batches, notes


def notes_on(config: Config, generator: Generator) -> list[str]:
    """What should be known of test skies that are not the run's own, a sentence each."""
    training = training_files(config)
    realisations = generator.skies_until(config.test.samples)
    skies = len({*realisations.values()})
    what = "other realisations than the training's"
    if not training and config.data.fresh is None:
        what = (
            "not the training's by their content (its lightcones are gone, so nothing else tells)"
        )
    which = f"{skies} {'sky' if skies == 1 else 'skies'}, {what}"
    notes = [f"{which}: {', '.join(realisations)}"]
    known = cosmologies_of(config, training)
    for header in generator.headers:
        if known is None:
            notes.append("the cosmology of the training is unknown here: its lightcones are gone")
            break
        other = {
            key: (low, high)
            for key, (low, high) in known.items()
            if not low - 1e-6 * abs(low) <= header.cosmology[key] <= high + 1e-6 * abs(high)
        }
        if other:
            then = ", ".join(
                f"{key} = {low:.4g}" + (f" to {high:.4g}" if high > low else "")
                for key, (low, high) in other.items()
            )
            now = ", ".join(f"{key} = {header.cosmology[key]:.4g}" for key in other)
            notes.append(f"{header.name} has another cosmology: {now}; the training: {then}")
    return notes


def cosmology_of(config: Config, training: Sequence[Path]) -> dict[str, float] | None:
    """The cosmology of a run's training lightcones, of the first where they have several; None
    where they are gone. training: their files."""
    if config.data.fresh is not None:
        return sky_options(config, config.data.fresh).cosmology.to_dict()
    return Header.read(training[0]).cosmology if training else None


def cosmologies_of(
    config: Config, training: Sequence[Path]
) -> dict[str, tuple[float, float]] | None:
    """The lowest and the highest value of each parameter in the training's lightcones."""
    every = [Header.read(path).cosmology for path in training]
    if config.data.fresh is not None:
        options = sky_options(config, config.data.fresh)
        seeds = range(SOME_DRAWS if options.vary else 1)
        every = [options.of(seed).cosmology.to_dict() for seed in seeds]
    if not every:
        return None
    return {key: (min(c[key] for c in every), max(c[key] for c in every)) for key in every[0]}
