"""A user's table of star-formation rates against SciPy, and maps painted with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline
from support import small

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.sfr import SFRTable
from streamtrain.generator.generator import Generator
from streamtrain.generator.paint import paint
from streamtrain.grid import Grid
from streamtrain.schema import ConfigError

ONE_PLUS_Z = np.array([1.0, 2.5, 3.1, 3.9, 5.0])
LOG10_MASS = np.array([10.0, 10.7, 11.5, 12.0, 12.4, 13.5])
GRID = Grid((1.0, 1.0), (4, 8, 8))


def rows(no_data: bool = True) -> NDArray[np.float64]:
    """1+z, log10 M, log10 SFR, log10 M*: mass by mass as published; a corner without data."""
    log_m, one_plus_z = np.meshgrid(LOG10_MASS, ONE_PLUS_Z, indexing="ij")
    log_sfr = 1.3 * (log_m - 11.7) - 0.8 * np.maximum(log_m - 12.1, 0) + 2.0 * np.log10(one_plus_z)
    if no_data:
        log_sfr[(log_m > 12.2) & (one_plus_z > 3.5)] = -1000.0
    return np.stack([one_plus_z, log_m, log_sfr, 0.5 * log_m], axis=-1).reshape(-1, 4)


def write(path: Path, table: NDArray[np.float64]) -> Path:
    path.write_text("# 1+z log10M log10SFR log10M*\n\n")
    with path.open("a") as file:
        np.savetxt(file, table, fmt="%.9g")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "sfr.dat", rows())


def scipy_sfr(mass: Any, z: Any) -> NDArray[np.float64]:
    """limlam_mocker's three lines."""
    with np.errstate(under="ignore"):
        rate = 10 ** rows()[:, 2].reshape(len(LOG10_MASS), len(ONE_PLUS_Z))
    spline = RectBivariateSpline(LOG10_MASS, np.log10(ONE_PLUS_Z), rate, kx=1, ky=1)
    return spline.ev(np.log10(mass), np.log10(1 + z))


# The table.


def test_bilinear_in_the_linear_rate(file: Path) -> None:
    """As RectBivariateSpline(kx=1, ky=1): in every cell, on nodes, clamped in mass."""
    rng = np.random.default_rng(2)
    mass = 10 ** np.concatenate([rng.uniform(9.0, 14.5, 4000), np.repeat(LOG10_MASS, 5)])
    z = np.concatenate([rng.uniform(0.0, 4.0, 4000), np.tile(ONE_PLUS_Z - 1, 6)])
    found, expected = SFRTable.read(file).sfr(mass, z), scipy_sfr(mass, z)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-12 * expected.max())
    assert np.count_nonzero(mass < 1e10) > 100 and np.count_nonzero(mass > 10**13.5) > 100


def test_worked_out_by_hand(tmp_path: Path) -> None:
    """A quarter of the way in log M and half way in log(1+z), from rates 1, 2, 10, 100."""
    table = np.array([[2, 11, 0, 0], [8, 11, np.log10(2), 0], [2, 12, 1, 0], [8, 12, 2, 0]])
    found = SFRTable.read(write(tmp_path / "four.dat", table)).sfr(10**11.25, 3.0)
    assert found == pytest.approx(0.75 * 1.5 + 0.25 * 55.0, rel=1e-8)
    assert found.shape == ()


def test_masses_beyond_the_table_have_the_edge_s_rate(file: Path) -> None:
    table = SFRTable.read(file)
    assert table.sfr(1e9, 2.0) == table.sfr(1e10, 2.0) > 0
    assert table.sfr(1e15, 0.5) == pytest.approx(table.sfr(10**13.5, 0.5), rel=1e-12)


def test_no_data_is_no_star_formation(file: Path) -> None:
    """Exactly zero where all four nodes have no data; towards such a node, a line down to zero."""
    table = SFRTable.read(file)
    assert np.all(table.sfr([10**12.41, 1e13, 1e15], [3.0, 3.5, 3.99]) == 0.0)
    last, half = table.sfr(10.0 ** np.array([12.0, 12.2]), 3.0)
    assert half == pytest.approx(0.5 * last, rel=1e-6)


def test_redshift_outside_is_refused(file: Path) -> None:
    table = SFRTable.read(file)
    with pytest.raises(ValueError, match=r"sfr\.dat covers z = 0\.000\.\.4\.000, not 3\.000\.\.4"):
        table.sfr([1e12, 1e12], [3.0, 4.01])
    with pytest.raises(ValueError, match="covers"):
        table.sfr(1e12, np.nan)
    assert table.sfr([], []).shape == (0,)


