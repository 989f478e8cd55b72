"""`streamtrain.train` and `streamtrain.evaluate` from Python: what the commands do, and nothing is
left behind in the caller's process."""

from __future__ import annotations

import gc
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from support import ROOT, small

import streamtrain
from streamtrain import Generator, Run, load_config
from streamtrain.cli.main import main
from streamtrain.evaluate import evaluation
from streamtrain.evaluate.result import Evaluation
from streamtrain.train.checkpoint import newest
from streamtrain.train.trainer import Trainer

SPLITS = ("train", "validation", "test")
SETTINGS: dict[str, Any] = {
    "data": {name: [f"{name}.h5"] for name in SPLITS},
    "network": {"head": "joint_counts", "layers": 2, "filters": 4, "dense": 32},
    "train": {"steps": 6, "batch_size": 8, "validation_samples": 8, "validate_every": 3},
    "test": {"samples": 8},
}
pytestmark = [small.ASSUMES, pytest.mark.usefixtures("one_thread", "usual_signals")]


@pytest.fixture(autouse=True)
def skies(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The current folder has a lightcone for every split."""
    kept = tmp_path_factory.getbasetemp() / "python_skies"
    if not kept.is_dir():
        kept.mkdir()
        for seed, name in enumerate(SPLITS, 1):
            small.lightcone(seed).save(kept / f"{name}.h5")
    monkeypatch.setattr(evaluation, "_function_figures", lambda *_: {"one.png": Figure((1, 1))})
    for name in SPLITS:
        os.link(kept / f"{name}.h5", tmp_path / f"{name}.h5")
    monkeypatch.chdir(tmp_path)


def trained(run: str, *settings: str, **changes: Any) -> Run:
    return streamtrain.train(
        "reference.yaml", *settings, device="cpu", run=run, **{**SETTINGS, **changes}
    )


def weights(run: str) -> dict[str, torch.Tensor]:
    found = newest(Path(run) / "checkpoints")
    assert found is not None
    return dict(found.state["network"])


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


def surroundings() -> dict[str, Any]:
    """What belongs to the caller, besides what conftest looks at."""
    gc.collect()
    return {
        "threads": len([t for t in threading.enumerate() if "skies" not in t.name]),
        "signals": [signal.getsignal(number) for number in signal.Signals],
        "filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "folder": os.getcwd(),
        "streams": (sys.stdout, sys.stderr, sys.excepthook),
        "gradients": torch.is_grad_enabled(),
    }


def test_it_is_the_command_and_leaves_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    """Configuration, history and weights are those of `streamtrain train`, bit for bit."""
    trained("runs/python", "train.log_every=2", max_steps=1)  # libraries are imported now
    before = surroundings()
    run = trained("runs/python", "train.log_every=2")
    assert surroundings() == before
    assert capsys.readouterr().out == ""
    config = Path("runs/python/config.yaml").read_text()
    Path("mine.yaml").write_text(config.replace("runs/python", "runs/command"))
    assert main(["train", "mine.yaml", "--device=cpu"]) == 0
    assert Path("runs/command/config.yaml").read_text() == Path("mine.yaml").read_text()
    assert same(weights("runs/python"), weights("runs/command"))
    names = [
        {path.name.partition("out.tfevents")[0] for path in Path(folder).iterdir()}
        for folder in ("runs/python", "runs/command")
    ]
    assert names[0] == names[1] and len(names[0]) >= 5
    assert run.config.train.log_every == 2 and run.device == "cpu"
    assert repr(run) == "Run('runs/python', step 6 of 6, counts, hybrid)"


def test_ctrl_c_leaves_a_run_that_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stops after the step with KeyboardInterrupt, so that the cells below do not run; the same
    call goes on, to the weights of a training that nobody stopped."""
    trained("runs/whole")
    step = Trainer._step

    def interrupted(trainer: Trainer, batches: Any) -> bool:
        if trainer.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(trainer, batches)

    before = surroundings()
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt, match=r"after step 3 of 6; the same call continues"):
            trained("runs/parts")
    assert surroundings() == before
    assert repr(Run.open("runs/parts")).startswith("Run('runs/parts', step 3 of 6")
    trained("runs/parts")
    assert "continuing runs/parts from step 3" in capsys.readouterr().err
    assert same(weights("runs/parts"), weights("runs/whole"))


