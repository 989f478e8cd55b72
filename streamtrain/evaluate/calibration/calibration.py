"""Whether the posterior of a trained network means what it says: `evaluate RUN --calibration`.

The truth of every test map is ranked among functions that are drawn from its posterior, see
`streamtrain.ranks`. Coverage, biases and widths have errors that resample skies; p-values
take the maps for independent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.bins import LuminosityBins, bright_above, bright_bins, ranges_with_bins
from streamtrain.catalogs.skies import NoFileError
from streamtrain.config import Config
from streamtrain.evaluate import baselines, testset
from streamtrain.evaluate.alarm.watch import Watch
from streamtrain.evaluate.bootstrap import Bootstrap
from streamtrain.evaluate.calibration.figures import calibration_figure
from streamtrain.evaluate.calibration.report import PRIOR_MAPS, Ranked, numbers, table
from streamtrain.evaluate.evaluation import other_test_set, test_set_record
from streamtrain.evaluate.folder import check_writable
from streamtrain.evaluate.posterior.functions import functionals
from streamtrain.evaluate.posterior.posterior import has_posterior
from streamtrain.evaluate.robustness import other_skies
from streamtrain.evaluate.run import Run
from streamtrain.figures import write_png
from streamtrain.generator.batch import Batch
from streamtrain.generator.generator import Generator
from streamtrain.grid import Grid
from streamtrain.labels import NO_FUNCTION, SMALLEST_STD_DEX, Label
from streamtrain.machine.files import write_json
from streamtrain.machine.workers import ALONE, Resources
from streamtrain.networks.joint import JointCountsHead
from streamtrain.networks.network import Network
from streamtrain.networks.settings import COUNT_HEADS
from streamtrain.ranks import RankedTruth, tell_apart
from streamtrain.tables import range_title

Float = NDArray[np.float64]

DRAWS = 1000
"""Functions that are drawn from the posterior of each map."""
FEWEST_DRAWS = 20
LOG_PROB_DRAWS = 200
"""Drawn functions, at most, whose log probability is compared with that of the truth."""
PRIOR_STEPS, PRIOR_RATE = 40, 0.1
"""Steps of Adam (Kingma and Ba 2015) that the prior's mixtures are fitted in, and their size."""
WHOLE_STEPS, WHOLE_RATE, WHOLE_BATCH = 300, 2e-3, 128
"""Steps in which all that the prior's nodes depend on is fitted then, their size, and maps each."""
HELD_OUT, LOOK_EVERY, MOST_NORM = 0.2, 10, 10.0
"""Share of the maps that decide which of these steps is the last one, how often they are looked at,
and the longest gradient."""


def calibrate(
    config: Config,
    *,
    draws: int = DRAWS,
    on: Sequence[str] | None = None,
    samples: int | None = None,
    out: str | Path | None = None,
    bootstrap: str = "auto",
    recalibrated: bool = True,
    resources: Resources = ALONE,
) -> dict[str, Any]:
    """Compare the posterior of the newest intact checkpoint of a run with the truth of its test
    maps: print a table, write calibration.json and calibration.png into the run folder, return what
    the JSON file holds.

    draws: functions drawn for each map. on, samples, out, bootstrap, recalibrated: other
    lightcones, another number of maps, a new folder, what errors resample, and whether a
    recalibration is applied, as in `evaluate`. Raises ValueError with
    one sentence for a network that predicts no distribution of counts, and where `evaluate` does.
    """
    check_head(config)
    if draws < FEWEST_DRAWS:
        raise ValueError(f"--draws {draws} must be {FEWEST_DRAWS} or more")
    if samples is not None:
        if samples < 1:
            raise ValueError(f"--samples {samples} must be 1 or more")
        config = replace(config, test=replace(config.test, samples=samples))
    with Run.using(resources, config, recalibrated=recalibrated) as run:
        if on is None and out is None:
            target = run.folder
            result = _of_the_run(run, draws, bootstrap)
        else:
            target = other_skies.default_folder(run, on) if out is None else Path(out)
            with other_skies.new_folder(target, run) as folder:
                result = _elsewhere(run, on, folder, draws, bootstrap)
    print(table(result))
    made = ", testset.json" if target != run.folder else ""
    print(f"wrote {target}: calibration.json, calibration.png{made}")
    return result


