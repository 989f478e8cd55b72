"""The synthesis on torch tensors against the one on NumPy: the same random numbers bit by bit, the
same halos but for the last bits of Fourier transforms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import ndtri

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.synthesis import box
from streamtrain.catalogs.synthesis.arrays import NUMPY, NumpyArrays
from streamtrain.catalogs.synthesis.options import SkyOptions
from streamtrain.catalogs.synthesis.sampler import HaloSampler
from streamtrain.catalogs.synthesis.synthesize import arrays_for, synthesize
from streamtrain.catalogs.synthesis.torch_arrays import TorchArrays
from streamtrain.cli.main import main

TORCH = TorchArrays(torch.device("cpu"))
WIDE: dict[str, Any] = {"footprint_deg": (4.5, 0.3), "z_range": (2.7, 2.8), "min_mass_Msun": 2e11}


def unsigned(words: torch.Tensor) -> NDArray[np.uint64]:
    return words.numpy().view(np.uint64)


@pytest.mark.parametrize("key", [0, 5, 2**63, 2**64 + 2**63 + 1, 2**128 - 1])
def test_random_words_are_those_of_numpy(key: int) -> None:
    for stage, start, stop in [(0, 0, 400), (7, 3, 8), (1, 998, 1003), (2, 2**31, 2**31 + 5)]:
        expected = box.random_bits(key, stage, start, stop)
        found = TORCH.random_bits(key, stage, start, stop)
        np.testing.assert_array_equal(unsigned(found), expected)
        np.testing.assert_array_equal(TORCH.halves(found).numpy(), NUMPY.halves(expected))
    cells = np.arange(500, dtype=np.uint64) * np.uint64(3_000_017)
    expected = box.cell_words(key, 2, cells)
    found = box.cell_words(key, 2, torch.from_numpy(cells.view(np.int64)))
    np.testing.assert_array_equal(unsigned(found), expected)
    np.testing.assert_array_equal(box.uniform(found).numpy(), box.uniform(expected))


def test_operations_are_those_of_numpy() -> None:
    """In float64 to rounding; normal numbers of uniform ones that float32 cannot hold."""
    rng = np.random.default_rng(2)
    grid = np.sort(rng.uniform(0.0, 10.0, 30))
    values, x = rng.normal(size=30), rng.uniform(-2.0, 12.0, 1000)
    found = TORCH.interp(*(torch.from_numpy(array) for array in (x, grid, values)))
    np.testing.assert_allclose(found.numpy(), np.interp(x, grid, values), rtol=1e-12, atol=1e-14)
    halves = TORCH.halves(TORCH.random_bits(3, 0, 0, 1000))
    uniform = (halves + 0.5) * 2.0**-32
    normal = ndtri((NUMPY.halves(box.random_bits(3, 0, 0, 1000)) + 0.5) * 2.0**-32)
    np.testing.assert_allclose(TORCH.ndtri(uniform).numpy(), normal, rtol=1e-12, atol=1e-14)
    keys = rng.integers(0, 20, 300)
    np.testing.assert_array_equal(TORCH.order(torch.from_numpy(keys)).numpy(), NUMPY.order(keys))


def halos(options: SkyOptions, arrays: NumpyArrays, seed: int) -> dict[str, NDArray[np.float32]]:
    plan = HaloSampler(options, arrays)
    with arrays.pool(2) as pool:
        return plan.halos(plan.key(seed), pool, lambda done, what: None)


def assert_same_sky(
    ours: dict[str, NDArray[np.float32]], theirs: dict[str, NDArray[np.float32]]
) -> None:
    """Fewer than one halo in 10 000 is in one only; the others are where they were."""
    size = len(ours["mass_Msun"])
    values = np.union1d(ours["mass_Msun"], theirs["mass_Msun"])
    counts = [
        np.bincount(np.searchsorted(values, sky["mass_Msun"]), minlength=values.size)
        for sky in (ours, theirs)
    ]
    assert np.abs(counts[0] - counts[1]).sum() < 1e-4 * size
    unique = values[(counts[0] == 1) & (counts[1] == 1)]
    here, there = (
        np.argsort(sky["mass_Msun"], kind="stable")[
            np.searchsorted(np.sort(sky["mass_Msun"]), unique)
        ]
        for sky in (ours, theirs)
    )
    for name, tolerance in (("x_Mpc", 1e-3), ("z_Mpc", 1e-3), ("z_obs", 1e-6)):
        apart = np.abs(ours[name][here].astype(np.float64) - theirs[name][there])
        assert apart.max() < tolerance, name
    speed = np.abs(ours["velocities_kms"][here] - theirs["velocities_kms"][there])
    assert speed.max() < 0.01


def test_halos_are_those_of_numpy() -> None:
    """112 000 halos of 0.5 deg over COMAP's band."""
    options = SkyOptions(footprint_deg=(0.5, 0.5))
    ours, theirs = (halos(options, arrays, 3) for arrays in (NUMPY, TORCH))
    assert {name: column.dtype for name, column in theirs.items()} == {
        name: column.dtype for name, column in ours.items()
    }
    assert len(ours["mass_Msun"]) > 100_000
    assert_same_sky(ours, theirs)


