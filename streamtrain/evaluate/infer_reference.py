"""What a trained network's answer to a user's map is set against: its training maps and its errors.

Both are measured once for a checkpoint and kept in the run folder, infer_reference.json.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.config import Config
from streamtrain.evaluate import testset
from streamtrain.evaluate.answers import Answers, predict
from streamtrain.evaluate.familiar import Seen, statistics
from streamtrain.evaluate.trained import Trained
from streamtrain.generator.generator import GENERATOR_VERSION, Generator, grid_of
from streamtrain.generator.labels import Label
from streamtrain.progress import Progress
from streamtrain.train.folder import run_folder

Float = NDArray[np.float64]

FILE = "infer_reference.json"
LEVELS = (0.025, 0.16, 0.84, 0.975)
"""Probabilities of the ends of a 95 % and a 68 % interval."""


@dataclass(frozen=True)
class Reference:
    """Of one checkpoint."""

    seen: Seen | None
    """Statistics of training maps; None where they cannot be made here."""
    residuals: Float | None
    """Quantiles of predicted minus true log10 count on the test set, at `LEVELS`,
    [4, num_bins]; None if they were not asked for, or cannot be made here."""
    test_samples: int
    volume_Mpc3: float
    """Of the field, in the cosmology of the first training lightcone."""
    problems: tuple[str, ...] = ()
    """What could not be measured and why, a sentence each."""


class Measurement:
    """Measures, or finds, the reference of a run's newest checkpoint.

    samples: training maps to look at; 0: none.
    """

    def __init__(
        self,
        config: Config,
        trained: Trained,
        *,
        samples: int,
        device: str = "cpu",
        threads: int = 1,
        progress: Progress | None = None,
    ) -> None:
        self.config, self.trained, self.samples = config, trained, samples
        self.device, self.threads, self.progress = device, threads, progress
        self.path = run_folder(config) / FILE

    def get(self, residuals: bool) -> Reference:
        """The reference; residuals: whether the errors on the test set are needed."""
        kept = self._kept()
        problems: list[str] = []
        if "seen" not in kept and self.samples:
            self._try(kept, self._training, "the map was not compared with training maps", problems)
        elif "volume_Mpc3" not in kept and self.config.label.quantity in ("phi", "phi_L"):
            self._try(kept, self._training, "the field has the volume of Omega_m = 0.286", problems)
        if "residuals" not in kept and residuals:
            self._try(kept, self._test, "the answer has no uncertainty", problems)
        self._keep(kept)
        volume = kept.get("volume_Mpc3")
        if volume is None:
            volume = grid_of(self.config.grid).volume_Mpc3()
        errors = kept.get("residuals")
        return Reference(
            Seen.from_dict(kept["seen"]) if "seen" in kept and self.samples else None,
            np.array(errors) if errors is not None and residuals else None,
            int(kept.get("test_samples", 0)),
            float(volume),
            tuple(problems),
        )

    def _try(self, kept: dict[str, Any], measure: Any, failed: str, problems: list[str]) -> None:
        try:
            kept.update(measure())
        except (ValueError, OSError) as error:
            problems.append(f"{failed}: {error}")

    def _training(self) -> dict[str, Any]:
        generator = Generator(self.config, split="train", device=self.device, threads=self.threads)
        cosmology = generator.skies.cosmologies[0]
        volume = generator.grid.volume_Mpc3(cosmology["Omega_m"], cosmology["h"])
        parts = []
        try:
            for start in range(0, self.samples, testset.BATCH_SIZE):
                stop = min(start + testset.BATCH_SIZE, self.samples)
                batch = generator.generate(range(start, stop))
                batch.check()
                parts.append(statistics(batch.cube))
                self._say(f"training maps: {stop}/{self.samples}")
        finally:
            generator.close()
        return {"volume_Mpc3": volume} | ({"seen": Seen.of(parts).to_dict()} if parts else {})

    def _test(self) -> dict[str, Any]:
        path = testset.default_path(self.config)
        device, threads = self.device, self.threads
        if not path.exists():
            testset.make(self.config, path, device=device, threads=threads, progress=self.progress)
        manifest = testset.load(path)
        generator = testset.open_generator(
            testset.recipe(manifest, self.config), device=device, threads=threads
        )
        try:
            problems = testset.mismatches(manifest, generator)
            if problems:
                raise ValueError(f"this is not the test set of {path}: {' '.join(problems)}")
            network = self.trained.network(generator.label, generator.device)
            answers = predict(network, manifest, generator, self.progress)
        finally:
            generator.close()
        assert isinstance(answers, Answers)
        quantiles = np.quantile(answers.predicted - answers.true, LEVELS, axis=0)
        return {"residuals": quantiles.tolist(), "test_samples": len(answers.true)}

    def _identity(self) -> dict[str, Any]:
        return {
            "checkpoint_step": self.trained.step,
            "configuration": self.config.digest(),
            "generator_version": GENERATOR_VERSION,
        }

    def _kept(self) -> dict[str, Any]:
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(data, Mapping) or data.get("of") != self._identity():
            return {}
        kept = dict(data)
        if "seen" in kept and self.samples and kept["seen"]["samples"] != self.samples:
            del kept["seen"]
        return kept

    def _keep(self, kept: dict[str, Any]) -> None:
        text = json.dumps({**kept, "of": self._identity()}, allow_nan=False) + "\n"
        with contextlib.suppress(OSError):  # a folder that may only be read
            testset.write_atomically(self.path, text)

    def _say(self, text: str) -> None:
        if self.progress is not None:
            self.progress.update(text)


def label_of(config: Config, trained: Trained, reference: Reference) -> Label:
    """The label of a run, without its lightcones."""
    return Label(config.label, [reference.volume_Mpc3], trained.classes)
