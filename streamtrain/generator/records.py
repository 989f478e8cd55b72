"""What was drawn for samples, for the user: a dict per sample, made when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Column = Sequence[Any] | NDArray[Any]


class Records(Sequence[dict[str, Any]]):
    """B records, made of columns: by name, an array or sequence [B]. Records can be columns."""

    def __init__(self, columns: Mapping[str, Column], places: range) -> None:
        """places: where in the columns the records are."""
        self._columns, self._places = columns, places

    def with_columns(self, columns: Mapping[str, Column]) -> Records:
        """The same with more columns, as long as the others."""
        return Records({**self._columns, **columns}, self._places)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> Records: ...
    def __getitem__(self, place: int | slice) -> dict[str, Any] | Records:
        if isinstance(place, slice):
            return Records(self._columns, self._places[place])
        at = self._places[place]
        return {name: _plain(column[at]) for name, column in self._columns.items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))


class OfModels(Sequence[dict[str, Any]]):
    """The parameters of B samples, each with those of its luminosity model.

    choice: the samples' models [B]; parameters: for every model those of its samples, in order.
    """

    def __init__(
        self, choice: NDArray[np.int64], parameters: Sequence[Mapping[str, Column]]
    ) -> None:
        self._choice, self._parameters = choice, parameters
        self._place = np.empty(len(choice), np.int64)
        for model in range(len(parameters)):
            chosen = choice == model
            self._place[chosen] = np.arange(np.count_nonzero(chosen))

    def __len__(self) -> int:
        return len(self._choice)

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, place: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(place, slice):
            return [self[k] for k in range(len(self))[place]]
        at = self._place[place]
        mine = self._parameters[self._choice[place]]
        return {name: _plain(column[at]) for name, column in mine.items()}


def _plain(value: Any) -> Any:
    """Python's own numbers and lists."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
