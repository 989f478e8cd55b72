"""Every public name has a docstring with an example, and the examples are right."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from support import small

import streamtrain
from streamtrain.train import monitor

SPLITS = ("train", "validation", "test")
NAMES = [name for name in dir(streamtrain) if name != "__version__"]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three lightcones and the run runs/example, of eight steps."""
    folder = tmp_path_factory.mktemp("public")
    (folder / "lightcones").mkdir()
    for seed, name in enumerate(SPLITS, 1):
        small.lightcone(seed).save(folder / f"lightcones/{name}_0.h5")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("map_slices", "luminosity_function"):
            patch.setattr(monitor, name, lambda *_, **__: Figure(figsize=(1, 1)))
        streamtrain.train(
            "reference.yaml",
            "network.head=joint_counts",
            device="cpu",
            run="runs/example",
            data={name: [f"lightcones/{name}_*.h5"] for name in SPLITS},
            train={"steps": 8, "batch_size": 8, "validation_samples": 16, "validate_every": 8},
            test={"samples": 16},
        )
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_the_example_is_right(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    public = getattr(streamtrain, name)
    text = inspect.getdoc(public) or ""
    assert text.partition("\n\n")[0].endswith("."), f"{name} does not begin with a sentence"
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    assert test.examples, f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    runner.run(test)
    assert not runner.failures, capsys.readouterr().out
