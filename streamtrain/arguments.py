"""Arrays and numbers that a caller hands over: their unit, their mask, their type.

What NumPy would drop without a word (the unit of an astropy Quantity, the mask of a masked array,
the imaginary part of a number) is used or refused. astropy is imported only for an object that has
a unit.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NO_NUMBERS = {
    "b": "truth values",
    "c": "complex numbers",
    "S": "text",
    "U": "text",
    "V": "records",
    "M": "dates",
    "m": "time differences",
}


@dataclass(frozen=True)
class Given:
    """Numbers as a caller hands them over."""

    values: NDArray[Any]
    """Floats or integers of any size and byte order; under the mask anything."""
    where: str
    """What they are, for messages."""
    masked: NDArray[np.bool_] | None = None
    """Which of them are masked, of the same shape; None: not one."""
    unit: Any = None
    """The unit of the values, astropy's or a text; None where they carry none."""

    def to(self, unit: str, equivalencies: Sequence[Any] = ()) -> NDArray[Any]:
        """The numbers in `unit` ("" is dimensionless); those without a unit as they are.

        equivalencies: astropy's. Raises ValueError, one sentence, where there is no way from their
        unit to this one.
        """
        if self.unit is None or str(self.unit) == unit:
            return self.values
        own = f"in '{self.unit}'" if str(self.unit) else "dimensionless"
        sentence = f"{self.where} is {own} and is due {f'in {unit}' if unit else 'without a unit'}"
        try:
            from astropy import units

            known, ways = units.Unit(self.unit), [*equivalencies, *_of_redshift(self.unit)]
            return np.asarray(known.to(units.Unit(unit), self.values, ways))
        except ImportError:
            raise ValueError(f"{sentence}; astropy, which converts units, is missing") from None
        except (ValueError, TypeError, AttributeError):
            raise ValueError(f"{sentence}: convert it, or pass plain numbers") from None

    @property
    def num_masked(self) -> int:
        """How many numbers are masked."""
        return 0 if self.masked is None else int(np.count_nonzero(self.masked))


def _of_redshift(unit: Any) -> Sequence[Any]:
    """Redshifts are numbers, where astropy has a unit for them."""
    if "redshift" not in str(unit):
        return ()
    from astropy.cosmology import units as of_cosmology

    return list(of_cosmology.dimensionless_redshift())


def little_h(given: Given, h: float) -> Sequence[Any]:
    """astropy's equivalencies that turn Mpc/h into Mpc, where the unit has an h."""
    if "littleh" not in str(given.unit):
        return ()
    from astropy import units
    from astropy.cosmology import units as of_cosmology

    return list(of_cosmology.with_H0(100.0 * h * units.km / units.s / units.Mpc))


def given_numbers(values: Any, where: str) -> Given:
    """What an array-like holds: list, NumPy or masked array, torch tensor, pandas Series, astropy
    Quantity, Column or Masked.

    Raises ValueError, one sentence that begins with `where`, for what is no array of real numbers.
    """
    if isinstance(values, list | tuple) and not all(map(_is_plain, values)):
        return _of_parts(values, where)
    unit = _unit(values)
    masked = _mask(values, where)
    values = _array(getattr(values, "unmasked", values), where)
    if masked is not None and masked.shape != values.shape:
        try:
            masked = np.broadcast_to(masked, values.shape)
        except ValueError:
            raise ValueError(
                f"{where} has the shape {values.shape} and a mask of shape {masked.shape}"
            ) from None
    if values.dtype.kind == "O":
        values = _of_objects(values, masked, where)
    if values.dtype.kind not in "fiu":
        raise ValueError(
            f"{where} must be numbers, not {_NO_NUMBERS.get(values.dtype.kind, values.dtype)}"
        )
    return Given(values, where, masked if masked is not None and masked.any() else None, unit)


def given_cube(values: Any, where: str) -> Given:
    """What an array-like of a map holds, see `given_numbers`, from high to low frequency and from
    low to high dec and ra. Raises ValueError, one sentence, also for an object with coordinates of
    its own, such as an HDU of astropy, which would be left aside."""
    header: Any = getattr(values, "header", None)
    if getattr(values, "wcs", None) is not None or (hasattr(header, "keys") and len(header)):
        raise ValueError(
            f"{where} is of the type {type(values).__name__}, with a header or coordinates of its "
            "own that are not read here: pass the name of its file where one is taken, or its "
            "array (.data), from high to low frequency and from low to high dec and ra"
        )
    return given_numbers(values, where)


def all_numbers(values: Any, where: str) -> NDArray[np.float64]:
    """Numbers without a unit, none of them masked, as float64. Raises ValueError, one sentence, for
    anything else."""
    given = given_numbers(values, where)
    if given.num_masked:
        raise ValueError(f"{where}: {given.num_masked} are masked, and so have no value")
    return np.asarray(given.to(""), np.float64)


def number(value: Any, where: str, unit: str = "") -> float:
    """One finite number in `unit`. Raises ValueError, one sentence, for anything else."""
    if type(value) is not float and type(value) is not int:
        given = given_numbers(value, where)
        if given.values.ndim or given.num_masked:
            shape = "masked" if given.num_masked else f"an array of shape {given.values.shape}"
            raise ValueError(f"{where} must be one number, not {shape}")
        value = given.to(unit)
    try:
        found = float(value)
    except OverflowError:
        found = np.inf
    if not np.isfinite(found):
        raise ValueError(f"{where} = {found:g} is not a finite number")
    return found


