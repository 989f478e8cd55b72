"""Voxels that are exactly 0: what is said of them, and where nothing is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import map_runs as runs
from support import small

from streamtrain.config import Config, from_mapping
from streamtrain.evaluate.inference.infer import Options, infer
from streamtrain.evaluate.inference.prepare import Prepared, prepare
from streamtrain.evaluate.run import Run
from streamtrain.maps.read import read_map

pytestmark = small.ASSUMES

SHAPE = (9, 20, 24)
CUBE = np.random.default_rng(4).normal(5.0, 2.0, SHAPE).astype(np.float32)
NOISE = {"noise": {"sigma_uK": 2.0}}
READ = ", which is read as sky that was observed: if it was not, NaN or --no-value 0 says so"
DARK = (
    ", as sky without light is in a map without noise: where it was not observed, NaN or "
    "--no-value 0 says so"
)


def config(shape: tuple[int, ...] = SHAPE, **operators: Any) -> Config:
    return from_mapping(
        {"grid": {"fov_deg": runs.FOV_DEG, "shape": list(shape)}, "observe": operators}
    )


def found(folder: Path, cube: Any, told: Config, **options: Any) -> Prepared:
    return prepare(read_map(runs.write_hdf5(folder / "m.h5", cube)), told, **options)


def zeros(prepared: Prepared) -> tuple[list[str], list[str]]:
    """Warnings and notes of zeros."""
    return prepared.warnings, [note for note in prepared.notes if "exactly 0" in note]


@pytest.mark.parametrize("observe", [NOISE, {}, {"noise": {"sigma_uK": [0.0, 0.5]}}])
def test_rows_and_channels_of_zeros_are_told(tmp_path: Path, observe: dict[str, Any]) -> None:
    """Whether the training has noise or none, where the rest of the map has no zeros."""
    cube = CUBE.copy()
    cube[:, 3:7] = 0.0
    assert zeros(found(tmp_path, cube, config(**observe))) == (
        [f"96 of 480 pixels are exactly 0 in every channel{READ}"],
        [],
    )
    cube[2:4] = 0.0
    assert zeros(found(tmp_path, cube, config(**observe)))[0] == [
        "96 of 480 pixels are exactly 0 in every channel and 2 of 9 channels are exactly 0 in "
        f"every pixel{READ}"
    ]
    assert zeros(found(tmp_path, 0.0 * CUBE, config(**observe)))[0] == [
        "480 of 480 pixels are exactly 0 in every channel and 9 of 9 channels are exactly 0 in "
        f"every pixel{READ}"
    ]
    assert zeros(found(tmp_path, CUBE, config(**observe))) == ([], [])


def test_rows_of_zeros_are_told_of_a_map_that_is_regridded(tmp_path: Path) -> None:
    """Those within the network's field, on the map's own pixels, though its own have none such."""
    cube = CUBE.copy()
    cube[:, 5] = 0.0
    coarse = found(tmp_path, cube, config((3, 10, 12), **NOISE), regrid=True)
    assert (coarse.cube != 0).all()
    assert zeros(coarse)[0] == [f"24 of 480 pixels are exactly 0 in every channel{READ}"]
    nu, dec, ra = runs.edges((9, 20, 48), (1.6, 0.7))
    wide = np.tile(CUBE, (1, 1, 2))
    wide[:, :, :6] = 0.0
    sides = {"nu_edges_GHz": nu, "dec_edges_deg": dec, "ra_edges_deg": ra}
    sky = read_map(runs.write_hdf5(tmp_path / "w.h5", wide, **sides))
    assert zeros(prepare(sky, config(**NOISE), regrid=True)) == ([], [])
    left = prepare(sky, config(**NOISE), regrid=True, centre_deg=(-0.4, 0.0))
    assert zeros(left)[0] == [f"120 of 480 pixels are exactly 0 in every channel{READ}"]


def test_zeros_here_and_there_in_a_map_of_a_noisy_training(tmp_path: Path) -> None:
    """As a mask of single voxels leaves them; numbers of few digits are 0 by chance."""
    cube = CUBE.copy()
    cube[4, 5] = 0.0
    assert zeros(found(tmp_path, cube, config(**NOISE)))[0] == [
        f"24 of 4320 voxels are exactly 0{READ}"
    ]
    assert zeros(found(tmp_path, cube, config())) == ([], [])
    cube[4, 5, 8:] = 1.0
    assert zeros(found(tmp_path, cube, config(**NOISE))) == ([], [])
    rounded = np.rint(2.0 * (CUBE - 5.0)).astype(np.float32)
    assert (rounded == 0).sum() > 100
    assert zeros(found(tmp_path, rounded, config(**NOISE))) == ([], [])


def test_a_sparse_map_without_noise_may_have_dark_pixels(tmp_path: Path) -> None:
    """Where most voxels are dark, some pixels are in all channels: that is a note."""
    sparse = np.where(np.random.default_rng(3).uniform(size=SHAPE) < 0.8, 0.0, CUBE)
    number = int((sparse == 0).all(axis=0).sum())
    assert number > 20
    told = f"{number} of 480 pixels are exactly 0 in every channel"
    assert zeros(found(tmp_path, sparse, config())) == ([], [told + DARK])
    assert zeros(found(tmp_path, sparse, config(**NOISE))) == ([told + READ], [])
    few = np.where(np.random.default_rng(3).uniform(size=SHAPE) < 0.3, 0.0, CUBE)
    few[:, :4] = 0.0
    assert zeros(found(tmp_path, few, config()))[0] == [
        f"96 of 480 pixels are exactly 0 in every channel{READ}"
    ]


def test_what_the_run_itself_sets_to_zero_is_not_told(tmp_path: Path) -> None:
    """Masks before and after a pool, pixels without hits; what is beyond them is."""
    cube = CUBE.copy()
    cube[:, 0] = cube[:, -1] = cube[:, :, 0] = cube[:, :, -1] = 0.0
    mask = {"mask": {"edge_pixels": 1}}
    assert zeros(found(tmp_path, cube, config(**NOISE, **mask))) == ([], [])
    pool = {"pool": {"factor": [3, 1, 1]}}
    assert zeros(found(tmp_path, cube, config(**NOISE, **pool, **mask))) == ([], [])
    assert zeros(found(tmp_path, cube, config(**mask, **pool, **NOISE))) == ([], [])
    assert zeros(found(tmp_path, cube[::3], config(**pool, **mask, **NOISE))) == ([], [])
    cube[:, 10, 10:12] = 0.0
    assert zeros(found(tmp_path, cube, config(**NOISE, **mask)))[0] == [
        f"2 of 480 pixels are exactly 0 in every channel{READ}"
    ]
    hits = np.ones((20, 24))
    hits[4:6, 8:10] = 0.0
    np.savez(tmp_path / "hits.npz", hits=hits)
    seen = CUBE * hits.astype(np.float32)
    noise = {"noise": {"sigma_uK": 2.0, "hits": str(tmp_path / "hits.npz")}}
    assert zeros(found(tmp_path, seen, config(**noise))) == ([], [])
    assert zeros(found(tmp_path, seen, config(**NOISE)))[0]


@pytest.mark.parametrize("layout", runs.WRITERS)
def test_zeros_are_told_of_every_layout(tmp_path: Path, layout: str) -> None:
    write, said = runs.WRITERS[layout]
    cube = CUBE.copy()
    cube[:, 3:7] = 0.0
    path = write(tmp_path / layout, cube)
    assert zeros(prepare(read_map(path, **said), config(**NOISE)))[0] == [
        f"96 of 480 pixels are exactly 0 in every channel{READ}"
    ]
    with pytest.raises(ValueError, match="864 of 4320 voxels are NaN"):
        prepare(read_map(path, **said, no_value=0), config(**NOISE))


@small.EXTRAPOLATES
def test_they_are_where_warnings_are(tmp_path: Path, capsys: Any) -> None:
    network = {"layers": 2, "filters": 4, "dense": 8, "head": "joint_counts"}
    run = runs.make_run(tmp_path, network=network)
    cube = runs.map_of(run, 3)
    cube[:, 3:7] = 0.0
    path = runs.write_hdf5(tmp_path / "m.h5", cube)
    wanted = f"96 of 480 pixels are exactly 0 in every channel{READ}"
    result = infer(run, path, Options(out=tmp_path / "out", samples=0))
    assert result["warnings"] == [wanted]
    assert "warning   96 of 480 pixels are exactly 0 in every channel" in capsys.readouterr().out
    for given, said in ((path, {}), (cube, {"units": "uK"})):
        assert Run(run).infer(given, compare_with=0, **said).warnings == (wanted,)