def check_head(config: Config, what: str = "--calibration") -> None:
    """Raise ValueError, one sentence, for a network that predicts no distribution of counts.

    what: the option that needs one.
    """
    if config.label.quantity in NO_FUNCTION:
        label = NO_FUNCTION[config.label.quantity]
        hint = "" if label == "a class" else ": `streamtrain evaluate` alone has ranks of these"
        raise ValueError(f"{what} is of luminosity functions, not of {label}{hint}")
    if not has_posterior(config):
        raise ValueError(
            f"{what} needs a network that predicts a distribution of the number of halos, "
            f"and network.head = {config.network.head} predicts none: train one with "
            f"{' or '.join(COUNT_HEADS)}"
        )


def _of_the_run(run: Run, draws: int, bootstrap: str) -> dict[str, Any]:
    """On the run's own test set, into its folder."""
    check_writable(run.folder)
    path = testset.default_path(run.config)
    with testset.kept(path):
        manifest, generator = run.test_set()
    prior = Prior.of_run(run, instead=generator)
    batches = testset.compared(manifest, generator)
    ranked = _ranked(run, generator, batches, manifest.count, draws, prior)
    notes = [*testset.not_compared(manifest, generator), *prior.notes, *run.said(generator)]
    about = test_set_record(path, manifest, notes)
    return _written(run, generator, ranked, about, bootstrap, run.folder)


def _elsewhere(
    run: Run, on: Sequence[str] | None, folder: Path, draws: int, bootstrap: str
) -> dict[str, Any]:
    """On other skies or with other settings, into a folder of its own."""
    config, own, generator, notes = other_test_set(run, on)
    prior = Prior.of_run(run, own, instead=generator)
    path = folder / "testset.json"
    batches = testset.made(config, path, generator)
    ranked = _ranked(run, generator, batches, config.test.samples, draws, prior)
    notes += [*prior.notes, *run.said(generator)]
    about = test_set_record(path, testset.load(path), notes)
    return _written(run, generator, ranked, about, bootstrap, folder)


