"""What a survey's pipeline has done to a map: only the rest is applied, and what training lacks is
named with its lines of YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support import map_runs as runs

from streamtrain.config import Config, from_mapping
from streamtrain.evaluate.inference.prepare import Prepared, prepare
from streamtrain.maps.read import read_map
from streamtrain.maps.skymap import MapError, SkyMap

pytestmark = pytest.mark.filterwarnings("ignore::streamtrain.schema.AssumptionWarning")

SURVEY = runs.Survey()
GRID = {"fov_deg": [0.2, 1 / 6], "shape": [12, 5, 6], "nu_GHz": [34.0, 26.0]}
FILTER = {"transfer_function": {"k_half": [0.05, 0.02]}}


def config(observe: dict[str, Any]) -> Config:
    return from_mapping({"grid": GRID, "observe": observe})


def survey(folder: Path, **changes: Any) -> SkyMap:
    return read_map(SURVEY.write(folder / "field.h5", **changes))


def prepared(sky: SkyMap, observe: dict[str, Any], **options: Any) -> Prepared:
    return prepare(sky, config(observe), **options)


def noise(folder: Path) -> dict[str, Any]:
    return {"noise": {"rms": str(folder / "field.h5")}}


def test_only_what_is_left_is_applied(tmp_path: Path) -> None:
    """A map that lost its components does not lose more; one that did not loses those of its own,
    weighted with the noise, as by NumPy."""
    after = {"pca": {"modes": 3}, "asinh": {"scale": 20.0}}
    lost, kept = (
        survey(tmp_path, is_pca_subtr=done, n_pca=3 if done else None) for done in (True, False)
    )
    made = prepared(lost, FILTER | noise(tmp_path) | after)
    assert made.applied == ["asinh"]
    assert made.left_out == ["transfer_function", "noise", "pca"]
    micro = np.nan_to_num(SURVEY.cube.astype(np.float64) * 1e6)
    np.testing.assert_allclose(made.cube, np.arcsinh(micro / 20.0), rtol=2e-5, atol=1e-6)

    made = prepared(kept, FILTER | noise(tmp_path) | after)
    assert made.applied == ["pca", "asinh"]
    seen = np.isfinite(SURVEY.cube)
    weighted = np.where(seen, SURVEY.cube / np.where(seen, SURVEY.sigma, 1.0), 0.0)
    weighted = weighted.astype(np.float64).reshape(12, -1)
    u, s, v = np.linalg.svd(weighted, full_matrices=False)
    left = (weighted - (u[:, :3] * s[:3]) @ v[:3]).reshape(SURVEY.cube.shape)
    expected = np.where(seen, left * np.where(seen, SURVEY.sigma, 0.0) * 1e6, 0.0)
    np.testing.assert_allclose(made.cube, np.arcsinh(expected / 20.0), rtol=0, atol=2e-5)


MISSING = [
    ({}, {}, ["transfer_function: {file: FILE} and noise: {rms: "]),
    (FILTER | {"noise": {}}, {"is_pca_subtr": True, "n_pca": 5}, ["pca: {modes: 5}"]),
    (
        FILTER | {"noise": {}, "pca": {"modes": 2}},
        {"is_pca_subtr": True, "n_pca": 5},
        ["5 principal components along frequency, the training's maps 2", "pca: {modes: 5}"],
    ),
    (FILTER | {"noise": {}}, {"is_pca_subtr": True}, ["does not say how many", "{modes: NUMBER}"]),
    ({"noise": {}}, {"sigma_wn_coadd": None}, ["has been filtered", "transfer_function: {file"]),
]


@pytest.mark.parametrize(("observe", "said", "sentences"), MISSING)
def test_what_training_lacks_is_named(
    tmp_path: Path, observe: dict[str, Any], said: dict[str, Any], sentences: list[str]
) -> None:
    """And `anyway` reads the map with a note."""
    mask = {"mask": {"file": str(tmp_path / "field.h5")}}
    sky = survey(tmp_path, **said)
    with pytest.raises(MapError) as error:
        prepared(sky, mask | observe)
    for sentence in [*sentences, "--anyway"]:
        assert sentence in str(error.value)
    made = prepared(sky, mask | observe, anyway=True)
    assert any("unlike all of them (--anyway)" in note for note in made.notes)


def test_the_lines_that_are_named_are_enough(tmp_path: Path) -> None:
    """The sentence's own lines of YAML, in its order, make a run that takes the map."""
    sky = survey(tmp_path, is_pca_subtr=True, n_pca=5)
    with pytest.raises(MapError) as error:
        prepared(sky, {"mask": {"file": sky.source}})
    text = str(error.value).split("train a network with ")[1].split(" in the section")[0]
    lines = text.replace(" and ", ", ").split(", ")
    named: dict[str, Any] = {}
    for line in lines:
        named |= yaml.safe_load(line)
    assert list(named) == ["transfer_function", "noise", "pca"]
    named["transfer_function"] = FILTER["transfer_function"]
    made = prepared(sky, named)
    assert made.applied == [] and made.left_out == list(named)


def test_what_is_assumed_of_other_files(tmp_path: Path) -> None:
    """A file that says nothing of filters and components: both are said."""
    cube = np.random.default_rng(1).normal(0.0, 5.0, (9, 20, 24)).astype(np.float32)
    sky = read_map(runs.write_hdf5(tmp_path / "m.h5", cube))
    observed = FILTER | {"noise": {}, "pca": {"modes": 2}}
    grid = {"fov_deg": runs.FOV_DEG, "shape": [9, 20, 24]}
    made = prepare(sky, from_mapping({"grid": grid, "observe": observed}))
    notes = " ".join(made.notes)
    assert "does not say that it was filtered, and is taken to be (transfer_function)" in notes
    assert "does not say whether principal components were subtracted: 2 are" in notes
    assert made.applied == ["pca"] and made.left_out == ["transfer_function", "noise"]