def test_slabs_are_those_of_numpy() -> None:
    options = SkyOptions(**WIDE, num_slabs=3)
    assert_same_sky(*(halos(options, arrays, 5) for arrays in (NUMPY, TORCH)))


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU works on at a time."""
    options = SkyOptions(footprint_deg=(0.2, 0.2), z_range=(2.7, 2.8))
    whole = halos(options, TORCH, 1)
    monkeypatch.setattr(TorchArrays, "cells_per_piece", 5000)
    monkeypatch.setattr(TorchArrays, "words_per_piece", 3000)
    pieces = halos(options, TORCH, 1)
    for name, column in whole.items():
        np.testing.assert_array_equal(pieces[name], column)


@pytest.mark.gpu
def test_gpu_makes_the_same_sky() -> None:
    options: dict[str, Any] = {"footprint_deg": (0.5, 0.5), "z_range": (2.6, 2.8)}
    ours, theirs = (synthesize(3, **options, device=device) for device in ("cpu", "cuda"))
    assert ours.realisation == theirs.realisation and '"device": "cuda' in theirs.provenance
    names = ("x_Mpc", "z_Mpc", "mass_Msun", "z_obs", "velocities_kms")
    assert_same_sky(*({name: getattr(sky, name) for name in names} for sky in (ours, theirs)))


def test_devices_that_are_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device 'cuda:1': torch can use 0 NVIDIA GPU\(s\) here"):
        arrays_for("cuda:1")
    for name in ("gpu", "cuda:", "cuda:x", "CUDA"):
        with pytest.raises(ValueError, match=f"device '{name}' is none of cpu, cuda, cuda:0"):
            arrays_for(name)
    with pytest.raises(ValueError, match="device 'mps' is none of cpu"):
        synthesize(1, device="mps")
    assert main(["catalog", "make", "1", "--device", "cuda"]) == 2
    error = capsys.readouterr().err
    assert "device 'cuda': torch can use 0 NVIDIA GPU(s) here; use device 'cpu'" in error
    assert error.count("\n") == 1


def test_command_makes_files_with_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """torch on the CPU in place of a GPU: the name of the sky is that of the CPU, the device is
    recorded, and a file that is there is kept whatever made it."""
    for module in ("make", "synthesize"):
        monkeypatch.setattr(
            f"streamtrain.catalogs.synthesis.{module}.arrays_for",
            lambda device: TORCH if device == "cuda" else NUMPY,
        )
    command = ["catalog", "make", "1", "--footprint-deg", "0.2", "--z-range", "2.9", "3.0"]
    command += ["--min-mass", "1e12", "--out"]
    assert main([*command, str(tmp_path / "gpu"), "--device", "cuda"]) == 0
    assert main([*command, str(tmp_path / "cpu")]) == 0
    theirs, ours = (Lightcone.open(tmp_path / name / "sky_0000.h5") for name in ("gpu", "cpu"))
    assert theirs.realisation == ours.realisation and len(theirs) == len(ours)
    assert json.loads(theirs.provenance)["device"] == TORCH.name
    assert "device" not in json.loads(ours.provenance)
    assert main([*command, str(tmp_path / "gpu")]) == 0
    assert "sky_0000.h5 is there" in capsys.readouterr().err
