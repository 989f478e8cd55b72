"""What a network's posterior of the luminosity model's parameters is worth on a test set.

Scores are normal scores of the prior (`luminosity.scores`), each parameter for itself: in units of
the prior's standard deviation where that is normal. A model's parameters are looked at in the maps
that it made, in its own posterior, whatever probability the model has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.evaluate.bootstrap import Bootstrap, Float
from streamtrain.figures import LABEL_SIZE, NETWORK, TICK_SIZE, TRUTH
from streamtrain.generator.batch import Batch
from streamtrain.generator.generator import Generator
from streamtrain.labels import Label
from streamtrain.luminosity.mixture import Mixture
from streamtrain.luminosity.scores import scores_of
from streamtrain.networks.flow import FlowHead
from streamtrain.networks.heads import Head
from streamtrain.ranks import uniformity
from streamtrain.tables import columns, error_lines, plus_minus

DRAWN = 500
"""Samples of the posterior of each map."""
RANK_BINS = 20
COLUMNS = 5
"""Parameters in a row of the figure."""
CONVENTIONS = {
    "information": "mean of ln(posterior / prior) of the true model and parameters [nat], of the "
    "prior with all its conditions",
    "width": "mean standard deviation of the posterior, in those of the prior (of normal scores)",
    "rms": "of the posterior's mean minus the truth, likewise",
    "bias_sigma": "mean of (posterior's mean - truth) / posterior's standard deviation",
    "coverage": "share of the maps whose truth lies in the central 68 % or 95 % of the posterior",
    "ranks": f"maps by the share of the posterior below the truth, in {RANK_BINS} bins: even, if "
    "it is honest",
    "p": "that ranks of an honest posterior would be as uneven (mean, width and shape, see "
    "streamtrain/ranks.py), for independent maps",
    "regions": "likewise of all parameters together: of the share of the posterior that is nearer "
    "to a point drawn from the prior than the truth is (TARP, 2302.03026)",
}


@dataclass(frozen=True)
class ParameterPredictions:
    """A network's posterior for the maps of a test set, and the truth.

    n: parameters of all models, in the order of the label.
    """

    information: Float
    """ln of posterior over prior of the truth [num_samples], but for `ln_accepted`."""
    ln_accepted: Float
    """ln of the share of the prior that its conditions leave of each model's scores, which the true
    one has been added to `information` for [num_models]."""
    model: NDArray[np.int64]
    """Number of the model that made each map [num_samples]."""
    chances: Float
    """Probability of each model [num_samples, num_models]."""
    true: Float
    """Scores of the truth [num_samples, n]; those of models that did not make a map mean nothing,
    here and below."""
    mean: Float
    """Mean of the posterior's scores [num_samples, n]."""
    std: Float
    """Standard deviation of the posterior's scores [num_samples, n]."""
    rank: Float
    """Place of the truth in the posterior, from 0 to 1 [num_samples, n]."""
    region: Float
    """Share of the posterior that is nearer to a point drawn from the prior than the truth is, in
    all parameters together [num_samples]."""
    quantiles: Float
    """16th, 50th and 84th percentile of the parameters in their own units [3, num_samples, n]."""
    true_values: Float
    """The true parameters in their own units [num_samples, n]."""
    label: Label
    skies: list[str] | None = None
    """The sky that each map was cut from [num_samples]."""
    alarm: Float | None = None
    """p-value of each map's alarm [num_samples]; None where the run has no reference for one."""


