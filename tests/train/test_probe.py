"""Whether a network looks at its maps: against sums over all pairs of samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from streamtrain.train.probe import Dependence, class_skill, pair_sums, skill


def skill_of(predicted: np.ndarray, true: np.ndarray, batch: int = 100) -> float:
    """From batches, as validation does it."""
    parts = [
        pair_sums(torch.tensor(predicted[k : k + batch]), torch.tensor(true[k : k + batch]))
        for k in range(0, len(true), batch)
    ]
    return skill(sum(parts[1:], parts[0]).numpy())


def by_pairs(loss: Callable[..., np.ndarray], answers: np.ndarray, labels: np.ndarray) -> float:
    """1 - mean loss / mean loss over all pairs of an answer with another sample's label."""
    number = len(labels)
    table = np.array(
        [[loss(answers[i], labels[j]).mean() for j in range(number)] for i in range(number)]
    )
    right = np.trace(table) / number
    exchanged = (table.sum() - np.trace(table)) / (number * (number - 1))
    return 1.0 - right / exchanged


def test_is_the_mean_over_all_pairs() -> None:
    rng = np.random.default_rng(1)
    true = rng.normal(3.0, 0.5, (23, 4))
    predicted = 0.7 * true + rng.normal(1.0, 0.3, (23, 4))
    expected = by_pairs(lambda p, t: (p - t) ** 2, predicted, true)
    assert 0.1 < expected < 0.9
    assert skill_of(predicted, true, 5) == pytest.approx(expected, rel=1e-10)


def test_between_nothing_and_everything() -> None:
    rng = np.random.default_rng(2)
    true = rng.normal(3.0, 0.5, (4000, 3))
    assert skill_of(true, true) == pytest.approx(1.0)
    assert skill_of(np.full_like(true, 3.0), true) == pytest.approx(0.0, abs=1e-9)
    noise = rng.normal(3.0, 0.5, true.shape)
    assert skill_of(noise, true) == pytest.approx(0.0, abs=0.03)
    # an unbiased linear answer of correlation r: e = (1 - r^2) s^2, exchanged (1 + r^2) s^2
    r = 0.6
    answer = 3.0 + r * (r * (true - 3.0) + np.sqrt(1 - r * r) * (noise - 3.0))
    assert skill_of(answer, true) == pytest.approx(2 * r * r / (1 + r * r), abs=0.02)


@pytest.mark.parametrize("number", [0, 1])
def test_of_too_few_samples_nothing_is_known(number: int) -> None:
    values = np.ones((number, 3))
    assert skill_of(values, values) == 0.0 if number else skill(np.zeros((6, 3))) == 0.0


def test_of_classes() -> None:
    rng = np.random.default_rng(3)
    true = rng.integers(0, 3, 60)
    predicted = np.where(rng.random(60) < 0.7, true, rng.integers(0, 3, 60))
    confusion = np.zeros((3, 3))
    np.add.at(confusion, (true, predicted), 1)
    expected = by_pairs(lambda p, t: np.asarray(p != t), predicted, true)
    assert class_skill(confusion) == pytest.approx(expected, rel=1e-10)
    assert class_skill(np.diag([5.0, 7.0])) == 1.0
    assert class_skill(np.array([[6.0, 0.0], [4.0, 0.0]])) == pytest.approx(0.0, abs=1e-12)


def test_problem_is_said_where_there_is_one() -> None:
    assert Dependence(0.5, 0.01).problem == ""
    text = Dependence(0.05, 0.012).problem
    assert "hardly depend on the maps" in text and "a factor of 1.05 only" in text
    assert "maps without a halo change the mean prediction by 0.012 dex" in text
    assert "without a halo" not in Dependence(0.0).problem


@pytest.mark.parametrize("information", [-1e4, -0.3, 0.0, 0.7, 40.0])
def test_information_of_a_posterior(information: float) -> None:
    """Also of one that is much worse than the prior, as in a training that goes astray."""
    found = Dependence.of_information(information)
    assert np.isfinite(found.skill)
    if information > -1e3:
        assert found.skill == pytest.approx(1.0 - np.exp(-2.0 * information), rel=1e-12)
    assert (found.problem == "") == (information >= 0.7)
