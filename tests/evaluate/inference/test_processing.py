"""What a survey has done to a map, beside what the training's maps have been through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from support import map_runs as runs
from support import small

from streamtrain import observe
from streamtrain.config import Config, from_mapping
from streamtrain.evaluate.inference.prepare import prepare
from streamtrain.maps.read import read_map
from streamtrain.maps.skymap import UNKNOWN_MODES, MapError, SkyMap

pytestmark = small.ASSUMES

RNG = np.random.default_rng(4)
SHAPE = (9, 20, 24)
CUBE = RNG.normal(5.0, 2.0, size=SHAPE).astype(np.float32)
SIGMA = RNG.uniform(1.0, 4.0, SHAPE)
FILTER = {"k_half": [0.05, 0.02]}


def config(shape: tuple[int, ...] = SHAPE, **operators: Any) -> Config:
    grid = {"fov_deg": runs.FOV_DEG, "shape": list(shape)}
    return from_mapping({"grid": grid, "observe": operators})


def sky(tmp_path: Path, cube: Any = CUBE, *, sigma: Any = None, **said: Any) -> SkyMap:
    """A map; said: what its file says besides."""
    found = read_map(runs.write_hdf5(tmp_path / "m.h5", cube, sigma=sigma))
    return replace(found, **said)


def test_a_map_gets_what_is_left(tmp_path: Path) -> None:
    """Filters and modes that its survey took are left out, to the bit."""
    plain = {"noise": {"sigma_uK": 2.0}, "log_modulus": {}}
    both = {"transfer_function": FILTER, "noise": {"sigma_uK": 2.0}, "pca": {"modes": 2},
            "log_modulus": {}}  # fmt: skip
    left = {"pca": {"modes": 2}, "log_modulus": {}}
    filtered = sky(tmp_path, sigma=np.full(SHAPE, 2.0), filtered=True, pca_modes=0)
    found = prepare(filtered, config(**both))
    assert torch.equal(found.cube, observe(CUBE, config(**left)))
    assert found.applied == ["pca", "log_modulus"]
    assert found.left_out == ["transfer_function", "noise"] and not found.notes
    cleaned = prepare(replace(filtered, pca_modes=2), config(**both))
    assert torch.equal(cleaned.cube, observe(CUBE, config(log_modulus={})))
    assert cleaned.left_out == ["transfer_function", "noise", "pca"] and not cleaned.notes
    assert prepare(sky(tmp_path), config(**plain)).left_out == ["noise"]


@pytest.mark.parametrize(
    ("said", "operators", "problem", "remedy"),
    [
        ({"filtered": True}, {"noise": {"sigma_uK": 2}},
         "was filtered by its survey's pipeline, the training's maps were not",
         "with transfer_function: {file: FILE}"),
        ({"filtered": False}, {"transfer_function": FILTER, "noise": {"sigma_uK": 2}},
         "says that it was not filtered, the training's maps were (transfer_function)",
         "without transfer_function"),
        ({"sigma": np.ones(SHAPE)}, {"radio_sources": {}},
         "has noise, the training's maps have none", "with noise: {rms: "),
        ({"pca_modes": 5}, {"pca": {"modes": 3}},
         "has lost 5 of 9 modes by PCA, the training's maps 3 of 9", "with pca: {modes: 5}"),
        ({"pca_modes": 2}, {}, "has lost 2 of 9 modes by PCA, the training's maps none",
         "with pca: {modes: 2}"),
        ({"pca_modes": UNKNOWN_MODES}, {"pca": {"modes": 3}},
         "has lost an unknown number of 9 modes by PCA", "with pca: {modes: NUMBER}"),
        ({"pca_modes": 2}, {"pool": {"factor": [3, 1, 1]}, "pca": {"modes": 2}},
         "has lost 2 of 9 modes by PCA, the training's maps 2 of 3",
         "with pca: {modes: 2} of 9 channels, before these are joined,"),
    ],
)  # fmt: skip
def test_what_training_lacks_is_refused(
    tmp_path: Path, said: dict[str, Any], operators: dict[str, Any], problem: str, remedy: str
) -> None:
    """In one sentence, with the line that is missing; or noted."""
    given = sky(tmp_path, **said)
    with pytest.raises(MapError) as error:
        prepare(given, config(**operators))
    assert problem in str(error.value) and f"train a network {remedy}" in str(error.value)
    assert "\n" not in str(error.value)
    notes = " ".join(prepare(given, config(**operators), anyway=True).notes)
    assert problem in notes and "unlike all of them (--anyway)" in notes


def test_several_differences_are_one_sentence(tmp_path: Path) -> None:
    given = sky(tmp_path, filtered=True, pca_modes=5)
    with pytest.raises(
        MapError,
        match=r"were not; it has lost 5 of 9 modes by PCA, .* none: "
        r"train a network with transfer_function: .* and with pca: {modes: 5} in",
    ):
        prepare(given, config(noise={"sigma_uK": 2}))  # fmt: skip


def test_what_the_file_does_not_say_is_noted(tmp_path: Path) -> None:
    both = config(transfer_function=FILTER, noise={"sigma_uK": 2.0}, pca={"modes": 2})
    notes = " ".join(prepare(sky(tmp_path), both).notes)
    assert "does not say that it was filtered, and is taken to be (transfer_function)" in notes
    assert "whether principal components were subtracted: 2 are, as in training" in notes


def test_filters_of_the_networks_input_are_no_surveys(tmp_path: Path) -> None:
    """After a transform they are the network's own, and are applied."""
    after = {"asinh": {"scale": 3.0}, "transfer_function": FILTER, "pca": {"modes": 2}}
    found = prepare(sky(tmp_path, filtered=False, pca_modes=0), config(**after))
    assert found.applied == [*after] and not found.notes
    with pytest.raises(MapError, match=r"has lost 2 of 9 modes by PCA, the training's maps none"):
        prepare(sky(tmp_path, pca_modes=2), config(**after))


