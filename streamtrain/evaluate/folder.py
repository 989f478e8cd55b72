"""The folder of a run: its configuration, what it keeps as JSON, and who writes into it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from streamtrain.config import DATA_SETTINGS, Config, load_config
from streamtrain.evaluate import testset
from streamtrain.generator.generator import Generator
from streamtrain.schema import ConfigError, Difference, differences, to_dict
from streamtrain.shipped import find_run, is_shipped, near_run
from streamtrain.train.checkpoint import is_free
from streamtrain.train.folder import run_folder


def run_config(folder: str | Path, settings: Iterable[str] = ()) -> Config:
    """The configuration of a run from its folder, wherever that folder lies now, or of a trained
    network that ships with streamtrain from its name.

    settings: `dotted.key=value`, where files lie now and how to compute. Raises ValueError where
    there is no such folder, and ConfigError, one sentence, for a setting that would change what the
    network was trained on.
    """
    if not isinstance(folder, str | Path):
        raise ValueError(f"a run is named by its folder, not by a {type(folder).__name__}")
    folder = find_run(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no run '{folder}': {near_run(folder)}")
    own = load_config(folder)
    given = list(settings)
    if not given:
        return own
    config = load_config(folder, given)
    if config.run != own.run:
        raise ConfigError(f"run={config.run}: the run is already named, it is {own.run}")

    files = own.data.fresh is None and config.data.fresh is None

    def may_differ(name: str) -> bool:
        """The content of the files of data.train is compared where they are used."""
        return is_free(name) or (name == "data.train" and files)

    difference = next(differences(to_dict(own), to_dict(config), free=may_differ), None)
    if difference is not None:
        raise ConfigError(
            f"the network of {folder} was trained with other settings: "
            f"{difference.text('there', 'here')}; a setting "
            "here may say where lightcones lie (data.test=...) and how to compute (train.threads=2)"
        )
    return config


def own_config(config: Config) -> Config:
    """The configuration that is kept in a run's folder, with the lightcones of `config`, whatever
    is evaluated; `config` where nothing is kept."""
    folder = run_folder(config)
    if not (folder / "config.yaml").is_file():
        return config
    own = run_config(folder)
    settings = {name: getattr(own.data, name) for name in DATA_SETTINGS}
    if own.data.fresh or config.data.fresh:
        settings["train"] = own.data.train
    return replace(own, data=replace(config.data, **settings))


def check_writable(folder: Path) -> None:
    """ValueError, before any work, for the folder of another user's run, and of one that ships with
    streamtrain."""
    if is_shipped(folder):
        raise ValueError(
            f"{folder.name} ships with streamtrain and stays as it is: --out FOLDER writes "
            f"elsewhere where the command has it, and `streamtrain runs pack {folder.name} --out "
            "FOLDER` makes a copy of yours"
        )
    if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{folder} may not be written into by you; --out FOLDER writes elsewhere")


def output_folder(
    config: Config,
    out: str | Path | None,
    generator: Generator | None = None,
    *,
    test: bool = True,
) -> Path:
    """Where a command writes what it makes of a run's samples: `out`, or the folder of the run,
    where nothing of other samples is written.

    generator: of the test samples, if they are used; test: whether number and seed of the test
    samples matter. Raises ValueError, one sentence, if settings or test lightcones are not those of
    the run, or if its folder may not be written into.
    """
    folder = run_folder(config)
    if out is not None:
        return Path(out)
    check_writable(folder)
    if not (folder / "config.yaml").is_file():
        return folder
    own = load_config(folder)
    alike = config if test else replace(config, test=own.test)
    difference = testset.difference_in_samples(own, alike)
    if own.seed != config.seed:
        difference = Difference("seed", (own.seed, config.seed))
    manifest = testset.default_path(config)
    problem = ""
    if difference is not None:
        problem = difference.text("in the run", "here")
    elif generator is not None and manifest.is_file():
        try:
            testset.check(testset.load(manifest), generator)
        except testset.OtherTestSet as error:
            problem = str(error)
    if problem:
        raise ValueError(
            f"{folder} keeps what was made with its own settings: {problem}; --out FOLDER writes "
            "elsewhere"
        )
    return folder


def read_evaluation(folder: Path) -> dict[str, Any] | None:
    """What the evaluation.json of a run holds; None where there is none that can be read."""
    return read_json(folder / "evaluation.json")


def read_json(path: Path) -> dict[str, Any] | None:
    """What a JSON file of a run holds; None where there is none that can be read."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
