"""Errors by the number of bright halos."""

import numpy as np
import pytest

from streamtrain.evaluate.bootstrap import Bootstrap
from streamtrain.evaluate.scores import num_bright, score_groups

EDGES = np.linspace(3.5, 7.0, 50)


def test_bright_halos_are_those_of_the_two_brightest_ranges():
    counts = np.ones((2, 49))
    counts[1, 35:] = 3
    assert num_bright(counts, EDGES).tolist() == [14, 42]
    assert num_bright(np.ones((2, 7)), np.linspace(6.0, 9.5, 8)).tolist() == [2, 2]
    assert num_bright(np.ones((2, 1)), np.array([3.5, 7.0])) is None


def test_each_quarter_has_its_own_errors():
    bright = np.arange(80.0)
    offset = np.repeat([0.1, 0.2, 0.3, 0.4], 20)
    true = np.full((80, 49), 2.0)
    occupied = np.ones((80, 49), bool)
    order = np.random.default_rng(9).permutation(80)
    groups = score_groups(
        (true + offset[:, None])[order], 10 ** (true + offset[:, None])[order], true,
        np.full((80, 49), 100.0), occupied, bright[order], Bootstrap.of_maps(80),
    )  # fmt: skip
    assert [g.bright for g in groups] == [(0, 19), (20, 39), (40, 59), (60, 79)]
    assert [g.maps for g in groups] == [20] * 4
    assert [g.mse for g in groups] == pytest.approx([0.01, 0.04, 0.09, 0.16])
    assert [g.rms_dex for g in groups] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    ratio = 10 ** np.array([0.1, 0.2, 0.3, 0.4])
    assert [g.deviance for g in groups] == pytest.approx(200 * (ratio - 1 - np.log(ratio)))


def test_maps_with_equal_numbers_stay_together():
    bright = np.array([0.0] * 30 + [5.0] * 2 + [9.0] * 8)
    true = np.ones((40, 49))
    groups = score_groups(
        true, 10**true, true, 10**true, true > 0, bright, Bootstrap.of_maps(40)
    )  # fmt: skip
    assert groups[0].bright == (0, 0)
    assert groups[0].maps == 30
    assert sum(g.maps for g in groups) == 40
