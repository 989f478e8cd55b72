"""Samples, as the generator hands them out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch


@dataclass
class Batch:
    """B samples on one device."""

    cube: torch.Tensor
    """Network input, float32 [B, n_freq, n_dec, n_ra]."""
    label: torch.Tensor
    """float32 [B, num_outputs]: per luminosity bin, or one-hot per class."""
    counts: torch.Tensor
    """Halos per luminosity bin, int32 [B, n_bins]."""
    draws: Sequence[dict[str, Any]]
    """What was drawn for each sample: lightcone, centre_deg, roll_deg, mirror, model, ...; a record
    is made when it is asked for."""
    indices: list[int]
    """Global sample indices."""
    saturated: torch.Tensor = field(repr=False)
    """Deposits at the largest representable value, int32 [B]; any makes the sample wrong."""
    one_halo: torch.Tensor = field(repr=False)
    """The label of one halo in each bin, float32 [1 or B, n_bins]; see `Label.log10_counts`."""
    seconds: float = 0.0
    """Host seconds spent on this batch."""
    marks: tuple[Any, Any] | None = field(default=None, repr=False)
    """CUDA events before and after its making, where that is beside something else."""

    def __len__(self) -> int:
        return len(self.indices)

    def check(self) -> None:
        """Raise ValueError if a halo was too bright for the fixed-point cube, or where cube or
        label are not finite (synchronises)."""
        saturated = torch.nonzero(self.saturated).flatten().tolist()
        if saturated:
            first = saturated[0]
            raise ValueError(
                f"sample {self.indices[first]}: {int(self.saturated[first])} halos are too bright "
                f"for the cube's fixed-point range; parameters {self.draws[first]['parameters']}"
            )
        for name, values in (("map", self.cube), ("label", self.label)):
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
        """The same batch in tensors of its own."""
        names = ("cube", "label", "counts", "saturated", "one_halo")
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

    rows = [part.one_halo.expand(len(part), -1) for part in parts]
    return Batch(
        together("cube"),
        together("label"),
        together("counts"),
        [record for part in parts for record in part.draws],
        [index for part in parts for index in part.indices],
        together("saturated"),
        torch.cat(rows),
    )
