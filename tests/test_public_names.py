"""Public names: what `dir` and `help` show, an example of each that is right, short reprs."""

from __future__ import annotations

import doctest
import inspect
import pickle
import pydoc
import re
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from support import small

import streamtrain
from streamtrain.evaluate import evaluation
from streamtrain.generator.batch import join
from streamtrain.luminosity.registry import MODELS
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
    monkeypatch.setattr(evaluation, "_function_figures", lambda *_: {})
    public = getattr(streamtrain, name)
    text = inspect.getdoc(public) or ""
    assert text.partition("\n\n")[0].endswith("."), f"{name} does not begin with a sentence"
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    assert test.examples, f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    runner.run(test)
    assert not runner.failures, capsys.readouterr().out


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_a_function_that_shares_its_name_with_a_room(name: str) -> None:
    """`help` shows the function with its arguments; the room's modules are found as in any
    package."""
    shown = pydoc.plain(pydoc.render_doc(getattr(streamtrain, name)))
    home = streamtrain._HOMES[name]
    first = "config" if name == "train" else "run"
    assert shown.startswith(f"Python Library Documentation: function {name} in module {home}")
    assert re.search(rf"^{name}\({first}: ", shown, re.MULTILINE)
    function = getattr(streamtrain, name)
    assert next(iter(inspect.signature(function).parameters)) == first and callable(function)
    room = sys.modules[f"streamtrain.{name}"]
    inside = "trainer" if name == "train" else "evaluation"
    assert getattr(function, inside) is getattr(room, inside)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"streamtrain.{name}.{inside}.__doc__", "patched")
        assert sys.modules[f"streamtrain.{name}.{inside}"].__doc__ == "patched"


def test_help_begins_with_the_names() -> None:
    """`help(streamtrain)` says in a line what each is, and `dir` has nothing else."""
    text = str(streamtrain.__doc__)
    listed = re.findall(r"^    (\w+) {2,}\w", text, re.MULTILINE)
    assert sorted(listed) == NAMES
    assert not [name for name in dir(streamtrain) if name.startswith("_") and name[1] != "_"]
    shown = pydoc.plain(pydoc.render_doc(streamtrain))
    for name in NAMES:
        assert re.search(rf"^ +{name} ", shown, re.MULTILINE)
    private = set(vars(streamtrain)) - set(dir(streamtrain))
    assert "sys" in private and not private & set(listed)
    for name in ("train", "evaluate"):
        assert "Raises ValueError" in pydoc.plain(pydoc.render_doc(getattr(streamtrain, name)))


def test_reprs_are_short(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line without arrays, which says what it is."""
    monkeypatch.chdir(folder)
    run = streamtrain.Run.open("runs/example")
    generator = run.testing()
    batch = generator.generate(range(6))
    cube = batch.cube[0]
    shown = {
        "Run('runs/example', step 8 of 8, counts, hybrid)": run,
        "Config('runs/example': line(li16) > pool > noise > log_modulus, cube [20, 64, 64] of "
        "0.35 x 0.35 deg at 34..26 GHz, counts, hybrid)": run.config,
        "Generator('test', 1 lightcone, cube [10, 16, 16], 49 outputs, on cpu)": generator,
        "Batch(samples 0, 1, ... 5: cube [6, 10, 16, 16], label [6, 49], counts [6, 49], on cpu)": (
            batch
        ),
        "Grid(fov_deg=(0.35, 0.35), shape=(20, 64, 64), nu_GHz=(34.0, 26.0), nu_rest_GHz=115.27, "
        "units='uK', brightest_Lsun=None)": run.config.grid,
        "Posterior(200 functions, 49 bins of log10 L/Lsun = 3.5..7, counts, joint": run.infer(
            cube, prepared=True, functions=200, compare_with=0
        ),
        "LuminosityModel(li16: log10_delta_mf=0, alpha=1.37, beta=-1.74, ": MODELS["li16"],
        "LuminosityModel(freeform: ": MODELS["freeform"],
        "<Lightcone small-3: 20000 halos above 2.5e+10 Msun, z = 2.3..3.5, 1.2 x 1.2 deg, ": (
            generator.lightcones[0]
        ),
        "SampleStream(Generator('test', 1 lightcone, cube [10, 16, 16], 49 outputs, on cpu), "
        "batches of 4, next index 0)": streamtrain.SampleStream(generator, 4),
    }
    for beginning, made in shown.items():
        text = repr(made)
        assert text.startswith(beginning), text
        assert len(text) < 400 and "\n" not in text and "tensor" not in text, text
    run.close()


def test_counts_know_their_bins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a batch, also of one that was joined or copied, and of what was painted."""
    monkeypatch.chdir(folder)
    config = streamtrain.load_config(
        "runs/example", ["label.log10_L=[4, 7]", "label.bins=6"], run="elsewhere"
    )
    generator = streamtrain.Generator(config, "test", threads=2)
    batch = generator.generate([0, 1])
    for each in (batch, batch.clone(), join([batch, batch])):
        assert each.bin_edges is not None
        assert each.bin_edges.tolist() == [4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0]
        assert each.counts.shape[1] == len(each.bin_edges) - 1
    painter = streamtrain.Painter("lightcones/test_0.h5", config.grid, "li16", min_mass_Msun=5e10)
    painted = painter.paint()
    cube, counts = painted
    assert painted.bin_edges.shape == (len(counts) + 1,) == painter.bin_edges.shape
    assert painted.cube is cube and painted.counts is counts
    again = pickle.loads(pickle.dumps(painted))
    assert torch.equal(again.cube, cube) and again.about == painted.about
