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
from streamtrain.catalogs.headers import Header
from streamtrain.cli import main
from streamtrain.config import Config, from_mapping
from streamtrain.cosmology import Cosmology
from streamtrain.evaluate.inference.prepare import prepare
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


def test_limlam_files_have_the_lightcone_of_their_sample(tmp_path: Path) -> None:
    """Of three in files of one name, of as many cosmologies."""
    paths, found = [], {}
    for seed, n_s in enumerate((0.9, 0.95, 1.0)):
        path = tmp_path / f"{seed}" / "sky.h5"
        path.parent.mkdir()
        small.lightcone(seed, cosmology=Cosmology(n_s=n_s).to_dict()).save(path)
        paths.append(str(path))
        found[Header.read(path).digest] = n_s
    config = small.config(
        data={"train": paths, "roll": "quarter"},
        emit={"line": {"model": "breysse15", "parameters": {"duty": 1.0}}},
        run=str(tmp_path / "run"),
    )
    folder = export(config, tmp_path / "maps", samples=12, format="limlam")
    seen = {}
    for file in sorted(folder.iterdir()):
        with np.load(file, allow_pickle=False) as arrays:
            digest, name = str(arrays["lightcone"]), str(arrays["draw_lightcone"])
            assert arrays["cosmo_n_s"] == found[digest]
            seen[name] = digest
    assert len(seen) == len({*seen.values()}) == 3


def test_limlam_maps_are_means_where_voxels_are_summed(config: Config, tmp_path: Path) -> None:
    summed = runs.with_settings(config, observe={"pool": {"factor": [3, 2, 2], "reduce": "sum"}})
    export(summed, tmp_path / "maps", samples=1, format="limlam")
    mean = runs.with_settings(config, observe={"pool": {"factor": [3, 2, 2]}})
    expected = Generator(mean).generate([0]).cube[0].numpy()
    found = read_map(tmp_path / "maps" / "sample_000000.npz").cube
    assert np.allclose(found, expected, rtol=1e-6)


SURVEY = {
    "map_coadd", "sigma_wn_coadd", "nhit_coadd", "freq_centers", "freq_edges", "ra_centers",
    "ra_edges", "dec_centers", "dec_edges", "n_ra", "n_dec", "n_sidebands", "n_channels",
    "patch_center", "is_pca_subtr", "n_pca", "is_highpassed", "is_sim", "is_simcube",
    *(f"wcs/{key}{axis}" for key in ("CTYPE", "CRVAL", "CRPIX", "CDELT", "CUNIT", "NAXIS")
      for axis in (1, 2)),
}  # fmt: skip


def seen_by(path: Path) -> np.ndarray[Any, Any]:
    """A hit map [n_dec, n_ra] with pixels that were not hit, in a file."""
    hits = np.random.default_rng(5).integers(0, 6, (20, 24)).astype(np.float64)
    _, dec, ra = runs.edges()
    np.savez(path, hits=hits, pix_binedges_y=dec, pix_binedges_x=ra)
    return hits


