"""Test sets are recipes: a manifest says how to make the maps and what must come out.

A manifest is a JSON file with the configuration, the seed, the number of samples, the sha256 of
every test lightcone, the generator's version and the sha256 of every sample. The maps themselves
are made again, sample by sample, wherever they are needed.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from streamtrain.catalogs.skies import made_again
from streamtrain.config import Config, from_mapping
from streamtrain.generator.batch import Batch
from streamtrain.generator.generator import GENERATOR_VERSION, Generator
from streamtrain.machine.files import write_json
from streamtrain.machine.workers import ALONE, Resources
from streamtrain.schema import (
    AssumptionWarning,
    ConfigError,
    Difference,
    differences,
    to_dict,
    warn,
)
from streamtrain.train.folder import run_folder

Named = tuple[str, str]

BATCH_SIZE = 16
"""Samples made at a time; it decides nothing but memory."""
_KINDS: dict[str, type] = {
    "generator_version": int,
    "seed": int,
    "count": int,
    "config": dict,
    "lightcones": list,
    "samples": list,
}
_NAMES: dict[type, str] = {dict: "a mapping", int: "a whole number", list: "a list"}


class OtherTestSet(ValueError):
    """Settings, lightcones or a generator that do not make a manifest's samples."""


@dataclass(frozen=True)
class Manifest:
    """The recipe of a test set."""

    generator_version: int
    seed: int
    count: int
    config: dict[str, Any]
    """The run's configuration; its own seed may differ from `seed` (test.seed)."""
    lightcones: list[dict[str, Any]]
    """Test lightcones in the generator's order: name, digest (sha256), realisation and, of those
    that streamtrain made, recipe (see `Header.recipe`; manifests of before there was one have
    none)."""
    samples: list[str]
    """sha256 of each sample's cube and counts."""


@dataclass(frozen=True)
class Report:
    """What `verify` found; each problem is one sentence."""

    problems: list[str]
    samples_compared: int

    @property
    def ok(self) -> bool:
        """Whether the same bytes came out."""
        return not self.problems


def make(
    config: Config,
    path: str | Path | None = None,
    resources: Resources = ALONE,
) -> Path:
    """Generate config.test.samples samples of the split "test", write their manifest, return its
    path (default: testset.json in the run folder). The file appears whole or not at all.

    A manifest of the same test set that is there already stays as it is, and its samples are not
    made again. Raises ValueError, one sentence, if it is of another, or cannot be read.
    """
    target = Path(path) if path is not None else default_path(config)
    if os.path.lexists(target):
        with kept(target):
            reopen(target, config, resources)[1].close()
        return target
    generator = open_generator(config, resources)
    done = 0
    for indices, _ in made(config, target, generator):
        done += len(indices)
        resources.progress.count("test set, made", done, config.test.samples, "samples")
    generator.close()
    return target


def made(config: Config, path: Path, generator: Generator) -> Iterator[tuple[list[int], Batch]]:
    """A new test set's samples in order, (indices, batch); its manifest is written after the last
    one. generator: of `open_generator`."""
    digests: list[str] = []
    for indices, batch in batches(generator, config.test.samples):
        digests += batch.digests()
        yield indices, batch
    manifest = Manifest(
        generator_version=GENERATOR_VERSION,
        seed=_seed(config),
        count=config.test.samples,
        config=to_dict(config),
        lightcones=_lightcones(generator),
        samples=digests,
    )
    write_json(path, asdict(manifest))


def default_path(config: Config) -> Path:
    """Where the manifest of a run lies."""
    return run_folder(config) / "testset.json"


def open_generator(config: Config, resources: Resources = ALONE, **more: Any) -> Generator:
    """The generator of a configuration's test set: split "test", seed test.seed if it is set.
    more: other arguments of `Generator`."""
    how = resources.of_generator(config.train.threads)
    return Generator(config, split="test", **how, **more)


def load(path: str | Path) -> Manifest:
    """Read a manifest. Raises ValueError with one sentence for a file that is none."""
    file = Path(path)
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"there is no test-set manifest {path}; make one with 'streamtrain testset make'"
        ) from None
    except OSError as error:
        raise ValueError(f"the manifest {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a test-set manifest: it is not a text file") from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not a test-set manifest, or is cut short: "
            f"no valid JSON at line {error.lineno} ({error.msg})"
        ) from None
    return _checked(data, path)


