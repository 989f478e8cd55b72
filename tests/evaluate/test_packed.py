"""A run handed on predicts as it does; networks that ship have names and stay as they are."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import ROOT, small
from support import map_runs as runs

from streamtrain import shipped
from streamtrain.cli.main import main
from streamtrain.config import Config, load_config
from streamtrain.evaluate.alarm.watch import FILE as ALARM
from streamtrain.evaluate.packed import KEPT, describe_runs, pack
from streamtrain.evaluate.run import Run
from streamtrain.shipped import trained_networks
from streamtrain.train.checkpoint import newest, save_checkpoint

pytestmark = small.EXTRAPOLATES
LARGEST_MB = 3.0


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run with an average of the weights, an optimiser and some of what commands leave."""
    config = runs.make_run(
        tmp_path_factory.mktemp("run"), network={"layers": 2, "filters": 4, "dense": 8,
                                                 "head": "joint_counts"}
    )  # fmt: skip
    folder = Path(config.run)
    found = newest(folder / "checkpoints")
    assert found is not None
    weights = found.state["network"]
    average = {name: w + 0.01 for name, w in weights.items() if name.startswith("body")}
    state = {**found.state, "step": 9, "average": average}
    state |= {"optimiser": {"state": torch.zeros(100_000)}, "skipped_in_a_row": 0}
    save_checkpoint(folder / "checkpoints", state, config, found.manifest["generator_version"])
    (folder / "history.jsonl").write_text('{"step": 9, "loss": 1.0}\n')
    (folder / "loss.png").write_bytes(b"a figure")
    return config


def functions(run: Path | str, cube: Any) -> Any:
    """What a run draws for a map."""
    with Run.open(run) as opened:
        return opened.infer(cube, prepared=True, functions=100, compare_with=0).samples


def test_a_copy_predicts_as_the_run_does(config: Config, tmp_path: Path) -> None:
    copy = pack(config.run, tmp_path / "copy")
    kept = {path.name for path in copy.iterdir()}
    known = {n for n in KEPT if (Path(config.run) / n).is_file()}
    assert kept == {"checkpoints", "config.yaml", *known} and "history.jsonl" in known
    written = [*copy.rglob("config.yaml")]
    assert len(written) == 2
    for file in written:  # where it lay is nobody's business
        assert "run: copy\n" in file.read_text() and str(config.run) not in file.read_text()
    cube = np.zeros((3, 20, 24), np.float32)
    assert np.array_equal(functions(copy, cube), functions(config.run, cube))
    found = newest(copy / "checkpoints")
    assert found is not None and found.state["step"] == 9
    assert not {"optimiser", "average", "skipped_in_a_row"} & set(found.state)
    size = sum(file.stat().st_size for file in (copy / "checkpoints").rglob("*"))
    assert size < 300_000  # the optimiser alone has 400 000 bytes
    again = pack(copy, tmp_path / "again")
    assert np.array_equal(functions(again, cube), functions(copy, cube))
    with pytest.raises(ValueError, match="copy is already there, and is not overwritten"):
        pack(config.run, copy)
    with pytest.raises(ValueError, match="has no checkpoint; train first"):
        shutil.rmtree(again / "checkpoints")
        pack(again, tmp_path / "third")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "copy"]


def test_the_history_of_a_long_training_is_thinned(config: Config, tmp_path: Path) -> None:
    run, entries = tmp_path / "run", []
    shutil.copytree(config.run, run)
    for step in range(10, 18_000, 10):
        entries.append({"step": step, "loss": 1.0 / step})
        if step % 600 == 0:
            entries.append({"step": step, "validation_loss": 2.0 / step})
    lines = [json.dumps(entry) + "\n" for entry in entries]
    (run / "history.jsonl").write_text("".join(lines))
    kept = (pack(run, tmp_path / "copy") / "history.jsonl").read_text().splitlines(keepends=True)
    assert [k for k in kept if "validation" in k] == [k for k in lines if "validation" in k]
    steps = [json.loads(k)["step"] for k in kept if "validation" not in k]
    assert steps == list(range(70, 18_000, 80)) and set(kept) < set(lines)
    again = (pack(tmp_path / "copy", tmp_path / "again") / "history.jsonl").read_text()
    assert again == "".join(kept)
    damaged = b'{"step": 10, "lo\xff\n{"step": 20, "loss": 1.0}\n'
    (run / "history.jsonl").write_bytes(damaged)
    assert (pack(run, tmp_path / "damaged") / "history.jsonl").read_bytes() == damaged