class Prior:
    """What is known of a luminosity function without a map: the counts of training maps.

    counts: halos per bin of some maps [num_maps, num_bins]; label: what they are the label of;
    more: of further ones, for the density alone; notes: what should be known of it, a sentence
    each.
    """

    def __init__(
        self, counts: Float, label: Label, more: Float | None = None, notes: Sequence[str] = ()
    ) -> None:
        self.counts, self.notes = counts, tuple(notes)
        self.scale = np.maximum(tell_apart(counts).std(axis=0), SMALLEST_STD_DEX)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self._head = JointCountsHead(label, "joint_counts")
        halos = torch.from_numpy(counts if more is None else np.concatenate([counts, more]))
        self._head.set_normalisation(halos, halos, torch.zeros(1, counts.shape[1]))
        self._head.requires_grad_(False)
        self._fit(torch.from_numpy(counts))
        self._fit_all(halos)

    def _fit(self, halos: torch.Tensor) -> None:
        """Give every node the mixture that these counts have the largest probability of: with that
        of a head that is untrained, some of them are 10^3 nat less likely than they should be."""
        nothing = torch.zeros(len(halos), self._head.num_numbers)
        mixtures = self._head.mixtures.requires_grad_(True)
        optimiser = torch.optim.Adam([mixtures], PRIOR_RATE)
        for _ in range(PRIOR_STEPS):
            optimiser.zero_grad()
            with torch.enable_grad():
                (-self._head.log_prob(nothing, halos).mean()).backward()
            optimiser.step()

    def _fit_all(self, halos: torch.Tensor) -> None:
        """Fit what every node depends on as well, until the maps that are held out say that it is
        enough: a prior is as broad as its models, and no regression on neighbours is."""
        held = halos[: max(1, int(HELD_OUT * len(halos)))]
        others, head = halos[len(held) :], self._head
        if not len(others):
            return
        fitted = [head.mixtures, head.bias, head.output, head.seen, head.linear]
        for parameter in fitted:
            parameter.requires_grad_(True)
        optimiser, rng = torch.optim.Adam(fitted, WHOLE_RATE), np.random.default_rng(0)

        def look() -> tuple[float, list[torch.Tensor]]:
            found = float(self.log_prob(held.numpy()).mean())
            return found, [parameter.detach().clone() for parameter in fitted]

        best, size = look(), min(WHOLE_BATCH, len(others))
        nothing = torch.zeros(size, head.num_numbers)
        for step in range(WHOLE_STEPS):
            some = others[torch.from_numpy(rng.choice(len(others), size, replace=False))]
            optimiser.zero_grad()
            with torch.enable_grad():
                (-head.log_prob(nothing, some).mean()).backward()
            torch.nn.utils.clip_grad_norm_(fitted, MOST_NORM)
            optimiser.step()
            if step % LOOK_EVERY == LOOK_EVERY - 1:
                best = max(best, look(), key=lambda found: found[0])
        with torch.no_grad():
            for parameter, values in zip(fitted, best[1], strict=True):
                parameter.copy_(values)

    @classmethod
    def of_run(
        cls, run: Run, config: Config | None = None, instead: Generator | None = None
    ) -> Prior:
        """The prior from the first training samples of a run; config: other than the run's.

        instead: a generator of test maps, of which it is made where the lightcones of the training
        are not here, from maps behind those of the test set, which is then noted.
        """
        counts, more, number, first, notes = [], [], baselines.MEAN_LABEL_SAMPLES, 0, []
        with contextlib.ExitStack() as stack:
            try:
                generator = stack.enter_context(contextlib.closing(run.training(config)))
            except NoFileError as error:
                if instead is None:
                    raise
                generator, first = instead, instead.config.test.samples
                notes = [f"{error}: the prior is counted on further maps of the test lightcones"]
            for indices, batch in testset.batches(generator, first + number, first):
                counts.append(batch.counts.double().cpu().numpy())
                done = indices[-1] + 1 - first
                run.progress.count("mean label", done, number, f"{generator.split} samples")
            for start in range(number, PRIOR_MAPS, testset.BATCH_SIZE):
                some = range(first + start, first + start + testset.BATCH_SIZE)
                more.append(generator.counts(some).double().numpy())
                done = some.stop - first
                run.progress.count("prior", done, PRIOR_MAPS, f"{generator.split} samples")
            run.progress.update("fitting the prior's density")
            further = np.concatenate(more) if more else None
            return cls(np.concatenate(counts), generator.label, further, notes)

    @torch.no_grad()
    def log_prob(self, counts: Float) -> Float:
        """ln of the probability of counts [B, num_bins], [B]."""
        nothing = torch.zeros(len(counts), self._head.num_numbers)
        return self._head.log_prob(nothing, torch.from_numpy(counts)).numpy()


def sums_of(bins: LuminosityBins, grid: Grid) -> dict[str, Float]:
    """Weights of the sums over bins that are ranked [num_bins], by name: the number of halos in
    each luminosity range, and the functionals; sums that differ by a factor have one entry, whose
    name has both."""
    found = {
        range_title(span): inside.astype(np.float64)
        for span, inside in ranges_with_bins(bins.edges)
    }
    for functional in functionals(bins, grid):
        alike = (k for k, row in found.items() if _proportional(row, functional.weights))
        name = next(alike, None)
        if name is None:
            found[functional.name] = functional.weights
        else:
            found = {f"{k}, {functional.name}" if k == name else k: row for k, row in found.items()}
    return found


def _proportional(one: Float, other: Float) -> bool:
    return bool(np.allclose(one * other.sum(), other * one.sum(), rtol=1e-9, atol=0.0))


