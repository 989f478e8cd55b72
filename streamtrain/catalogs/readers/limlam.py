"""The npz layout of limlam_mocker and Peak Patch.

Keys x, y, z [comoving Mpc], M [Msun], zhalo (observed redshift), and optionally vx, vy, vz [km/s];
every further array with one number per halo (zform, sfr) becomes a column. Without zhalo the
redshift is that of the distance with the velocity along the line of sight. The cosmology is
`cosmo_header_json` or the original `cosmo_header`, a pickled dict.

Unpickling can run any program, so that pickle is never loaded: `read_pickled_header` reads the few
inert opcodes of which a dict of numbers consists, builds nothing but strings, numbers and tuples,
and refuses the rest.
"""

from __future__ import annotations

import json
import os
import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.readers.halos import (
    PARAMETERS,
    Halos,
    merged_cosmology,
    observed_redshift,
    reading,
)
from streamtrain.catalogs.readers.view import FORWARD, View, check_direction, check_no_cube
from streamtrain.catalogs.rows import mass_problem
from streamtrain.cosmology import Cosmology
from streamtrain.machine.files import check_npz, one_line, sha256

_NEEDED_KEYS = ("x", "y", "z", "M")
_HALO_KEYS = (*_NEEDED_KEYS, "zhalo")
_VELOCITY_KEYS = ("vx", "vy", "vz")
_COSMOLOGY = {
    "Omega_M": "Omega_m",
    "Omega_B": "Omega_b",
    "h": "h",
    "ns": "n_s",
    "sigma8": "sigma8",
}


def read_npz(
    path: str | os.PathLike[str],
    *,
    realisation: str | None = None,
    cosmology: Mapping[str, float] | None = None,
    view: View = FORWARD,
) -> Lightcone:
    """A limlam_mocker or Peak Patch catalog as a lightcone, seen as `view` says; `cosmology`
    (Omega_m, Omega_b, h, n_s, sigma8) adds what its header lacks.

    Two cuts of one simulated sky must be given the same `realisation`; the default is derived from
    the content. Raises `CatalogError` for a file that is missing, damaged, incomplete, or holds a
    pickle of anything but a dict of numbers.
    """
    path = Path(path)
    with reading(path, "an npz file"):
        with zipfile.ZipFile(path) as archive:
            check_npz(archive)
            arrays, header = _read_members(archive)
        return _lightcone(path, arrays, header, realisation, cosmology, view)


def _lightcone(
    path: Path,
    arrays: dict[str, NDArray[Any]],
    header: dict[str, float],
    realisation: str | None,
    given: Mapping[str, float] | None,
    view: View,
) -> Lightcone:
    centre = [header.get(f"cen_{axis}_fov", 0.0) for axis in "xy"]
    note = f", field centre {centre[0]:g}, {centre[1]:g} deg" if any(centre) else ""
    cosmology = _cosmology(header, given)
    added = [name for name in given or {} if name not in _stated(header)]
    note += f", {', '.join(added)} as given, not in the file" if added else ""
    position = _positions(arrays)
    mass = arrays.pop("M")
    moving = [key in arrays for key in _VELOCITY_KEYS]
    if any(moving) and not all(moving):
        raise CatalogError("of vx, vy, vz all or none must be there")
    parts = [arrays.pop(key) for key in _VELOCITY_KEYS] if all(moving) else None
    velocities = None if parts is None else np.stack(parts, axis=-1)
    position, velocities, turned = view.turned(position, velocities)
    note += "".join(f"; {text}" for text in turned)
    if "zhalo" not in arrays and view.observer_Mpc is None:
        check_no_cube(position)
    check_direction(position)
    if "zhalo" in arrays:
        redshift = arrays.pop("zhalo")
    else:
        halos = Halos(position, mass, velocities)
        halos.check()
        redshift = observed_redshift(halos, Cosmology.from_dict(cosmology))
        note += "; without zhalo: z_obs from the distance" + (
            ", without peculiar velocities"
            if velocities is None
            else " and vx, vy, vz [km/s], z_cos + (1 + z_cos) v_los/c"
        )
    if mass.size and (problem := mass_problem(mass)):
        raise CatalogError(problem)
    return Lightcone.from_arrays(
        position[:, 0],
        position[:, 1],
        position[:, 2],
        mass,
        redshift,
        cosmology=cosmology,
        velocities_kms=velocities,
        columns={key: a for key, a in arrays.items() if a.shape == mass.shape},
        provenance=f"limlam_mocker npz {path.name}, sha256 {sha256(path)}{note}",
        realisation=realisation,
        sure_of_mass=True,
    )


