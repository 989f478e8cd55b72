"""From a mapping to a typed, checked tree of dataclasses, and back; how two of them differ.

A section is a frozen dataclass; its fields are declared with `setting(default, help, ...)`. Errors
are one sentence: where, the offending value, what is allowed.
"""

from __future__ import annotations

import concurrent.futures.thread
import dataclasses
import difflib
import json
import math
import os
import sys
import threading
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from streamtrain.machine.files import one_line, reason_of

T = TypeVar("T")

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_THREADS = (threading.__file__, concurrent.futures.thread.__file__)

MAX_SHOWN = 60
"""Characters of a setting's value in the text of a difference."""


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is for the person who wrote it."""


class AssumptionWarning(UserWarning):
    """Something that the program had to assume; the message is one sentence."""


def warn(text: str, category: type[Warning] = AssumptionWarning) -> None:
    """Warn, in one sentence, at the line that called this package: in Python the user's own, where
    the warning can be silenced. Commands print a line of their own.

    In a thread that this package has started: the line where the main thread is.
    """
    frame = _outside(sys._getframe(1))
    if frame.f_code.co_filename in _THREADS:
        frame = sys._current_frames().get(threading.main_thread().ident or 0, frame)
        while frame.f_back is not None and not _is_ours(frame):  # it waits, somewhere in Python
            frame = frame.f_back
        frame = _outside(frame)
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    module = frame.f_globals.get("__name__", "<unknown>")
    file, line = frame.f_code.co_filename, frame.f_lineno
    warnings.warn_explicit(text, category, file, line, module, registry)


def _outside(frame: types.FrameType) -> types.FrameType:
    """The innermost frame that is not of this package, or else the outermost."""
    while frame.f_back is not None and _is_ours(frame):
        frame = frame.f_back
    return frame


def _is_ours(frame: types.FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_PACKAGE)


def setting(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[Any, ...] | None = None,
    later: bool = False,
) -> Any:
    """A field of a section: its default, one line of help, and the values allowed
    (low <= value <= high, value > above, or one of `choices`; sequences element by element).

    later: it was added to a section that runs of before have, whose digests must stay: plain data
    leave it out where it is null.
    """
    metadata: dict[str, Any] = {"help": help, "low": low, "high": high, "above": above}
    metadata |= {"choices": choices, "later": later}
    if isinstance(default, dict | list):
        frozen = default
        return dataclasses.field(default_factory=lambda: type(frozen)(frozen), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """Half a sentence that names the nearest valid name and all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}valid: {', '.join(names)}"


