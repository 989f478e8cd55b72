"""A sample has the same bits whatever makes it: the NumPy oracle, any compiler, order or device."""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import TESTS, bit_oracle, small
from torch.utils._python_dispatch import TorchDispatchMode

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import Config
from streamtrain.generator.generator import Batch, Generator
from streamtrain.numerics import backend
from streamtrain.numerics.backend import BackendError
from streamtrain.numerics.workspace import Workspace

pytestmark = [small.EXTRAPOLATES, small.ASSUMES]

SETUPS: dict[str, dict[str, Any]] = {
    "li16": {
        "emit": {"line": {"model": "li16", "prior": "narrow"}},
        "observe": {
            "noise": {"sigma_uK": [1.0, 9.0], "per": "fine_voxel", "absent": 0.2},
            "pool": {"factor": [3, 3, 3]},
            "log_modulus": {},
        },
        "label": {"quantity": "cumulative"},
    },
    "padmanabhan18": {
        "emit": {"line": {"model": "padmanabhan18", "prior": "published"}},
        "observe": {
            "pool": {"factor": [3, 3, 1]},
            "noise": {"sigma_uK": 11.0},
            "noise_2": {"sigma_uK": 2.0},
            "log_modulus": {},
        },
    },
    "chung22 in Jy/sr": {
        "grid": {**small.GRID, "units": "Jy/sr"},
        "emit": {"line": {"model": "chung22", "prior": "correlated"}},
        "data": {"roll": "quarter", "mirror": False},
        "label": {"scale": "linear", "log10_L": [4.0, 6.5], "bins": 20},
    },
    "emitters": {
        "emit": {
            "line": {"model": "li16", "prior": "narrow"},
            "line_width": {"inclination": True, "factor": 20.0},
            "dim": {"above_log10_L": 5.0, "factor": 0.3},
            "brightness": {"factor": {"log_uniform": [0.3, 3]}, "probability": 0.5},
        },
        "observe": {"noise": {"sigma_uK": 11.0}},
    },
    "duty cycle": {"emit": {"line": {"model": "pullen13", "parameters": {}}}},
    "phi L in unequal bins": {
        "emit": {"line": {"model": "li16", "prior": "narrow"}},
        "observe": {"pool": {"factor": [3, 3, 1]}},
        "label": {"quantity": "phi_L", "edges": [2.0, 3.9, 4.0, 4.5, 4.501, 5.7, 7.0]},
    },
    "filters": {
        "observe": {
            "pool": {"factor": [1, 1, 1]},
            "beam": {"fwhm_arcmin": 4.5, "reference_GHz": 30.0},
            "noise": {"sigma_uK": [0.0, 2.0]},
            "beam_2": {"fwhm_pixels": 1.2, "edge": "zero"},
            "mask": {"edge_pixels": 2},
            "high_pass": {"modes": 2},
            "subtract_mean": {"skip_zeros": True},
            "asinh": {"scale": 0.3},
            "subtract_mean_2": {},
            "log10": {"epsilon": 2.0},
            "standardise": {},
        },
    },
}
SETUPS["telescope"] = {
    "observe": {
        "beam": {"profile": str(TESTS / "data" / "beam.csv"), "reference_GHz": 30.0},
        "channel_response": {"resolving_power": 20.0, "profile": "lorentzian"},
        "transfer_function": {"file": str(TESTS / "data" / "transfer.npz")},
        "noise": {"sigma_uK": [0.0, 2.0]},
        "beam_2": {"profile": str(TESTS / "data" / "beam.csv"), "edge": "zero"},
        "channel_response_2": {"fwhm_MHz": 700.0, "edge": "zero"},
    },
}
SETUPS["foregrounds"] = {
    "emit": {"line": {"model": "li16", "prior": "narrow"}},
    "observe": {
        "radio_sources": {
            "density": {"normal": [100.0, 60.0]},
            "slope": {"uniform": [0.9, 2.5]},
            "absent": 0.2,
        },
        "pool": {"factor": [3, 3, 3], "reduce": "sum"},
        "radio_sources_2": {"density": 1500.0, "nu": "band_mean", "sum_pixels": False},
        "noise": {
            "radiometer": {"T_sys_K": 44.0, "n_feeds": 19, "hours": 1500.0},
            "hits": str(TESTS / "data" / "hits.npz"),
            "absent": 0.2,
        },
        "edge_noise": {"sigma_uK": [0.0, 50.0], "per": "fine_voxel", "width": 0.3},
        "log_modulus": {},
    },
}
SETUPS["survey"] = {
    "emit": {"line": {"model": "li16", "prior": "narrow"}},
    "observe": {
        "pool": {"factor": [1, 3, 3]},
        "noise": {
            "sigma_uK": [1.0, 4.0],
            "hits": str(TESTS / "data" / "hits.npz"),
            "index": 0.5,
        },
        "correlated_noise": {"sigma_uK": [0.0, 4.0], "knee_per_GHz": 0.6, "absent": 0.2},
        "mask": {"edge_pixels": 1},
        "pca": {"modes": 4},
    },
}
SETUPS["everything"] = {
    "emit": {
        "line": {
            "mixture": {
                "li16": {"prior": "narrow"},
                "chung22": {"prior": "correlated", "constraints": ["-5 < A < 0"]},
                "breysse15": {"prior": "published", "weight": 0.5},
            },
            "require": {"halos": [300, 1e9]},
        },
        "line_width": {"factor": 5.0},
        "brightness": {"poisson_bins": 2.0, "probability": 0.5},
        "dim": {"above_log10_L": 6.0, "factor": 0.0, "probability": 0.5},
        "blank": {"probability": 0.0},
        "interloper": {"model": "breysse15", "nu_rest_GHz": 117.0, "prior": "published"},
    },
    "observe": {
        "noise": {"sigma_uK": [0.0, 6.31], "absent": 0.1},
        "pool": {"factor": [3, 3, 3], "reduce": "sum"},
        **{
            k: v for k, v in SETUPS["foregrounds"]["observe"].items() if k[:5] in ("radio", "edge_")
        },
        **SETUPS["filters"]["observe"],
        "log_modulus": {},
    },
    "label": {"quantity": "phi", "log10_L": [2.0, 7.0], "bins": 31},
}
NUM = 64
FAR = 10**12
"""Half of the samples have indices beyond 32 bits."""
INDICES = [*range(NUM // 2), *range(FAR, FAR + NUM // 2)]

Digests = dict[int, str]
Make = Callable[..., Digests]


def config(name: str) -> Config:
    return small.config(**SETUPS[name])


def digests(generator: Generator, indices: list[int] = INDICES, batch_size: int = NUM) -> Digests:
    """Of cube and counts, followed by the label's bytes."""
    found: Digests = {}
    for start in range(0, len(indices), batch_size):
        part = indices[start : start + batch_size]
        batch = generator.generate(part)
        for index, digest, label in zip(part, batch.digests(), batch.label.cpu(), strict=True):
            found[index] = digest + label.numpy().tobytes().hex()
    generator.close()
    return found


@pytest.fixture(params=list(SETUPS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def expected(small_sky: Lightcone) -> dict[str, Digests]:
    """Digests of the default build, one thread, one batch."""
    return {n: digests(Generator(config(n), lightcones=[small_sky])) for n in SETUPS}


def assert_is_oracle(generator: Generator, batch: Batch) -> None:
    for k in range(len(batch)):
        cube, counts, label = bit_oracle.sample(generator, batch, k)
        assert counts.sum() > 100
        assert np.count_nonzero(cube) > 100
        np.testing.assert_array_equal(batch.counts[k].numpy(), counts)
        np.testing.assert_array_equal(batch.cube[k].numpy().view("u4"), cube.view("u4"))
        np.testing.assert_array_equal(batch.label[k].numpy().view("u4"), label.view("u4"))


def test_samples_are_those_of_the_oracle(name: str, small_sky: Lightcone) -> None:
    generator = Generator(config(name), lightcones=[small_sky])
    assert_is_oracle(generator, generator.generate([0, 1, 2, 3, 4, 5, FAR, 2**64 - 1]))


def test_samples_of_several_lightcones_are_those_of_the_oracle(small_sky: Lightcone) -> None:
    """A halo's random numbers follow its row in its own lightcone, wherever that lies."""
    cones = [small_sky, small.lightcone(2, 5000), small.lightcone(3, 7777)]
    generator = Generator(config("li16"), split="validation", lightcones=cones)
    batch = generator.generate(range(12))
    assert {draws["lightcone"] for draws in batch.draws} == {"small-1", "small-2", "small-3"}
    assert_is_oracle(generator, batch)


def test_indices_give_different_samples(expected: dict[str, Digests]) -> None:
    for found in expected.values():
        assert len(set(found.values())) == NUM


@pytest.mark.parametrize("batch_size", [1, 7])
@pytest.mark.parametrize("threads", [1, 2])
def test_batch_size_and_threads(
    name: str, batch_size: int, threads: int, small_sky: Lightcone, expected: dict[str, Digests]
) -> None:
    generator = Generator(config(name), threads=threads, lightcones=[small_sky])
    assert digests(generator, batch_size=batch_size) == expected[name]


def test_order(name: str, small_sky: Lightcone, expected: dict[str, Digests]) -> None:
    shuffled = [int(i) for i in np.random.default_rng(0).permutation(INDICES)]
    assert shuffled != INDICES
    generator = Generator(config(name), threads=2, lightcones=[small_sky])
    assert digests(generator, shuffled) == expected[name]


FLAGS = {
    "O0": ("-O0",),
    "baseline O3": ("-O3",),
    "v3": ("-O2", "-march=x86-64-v3"),
    "v4": ("-O3", "-march=x86-64-v4", "-mprefer-vector-width=512"),
    "native": ("-O3", "-march=native", "-funroll-loops"),
}


def processor_has(flags: tuple[str, ...]) -> bool:
    needed = {"-march=x86-64-v3": {"avx2", "fma"}, "-march=x86-64-v4": {"avx512f", "avx512dq"}}
    info = Path("/proc/cpuinfo")
    have = set(info.read_text().split()) if info.is_file() else set()
    return all(needed.get(flag, set()) <= have for flag in flags)


def built(name: str, sky: Lightcone, flags: tuple[str, ...]) -> Generator:
    if not processor_has(flags):
        pytest.skip(f"this processor cannot run {' '.join(flags)}")
    return Generator(config(name), lightcones=[sky], compiler_flags=flags)


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(flags, id=kind, marks=[pytest.mark.slow] if kind == "v4" else [])
        for kind, flags in FLAGS.items()
    ],
)
def test_compiler_flags(
    name: str, flags: tuple[str, ...], small_sky: Lightcone, expected: dict[str, Digests]
) -> None:
    """v4 is slow, as `expected` covers it: on a processor that can run it, the default build has
    -O3 and vectors of 512 bits too."""
    assert digests(built(name, small_sky, flags)) == expected[name]


COMPILERS = {
    "g++": ["g++"],
    "clang++": ["clang++"],
    "zig": [sys.executable, "-m", "ziglang", "cc", "-nostdlib", "-nostdinc++"],
}


def is_the_default(command: list[str]) -> bool:
    """Whether a program is the one that the expected digests were compiled by, under any name."""
    default = backend.compiler_command()
    assert default is not None
    return len(default) == len(command) == 1 and os.path.samefile(
        default[0], str(shutil.which(command[0]))
    )


@pytest.mark.parametrize("compiler", list(COMPILERS))
@pytest.mark.parametrize("optimise", [(), ("-O1",)], ids=["default", "O1"])
def test_compilers(
    name: str,
    compiler: str,
    optimise: tuple[str, ...],
    small_sky: Lightcone,
    expected: dict[str, Digests],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = COMPILERS[compiler]
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {compiler} on this machine")
    if compiler == "zig":
        pytest.importorskip("ziglang")
    if not optimise and is_the_default(command):
        pytest.skip(f"{compiler} is the default compiler, which made what is expected")
    monkeypatch.setenv("CXX", " ".join(command))
    generator = Generator(config(name), lightcones=[small_sky], compiler_flags=optimise)
    assert digests(generator) == expected[name]


def test_contraction_would_change_bits(
    small_sky: Lightcone,
    expected: dict[str, Digests],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """These tests see a fused multiply-add: without -ffp-contract=off most samples change. The
    probe of compiled libraries, which refuses such flags, is left out."""
    monkeypatch.setattr(backend, "wrong_arithmetic", lambda library: None)
    monkeypatch.setenv("STREAMTRAIN_CACHE", str(tmp_path))
    flags = ("-O2", "-march=x86-64-v3", "-ffp-contract=fast")
    found = digests(built("li16", small_sky, flags))
    assert sum(found[i] != expected["li16"][i] for i in INDICES) > NUM / 2


def test_fast_math_is_refused(small_sky: Lightcone) -> None:
    with pytest.raises(BackendError, match="must not be compiled with -ffast-math"):
        built("li16", small_sky, ("-O2", "-ffast-math"))


def test_pool_at_the_head_is_painting_fine_and_adding_integers(small_sky: Lightcone) -> None:
    """The sum of a block is rounded once; the oracle paints fine voxels."""
    for factor, reduce in [((3, 1, 7), "mean"), ((1, 3, 1), "sum"), ((9, 21, 21), "mean")]:
        observe = {"pool": {"factor": factor, "reduce": reduce}}
        generator = Generator(small.config(observe=observe), lightcones=[small_sky])
        batch = generator.generate([3])
        cube, _, _ = bit_oracle.sample(generator, batch, 0)
        np.testing.assert_array_equal(batch.cube[0].numpy().view("u4"), cube.view("u4"))
        unpooled = Generator(small.config(), lightcones=[small_sky]).generate([3])
        assert torch.equal(batch.counts, unpooled.counts)


class NoTorch(TorchDispatchMode):
    """Nothing of torch may be called."""

    def __torch_dispatch__(self, func: Any, *_: Any, **__: Any) -> Any:
        raise AssertionError(f"{func} was called")


@pytest.mark.parametrize("name", SETUPS)
def test_drawing_leaves_torch_alone(name: str, small_sky: Lightcone) -> None:
    """What is drawn by NumPy waits for no device."""
    generator = Generator(config(name), lightcones=[small_sky])
    scene = generator.scenes.of(0)
    with NoTorch():
        drawing = generator.draw_for(scene, range(40))
    assert len(pickle.loads(pickle.dumps((drawing.arguments, drawing.operators)))[0]) == 40
    with NoTorch(), pytest.raises(AssertionError):
        generator.make(drawing, 0, 1, Workspace(torch.device("cpu")))


@pytest.mark.parametrize("name", SETUPS)
def test_drawing_leaves_nothing_behind(name: str, small_sky: Lightcone) -> None:
    """No cycle that holds arrays until Python looks for cycles: memory would grow meanwhile."""
    generator = Generator(config(name), lightcones=[small_sky])
    scene = generator.scenes.of(0)
    generator.draw_for(scene, range(40))
    gc.freeze()  # what all tests before have left need not be looked through
    gc.disable()
    try:
        for first in (40, 80):
            generator.draw_for(scene, range(first, first + 40))
        assert gc.collect() == 0
    finally:
        gc.enable()
        gc.unfreeze()


def test_files_of_other_splits_do_not_matter(
    small_sky: Lightcone, expected: dict[str, Digests], tmp_path: Path
) -> None:
    small_sky.save(tmp_path / "a.h5")
    small.lightcone(2, 500).save(tmp_path / "b.h5")
    data = {"train": [str(tmp_path / "a.h5")], "test": [str(tmp_path / "b.h5")]}
    for files in ({"train": data["train"]}, data):
        generator = Generator(small.config(data=files, **SETUPS["li16"]))
        assert digests(generator) == expected["li16"]


@pytest.mark.gpu
@pytest.mark.parametrize("batch_size", [1, NUM])
def test_gpu(
    name: str, batch_size: int, small_sky: Lightcone, expected: dict[str, Digests]
) -> None:
    generator = Generator(config(name), device="cuda", lightcones=[small_sky])
    assert digests(generator, batch_size=batch_size) == expected[name]