def verify(
    path: str | Path,
    config: Config | None = None,
    resources: Resources = ALONE,
) -> Report:
    """Generate a manifest's samples again and compare digests.

    config: says where the lightcone files lie here; its sample settings must be the manifest's.
    Without it the paths of the manifest itself are used. Every sample is compared if settings
    and lightcones agree; the first that differs is named.
    """
    manifest = load(path)
    try:
        generator = open_generator(recipe(manifest, config), resources)
    except (ValueError, OSError) as error:
        names = ", ".join(cone["name"] for cone in manifest.lightcones)
        return Report([f"The test set cannot be made here from {names}: {error}"], 0)
    problems = [*mismatches(manifest, generator), *not_compared(manifest, generator)]
    if _compare_lightcones(manifest, generator) or not_compared(manifest, generator):
        return Report(problems, 0)
    differing: list[int] = []
    done = 0
    for indices, batch in batches(generator, manifest.count):
        differing += differing_samples(manifest, indices, batch)
        done += len(indices)
        resources.progress.count("test set, compared", done, manifest.count, "samples")
    generator.close()
    if differing:
        problems.append(
            f"Sample {differing[0]} is the first whose bytes differ, {len(differing)} of "
            f"{manifest.count} differ in all."
        )
    return Report(problems, done)


def recipe(manifest: Manifest, config: Config | None = None) -> Config:
    """The configuration that makes a manifest's samples, with the file paths and the number
    of threads of `config`.

    Raises OtherTestSet if `config` would make other samples, naming the first setting at fault.
    """
    try:
        recorded = from_mapping(manifest.config)
    except ConfigError as error:
        raise OtherTestSet(f"the manifest's configuration cannot be used: {error}") from None
    recorded = replace(
        recorded, test=replace(recorded.test, seed=manifest.seed, samples=manifest.count)
    )
    if config is None:
        return recorded
    difference = difference_in_samples(recorded, config)
    if difference is not None:
        raise OtherTestSet(
            f"the manifest was made with other settings: {difference.text('there', 'here')}"
        )
    names = ("run", "data", "emit", "observe", "train")
    return replace(recorded, **{name: getattr(config, name) for name in names})


def difference_in_samples(one: Config, other: Config) -> Difference | None:
    """The first setting that decides the samples of a test set, wherever its files lie, and is not
    the same in two configurations."""
    return next(differences(_settings(one), _settings(other)), None)


def mismatches(manifest: Manifest, generator: Generator) -> list[str]:
    """What rules the same samples out before any is made, one sentence each: the generator's
    version, and lightcones by name; not those that were made again, see `not_compared`."""
    problems = []
    if manifest.generator_version != GENERATOR_VERSION:
        problems.append(
            f"The manifest was made by generator version {manifest.generator_version}, "
            f"this is version {GENERATOR_VERSION}."
        )
    return problems + _compare_lightcones(manifest, generator)


def not_compared(manifest: Manifest, generator: Generator) -> list[str]:
    """A sentence if lightcones of a manifest were made again elsewhere, with other last bits: the
    samples are those of the manifest, their bytes are not."""
    if _compare_lightcones(manifest, generator):
        return []  # others, which is said elsewhere
    pairs = zip(manifest.lightcones, generator.headers, strict=True)
    names = [cone.name for recorded, cone in pairs if cone.digest != recorded["digest"]]
    if not names:
        return []
    return [f"{made_again(names, 'the test set')}; its maps are not compared with the manifest"]


def check(manifest: Manifest, generator: Generator) -> None:
    """Raise OtherTestSet unless a generator makes a manifest's samples; a warning if they are the
    same but for the last bits of their lightcones."""
    if problems := mismatches(manifest, generator):
        raise OtherTestSet(" ".join(problems).rstrip("."))
    for note in not_compared(manifest, generator):
        warn(note)


def reopen(
    path: Path, config: Config | None = None, resources: Resources = ALONE, **more: Any
) -> tuple[Manifest, Generator]:
    """A manifest and the generator that makes its samples again.

    config: see `recipe`; more: other arguments of `Generator`. Raises OtherTestSet if they do not
    make them, and ValueError if the manifest or the generator cannot be opened. A warning if they
    do but for the last bits, see `check`.
    """
    manifest = load(path)
    generator = open_generator(recipe(manifest, config), resources, **more)
    try:
        check(manifest, generator)
    except OtherTestSet:
        generator.close()
        raise
    return manifest, generator


@contextlib.contextmanager
def kept(path: Path, advice: str = "--out writes elsewhere") -> Iterator[None]:
    """An OtherTestSet inside says that `path` stays as it is, and how to go on: advice."""
    try:
        yield
    except OtherTestSet as error:
        raise OtherTestSet(
            f"{path} is of another test set and stays as it is: {error}; {advice}"
        ) from None


def batches(
    generator: Generator, last: int, first: int = 0, size: int = BATCH_SIZE
) -> Iterator[tuple[list[int], Batch]]:
    """The samples from `first` to before `last`, in order: (indices, batch), each checked. Warns
    (AssumptionWarning) where they are of some of the test lightcones alone."""
    if generator.split == "test":
        what = f"the {last} samples of the test set"
        if said := generator.skies_of(last - 1).waiting(what):
            warn(said, AssumptionWarning)
    for start in range(first, last, size):
        indices = list(range(start, min(start + size, last)))
        batch = generator.generate(indices)
        batch.check()
        yield indices, batch


