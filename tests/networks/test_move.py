"""Posteriors that are shifted and widened: their samples and probabilities in closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from support.network_tools import check_draws, head_of_counts, label_of

from streamtrain.networks.heads import Head
from streamtrain.networks.move import Move, log10_above
from streamtrain.networks.network import build_head

FAR = Move((-5.0, 5.0), (0.1, 0.1), (1.5, 1.5))
"""The same for all bins."""


def made(name: str, bins: int, ln_mean: float) -> Head:
    """A head that was normalised with correlated counts, with weights of its own."""
    head = head_of_counts(name, bins, ln_mean)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return head


def test_shift_and_width_are_those_of_the_rank() -> None:
    counts = torch.tensor([[500.0, 300.0, 150.0, 50.0], [1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    above = log10_above(counts.log())
    expected = np.log10([[1000, 500, 200, 50], [10, 9, 7, 4]])
    np.testing.assert_allclose(above, expected, rtol=1e-12)
    move = Move((1.0, 2.0, 2.5), (0.1, -0.2, 0.3), (1.0, 2.0, 0.5))
    shift, width = move.at(counts.log())
    ln10 = math.log(10.0)
    np.testing.assert_allclose(
        shift, ln10 * np.interp(expected, move.log10_N, move.shift_dex), rtol=1e-12
    )
    ln_width = np.interp(expected, move.log10_N, np.log(move.width))
    np.testing.assert_allclose(width, np.exp(ln_width), rtol=1e-12)
    one = Move((0.0,), (0.1,), (1.5,)).at(counts.log())
    assert all((row == row[0, 0]).all() for row in one) and one[1][0, 0] == pytest.approx(1.5)


@pytest.mark.parametrize("name", ["joint_counts", "negative_binomial"])
def test_nothing_is_moved_by_nothing(name: str) -> None:
    head = made(name, 5, 3.0)
    still = head.moved(Move((0.0, 4.0), (0.0, 0.0), (1.0, 1.0)))
    answer = head(0.5 * torch.randn(2, head.num_numbers))
    drawn, again = (
        one.sample(answer, 50, torch.Generator().manual_seed(1)) for one in (head, still)
    )
    assert (drawn == again).double().mean() > 0.99  # but for the last bit of a rate
    torch.testing.assert_close(head.log_prob(answer, drawn), still.log_prob(answer, drawn))
    unit_label = head.label.unit_label(np.zeros(1, np.int64))
    torch.testing.assert_close(head.point(answer, unit_label), still.point(answer, unit_label))
    assert head.move is None


def test_draws_of_the_joint_head_are_moved_about_its_points() -> None:
    """Of many halos, whose rounding does not matter, draw by draw; the point is shifted.

    What is moved are ln of all halos and the logits of brighter halves.
    """
    head = made("joint_counts", 6, 14.0)
    move = Move((5.5, 7.0), (-0.1, 0.2), (0.7, 1.8))
    answer = 0.3 * torch.randn(2, head.num_numbers)
    drawn, moved = (
        one.sample(answer, 100, torch.Generator().manual_seed(1))
        for one in (head, head.moved(move))
    )
    centre = head.centre_of(answer)
    shift, width = move.at(centre)
    parts = {"all": range(6), "half": range(3, 6), "third": range(1, 3), "pair": range(4, 6)}
    wholes = {"all": None, "half": range(6), "third": range(3), "pair": range(3, 6)}

    def values(ln: torch.Tensor, name: str) -> torch.Tensor:
        inside, whole = ln.exp()[..., list(parts[name])].sum(-1), wholes[name]
        if whole is None:
            return inside.log()
        return inside.log() - (ln.exp()[..., list(whole)].sum(-1) - inside).log()

    for name in parts:
        bins = list(wholes[name] or parts[name])
        share = centre.exp()[:, bins] / centre.exp()[:, bins].sum(-1, keepdim=True)
        factor = (share * width.log()[:, bins]).sum(-1).exp()
        still = values(centre, name)
        expected = values(centre + shift, name) + factor * (values(drawn.log(), name) - still)
        # hidden units also see 1 / sqrt(N), of the moved counts
        torch.testing.assert_close(values(moved.log(), name), expected, rtol=0.0, atol=1e-2)
    unit_label = head.label.unit_label(np.zeros(1, np.int64))
    before, after = (one.point(answer, unit_label) for one in (head, head.moved(move)))
    torch.testing.assert_close(after - before, (shift / math.log(10.0)).float(), rtol=0, atol=1e-5)


def test_a_moved_chain_is_normalised_and_its_draws_have_its_probabilities() -> None:
    """Three bins of a few halos."""
    check_draws(made("joint_counts", 3, 0.6).moved(FAR), 50, 150_000)


def test_a_negative_binomial_has_the_factor_in_its_relative_deviation() -> None:
    head = made("negative_binomial", 4, 3.0)
    answer = head(0.3 * torch.randn(1, head.num_numbers))
    ln_mean, ln_dispersion = answer.double().split(4, dim=1)
    mean, dispersion = ln_mean.exp().numpy(), ln_dispersion.exp().numpy()
    moved = head.moved(FAR)
    new = mean * 10**0.1
    variance = 1.5**2 * (1 / mean + dispersion) * new**2
    shape = new**2 / (variance - new)
    counts = torch.arange(30.0)[:, None, None].expand(30, 1, 4)
    exact = stats.nbinom.logpmf(counts.numpy(), shape, new / variance).sum(-1)
    np.testing.assert_allclose(moved.log_prob(answer, counts), exact, rtol=1e-4)
    drawn = moved.sample(answer, 40_000, torch.Generator().manual_seed(3))[:, 0].numpy()
    error = np.sqrt(variance[0] / len(drawn))
    np.testing.assert_array_less(np.abs(drawn.mean(0) - new[0]), 4 * error)
    narrow = head.moved(Move((0.0,), (0.0,), (1e-3,)))  # no less than Poisson's scatter
    exact = stats.poisson.logpmf(counts.numpy(), mean).sum(-1)
    np.testing.assert_allclose(narrow.log_prob(answer, counts), exact, rtol=1e-3)


@pytest.mark.parametrize("name", ["poisson", "mse", "gaussian"])
def test_heads_without_a_width_of_their_own_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"network.head = {name} predicts no distribution of cou"):
        build_head(name, label_of(3)).moved(FAR)