def test_the_command_takes_a_stop_for_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher takes any other status for a failure."""
    step = Trainer._step

    def interrupted(trainer: Trainer, batches: Any) -> bool:
        if trainer.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(trainer, batches)

    monkeypatch.setattr(Trainer, "_step", interrupted)
    Path("mine.yaml").write_text(load_config("reference.yaml", run="runs/a", **SETTINGS).to_yaml())
    assert main(["train", "mine.yaml", "--device=cpu"]) == 0
    assert repr(Run.open("runs/a")).startswith("Run('runs/a', step 2 of 6")


def test_a_part_of_the_steps_in_another_thread() -> None:
    """As some notebooks run cells: signals stay where they are."""
    runs: list[Run] = []
    before = surroundings()
    for _ in range(2):
        thread = threading.Thread(target=lambda: runs.append(trained("runs/a", max_steps=2)))
        thread.start()
        thread.join()
    assert surroundings() == before
    assert [repr(run) for run in runs] == ["Run('runs/a', step 4 of 6, counts, hybrid)"] * 2


MODEL = """
import sys
import streamtrain

run = streamtrain.Run.open(sys.argv[1])
print(run.config.line.class_names, run.testing().generate([3]).digests())
cube = run.testing().generate([3]).cube[0]
print(run.infer(cube, prepared=True, functions=1000, compare_with=0).functional("rho_L").median)
"""


def of_my_own(mass_Msun, z, *, amplitude=1e-6, sigma_dex=0.3):
    return amplitude * mass_Msun * (1 + z)


of_my_own.prior = {"amplitude": (1e-6, 2e-7)}  # type: ignore[attr-defined]


def test_a_run_with_a_function_opens_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Train, evaluate, infer in Python; another process, which has no such function, opens the run
    and says the same. A configuration without the function goes on with it, too."""
    run = trained("runs/mine", emit={"line": {"model": of_my_own, "prior": "own"}})
    assert "return amplitude * mass_Msun * (1 + z)" in Path("runs/mine/config.yaml").read_text()
    found = streamtrain.evaluate(run)
    assert capsys.readouterr().out == "", "what is returned says it"
    with run:
        batch = Generator(run.config, "test").generate([3])
        posterior = run.infer(batch.cube[0], prepared=True, functions=1000, compare_with=0)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MODEL, "runs/mine"]
    shown = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    first, second = shown.stdout.splitlines()
    assert first == f"['of_my_own'] {batch.digests()}", shown.stderr
    assert float(second) == posterior.functional("rho_L").median
    assert found["checkpoint_step"] == 6
    streamtrain.train("runs/mine", device="cpu")
    assert "all 6 steps are done" in capsys.readouterr().err


def test_evaluate_is_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """The file, the table and the scores with their errors."""
    run = trained("runs/a")
    before = surroundings()
    assert run.evaluation is None
    found = streamtrain.evaluate(run)
    assert surroundings() == before and isinstance(found, Evaluation)
    assert run.evaluation is not None and run.evaluation["checkpoint_step"] == 6
    written = Path("runs/a/evaluation.json").read_bytes()
    assert json.loads(written) == json.loads(json.dumps(dict(found)))
    capsys.readouterr()
    assert main(["evaluate", "runs/a", "--device=cpu"]) == 0
    assert capsys.readouterr().out == f"{found}\n"
    assert Path("runs/a/evaluation.json").read_bytes() == written
    ranges = {f"{a:g}-{b:g}": r for r in found["network"]["ranges"] for a, b in [r["log10_L"]]}
    for name, of in ranges.items():
        if of["num_values"]:
            assert found.scores[name][:2] == (of["rms_dex"], of["rms_dex_error"])
            assert found.scores[name].baseline is not None and found.scores[name].unit == "dex"
    whole = found.scores["3.5-7"]
    assert repr(found) == (
        f"Evaluation('runs/a', 8 maps: rms {whole.value:.4f} +- {whole.error:.4f} dex over 3.5-7)"
    )
    assert all(path.is_file() for path in found.figures)