class PosteriorOf:
    """Draws from the posterior of batches.

    generator: of the test set, whose prior is that of the training.
    """

    def __init__(self, generator: Generator) -> None:
        self._label = generator.label
        self._scores = scores_of(Mixture(generator.config.line))
        self.ln_accepted = generator.ln_accepted()

    def part(self, head: Head, batch: Batch, output: Tensor) -> dict[str, NDArray[Any]]:
        """Fields of `ParameterPredictions` for a batch."""
        assert isinstance(head, FlowHead)
        label, true = self._label, batch.label.to(output.device)
        classes = label.num_class_columns
        random = torch.Generator().manual_seed(batch.indices[0] % 2**63)
        drawn = head.sample_scores(output, DRAWN, random)
        information = (head.log_prob(output, true) - head.log_prior(true)).double().cpu().numpy()
        model = np.zeros(len(batch), np.int64)
        chances = np.ones((len(batch), 1))
        if classes:
            model = true[:, :classes].argmax(1).cpu().numpy()
            chances = output[:, :classes].double().softmax(1).cpu().numpy()
        own = self.values(drawn)
        nearer = self._nearer(drawn, true, model, random)
        scores, truth = (
            label.marginal(v)[..., classes:].double().cpu().numpy() for v in (drawn, true)
        )
        luck = torch.rand(truth.shape, generator=random).numpy()
        return {
            "information": information + self.ln_accepted[model],
            "model": model,
            "chances": chances,
            "true": truth,
            "mean": scores.mean(axis=0),
            "std": scores.std(axis=0),
            "rank": ((scores < truth).sum(axis=0) + luck) / (DRAWN + 1),
            "region": nearer,
            "quantiles": np.moveaxis(np.percentile(own, (16, 50, 84), axis=0), 0, 1),
            "true_values": self.values(true),
        }

    def _nearer(
        self, drawn: Tensor, true: Tensor, model: NDArray[np.int64], random: torch.Generator
    ) -> Float:
        """`ParameterPredictions.region` of labels [B, num_outputs], in independent scores."""
        point = torch.randn(true.shape, generator=random).to(true)
        made = torch.zeros_like(true)
        for number, at in enumerate(self._label.parameter_columns):
            made[torch.from_numpy(model == number).to(made.device), at] = 1.0
        away, exact = (((v - point) ** 2 * made).sum(-1) for v in (drawn, true))
        luck = torch.rand(len(true), generator=random).numpy()
        return ((away < exact).sum(0).cpu().numpy() + luck) / (DRAWN + 1)

    def values(self, labels: Tensor) -> Float:
        """Parameters in their own units [..., n] of labels [..., num_outputs]."""
        wide, made = labels.double().cpu().numpy(), []
        for one, at in zip(self._scores, self._label.parameter_columns, strict=True):
            made += list(one.values(wide[..., at]).values())
        return np.stack(made, axis=-1)


def together(
    parts: Sequence[Mapping[str, NDArray[Any]]], of: PosteriorOf, label: Label, skies: list[str]
) -> ParameterPredictions:
    """The predictions of all batches."""
    whole: dict[str, Any] = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
    whole["quantiles"] = np.moveaxis(whole["quantiles"], 1, 0)
    return ParameterPredictions(**whole, ln_accepted=of.ln_accepted, label=label, skies=skies)


@dataclass(frozen=True)
class ParameterScore:
    """How well one parameter is known; standard errors come from a bootstrap."""

    maps: int
    width: float
    width_error: float | None
    rms: float
    rms_error: float | None
    bias_sigma: float
    bias_sigma_error: float | None
    coverage_68: float
    coverage_68_error: float | None
    coverage_95: float
    coverage_95_error: float | None
    ranks: list[int]
    p: float
    """Probability that ranks of an honest posterior are as uneven, for independent maps."""


def score_parameters(
    predictions: ParameterPredictions, bootstrap: Bootstrap
) -> dict[str, ParameterScore]:
    """The score of every parameter that some map was made with, by name."""
    found, column = {}, 0
    names = predictions.label.parameter_names
    for number, model in enumerate(predictions.label.parameters):
        made = (predictions.model == number).astype(np.float64)
        for _ in model.names:
            if made.any():
                found[names[column]] = _score(predictions, column, made, bootstrap)
            column += 1
    return found


def _score(
    predictions: ParameterPredictions, column: int, made: Float, bootstrap: Bootstrap
) -> ParameterScore:
    """made: 1 for the maps of the parameter's model [num_samples]."""
    true, mean, std, rank = (
        values[:, column]
        for values in (predictions.true, predictions.mean, predictions.std, predictions.rank)
    )

    def of(values: Float, *, root: bool = False) -> tuple[float, float | None]:
        average = float((made * values).sum() / made.sum())
        error = bootstrap.ratio(made * values, made, root=root)
        return (float(np.sqrt(average)) if root else average), error

    away = np.abs(rank - 0.5)
    return ParameterScore(
        int(made.sum()),
        *of(std),
        *of((mean - true) ** 2, root=True),
        *of((mean - true) / std),
        *of((away <= 0.34).astype(np.float64)),
        *of((away <= 0.475).astype(np.float64)),
        np.histogram(rank[made > 0], RANK_BINS, (0.0, 1.0))[0].tolist(),
        uniformity(rank[made > 0]).p,
    )


def _regions(predictions: ParameterPredictions, bootstrap: Bootstrap) -> dict[str, Any]:
    """Coverage of regions of all parameters together, of the maps whose model has some."""
    some = np.array([bool(m.names) for m in predictions.label.parameters])[predictions.model]
    found: dict[str, Any] = {"p": uniformity(predictions.region[some]).p if some.any() else 1.0}
    for level in (68, 95):
        inside = some * (predictions.region <= level / 100)
        found[f"coverage_{level}"] = float(inside.sum() / max(some.sum(), 1))
        found[f"coverage_{level}_error"] = bootstrap.ratio(inside * 1.0, some * 1.0)
    return found