def test_maps_as_the_survey_has_them(config: Config, tmp_path: Path) -> None:
    """Every number comes back through the reader of COMAP's files, and its sigma is that of the
    noise which was added."""
    hits = seen_by(tmp_path / "hits.npz")
    grid = {"fov_deg": runs.FOV_DEG, "shape": [16, 20, 24]}
    noise = {"sigma_uK": [1.0, 3.0], "hits": str(tmp_path / "hits.npz"), "index": -2.0,
             "reference_GHz": 29.0}  # fmt: skip
    observe = {"pool": {"factor": [2, 1, 1]}, "noise": noise, "log_modulus": {}}
    made = runs.with_settings(config, grid=grid, observe=observe)
    folder = export(made, tmp_path / "maps", samples=2, format="comap", first_index=7)
    assert sorted(p.name for p in folder.iterdir()) == ["sample_000007.h5", "sample_000008.h5"]
    batch = Generator(raw(made)).generate([7, 8])
    without = runs.with_settings(made, observe={"pool": {"factor": [2, 1, 1]}})
    quiet = Generator(without).generate([8]).cube[0].numpy()
    found, about = columns(folder / "sample_000008.h5")
    own = {name for name in found if name.startswith("sample/")}
    assert set(found) - own == SURVEY
    assert found["map_coadd"].shape == (4, 2, 20, 24) and found["map_coadd"].dtype == np.float64
    assert found["freq_centers"].shape == (4, 2) and found["freq_edges"].shape == (4, 3)
    assert np.all(np.diff(found["freq_centers"].ravel()) > 0)
    assert np.all(np.diff(found["ra_centers"]) < 0) and np.all(np.diff(found["dec_centers"]) > 0)
    sky = read_map(folder / "sample_000008.h5")
    kelvin = batch.cube[1].numpy()
    seen = np.broadcast_to(hits > 0, kelvin.shape)
    assert np.array_equal((sky.cube * 1e6).astype(np.float32)[seen], kelvin[seen])
    assert sky.sigma is not None and np.array_equal(np.isnan(sky.sigma), ~seen)
    assert np.array_equal(np.isnan(sky.cube), ~seen)
    assert np.array_equal(sky.hits, np.broadcast_to(hits, kelvin.shape))
    nu = 34.0 - (np.arange(8) + 0.5)
    relative = np.sqrt(hits[hits > 0].mean() / hits[hits > 0])
    level = 1e-6 * batch.draws[1]["noise"]["sigma_uK"] * (nu / 29.0) ** -2.0
    np.testing.assert_allclose(sky.sigma[:, hits > 0], level[:, None] * relative, rtol=1e-6)
    added = (sky.cube[seen] - 1e-6 * quiet[seen]) / sky.sigma[seen]
    assert added.std() == pytest.approx(1.0, abs=4.0 / np.sqrt(2.0 * seen.sum()))
    assert (sky.units, sky.nu_rest_GHz, sky.filtered, sky.pca_modes) == ("K", 115.27, False, 0)
    assert np.array_equal(found["sample/counts"], batch.counts[1].numpy())
    assert np.array_equal(found["sample/label"], batch.label[1].numpy())
    drawn = flattened(batch.draws[1])
    assert {f"sample/draws/{name}": value for name, value in drawn.items()} == {
        name: value for name, value in found.items() if name.startswith("sample/draws/")
    }
    assert from_mapping(yaml.safe_load(about["config"])) == raw(made)
    assert (about["index"], about["seed"], about["split"]) == ("8", "11", "train")


def test_the_surveys_keys_say_what_was_done(config: Config, tmp_path: Path) -> None:
    """Components that are subtracted before the last noise are in the exported map."""
    observe: dict[str, Any] = {
        "transfer_function": {"k_half": [0.05, 0.02]},
        "noise": {"sigma_uK": 2.0},
        "pca": {"modes": 2},
        "noise_2": {"sigma_uK": 1.0},
    }
    made = runs.with_settings(config, observe=observe)
    folder = export(made, tmp_path / "maps", samples=1, format="comap")
    sky = read_map(folder / "sample_000000.h5")
    assert sky.filtered is True and sky.pca_modes == 2


@pytest.mark.parametrize("first", ["noise", "pool"])
def test_a_file_of_a_filtered_sample_is_read_as_the_sample(
    config: Config, tmp_path: Path, first: str
) -> None:
    """Also where the survey's filters, its noise and its components come before the pool."""
    seen_by(tmp_path / "hits.npz")
    operators: dict[str, Any] = {
        "channel_response": {"resolving_power": 40.0},
        "transfer_function": {"k_half": [0.05, 0.02]},
        "noise": {"sigma_uK": [1.0, 3.0], "hits": str(tmp_path / "hits.npz")},
        "correlated_noise": {"sigma_uK": 2.0, "knee_per_GHz": 0.5},
        "pca": {"modes": 2},
    }
    pool = {"pool": {"factor": [3, 1, 1]}}
    operators = operators | pool if first == "noise" else pool | operators
    made = runs.with_settings(config, observe=operators | {"log_modulus": {}})
    folder = export(made, tmp_path / "maps", samples=1, format="comap", split="test")
    sky = read_map(folder / "sample_000000.h5")
    assert sky.filtered and sky.pca_modes == 0
    found = prepare(sky, made)
    assert np.array_equal(found.cube, Generator(made, "test").generate([0]).cube[0])
    assert found.left_out == [name for name in operators if name not in ("pool", "pca")]


