"""The response of a spectrometer's channels: integrals over channels, waves, edges of the band."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.integrate import quad
from support import small
from support.operator_tools import applied, operators

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import ConfigError
from streamtrain.generator.generator import Generator
from streamtrain.numerics.backend import Kernels
from streamtrain.schema import AssumptionWarning

NUM = 64
STEP = 8000.0 / NUM
"""Between channels of 34..26 GHz [MHz]."""


def apply(
    kernels: Kernels, cube: NDArray[Any], before: dict[str, Any] | None = None, **response: Any
) -> NDArray[np.float64]:
    """The operator on cubes [n_freq, n_dec, n_ra]."""
    return applied(kernels, {**(before or {}), "channel_response": response}, cube)


def matrix(kernels: Kernels, num: int = NUM, **response: Any) -> NDArray[np.float64]:
    """Weights of each channel [num, num] on all: what is made of a line in one of them."""
    return apply(kernels, np.eye(num)[:, :, None], **response)[:, :, 0]


def write(path: Path, offset: Any, response: Any) -> str:
    np.savetxt(path, np.transpose([offset, response]), header="offset [MHz], response")
    return str(path)


def inside(cumulative: Any, reach: float) -> NDArray[np.float64]:
    """Weights of channels -30..30 from the middle one, of a response that ends at `reach`."""
    ends = np.clip(STEP * (np.arange(-30, 32) - 0.5), -reach, reach)
    parts = np.diff(cumulative(ends))
    return parts / parts.sum()


@pytest.mark.parametrize("fwhm", [20.0, 300.0, 1000.0])
def test_weights_are_integrals_over_channels(kernels: Kernels, fwhm: float) -> None:
    """By SciPy's distributions, in the middle of the band."""
    normal = stats.norm(scale=fwhm / np.sqrt(8 * np.log(2))).cdf
    found = matrix(kernels, fwhm_MHz=fwhm)[32, 2:63]
    np.testing.assert_allclose(found, inside(normal, 2.5 * fwhm), rtol=0, atol=5e-7)
    cauchy = stats.cauchy(scale=fwhm / 2).cdf
    given = min(fwhm, 300.0)  # so that ten widths are within the channels that are compared
    cauchy = stats.cauchy(scale=given / 2).cdf
    found = matrix(kernels, fwhm_MHz=given, profile="lorentzian")[32, 2:63]
    np.testing.assert_allclose(found, inside(cauchy, 10 * given), rtol=0, atol=5e-7)


@pytest.mark.parametrize("half_turns", [0, 1, 7, 20, 40])
@pytest.mark.parametrize("profile", ["gaussian", "lorentzian"])
def test_a_wave(kernels: Kernels, half_turns: int, profile: str) -> None:
    """A wave that its mirror image continues stays one. What is left of it is the transform of the
    response times the mean of a wave over a channel."""
    fwhm = 4 * STEP
    turns = half_turns / (2 * NUM)  # per channel
    wave = np.cos(2 * np.pi * turns * (np.arange(NUM) + 0.5))
    found = apply(kernels, wave[:, None, None], fwhm_MHz=fwhm, profile=profile)[:, 0, 0]
    if profile == "gaussian":
        left = np.exp(-0.5 * (2 * np.pi * turns * 4 / np.sqrt(8 * np.log(2))) ** 2)
    else:
        given = {"weight": "cos", "wvar": 2 * np.pi * turns * 4}
        part = quad(lambda x: 1 / (1 + 4 * x * x), 0, 10, **given)[0]
        left = part / quad(lambda x: 1 / (1 + 4 * x * x), 0, 10)[0]
    np.testing.assert_allclose(found, left * np.sinc(turns) * wave, rtol=0, atol=1e-3)


def test_resolving_power(kernels: Kernels) -> None:
    """FWHM = nu / R: each channel has the weights of its own width."""
    found = matrix(kernels, resolving_power=40.0, edge="zero")
    for channel in (15, 32, 50):
        nu = 34e3 - STEP * (channel + 0.5)
        expected = matrix(kernels, fwhm_MHz=nu / 40.0, edge="zero")
        np.testing.assert_allclose(found[channel], expected[channel], rtol=0, atol=1e-7)
    assert found[10].max() < found[55].max()


def test_edges_of_the_band(kernels: Kernels) -> None:
    """A mirror image keeps a level spectrum and the light; nothing beyond loses half at the end."""
    for profile in ("gaussian", "lorentzian"):
        kept = matrix(kernels, fwhm_MHz=700.0, profile=profile)
        np.testing.assert_allclose(kept.sum(1), 1.0, rtol=1e-6)
        np.testing.assert_allclose(kept.sum(0), 1.0, rtol=1e-6)
        lost = matrix(kernels, fwhm_MHz=700.0, profile=profile, edge="zero")
        np.testing.assert_allclose(lost.sum(1)[0], 0.5 + lost[0, 0] / 2, rtol=1e-6)
        assert (lost <= kept + 1e-7).all()


