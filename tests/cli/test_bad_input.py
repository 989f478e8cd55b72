"""C8: bad input gets one clear sentence, exit code 2, and nothing half-written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from streamtrain.cli.main import main
from streamtrain.shipped import resource_dir

REFERENCE = resource_dir("configs") / "reference_0000.h5"
CONFIG = "configs/reference.yaml"


def _sentence(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command says on stderr; it must exit with 2 and say one line."""
    capsys.readouterr()
    assert main(list(arguments)) == 2
    text = capsys.readouterr().err.strip()
    assert text.startswith("streamtrain: ") and "\n" not in text
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("grid.shap=[1,2,3]", "unknown setting 'grid.shap': did you mean 'shape'?"),
        ("train.steps=-3", "train.steps = -3 is outside its range (at least 1)"),
        ("emit.line.model=li61", "unknown luminosity model 'li61': did you mean 'li16'?"),
        ("emit.line.prior=narow", "the model li16 has no prior 'narow': did you mean 'narrow'?"),
        ("emit.line.parameters.alfa=1", "has no parameter 'alfa': did you mean 'alpha'?"),
        ("data.min_mass_Msun=1e16", "no halo of reference_0000.h5 is left above 1e+16 Msun"),
        ("data.min_mass_Msun=1e10", "holds halos above 5e+10 Msun only"),
        ("grid.fov_deg=[0.4,0.4]", "needs 0.566 x 0.566 deg, but the footprint of"),
        ("grid.nu_GHz=[40,26]", "but the band 40..26 GHz needs z = 1.882..3.433"),
        ("data.test=[nowhere/*.h5]", "data.test: no file matches 'nowhere/*.h5'"),
        ("data.test=[]", "data.test names no lightcone"),
        ("seed", "'seed' is not of the form dotted.key=value"),
    ],
)
def test_setting(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, setting: str, expected: str
) -> None:
    run = tmp_path / "run"
    text = _sentence(capsys, "testset", "make", CONFIG, f"run={run}", setting)
    assert expected in text
    assert not run.exists()


@pytest.mark.parametrize("device", ["foo", "mps", "cuda", "cuda:3"])
@pytest.mark.parametrize(
    "command",
    [
        "train",
        "evaluate",
        "evaluate --probes",
        "export --samples 1 --out never.h5",
        "testset make",
        "testset verify",
        "bench",
    ],
)
def test_device(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    device: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run = tmp_path / "run"
    settings = (CONFIG, f"run={run}", "--device", device)
    assert f"device '{device}'" in _sentence(capsys, *command.split(), *settings)
    assert not run.exists()


@pytest.mark.parametrize("command", ["train", "evaluate", "testset make", "testset verify"])
def test_run_without_a_name(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    """An empty name would be the current folder."""
    monkeypatch.chdir(tmp_path)
    text = _sentence(capsys, *command.split(), "reference.yaml", "run=''", "--device", "cpu")
    assert "run = '' must be the name of a folder" in text
    assert list(tmp_path.iterdir()) == []


def test_broken_yaml(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("grid: [1,\ntrain: {")
    assert "is not valid YAML at line" in _sentence(capsys, "train", str(file))


def test_same_realisation_in_two_splits(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    copy = tmp_path / "copy.h5"
    copy.write_bytes(REFERENCE.read_bytes())
    settings = (f"data.train=[{REFERENCE}]", f"data.test=[{copy}]")
    text = _sentence(capsys, "testset", "make", CONFIG, f"run={tmp_path / 'run'}", *settings)
    assert "is in two splits" in text and str(copy) in text and str(REFERENCE) in text


def test_truncated_lightcone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cut = tmp_path / "cut.h5"
    content = REFERENCE.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    assert str(cut) in _sentence(capsys, "catalog", "info", str(cut))


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["trian"])
    assert stop.value.code == 2