def test_evaluate_elsewhere() -> None:
    """On other skies, with other settings of computing, from a folder or an open run."""
    run = trained("runs/a")
    before = Path("runs/a").stat().st_mtime_ns
    small.lightcone(9).save(Path("other.h5"))
    one = streamtrain.evaluate("runs/a", on=Path("other.h5"), samples=np.int64(4))
    two = streamtrain.evaluate(run, on=["other.h5"], samples=4, out="there")
    assert one["test_set"]["samples"] == 4 and str(one.folder) == "a_on_other"
    assert one["network"] == two["network"] and two.folder == Path("there")
    assert Path("runs/a").stat().st_mtime_ns == before


def test_the_names_of_rooms_are_functions_and_rooms() -> None:
    """`train` and `evaluate` are called and imported from, also where a room is imported first."""
    text = (
        "import streamtrain.train.settings, streamtrain\n"
        "from streamtrain import train\n"
        "from streamtrain.train.settings import TrainConfig\n"
        "assert streamtrain.train is train and train.settings.TrainConfig is TrainConfig\n"
        "print(callable(train))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    shown = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert shown.stdout == "True\n", shown.stderr
    train, evaluate = streamtrain.train, streamtrain.evaluate
    assert list(inspect.signature(train).parameters)[:2] == ["config", "settings"]
    assert list(inspect.signature(evaluate).parameters)[:2] == ["run", "on"]
    assert "Ctrl-C" in str(train.__doc__) and "bootstrap" in str(inspect.getdoc(evaluate))
    assert train.trainer is sys.modules["streamtrain.train.trainer"]


def test_lightcones_that_are_not_there_yet() -> None:
    """The sentence has the command that makes them, as the command's own has."""
    with pytest.raises(ValueError, match=r"no file matches .* catalog make --for reference\.yaml"):
        trained("runs/none", data={"train": ["none/train_*.h5"]})
    with pytest.raises(ValueError, match=r"no file matches .*--for reference\.yaml seed=3$"):
        trained("runs/none", "seed=3", data={"train": ["none/train_*.h5"]})
    other = {"model": "kamenetzky16_co2", "nu_rest_GHz": 230.538}
    other |= {split: [f"none/{split}_*.h5"] for split in SPLITS}
    with pytest.raises(
        ValueError, match=r"emit\.interloper\.train: no file .*--for reference\.yaml"
    ):
        trained("runs/none", emit={"line": {"model": "li16"}, "interloper": other})
    assert not Path("runs").exists()


@small.EXTRAPOLATES
def test_a_training_that_cannot_begin_does_not_keep_the_folder(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What a preview makes there next need not agree with settings that were refused; a run that
    has begun keeps its own."""
    bright = {"line": {"model": "keating16", "parameters": {"A": {"log_uniform": [1, 10]}}}}
    with pytest.raises(ValueError, match=r"grid\.brightest_Lsun makes room"):
        trained("runs/a", emit=bright)
    assert Path("runs/a").is_dir() and not Path("runs/a/config.yaml").exists()
    words = [f"data.{name}=[{name}.h5]" for name in SPLITS]
    shown = ["preview", "reference.yaml", "--index", "1", "run=runs/a", *words]
    shown += ["data.min_mass_Msun=2.5e10"]
    assert main(shown) == 0
    trained("runs/a", max_steps=1)
    kept = Path("runs/a/config.yaml").read_text()
    with pytest.raises(ValueError, match="emit"):
        trained("runs/a", emit=bright)
    assert Path("runs/a/config.yaml").read_text() == kept
    capsys.readouterr()
