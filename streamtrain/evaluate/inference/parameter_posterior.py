"""The luminosity model's parameters of a user's map: what a network's posterior says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from streamtrain.evaluate.posterior.corner import corner
from streamtrain.figures import NETWORK
from streamtrain.luminosity.mixture import Component, Mixture
from streamtrain.luminosity.scores import NormalScores
from streamtrain.luminosity.settings import LineConfig
from streamtrain.networks.flow import FlowHead
from streamtrain.networks.network import Network
from streamtrain.priors import Condition, Parameters
from streamtrain.ranks import PERCENTILES, QUANTILE_NAMES
from streamtrain.tables import columns

Float = NDArray[np.float64]

DRAWN = 4000
"""Samples of the posterior of each model."""


class Accepts(Protocol):
    """Whether a luminosity model of the training would be drawn with some parameters."""

    def __call__(self, parameters: Parameters, number: int = 0) -> NDArray[np.bool_]:
        """parameters: by name [B] each; number: of the model. Returns [B]."""


@dataclass(frozen=True)
class ModelPosterior:
    """What is known of one luminosity model."""

    name: str
    probability: float
    parameters: tuple[str, ...]
    samples: Float
    """Draws from the posterior, if it is this model, in the parameters' units [num,
    num_parameters]."""
    prior: Float
    """Draws from the prior in the same units [num_prior, num_parameters]."""
    left_out: float
    """Share of the posterior that the prior's constraints do not allow; it is not in the samples.
    Where it is all, there are no parameters."""

    @property
    def percentiles(self) -> Float:
        """[5, num_parameters], in the order of `QUANTILE_NAMES`."""
        return np.percentile(self.samples, PERCENTILES, axis=0)

    @property
    def prior_68(self) -> Float:
        """Ends of the prior's central 68 % intervals [2, num_parameters]: what is known without the
        map."""
        return np.percentile(self.prior, (16.0, 84.0), axis=0)


@dataclass(frozen=True)
class ParameterPosterior:
    """What is known of the luminosity model of a map."""

    models: list[ModelPosterior]

    @property
    def likeliest(self) -> ModelPosterior:
        """The likeliest model that has parameters."""
        return max((m for m in self.models if m.parameters), key=lambda m: m.probability)

    def warnings(self) -> list[str]:
        """A sentence for each model much of whose posterior its constraints do not allow."""
        return [
            f"{100 * model.left_out:.0f} % of the posterior of {model.name} breaks the constraints "
            "of its prior and is left out"
            for model in self.models
            if model.left_out > 0.1
        ]

    def plain(self) -> dict[str, Any]:
        """For a JSON file."""
        return {
            "label": "parameters",
            "samples": DRAWN,
            "models": {
                model.name: {
                    "probability": model.probability,
                    "parameters": {
                        name: dict(zip(QUANTILE_NAMES, values.tolist(), strict=True))
                        for name, values in zip(model.parameters, model.percentiles.T, strict=True)
                    },
                    "names": list(model.parameters),
                    "correlation": _correlation(model.samples),
                    "left_out": model.left_out,
                }
                for model in self.models
            },
        }

    def table(self) -> dict[str, list[Any]]:
        """Columns of a table with a row per parameter."""
        rows: dict[str, list[Any]] = {
            k: [] for k in ("model", "probability", "parameter", *QUANTILE_NAMES)
        }
        for model in self.models:
            for name, values in zip(model.parameters, model.percentiles.T, strict=True):
                row = (model.name, model.probability, name, *values.tolist())
                for column, value in zip(rows.values(), row, strict=True):
                    column.append(value)
        return rows

    def lines(self) -> list[str]:
        """For the screen."""
        made = []
        for model in self.models:
            if len(self.models) > 1:
                made.append(f"{model.name}: probability {model.probability:.3f}")
            numbers = np.concatenate([model.percentiles, model.prior_68]).T
            rows = [
                [name, f"{c:.4g}", *(f"{x:.4g} .. {y:.4g}" for x, y in ((b, d), (a, e), prior))]
                for name, (a, b, c, d, e, *prior) in zip(model.parameters, numbers, strict=True)
            ]
            if rows:
                made += columns(["parameter", "median", "68 %", "95 %", "prior's 68 %"], rows)
        return made

    def figure(self, title: str = "parameters of a map", about: Sequence[str] = ()) -> Figure:
        """Every parameter of the likeliest model against every other, and its prior; about: lines
        below the title."""
        best = self.likeliest
        title = f"{title}: {best.name}"
        if len(self.models) > 1:
            title += f", probability {best.probability:.3f}"
        title = "\n".join([title, *about])
        return corner(best.samples, best.parameters, None, best.prior, colour=NETWORK, title=title)


def parameters_of(
    network: Network, line: LineConfig, output: torch.Tensor, accepts: Accepts | None = None
) -> ParameterPosterior:
    """The posterior for one map. output: of the network for it [1, num_numbers]; line: that it was
    trained on; accepts: all conditions on its draws, which the prior beside the posterior meets;
    None: the constraints of the prior alone.
    Raises ValueError where all of it breaks the prior's constraints; of a model that is not the
    likeliest, its parameters are left out then."""
    head = network.head
    assert isinstance(head, FlowHead)
    label, classes = head.label, head.label.num_class_columns
    drawn = head.sample_scores(output, DRAWN, torch.Generator().manual_seed(0))[:, 0]
    scores = drawn.double().cpu().numpy()
    random = np.random.default_rng(0).standard_normal(scores.shape)
    chances = [1.0]
    if classes:
        chances = output[0, :classes].double().softmax(0).tolist()
    models = []
    parts = zip(Mixture(line).components, label.parameter_columns, chances, strict=True)
    for number, (component, at, chance) in enumerate(parts):
        of = NormalScores(component.prior, component.model.defaults)
        condition = component.prior.constraint
        samples = _allowed(of, component, scores[:, at], condition)
        if not len(samples) and chance < max(chances):
            none = np.zeros((DRAWN, 0))
            models.append(ModelPosterior(component.name, chance, (), none, none, 1.0))
            continue
        if not len(samples):
            raise ValueError(
                f"the whole posterior of {component.name} breaks the constraints of its prior: the "
                "network has not learned them, train it longer"
            )
        of_training = condition if accepts is None else partial(accepts, number=number)
        prior = _allowed(of, component, random[:, at], of_training)
        left_out = 1.0 - len(samples) / DRAWN
        models.append(ModelPosterior(component.name, chance, of.names, samples, prior, left_out))
    if not any(model.parameters for model in models):
        raise ValueError(
            "the likeliest model has no parameters, and the whole posterior of the others breaks "
            "the constraints of their priors: the network has not learned them, train it longer"
        )
    return ParameterPosterior(models)


def _allowed(
    of: NormalScores, component: Component, scores: Float, condition: Condition | None
) -> Float:
    """Parameters [num, num_names] of those scores [DRAWN, num_names] that meet a condition."""
    values = of.values(scores)
    made = np.stack([*values.values()], axis=1) if values else np.zeros((len(scores), 0))
    if condition is None:
        return made
    held = component.prior.held(component.model.defaults)
    whole = {name: np.broadcast_to(value, len(scores)) for name, value in held.items()}
    return made[condition({**whole, **values})]


def _correlation(samples: Float) -> list[list[float]]:
    """Of the parameters; 0 for one that is the same in all samples."""
    if samples.shape[1] == 0:
        return []
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.atleast_2d(np.corrcoef(samples, rowvar=False))
    made = np.nan_to_num(found)
    np.fill_diagonal(made, 1.0)
    return [[float(value) for value in row] for row in made]
