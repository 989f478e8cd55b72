"""`streamtrain catalog compare` on halos that do not cluster, whose map is known in closed form;
moments and the power of waves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support import small

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cli.main import main
from streamtrain.cosmology import Cosmology
from streamtrain.preview.compare_catalogs import (
    NAMES,
    View,
    grid_of,
    measure,
    moments,
    pooled,
    power_spectrum,
)
from streamtrain.spectra import Box, Power

FOV_DEG = 0.8


def same_brightness(mass_Msun: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """1e5 Lsun whatever the mass."""
    return 1e5 * (mass_Msun / mass_Msun)


VIEW = View(FOV_DEG, model=same_brightness)


def temperatures(lightcone: Lightcone) -> tuple[NDArray[np.float64], int]:
    """What each halo in the field adds to its voxel [uK], T = c^2 L / (2 k nu^2 ...) by hand, and
    the number of voxels that P(k) is measured on."""
    grid, _ = grid_of(VIEW, Cosmology())
    x, y, z = (getattr(lightcone, f"{axis}_Mpc").astype(np.float64) for axis in "xyz")
    chi = np.sqrt(x * x + y * y + z * z)
    nu = 115.27 / (1.0 + lightcone.z_obs.astype(np.float64))
    inside = (np.abs(np.degrees(np.arctan2(-x, z))) < FOV_DEG / 2) & (nu >= 26) & (nu <= 34)
    inside &= np.abs(np.degrees(np.arcsin(y / chi))) < FOV_DEG / 2
    pixel = np.radians(FOV_DEG) ** 2 / (grid.shape[1] * grid.shape[2])
    width = 8.0 / grid.shape[0]
    luminosity_distance2 = (chi * (1.0 + lightcone.z_obs)) ** 2
    flux = 1e5 / (4.0 * np.pi * luminosity_distance2 * width * pixel)
    return (2.61715 / 2.0 * flux / nu**2)[inside], int(np.prod(grid.shape))


@pytest.fixture(scope="module")
def sky() -> Lightcone:
    return small.lightcone(seed=4, num=40_000)


def test_box_of_a_field() -> None:
    """1.4 deg at z = 2.39..3.43 is 154.1 Mpc wide at 6306 Mpc, the middle of 5772 to 6840 Mpc (an
    integral of c/H by hand)."""
    grid, sides = grid_of(View(1.4), Cosmology())
    z = np.linspace(0.0, 115.27 / 26.0 - 1.0, 400_001)
    rate = 2997.92458 / 0.7 / np.sqrt(0.286 * (1.0 + z) ** 3 + 0.714)
    chi = np.concatenate([[0.0], np.cumsum(0.5 * (rate[1:] + rate[:-1]) * np.diff(z))])
    near, far = np.interp(115.27 / 34.0 - 1.0, z, chi), chi[-1]
    width = np.radians(1.4) * 0.5 * (near + far)
    np.testing.assert_allclose(sides, (far - near, width, width), rtol=1e-5)
    cells = np.array(sides) / grid.shape
    assert np.all(np.abs(cells / 1.25 - 1.0) < 0.01)
    assert [n % step for n, step in zip(grid.shape, (8, 2, 2), strict=True)] == [0, 0, 0]


@small.EXTRAPOLATES
def test_unclustered_halos_have_shot_noise_alone(sky: Lightcone) -> None:
    """P = V / N^2 sum T_i^2, 1 + (k a)^2 / 12 too high, to four standard errors of the number of
    modes; voxels of 16 cells with the moments of a Poisson process."""
    found = dict(zip(NAMES, measure(sky, VIEW), strict=True))
    added, cells = temperatures(sky)
    grid, sides = grid_of(VIEW, Cosmology())
    assert found["halos"] == added.size
    assert found["<T>"] == pytest.approx(added.sum() / cells, rel=1e-4)
    voxels = cells // 32
    variance = np.sum((added / 32) ** 2) / voxels
    assert found["std"] == pytest.approx(variance**0.5, rel=0.03)
    third = np.sum((added / 32) ** 3) / voxels
    assert found["skewness"] == pytest.approx(third / variance**1.5, rel=0.06)
    volume = np.prod(sides)
    shot = volume / cells**2 * np.sum(added**2)
    cell2 = np.mean([(side / n) ** 2 for side, n in zip(sides, grid.shape, strict=True)])
    for k in (0.1, 0.2, 0.3, 0.4):
        modes = 4.0 * np.pi * k**2 * 0.05 * volume / (2.0 * np.pi) ** 3
        error = np.sqrt(2.0 / modes)  # a wave and its conjugate are one
        assert abs(found[f"P({k:g})"] / shot / (1.0 + k**2 * cell2 / 12.0) - 1.0) < 4.0 * error, k
        assert error < 0.1


@small.EXTRAPOLATES
def test_a_field_far_from_the_equator_has_its_own_halos(sky: Lightcone) -> None:
    """The same sky turned to dec = 55 deg, where a degree of ra is 0.57 deg: the same field. A few
    halos cross its border, as positions are float32."""
    turn = np.radians(55.0)
    y, z = (getattr(sky, f"{axis}_Mpc").astype(np.float64) for axis in "yz")
    high = Lightcone.from_arrays(
        sky.x_Mpc,
        np.cos(turn) * y + np.sin(turn) * z,
        np.cos(turn) * z - np.sin(turn) * y,
        sky.mass_Msun,
        sky.z_obs,
        cosmology=sky.cosmology,
        footprint_deg=(-1.3, 1.3, 54.3, 55.7),
        z_range=sky.z_range,
        min_mass_Msun=sky.min_mass_Msun,
    )
    flat, turned = (dict(zip(NAMES, measure(one, VIEW), strict=True)) for one in (sky, high))
    assert abs(turned["halos"] - flat["halos"]) <= 5
    assert turned["<T>"] == pytest.approx(flat["<T>"], rel=1e-3)


@small.EXTRAPOLATES
def test_command_prints_every_file_and_the_ratio(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second sky is the first with every second halo taken away; all are equally bright, so
    the temperatures are as the numbers, and so is the power of what does not cluster."""
    whole = small.lightcone(seed=4)
    half = Lightcone.from_arrays(
        *(getattr(whole, f"{axis}_Mpc")[::2] for axis in "xyz"),
        whole.mass_Msun[::2],
        whole.z_obs[::2],
        cosmology=whole.cosmology,
        footprint_deg=whole.footprint_deg,
        z_range=whole.z_range,
        min_mass_Msun=whole.min_mass_Msun,
    )
    files = [tmp_path / "whole.h5", tmp_path / "half.h5"]
    whole.save(files[0])
    half.save(files[1])
    model = tmp_path / "line.py"
    model.write_text("def flat(mass_Msun, z):\n    return 1e5 * (mass_Msun / mass_Msun)\n")
    command = ["catalog", "compare", *map(str, files), "--fov-deg", "0.6"]
    assert main([*command, "--model", f"{model}:flat"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("flat, field of 0.6 deg, 34..26 GHz, halos above 2.5e+10 Msun")
    assert lines[2].split() == list(NAMES)
    assert [line.split()[0] for line in lines[3:]] == [*map(str, files), "others"]
    rows = [np.array(line.split()[-8:], float) for line in lines[3:]]
    np.testing.assert_allclose(rows[2], rows[1] / rows[0], atol=2e-3)
    assert rows[2][0] == pytest.approx(0.5, abs=0.03)
    assert rows[2][1] == pytest.approx(rows[2][0], abs=0.01)
    assert rows[2][6] == pytest.approx(rows[2][0], abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fov-deg", "1.3"], "a field of 1.3 deg does not fit in its footprint of 1.2 x 1.2 deg"),
        (["--nu-GHz", "38", "26"], "the band 38..26 GHz is z = 2.033..3.433, and the lightcone is"),
        (["--min-mass", "1e10"], "it is complete above 2.5e+10 Msun, not above 1e+10"),
        (["--model", "li61"], "unknown luminosity model 'li61'"),
        (["--nu-GHz", "26", "34"], "must run from high to low"),
        (["--fov-deg", "0.1"], "a field of 0.1 deg is outside 0.2..2 deg"),
    ],
)
def test_bad_views_get_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sky.h5"
    small.lightcone().save(file)
    assert main(["catalog", "compare", str(file), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.strip().count("\n") <= 1


SHAPE, SIDES = (24, 20, 18), (120.0, 90.0, 60.0)
CELLS = [side / n for side, n in zip(SIDES, SHAPE, strict=True)]
VOLUME = float(np.prod(SIDES))


def test_moments_of_a_small_cube() -> None:
    """Three voxels of 0 and one of 4: mean 1, variance 3, third moment 6."""
    found = moments(np.array([[[0.0, 0.0], [0.0, 4.0]]], np.float32))
    assert found == (1.0, pytest.approx(3.0**0.5), pytest.approx(6.0 / 3.0**1.5))
    assert moments(np.full((2, 2, 2), 5.0)) == (5.0, 0.0, 0.0)


def test_blocks_are_means_and_the_rest_is_cut_off() -> None:
    cube = np.arange(3 * 5 * 4, dtype=np.float64).reshape(3, 5, 4)
    found = pooled(cube, (1, 2, 4))
    assert found.shape == (3, 2, 1)
    assert found[1, 1, 0] == cube[1, 2:4].mean()
    with pytest.raises(ValueError, match=r"blocks of \(4, 1, 1\) voxels do not fit in a cube of"):
        pooled(cube, (4, 1, 1))


@pytest.mark.parametrize("wave", [(2, 1, 0), (-3, 0, 2), (1, -1, 3)])
def test_power_of_one_wave(wave: tuple[int, int, int]) -> None:
    """a cos(k x) averaged over voxels: P = V a^2/4 in the two modes k and -k, none elsewhere."""
    k = 2.0 * np.pi * np.array(wave) / SIDES
    centres = [(np.arange(n) + 0.5) * cell for n, cell in zip(SHAPE, CELLS, strict=True)]
    x, y, z = np.meshgrid(*centres, indexing="ij")
    window = np.prod(np.sinc(k * CELLS / (2.0 * np.pi)))
    cube = 7.0 + 0.8 * window * np.cos(k[0] * x + k[1] * y + k[2] * z)
    length = float(np.sqrt(k @ k))
    shells = [(length - 0.02, length + 0.02), (length + 0.02, length + 0.06)]
    found = power_spectrum(cube, SIDES, shells)
    plain = Power.spherical(Box(SHAPE, tuple(CELLS)), shells)  # type: ignore[arg-type]
    np.testing.assert_allclose(found[0] * plain.modes[0], VOLUME * 0.8**2 / 2, rtol=1e-4)
    assert found[1] < 1e-6 * found[0]
    np.testing.assert_allclose(
        plain(torch.from_numpy(cube)[None])[0, 0], window**2 * found[0], rtol=1e-5
    )
