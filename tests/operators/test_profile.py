"""Beams of a measured profile: what passes is the profile's own transform."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import j0
from support import small
from support.operator_tools import applied, operators

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import ConfigError
from streamtrain.generator.generator import Generator
from streamtrain.numerics.backend import Kernels
from streamtrain.operators.curve_files import Curve
from streamtrain.operators.profile import Window, fwhm_deg
from streamtrain.schema import AssumptionWarning

SHAPE = (3, 48, 40)
FOV = (1.0, 0.96)
"""ra, dec [deg]: pixels of 1.5 and 1.2 arcmin."""
SIGMA = 0.04
"""[deg]"""
RADIUS = np.linspace(0.0, 0.4, 401)
Response = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def gaussian(r: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-0.5 * (r / SIGMA) ** 2)


def skirted(r: NDArray[np.float64]) -> NDArray[np.float64]:
    """A Gaussian with a wide and faint second one, as sidelobes are."""
    return 0.9 * gaussian(r) + 0.1 * np.exp(-0.5 * (r / 0.1) ** 2)


def write(path: Path, response: Any, radius: Any = RADIUS) -> str:
    np.savetxt(path, np.transpose([radius, response]), header="radius [deg], response")
    return str(path)


def apply(kernels: Kernels, cube: NDArray[Any], **beam: Any) -> NDArray[np.float64]:
    return applied(kernels, {"beam": beam}, cube, fov_deg=FOV)


def wave(num_dec: int, num_ra: int) -> tuple[NDArray[np.float64], float]:
    """A wave that its mirror image continues, of half turns over the map in dec and ra, in all
    channels, and its k [1/deg]."""
    _, dec, ra = SHAPE
    along_dec = np.cos(np.pi * num_dec * (np.arange(dec) + 0.5) / dec)
    along_ra = np.cos(np.pi * num_ra * (np.arange(ra) + 0.5) / ra)
    image = along_dec[:, None] * along_ra
    k = np.pi * np.hypot(num_dec / FOV[1], num_ra / FOV[0])
    return np.broadcast_to(image, SHAPE), k


@pytest.mark.parametrize("num", [(0, 0), (1, 0), (0, 3), (5, 8), (20, 0), (0, 30), (30, 25)])
@pytest.mark.parametrize("width", [1.0, 0.1])
def test_what_passes_is_the_profiles_transform(
    kernels: Kernels, tmp_path: Path, num: tuple[int, int], width: float
) -> None:
    """Closed forms: of Gaussians exp(-k^2 sigma^2 / 2), each with its solid angle."""
    shares = np.array([0.9 * SIGMA**2, width * 0.1**2])
    response = 0.9 * gaussian(RADIUS) + width * np.exp(-0.5 * (RADIUS / 0.1) ** 2)
    image, k = wave(*num)
    found = apply(kernels, image, profile=write(tmp_path / "beam.txt", response))
    parts = np.exp(-0.5 * k**2 * np.array([SIGMA**2, 0.1**2]))
    expected = (shares * parts).sum() / shares.sum()
    # straight lines between the table's values: 1e-4; the wider one ends at 4 sigma: 3e-4
    np.testing.assert_allclose(found, expected * image, rtol=0, atol=4e-4)


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_transform_of_a_profile_that_is_not_gaussian(power: float) -> None:
    """A disc with a dark middle, by SciPy's Bessel function."""
    radius = np.linspace(0.0, 0.3, 31)
    curve = Curve(radius, np.sin(np.pi * radius / 0.3).clip(0) ** power)

    def transform(k: float) -> float:
        ends = {"limit": 400, "points": list(radius[1:-1])}
        return quad(lambda r: curve.at(np.array(r)) * j0(k * r) * r, 0, 0.3, **ends)[0]

    k = np.array([0.0, 1.0, 7.3, 20.0, 61.0, 150.0])
    expected = np.array([transform(some) for some in k])
    found = Window.of(curve, 150.0).at(k)
    np.testing.assert_allclose(found, expected / expected[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("edge", ["reflect", "zero"])
@pytest.mark.parametrize("reference", [{}, {"reference_GHz": 30.0}])
def test_a_gaussian_profile_is_the_gaussian_beam(
    kernels: Kernels, tmp_path: Path, edge: str, reference: dict[str, float]
) -> None:
    """Wider at lower frequency, at the map's edges too."""
    fwhm = SIGMA * np.sqrt(8 * np.log(2)) * 60
    cube = np.random.default_rng(3).uniform(0, 1, (2, *SHAPE)) ** 8
    profile = write(tmp_path / "beam.txt", gaussian(RADIUS))
    found = apply(kernels, cube, profile=profile, edge=edge, **reference)
    expected = apply(kernels, cube, fwhm_arcmin=fwhm, edge=edge, **reference)
    np.testing.assert_allclose(found, expected, rtol=0, atol=4e-4 * expected.max())


def test_flux_and_efficiency(kernels: Kernels, tmp_path: Path) -> None:
    profile = write(tmp_path / "beam.txt", 7.0 * skirted(RADIUS))
    cube = np.random.default_rng(3).uniform(0, 1, (2, *SHAPE))
    found = apply(kernels, cube, profile=profile)
    np.testing.assert_allclose(found.sum((2, 3)), cube.sum((2, 3)), rtol=1e-6)
    part = apply(kernels, cube, profile=profile, efficiency=0.72)
    np.testing.assert_allclose(part, 0.72 * found, rtol=0, atol=1e-6)
    corner = np.zeros(SHAPE)
    corner[:, 0, 0] = 1.0
    lost = apply(kernels, corner, profile=profile, edge="zero")
    assert 0.25 < lost[0].sum() < 0.35  # a quarter, and half of the pixel's own row and column


def test_forms_of_the_file(kernels: Kernels, tmp_path: Path) -> None:
    cube = np.random.default_rng(5).uniform(0, 1, SHAPE)
    expected = apply(kernels, cube, profile=write(tmp_path / "a.txt", skirted(RADIUS)))
    rows = np.transpose([RADIUS, skirted(RADIUS)])
    head = "radius_deg,response"
    np.savetxt(tmp_path / "a.csv", rows, delimiter=",", header=head, comments="")
    np.savetxt(tmp_path / "b.csv", rows, delimiter=";")
    np.savez(tmp_path / "a.npz", radius_deg=RADIUS, response=skirted(RADIUS))
    for name in ("a.csv", "b.csv", "a.npz"):
        found = apply(kernels, cube, profile=str(tmp_path / name))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1.0\n0.5\n0.0\n", r"one column of 3 numbers: the radius_deg \[deg\] of each is missing"),
        ("0 1 2\n1 0 2\n", r"rows have \[3\] columns, not two: radius_deg, response"),
        ("0 1\n1 0 2\n", r"rows have \[2, 3\] columns"),
        ("", "rows have no columns"),
        ("0 1\n1 -0.1\n", "response is negative, -0.1, at radius_deg = 1"),
        ("0 1\n0 0.5\n", "radius_deg must rise"),
        ("0 1\n1 nan\n", "NaN or infinity"),
        ("0 0\n1 0\n", "response is zero"),
        ("-1 0\n0 1\n1 0\n", "has the radius -1 deg, which is below 0"),
        ("# radius [arcmin], response\n0 1\n9 0\n", "head says arcmin, .* expected in deg"),
        ("# arc minutes, gain\n0 1\n9 0\n", "head says arc minutes, .* expected in deg"),
        ("# theta (arcseconds)\n0 1\n9 0\n", "head says arcseconds, .* expected in deg"),
        ("radius_arcmin,response\n0,1\n9,0\n", "head says arcmin, .* expected in deg"),
        ("0 1\n1 0\nend\n", "'end' is no row of numbers"),
        ("SIMPLE\xff\x80", "cannot be used: it is no text file"),
        ("0 1\n1.5 0\n", r"FWHM, 60 x 75 pixels \(ra, dec\), is wider than the map, 40 x 48"),
    ],
)
def test_what_is_no_profile(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "beam.txt").write_text(text, encoding="latin-1")
    beam = {"profile": str(tmp_path / "beam.txt")}
    with pytest.raises(ConfigError, match=r"^observe\.beam.*" + sentence):
        operators({"beam": beam}, shape=list(SHAPE), fov_deg=FOV)