def test_digest_is_of_the_numbers(file: Path, tmp_path: Path) -> None:
    """Neither the order of the rows nor comments nor the unused column enter it."""
    table = SFRTable.read(file)
    shuffled = np.random.default_rng(1).permutation(rows())
    again = SFRTable.read(write(tmp_path / "shuffled.dat", shuffled))
    np.testing.assert_array_equal(again.log10_sfr, table.log10_sfr)
    assert table.log10_sfr.shape == (6, 5)
    assert again.digest == table.digest
    assert SFRTable.read(write(tmp_path / "three.dat", rows()[:, :3])).digest == table.digest
    changed = rows()
    changed[3, 2] += 1e-6
    assert SFRTable.read(write(tmp_path / "changed.dat", changed)).digest != table.digest
    flat = replace(table, log10_sfr=np.ascontiguousarray(table.log10_sfr.reshape(5, 6)))
    assert flat.digest != table.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 10 0 9\n2 10 0 9\n1 11 0 9\n", "3 rows do not fill the grid of its 2 masses and 2 red"),
        ("1 10 0 9\n2 10 0 9\n1 11 0 9\n1 11 1 9\n", "4 rows do not fill the grid"),
        ("1 10 0 9\n2 10 0 9\n", "needs two masses and two redshifts or more, not 1 and 2"),
        ("# nothing\n\n", "needs two masses and two redshifts or more, not 0 and 0"),
        ("1 10 0 9\n1 11 high 9\n", "line 2 is not made of numbers"),
        (
            "z,logM,sfr\n6,10,0.3\n",
            "line 1 is not made of numbers: a table of star-formation rates has",
        ),
        ("# x\n1 10 nan 9\n", "line 2 holds a number that is not finite"),
        ("1 10\n2 11\n", "line 1 has 2 columns, not four"),
        ("1 10 0 9 7\n", "line 1 has 5 columns, not four"),
        ("1 1e10 0 9\n2 1e10 0 9\n1 1e11 0 9\n2 1e11 0 9\n", "2 must be log10 of the mass [Msun]"),
        ("1 10 0 9\n2 10 0 9\n1 11 55 9\n2 11 9 9\n", "3 must be log10 of the SFR [Msun/yr]"),
        ("0 10 0 9\n2 10 0 9\n0 11 0 9\n2 11 0 9\n", "the first column must be 1 + z, at least 1"),
    ],
)
def test_malformed_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.dat"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"bad\.dat") as refused:
        SFRTable.read(path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.dat: there is no such table"):
        SFRTable.read(tmp_path / "nowhere.dat")
    with pytest.raises(ValueError, match="a folder, not a file"):
        SFRTable.read(tmp_path)
    (tmp_path / "binary.dat").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match=r"binary\.dat is not a table .*: not a text file"):
        SFRTable.read(tmp_path / "binary.dat")


# Painting with it.


def with_column(sky: Lightcone, sfr: NDArray[np.float64]) -> Lightcone:
    """The same halos in the same rows, with star-formation rates of their own."""
    return replace(sky, columns={"sfr": sfr.astype(np.float32)})


def test_a_table_paints_what_a_column_made_from_it_does(small_sky: Lightcone, file: Path) -> None:
    """And something else than the fit; halos without data paint nothing."""
    rate = SFRTable.read(file).sfr(small_sky.mass_Msun, small_sky.z_obs)
    assert 100 < np.count_nonzero(rate == 0) < len(rate)
    cube, counts = paint(small_sky, GRID, "li16", sfr=str(file))
    same, same_counts = paint(with_column(small_sky, rate), GRID, "li16")
    np.testing.assert_allclose(cube, same, rtol=3e-6)
    assert (counts - same_counts).abs().sum() <= 4  # halos within 1e-6 of a bin's edge
    fit, _ = paint(small_sky, GRID, "li16")
    assert (cube / fit - 1).abs().max() > 0.1
    full = write(file.with_name("full.dat"), rows(no_data=False))
    more, more_counts = paint(small_sky, GRID, "li16", sfr=str(full))
    assert more.sum() > 1.1 * cube.sum() and more_counts.sum() > counts.sum()


@small.EXTRAPOLATES
def test_halos_without_data_are_dark(small_sky: Lightcone, file: Path) -> None:
    """A sky of nothing else is black, also where the model's scatter is large."""
    heavy = small.lightcone(num=200, mass_Msun=np.full(200, 9e12))
    assert paint(heavy, GRID, "li16", sfr="fit")[0].sum() > 0
    beyond = rows()
    beyond[beyond[:, 1] > 12, 2] = -1000.0
    table = str(write(file, beyond))
    for model in ("li16", "kamenetzky16_co1"):
        cube, counts = paint(heavy, GRID, model, sfr=table)
        assert cube.sum() == 0 and counts.sum() == 0


def test_fit_and_column(small_sky: Lightcone) -> None:
    doubled = with_column(small_sky, np.full(len(small_sky), 5.0))
    fit, column = paint(small_sky, GRID, "li16")[0], paint(doubled, GRID, "li16")[0]
    assert not np.array_equal(fit, column)
    for sky, choice, expected in (
        (small_sky, "fit", fit),
        (doubled, "fit", fit),
        (doubled, "column", column),
        (doubled, "auto", column),
    ):
        np.testing.assert_array_equal(paint(sky, GRID, "li16", sfr=choice)[0], expected)
    with pytest.raises(ValueError, match=r"needs the column 'sfr', which small-1 does not have \("):
        paint(small_sky, GRID, "li16", sfr="column")
    paint(small_sky, GRID, "chung22", sfr="column")  # needs none


def test_a_choice_that_is_none(small_sky: Lightcone, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^sfr = 'fitt' is none of auto, fit, fit_in_range, "):
        paint(small_sky, GRID, "li16", sfr="fitt")
    config = small.config(data={"sfr": str(tmp_path)})
    with pytest.raises(ConfigError, match=r"^data\.sfr = .* is none of auto, fit, fit_in_r"):
        Generator(config, lightcones=[small_sky])


def test_identity_holds_the_table(small_sky: Lightcone, file: Path, tmp_path: Path) -> None:
    """Where it lies does not matter; without a table, identity is that of older runs."""

    def made(choice: str) -> tuple[Generator, list[str]]:
        generator = Generator(small.config(data={"sfr": choice}), lightcones=[small_sky])
        return generator, generator.generate([0, 3]).digests()

    copy = write(tmp_path / "copy.dat", rows())
    (here, samples), (there, same), (fit, other) = map(made, (str(file), str(copy), "fit"))
    assert samples == same and samples != other
    assert here.identity() == there.identity()
    assert here.identity()["sfr"] == SFRTable.read(file).digest
    assert set(fit.identity()) == {"lightcones", "model"}
    assert here.config.sample_settings() == there.config.sample_settings()
    assert here.config.sample_settings() != fit.config.sample_settings()