@pytest.fixture
def ours(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run as a network that ships, named `tiny`."""
    shutil.copytree(shipped.resource_dir("kernels"), tmp_path / "kernels")
    (tmp_path / "configs" / "trained").mkdir(parents=True)
    folder = pack(config.run, tmp_path / "configs" / "trained" / "tiny")
    usual = shipped.resource_dir
    monkeypatch.setattr(
        shipped, "resource_dir", lambda name: tmp_path / name if name == "configs" else usual(name)
    )
    monkeypatch.chdir(tmp_path)
    return folder


def state_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_network_that_ships_is_found_by_its_name(
    ours: Path, config: Config, tmp_path: Path, capsys: Any
) -> None:
    """And nothing is written beside it."""
    before = state_of(ours)
    path = runs.write_hdf5(tmp_path / "m.h5", runs.map_of(config, 3))
    assert main(["infer", "tiny", str(path), "--samples", "0"]) == 0
    assert (tmp_path / "tiny_infer" / "m.json").is_file()
    assert "tiny_infer/m.ecsv" in capsys.readouterr().out
    again = json.loads((tmp_path / "tiny_infer" / "m.json").read_text())
    assert main(["infer", config.run, str(path), "--samples", "0", "--out", "own"]) == 0
    own = json.loads((tmp_path / "own" / "m.json").read_text())
    assert again["value"] == own["value"]
    assert Path(load_config("tiny").run) == ours
    assert main(["runs", "list"]) == 0
    out = capsys.readouterr().out
    assert "Ships with streamtrain: tiny." in out and "breysse15" in out
    assert "\ntiny: 0.8 x 0.7 deg in 3 x 20 x 24 voxels" in out
    assert main(["runs", "list", "tiny"]) == 0
    assert "\ntiny: 0.8 x 0.7 deg in 3 x 20 x 24 voxels" in capsys.readouterr().out
    lost = "data.train=[lost_*.h5]"
    for command, expected in (
        (
            ["infer", "tiny", str(path), "--check", "--samples", "0", "--out", "c", lost],
            "no file matches 'lost_*.h5'; this needs the lightcones of tiny: data.train=[FILES]",
        ),
        (
            ["evaluate", "tiny", "--out", "e", "data.test=[lost_*.h5]"],
            "where they lie now; docs/infer.md, 'Networks that ship', says what makes them",
        ),
        (["evaluate", "tiny"], "tiny ships with streamtrain and stays as it is"),
        (["alarm", "tiny"], "tiny ships with streamtrain and stays as it is"),
        (["calibrate", "tiny", str(path)], "tiny ships with streamtrain and stays as it is"),
        (["train", "tiny"], "tiny ships with streamtrain and is not trained on"),
        (["infer", "tini", str(path)], "there is no run 'tini': did you mean 'tiny'?"),
    ):
        assert main(command) == 2, command
        assert expected in capsys.readouterr().err
    assert state_of(ours) == before


def test_a_folder_of_that_name_comes_first(ours: Path, config: Config) -> None:
    shutil.copytree(config.run, "tiny")
    assert load_config("tiny").run == "tiny"


def test_runs_are_listed_with_what_cannot_be_read(config: Config, tmp_path: Path) -> None:
    shutil.copytree(config.run, tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.yaml").write_text("emit: 3\n")
    lines = describe_runs(tmp_path)
    (good,) = (line for line in lines if "good" in line)
    assert "breysse15 fiducial" in good and "3 x 20 x 24, 0.8 x 0.7 deg" in good  # what it takes
    assert " 9 " in good and " - " in good
    assert any(line.startswith(f"{tmp_path / 'bad'}: ") for line in lines)
    (tmp_path / "none").mkdir()
    assert describe_runs(tmp_path / "none")[-1] == f"No run is in {tmp_path / 'none'}."
    head, row, _, *told = describe_runs(tmp_path / "good")  # of one alone
    assert max(map(len, told)) <= 100 or str(tmp_path) in told[0]
    maps, _, went = " ".join(line.strip() for line in told).partition(" maps went through ")
    assert head.startswith("run ") and row.startswith(f"{tmp_path / 'good'} ")
    assert "in 3 x 20 x 24 voxels (freq, dec, ra), 26..34 GHz, uK; CO(1-0) (115.27 GHz)" in maps
    assert "luminosities by breysse15 (prior fiducial)" in maps
    assert went.startswith("pool {factor: [3, 1, 1]}, beam {")
    with pytest.raises(ValueError, match="there is no run or folder"):
        describe_runs(tmp_path / "neither")
    with pytest.raises(ValueError, match=r"goob': did you mean '.*good'"):
        describe_runs(tmp_path / "goob")


@pytest.mark.parametrize("name", sorted(trained_networks()))
def test_networks_that_ship_are_whole(name: str, tmp_path: Path) -> None:
    """Small, of this generator, with errors, calibration and an alarm that need no lightcone."""
    folder = trained_networks()[name]
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < LARGEST_MB * 1e6
    for file in files:
        if file.suffix == ".yaml":
            assert load_config(file).run == name
    with Run.open(name) as run:
        cube = np.zeros(run.trained.input_shape, np.float32)
        posterior = run.infer(cube, prepared=True)
        assert posterior.alarm is not None and posterior.alarm.maps >= 1000
        assert posterior.alarm.extrapolated  # a map without noise
        assert not any("lightcone" in text for text in posterior.warnings)
        assert run.evaluation is not None and run.evaluation["network"]["mse"] > 0.0
    assert (folder / "calibration.json").is_file() and (folder / ALARM).is_file()


@pytest.mark.parametrize("name", sorted(trained_networks()))
def test_their_table_has_their_numbers(name: str) -> None:
    """docs/infer.md, to the digits that it gives."""
    page = (ROOT / "docs" / "infer.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith(f"| {name} |"))
    said = re.findall(r"[\d.]+", " ".join(row.replace("(>10^6)", "").split("|")[-3:]))
    evaluation, calibration = (
        json.loads((trained_networks()[name] / f"{file}.json").read_text())
        for file in ("evaluation", "calibration")
    )
    found = []
    for result in (evaluation["network"], evaluation["mean_label"]):
        found += [result["mse"], result["mse_error"]]
    ranked = {entry["name"]: entry for entry in calibration["statistics"]}
    for entry in (ranked["bins"], ranked["N(>10^6)"], ranked["rho_L, <T>"]):
        for level in (68, 95):
            found += [100 * entry[f"coverage_{level}{part}"] for part in ("", "_error")]
    for text, value in zip(said, found, strict=True):
        digits = len(text.partition(".")[2])
        assert abs(float(text) - value) <= 0.501 * 10.0**-digits, (text, value)
