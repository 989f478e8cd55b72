"""Arrays of every kind into `observe` and `from_arrays`: the plain answer, or a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support import small

from streamtrain import observe
from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.grid import SOURCE_UK

units = pytest.importorskip("astropy.units")
from astropy.cosmology import units as of_cosmology  # noqa: E402
from astropy.nddata import CCDData, NDData  # noqa: E402
from astropy.table import Column, MaskedColumn  # noqa: E402
from astropy.utils.masked import Masked  # noqa: E402

Array = NDArray[Any]
SHAPE = (2, 3, 4)
CONFIG: dict[str, Any] = {
    "grid": {"fov_deg": [0.8, 0.6], "shape": list(SHAPE), "nu_GHz": [34.0, 26.0]}
}
NU_GHZ = np.array([32.0, 28.0])[:, None, None]
"""Centres of the channels."""


class Series:
    """What streamtrain asks of a column of pandas."""

    class Index(list):  # type: ignore[type-arg]
        def equals(self, other: Any) -> bool:
            return list(self) == list(other)

    def __init__(self, values: Any, index: Any = None) -> None:
        self._values = np.asarray(values)
        self.index = Series.Index(range(len(self._values)) if index is None else index)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        return np.array(self._values, dtype)

    def isna(self) -> Series:
        return Series([v is None or v != v for v in self._values])

    def mask(self, condition: Any) -> None:
        """Of pandas: sets values."""


class Pint:
    """A quantity of pint."""

    def __init__(self, magnitude: Array, name: str) -> None:
        self.magnitude, self.units = magnitude, name


KINDS: dict[str, Callable[[Array], Any]] = {
    "float64": lambda a: a,
    "float32": lambda a: a.astype(np.float32),
    "float16": lambda a: a.astype(np.float16),
    "longdouble": lambda a: a.astype(np.longdouble),
    "int64": lambda a: a.astype(np.int64),
    "uint16": lambda a: a.astype(np.uint16),
    "big-endian float": lambda a: a.astype(">f8"),
    "big-endian integer": lambda a: a.astype(">i4"),
    "list": lambda a: a.tolist(),
    "tuple of arrays": tuple,
    "list of integers": lambda a: a.astype(int).tolist(),
    "objects": lambda a: a.astype(object),
    "read-only": lambda a: np.broadcast_to(a, a.shape),
    "Fortran order": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "tensor": torch.from_numpy,
    "tensor of a network": lambda a: torch.from_numpy(a).requires_grad_(),
    "bfloat16": lambda a: torch.from_numpy(a).bfloat16(),
    "half": lambda a: torch.from_numpy(a).half(),
    "int32 tensor": lambda a: torch.from_numpy(a).int(),
    "sparse tensor": lambda a: torch.from_numpy(a).to_sparse(),
    "list of tensors": lambda a: list(torch.from_numpy(a)),
    "masked nowhere": np.ma.masked_array,
    "NDData": NDData,
}
"""Kinds of arrays that hold the same small whole numbers."""

REFUSED_KINDS: dict[str, tuple[Callable[[Array], Any], str]] = {
    "complex": (lambda a: a + 0j, "must be numbers, not complex"),
    "complex tensor": (lambda a: torch.from_numpy(a) + 0j, "must be numbers, not .*complex"),
    "bool": (lambda a: a > 1, "must be numbers, not truth values"),
    "bool tensor": (lambda a: torch.from_numpy(a) > 1, "must be numbers, not (truth|torch.bool)"),
    "list of bools": (lambda a: (a > 1).tolist(), "must be numbers, not truth values"),
    "text": (lambda a: a.astype(str), "must be numbers, not text"),
    "list of text": (lambda a: a.astype(str).tolist(), "must be numbers, not '"),
    "bytes": (lambda a: a.astype("S8"), "must be numbers, not text"),
    "objects with text": (lambda a: a.astype(str).astype(object), "must be numbers, not '"),
    "objects": (lambda a: np.full(a.shape, object()), "must be numbers, not object"),
    "records": (lambda a: a.view([("x", float)]), "must be numbers, not records"),
    "dates": (lambda a: a.astype("M8[s]"), "must be numbers, not dates"),
    "None": (lambda a: None, "must be numbers, not a NoneType"),
    "a mapping": (lambda a: {"x": a}, "must be numbers, not a dict"),
    "a list with a tensor without data": (
        lambda a: [a[0], torch.empty(a.shape[1:], device="meta")], "is a tensor without data",
    ),
    "a file's name": (lambda a: "map.npz", "must be numbers, not 'map.npz'"),
    "ragged": (lambda a: [a.ravel()[:1], a.ravel()[:2]], "holds arrays of different shapes"),
    "a strange mask": (
        lambda a: NDData(a, mask=np.zeros(a.shape)), "a mask of type ndarray",
    ),
}  # fmt: skip


def said(error: BaseException) -> str:
    """A refusal: one sentence."""
    text = str(error)
    assert "\n" not in text and "Error" not in text and len(text) < 400
    return text


# Cubes.


def cube() -> Array:
    return np.arange(1.0, 25.0).reshape(SHAPE)


def observed(given: Any, **sections: Any) -> Array:
    return observe(given, small.config(**{**CONFIG, **sections})).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_cubes_of_every_kind(kind: str) -> None:
    np.testing.assert_array_equal(observed(KINDS[kind](cube())), cube().astype(np.float32))


@pytest.mark.parametrize("kind", REFUSED_KINDS)
def test_cubes_of_no_numbers(kind: str) -> None:
    make, message = REFUSED_KINDS[kind]
    with pytest.raises(ValueError, match=f"^observe: the cube .*{message}") as caught:
        observed(make(cube()))
    said(caught.value)


K, JY_SR = units.K, units.Jy / units.sr
TO_UK = 1e3 * SOURCE_UK / NU_GHZ**2
"""uK per Jy/sr."""


@dataclass(frozen=True)
class Unit:
    """A unit of a map, and what a number is worth in each of the grid's."""

    unit: Any
    uK: Any
    Jy_sr: Any


