"""What a network's scores are put beside: constant predictions, and the published numbers.

A constant prediction is the mean of the training labels, or of the scenario's own test labels.
published_accuracy.json holds, for each test scenario of Pfeffer, Breysse and Stein 2019
(1905.10376), the mean squared error of log10 dN and statistics per luminosity bin of the
predictions that they stored with their code, and the 95 % limits of Ihle et al. 2019 (1808.07487)
that they compared with.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from streamtrain.bins import ranges_with_bins
from streamtrain.config import Config, load_config
from streamtrain.evaluate import testset
from streamtrain.evaluate.bootstrap import Bootstrap, Float
from streamtrain.evaluate.scores import Bool
from streamtrain.generator.generator import Generator
from streamtrain.machine.progress import SILENT, Progress
from streamtrain.ranks import PERCENTILES
from streamtrain.shipped import resource_dir

MEAN_LABEL_SAMPLES = 512
"""Samples of the split "train", from index 0, whose mean label is the baseline."""


@dataclass(frozen=True)
class MeanLabelBaseline:
    """One prediction for every map."""

    mean: Float
    """Mean log10 of the count [num_bins], or the frequencies of the classes [num_classes]."""
    mean_error: Float
    """Standard error of it, over skies where there are enough (see `Bootstrap.choose`)."""
    rate: Float
    """Mean count [num_bins], the constant of least deviance."""
    rate_error: Float

    @classmethod
    def of(cls, labels: Float, counts: Float, skies: Sequence[str]) -> MeanLabelBaseline:
        """The mean of some samples. labels: log10 of the count, or one-hot classes; counts
        [num_samples, num_bins]; skies: what each was cut from [num_samples]."""
        bootstrap = Bootstrap.choose(skies)

        def error(values: Float) -> Float:
            return np.array([bootstrap.mean(column) or 0.0 for column in values.T])

        return cls(labels.mean(axis=0), error(labels), counts.mean(axis=0), error(counts))

    @classmethod
    def of_evaluation(cls, evaluation: Mapping[str, Any] | None) -> MeanLabelBaseline | None:
        """The mean label of the training samples that a run's evaluation.json holds; None where it
        holds none, or the label is a class."""
        try:
            names = ("log10_dN", "log10_dN_error", "dN", "dN_error")
            rows = [np.array((evaluation or {})[f"mean_label_{n}"], np.float64) for n in names]
        except (ValueError, KeyError, TypeError):
            return None
        return cls(*rows)


def mean_label(generator: Generator, progress: Progress = SILENT) -> MeanLabelBaseline:
    """The mean of the first training samples. generator: of the split "train"."""
    label, labels, counts = generator.label, [], []
    skies: list[str] = []
    for indices, batch in testset.batches(generator, MEAN_LABEL_SAMPLES):
        values = batch.label.double()
        if label.is_class:
            counts.append(values.cpu().numpy())
        else:
            values = label.log10_counts(values, batch.unit_label)
            occupied = label.occupied(batch.label, batch.counts).cpu().numpy()
            counts.append(np.where(occupied, 10.0 ** values.cpu().numpy(), 0.0))
        labels.append(values.cpu().numpy())
        skies += testset.skies_of(generator, batch)
        progress.count("mean label", indices[-1] + 1, MEAN_LABEL_SAMPLES, "training samples")
    return MeanLabelBaseline.of(np.concatenate(labels), np.concatenate(counts), skies)


FILE = Path(__file__).parent / "published_accuracy.json"
TRAINED_ON = "noisy_foreground_random"
"""The scenario that the published network was trained on."""


@dataclass(frozen=True)
class Published:
    """The published errors in one scenario."""

    mse: float
    """Mean squared error of log10 dN, all bins [dex^2]."""
    mse_mean_predictor: float
    """Mean squared error of always predicting the mean log10 dN of the test maps themselves."""
    maps: int
    num: Float
    """Maps whose bin holds more than one halo [num_bins]."""
    rms_dex: Float
    """Root mean square of log10(predicted / true) over them [num_bins]."""
    percentiles: Float
    """2.5th, 16th, 50th, 84th and 97.5th of delta over them [5, num_bins]."""
    note: str
    """What is wrong with it; empty: nothing."""

    def rms(self, inside: Bool) -> float:
        """Over some bins [dex]."""
        squares = self.num[inside] * self.rms_dex[inside] ** 2
        return float(np.sqrt(squares.sum() / self.num[inside].sum()))

    def as_data(self) -> dict[str, Any]:
        """Numbers for the record; they have no errors, the maps behind them not being stored."""
        edges = bin_edges()
        whole = np.ones(len(edges) - 1, bool)
        return {
            "mse": self.mse,
            "mse_scenario_mean": self.mse_mean_predictor,
            "maps": self.maps,
            "ranges": [
                {"log10_L": bounds, "rms_dex": self.rms(inside)}
                for bounds, inside in ranges_with_bins(edges)
            ],
            "whole": {"log10_L": (float(edges[0]), float(edges[-1])), "rms_dex": self.rms(whole)},
            "note": self.note,
        }


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def bin_edges() -> Float:
    """log10(L/Lsun) of the published bins [50]."""
    low, high = _content()["log10_L"]
    return np.linspace(low, high, _content()["bins"] + 1)


def published(scenario: str) -> Published | None:
    """The published errors of a scenario by name; None if there are none."""
    entry = _content()["scenarios"].get(scenario)
    if entry is None:
        return None
    rows = [_numbers(entry["percentiles"][f"{q:g}"]) for q in PERCENTILES]
    return Published(
        entry["mse"],
        entry["mse_mean_predictor"],
        entry["maps"],
        _numbers(entry["num"]),
        _numbers(entry["rms_dex"]),
        np.stack(rows),
        entry.get("note", ""),
    )


def ihle2019() -> tuple[Float, Float]:
    """95 % limits of delta of Ihle et al. 2019, lower and upper [49]; NaN where they have none."""
    limits = _content()["ihle2019"]
    return _numbers(limits["lower"]), _numbers(limits["upper"])


def comparable(quantity: str, edges: Float) -> bool:
    """Whether errors of a label can stand beside the published ones: those of dN in the same
    bins."""
    ours = bin_edges()
    return quantity != "cumulative" and len(edges) == len(ours) and np.allclose(edges, ours)


def same_maps(config: Config, *names: str) -> bool:
    """Whether sections of a configuration, such as grid, are those of the published network's
    maps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of their oddities
        theirs = load_config(resource_dir("configs") / "pfeffer2019" / "published.yaml")
    return all(getattr(config, name) == getattr(theirs, name) for name in names)


def _numbers(values: list[float | None]) -> Float:
    return np.array([np.nan if v is None else v for v in values])
