"""The error of an oracle that knows a map's parameters exactly, but not its field.

For every test sample the same parameters (of the luminosity model, and factors of emitters such as
`brightness`) are painted on K other fields with other scatter, fields of the training's skies. The
oracle answers with their mean, as a perfect parameter fit would: what is left is Poisson noise and
field-to-field scatter. It is a floor for everything that works through parameters, such as a fit to
a power spectrum. A network sees the field itself, so without noise it may get below it.

The mean of K fields m scatters too. As the truth t and the fields are independent, E[(t - m)^2] =
E[(t - mu)^2] + sigma^2 / K for any selection by t, and sigma^2 is the variance between the K
fields; so the mean of (t - m)^2 - s^2 / K is that of an oracle of infinitely many fields, without
bias. The deviance is that of the oracle of K fields, a little above the floor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.evaluate.bootstrap import Bootstrap, Float
from streamtrain.evaluate.likelihood import score_counts
from streamtrain.evaluate.metrics import Bool
from streamtrain.generator.bins import ranges_with_bins
from streamtrain.generator.generator import Generator
from streamtrain.generator.labels import Label
from streamtrain.rng import STAGE_POSE, Draws, sample_indices

FIELDS = 4
"""Other fields per test sample, K."""
CHUNK = 16
FIRST_INDEX = 2**40
"""Index of the first other field, far from those that a training reaches."""


def repaint(
    generator: Generator,
    other: Generator,
    indices: Sequence[int],
    fields: Sequence[int],
    threads: int = 1,
) -> NDArray[np.int32]:
    """Counts of samples of `generator`, each painted on a field of `other` with its scatter.

    indices: of the samples [B], within one window of the schedule; fields: indices of the samples
    of `other` whose field and scatter are taken [B]. Returns the kernel's counts, bins and the
    three extra ones, int32 [B, num_bins + 3].
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
    where = line.fields(place)
    job = line.painter.job(
        where.lightcone,
        where.pose,
        model,
        parameters,
        generator.emitters.draw(draws),
        draws=place.of_stage(line.stages.paint),
    )

    def counts(k: int) -> NDArray[np.int32]:
        made: NDArray[np.int32] = line.painter.paint(job, k, k + 1)[1].cpu().numpy()
        return made

    if threads > 1 and generator.device.type == "cpu":
        with ThreadPoolExecutor(threads) as pool:
            return np.concatenate(list(pool.map(counts, range(len(indices)))))
    return np.concatenate([counts(k) for k in range(len(indices))])


def repaint_all(
    generator: Generator,
    other: Generator,
    count: int,
    *,
    threads: int = 1,
    told: Callable[[int], None] = lambda done: None,
) -> Float:
    """Counts of the label's quantity of samples 0..count-1 on `FIELDS` other fields each,
    [FIELDS, count, num_bins]. told: called with the number of samples done."""
    parts = []
    for start in range(0, count, CHUNK):
        stop = min(start + CHUNK, count)
        for _, first, last in generator.schedule.runs(range(start, stop)):
            indices = range(start + first, start + last)
            rows = [
                repaint(
                    generator, other, indices,
                    [FIRST_INDEX + FIELDS * i + k for i in indices], threads,
                )
                for k in range(FIELDS)
            ]  # fmt: skip
            parts.append(np.stack([label_counts(generator.label, row) for row in rows]))
        told(stop)
    return np.concatenate(parts, axis=1)


def label_counts(label: Label, raw: NDArray[np.int32]) -> Float:
    """The counts of the label's quantity from the kernel's, [B, num_bins]."""
    counts = raw[:, : label.bins.num].astype(np.float64)
    if label.config.quantity != "cumulative":
        return counts
    above = raw[:, label.bins.num : label.bins.num + 1] * float(label.config.overflow)
    return np.asarray(np.cumsum(counts[:, ::-1], axis=1)[:, ::-1] + above)


def score_floor(
    true: Float,
    counts: Float,
    occupied: Bool,
    fields: Float,
    bin_edges: Float,
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """The oracle's errors as plain data.

    true: log10 of the count, counts, occupied: of the test samples [num_samples, num_bins]; fields:
    counts on other fields [K, num_samples, num_bins], K at least 2.
    """
    number = len(fields)
    logs = np.log10(np.maximum(fields, 1.0))
    squares = (true - logs.mean(axis=0)) ** 2 - logs.var(axis=0, ddof=1) / number
    per_map = squares.mean(axis=1)
    deviances = asdict(score_counts(fields.mean(axis=0), counts, bin_edges, bootstrap))

    def of(bounds: tuple[float, float], inside: Bool) -> dict[str, Any]:
        holding = occupied[:, inside].sum(axis=1).astype(np.float64)
        sums = np.where(occupied, squares, 0.0)[:, inside].sum(axis=1)
        if not holding.sum():
            return {"log10_L": bounds, "rms_dex": None, "rms_dex_error": None}
        rms = float(np.sqrt(max(sums.sum() / holding.sum(), 0.0)))
        return {
            "log10_L": bounds,
            "rms_dex": rms,
            "rms_dex_error": bootstrap.ratio(sums, holding, root=True),
        }

    everything = np.ones(true.shape[1], bool)
    return {
        "fields": number,
        "mse": float(per_map.mean()),
        "mse_error": bootstrap.mean(per_map),
        "ranges": [of(bounds, inside) for bounds, inside in ranges_with_bins(bin_edges)],
        "whole": of((float(bin_edges[0]), float(bin_edges[-1])), everything),
        "counts": deviances,
    }