UNITS = {
    "uK": Unit(units.uK, 1.0, 1.0 / TO_UK),
    "mK": Unit(units.mK, 1e3, 1e3 / TO_UK),
    "K": Unit(K, 1e6, 1e6 / TO_UK),
    "Jy/sr": Unit(JY_SR, TO_UK, 1.0),
    "MJy/sr": Unit(units.MJy / units.sr, 1e6 * TO_UK, 1e6),
    "W/m2/Hz/sr": Unit(units.W / units.m**2 / units.Hz / units.sr, 1e26 * TO_UK, 1e26),
}
CARRIERS: dict[str, Callable[[Array, Any], Any]] = {
    "Quantity": lambda a, u: a * u,
    "float32": lambda a, u: a.astype(np.float32) * u,
    "Column": lambda a, u: Column(a, unit=u),
    "MaskedColumn": lambda a, u: MaskedColumn(a, unit=u),
    "Masked": lambda a, u: Masked(a * u),
    "CCDData": lambda a, u: CCDData(a, unit=u),
    "list": lambda a, u: list(a * u),
    "text": lambda a, u: Pint(a, str(u)),
}


@pytest.mark.parametrize("grid_units", ["uK", "Jy/sr"])
@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("name", UNITS)
def test_units_of_cubes(name: str, carrier: str, grid_units: str) -> None:
    unit = UNITS[name]
    given = CARRIERS[carrier](cube(), unit.unit)
    factor = unit.uK if grid_units == "uK" else unit.Jy_sr
    found = observed(given, grid={**CONFIG["grid"], "units": grid_units})
    np.testing.assert_allclose(found, cube() * factor, rtol=3e-7)


def test_a_batch_in_intensity() -> None:
    batch = np.stack([cube(), 2.0 * cube()])
    np.testing.assert_allclose(observed(batch * JY_SR), batch * TO_UK, rtol=3e-7)


@pytest.mark.parametrize(
    "unit", ["", "Jy", "Jy/beam", "K km/s", "erg/s", "deg_C", "mag", "solLum", "Jy/arcmin"]
)
def test_units_that_are_no_maps(unit: str) -> None:
    sentence = "dimensionless" if not unit else "in '"
    with pytest.raises(ValueError, match=f"the cube is {sentence}.* and is due in uK") as caught:
        observed(cube() * units.Unit(unit))
    said(caught.value)


def test_units_that_are_unknown() -> None:
    for given in (Column(cube(), unit=units.Unit("K_CMB", parse_strict="silent")),
                  Pint(cube(), "microkelvin_cmb")):  # fmt: skip
        with pytest.raises(ValueError, match=r"the cube is in '.*' and is due in uK"):
            observed(given)
    with pytest.raises(ValueError, match="some entries in 'K' and some without a unit"):
        observed([cube()[0] * K, cube()[1]])


