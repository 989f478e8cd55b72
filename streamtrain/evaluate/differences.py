"""In which settings configurations differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PASSED_OVER = (
    "run",
    "data.memory_GB",
    "train.threads",
    "train.queue",
    "train.processes",
    "train.log_every",
    "train.validate_every",
    "train.checkpoint_every",
    "train.max_nonfinite",
)
"""Settings that change neither what is learned nor how it is judged."""


class _Absent:
    """A setting that a configuration does not have."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Absent)

    __hash__ = None  # type: ignore[assignment]


ABSENT = _Absent()


def differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Dotted names of the settings in which configurations (nested plain data) differ, with the
    value of each as text; '-' where a configuration does not have it.

    A section that some do not have is one setting, told by what in it is not off.
    """
    found: dict[str, list[str]] = {}
    _collect(list(configs), "", found)
    return found


def _collect(values: list[Any], where: str, found: dict[str, list[str]]) -> None:
    if where in PASSED_OVER or all(value == values[0] for value in values):
        if where in ("emit", "observe") and len({tuple(value) for value in values}) > 1:
            found[f"order of {where}"] = [" ".join(value) for value in values]
        return
    if not all(isinstance(value, Mapping) for value in values):
        found[where] = [text(value) for value in values]
        return
    keys = dict.fromkeys(key for value in values for key in value)
    for key in keys:
        _collect([v.get(key, ABSENT) for v in values], f"{where}.{key}" if where else key, found)


def text(value: Any) -> str:
    """A setting in a word or a few."""
    if isinstance(value, _Absent):
        return "-"
    if isinstance(value, Mapping):
        given = {k: v for k, v in value.items() if v is not None and v != {} and v != []}
        return ", ".join(f"{key} {text(v)}" for key, v in given.items()) or "yes"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(text, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
