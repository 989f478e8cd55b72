"""`lightcones.jsonl` in the folder of a run: the lightcones that were made during training."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from streamtrain.catalogs.fresh import MadeLightcone
from streamtrain.train.folder import read_history


class SkyRecord:
    """One line per lightcone: number, seed, digest, halos (see `MadeLightcone`).

    A run that is continued makes the lightcones of its present window again; they have a line
    already, and should have the same digest.

    path: the file, made with its first line
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        made = read_history(path, "number")
        self._digests = {entry["number"]: str(entry.get("digest")) for entry in made}

    def add(self, made: Iterable[MadeLightcone]) -> Iterator[str]:
        """Write down what was made; yields a sentence for each that came out differently."""
        for lightcone in made:
            number, digest = lightcone.number, lightcone.digest
            before = self._digests.get(number)
            if before == digest:
                continue
            self._digests[number] = digest
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(lightcone)) + "\n")
            if before is not None:
                yield (
                    f"lightcone {number} has the digest {digest[:12]}, before {before[:12]}: FFTs "
                    "differ in the last bits between devices and versions, so that a few halos "
                    "differ; the samples are not bit for bit those of before"
                )
