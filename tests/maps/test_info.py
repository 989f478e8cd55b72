"""What `streamtrain map info` says of a file, and the configuration that it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from support import map_runs as runs

from streamtrain.cli.main import main
from streamtrain.config import from_mapping
from streamtrain.evaluate.inference.prepare import prepare
from streamtrain.maps.info import describe, grid_lines, info
from streamtrain.maps.read import read_map

CUBE = np.random.default_rng(3).normal(size=runs.SHAPE).astype(np.float32)


def rows(text: str) -> dict[str, list[str]]:
    """The lines before the grid, by their first word or two."""
    found: dict[str, list[str]] = {}
    for line in text.split("\n\n")[0].splitlines():
        found.setdefault(line[:13].strip(), []).append(line[13:])
    return found


def test_a_survey_map_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    survey = runs.Survey()
    path = survey.write(tmp_path / "co7.h5", is_pca_subtr=True, n_pca=5)
    assert main(["map", "info", str(path), "--nu-rest-GHz", "115.27"]) == 0
    found = rows(capsys.readouterr().out)
    assert found["map"] == [str(path)] and found["layout"] == ["COMAP map file"]
    assert found["axes"] == ["[sideband, channel, dec, ra]: freq rises, dec rises, ra falls"]
    assert found["voxels"] == ["12 x 5 x 6 (freq, dec, ra)"] and found["units"] == ["K"]
    assert found["line"] == ["115.27 GHz"]
    assert found["band"] == [f"34..26 GHz, z = {115.27 / 34 - 1:.4g}..{115.27 / 26 - 1:.4g}"]
    assert found["channels"] == ["12 of 666.667 MHz"]
    assert found["field"] == ["0.2 x 0.16667 deg (ra, dec)"]
    assert found["middle"] == ["ra 170, dec 52.3 deg"]
    assert found["pixels"] == ["2 x 2 arcmin (ra, dec)"]
    lost = int((survey.hits == 0).sum())
    assert found["no value"] == [f"{lost} of 360 voxels ({lost / 360:.1%})"]
    seen = survey.cube[survey.hits > 0].astype(np.float64)
    text = f"{seen.min():.4g} to {seen.max():.4g} K, standard deviation {seen.std():.4g}"
    assert found["values"] == [text]
    sigma = survey.sigma[survey.hits > 0]
    assert found["noise"] == [
        f"sigma per voxel {np.median(sigma):.4g} K (median), {sigma.min():.4g} (best) to "
        f"{sigma.max():.4g} (worst)"
    ]
    hits = survey.hits[survey.hits > 0]
    assert found["hits"] == [
        f"{np.median(hits):.4g} per voxel (median), 1 to 4, in {360 - lost} voxels"
    ]
    assert found["filtered"] == ["by its pipeline; 5 PCA modes subtracted"]
    assert any("taken to be in K" in note for note in found["note"])


@pytest.mark.parametrize("name", runs.WRITERS)
def test_the_grid_is_that_of_a_configuration(tmp_path: Path, name: str) -> None:
    """Pasted into a configuration it loads, and the map is one of its maps."""
    writer, told = runs.WRITERS[name]
    path = writer(tmp_path / name, CUBE)
    sky = read_map(path, **told)
    config = from_mapping(yaml.safe_load(grid_lines(sky)) | {"observe": {}})
    assert config.grid.shape == runs.SHAPE
    assert config.grid.nu_GHz == pytest.approx((34.0, 26.0), rel=1e-6)
    assert config.grid.fov_deg == pytest.approx(runs.FOV_DEG, rel=3e-5)
    assert (config.grid.units, config.grid.nu_rest_GHz) == ("uK", 115.27)
    assert np.array_equal(prepare(sky, config).cube.numpy(), CUBE)


def test_a_map_in_kelvin_is_of_a_grid_in_microkelvin(tmp_path: Path) -> None:
    survey = runs.Survey()
    sky = read_map(survey.write(tmp_path / "a.h5", nhit_coadd=survey.stored(survey.hits) + 1))
    text = grid_lines(sky)
    assert "  # nu_rest_GHz is not stated: 115.27 unless it is set" in text.splitlines()
    config = from_mapping(yaml.safe_load(text))
    assert config.grid.units == "uK" and config.grid.shape == (12, 5, 6)
    intensity = runs.write_hdf5(tmp_path / "b.h5", CUBE, units="MJy/sr", nu_rest_GHz=1900.5369)
    loaded = yaml.safe_load(grid_lines(read_map(intensity)))["grid"]
    assert (loaded["units"], loaded["nu_rest_GHz"]) == ("Jy/sr", 1900.5369)


def test_what_a_file_does_not_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without units there is still a map to be described; options say the rest."""
    path = runs.write_limlam(tmp_path / "a.npz", CUBE)
    other = runs.write_hdf5(tmp_path / "b.h5", CUBE, units="K (Tb)", nu_rest_GHz=None)
    assert main(["map", "info", str(path), str(other)]) == 0
    first, second = capsys.readouterr().out.split("\n\nmap ")
    found = rows(first)
    assert found["units"] == ["not stated: --units says what they are"]
    assert found["line"] == found["noise"] == found["hits"] == ["not stated"]
    assert found["band"] == ["34..26 GHz"] and found["filtered"] == ["not stated"]
    assert "  # units are not known: uK unless they are set" in first
    pure = runs.Survey().write(tmp_path / "pure.h5", is_simcube=True)
    assert rows(describe(read_map(pure)))["filtered"] == ["no; 0 PCA modes subtracted"]
    assert "K (Tb), none of uK, mK, K," in second
    assert main(["map", "info", str(path), "--units", "Jy/sr", "--no-value", "nan"]) == 0
    assert "  units: Jy/sr" in capsys.readouterr().out


