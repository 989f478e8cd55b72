"""Learn from a few skies of another maker how far a run's posterior is off, and keep it with the
run: `streamtrain calibrate`. What is learned: `streamtrain.evaluate.calibration.move_fit`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain._version import __version__
from streamtrain.bins import bright_above
from streamtrain.config import Config
from streamtrain.evaluate.bootstrap import Bootstrap
from streamtrain.evaluate.calibration.calibration import Prior, Ranking, check_head, sums_of
from streamtrain.evaluate.calibration.move_fit import SKY_SCATTER, Fit, fit
from streamtrain.evaluate.calibration.recalibration import FILE, Recalibration
from streamtrain.evaluate.calibration.report import FEWEST_MAPS, numbers
from streamtrain.evaluate.folder import check_writable, run_config
from streamtrain.evaluate.robustness.makers_report import maker_lines
from streamtrain.evaluate.robustness.other_skies import notes_on, on_other_skies
from streamtrain.evaluate.run import Run
from streamtrain.evaluate.testset import batches, skies_of
from streamtrain.generator.batch import Batch
from streamtrain.generator.generator import Generator
from streamtrain.machine.workers import ALONE, Resources
from streamtrain.networks.move import Move
from streamtrain.networks.network import Network
from streamtrain.tables import columns, plus_minus, prose
from streamtrain.train.folder import run_folder

Float = NDArray[np.float64]

SEED = 7_000_003
"""Seed of the maps that are learned from."""
DRAWS, RANK_DRAWS = 100, 400
"""Functions drawn for each map to learn from, and to rank the truth among."""
FEW_SKIES = 4
"""With fewer, their scatter is hardly known."""


def recalibrate(
    run: Config | str | Path,
    files: Sequence[str],
    *,
    maps: int,
    resources: Resources = ALONE,
) -> Recalibration:
    """Learn from skies of another maker how the posterior of a run is to be shifted and widened,
    write that into recalibration.json of the run folder, print what became of these skies' maps.

    run: a configuration, or the folder of a run; files: lightcones or globs, of skies that the
    network was not trained on; maps: of these skies. From then on every output of the run's
    posterior has it. Raises ValueError with one sentence for what cannot be recalibrated.
    """
    config = run if isinstance(run, Config) else run_config(run)
    check_head(config, "calibrate")
    if maps < FEWEST_MAPS:
        raise ValueError(f"--samples {maps} must be {FEWEST_MAPS} or more")
    with Run.using(resources, config, recalibrated=False) as opened:
        trained = opened.trained
        check_writable(opened.folder)
        config = on_other_skies(opened, files, "calibrate")
        seed = free_seed_of_maps(config)
        config = replace(config, test=replace(config.test, seed=seed, samples=maps))
        generator = opened.testing(config)
        trained.check_maps(generator, "the maps of these skies")
        for note in notes_on(config, generator):
            opened.progress.note(note)
        network, prior = opened.network(generator), Prior.of_run(opened)
        network.head.moved(Move((0.0,), (0.0,), (1.0,)))  # whether it can be
        before = Ranking(network, generator, RANK_DRAWS, prior)
        learned = _Maps(network, before, generator)
        for done in learned.batches(maps):
            opened.progress.count("drawing functions", done, maps, "maps")
        opened.progress.update("looking for shift and width")
        found = learned.fit()
        recalibration = Recalibration(
            checkpoint_step=trained.step,
            weights_sha256=trained.weights_sha256,
            log10_N=found.log10_N.tolist(),
            shift_dex=found.shift_dex.tolist(),
            shift_error_dex=found.shift_error_dex.tolist(),
            width=found.width.tolist(),
            width_of_maps=found.width_of_maps.tolist(),
            skies=[
                {"name": h.name, "digest": h.digest, "realisation": h.realisation}
                for h in generator.skies.headers
                if h.realisation in generator.skies_until(maps).values()
            ],
            maps=maps,
            seed=seed,
            score=list(found.score),
            date=datetime.now(timezone.utc).date().isoformat(),
            streamtrain=__version__,
        )
        network.head = recalibration.moved(network.head)
        after = Ranking(network, generator, RANK_DRAWS, prior)
        for done in _Maps(network, after, generator).batches(maps, fit=False):
            opened.progress.count("drawing functions again", done, maps, "maps")
        opened.progress.close()
        path = recalibration.save(opened.folder)
        rows = []
        for name, ranking in (("before", before), ("after", after)):
            ranked = ranking.ranked()
            resampled = Bootstrap.choose(ranked.skies)
            found_of = numbers(ranked, resampled, bright_above(generator.bin_edges))
            rows.append({"name": name, "skies": len(set(ranked.skies)), **found_of})
    print("\n".join([*_table(recalibration), "", *maker_lines(rows)]))
    print(f"wrote {path}: {recalibration.said()}")
    return recalibration


def remove(run: str | Path) -> Path | None:
    """Remove the recalibration of a run; returns its file, None where there was none."""
    config = run_config(run)
    path = run_folder(config) / FILE
    if not os.path.lexists(path):
        return None
    check_writable(path.parent)
    path.unlink()
    return path


def free_seed_of_maps(config: Config) -> int:
    """The seed of the maps that are learned from, which are no test maps of the run."""
    return SEED + (SEED in (config.seed, config.test.seed))


def _table(found: Recalibration) -> list[str]:
    """Shift and width at the knots, and what they rest on."""
    rows = [
        [f"{place:.2f}", plus_minus(shift, error, "+.3f"), f"{width:.3f}", f"({of_maps:.3f})"]
        for place, shift, error, width, of_maps in zip(
            found.log10_N,
            found.shift_dex,
            found.shift_error_dex,
            found.width,
            found.width_of_maps,
            strict=True,
        )
    ]
    number = len({sky["realisation"] for sky in found.skies})
    whence = f"{number} {'sky' if number == 1 else 'skies'}"
    text = (
        f"learned from {found.maps} maps of {whence}; 'after' is of the same maps, on new skies of "
        "this maker coverage may be a little less; widths without the error of the shift in "
        "brackets"
    )
    few = (
        f"{whence}: how much those of this maker scatter is hardly known, and assumed to be about "
        f"{SKY_SCATTER:g} of a bin's deviation; {FEW_SKIES} or more measure it"
    )
    texts = [text, few] if number < FEW_SKIES else [text]
    return [
        *prose(texts),
        "",
        *columns(["log10 N(>L)", "shift [dex]", "width", "(width)"], rows),
    ]


class _Maps:
    """Maps of skies, ranked, and what is to be learned from. network: before or after."""

    def __init__(self, network: Network, ranking: Ranking, generator: Generator) -> None:
        self._network, self._ranking, self._generator = network, ranking, generator
        self._drawn: list[Float] = []
        self._true: list[Float] = []
        self._centre: list[Float] = []
        self._skies: list[str] = []

    def batches(self, maps: int, *, fit: bool = True) -> Iterator[int]:
        """Make all maps and look at them; how many are done. fit: whether to learn from them."""
        chance = torch.Generator().manual_seed(self._generator.seed)
        for indices, batch in batches(self._generator, maps):
            self._ranking.add(batch)
            if fit:
                self._add(batch, chance)
            yield indices[-1] + 1

    def fit(self) -> Fit:
        """Shift and width."""
        generator = self._generator
        return fit(
            np.concatenate(self._drawn, axis=1),
            np.concatenate(self._true),
            np.concatenate(self._centre),
            self._skies,
            sums_of(generator.label.bins, generator.config.grid),
        )

    def _add(self, batch: Batch, chance: torch.Generator) -> None:
        head = self._network.head
        with torch.inference_mode():
            output = self._network(batch.cube)
            self._drawn.append(head.sample(output, DRAWS, chance).cpu().numpy())
            self._centre.append(head.centre_of(output).cpu().numpy())
        self._true.append(batch.counts.double().cpu().numpy())
        self._skies += skies_of(self._generator, batch)