def build(cls: type[T], data: Any, where: str = "", default: Any = None) -> T:
    """Make the section `cls` from a mapping; `where` is its dotted name in messages.

    default: the section whose settings hold where `data` does not say them; without one, those of
    the class. Raises ConfigError for an unknown key, a missing one, a wrong type, a value out of
    range and whatever else the section refuses with a ValueError. What somebody may have meant by
    a wrong type or an unknown key the section's `meant` says, where it has one.
    """
    label = where or "the configuration"
    meant = getattr(cls, "meant", _nobody_knows)
    if data is None:
        data = {}
    if not isinstance(data, Mapping):
        such = meant("", data, where)
        raise ConfigError(f"{label} must be a mapping of settings{such}, not {shown(data)}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    held = {name: getattr(default, name) for name in fields} if isinstance(default, cls) else {}
    values: dict[str, Any] = {}
    for key, value in data.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in fields:
            known = nearest(str(key), fields)
            raise ConfigError(f"unknown setting '{path}': {known}{meant(str(key), value, where)}")
        kind = hints[key]
        if dataclasses.is_dataclass(kind):
            values[key] = build(typing.cast(type, kind), value, path, fields[key].default)
        else:
            try:
                values[key] = convert(value, kind, path)
            except ConfigError as error:
                raise ConfigError(f"{error}{meant(str(key), value, where)}") from None
        _check_range(values[key], fields[key].metadata, path)
    for name, field in fields.items():
        absent = field.default is dataclasses.MISSING
        if name not in held | values and absent and field.default_factory is dataclasses.MISSING:
            path = f"{where}.{name}" if where else name
            raise ConfigError(f"'{path}' is missing ({field.metadata.get('help', '')})")
    try:
        return cls(**held | values)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{where}.{error}" if where else str(error)) from None


def _nobody_knows(key: str, value: Any, where: str) -> str:
    """`meant` of a section that does not say."""
    return ""


def convert(value: Any, kind: Any, path: str) -> Any:
    """Check `value` against a type hint; a number written as text (YAML reads `1e-4` as text)
    becomes a number."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, args, path)
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"{path} = {shown(value)} is none of {', '.join(map(str, args))}")
        return value
    if dataclasses.is_dataclass(kind):
        return build(typing.cast(type, kind), value, path)
    if origin is tuple:
        return _convert_tuple(value, args, path)
    if origin is list:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{path} must be a list, not {shown(value)}")
        return [convert(v, args[0], f"{path}[{k}]") for k, v in enumerate(value)]
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} must be a mapping, not {shown(value)}")
        return {str(k): convert(v, args[1], f"{path}.{k}") for k, v in value.items()}
    return _convert_scalar(value, kind, path)


def _convert_scalar(value: Any, kind: Any, path: str) -> Any:
    if kind in (int, float) and isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ConfigError(f"{path} must be a number, not {shown(value)}") from None
    if kind in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
        return _convert_number(value, kind, path)
    if kind in (bool, str) and isinstance(value, kind):
        return value
    if kind is type(None) and value is None:
        return None
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    raise ConfigError(f"{path} must be {names.get(kind, 'empty')}, not {shown(value)}")


def _convert_number(value: int | float, kind: type, path: str) -> int | float:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path} = {value} is not a finite number")
    if kind is int:
        if value != int(value):
            raise ConfigError(f"{path} must be a whole number, not {shown(value)}")
        return int(value)
    try:
        return float(value)
    except OverflowError:
        raise ConfigError(f"{path} = {value} is too large") from None


def _convert_tuple(value: Any, args: tuple[Any, ...], path: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{path} must be a list, not {shown(value)}")
    if len(args) == 2 and args[1] is Ellipsis:
        args = (args[0],) * len(value)
    if len(value) != len(args):
        raise ConfigError(
            f"{path} must have {len(args)} entries, not {len(value)}: {shown(list(value))}"
        )
    return tuple(
        convert(v, a, f"{path}[{k}]") for k, (v, a) in enumerate(zip(value, args, strict=True))
    )


def _convert_union(value: Any, args: tuple[Any, ...], path: str) -> Any:
    if value is None and type(None) in args:
        return None
    first: ConfigError | None = None
    if kinds := _kinds(args):
        return build(_of_kind(value, kinds, path), value, path)
    if isinstance(value, Mapping) and any(map(dataclasses.is_dataclass, args)):
        args = tuple(kind for kind in args if dataclasses.is_dataclass(kind))
        args = tuple(kind for kind in args if _has_all(kind, value)) or args
    for kind in args:
        try:
            return convert(value, kind, path)
        except ConfigError as error:
            first = first or error
    assert first is not None
    if not isinstance(value, Mapping):
        others = [kind.meant("", value, path) for kind in args if hasattr(kind, "meant")]
        raise ConfigError(f"{first}{next(iter(others), '')}")
    raise first


def _has_all(section: Any, keys: Iterable[Any]) -> bool:
    """Whether every key is a setting of the section."""
    return set(keys) <= {field.name for field in dataclasses.fields(section)}


def _kinds(args: tuple[Any, ...]) -> dict[str, type]:
    """Sections by the default of their field `kind`, where all of a union have one."""
    kinds: dict[Any, type] = {}
    for section in args:
        fields = dataclasses.fields(section) if dataclasses.is_dataclass(section) else ()
        kinds |= {f.default: section for f in fields if f.name == "kind"}
    return kinds if len(kinds) == len(args) else {}


def _of_kind(value: Any, kinds: dict[str, type], path: str) -> type:
    """The section that `value` chooses by its `kind`; without one, the first."""
    given = value if isinstance(value, Mapping) else {}
    kind = given.get("kind", next(iter(kinds)))
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(f"{path}.kind = {shown(kind)} is none of {', '.join(kinds)}")
    names = {k: [f.name for f in dataclasses.fields(c)] for k, c in kinds.items()}
    for key in given:
        others = [k for k in kinds if key in names[k]]
        if key not in names[kind] and others:
            anew = f"; '{path}={{kind: {kind}}}' starts from its defaults"
            raise ConfigError(
                f"{path}.{key} belongs to {path}.kind = {' or '.join(others)}, not to {kind}, "
                f"which has: {', '.join(names[kind])}{anew if 'kind' in given else ''}"
            )
    return kinds[kind]


def _check_range(value: Any, metadata: Mapping[str, Any], path: str) -> None:
    if isinstance(value, tuple | list):
        for k, element in enumerate(value):
            _check_range(element, metadata, f"{path}[{k}]")
        return
    choices = metadata.get("choices")
    if choices is not None and value is not None and value not in choices:
        raise ConfigError(f"{path} = {shown(value)} is none of {', '.join(map(str, choices))}")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    if isinstance(value, int) and metadata.get("high") is None and value >= 2**63:
        raise ConfigError(f"{path} = {shown(value)} is too large: at most {2**63 - 1}")
    low, high, above = (metadata.get(k) for k in ("low", "high", "above"))
    if (low is not None and value < low) or (high is not None and value > high):
        raise ConfigError(f"{path} = {number_text(value)} is outside {_range_text(low, high)}")
    if above is not None and value <= above:
        raise ConfigError(f"{path} = {number_text(value)} must be above {number_text(above)}")


def _range_text(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"its range {number_text(low)}..{number_text(high)}"
    if low is not None:
        return f"its range (at least {number_text(low)})"
    assert high is not None
    return f"its range (at most {number_text(high)})"


def number_text(value: int | float) -> str:
    """Every digit that tells a value from its limit."""
    if isinstance(value, int):
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else str(value)


def shown(value: Any) -> str:
    """A value as messages show it, in one line."""
    try:
        return one_line(f"'{value}'" if isinstance(value, str) else repr(value))
    except (ValueError, RecursionError) as error:  # more digits or levels than Python shows
        return f"a {type(value).__name__} ({reason_of(error)})"


def to_dict(section: Any) -> Any:
    """A section as plain dictionaries, lists and scalars, in the order of its fields; without
    later ones that are null."""
    if dataclasses.is_dataclass(section) and not isinstance(section, type):
        values = {f.name: getattr(section, f.name) for f in dataclasses.fields(section)}
        later = {f.name for f in dataclasses.fields(section) if f.metadata.get("later")}
        return {k: to_dict(v) for k, v in values.items() if v is not None or k not in later}
    if isinstance(section, Mapping):
        return {k: to_dict(v) for k, v in section.items()}
    if isinstance(section, tuple | list):
        return [to_dict(v) for v in section]
    return section


def plain(value: Any) -> Any:
    """What a caller hands over in Python as plain data: paths as text, arrays and numbers of NumPy
    as Python's, sections as mappings. What is none of that stays as it is."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        is_section = all("help" in field.metadata for field in dataclasses.fields(value))
        return to_dict(value) if is_section else value
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


class _Absent:
    """What a configuration has in the place of a setting that it does not have."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()
ORDERED = ("emit", "observe")
"""Sections in which the order of the entries matters, at every level."""


class Difference(NamedTuple):
    """A setting in which configurations differ."""

    name: str
    """Dotted, 'train.steps'; 'the order of observe' where nothing but the order differs there."""
    values: tuple[Any, ...]
    """One for each configuration: `ABSENT` where it does not have the setting."""

    def text(self, *where: str) -> str:
        """'train.steps = 100 there, 200 here'. where: what follows each of the values."""
        pairs = zip(map(_shortened, self.values), where, strict=True)
        return f"{self.name} = {', '.join(' '.join(pair) for pair in pairs)}"


def _shortened(value: Any) -> str:
    text = "absent" if value is ABSENT else json.dumps(value, default=str)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def differences(
    *configs: Mapping[str, Any], free: Callable[[str], bool] = lambda name: False
) -> Iterator[Difference]:
    """The settings in which two or more configurations differ, in the order of the first.

    configs: nested plain data, as `to_dict` makes it. A setting that is absent is as good as one
    that is null, and a section that some do not have is one setting. free: whether the setting of
    a dotted name, and what is in it, may differ.
    """
    yield from _differences(configs, "", free)


def _differences(
    values: tuple[Any, ...], name: str, free: Callable[[str], bool]
) -> Iterator[Difference]:
    if free(name):
        return
    if not all(isinstance(value, Mapping) for value in values):
        given = [None if value is ABSENT else value for value in values]
        if any(value != given[0] for value in given):
            yield Difference(name, values)
        return
    for key in dict.fromkeys(key for value in values for key in value):
        inner = tuple(value.get(key, ABSENT) for value in values)
        yield from _differences(inner, f"{name}.{key}" if name else str(key), free)
    first, *others = orders = [list(value) for value in values]
    if name.partition(".")[0] in ORDERED and any(
        order != first and set(order) == set(first) for order in others
    ):
        yield Difference(f"the order of {name}", tuple(orders))


def operator_kind(name: str) -> str:
    """'noise' for 'noise' and 'noise_2'."""
    stem, _, suffix = name.rpartition("_")
    return stem if stem and suffix.isdigit() else name


class OrderWarning(AssumptionWarning):
    """The order of operators: where a setting put one, or one that stands where it cannot be
    meant."""


class ModelRangeWarning(UserWarning):
    """A model is used at redshifts or masses that it was not published for."""
