"""The pickled dict of numbers in a limlam_mocker npz, read without unpickling.

Unpickling can run any program, so that pickle is never loaded: a parser reads the few inert
opcodes of which a dict of numbers consists, builds nothing but strings, numbers and tuples, and
refuses the rest.
"""

from __future__ import annotations

import pickletools
import warnings
from typing import IO, Any

import numpy as np

from streamtrain.catalogs.lightcone import CatalogError

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