def noise_notes(given: SkyMap, told: Config, **options: Any) -> str:
    return " ".join(note for note in prepare(given, told, **options).notes if "noise" in note)


def test_noise_of_another_level(tmp_path: Path) -> None:
    """Medians, in the run's units and voxels; a range of levels holds what lies in it."""
    given = sky(tmp_path, sigma=np.full(SHAPE, 6.0))
    assert not noise_notes(given, config(noise={"sigma_uK": 5.5}))
    assert not noise_notes(given, config(noise={"sigma_uK": [1.0, 5.5], "absent": 0.1}))
    assert (
        "sigma of its noise is 6 uK in a voxel (median), that of the training's maps 11: the "
        "prediction is an extrapolation" in noise_notes(given, config(noise={}))
    )
    ranged = config(noise={"sigma_uK": [1.0, 2.0]}, noise_2={"sigma_uK": 1.5})
    assert "training's maps 1.8 to 2.5" in noise_notes(given, ranged)
    kelvin = replace(given, units="K", cube=given.cube / 1e6, sigma=given.sigma / 1e6)
    assert not noise_notes(kelvin, config(noise={"sigma_uK": 6.0}))
    assert "is 6 uK" in noise_notes(kelvin, config(noise={}))


@pytest.mark.parametrize(("reduce", "factor"), [("mean", 1 / 6), ("sum", 6.0)])
def test_noise_of_joined_voxels(tmp_path: Path, reduce: str, factor: float) -> None:
    """Sigma of the mean of 36 voxels is a sixth, that of the sum six times sigma; whether the map
    is joined here, or comes so."""
    pool = {"factor": [9, 2, 2], "reduce": reduce}
    given = sky(tmp_path, sigma=np.full(SHAPE, 3.0))
    after = config(pool=pool, noise={"sigma_uK": 3.0 * factor})
    assert not noise_notes(given, after)
    before = config(noise={"sigma_uK": 3.0}, pool=pool)
    assert not noise_notes(given, before)
    joined = sky(tmp_path / "..", CUBE[:1, ::2, ::2], sigma=np.full((1, 10, 12), 0.5))
    assert not noise_notes(joined, before) and not noise_notes(joined, after)
    louder = replace(joined, sigma=2.0 * np.asarray(joined.sigma))
    assert "sigma of its noise is" in noise_notes(louder, before)
    assert "sigma of its noise is" in noise_notes(louder, after)