def numbers(values: Any, where: str, form: str, unit: str = "") -> tuple[float, ...]:
    """As many finite numbers in `unit` as `form`, like "(ra, dec)", has names. Raises ValueError,
    one sentence, for anything else."""
    given = given_numbers(values, where)
    if given.values.shape != (form.count(",") + 1,) or given.num_masked:
        shown = "masked" if given.num_masked else given.values.tolist()
        raise ValueError(f"{where} must be {form}, not {shown}")
    return tuple(number(float(v), where) for v in given.to(unit))


def ra_dec(value: Any, where: str) -> tuple[float, float]:
    """(ra, dec) [deg]. Raises ValueError, one sentence, for anything else, and for a dec beyond a
    pole."""
    ra, dec = numbers(value, where, "(ra, dec)", "deg")
    if abs(dec) > 90.0:
        raise ValueError(f"{where} = ({ra:g}, {dec:g}): its dec lies beyond a pole")
    return ra, dec


def whole_number(value: Any, where: str) -> int:
    """One whole number. Raises ValueError, one sentence, for anything else."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return int(value.__index__())
    except (TypeError, AttributeError):
        raise ValueError(f"{where} must be a whole number, not {value!r}") from None


def truth_value(value: Any, where: str) -> bool:
    """True or False. Raises ValueError, one sentence, for anything else."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{where} must be True or False, not {value!r}")
    return bool(value)


def _of_parts(values: Sequence[Any], where: str) -> Given:
    """A list of arrays, each of which may have a unit and a mask."""
    parts = [given_numbers(v, where) for v in values]
    unit = next((p.unit for p in parts if p.unit is not None), None)
    if unit is not None and any(p.unit is None for p in parts):
        raise ValueError(f"{where} has some entries in '{unit}' and some without a unit")
    shapes = {p.values.shape for p in parts}
    if len(shapes) > 1:
        raise ValueError(f"{where} holds arrays of different shapes")
    if not parts:
        return Given(np.zeros(0), where)
    masked = None
    if any(p.num_masked for p in parts):
        none = np.zeros(parts[0].values.shape, bool)
        masked = np.stack([none if p.masked is None else p.masked for p in parts])
    same = [p.values if unit is None else p.to(str(unit)) for p in parts]
    return Given(np.stack(same), where, masked, unit)


def _is_plain(value: Any) -> bool:
    """Whether it is a number without a unit or mask."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _unit(values: Any) -> Any:
    """The unit that an object carries, if it does."""
    for name in ("unit", "units"):  # of astropy; of pint, unyt, xarray
        unit = getattr(values, name, None)
        if unit is not None and not inspect.isroutine(unit):
            return unit if name == "unit" else str(unit)
    return None


def _mask(values: Any, where: str) -> NDArray[np.bool_] | None:
    """Which entries of an object have no value by its own account."""
    if hasattr(values, "get_mask"):  # torch.masked: True is valid
        return ~np.asarray(values.get_mask().cpu())
    mask = getattr(values, "mask", None)
    if callable(mask):  # a method of pandas
        mask = values.isna() if hasattr(values, "isna") else None
    if mask is None or mask is np.ma.nomask:
        return None
    found = np.asarray(mask)
    if found.dtype != np.bool_:
        raise ValueError(
            f"{where} has a mask of type {type(mask).__name__}, not of True and False: "
            "pass a numpy.ma.MaskedArray"
        )
    return found


def _array(values: Any, where: str) -> NDArray[Any]:
    """The numbers of an object, without its unit and mask."""
    if hasattr(values, "get_data") and hasattr(values, "get_mask"):
        values = values.get_data()
    if hasattr(values, "detach"):  # a tensor
        if getattr(values, "is_meta", False):
            raise ValueError(f"{where} is a tensor without data, on the device meta")
        values = values.detach().cpu()
        values = values if str(values.layout) == "torch.strided" else values.to_dense()
        if "bfloat16" in str(values.dtype) or "float8" in str(values.dtype):
            values = values.float()
    elif hasattr(values, "magnitude"):  # of pint
        values = values.magnitude
    elif isinstance(values, np.ndarray):
        return values.view(np.ndarray)
    elif isinstance(getattr(values, "data", None), np.ndarray):
        return np.asarray(values.data)
    if isinstance(values, Mapping | set | str | bytes) or values is None:
        raise ValueError(f"{where} must be numbers, not {_shown(values)}")
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{where} is not an array of numbers ({error})") from None


def _of_objects(
    values: NDArray[Any], masked: NDArray[np.bool_] | None, where: str
) -> NDArray[np.float64]:
    """Python's numbers, one by one."""
    copy = values.copy()
    if masked is not None:
        copy[masked] = np.nan
    for value in copy.flat:
        if isinstance(value, str | bytes | bool | np.bool_ | complex) or _unit(value) is not None:
            raise ValueError(f"{where} must be numbers, not {_shown(value)}")
    try:
        return copy.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        kinds = sorted({type(value).__name__ for value in copy.flat})
        raise ValueError(f"{where} must be numbers, not {', '.join(kinds)}") from None


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str | bytes) else f"a {type(value).__name__}"