HOLE = np.zeros(SHAPE, bool)
HOLE[:, 0, 1] = True
MASKED: dict[str, Callable[[Array], Any]] = {
    "NumPy": lambda a: np.ma.masked_array(a, HOLE),
    "NumPy, integers": lambda a: np.ma.masked_array(a.astype(int), HOLE, fill_value=-999),
    "NumPy, objects": lambda a: np.ma.masked_array(a.astype(object), HOLE),
    "a list": lambda a: [np.ma.masked_array(part, HOLE[0]) for part in a],
    "MaskedColumn": lambda a: MaskedColumn(a, mask=HOLE),
    "MaskedColumn with a unit": lambda a: MaskedColumn(a * 1e-3, mask=HOLE, unit=units.mK),
    "Masked": lambda a: Masked(a * units.uK, mask=HOLE),
    "CCDData": lambda a: CCDData(a, unit=units.uK, mask=HOLE),
    "NDData": lambda a: NDData(a, mask=HOLE),
    "NDData of a masked array": lambda a: NDData(np.ma.masked_array(a, HOLE)),
    "NaN": lambda a: np.where(HOLE, np.nan, a),
    "None": lambda a: np.where(HOLE, None, a),
    "infinity": lambda a: np.where(HOLE, np.inf, a),
    "too large for float32": lambda a: np.where(HOLE, 1e39, a),
}


@pytest.mark.parametrize("kind", MASKED)
@pytest.mark.filterwarnings("ignore::streamtrain.schema.AssumptionWarning")
def test_masks_of_cubes(kind: str, tmp_path: Any) -> None:
    """What lies under a mask is no value: the operator `mask` removes it, or it is refused."""
    for below in (99.0, -1.0):
        given = MASKED[kind](np.where(HOLE, below, cube()))
        with pytest.raises(ValueError, match="2 of the cube's 24 voxels are NaN or inf") as caught:
            observed(given)
        said(caught.value)
        np.savez(tmp_path / "keep.npz", mask=~HOLE[0])
        kept = observed(given, observe={"mask": {"file": str(tmp_path / "keep.npz")}})
        np.testing.assert_allclose(kept, np.where(HOLE, 0.0, cube()), rtol=1e-7)


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((4, 3, 2), r"; with its axes in the order \(2, 1, 0\) it would fit$"),
        ((2, 4, 3), r"; with its axes in the order \(0, 2, 1\) it would fit$"),
        ((2, 3), "if there is one$"),
        ((24,), "if there is one$"),
        ((), "if there is one$"),
        ((0,), "if there is one$"),
        ((2, 3, 5), "if there is one$"),
        ((1, 1, 2, 3, 4), "if there is one$"),
    ],
)
@pytest.mark.parametrize("make", [np.ones, torch.ones, lambda shape: np.ones(shape) * K])
def test_shapes_of_cubes(make: Any, shape: tuple[int, ...], hint: str) -> None:
    text = re.escape(f"the cube has shape {shape}, config.grid.shape is (2, 3, 4)") + ".*" + hint
    with pytest.raises(ValueError, match=text) as caught:
        observed(make(shape))
    said(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1.5}, "the seed must be a whole number, not 1.5"),
        ({"seed": float("nan")}, "the seed must be a whole number, not nan"),
        ({"seed": -1}, "seed -1 is outside"),
        ({"seed": "1"}, "the seed must be a whole number, not '1'"),
        ({"noise_seed": 0.5}, "the seed must be a whole number"),
        ({"index": 1.0}, "observe: index must be a whole number, not 1.0"),
        ({"index": None}, "observe: index must be a whole number, not None"),
        ({"index": [1.0]}, "a sample index must be a whole number, not 1.0"),
        ({"index": np.array([1.0])}, "a sample index must be a whole number, not np.float64"),
        ({"index": "7"}, "a sample index must be a whole number, not '7'"),
        ({"config": "comap.yaml"}, "config must be what load_config returns, not a str"),
        ({"config": {"observe": {}}}, "config must be what load_config returns, not a dict"),
    ],
)
def test_other_arguments(options: dict[str, Any], message: str) -> None:
    settings = {"config": small.config(**CONFIG, observe={"noise": {}})} | options
    with pytest.raises(ValueError, match=message) as caught:
        observe(cube(), **settings)
    said(caught.value)


# Halos.


def halos() -> dict[str, Any]:
    sky = small.lightcone(num=24)
    return {
        "x_Mpc": sky.x_Mpc, "y_Mpc": sky.y_Mpc, "z_Mpc": sky.z_Mpc, "z_obs": sky.z_obs,
        "mass_Msun": sky.mass_Msun, "cosmology": sky.cosmology,
        "footprint_deg": sky.footprint_deg,
    }  # fmt: skip


PLAIN = Lightcone.from_arrays(**halos())
MASS = 2.0 ** np.arange(30, 54)