def scores_of_parameters(
    predictions: ParameterPredictions, bootstrap: Bootstrap, errors: str
) -> dict[str, Any]:
    """The scores as plain data; errors: how standard errors were made."""
    info = predictions.information
    accepted = np.exp(predictions.ln_accepted)
    network: dict[str, Any] = {
        "information": float(info.mean()),
        "information_error": bootstrap.mean(info),
        "regions": _regions(predictions, bootstrap),
        "parameters": {k: asdict(v) for k, v in score_parameters(predictions, bootstrap).items()},
    }
    return {
        "label": "parameters",
        "classes": predictions.label.classes,
        "conventions": CONVENTIONS | {"errors": errors},
        "accepted": dict(zip(predictions.label.classes, accepted.tolist(), strict=True)),
        "network": network,
    }


def parameter_lines(result: Mapping[str, Any]) -> list[str]:
    """The scores as text."""
    network = result["network"]
    keys = ("width", "rms", "bias_sigma", "coverage_68", "coverage_95")
    rows = [
        [
            name,
            str(of["maps"]),
            *(plus_minus(of[key], of[f"{key}_error"], ".3f") for key in keys),
            f"{of['p']:.2g}",
        ]
        for name, of in network["parameters"].items()
    ]
    together = network["regions"]
    inside = (plus_minus(together[k], together[f"{k}_error"], ".3f") for k in keys[-2:])
    rows.append(["all together", "", "", "", "", *inside, f"{together['p']:.2g}"])
    known = plus_minus(network["information"], network["information_error"], ".3f")
    return [
        f"information over the prior: {known} nat",
        "widths and errors of the posterior in standard deviations of the prior (normal scores);",
        "bias/sigma of the posterior's mean, positive if it is too high;",
        *error_lines(result["bootstrap"]),
        "",
        *columns(
            ["parameter", "maps", "width", "rms", "bias/sigma", "in 68 %", "in 95 %", "p"], rows
        ),
        "p: that an honest posterior has ranks as uneven as these, if maps were independent",
    ]


def parameter_figure(predictions: ParameterPredictions) -> Figure:
    """For every parameter the posterior's median and 68 % against the truth, and below it how the
    ranks of the truth are distributed."""
    label, names = predictions.label, predictions.label.parameter_names
    of = np.repeat(np.arange(len(label.parameters)), [len(m.names) for m in label.parameters])
    rows, wide = -(-len(names) // COLUMNS), min(len(names), COLUMNS)
    figure = Figure(figsize=(1.0 + 2.6 * wide, 0.5 + 4.4 * rows), dpi=130, layout="constrained")
    heights = [2.4, 1.4] * rows
    panels = figure.subplots(2 * rows, wide, squeeze=False, height_ratios=heights)
    for axes in panels.ravel():
        axes.set_axis_off()
    for number, name in enumerate(names):
        made = predictions.model == of[number]
        upper, lower = (panels[2 * (number // COLUMNS) + k, number % COLUMNS] for k in (0, 1))
        for axes in (upper, lower):
            axes.set_axis_on()
            axes.tick_params(labelsize=TICK_SIZE - 2)
            axes.locator_params(nbins=4)
        upper.set_ylabel("posterior, 68 %", fontsize=TICK_SIZE)
        lower.set_ylabel("maps", fontsize=TICK_SIZE)
        if not made.any():
            continue
        low, middle, high = predictions.quantiles[:, made, number]
        true = predictions.true_values[made, number]
        upper.errorbar(
            true, middle, (middle - low, high - middle), fmt=".", color=NETWORK, ms=3, lw=0.6,
            alpha=0.5,
        )  # fmt: skip
        ends = [min(true.min(), middle.min()), max(true.max(), middle.max())]
        upper.plot(ends, ends, color=TRUTH, lw=0.8)
        upper.set_title(name, fontsize=TICK_SIZE)
        rank = predictions.rank[made, number]
        lower.hist(rank, RANK_BINS, range=(0.0, 1.0), color=NETWORK, alpha=0.6)
        lower.axhline(len(rank) / RANK_BINS, color=TRUTH, lw=0.8)
        upper.set_xlabel("true", fontsize=TICK_SIZE)
        lower.set_xlabel("rank of the truth", fontsize=TICK_SIZE)
    figure.suptitle("parameters of the luminosity model on all test maps", fontsize=LABEL_SIZE)
    return figure
