"""Samples and posteriors in the form that sbi takes them.

sbi (https://github.com/sbi-dev/sbi) infers parameters theta of data x by simulation, and tests
posteriors of any origin. Here x is a map as a network takes it [n_freq, n_dec, n_ra]. With the
label `parameters` of one luminosity model theta is that label, the normal scores of what is drawn.
With all others it is the luminosity function of the map's halos [num_bins],

    theta_k = log10(N_k + u_k),   u_k uniform between 0 and 1,

with N_k halos in bin k. The u make a continuous number of a count (dequantisation; Theis, van den
Oord and Bethge 2016, arXiv:1511.01844), for truths and samples alike: ranks have no ties, and are
uniform if the posterior of the counts is exact. 10^theta, rounded down, is the count again, and
between N and N + 1 the density of 10^theta is the probability of N, so that

    ln p(theta | x) = ln P(N | x) + sum over k of ln(10^theta_k ln 10).

Nothing here imports sbi, whose diagnostics ask a posterior for its methods alone. As everywhere in
sbi, theta and x are float32, in which a count of 10^5 is known to a tenth of a halo.

Axes: b map, k luminosity bin or parameter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streamtrain.arguments import all_numbers, whole_number
from streamtrain.generator.batch import Batch
from streamtrain.generator.generator import Generator
from streamtrain.labels import Label
from streamtrain.networks.flow import FlowHead
from streamtrain.networks.network import Network
from streamtrain.numerics.portable import LN10
from streamtrain.numerics.rng import STAGE_THETA, Draws, sample_indices
from streamtrain.stream import SampleStream

MOST_HALOS = 2.0**53
"""float64 holds every whole number up to here, and no draw has more."""
BATCH_SIZE = 16
"""Maps that are made, or looked at, at a time; it decides nothing but memory."""


class SbiPosterior:
    """The posterior of a network, with the methods of sbi's posteriors; theta are luminosity
    functions, or parameters (see the top of streamtrain/evaluate/for_sbi.py).

    It can be given to `run_sbc`, `run_tarp` and `get_nltp` of `sbi.diagnostics`; its samples are of
    torch's global random numbers, as those of sbi are. It is no `NeuralPosterior`: it has no `map`,
    since its density jumps from count to count, and no prior. Its answers are on the CPU.
    `Run.sbi_posterior` makes it.
    """

    def __init__(self, network: Network, input_shape: tuple[int, int, int]) -> None:
        """network: whose head predicts a distribution of counts or parameters; input_shape: of its
        maps. Raises ValueError for the parameters of a mixture of models."""
        if isinstance(network.head, FlowHead):
            _check_one_model(network.head.label)
        self._network, self._input_shape = network, tuple(input_shape)
        self.default_x: Tensor | None = None
        """The map [1, n_freq, n_dec, n_ra] that is taken where none is given."""

    def set_default_x(self, x: Tensor) -> SbiPosterior:
        """Take this map [n_freq, n_dec, n_ra] where none is given; returns the posterior."""
        self.default_x = self._one(x)
        return self

    def sample(
        self,
        sample_shape: Sequence[int] = (),
        x: Tensor | None = None,
        show_progress_bars: bool = True,
    ) -> Tensor:
        """Draw theta for one map, float32 [*sample_shape, num_theta].

        x: [n_freq, n_dec, n_ra], or [1, ...]; show_progress_bars: sbi passes it, there are none.
        Raises ValueError, one sentence, for a map that does not fit the network.
        """
        return self.sample_batched(sample_shape, self._one(x)).squeeze(-2)

    def sample_batched(
        self, sample_shape: Sequence[int], x: Tensor, show_progress_bars: bool = True
    ) -> Tensor:
        """Draw theta for each of B maps, float32 [*sample_shape, B, num_theta].

        x: [B, n_freq, n_dec, n_ra]. Raises ValueError, one sentence, for maps that do not fit the
        network.
        """
        shape, maps, drawn = _shape(sample_shape), self._maps(x), []
        chance = torch.Generator().manual_seed(int(torch.randint(2**63 - 1, ())))
        for prediction in self._predictions(maps):
            with torch.inference_mode():
                label = self._network.head.sample(prediction, shape.numel(), chance).cpu()
            if isinstance(self._network.head, FlowHead):
                drawn.append(label.clone())
                continue
            place = torch.rand(label.shape, generator=chance, dtype=torch.float64)
            drawn.append(theta_of(label, 1.0 - place))
        found = torch.cat(drawn, dim=1)
        return found.view(*shape, *found.shape[1:])

    def log_prob(self, theta: Tensor, x: Tensor | None = None) -> Tensor:
        """ln of the posterior density of theta [num_theta] or [n, num_theta], float64 [n], n >= 1.

        x: one map, as in `sample`. Raises ValueError as that does, and for theta of another shape.
        """
        given = torch.atleast_2d(_tensor(theta, "theta"))
        return self.log_prob_batched(given[:, None], self._one(x))[:, 0]

    def log_prob_batched(self, theta: Tensor, x: Tensor) -> Tensor:
        """ln of the posterior density of theta [..., B, num_theta] of B maps, float64 [..., B].

        x: [B, n_freq, n_dec, n_ra]. Raises ValueError, one sentence, for shapes that do not fit.
        """
        given, maps = _tensor(theta, "theta").cpu(), self._maps(x)
        num = self._network.head.num_outputs
        if given.ndim < 2 or given.shape[-2:] != (len(maps), num):
            raise ValueError(
                f"theta has the shape {tuple(given.shape)}, not (..., {len(maps)}, {num}): {num} "
                f"numbers for each of the {len(maps)} maps"
            )
        found, first = [], 0
        for prediction in self._predictions(maps):
            part = given[..., first : first + len(prediction), :].to(prediction.device)
            with torch.inference_mode():
                found.append(self._log_density(prediction, part).cpu())
            first += len(prediction)
        return torch.cat(found, dim=-1)

    def _log_density(self, prediction: Tensor, theta: Tensor) -> Tensor:
        """float64 [..., B] of theta [..., B, num_theta]."""
        head = self._network.head
        if isinstance(head, FlowHead):
            many = prediction.expand(*theta.shape[:-1], -1).flatten(0, -2)
            rows = head.log_prob(many, theta.float().flatten(0, -2))
            return rows.view(theta.shape[:-1]).double()
        wide = theta.double()
        counts = counts_of(wide)
        jacobian = LN10 * wide.sum(-1) + theta.shape[-1] * math.log(LN10)
        found = head.log_prob(prediction, counts.clamp(max=MOST_HALOS)).double() + jacobian
        return torch.where((counts > MOST_HALOS).any(-1), -torch.inf, found)

    def potential(self, theta: Tensor, x: Tensor | None = None) -> Tensor:
        """`log_prob`, under the name by which `get_nltp` asks for it. Its warning that it were not
        normalised is wrong here."""
        return self.log_prob(theta, x)

    def _one(self, x: Tensor | None) -> Tensor:
        if x is None:
            if self.default_x is None:
                raise ValueError("no map is given: pass it as x, or set it with set_default_x")
            return self.default_x
        maps = self._maps(x)
        if len(maps) != 1:
            raise ValueError(
                f"x has {len(maps)} maps where one is wanted; sample_batched and log_prob_batched "
                "take many"
            )
        return maps

    def _maps(self, x: Tensor) -> Tensor:
        """float32 [B, n_freq, n_dec, n_ra], checked."""
        maps = _tensor(x, "x").float()
        maps = maps[None] if maps.ndim == 3 else maps
        if maps.ndim != 4 or tuple(maps.shape[1:]) != self._input_shape or not len(maps):
            raise ValueError(
                f"x has the shape {tuple(maps.shape)}, the network takes {self._input_shape} "
                "(freq, dec, ra), or several of them, after all operators of its configuration, as "
                "Run.network_input makes it of a map"
            )
        if not torch.isfinite(maps).all():
            bad = int((~torch.isfinite(maps)).sum())
            raise ValueError(f"{bad} of the {maps.numel()} numbers of x are NaN or infinite")
        return maps

    def _predictions(self, maps: Tensor) -> Iterator[Tensor]:
        """What the network says of a few maps at a time, [B, num_numbers]."""
        for part in maps.split(BATCH_SIZE):
            with torch.inference_mode():
                prediction = self._network(part.to(self._network.input_mean.device))
            if not torch.isfinite(prediction).all():
                raise ValueError(
                    "the network's prediction is not finite: its training has diverged, or the map "
                    "is far beyond what it was trained on"
                )
            yield prediction


def _tensor(values: Any, where: str) -> Tensor:
    """Numbers as floats; a tensor of them as it is. Raises ValueError for what is none."""
    if isinstance(values, Tensor) and values.is_floating_point():
        return values if values.layout == torch.strided else values.to_dense()
    return torch.from_numpy(np.array(all_numbers(values, where), order="C"))


def _shape(sample_shape: Any) -> torch.Size:
    """How many samples are drawn. Raises ValueError for what is no shape."""
    if isinstance(sample_shape, str) or not isinstance(sample_shape, Sequence):
        raise ValueError(f"sample_shape must be like (1000,), not {sample_shape!r:.40}")
    found = torch.Size(whole_number(size, "a number of sample_shape") for size in sample_shape)
    if min(found, default=0) < 0:
        raise ValueError(f"sample_shape = {tuple(found)} must be 0 or more")
    return found


def simulations(generator: Generator, number: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """theta [number, num_theta] and x [number, n_freq, n_dec, n_ra] of samples, float32, for
    `append_simulations`, `run_sbc` and `run_tarp` of sbi.

    generator: of any split, such as `run.training()` or `run.testing()`; first: index of the first
    sample. A sample has the same theta and x whenever it is made. Raises ValueError for a label of
    the parameters of a mixture of models, and for no samples.
    """
    if (number := whole_number(number, "simulations: number")) < 1:
        raise ValueError(f"simulations: number = {number} must be 1 or more")
    first, parts = whole_number(first, "simulations: first"), []
    last = first + number
    for begin in range(first, last, BATCH_SIZE):
        indices = range(begin, min(begin + BATCH_SIZE, last))
        parts.append(theta_and_x(generator, generator.generate(indices)))
    theta, x = zip(*parts, strict=True)
    return torch.cat(theta), torch.cat(x)


def stream(
    generator: Generator, batch_size: int, start: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of `simulations` for ever, for training loops of one's own; generator, batch_size,
    start: see `SampleStream`."""
    with closing(SampleStream(generator, batch_size, start=start)) as batches:
        for batch in batches:
            yield theta_and_x(generator, batch)