def of_masses(mass: Any, **changes: Any) -> Array:
    """Masses of a lightcone, in the order of the rows that were given."""
    given = halos() | changes
    given["columns"] = {"row": np.arange(24)}
    sky = Lightcone.from_arrays(**(given | {"mass_Msun": mass}), sure_of_mass=True)
    found = np.empty(24, np.float32)
    found[sky.columns["row"].astype(int)] = sky.mass_Msun
    return found


@pytest.mark.parametrize("kind", [*KINDS, "Series"])
def test_masses_of_every_kind(kind: str) -> None:
    small_ones = np.arange(1.0, 25.0)
    given = Series(small_ones) if kind == "Series" else KINDS[kind](small_ones)
    np.testing.assert_array_equal(of_masses(given), small_ones.astype(np.float32))


@pytest.mark.parametrize("kind", REFUSED_KINDS)
def test_masses_of_no_numbers(kind: str) -> None:
    make, message = REFUSED_KINDS[kind]
    with pytest.raises(CatalogError, match=f"^mass_Msun .*{message}") as caught:
        of_masses(make(MASS))
    said(caught.value)


H = PLAIN.cosmology["h"]
LITTLE_H = of_cosmology.littleh


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize(
    ("unit", "worth"),
    [
        (units.Msun, 1.0),
        (1e10 * units.Msun, 1e10),
        (units.Mjup, units.Mjup.to(units.Msun)),
        (units.Msun / LITTLE_H, 1.0 / H),
        (1e10 * units.Msun / LITTLE_H, 1e10 / H),
    ],
)
def test_units_of_masses(carrier: str, unit: Any, worth: float) -> None:
    given = CARRIERS[carrier](MASS / worth, units.Unit(unit))
    if carrier == "text" and "littleh" in str(unit):  # which astropy does not read in a text
        with pytest.raises(CatalogError, match=r"mass_Msun is in '.*littleh' and is due in Msun"):
            of_masses(given)
        return
    np.testing.assert_allclose(of_masses(given), MASS, rtol=3e-7)


@pytest.mark.parametrize(
    ("name", "unit", "worth"),
    [
        ("x_Mpc", units.kpc, 1e-3),
        ("y_Mpc", units.Mpc / LITTLE_H, 1.0 / H),
        ("z_Mpc", units.m, 1.0 / units.Mpc.to(units.m)),
        ("z_obs", of_cosmology.redshift, 1.0),
        ("z_obs", units.dimensionless_unscaled, 1.0),
        ("z_obs", units.percent, 0.01),
        ("mass_Msun", units.dex(units.Msun), None),
    ],
)
def test_units_of_halos(name: str, unit: Any, worth: float | None) -> None:
    given = halos()
    plain = given[name].astype(float)
    given[name] = units.Dex(np.log10(plain), unit) if worth is None else plain / worth * unit
    sky = Lightcone.from_arrays(**given)
    np.testing.assert_allclose(getattr(sky, name), getattr(PLAIN, name), rtol=3e-7)


def test_units_of_what_comes_with_the_halos() -> None:
    rate, speed = np.arange(1.0, 25.0), np.arange(72.0).reshape(24, 3)
    plain = halos() | {"columns": {"sfr": rate}, "velocities_kms": speed}
    given = halos() | {
        "columns": {"sfr": (rate * units.Msun / units.yr).to(units.kg / units.s)},
        "velocities_kms": speed * 1e3 * units.m / units.s,
        "min_mass_Msun": 1e41 * units.kg,
        "footprint_deg": np.array(PLAIN.footprint_deg) * 60 * units.arcmin,
    }
    first, second = Lightcone.from_arrays(**plain), Lightcone.from_arrays(**given)
    np.testing.assert_allclose(second.columns["sfr"], first.columns["sfr"], rtol=1e-6)
    np.testing.assert_allclose(second.velocities_kms, first.velocities_kms, rtol=1e-6)
    assert second.footprint_deg == pytest.approx(first.footprint_deg)
    assert second.min_mass_Msun == pytest.approx(1e41 / units.Msun.to(units.kg))