def _positions(arrays: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """x, y, z taken out of the arrays as [n, 3]."""
    shapes = {key: arrays[key].shape for key in _NEEDED_KEYS}
    if len(set(shapes.values())) > 1 or len(shapes["x"]) != 1:
        raise CatalogError(
            "arrays of different shape: "
            + ", ".join(f"{key} has shape {shape}" for key, shape in shapes.items())
        )
    return np.stack([arrays.pop(axis) for axis in "xyz"], axis=-1)


def _read_members(archive: zipfile.ZipFile) -> tuple[dict[str, NDArray[Any]], dict[str, float]]:
    """Numeric arrays by key, and the header dict."""
    names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise CatalogError(f"holds {', '.join(twice)} more than once")
    missing = [key for key in _NEEDED_KEYS if key not in names]
    if missing:
        raise CatalogError(
            f"lacks {', '.join(missing)}; a limlam_mocker catalog has {', '.join(_HALO_KEYS)}, "
            f"this file has {one_line(', '.join(names))}; --columns reads a table of other names"
        )
    header: dict[str, float]
    if "cosmo_header_json" in names:
        with archive.open("cosmo_header_json.npy") as file:
            text = str(np.lib.format.read_array(file, allow_pickle=False)[()])
        try:
            header = numbers(json.loads(text))
        except json.JSONDecodeError as error:
            raise CatalogError(f"cosmo_header_json is not JSON ({error})") from error
    elif "cosmo_header" in names:
        with archive.open("cosmo_header.npy") as file:
            header = read_pickled_header(file)
    else:
        header = {}
    arrays = {}
    for name in names:
        if name.startswith("cosmo_header"):
            continue
        with archive.open(f"{name}.npy") as file:
            shape, dtype = npy_header(file)
        if dtype.kind in "fiu" and (len(shape) == 1 or name in _HALO_KEYS):
            with archive.open(f"{name}.npy") as file:
                arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
        elif name in _HALO_KEYS:
            raise CatalogError(f"{name} holds no real numbers (its type is {dtype})")
    return arrays, header


def _stated(header: Mapping[str, float]) -> dict[str, float]:
    """The parameters of a header, by our names."""
    return {ours: header[theirs] for theirs, ours in _COSMOLOGY.items() if theirs in header}


def _cosmology(header: Mapping[str, float], given: Mapping[str, float] | None) -> dict[str, float]:
    both = merged_cosmology(_stated(header), given, complete=False)
    missing = [name for name in PARAMETERS if name not in both]
    if missing:
        add = f"add --cosmology {' '.join(f'{name}=...' for name in missing)}"
        if not header:
            raise CatalogError(f"has neither cosmo_header nor cosmo_header_json: {add}")
        theirs = next(theirs for theirs, ours in _COSMOLOGY.items() if ours == missing[0])
        raise CatalogError(
            f"cosmo_header lacks '{theirs}': {', '.join(_COSMOLOGY)} are needed, "
            f"it has {one_line(', '.join(header))}: {add}"
        )
    total = both["Omega_m"] + header.get("Omega_L", 1.0 - both["Omega_m"])
    if abs(total - 1.0) > 2e-3:
        raise CatalogError(f"the universe must be flat, but Omega_M + Omega_L = {total:g}")
    return both


MAX_HEADER_BYTES = 65536
"""A dict of ten numbers needs about 300 bytes."""

_MARK = object()
_NUMPY_CORE = ("numpy.core.multiarray", "numpy._core.multiarray")
_GLOBALS = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    **{(module, "_reconstruct"): "array" for module in _NUMPY_CORE},
    **{(module, "scalar"): "scalar" for module in _NUMPY_CORE},
}
_NUMBER_VALUES = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
_TEXT_VALUES = ("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING")
_VALUES = (*_NUMBER_VALUES, *_TEXT_VALUES, "BINBYTES", "SHORT_BINBYTES")
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Call:
    """What a pickle asks to be called: kept as a record, never called."""

    def __init__(self, name: str, arguments: Any) -> None:
        self.name, self.arguments, self.state = name, arguments, None