def test_noise_of_regridded_voxels(tmp_path: Path) -> None:
    given = sky(tmp_path, sigma=np.full(SHAPE, 4.0))
    coarse = config((3, 10, 12), noise={"sigma_uK": 4.0 / np.sqrt(12)})
    assert not noise_notes(given, coarse, regrid=True)
    note = noise_notes(given, config((3, 10, 12), noise={"sigma_uK": 4.0}), regrid=True)
    assert (
        "sigma of its noise is 1.15 uK in a voxel (median), that of the training's maps 4" in note
    )


def test_noise_that_differs_otherwise_between_voxels(tmp_path: Path) -> None:
    """The run's file of sigma is the map's, or it is another one, or the noise is even."""
    path = runs.write_hdf5(tmp_path / "sigma.h5", SIGMA)
    given = sky(tmp_path, sigma=SIGMA)
    assert not noise_notes(given, config(noise={"rms": str(path)}))
    even = noise_notes(given, config(noise={"sigma_uK": float(np.median(SIGMA))}))
    low, high = np.quantile(SIGMA / np.median(SIGMA), (0.16, 0.84))
    assert f"sigma is {low:.2g} to {high:.2g} of the median in 68 % of the voxels" in even
    turned = replace(given, sigma=SIGMA[::-1].copy())
    assert "differs from voxel to voxel" in noise_notes(turned, config(noise={"rms": str(path)}))


def test_noise_that_is_not_known_is_not_compared_and_that_is_noted(tmp_path: Path) -> None:
    smoothed = config(noise={"sigma_uK": 50.0}, beam={"fwhm_arcmin": 4.0})
    assert noise_notes(sky(tmp_path, sigma=SIGMA), smoothed) == (
        "sigma of its noise was not compared with that of the training's maps, which is no white "
        "noise of single voxels (noise)"
    )
    plain = sky(tmp_path)
    assert noise_notes(plain, config(noise={"sigma_uK": [10.0, 50.0]})) == (
        "it does not state its noise, which was not compared with that of the training's maps "
        "(noise: 10 to 50 uK in a voxel)"
    )
    assert noise_notes(plain, smoothed).endswith("that of the training's maps (noise)")
    assert not noise_notes(plain, config(radio_sources={}))
    ours = {"noise": {"sigma_uK": [1.0, 3.0]}}
    done = yaml.safe_load(config(**ours).to_yaml())["observe"]
    assert not noise_notes(replace(plain, done=done), config(**ours)).removeprefix(
        "it has gone through noise already"
    )
    other = noise_notes(replace(plain, done=done), config(noise={"sigma_uK": 2.0}))
    assert "it does not state its noise" in other


@pytest.mark.parametrize(
    ("scale", "asked"), [(1e6, True), (1.1e3, True), (0.9e3, False), (1 / 1.1e3, True), (1.0, None)]
)
def test_noise_that_is_far_off_asks_for_the_units(
    tmp_path: Path, scale: float, asked: bool | None
) -> None:
    given = sky(tmp_path, sigma=np.full(SHAPE, 6.0 * scale))
    note = noise_notes(given, config(noise={"sigma_uK": 6.0}))
    assert ("are its units really uK? --units says otherwise" in note) is bool(asked)
    assert ("the prediction is an extrapolation" in note) is (asked is not None)
    assert "its units" not in noise_notes(given, config(noise={"sigma_uK": [0.0, 1e7]}))