ONE = np.arange(24) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mass_Msun": MASS * units.K}, "mass_Msun is in 'K' and is due in Msun: convert"),
        ({"mass_Msun": MASS * units.one}, "mass_Msun is dimensionless and is due in Msun"),
        ({"mass_Msun": Column(MASS, unit="Msun/h")}, "mass_Msun is in 'solMass / h' and is due"),
        ({"x_Mpc": np.ones(24) * units.deg}, "x_Mpc is in 'deg' and is due in Mpc"),
        ({"z_obs": np.ones(24) * units.Mpc}, "z_obs is in 'Mpc' and is due without a unit"),
        ({"columns": {"age": np.ones(24) * units.Gyr}}, "column 'age' is in 'Gyr' and is due w"),
        ({"columns": [np.ones(24)]}, "columns must be a mapping of arrays, not list"),
        ({"mass_Msun": np.ma.masked_array(MASS, ONE)}, "mass_Msun has 1 masked entries of 24"),
        ({"z_obs": Masked(np.ones(24), mask=ONE)}, "z_obs has 1 masked entries of 24: leave"),
        ({"y_Mpc": MaskedColumn(np.ones(24), mask=ONE, unit="Mpc")}, "y_Mpc has 1 masked entr"),
        ({"mass_Msun": Series(np.where(ONE, None, MASS))}, "mass_Msun has 1 masked entries"),
        ({"columns": {"sfr": np.ma.masked_array(MASS, ONE)}}, "column 'sfr' has 1 masked"),
        ({"velocities_kms": np.ma.masked_less(np.eye(24)[:, :3], 1)}, "velocities_kms has 69 m"),
        ({"mass_Msun": [*MASS[:-1], np.ma.masked]}, "mass_Msun has 1 masked entries of 24"),
        ({"mass_Msun": np.where(ONE, np.nan, MASS)}, "mass_Msun = nan at row 5 .1 such"),
        ({"mass_Msun": np.where(ONE, -1.0, MASS)}, "mass_Msun = -1 at row 5 .1 such values.: mas"),
        ({"mass_Msun": np.full(24, np.inf, np.float16)}, "mass_Msun = inf at row 0 .24 such val"),
        ({"mass_Msun": np.full(24, 1e40)}, "this looks like masses in g or kg .*sure_of_mass=True"),
        ({"mass_Msun": MASS * 1.98841e30}, "this looks like masses in g or kg"),
        ({"mass_Msun": np.log10(MASS)}, r"from 9\.\d+ to 15.* log10 of masses .*sure_of_mass"),
        ({"mass_Msun": MASS / 1e10}, "masses in 1e10 Msun"),
        ({"mass_Msun": np.full(24, 1e40), "sure_of_mass": True}, "mass_Msun = inf at row 0"),
        ({"mass_Msun": MASS[:, None]}, r"mass_Msun has shape \(24, 1\)"),
        ({"mass_Msun": 1e12}, r"mass_Msun has shape \(1,\)"),
        ({"mass_Msun": []}, r"mass_Msun has shape \(0,\)"),
        ({"mass_Msun": Series(MASS, range(1, 25)), "z_obs": Series(halos()["z_obs"])},
         "z_obs has another index than mass_Msun: bring the rows into one order"),
        ({"mass_Msun": Series(MASS), "columns": {"sfr": Series(MASS, range(24)[::-1])}},
         "column 'sfr' has another index than mass_Msun"),
        ({"cosmology": None}, "cosmology must be a mapping with Omega_m, .* not NoneType"),
        ({"min_mass_Msun": float("nan")}, "min_mass_Msun = nan is not a finite number"),
        ({"min_mass_Msun": "1e10"}, "min_mass_Msun must be numbers, not '1e10'"),
        ({"min_mass_Msun": 1e10 * units.K}, "min_mass_Msun is in 'K' and is due in Msun"),
        ({"z_range": 3.0}, r"z_range must be \(low, high\), not 3.0"),
        ({"footprint_deg": (0, 1)}, r"footprint_deg must be \(ra_min, .*, not \[0, 1\]"),
    ],
)  # fmt: skip
def test_halos_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CatalogError, match=message) as caught:
        Lightcone.from_arrays(**(halos() | changes))
    said(caught.value)


def test_odd_masses_that_the_user_is_sure_of() -> None:
    sky = Lightcone.from_arrays(**(halos() | {"mass_Msun": MASS / 1e10}), sure_of_mass=True)
    np.testing.assert_array_equal(
        sky.mass_Msun.astype(np.float64).min(), np.float32(MASS[0] / 1e10)
    )


def test_rows_of_one_index_are_read_by_place() -> None:
    order = range(24)[::-1]
    given = {n: Series(a, order) for n, a in halos().items() if n.startswith(("x", "y", "z_"))}
    sky = Lightcone.from_arrays(**(halos() | given | {"mass_Msun": PLAIN.mass_Msun}))
    plain = Lightcone.from_arrays(**(halos() | {"mass_Msun": PLAIN.mass_Msun}))
    assert sky.digest == plain.digest
