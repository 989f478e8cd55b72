"""Files and folders that the user may not read or write: one sentence with the file's name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support import halo_files, map_runs, small
from support.forbidden import forbidden

from streamtrain.catalogs.headers import CatalogError, Header
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cli.main import main
from streamtrain.machine.files import reading

LATER = ("train", "c.yaml", "train.steps=2", "train.extend=constant")
EVALUATE = ("evaluate", "run", "--out", "new")
INFER = ("--out", "new")
MAKE = ("catalog", "make", "1", "--footprint-deg", "0.2", "--z-range", "2.9", "3", "--min-mass",
        "1e12", "--processes", "1", "--out")  # fmt: skip
CHECKPOINT = "run/checkpoints/step_000000001"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of one step, and a file of every kind that is read."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("made")
        patch.chdir(folder)
        for name in ("skies", "scenes", "tables"):
            Path(name).mkdir()
        for seed in (1, 2, 3):
            small.lightcone(seed, 2000).save(f"skies/sky{seed}.h5")
        settings = {
            "run": "run",
            "grid": {"fov_deg": [0.2, 0.2], "shape": [4, 16, 16], "nu_GHz": [34.0, 26.0]},
            "data": {"train": ["skies/sky1.h5"], "validation": ["skies/sky2.h5"],
                     "test": ["skies/sky3.h5"]},
            "label": {"log10_L": [3.5, 7.0], "bins": 7},
            "network": {"kind": "cnn", "layers": 2, "filters": 2, "dense": 4},
            "train": {"steps": 1, "batch_size": 4, "validate_every": 1, "validation_samples": 4,
                      "threads": 1},
            "test": {"samples": 4},
        }  # fmt: skip
        Path("c.yaml").write_text(yaml.safe_dump(settings))
        Path("x.yaml").write_text("extends: c.yaml\n")
        Path("o.yaml").write_text("z_range: [2.9, 3]\n")
        Path("scenes/a.yaml").write_text("observe: {}\n")
        Path("sfr.dat").write_text("1 2 3\n")
        np.savez("mask.npz", mask=np.ones((16, 16)))
        map_runs.write_fits(Path("map.fits"), np.ones((4, 16, 16), np.float32))
        for write in (halo_files.npz, halo_files.csv, halo_files.hdf5, halo_files.plc):
            write(Path("tables"))
        assert main(["train", "c.yaml", "--device", "cpu"]) == 0
        assert main(["testset", "make", "run", "--device", "cpu"]) == 0
        for name, more in (("map.h5", []), ("limlam", ["--format", "limlam"])):
            what = ["--samples", "1", "--split", "test", "--out", name, *more]
            assert main(["export", "run", *what, "--device", "cpu"]) == 0
        yield folder


CASES: list[tuple[str, int, tuple[str, ...], str]] = [
    ("c.yaml", 0, ("train", "c.yaml"), "c.yaml"),
    ("c.yaml", 0, ("train", "x.yaml"), "c.yaml"),
    ("o.yaml", 0, ("catalog", "make", "1", "--options", "o.yaml"), "o.yaml"),
    ("skies/sky1.h5", 0, LATER, "skies/sky1.h5"),
    ("skies/sky2.h5", 0, LATER, "skies/sky2.h5"),
    ("skies", 0, LATER, "skies/sky1.h5"),
    ("skies/sky1.h5", 0, ("catalog", "info", "skies/sky1.h5"), "skies/sky1.h5"),
    ("skies", 0, ("catalog", "info", "skies/sky1.h5"), "skies/sky1.h5"),
    ("skies/sky1.h5", 0, ("catalog", "make", "--for", "c.yaml"), "skies/sky1.h5"),
    ("skies/sky3.h5", 0, EVALUATE, "skies/sky3.h5"),
    ("skies/sky3.h5", 0, (*EVALUATE, "--on", "skies/sky3.h5"), "skies/sky3.h5"),
    ("skies", 0o111, (*EVALUATE, "--on", "skies/sky*.h5"), "skies"),
    ("scenes", 0, (*EVALUATE, "--scenarios", "scenes"), "scenes"),
    ("scenes/a.yaml", 0, (*EVALUATE, "--scenarios", "scenes"), "scenes/a.yaml"),
    ("mask.npz", 0, ("preview", "c.yaml", "observe.mask.file=mask.npz", *INFER), "mask.npz"),
    *(
        ("mask.npz", 0, ("preview", "c.yaml", f"observe.{setting}=mask.npz", *INFER), "mask.npz")
        for setting in ("noise.rms", "transfer_function.file", "channel_response.file")
    ),
    ("sfr.dat", 0, ("preview", "c.yaml", "data.sfr=sfr.dat", *INFER), "sfr.dat"),
    ("map.fits", 0, ("infer", "run", "map.fits", *INFER), "map.fits"),
    ("map.h5", 0, ("infer", "run", "map.h5", *INFER), "map.h5"),
    ("limlam/sample_000000.npz", 0, ("infer", "run", "limlam/sample_000000.npz", *INFER),
     "limlam/sample_000000.npz"),
    ("tables/a.npz", 0, ("catalog", "import", "tables/a.npz", *INFER), "tables/a.npz"),
    *[(file, 0, ("catalog", "import", table, "--columns", "tables/map.yaml", *INFER), file)
      for table in ("tables/a.csv", "tables/a.hdf5") for file in (table, "tables/map.yaml")],
    ("tables/pinocchio.a.plc.out", 0,
     ("catalog", "import", "tables/pinocchio.a.plc.out", *halo_files.COSMOLOGY, *INFER),
     "tables/pinocchio.a.plc.out"),
    ("tables", 0o111, ("catalog", "import", "tables/*.hdf5", "--columns", "tables/map.yaml",
                       *INFER), "tables"),
    ("run", 0, LATER, "run/lock"),
    ("run/lock", 0, LATER, "run/lock"),
    ("run/history.jsonl", 0, LATER, "run/history.jsonl"),
    ("run", 0o555, LATER, "run/config.yaml"),
    ("run/checkpoints", 0, LATER, "run/checkpoints"),
    *[(f"{CHECKPOINT}/{name}", 0, command, f"{CHECKPOINT}/{name}")
      for name in ("manifest.json", "state.pt", "config.yaml") for command in (LATER, EVALUATE)],
    (CHECKPOINT, 0, EVALUATE, f"{CHECKPOINT}/manifest.json"),
    ("run/config.yaml", 0, EVALUATE, "run/config.yaml"),
    ("run/testset.json", 0, ("testset", "verify", "run"), "run/testset.json"),
    ("skies", 0o555, (*EVALUATE[:-1], "skies/new"), "skies/new"),
    ("skies", 0o555, (*EVALUATE[:-1], "skies/new", "--on", "skies/sky3.h5"), "skies/new"),
    ("skies", 0o555, ("testset", "make", "run", "--out", "skies/t.json"), "skies/t.json"),
    ("skies", 0o555, ("preview", "c.yaml", "--out", "skies"), "skies/sample_0.png"),
    ("skies", 0o555, ("infer", "run", "map.h5", "--out", "skies/new"), "skies/new"),
    ("skies", 0o555, ("catalog", "import", "tables/a.npz", "--out", "skies/new"), "skies/new"),
    ("skies", 0o555, ("export", "run", "--samples", "1", "--split", "test", "--out", "skies/x.h5"),
     "skies/x.h5"),
    ("skies", 0o555, (*MAKE, "skies"), "skies/sky_0000.h5"),
    ("skies", 0o555, (*MAKE, "skies/new"), "skies/new"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "mode", "command", "named"),
    CASES,
    ids=[f"{path}-{mode:o}-{'-'.join(words[:3])}" for path, mode, words, _ in CASES],
)
def test_one_sentence_that_names_the_file(
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    path: str,
    mode: int,
    command: tuple[str, ...],
    named: str,
) -> None:
    """And the files are what they were before."""
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    before = contents()
    device = [] if command[0] == "catalog" else ["--device", "cpu"]
    with forbidden(Path(path), mode):
        assert main([*command, *device]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("streamtrain: ") and "[Errno" not in said and "damaged" not in said
    reason = "(Permission denied)" if "(Permission" in said else ": Permission denied"
    assert reason in said and named in said.partition(reason)[0], said
    after = contents()
    assert before.items() <= after.items()
    kept = {"infer_reference.json", "alarm.npz"}
    assert {Path(new).name for new in after.keys() - before.keys()} <= kept


def contents() -> dict[str, bytes]:
    """Of what is kept: not the logs and the lock of a training, nor the settings that it notes."""
    passing = ("events.", "lock", "nonfinite")
    files = (path for path in Path().rglob("*") if path.is_file())
    kept = (path for path in files if not path.name.startswith(passing))
    return {str(path): path.read_bytes() for path in kept if str(path) != "run/config.yaml"}


@pytest.mark.parametrize("read", [Lightcone.open, Header.read])
def test_an_error_of_the_system_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Any
) -> None:
    """Also where the file can be opened at first, as on a network."""
    path = tmp_path / "a.h5"
    small.lightcone(1, 50).save(path)
    assert read(path).digest
    monkeypatch.setattr("h5py.File", refused)
    path.touch()  # another version, so that nothing kept is used
    with pytest.raises(CatalogError) as caught:
        read(path)
    assert str(caught.value) == f"{path}: it cannot be read (Permission denied)"


def refused(path: Path, *_: Any) -> None:
    """What h5py raises."""
    raise PermissionError(13, "Unable to open file (errno = 13, error message = ...)")


def test_another_file_than_the_one_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("1")
    with pytest.raises(CatalogError) as caught, reading(path, CatalogError, "damaged"):
        raise PermissionError(13, "Permission denied", str(tmp_path / "b"))
    assert str(caught.value) == f"{path}: {tmp_path}/b cannot be read (Permission denied)"