class Ranking:
    """Ranks of the truths of test maps, batch by batch.

    network: whose posterior it is, with any head of counts; generator: of the maps; draws:
    functions drawn for each; prior: of the run; watch: finds the alarms of the maps.
    """

    def __init__(
        self,
        network: Network,
        generator: Generator,
        draws: int,
        prior: Prior,
        watch: Watch | None = None,
    ) -> None:
        self._network, self._generator, self._draws, self._prior = network, generator, draws, prior
        self._watch = watch
        sums = sums_of(generator.label.bins, generator.config.grid)
        self._truths = RankedTruth(sums, prior.scale, generator.seed)
        self._chance = torch.Generator().manual_seed(generator.seed)
        self._pick = np.random.default_rng([generator.seed, 1])
        self._bright = bright_bins(generator.bin_edges)
        self._expected: list[Float] = []
        self._log_prior: list[Float] = []
        self._records: list[tuple[str, Any, str]] = []
        self._alarms: list[Float] = []

    def add(self, batch: Batch) -> None:
        """Rank the truths of some maps."""
        prior = self._prior
        truth = batch.counts.double().cpu().numpy()
        drawn, log_q = _drawn(self._network, batch, self._draws, self._chance)
        references = prior.counts[self._pick.integers(len(prior.counts), size=len(truth))]
        self._truths.add(drawn, truth, references, log_q)
        self._expected.append(np.median(drawn[..., self._bright].sum(axis=-1), axis=0))
        self._log_prior.append(prior.log_prob(truth))
        if self._watch is not None:
            self._alarms.append(self._watch.p_values(batch.cube))
        skies = testset.skies_of(self._generator, batch)
        self._records += [
            (sky, draw.get("noise"), str(draw.get("model", "")))
            for sky, draw in zip(skies, batch.draws, strict=True)
        ]

    def watching(
        self, batches: Iterable[tuple[list[int], Batch]]
    ) -> Iterator[tuple[list[int], Batch]]:
        """Hand on batches (indices, batch), each ranked before."""
        for indices, batch in batches:
            self.add(batch)
            yield indices, batch

    def ranked(self) -> Ranked:
        """What became of all maps."""
        ranks = self._truths.ranks()
        skies, noise, models = (list(column) for column in zip(*self._records, strict=True))
        levels = [entry.get("sigma_uK") if isinstance(entry, dict) else None for entry in noise]
        return Ranked(
            ranks,
            self._draws,
            np.concatenate(self._log_prior),
            skies,
            np.concatenate(self._expected) if self._bright.any() else None,
            None if None in levels else np.array(levels, np.float64),
            models,
            self._generator.config.grid.units,
            np.concatenate(self._alarms) if self._alarms else None,
        )


def _ranked(
    run: Run,
    generator: Generator,
    batches: Iterable[tuple[list[int], Batch]],
    count: int,
    draws: int,
    prior: Prior,
) -> Ranked:
    """Rank the truths of the maps of some batches, `count` in all."""
    ranking = Ranking(run.network(generator), generator, draws, prior, run.kept_watch())
    for indices, _ in ranking.watching(batches):
        run.progress.count("drawing functions", indices[-1] + 1, count, "maps")
    return ranking.ranked()


def _drawn(
    network: Network, batch: Batch, draws: int, chance: torch.Generator
) -> tuple[Float, tuple[Float, Float]]:
    """Functions drawn for the maps of a batch [draws, B, num_bins], and the log probability of the
    truth [B] and of some of them."""
    with torch.inference_mode():
        output: Tensor = network(batch.cube)
        if not torch.isfinite(output).all():
            raise ValueError("the network's prediction is not finite: its training has diverged")
        head = network.head
        drawn = head.sample(output, draws, chance)
        truth = head.log_prob(output, batch.counts.to(output.device))
        some = head.log_prob(output, drawn[:LOG_PROB_DRAWS])
    return drawn.cpu().numpy(), (truth.cpu().numpy(), some.cpu().numpy())


def _written(
    run: Run,
    generator: Generator,
    ranked: Ranked,
    about: dict[str, Any],
    bootstrap: str,
    folder: Path,
) -> dict[str, Any]:
    """The result, written into a folder with its figure."""
    resampled = Bootstrap.choose(ranked.skies, bootstrap)
    joint = run.network(generator).head.joint
    result = {
        "checkpoint_step": run.trained.step,
        "weights_sha256": run.trained.weights_sha256,
        "recalibration": run.trained.applied.record(),
        "test_set": about,
        "head": run.config.network.head,
        "bins_are_independent": not joint,
        **numbers(ranked, resampled, bright_above(generator.bin_edges)),
    }
    write_json(folder / "calibration.json", result)
    figure = calibration_figure(ranked.ranks, result, generator.bin_edges, resampled)
    write_png(figure, folder / "calibration.png")
    return result
