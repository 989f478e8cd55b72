"""The Fourier transform with the same bits everywhere, and transfer functions."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.integrate import quad
from support import map_runs as runs
from support import small
from support.both_kernels import PATTERNS
from support.operator_tools import applied, operators

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import ConfigError, from_mapping
from streamtrain.evaluate.inference.prepare import prepare
from streamtrain.generator.generator import Generator
from streamtrain.maps.read import read_map
from streamtrain.numerics.backend import HostKernels, Kernels, kernel_source
from streamtrain.operators.base import Table
from streamtrain.operators.fourier import Axis, SliceFilter, cheap_length, radices
from streamtrain.operators.transfer import TransferFunction, TransferTable, without_information
from streamtrain.schema import AssumptionWarning

GRID: dict[str, Any] = {"shape": [32, 64, 64], "fov_deg": [2.0, 2.0]}
PERP, PAR = np.geomspace(0.01, 2.0, 9), np.geomspace(0.005, 1.0, 7)


def power_table() -> NDArray[np.float64]:
    """From 0.05 at the lowest to 0.98 at the highest waves, no two bins alike."""
    rise = np.arange(8)[:, None] / 7 * 0.6 + np.arange(6) / 5 * 0.3
    return 0.05 + rise + 0.03 * np.sin(7 * rise)


def write(path: Path, power: Any, perp: Any = PERP, par: Any = PAR) -> str:
    """A file in the layout of the COMAP pipeline, HDF5 or npz by its name."""
    arrays = {"transfer_function": power, "k_bin_edges_perp": perp, "k_bin_edges_par": par}
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file[f"cylindrically_averaged/{name}"] = values
    return str(path)


def apply(kernels: Kernels, cube: NDArray[Any], file: str, **more: Any) -> NDArray[np.float64]:
    return applied(kernels, {"transfer_function": {"file": file, **more}}, cube, **GRID)


def white(num: int = 2, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 1, (num, *GRID["shape"])).astype(np.float32)


def wavenumbers() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """k_perp [1, dec, ra] and k_par [freq, 1, 1] of the grid [1/Mpc], from its own integral of the
    distance: flat LCDM, Omega_m = 0.286, h = 0.7."""

    def distance(nu: float) -> float:
        z = 115.27 / nu - 1
        return 299792.458 / 70 * quad(lambda z: (0.286 * (1 + z) ** 3 + 0.714) ** -0.5, 0, z)[0]

    near, far = distance(34.0), distance(26.0)
    width = np.radians(2.0) * (near + far) / 2
    freq, dec, ra = GRID["shape"]
    k_par = 2 * np.pi * np.abs(np.fft.fftfreq(freq, (far - near) / freq))
    k_dec, k_ra = (2 * np.pi * np.fft.fftfreq(n, width / n) for n in (dec, ra))
    return np.hypot(k_dec[:, None], k_ra)[None], k_par[:, None, None]


# The transform.


@pytest.mark.parametrize(
    "length", [1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 21, 30, 49, 60, 64, 97, 120, 128, 210, 256]
)
@pytest.mark.parametrize("across", [1, 11])
def test_it_is_numpys(kernels: Kernels, length: int, across: int) -> None:
    rng = np.random.default_rng(length)
    real = rng.normal(0, 1, (3, length, across)).astype(np.float32)
    half = Axis.fourier(length, half=True)
    waves = half.to_waves(kernels, torch.from_numpy(real))
    expected = np.fft.rfft(real.astype(float), axis=1)
    tolerance = 1e-6 * np.abs(expected).max()
    np.testing.assert_allclose(waves[0] + 1j * waves[1], expected, rtol=0, atol=tolerance)
    back = half.to_rows(kernels, waves, real=True)
    np.testing.assert_allclose(back, real, rtol=0, atol=1e-6 * np.abs(real).max())

    parts = rng.normal(0, 1, (2, 3, length, across)).astype(np.float32)
    whole = Axis.fourier(length, half=False)
    waves = whole.to_waves(kernels, torch.from_numpy(parts))
    expected = np.fft.fft(parts[0].astype(float) + 1j * parts[1].astype(float), axis=1)
    tolerance = 1e-6 * np.abs(expected).max()
    np.testing.assert_allclose(waves[0] + 1j * waves[1], expected, rtol=0, atol=tolerance)
    back = whole.to_rows(kernels, waves, real=False)
    np.testing.assert_allclose(back, parts, rtol=0, atol=1e-6 * np.abs(parts).max())


def test_zeros_behind_the_rows(kernels: Kernels) -> None:
    rows = np.random.default_rng(4).normal(0, 1, (2, 7, 3)).astype(np.float32)
    for length in (7, 9, 12, 13):
        axis = Axis.fourier(7, half=True, length=length)
        waves = axis.to_waves(kernels, torch.from_numpy(rows))
        expected = np.fft.rfft(rows.astype(float), length, axis=1)
        np.testing.assert_allclose(waves[0] + 1j * waves[1], expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(axis.to_rows(kernels, waves, real=True), rows, atol=1e-6)


@pytest.mark.parametrize("num", [1, 2, 3, 4, 5, 12, 17, 60, 64, 81])
def test_cosines_are_scipys(kernels: Kernels, num: int) -> None:
    rows = np.random.default_rng(num).normal(0, 1, (2, num, 11)).astype(np.float32)
    axis = Axis.cosines(num)
    waves = axis.to_waves(kernels, torch.from_numpy(rows))
    expected = dct(rows.astype(float), 2, axis=1) / 2
    assert waves.shape == rows.shape
    np.testing.assert_allclose(waves, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    back = axis.to_rows(kernels, waves, real=True)
    np.testing.assert_allclose(back, rows, rtol=0, atol=1e-6 * np.abs(rows).max())


def equal_but_for_nan(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """A NaN is one whatever its bits."""
    a, b = (values.numpy().reshape(-1) for values in (found, expected))
    same = (a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))
    return found.shape == expected.shape and bool(same.all())


AXES = [
    Axis.fourier(256, half=True),
    Axis.fourier(60, half=False),
    Axis.fourier(13, half=True),
    Axis.fourier(21, half=True, length=32),
    Axis.cosines(60),
    Axis.cosines(1),
]


@pytest.mark.parametrize("across", [1, 60, 64, 150])
@pytest.mark.parametrize("axis", AXES, ids=[f"{k}" for k in range(len(AXES))])
def test_blocks_have_the_bits_of_steps(kernels: Kernels, axis: Axis, across: int) -> None:
    """What a CPU does in one call for block after block, and a GPU in one launch for each step;
    also of numbers that are none."""
    steps = HostKernels(kernel_source("observe.cu"))
    steps.blockwise = False
    rng = np.random.default_rng(across)
    num = axis.forward[0].num_in
    for fuzz in (False, True):
        for shape in ((3, num, across), (2, 3, num, across)):
            values = rng.normal(0, 1, shape).astype(np.float32)
            if fuzz:
                some = rng.uniform(size=shape) < 1e-3
                values[some] = rng.choice(PATTERNS[torch.float32], int(some.sum()))
            rows = torch.from_numpy(values)
            waves = axis.to_waves(steps, rows)
            assert equal_but_for_nan(axis.to_waves(kernels, rows), waves)
            for real in (False, True):
                back = axis.to_rows(steps, waves, real=real)
                assert equal_but_for_nan(axis.to_rows(kernels, waves, real=real), back)
    assert kernels.blockwise


@pytest.mark.parametrize(
    ("dec", "ra", "waves"),
    [
        (Axis.fourier(60, half=False), Axis.fourier(70, half=False), True),
        (Axis.fourier(70, half=True), Axis.fourier(9, half=False), False),
        (Axis.fourier(13, half=True, length=20), Axis.fourier(66, half=False, length=75), False),
        (Axis.cosines(12), Axis.cosines(68), False),
    ],
    ids=["waves", "real", "zeros behind", "cosines"],
)
def test_slices_in_blocks_have_the_bits_of_steps(
    kernels: Kernels, dec: Axis, ra: Axis, waves: bool
) -> None:
    steps = HostKernels(kernel_source("observe.cu"))
    steps.blockwise = False
    rng = np.random.default_rng(5)
    size = (ra.num_waves, dec.num_waves)
    factors = rng.uniform(size=(3, *size)).astype(np.float32)
    slices = SliceFilter(dec, ra, Table(factors))
    shape = (*(2,) * waves, 6, dec.forward[0].num_in, ra.forward[0].num_in)
    for fuzz in (False, True):
        values = rng.normal(0, 1, shape).astype(np.float32)
        if fuzz:
            some = rng.uniform(size=shape) < 1e-3
            values[some] = rng.choice(PATTERNS[torch.float32], int(some.sum()))
        expected = slices.apply(steps, torch.from_numpy(values.copy()))
        found = slices.apply(kernels, torch.from_numpy(values.copy()))
        assert equal_but_for_nan(found, expected)
        assert fuzz or torch.isfinite(found).all()


def test_lengths_are_cut_into_cheap_steps() -> None:
    for length in range(1, 400):
        assert np.prod(radices(length)) == length
        assert length <= cheap_length(length) < 2 * length or length == 1
    assert radices(97) == (97,) and len(radices(256)) > 1
    assert max(radices(cheap_length(97))) < 10


# The transfer function.


@pytest.mark.parametrize("kind", ["t.h5", "t.npz"])
def test_power_that_is_left_is_the_tables(kernels: Kernels, tmp_path: Path, kind: str) -> None:
    """In bins of a thousand waves and more, of white maps, to 1 per cent (here: to rounding)."""
    power = power_table()
    cube = white()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumptionWarning)
        found = apply(kernels, cube, write(tmp_path / kind, power))
    before, after = (np.abs(np.fft.fftn(c.astype(float), axes=(1, 2, 3))) ** 2
                     for c in (cube, found))  # fmt: skip
    k_perp, k_par = wavenumbers()
    compared = 0
    for i in range(8):
        for j in range(6):
            ring = (k_perp >= PERP[i]) & (k_perp < PERP[i + 1])
            inside = ring & (k_par >= PAR[j]) & (k_par < PAR[j + 1])
            if inside.sum() >= 1000:
                left = after[:, inside].sum() / before[:, inside].sum()
                assert left == pytest.approx(power[i, j], rel=1e-5)
                compared += 1
    assert compared >= 5


def test_power_that_a_formula_leaves(kernels: Kernels) -> None:
    """Of every wave, by NumPy; half of it at k_half, nothing at k = 0 along either direction."""
    section = {"k_half": [0.1, 0.05], "slope": [2.0, 3.0]}
    (operator,) = operators({"transfer_function": section}, **GRID)
    cube = white(1)
    given = torch.from_numpy(cube.copy())
    made = operator.apply(kernels, given, torch.zeros(1, 6, dtype=torch.int32), {})
    k_perp, k_par = wavenumbers()
    with np.errstate(divide="ignore"):
        left = 1 / (1 + (0.1 / k_perp) ** 2) / (1 + (0.05 / k_par) ** 3)
    expected = np.fft.ifftn(np.fft.fftn(cube[0].astype(float)) * np.sqrt(left)).real
    np.testing.assert_allclose(made[0], expected, rtol=0, atol=5e-6)
    assert operator.identity() is None and float(made.mean()) == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({}, "needs either a file or k_half"),
        ({"file": "t.h5", "k_half": [0.1, 0.1]}, "needs either a file or k_half"),
        ({"file": "t.h5", "slope": [1.0, 1.0]}, "slope is of the formula"),
        ({"k_half": [0.1, 0.0]}, "above 0"),
        ({"k_half": 0.1}, "k_half"),
    ],
)
def test_formulas_that_are_none(section: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        operators({"transfer_function": section}, **GRID)


@pytest.mark.parametrize("shape", [[1, 6, 5], [4, 1, 1]])
def test_a_formula_that_leaves_nothing_is_refused(shape: list[int]) -> None:
    """A map of one channel, or of one pixel, has only waves that it takes; their mean can stay."""
    section: dict[str, Any] = {"k_half": [0.05, 0.02]}
    with pytest.raises(ConfigError, match=r"transfer_function leaves nothing of a map of"):
        operators({"transfer_function": section}, shape=shape)
    (kept,) = operators({"transfer_function": section | {"mean": "keep"}}, shape=shape)
    assert isinstance(kept, TransferFunction) and kept.slices.factors.values.sum() == 1.0


def test_every_wave_by_itself(kernels: Kernels, tmp_path: Path) -> None:
    """Beyond the table waves take the nearest bin; phases stay; the mean goes, or stays."""
    power = power_table()
    perp, par = PERP[2:7], PAR[1:5]
    cube = white(1) + 3.0
    file = write(tmp_path / "t.h5", power[2:6, 1:4], perp, par)
    k_perp, k_par = wavenumbers()
    i = np.clip(np.digitize(k_perp, perp) - 1, 0, 3)
    j = np.clip(np.digitize(k_par, par) - 1, 0, 2)
    factor = np.sqrt(power[2:6, 1:4][i, j])
    for mean in ("remove", "keep"):
        factor[0, 0, 0] = mean == "keep"
        with pytest.warns(AssumptionWarning, match=r"\d % of the map's waves lie beyond its bins"):
            found = apply(kernels, cube, file, mean=mean)
        expected = np.fft.ifftn(np.fft.fftn(cube[0].astype(float)) * factor).real
        np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-5)
        assert found.mean() == pytest.approx(cube.mean() * (mean == "keep"), abs=1e-5)


def test_a_table_that_holds_all_waves_needs_no_warning(kernels: Kernels, tmp_path: Path) -> None:
    file = write(tmp_path / "t.h5", np.ones((1, 1)), [0.0, 9.0], [0.0, 9.0])
    cube = white(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = apply(kernels, cube, file, mean="keep")
    np.testing.assert_allclose(found, cube, rtol=0, atol=2e-6)


def test_cubes_of_a_batch_do_not_know_of_each_other(kernels: Kernels, tmp_path: Path) -> None:
    file = write(tmp_path / "t.h5", power_table())
    cube = white(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumptionWarning)
        together = apply(kernels, cube, file)
        for k in range(3):
            assert np.array_equal(apply(kernels, cube[k : k + 1], file)[0], together[k])


# Bins without information.


def test_noise_is_no_information(tmp_path: Path) -> None:
    """NaN, and T far outside 0..1; single ones stay single, many in a ring or slab take all."""
    power = power_table()
    power[1, 1], power[0, 0], power[5, 0], power[5, 3] = np.nan, -0.05, 1.08, 1.3
    power[7] = [0.4, -3.0, 9.0, 0.7, 2.0, 0.1]
    power[:7, 5] = [1.5, 0.9, 1.7, 2.4, 1.2, 0.8, 3.0]
    expected = np.zeros((8, 6), bool)
    expected[1, 1] = expected[5, 3] = expected[7] = expected[:, 5] = True
    np.testing.assert_array_equal(without_information(power), expected)
    table = TransferTable.of(power, PERP, PAR)
    assert table.power[0, 0] == 0.0 and table.power[5, 0] == 1.0  # noise, clipped
    assert table.power[1, 1] == power[0, 1]  # of the four beside it, the one of the lowest k
    assert table.power[7, 2] == power[6, 2] and table.power[7, 5] == power[6, 4]
    with pytest.warns(AssumptionWarning) as said:
        operators({"transfer_function": {"file": write(tmp_path / "t.h5", power)}}, **GRID)
    text = str(said[0].message)
    assert "15 of 48 bins hold no information" in text
    assert f"k_perp = {PERP[0]:.3g} and k_par = {PAR[0]:.3g} /Mpc on" in text


@pytest.mark.parametrize(
    ("power", "perp", "sentence"),
    [
        (power_table().T, PERP, r"shape \(6, 8\), its edges are those of 8 bins of k_perp and 6"),
        (power_table()[:, 0], PERP, r"shape \(8,\), its edges"),
        (power_table(), PERP[::-1], "k_bin_edges_perp must rise"),
        (power_table(), PERP - 1.0, "k_bin_edges_perp must rise from 0 or above"),
        (np.full((8, 6), np.nan), PERP, "no bin holds a T of 0..1"),
        (np.full((8, 6), b"x"), PERP, "transfer_function holds .*, not numbers"),
    ],
)
def test_what_is_no_table(tmp_path: Path, power: Any, perp: Any, sentence: str) -> None:
    file = write(tmp_path / "t.h5", power, perp)
    with pytest.raises(ConfigError, match=r"^observe\.transfer_function\.file: .*" + sentence):
        operators({"transfer_function": {"file": file}})


def test_what_is_no_file_of_one(tmp_path: Path) -> None:
    (tmp_path / "t.h5").write_text("k T\n")
    np.savez(tmp_path / "t.npz", transfer_function=power_table())
    for name, sentence in (
        ("none.h5", "there is no file"),
        ("t.h5", "cannot be used"),
        ("t.npz", "holds no k_bin_edges_perp and no k_bin_edges_par"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            operators({"transfer_function": {"file": str(tmp_path / name)}})
    with pytest.raises(ConfigError, match="needs either a file or k_half"):
        operators({"transfer_function": {}})


# In a configuration.


@small.ASSUMES
@small.EXTRAPOLATES
def test_identity_holds_the_table(small_sky: Lightcone, tmp_path: Path) -> None:
    """What is in the file counts, not where it lies."""

    def identity(name: str, power: Any) -> Any:
        observe = {"transfer_function": {"file": write(tmp_path / name, power)}}
        return Generator(small.config(observe=observe), lightcones=[small_sky]).identity()

    one, two = identity("a.h5", power_table()), identity("b.npz", power_table())
    assert one["observe"] == two["observe"] != identity("c.h5", power_table() ** 2)["observe"]


@small.ASSUMES
def test_infer_leaves_a_telescopes_part_out(tmp_path: Path) -> None:
    file = write(tmp_path / "t.h5", power_table())
    observe: dict[str, Any] = {
        "channel_response": {"fwhm_MHz": 900.0},
        "transfer_function": {"file": file},
        "log_modulus": {},
    }
    grid = {"fov_deg": runs.FOV_DEG, "shape": list(runs.SHAPE)}
    config = from_mapping({"grid": grid, "observe": observe})
    cube = np.random.default_rng(2).normal(5.0, 2.0, runs.SHAPE).astype(np.float32)
    found = prepare(read_map(runs.write_hdf5(tmp_path / "m.h5", cube)), config)
    assert found.left_out == ["channel_response", "transfer_function"]
    assert found.applied == ["log_modulus"]
