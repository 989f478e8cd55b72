"""Wrong types and mixed-up arguments of the public names end in one sentence, which says what to
write."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support import small

import streamtrain
from streamtrain.numerics.backend import BackendError

Call = Callable[[Any], Any]
st: Any = streamtrain


@pytest.fixture(scope="module")
def made() -> SimpleNamespace:
    """One of each: sky, grid, configuration, generator, batch."""
    config = st.load_config("reference.yaml")
    generator = st.Generator(config, "test")
    return SimpleNamespace(
        sky=small.lightcone(),
        grid=st.Grid(fov_deg=(0.35, 0.35), shape=(4, 8, 8)),
        config=config,
        generator=generator,
        batch=generator.generate([0]),
    )


def painted(made: Any, *more: Any, **given: Any) -> Any:
    return st.paint(made.sky, made.grid, "li16", *more, min_mass_Msun=5e10, **given)


def changed(**changes: Any) -> Call:
    return lambda made: st.load_config(made.config, **changes)


def with_model(model: Any) -> Call:
    return changed(emit={"line": {"model": model}})


def written(*given: Any, **options: Any) -> Call:
    return lambda made: st.write_fits("a.fits", *given, made.grid, **options)


MISTAKES: list[tuple[Call, str]] = [
    (lambda m: st.Grid(fov_deg=0.35), r"must be \(ra, dec\), not 0.35: .* \(0.35, 0.35\)"),
    (lambda m: st.Grid(shape=64), r"must be \(freq, dec, ra\), not 64"),
    (lambda m: st.Grid(shape=(10.5, 64, 64)), "must be a whole number, not 10.5"),
    (lambda m: st.Grid(nu_GHz="30"), "nu_GHz must be numbers, not '30'"),
    (lambda m: st.Grid(units=["uK"]), "units .* is none of uK, Jy/sr"),
    (lambda m: st.Grid(brightest_Lsun="1e9"), "brightest_Lsun must be numbers, not '1e9'"),
    (lambda m: st.paint("nowhere.h5", m.grid, "li16"), "nowhere.h5: there is no such file"),
    (lambda m: st.paint(3, m.grid, "li16"), "needs a Lightcone, or the name of its file, not"),
    (lambda m: st.paint(m.grid, m.sky, "li16"), "or the name of its file, not a Grid"),
    (lambda m: st.paint(m.sky, {"shape": 3}, "li16"), "paint needs a Grid, not a dict"),
    (lambda m: st.paint(m.sky, m.grid, None), "is not a function of .mass_Msun, z."),
    (lambda m: st.paint(m.sky, m.grid, "li_16"), "did you mean 'li16'"),
    (lambda m: painted(m, [1.3]), "parameters must be a mapping like .*, not float"),
    (lambda m: painted(m, "alpha=1.3"), "parameters must be a mapping like .*, not str"),
    (lambda m: painted(m, {"alpha": "1.3"}), "parameter alpha must be numbers, not '1.3'"),
    (lambda m: painted(m, seed=1.5), "seed must be a whole number, not 1.5"),
    (lambda m: painted(m, centre_deg=0.1), r"centre_deg must be \(ra, dec\), not 0.1"),
    (lambda m: painted(m, mirror="yes"), "mirror must be True or False, not 'yes'"),
    (lambda m: painted(m, device="gpu"), "device 'gpu' is none of cpu, cuda"),
    (lambda m: painted(m).write_fits("a.fits", 1), "there is one map: number = 1 is of several"),
    (lambda m: painted(m, [None, None]).write_fits("a.fits"), "there are 2 maps"),
    (lambda m: st.load_config(3), "load_config reads a YAML file, .* not a int"),
    (lambda m: st.load_config("comap.yaml", "seed=3"), "overrides must be a list like"),
    (changed(train={"steps": 1.5}), "train.steps must be a whole number, not 1.5"),
    (changed(run=["a"]), r"run must be text, not \['a'\]"),
    (changed(grid=0.35), "grid must be a mapping of settings, not 0.35"),
    (changed(steps=3), r"'steps' is a setting of train: train=\{'steps': ...\}"),
    (changed(**{"train.steps": 3}), r"use the text 'train.steps=...', or train=\{...\}"),
    (changed(trian={}), "unknown setting 'trian': did you mean 'train'"),
    (with_model(3), "emit.line.model must be text, not 3"),
    (lambda m: with_model(m.sky)(m), "emit.line.model must be text, not <Lightcone"),
    (with_model(lambda mass_Msun, z: mass_Msun), "cannot keep a lambda: write it as def"),
    (lambda m: st.Generator("comap.yaml"), "needs what load_config returns, not a str"),
    (lambda m: st.Generator(m.config, 3), "split '3' is none of train, validation, test"),
    (lambda m: st.Generator(m.config, threads="2"), "threads must be a whole number, not '2'"),
    (lambda m: st.Generator(m.config, threads=-1), "threads = -1 must be 0, one per core, or"),
    (lambda m: st.Generator(m.config, lightcones=m.sky), "must be a list of them, not one"),
    (lambda m: st.Generator(m.config, lightcones=3), "must be a list of Lightcone, not a int"),
    (lambda m: m.generator.generate(3), r"row of whole numbers, not 3; one sample is \[3\]"),
    (lambda m: m.generator.generate([0.5]), "sample index must be a whole number, not 0.5"),
    (lambda m: m.generator.generate(np.zeros((2, 2), int)), "must be a row of whole numbers"),
    (lambda m: m.generator.generate("12"), "sample index must be a whole number, not '1'"),
    (lambda m: st.SampleStream(m.config, 4), "takes a Generator, not a Config"),
    (lambda m: st.SampleStream(m.generator, 4.5), "batch_size must be a whole number"),
    (lambda m: st.SampleStream(m.generator, "4"), "batch_size must be a whole number"),
    (lambda m: st.SampleStream(m.generator, 4).load_state_dict(8), "what state_dict returned"),
    (lambda m: st.observe("map.fits", m.config), "the cube must be numbers, not 'map.fits'"),
    (lambda m: st.observe(m.batch.cube, "comap.yaml"), "must be what load_config returns"),
    (lambda m: st.Lightcone.open(3), "opened by the name of its file, not 3"),
    (lambda m: st.Lightcone("a.h5"), r"Lightcone.open\(path\) reads a file"),
    (lambda m: st.train(3), "load_config reads a YAML file"),
    (lambda m: st.train(m.config, {"seed": 3}), "an override must be text like"),
    (lambda m: st.train(m.config, device=3), "device must be like 'cpu' or 'cuda:1', not 3"),
    (lambda m: st.train(m.config, max_steps="3"), "max_steps must be a whole number, not '3'"),
    (lambda m: st.train(m.config, max_steps=0), "max_steps = 0 must be 1 or more"),
    (lambda m: st.train(m.config), "data.train names no lightcone"),
    (lambda m: st.evaluate(3), "a run is named by its folder, not by a int"),
    (lambda m: st.evaluate("nowhere"), "there is no run 'nowhere'"),
    (lambda m: st.evaluate(m.config), "has no checkpoint; train first"),
    (lambda m: st.evaluate(m.config, samples="all"), "samples must be a whole number"),
    (lambda m: st.evaluate(m.config, on=3), "on must be lightcone files or globs, not 3"),
    (lambda m: st.evaluate(m.config, out=3), "out must be the name of a folder, not 3"),
    (lambda m: st.evaluate(m.config, bootstrap=3), "bootstrap over 3 is none of"),
    (lambda m: st.evaluate(m.config, resources="cuda"), r"Run.open\(run, device="),
    (lambda m: st.Run("runs/mine"), "Run.open takes a folder"),
    (lambda m: st.Run.open(3), "a run is named by its folder, not by a int"),
    (lambda m: st.Run.open(m.config, ["seed=3"]), "load_config changes a Config"),
    (lambda m: st.Run.open(m.config, threads="2"), "threads must be a whole number, not '2'"),
    (lambda m: st.Run.open(m.config).infer("map.fits"), "predicts no distribution of the numb"),
    (lambda m: st.Posterior.load(3), "loaded by the name of its file, not 3"),
    (lambda m: st.write_fits(m.batch.cube[0], "a.fits", m.grid), "the name of a file first"),
    (lambda m: written(m.batch)(m), r"painted.cube, or batch.cube\[0\]"),
    (lambda m: written(painted(m))(m), r"painted.cube, or batch.cube\[0\]"),
    (lambda m: written(m.batch.cube)(m), r"holds 1 maps, a file one: write cube\[0\]"),
    (written(np.zeros((3, 8, 8))), r"shape \(3, 8, 8\), the grid \(4, 8, 8\)"),
    (written(np.zeros((4, 8, 8)), units="furlong"), "units 'furlong' are none of uK"),
    (written(np.zeros((4, 8, 8)), about="li16"), "about must be a mapping like"),
]


@pytest.mark.parametrize(("call", "message"), MISTAKES, ids=[m for _, m in MISTAKES])
@small.ASSUMES
def test_a_mistake_is_one_sentence(
    call: Call,
    message: str,
    made: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, BackendError)) as caught:
        call(made)
    text = str(caught.value)
    assert re.search(message, text), text
    assert "\n" not in text and len(text) < 600, text
    assert not list(tmp_path.iterdir()), "something was written"


def test_there_are_enough() -> None:
    assert len(MISTAKES) >= 25 and len({message for _, message in MISTAKES}) > 60