def skies_of(generator: Generator, batch: Batch) -> list[str]:
    """The sky that each map of a batch was cut from; fresh ones are named by their lightcone."""
    realisations = generator.skies.realisations
    names = [str(draw["lightcone"]) for draw in batch.draws]
    return [realisations.get(name, name) for name in names]


def compared(manifest: Manifest, generator: Generator) -> Iterator[tuple[list[int], Batch]]:
    """A manifest's samples again, each compared with it, unless its lightcones were made again
    elsewhere; generator: of `open_generator`. Raises ValueError at the first that differs."""
    alike = not not_compared(manifest, generator)
    for indices, batch in batches(generator, manifest.count):
        differing = differing_samples(manifest, indices, batch) if alike else []
        if differing:
            raise ValueError(
                f"test sample {differing[0]} is not the manifest's; 'streamtrain testset verify' "
                "tells more"
            )
        yield indices, batch


def differing_samples(manifest: Manifest, indices: list[int], batch: Batch) -> list[int]:
    """The samples of a batch whose bytes are not the manifest's."""
    pairs = zip(indices, batch.digests(), strict=True)
    return [k for k, digest in pairs if digest != manifest.samples[k]]


def _seed(config: Config) -> int:
    return config.seed if config.test.seed is None else config.test.seed


def _settings(config: Config) -> dict[str, Any]:
    """What decides the samples of a test set, wherever its files lie."""
    settings = dict(config.sample_settings())
    del settings["seed"]
    for section in settings["emit"].values():
        for model in (section, *section.get("mixture", {}).values()):
            if "model" in model:
                model["model"] = os.path.basename(model["model"])
    return settings | {"test": {"samples": config.test.samples, "seed": _seed(config)}}


def _lightcones(generator: Generator) -> list[dict[str, Any]]:
    return [
        {"name": cone.name, "digest": cone.digest, "realisation": cone.realisation}
        | ({} if cone.recipe is None else {"recipe": cone.recipe})
        for cone in generator.headers
    ]


def _named(manifest: Manifest, generator: Generator) -> tuple[list[Named], list[Named]]:
    """The lightcones of a manifest and of here, (name, what is in it): the recipe where both
    sides have it, else the digest."""
    ours = [(cone.name, cone.recipe, cone.digest) for cone in generator.headers]
    theirs = [(cone["name"], cone.get("recipe"), cone["digest"]) for cone in manifest.lightcones]
    both = {recipe for _, recipe, _ in ours} & {recipe for _, recipe, _ in theirs} - {None}
    recorded, here = (
        [(name, str(recipe) if recipe in both else digest) for name, recipe, digest in side]
        for side in (theirs, ours)
    )
    return recorded, here


def _compare_lightcones(manifest: Manifest, generator: Generator) -> list[str]:
    recorded, here = _named(manifest, generator)
    problems = []
    for (name, content), cone in zip(recorded, manifest.lightcones, strict=True):
        found = [c for n, c in here if n == name]
        if not found:
            problems.append(f"Lightcone {name} of the manifest is missing here.")
        elif content not in found:
            digest = next(h.digest for h in generator.headers if h.name == name)
            problems.append(
                f"Lightcone {name} differs: its sha256 begins {digest[:12]}, "
                f"the manifest has {cone['digest'][:12]}."
            )
    known = {name for name, _ in recorded}
    problems += [f"Lightcone {n} is not in the manifest." for n, _ in here if n not in known]
    if not problems and recorded != here:
        names = ", ".join(name for name, _ in recorded)
        problems.append(f"The lightcones are not in the manifest's order: {names}.")
    return problems


def _checked(data: Any, path: str | Path) -> Manifest:
    """A manifest from parsed JSON, its parts checked."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{path} is not a test-set manifest: it holds no mapping")
    for field in fields(Manifest):
        if field.name not in data:
            raise ValueError(f"{path} is not a test-set manifest: '{field.name}' is missing")
        value, kind = data[field.name], _KINDS[field.name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{path}: '{field.name}' must be {_NAMES[kind]}, not {value!r:.60}")
    for k, cone in enumerate(data["lightcones"]):
        if not isinstance(cone, dict) or not {"name", "digest"} <= cone.keys():
            raise ValueError(f"{path}: lightcones[{k}] must have a name and a digest")
    if data["count"] < 1 or len(data["samples"]) != data["count"]:
        raise ValueError(
            f"{path}: 'count' is {data['count']}, but {len(data['samples'])} samples are listed"
        )
    return Manifest(**{field.name: data[field.name] for field in fields(Manifest)})