def test_after_a_pool_channels_are_wider(kernels: Kernels) -> None:
    cube = np.random.default_rng(1).uniform(0, 1, (NUM, 1, 1))
    found = apply(kernels, cube, {"pool": {"factor": [4, 1, 1]}}, fwhm_MHz=900.0)
    pooled = cube.reshape(16, 4, 1, 1).mean(1)
    np.testing.assert_allclose(found, apply(kernels, pooled, fwhm_MHz=900.0), rtol=0, atol=1e-6)


def test_a_measured_response(kernels: Kernels, tmp_path: Path) -> None:
    """A triangle in offset, whose integrals are squares, and one-sided: offset is frequency, which
    falls with the channel's number."""
    half = 2 * STEP
    triangle = write(tmp_path / "t.txt", [-half, 0, half], [0, 3.0, 0])
    found = matrix(kernels, file=triangle)
    weights = np.array([1, 8, 14, 8, 1]) / 32
    np.testing.assert_allclose(found[30, 28:33], weights, rtol=0, atol=1e-7)
    assert found[30].sum() == pytest.approx(1.0, rel=1e-6)
    above = write(tmp_path / "a.txt", [0, STEP / 2, 1.5 * STEP], [0.0, 0.0, 1.0])
    with pytest.warns(AssumptionWarning, match="response ends at 1 of its peak"):
        found = matrix(kernels, file=above)
    assert found[30, 29] == pytest.approx(1.0, rel=1e-6)  # all at a higher frequency


def test_a_channel_that_sees_what_it_is(kernels: Kernels, tmp_path: Path) -> None:
    """The window of a survey's channels, two of the map's wide: sinc^2 of that width."""
    edge = STEP * (1 - 1e-9)
    box = write(tmp_path / "box.txt", [-STEP, -edge, edge, STEP], [0, 1, 1, 0])
    for half_turns in (3, 12, 25):
        turns = half_turns / (2 * NUM)
        wave = np.cos(2 * np.pi * turns * (np.arange(NUM) + 0.5))
        found = apply(kernels, wave[:, None, None], file=box)[:, 0, 0]
        expected = (0.5 + 0.5 * np.cos(2 * np.pi * turns)) * wave  # 1/4, 1/2, 1/4
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("response", "sentence"),
    [
        ({}, "channel_response needs one of fwhm_MHz, resolving_power, file"),
        (
            {"fwhm_MHz": 3, "resolving_power": 9},
            "has both fwhm_MHz and resolving_power: .*resolving_power=null removes the one",
        ),
        ({"file": "a", "profile": "lorentzian"}, "profile = lorentzian beside .*file"),
        ({"fwhm_MHz": 9000}, "the response is 9000 MHz wide, the band 8000 MHz"),
        ({"resolving_power": 2}, "MHz wide, the band 8000 MHz"),
        ({"fwhm_MHz": 0}, "fwhm_MHz = 0 must be above 0"),
        ({"fwhm_MHz": 9, "edge": "wrap"}, "'wrap' is none of reflect, zero"),
        ({"file": "none.txt"}, "there is no file none.txt"),
    ],
)
def test_bad_settings(response: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        operators({"channel_response": response})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("# offset [GHz], response\n-1 0\n0 1\n1 0\n", "head says GHz, .* expected in MHz"),
        ("1\n2\n", r"one column of 2 numbers: the offset_MHz \[MHz\] of each is missing"),
        ("1 0\n0 1\n-1 0\n", "offset_MHz must rise"),
    ],
)
def test_what_is_no_response(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "r.txt").write_text(text)
    with pytest.raises(ConfigError, match=r"^observe\.channel_response\.file.*" + sentence):
        operators({"channel_response": {"file": str(tmp_path / "r.txt")}})


@small.EXTRAPOLATES
def test_identity_holds_the_response(small_sky: Lightcone, tmp_path: Path) -> None:
    def identity(name: str, width: float) -> Any:
        file = write(tmp_path / name, [-width, 0, width], [0, 1, 0])
        observe = {"channel_response": {"file": file}}
        return Generator(small.config(observe=observe), lightcones=[small_sky]).identity()

    with warnings.catch_warnings():
        warnings.simplefilter("error", AssumptionWarning)
        one, two, other = identity("a", 900.0), identity("b", 900.0), identity("c", 901.0)
    assert one["observe"] == two["observe"] != other["observe"]


def test_places_that_are_frequencies_are_refused(kernels: Kernels, tmp_path: Path) -> None:
    nu_MHz = 30000 + np.arange(-300, 301, 100)
    file = write(tmp_path / "absolute.txt", nu_MHz, [0, 1, 2, 3, 2, 1, 0])
    with pytest.raises(ConfigError, match=r"from 29700 to 30300 MHz, .* no frequencies"):
        matrix(kernels, file=file)


def test_a_response_that_changes_nothing_is_said(kernels: Kernels, tmp_path: Path) -> None:
    """A curve in GHz without a head."""
    file = str(tmp_path / "GHz.txt")
    np.savetxt(file, np.transpose([np.arange(-0.3, 0.31, 0.1), [0, 1, 2, 3, 2, 1, 0]]))
    with pytest.warns(AssumptionWarning, match=r"0.3 MHz wide and a channel 125 MHz.* in GHz\?"):
        found = matrix(kernels, file=file)
    assert found.diagonal().min() > 0.995
