"""Samples, as the generator hands them out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(repr=False)
class Batch:
    """B samples on one device.

    >>> from streamtrain import Generator, load_config
    >>> batch = Generator(load_config("reference.yaml"), "test").generate([0, 7])
    >>> batch
    Batch(samples 0, 7: cube [2, 10, 16, 16], label [2, 49], counts [2, 49], on cpu)
    >>> batch.draws[0]["model"]
    'li16'
    >>> float(batch.bin_edges[-1])  # plt.stairs(batch.counts[0], batch.bin_edges)
    7.0
    """

    cube: torch.Tensor
    """Network input, float32 [B, n_freq, n_dec, n_ra]."""
    label: torch.Tensor
    """float32 [B, num_outputs]: per luminosity bin, one-hot per class, or of parameters."""
    counts: torch.Tensor
    """Halos per luminosity bin, int32 [B, n_bins]."""
    draws: Sequence[dict[str, Any]]
    """What was drawn for each sample: lightcone, centre_deg, roll_deg, mirror, model, ...; a record
    is made when it is asked for."""
    indices: list[int]
    """Global indices of the samples [B]."""
    saturated: torch.Tensor = field(repr=False)
    """Deposits at the largest representable value, int32 [B]; any makes the sample wrong."""
    unit_label: torch.Tensor = field(repr=False)
    """The label of one halo in each bin, float32 [1 or B, n_bins]; see `Label.log10_counts`."""
    seconds: float = 0.0
    """Host seconds spent on this batch."""
    marks: tuple[Any, Any] | None = field(default=None, repr=False)
    """CUDA events before and after its making, where that is beside something else."""
    bin_edges: NDArray[np.float64] | None = None
    """Edges of the luminosity bins of `counts`, log10(L/Lsun) [n_bins + 1]; a `Generator` sets
    it."""

    def __repr__(self) -> str:
        first, *others = [str(index) for index in self.indices] or ["none"]
        shown = ", ".join([first, *others])
        if len(others) > 3:
            shown = f"{first}, {others[0]}, ... {others[-1]}"
        names = ("cube", "label", "counts")
        shapes = ", ".join(f"{name} {list(getattr(self, name).shape)}" for name in names)
        return f"Batch(samples {shown}: {shapes}, on {self.cube.device})"

    def __len__(self) -> int:
        return len(self.indices)

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: all but CUDA events, which are of this process."""
        return {**self.__dict__, "marks": None}

    @property
    def one_halo(self) -> torch.Tensor:
        """The former name of `unit_label`."""
        return self.unit_label

    def check(self) -> None:
        """Raise ValueError if a halo was too bright for the fixed-point cube, or where cube or
        label are not finite (synchronises)."""
        saturated = torch.nonzero(self.saturated).flatten().tolist()
        if saturated:
            first = saturated[0]
            raise ValueError(
                f"sample {self.indices[first]}: {int(self.saturated[first])} halos are too bright "
                f"for the cube's fixed-point range; parameters {self.draws[first]['parameters']} "
                "(grid.brightest_Lsun makes room for more than 1e9 Lsun)"
            )
        for name, values in (("map", self.cube), ("label", self.label)):
            if bool(torch.isfinite(values.sum())):
                continue  # with NaN or infinity it would not be; one that overflows says little
            wrong = ~torch.isfinite(values).flatten(1).all(1)
            if wrong.any():
                first = int(wrong.nonzero()[0])
                bad = ~torch.isfinite(values[first])
                raise ValueError(
                    f"sample {self.indices[first]}: {int(bad.sum())} of the {bad.numel()} numbers "
                    f"of its {name} are NaN or infinite: a setting of emit or observe is beyond "
                    "what float32 holds"
                )

    def clone(self) -> Batch:
        """A copy of the batch in tensors of its own."""
        names = ("cube", "label", "counts", "saturated", "unit_label")
        return replace(self, **{name: getattr(self, name).clone() for name in names})

    def digests(self) -> list[str]:
        """sha256 of cube and counts of each sample (little-endian bytes)."""
        cubes = self.cube.cpu().numpy().astype("<f4", copy=False)
        counts = self.counts.cpu().numpy().astype("<i4", copy=False)
        return [
            hashlib.sha256(
                np.ascontiguousarray(c).tobytes() + np.ascontiguousarray(n).tobytes()
            ).hexdigest()
            for c, n in zip(cubes, counts, strict=True)
        ]


def join(parts: Sequence[Batch]) -> Batch:
    """Batches one after the other."""

    def together(name: str) -> torch.Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    draws = [part.draws for part in parts]
    indices = [index for part in parts for index in part.indices]
    rows = [part.unit_label.expand(len(part), -1) for part in parts]
    return Batch(
        together("cube"),
        together("label"),
        together("counts"),
        DrawnLater(lambda: [record for part in draws for record in part], len(indices)),
        indices,
        together("saturated"),
        torch.cat(rows),
        bin_edges=parts[0].bin_edges if parts else None,
    )


class Records(Sequence[dict[str, Any]]):
    """B records, made of columns: by name, an array or sequence [B]. Records can be columns."""

    def __init__(self, columns: Mapping[str, Column], places: range) -> None:
        """places: where in the columns the records are."""
        self._columns, self._places = columns, places

    def with_columns(self, columns: Mapping[str, Column]) -> Records:
        """A copy of these records with more columns, as long as the others."""
        return Records({**self._columns, **columns}, self._places)

    def __len__(self) -> int:
        return len(self._places)

    def column(self, name: str) -> Column:
        """What the records have by this name, of all that were made together."""
        return self._columns[name]

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


class DrawnLater(Sequence[dict[str, Any]]):
    """Records of `size` samples that are made when one of them is asked for."""

    def __init__(self, make: Callable[[], Sequence[dict[str, Any]]], size: int) -> None:
        self._make, self._size = make, size
        self._made: Sequence[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[dict[str, Any]]: ...
    def __getitem__(self, place: int | slice) -> dict[str, Any] | Sequence[dict[str, Any]]:
        if self._made is None:
            self._made = self._make()
        return self._made[place]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled are the records, as a list: what makes them is of this process."""
        return list, (list(self),)

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
        self.choice, self.parameters = choice, parameters
        self._place = np.empty(len(choice), np.int64)
        for model in range(len(parameters)):
            chosen = choice == model
            self._place[chosen] = np.arange(np.count_nonzero(chosen))

    def __len__(self) -> int:
        return len(self.choice)

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, place: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(place, slice):
            return [self[k] for k in range(len(self))[place]]
        at = self._place[place]
        mine = self.parameters[self.choice[place]]
        return {name: _plain(column[at]) for name, column in mine.items()}


def _plain(value: Any) -> Any:
    """Python's own numbers and lists."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


Column = Sequence[Any] | NDArray[Any]
