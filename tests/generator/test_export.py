"""Exported samples are those of the generator, whole or not there."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from support import map_runs as runs
from support import small

from streamtrain import Generator
from streamtrain.cli import main
from streamtrain.config import Config, from_mapping
from streamtrain.generator import export as export_module
from streamtrain.generator.export import export, flattened, raw
from streamtrain.generator.generator import GENERATOR_VERSION
from streamtrain.maps.read import read_map

pytestmark = small.EXTRAPOLATES


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Two models, of which one has a scatter, and three batches of two samples."""
    folder = tmp_path_factory.mktemp("export")
    line = {"mixture": {"breysse15": {}, "li16": {"prior": "narrow"}}}
    dim = {"above_log10_L": 6.0, "probability": 0.5}
    return runs.make_run(folder, emit={"line": line, "dim": dim}, data={
        "train": [str(folder / "train.h5")], "test": [str(folder / "test.h5")], "roll": "quarter",
        "sfr": "fit"})  # fmt: skip


def columns(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """All datasets, and the attributes."""
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item.asstr()[()] if item.dtype.kind == "O" else item[()]

    with h5py.File(path) as file:
        file.visititems(visit)
        return found, dict(file.attrs)


def test_cubes_are_the_bits_of_generate(config: Config, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(export_module, "BATCH_SIZE", 2)
    path = export(config, tmp_path / "s.h5", samples=5, first_index=2**33, split="test")
    generator = Generator(config, "test")
    batch = generator.generate(range(2**33, 2**33 + 5))
    found, about = columns(path)
    assert found["cube"].tobytes() == batch.cube.numpy().tobytes()
    assert found["label"].tobytes() == batch.label.numpy().tobytes()
    assert np.array_equal(found["counts"], batch.counts.numpy())
    assert np.array_equal(found["index"], batch.indices)
    assert np.array_equal(found["log10_L_edges"], generator.bin_edges)
    records = [flattened(record) for record in batch.draws]
    names = {name for record in records for name in record}
    assert {f"draws/{name}" for name in names} == {n for n in found if n.startswith("draws/")}
    for name in names:
        for k, record in enumerate(records):
            value = found[f"draws/{name}"][k]
            assert value == record[name] if name in record else np.isnan(value)
    models = found["draws/model"].tolist()
    assert set(models) == {"breysse15", "li16"}
    assert np.isnan(found["draws/parameters.alpha"]).tolist() == [m != "li16" for m in models]
    assert about["generator_version"] == GENERATOR_VERSION and about["seed"] == "11"
    assert from_mapping(yaml.safe_load(about["config"])) == config
    assert json.loads(about["lightcones"])[0]["digest"] == generator.headers[0].digest
    assert about["units"] == "" and list(yaml.safe_load(about["observe_done"])) == [*runs.OBSERVE]
    assert [p.name for p in tmp_path.iterdir()] == ["s.h5"]


def test_datasets_can_grow(config: Config, tmp_path: Path) -> None:
    path = export(config, tmp_path / "s.h5", samples=1)
    with h5py.File(path, "a") as file:
        assert file["cube"].maxshape[0] is None and file["cube"].chunks[0] == 1
        file["cube"].resize(2, axis=0)


def test_raw_maps_are_before_transforms(config: Config, tmp_path: Path) -> None:
    path = export(config, tmp_path / "s.h5", samples=2, before_transforms=True)
    found, about = columns(path)
    expected = Generator(raw(config)).generate(range(2)).cube.numpy()
    assert found["cube"].tobytes() == expected.tobytes()
    assert about["units"] == "uK"
    assert list(yaml.safe_load(about["observe_done"])) == ["pool", "beam", "noise"]


def test_limlam_files(config: Config, tmp_path: Path) -> None:
    """The names and order of limlam_mocker's save_maps, and no pickle."""
    folder = export(config, tmp_path / "maps", samples=2, format="limlam", first_index=7)
    assert sorted(p.name for p in folder.iterdir()) == ["sample_000007.npz", "sample_000008.npz"]
    batch = Generator(raw(config)).generate([7, 8])
    with np.load(folder / "sample_000008.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    assert np.array_equal(arrays["map_cube"], batch.cube[1].numpy().transpose(2, 1, 0))
    assert arrays["map_cube"].shape == (arrays["npix_x"], arrays["npix_y"], 3)
    assert arrays["map_frequencies"] == pytest.approx([32.0 + 2 / 3, 30.0, 27.0 + 1 / 3])
    assert arrays["map_pixel_ra"][0] == pytest.approx(-0.4 + arrays["pix_size_x"] / 2)
    assert np.array_equal(arrays["lumFunc"], batch.counts[1].numpy())
    assert arrays["numberCt"][0] == batch.counts[1].sum()
    assert float(arrays["cosmo_Omega_m"]) == pytest.approx(0.286)
    assert str(arrays["draw_model"]) == batch.draws[1]["model"]
    found = read_map(folder / "sample_000008.npz")
    assert np.array_equal(found.cube, batch.cube[1].numpy())
    assert (found.units, found.nu_rest_GHz) == ("uK", 115.27)


def test_limlam_maps_are_means_where_voxels_are_summed(config: Config, tmp_path: Path) -> None:
    summed = runs.with_settings(config, observe={"pool": {"factor": [3, 2, 2], "reduce": "sum"}})
    export(summed, tmp_path / "maps", samples=1, format="limlam")
    mean = runs.with_settings(config, observe={"pool": {"factor": [3, 2, 2]}})
    expected = Generator(mean).generate([0]).cube[0].numpy()
    found = read_map(tmp_path / "maps" / "sample_000000.npz").cube
    assert np.allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"samples": 0}, "--samples 0: an export needs one sample or more"),
        ({"first_index": -1}, "--first-index -1 is outside"),
        ({"first_index": 2**64 - 1, "samples": 2}, "is outside 0..2^64 - samples"),
        ({"out": "s.npz"}, "the name of an HDF5 file ends in .h5 or .hdf5"),
        ({"out": "there.h5"}, "there.h5 is there already: give another --out, or remove it"),
        ({"split": "half"}, "split 'half' is none of train, validation, test"),
    ],
)
def test_what_is_refused(
    config: Config, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    (tmp_path / "there.h5").write_text("mine")
    out = tmp_path / changes.pop("out", "new.h5")
    with pytest.raises(ValueError) as error:
        export(config, out, **({"samples": 1} | changes))
    assert sentence in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["there.h5"]


@pytest.mark.parametrize("format", ["hdf5", "limlam"])
@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_half_written(
    config: Config, tmp_path: Path, monkeypatch: Any, capsys: Any, format: str, number: int
) -> None:
    monkeypatch.setattr(export_module, "BATCH_SIZE", 1)
    (given := tmp_path / "given.yaml").write_text(config.to_yaml())
    real = Generator.generate

    def interrupted(self: Generator, indices: Any) -> Any:
        if list(indices) == [1]:
            assert len(list(tmp_path.iterdir())) == 2  # what is half written
            os.kill(os.getpid(), number)
        return real(self, indices)

    monkeypatch.setattr(Generator, "generate", interrupted)
    out = tmp_path / ("s.h5" if format == "hdf5" else "maps")
    arguments = ["export", str(given), "--samples", "3", "--out", str(out), "--format", format]
    assert main.main([*arguments, "--device", "cpu"]) == 128 + number
    assert "streamtrain: interrupted" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["given.yaml"]