@pytest.mark.parametrize(
    ("beam", "sentence"),
    [
        ({"profile": "none.txt"}, "there is no file none.txt"),
        ({"profile": "a", "fwhm_arcmin": 4}, "has both fwhm_arcmin = 4.0 and profile = a: "),
        ({"efficiency": 0.7, "fwhm_arcmin": 4}, "efficiency is that of a profile, and there is"),
        ({"profile": "a", "efficiency": 1.2}, "efficiency = 1.2"),
    ],
)
def test_bad_settings(beam: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        operators({"beam": beam})


def assumptions(file: str, **beam: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        operators({"beam": {"profile": file, **beam}}, shape=list(SHAPE), fov_deg=FOV)
    assert all(w.category is AssumptionWarning for w in said)
    return [str(w.message) for w in said]


def test_what_is_said(tmp_path: Path) -> None:
    file = tmp_path / "beam.txt"
    assert assumptions(write(file, skirted(RADIUS))) == []
    cut = RADIUS < 0.2
    (ends,) = assumptions(write(file, skirted(RADIUS)[cut], RADIUS[cut]))
    assert "ends at 0.199 deg with 0.014 of its peak" in ends
    (begins,) = assumptions(write(file, skirted(RADIUS)[9:], RADIUS[9:]))
    assert "begins at 0.009 deg; further in" in begins
    (narrow,) = assumptions(write(file, gaussian(4 * RADIUS)))
    left = np.exp(-0.5 * (np.pi / 0.02 * SIGMA / 4) ** 2)  # of the wave of two pixels in dec
    assert f"narrow for the pixels: {left:.2g}" in narrow
    (wide,) = assumptions(write(file, skirted(RADIUS), 6 * RADIUS))
    share = 0.1 * 0.6**2 * np.exp(-0.5 * (0.96 / 0.6) ** 2) / (0.9 * 0.24**2 + 0.1 * 0.6**2)
    assert f"{100 * share:.2g} % of the beam's power lie further" in wide


def test_width_at_half_maximum() -> None:
    assert fwhm_deg(Curve(RADIUS, gaussian(RADIUS))) == pytest.approx(2.3548 * SIGMA, rel=1e-4)
    assert fwhm_deg(Curve(np.array([0.0, 2.0]), np.array([1.0, 0.8]))) == 4.0


@small.EXTRAPOLATES
def test_identity_holds_the_profile(small_sky: Lightcone, tmp_path: Path) -> None:
    def identity(name: str, response: Any) -> Any:
        observe = {"beam": {"profile": write(tmp_path / name, response)}}
        return Generator(small.config(observe=observe), lightcones=[small_sky]).identity()

    one, two = identity("a.txt", skirted(RADIUS)), identity("b.txt", skirted(RADIUS))
    assert one["observe"] == two["observe"] != identity("c.txt", gaussian(RADIUS))["observe"]
