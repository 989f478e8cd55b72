"""The error of an oracle that knows a map's parameters exactly, but not its field.

For every test sample the same parameters (of the luminosity model, and factors of modifiers such as
`brightness`) are painted on K other fields with other scatter, each on another sky of the
training's. The oracle predicts their mean: what is left is Poisson noise and field-to-field
scatter. No fit gets below it that finds the true parameters; one that follows the field's own
number of halos may, and so may a network, which sees the field itself.

The mean m of K fields scatters too. As the truth t and the fields are independent, E[(t - m)^2] =
E[(t - mu)^2] + sigma^2 / K for any selection by t, and sigma^2 is the variance between the K
fields; so the mean of (t - m)^2 - s^2 / K is that of an oracle of infinitely many fields, without
bias. That takes fields of K different skies: those of one sky share its offset, which s^2 does not
see and which is then left in the floor as if the oracle did not know better. The maps take turns
with the skies, so that all are used alike.

The offset between few skies is one number for all maps. So the errors resample skies: those of the
test set (bootstrap), and those of the oracle (jackknife: each left out in turn), added in
quadrature. The deviance is that of the oracle of K fields, a little above the floor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.bins import Counts, ranges_with_bins
from streamtrain.evaluate.bootstrap import ENOUGH_LIGHTCONES, Bootstrap, Float
from streamtrain.evaluate.scores import Bool, score_counts
from streamtrain.generator.generator import Generator
from streamtrain.numerics.rng import STAGE_POSE, Draws, sample_indices

FIELDS = 4
"""Other fields per test sample, K, of as many skies where there are as many."""
MANY_SKIES = 16
"""Lightcones that the oracle's fields are cut from, at least, where the training has as many."""
FEWEST_SKIES = 3
"""With fewer the error from the oracle's skies is not known."""
CHUNK = 16
FIRST_INDEX = 2**40
"""Index of the first other field, far from those that a training reaches."""


def repaint(
    generator: Generator,
    other: Generator,
    indices: Sequence[int],
    fields: Sequence[int],
    threads: int = 1,
    skies: NDArray[np.int64] | None = None,
) -> Counts[NDArray[Any]]:
    """Counts of samples of `generator`, each painted on a field of `other` with its scatter.

    indices: of the samples [B], within one window of the schedule; fields: indices of the samples
    of `other` whose field and scatter are taken [B]; skies: numbers of its lightcones in use that
    the fields are cut from [B], None: those of its samples. Returns the kernel's counts, bins and
    the three extra ones, int32 [B, num_bins + 3].
    """
    records = generator.draw(indices).records
    draws = Draws(generator.seed, generator.split, sample_indices(indices), STAGE_POSE)
    place = Draws(other.seed, other.split, sample_indices(fields), STAGE_POSE)
    line = other.scenes.latest.line
    names = line.mixture.names
    model = np.array([names.index(record["model"]) for record in records])
    parameters = []
    for k, component in enumerate(line.mixture.components):
        mine = [r["parameters"] for r, m in zip(records, model, strict=True) if m == k]
        parameters.append({n: np.array([p[n] for p in mine]) for n in component.model.defaults})
    where = line.fields(place, skies)
    arguments = line.painter.arguments(
        where.lightcone,
        where.pose,
        model,
        parameters,
        generator.modifiers.draw(draws),
        draws=place.of_stage(line.stages.paint),
    )

    def counts(k: int) -> NDArray[np.int32]:
        made: NDArray[np.int32] = line.painter.paint(arguments, k, k + 1)[1].cpu().numpy()
        return made

    if threads > 1 and generator.device.type == "cpu":
        with ThreadPoolExecutor(threads) as pool:
            return Counts(np.concatenate(list(pool.map(counts, range(len(indices))))))
    return Counts(np.concatenate([counts(k) for k in range(len(indices))]))


@dataclass(frozen=True)
class OtherFields:
    """What the oracle has seen."""

    counts: Float
    """The label's quantity on other fields, [K, num_samples, num_bins]."""
    sky: NDArray[np.int64]
    """Number of the sky of each field [K, num_samples]."""