class _Global(str):
    """A name out of `_GLOBALS`."""


def read_pickled_header(file: IO[bytes]) -> dict[str, float]:
    """The dict of numbers in a pickled 0-d npy object array, read without unpickling.

    `file` is at the start of the npy data. Raises `CatalogError` for any other content.
    """
    shape, dtype = npy_header(file)
    if dtype.hasobject is False or shape not in ((), (1,)):
        raise CatalogError(f"cosmo_header must be one dict, but has type {dtype}, shape {shape}")
    content = file.read(MAX_HEADER_BYTES + 1)
    if len(content) > MAX_HEADER_BYTES:
        raise CatalogError(f"cosmo_header is larger than {MAX_HEADER_BYTES} bytes: not a dict")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pickletools warns about odd escapes
            array = _inert_value(content)
        if array.name != "array":
            raise TypeError(array.name)
        (header,) = array.state[-1]
        items = header.items()
        return numbers({key: _plain(value) for key, value in items})
    except CatalogError:
        raise
    except (ArithmeticError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise CatalogError("cosmo_header is not a pickled dict of numbers") from error


def _inert_value(content: bytes) -> Any:
    """What a pickle describes, with every call left as a `_Call`."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        mark = max(i for i, value in enumerate(stack) if value is _MARK)
        values = stack[mark + 1 :]
        del stack[mark:]
        return values

    argument: Any
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            return stack.pop()
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            split = len(stack) - _TUPLES[name]
            stack[split:] = [tuple(stack[split:])]
        elif name == "TUPLE":
            values = since_mark()
            stack.append(tuple(values))
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "APPEND":
            value = stack.pop()
            stack[-1].append(value)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            stack[-1][_text(key)] = value
        elif name == "SETITEMS":
            values = since_mark()
            stack[-1].update(zip(map(_text, values[::2]), values[1::2], strict=True))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            if name == "GLOBAL":
                module, _, attribute = argument.partition(" ")
            else:
                attribute, module = stack.pop(), stack.pop()
            if (_text(module), _text(attribute)) not in _GLOBALS:
                called = f"{module}.{attribute}"[:80]
                raise CatalogError(f"cosmo_header's pickle wants to call {called}: refused")
            stack.append(_Global(_GLOBALS[module, attribute]))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            if not isinstance(function, _Global):
                raise CatalogError("cosmo_header's pickle calls something that is no function")
            stack.append(_Call(function, arguments))
        elif name == "BUILD":
            state = stack.pop()
            stack[-1].state = state
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        else:
            raise CatalogError(f"cosmo_header's pickle holds {name}, which a dict of numbers lacks")
    raise ValueError("no end")


def _text(value: Any) -> str:
    """A string that may be hashed (hashing nested tuples can take for ever)."""
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value


def _plain(value: Any) -> Any:
    """The number that a recorded numpy scalar stands for; other values unchanged."""
    if not isinstance(value, _Call) or value.name != "scalar":
        return value
    dtype, content = value.arguments
    if isinstance(content, _Call) and content.name == "encode":
        content = content.arguments[0].encode("latin1")  # bytes in a pickle of protocol 2
    elif isinstance(content, str):
        content = content.encode("latin1")  # bytes in a pickle of Python 2
    code = dtype.arguments[0]
    order = dtype.state[1] if dtype.state else "<"
    if dtype.name != "dtype" or code not in ("f8", "f4", "i8", "i4") or order not in "<>|=":
        raise CatalogError(f"cosmo_header holds a numpy scalar of type {str(code)[:20]!r}")
    return np.frombuffer(content, np.dtype(order.replace("=", "<") + code), count=1)[0].item()


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array of an npy file; `file` is left at its data."""
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise CatalogError(f"npy format version {version} is not known")
    shape, _, dtype = read_header(file)
    return shape, dtype


def numbers(header: object) -> dict[str, float]:
    """A header as a dict of numbers, or CatalogError."""
    if not isinstance(header, dict):
        raise CatalogError("cosmo_header is not a dict of numbers")
    for key, value in header.items():
        if not isinstance(key, str) or type(value) not in (int, float, bool):
            raise CatalogError(f"cosmo_header is not a dict of numbers (entry {str(key)[:40]!r})")
    return {key: float(value) for key, value in header.items()}
