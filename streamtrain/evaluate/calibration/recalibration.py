"""How far the posterior of a run is shifted and widened, learned from skies of another maker.

`streamtrain calibrate` learns it and writes it into recalibration.json of the run, and every output
of the run's posterior then has it and names it. It belongs to one checkpoint: what was learned of
another is not applied, and that is said.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from streamtrain.catalogs.headers import Header
from streamtrain.machine.files import write_json
from streamtrain.networks.heads import Head
from streamtrain.networks.move import Move

FILE = "recalibration.json"


@dataclass(frozen=True)
class Recalibration:
    """A shift and a width of the distribution of log10 N of every bin, by the rank of its halos in
    the map: see `streamtrain.networks.move.Move`."""

    checkpoint_step: int
    weights_sha256: str
    """sha256 of the weights of the network that it was learned for."""
    log10_N: list[float]
    """The knots, log10 N(>L) by the point estimate of a map."""
    shift_dex: list[float]
    """Added to log10 of the count."""
    shift_error_dex: list[float]
    """Standard error of the shift, from the scatter between skies."""
    width: list[float]
    """Factor of every function's distance from the point estimate in log10 of the count, with the
    error of the shift."""
    width_of_maps: list[float]
    """Factor of the distance without the error of the shift."""
    skies: list[dict[str, str]]
    """Name, digest and realisation of each lightcone that it was learned from."""
    maps: int
    """Maps of these skies."""
    seed: int
    """Seed of the maps."""
    score: list[float]
    """What was minimised, before and after: continuous ranked probability score of bins and sums,
    in posterior deviations."""
    date: str
    streamtrain: str
    """Version of the package."""

    def moved(self, head: Head) -> Head:
        """A head with its posterior shifted and widened. Raises ValueError where it cannot be."""
        return head.moved(Move(tuple(self.log10_N), tuple(self.shift_dex), tuple(self.width)))

    def said(self) -> str:
        """What was done to the posterior, a sentence for whoever reads an output of it."""
        number = len({sky["realisation"] for sky in self.skies})
        whence = f"{number} {'sky' if number == 1 else 'skies'}"
        names = ", ".join(sky["name"] for sky in self.skies[:3])
        more = ", ..." if len(self.skies) > 3 else ""
        return (
            f"recalibrated on {self.maps} maps of {whence} of another maker ({names}{more}; "
            f"{self.date}): log10 N shifted by {min(self.shift_dex):+.3f} to "
            f"{max(self.shift_dex):+.3f} dex, widths times {min(self.width):.2f} to "
            f"{max(self.width):.2f}"
        )

    def seen(self, headers: Iterable[Header]) -> list[str]:
        """A sentence if it was learned from some of the lightcones that it is now looked at with,
        or from others of their skies; headers: theirs."""
        digests = {sky["digest"] for sky in self.skies}
        skies = {sky["realisation"] for sky in self.skies}
        same = [h.name for h in headers if h.digest in digests or h.realisation in skies]
        if not same:
            return []
        return [
            f"the recalibration was learned from {', '.join(same)}: on other skies of this maker "
            "biases and coverage may be worse"
        ]

    def save(self, folder: Path) -> Path:
        """Write it into the folder of a run; returns the file."""
        path = folder / FILE
        write_json(path, asdict(self))
        return path


@dataclass(frozen=True)
class Applied:
    """The recalibration of a run, if it has one for its checkpoint."""

    recalibration: Recalibration | None = None
    problem: str = ""
    """Why one that is there is not applied, a sentence."""

    def said(self) -> list[str]:
        """What should be known of the posterior, a sentence or none."""
        if self.recalibration is not None:
            return [self.recalibration.said()]
        return [self.problem] if self.problem else []

    def record(self) -> dict[str, Any] | None:
        """Plain data for a JSON file; None where nothing is applied."""
        return None if self.recalibration is None else asdict(self.recalibration)


def find(folder: Path, step: int, weights_sha256: str) -> Applied:
    """The recalibration in the folder of a run; step, weights_sha256: of its newest checkpoint.

    Raises ValueError, one sentence, for a file that is none.
    """
    path = folder / FILE
    if not path.exists():
        return Applied()
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = Recalibration(**{field.name: data[field.name] for field in fields(Recalibration)})
        rows = (found.log10_N, found.shift_dex, found.shift_error_dex, found.width)
        values = np.array(rows, np.float64)
        rising = (np.diff(values[0]) > 0).all() and values.shape[1] > 0
        if not (np.isfinite(values).all() and (values[3] > 0).all() and rising):
            raise ValueError("a number is missing")
        found.said()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{path} is damaged: `streamtrain calibrate {folder} FILES` makes it again, "
            f"`streamtrain calibrate {folder} --remove` removes it"
        ) from None
    if (found.checkpoint_step, found.weights_sha256) != (step, weights_sha256):
        which = f"step {found.checkpoint_step}"
        if found.checkpoint_step == step:
            which = "another training"
        return Applied(
            problem=f"not recalibrated: {FILE} is of {which}, the checkpoint of step {step}; "
            f"`streamtrain calibrate {folder} FILES` makes it again"
        )
    return Applied(found)