def repaint_all(
    generator: Generator,
    other: Generator,
    count: int,
    *,
    threads: int = 1,
    report: Callable[[int], None] = lambda done: None,
) -> OtherFields:
    """Samples 0..count-1 painted on other fields, `FIELDS` each on as many skies of `other`.

    At least `MANY_SKIES` of them are used in turn, or all that there are; where there are only two
    or three, the samples have as many fields, and where there is one sky its fields are all of it.
    report: called with the number of samples done.
    """
    skies = _skies(other)
    num_fields = min(FIELDS, len(skies)) if len(skies) > 1 else FIELDS
    wanted = np.arange(num_fields)[:, None] + num_fields * np.arange(count)
    sky = wanted % len(skies)
    made = np.zeros((num_fields, count, generator.label.bins.num))
    done = 0
    for window in sorted({window for window, _ in skies}):
        other.scenes.of(window, ahead=False)
        place = np.array([at if of == window else -1 for of, at in skies])[sky]
        for start in range(0, count, CHUNK):
            chunk = range(start, min(start + CHUNK, count))
            for _, first, last in generator.schedule.runs(chunk):
                for k in range(num_fields):
                    chosen = [i for i in chunk[first:last] if place[k, i] >= 0]
                    if not chosen:
                        continue
                    fields = [FIRST_INDEX + num_fields * i + k for i in chosen]
                    rows = repaint(generator, other, chosen, fields, threads, place[k, chosen])
                    made[k, chosen] = generator.label.of_counts(rows.bins, rows.above)
                    done += len(chosen)
            report(done // num_fields)
    return OtherFields(made, sky)


def _skies(other: Generator) -> list[tuple[int, int]]:
    """(window, number in its scene) of the lightcones of a generator that take part."""
    schedule, found = other.schedule, dict[int, tuple[int, int]]()
    window = 0
    while not found or (
        schedule.turns
        and len(found) < MANY_SKIES
        and (schedule.num is None or len(found) < schedule.num)
    ):
        for place, number in enumerate(schedule.lightcones(window)):
            found.setdefault(number, (window, place))
        window += 1
    return list(found.values())


def score_floor(
    true: Float,
    counts: Float,
    occupied: Bool,
    fields: OtherFields,
    bin_edges: Float,
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """The oracle's errors as plain data.

    true: log10 of the count, counts, occupied: of the test samples [num_samples, num_bins]; fields:
    the oracle's, as `repaint_all` makes them; bootstrap: over the test samples' skies.
    """
    logs = np.log10(np.maximum(fields.counts, 1.0))
    skies = np.unique(fields.sky)
    every = _squares(true, logs, np.ones(fields.sky.shape, bool))
    fewer = [
        _squares(true, logs, fields.sky != left_out)
        for left_out in (skies if len(skies) >= FEWEST_SKIES else [])
    ]
    deviances = asdict(score_counts(fields.counts.mean(axis=0), counts, bin_edges, bootstrap))

    def of(inside: Bool, chosen: Bool, root: bool) -> tuple[float, float | None]:
        """Mean over the chosen bins [num_samples, num_bins] that are inside, or its root; error."""
        number = chosen[:, inside].sum(axis=1).astype(np.float64)
        sums = [np.where(chosen, one, 0.0)[:, inside].sum(axis=1) for one in (every, *fewer)]
        means = np.array([one.sum() for one in sums]) / number.sum()
        means = np.sqrt(np.maximum(means, 0.0)) if root else means
        of_maps = bootstrap.ratio(sums[0], number, root=root)
        if of_maps is None or not fewer:
            return float(means[0]), None
        jackknife = (len(fewer) - 1) * np.var(means[1:])
        return float(means[0]), float(np.hypot(of_maps, np.sqrt(jackknife)))

    def of_range(bounds: tuple[float, float], inside: Bool) -> dict[str, Any]:
        rms = of(inside, occupied, True) if occupied[:, inside].any() else (None, None)
        return {"log10_L": bounds, "rms_dex": rms[0], "rms_dex_error": rms[1]}

    everything = np.ones(true.shape[1], bool)
    mse, mse_error = of(everything, np.ones_like(occupied), False)
    return {
        "fields": len(fields.sky),
        "skies": len(skies),
        "mse": mse,
        "mse_error": mse_error,
        "ranges": [of_range(bounds, inside) for bounds, inside in ranges_with_bins(bin_edges)],
        "whole": of_range((float(bin_edges[0]), float(bin_edges[-1])), everything),
        "counts": deviances,
    }


def _squares(true: Float, logs: Float, used: Bool) -> Float:
    """(t - m)^2 - s^2 / K [num_samples, num_bins] of the fields that are used [K, num_samples]."""
    weight = used[..., None].astype(np.float64)
    number = weight.sum(axis=0)
    mean = (weight * logs).sum(axis=0) / number
    variance = (weight * (logs - mean) ** 2).sum(axis=0) / (number - 1.0)
    return np.asarray((true - mean) ** 2 - variance / number)


def few_skies(oracle: int, test: int) -> str | None:
    """A sentence where the floor rests on few skies of the oracle and of the test set."""
    if oracle >= MANY_SKIES and test >= ENOUGH_LIGHTCONES:
        return None
    error = "" if oracle >= FEWEST_SKIES and test > 1 else " and its error is not known"
    return (
        f"the floor rests on {oracle} training and {test} test skies{error}: the offset "
        "between so few can be most of it below 10^5.5 Lsun, where a number is not to be taken "
        f"for the floor of many skies; make {MANY_SKIES} and {ENOUGH_LIGHTCONES} or more"
    )