def test_a_survey_map_whose_units_were_assumed_wrongly_is_asked(tmp_path: Path) -> None:
    """The pipeline's maps are taken to be in K; this one is in uK."""
    noise = {"transfer_function": FILTER, "noise": {"sigma_uK": [10.0, 40.0]}}
    for factor, asked in ((1.0, False), (1e6, True)):
        changes = {
            "map_coadd": SURVEY.stored(np.nan_to_num(factor * SURVEY.cube, nan=factor * 2e-5)),
            "sigma_wn_coadd": SURVEY.stored(np.full(SURVEY.cube.shape, factor * 2e-5)),
            "nhit_coadd": SURVEY.stored(np.ones(SURVEY.cube.shape, np.int32)),
        }
        notes = " ".join(prepare(*survey(tmp_path, noise, **changes)).notes)
        assert "it does not say its units, and was taken to be in K" in notes
        assert ("are its units really K? --units says otherwise" in notes) is asked


def test_voxels_without_hits_of_a_map_that_comes_joined(tmp_path: Path) -> None:
    """Noise before the pool has no hits in four voxels that are joined: the map has no value."""
    hits = np.ones((20, 24))
    hits[4:6, 8:10] = 0.0
    hits[10, 10] = 0.0
    np.savez(tmp_path / "hits.npz", hits=hits)
    noise = {"sigma_uK": 2.0, "hits": str(tmp_path / "hits.npz")}
    told = config(noise=noise, pool={"factor": [9, 2, 2]})
    cube = CUBE[:1, ::2, ::2].copy()
    cube[0, 2, 4] = np.nan
    found = prepare(sky(tmp_path, cube), told)
    cube[0, 2, 4] = 0.0
    np.testing.assert_array_equal(found.cube.numpy(), cube)
    assert "1 voxels that training does not observe were set to 0" in found.notes


SURVEY = runs.Survey()
GRID = {"fov_deg": [0.2, 1 / 6], "shape": [12, 5, 6], "nu_GHz": [34.0, 26.0]}


def survey(folder: Path, observe: dict[str, Any], **changes: Any) -> tuple[SkyMap, Config]:
    """A file of the survey, and a configuration for it."""
    found = read_map(SURVEY.write(folder / "field.h5", **changes))
    return found, from_mapping({"grid": GRID, "observe": observe})


def test_a_surveys_map_loses_its_own_components(tmp_path: Path) -> None:
    """Weighted with the noise of its file, as by NumPy."""
    steps = {
        "transfer_function": FILTER,
        "noise": {"rms": str(tmp_path / "field.h5")},
        "pca": {"modes": 3},
        "asinh": {"scale": 20.0},
    }
    SURVEY.write(tmp_path / "field.h5")
    made = prepare(*survey(tmp_path, steps))
    assert made.applied == ["pca", "asinh"]
    seen = np.isfinite(SURVEY.cube)
    sigma = np.where(seen, SURVEY.sigma, 1.0).astype(np.float64)
    weighted = (np.where(seen, SURVEY.cube, 0.0) / sigma).reshape(12, -1)
    u, s, v = np.linalg.svd(weighted, full_matrices=False)
    left = (weighted - (u[:, :3] * s[:3]) @ v[:3]).reshape(SURVEY.cube.shape)
    expected = np.arcsinh(1e6 * np.where(seen, left * sigma, 0.0) / 20.0)
    np.testing.assert_allclose(made.cube, expected, rtol=0, atol=2e-5)


def test_the_lines_that_are_named_are_enough(tmp_path: Path) -> None:
    """The sentence's own lines of YAML, in their order, make a run that takes the map."""
    mask = {"mask": {"file": str(tmp_path / "field.h5")}}
    SURVEY.write(tmp_path / "field.h5")
    sky, plain = survey(tmp_path, mask, is_pca_subtr=True, n_pca=5)
    with pytest.raises(MapError) as error:
        prepare(sky, plain)
    text = str(error.value).split("train a network ")[1].split(" in the section")[0]
    named: dict[str, Any] = {}
    for line in text.replace(" and ", ", ").split(", "):
        named |= yaml.safe_load(line.removeprefix("with "))
    assert list(named) == ["transfer_function", "noise", "pca"]
    named["transfer_function"] = FILTER
    made = prepare(*survey(tmp_path, named, is_pca_subtr=True, n_pca=5))
    assert made.applied == [] and made.left_out == list(named)
    assert any("--anyway" in note for note in prepare(sky, plain, anyway=True).notes)