def test_a_map_without_any_value(tmp_path: Path) -> None:
    survey = runs.Survey()
    nothing = np.zeros_like(survey.stored(survey.hits))
    sky = read_map(survey.write(tmp_path / "a.h5", nhit_coadd=nothing))
    found = rows(describe(sky))
    assert found["no value"] == ["360 of 360 voxels (100.0%)"] and found["values"] == ["none"]
    assert found["noise"] == ["stated for no voxel"] and found["hits"] == ["none"]
    facts = info(sky)
    assert facts["range"] is None and facts["sigma"] == {"number": 0}


def test_samples_of_an_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"map": None, "cube": np.stack([CUBE, 2 * CUBE]), "units": "", "observe_done": "{}"}
    path = runs.write_hdf5(tmp_path / "s.h5", CUBE, **given)
    assert main(["map", "info", str(path)]) == 2
    assert "holds 2 samples: choose one with --index" in capsys.readouterr().err
    assert main(["map", "info", str(path), "--index", "1"]) == 0
    found = rows(capsys.readouterr().out)
    assert found["units"] == ["none: numbers without a unit"]
    assert found["operators"] == ["none"] and found["layout"] == ["streamtrain samples"]


def test_feeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    survey = runs.Survey()
    feeds: dict[str, Any] = {
        "map": np.ones((2, 4, 3, 5, 6)), "sigma_wn": np.full((2, 4, 3, 5, 6), 2.0)
    }  # fmt: skip
    path = survey.write(tmp_path / "a.h5", map_coadd=None, **feeds)
    assert main(["map", "info", str(path)]) == 2
    assert "--sum-feeds adds them up" in capsys.readouterr().err
    assert main(["map", "info", str(path), "--sum-feeds"]) == 0
    assert rows(capsys.readouterr().out)["noise"][0].startswith("sigma per voxel 1.414 K (median)")


def test_a_grid_that_no_configuration_has(tmp_path: Path) -> None:
    wide = runs.write_hdf5(tmp_path / "a.h5", CUBE, ra_edges_deg=np.linspace(-30, 30, 25))
    assert grid_lines(read_map(wide)).startswith("# no configuration can have such a grid: fov_deg")
    assert yaml.safe_load(grid_lines(read_map(wide))) is None
    path = runs.write_hdf5(tmp_path / "b.h5", CUBE)
    with h5py.File(path, "a") as file:
        file["nu_edges_GHz"][...] = [34.0, 31.0, 28.0, 26.0]
    text = describe(read_map(path))
    assert "3 of 2000 to 3000 MHz" in text and "  # its channels are of unequal width" in text


def test_zeros_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whole pixels and channels of them, also where others have no value."""
    cube = CUBE.copy()
    path = runs.write_hdf5(tmp_path / "m.h5", cube)
    assert main(["map", "info", str(path)]) == 0
    assert "exactly 0" not in rows(capsys.readouterr().out)
    num_freq, num_dec, num_ra = cube.shape
    cube[:, 2] = 0.0
    cube[0, 2, :3] = np.nan
    cube[1] = 0.0
    path = runs.write_hdf5(tmp_path / "zeros.h5", cube)
    assert main(["map", "info", str(path)]) == 0
    number = (num_freq - 1) * num_ra - 3 + num_dec * num_ra
    assert rows(capsys.readouterr().out)["exactly 0"] == [
        f"{number} of {cube.size} voxels; {num_ra} of {num_dec * num_ra} pixels in every channel; "
        f"1 of {num_freq} channels in every pixel (--no-value 0 if they were not observed)"
    ]