def theta_and_x(generator: Generator, batch: Batch) -> tuple[Tensor, Tensor]:
    """theta [B, num_theta] and x [B, n_freq, n_dec, n_ra] of a batch that a generator made; see
    `simulations`."""
    batch.check()
    if generator.label.is_parameters:
        _check_one_model(generator.label)
        return batch.label, batch.cube
    indices = sample_indices(batch.indices)
    draws = Draws(generator.seed, generator.split, indices, STAGE_THETA)
    place = torch.from_numpy(draws.uniform(range(generator.num_bins))).to(batch.counts.device)
    return theta_of(batch.counts, place), batch.cube


def theta_of(counts: Tensor, place: Tensor) -> Tensor:
    """theta of halos per bin [..., num_bins], float32; place: between a count and the next one, in
    0..1 [..., num_bins]."""
    return (counts.double() + place).log10().float()


def counts_of(theta: Tensor) -> Tensor:
    """The halos per bin of theta [..., num_bins], float64."""
    return torch.pow(10.0, theta.double()).floor()


def _check_one_model(label: Label) -> None:
    if label.num_class_columns:
        raise ValueError(
            f"the parameters of several models ({', '.join(label.classes)}) are no theta for sbi, "
            "which wants the same ones of every map: take one model, or a label of counts"
        )