def test_a_survey_file_is_read_as_the_sample(config: Config, tmp_path: Path) -> None:
    """The network's input of the file is that of the generator to the last bit, also where voxels
    are summed; three channels are one sideband."""
    for number, reduce in enumerate(("mean", "sum")):
        pool = {"pool": {"factor": [3, 1, 1], "reduce": reduce}}
        made = runs.with_settings(config, observe=runs.OBSERVE | pool)
        folder = export(made, tmp_path / str(number), samples=1, format="comap", split="test")
        sky = read_map(folder / "sample_000000.h5")
        assert np.array_equal(
            prepare(sky, made).cube, Generator(made, "test").generate([0]).cube[0]
        )
        assert columns(folder / "sample_000000.h5")[0]["n_sidebands"] == 1
        level = Generator(made, "test").generate([0]).draws[0]["noise"]["voxel_sigma"]
        expected = 1e-6 * level / (3.0 if reduce == "sum" else 1.0)
        assert sky.sigma is not None and np.allclose(sky.sigma, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("observe", "sigma"),
    [
        ({}, None),
        ({"noise": {"sigma_uK": 3.0}}, 3.0),
        ({"noise": {"sigma_uK": 3.0}, "radio_sources": {}, "noise_2": {"sigma_uK": 4.0}}, 5.0),
        ({"noise": {"sigma_uK": 3.0}, "pool": {"factor": [3, 1, 1]}}, None),
        ({"noise": {"sigma_uK": 3.0}, "beam": {"fwhm_arcmin": 4.5}}, None),
        ({"noise": {"sigma_uK": 3.0, "absent": 1.0}}, None),
        ({"edge_noise": {"sigma_uK": 3.0}}, None),
    ],
)
@pytest.mark.filterwarnings("ignore::streamtrain.schema.OrderWarning")
def test_noise_is_stated_where_it_is_known(
    config: Config, tmp_path: Path, observe: dict[str, Any], sigma: float | None
) -> None:
    """Not where something changes it, and not where there is none: sigma = 0 is not observed."""
    made = runs.with_settings(config, observe=observe)
    folder = export(made, tmp_path / "maps", samples=1, format="comap")
    found = read_map(folder / "sample_000000.h5")
    assert np.isfinite(found.cube).all() and found.hits is None
    if sigma is None:
        assert found.sigma is None
    else:
        assert found.sigma is not None and np.allclose(found.sigma, 1e-6 * sigma, rtol=1e-12)


@pytest.mark.parametrize("hits", [None, {"fwhm_deg": 0.5}])
def test_what_is_masked_has_no_value(
    config: Config, tmp_path: Path, hits: dict[str, float] | None
) -> None:
    """It is no sky of 0 K; what is beside it is as without the mask."""
    observe: dict[str, Any] = {"noise": {"sigma_uK": 3.0, "hits": hits}}
    found = []
    for name, mask in (("all", {}), ("inner", {"mask": {"edge_pixels": 3}})):
        made = runs.with_settings(config, observe=observe | mask)
        folder = export(made, tmp_path / name, samples=1, format="comap")
        found.append(read_map(folder / "sample_000000.h5", no_value=float("nan")))
    whole, masked = found
    inner = np.zeros(whole.shape, bool)
    inner[:, 3:-3, 3:-3] = True
    for name in ("cube", "sigma") if hits is None else ("cube", "sigma", "hits"):
        there, here = getattr(whole, name), getattr(masked, name)
        assert np.array_equal(here[inner], there[inner]), name
    assert np.isnan(masked.cube[~inner]).all()


def test_noise_at_the_edges_adds_up(config: Config, tmp_path: Path) -> None:
    observe = {"noise": {"sigma_uK": 3.0}, "edge_noise": {"sigma_uK": 4.0, "width": 0.25}}
    made = runs.with_settings(config, observe=observe)
    found = read_map(
        export(made, tmp_path / "maps", samples=1, format="comap") / "sample_000000.h5"
    )
    dec, ra = (1.0 - (np.minimum(k, k[::-1]) + 0.5) / len(k) / 0.25 for k in
               (np.arange(20), np.arange(24)))  # fmt: skip
    ramp = np.maximum(np.maximum(dec[:, None], ra), 0.0)
    assert found.sigma is not None
    np.testing.assert_allclose(1e6 * found.sigma[0], np.hypot(3.0, 4.0 * ramp), rtol=1e-6)


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


def test_a_survey_file_holds_no_intensity(config: Config, tmp_path: Path) -> None:
    grid = {"fov_deg": runs.FOV_DEG, "shape": [9, 20, 24], "units": "Jy/sr"}
    made = runs.with_settings(config, grid=grid, observe={})
    with pytest.raises(ValueError, match="--format comap is of brightness temperatures, but grid"):
        export(made, tmp_path / "maps", samples=1, format="comap")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["hdf5", "limlam", "comap"])
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
