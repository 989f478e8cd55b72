"""Counter-based random numbers: known answers, one function on host and device, moments."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from support import compiled

from streamtrain.numerics import rng
from streamtrain.numerics.rng import Draws

KNOWN_ANSWERS = [  # kat_vectors of Random123 1.14: counter, key, words
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(counter: str, key: str, expected: str) -> None:
    c, k = np.array([words(counter)], np.uint32), np.array([words(key)], np.uint32)
    assert rng.philox(c, k).tolist() == [words(expected)]
    assert compiled.philox(c, k).tolist() == [words(expected)]


def test_host_and_kernel_are_one_function() -> None:
    random = np.random.default_rng(3).integers(0, 2**32, (10_000, 6), dtype=np.uint32)
    counter, key = random[:, :4].copy(), random[:, 4:].copy()
    np.testing.assert_array_equal(rng.philox(counter, key), compiled.philox(counter, key))


def draws(num: int = 2, seed: int = 7, split: rng.Split = "train", stage: int = 5) -> Draws:
    return Draws(seed, split, np.arange(num, dtype=np.uint64), stage)


def test_layout_of_the_counter() -> None:
    """key = seed, counter = (element, split and stage, index lo, index hi)."""
    index, seed = 2**40 + 9, 2**63 + 12345
    found = Draws(seed, "test", rng.sample_indices([index]), 17).words([4, 2**31])
    for element, word in zip([4, 2**31], found[0], strict=True):
        counter = np.array([element, (2 << 16) | 17, 9, 2**8], np.uint32)
        key = np.array([12345, 2**31], np.uint32)
        np.testing.assert_array_equal(word, rng.philox(counter, key))


def test_everything_that_names_a_number_changes_it() -> None:
    base = draws().uniform([0, 1])
    others = [draws(seed=8), draws(seed=7 + 2**32), draws(split="test"), draws(stage=6)]
    numbers = np.concatenate([base.ravel(), *(o.uniform([0, 1]).ravel() for o in others)])
    assert len(set(numbers.tolist())) == 20
    np.testing.assert_array_equal(draws().uniform([1, 0]), base[:, ::-1])
    np.testing.assert_array_equal(draws().take(np.array([1])).uniform([0, 1]), base[1:])


def test_uniform_and_normal_have_their_distribution() -> None:
    many = draws(2000)
    uniform, normal = many.uniform(range(200)).ravel(), many.normal(range(200)).ravel()
    assert stats.kstest(uniform, "uniform").pvalue > 1e-4
    assert stats.kstest(normal, "norm").pvalue > 1e-4
    assert uniform.min() > 0
    assert uniform.max() < 1
    error = 1 / np.sqrt(normal.size)
    moments = [normal.mean(), normal.var() - 1, stats.skew(normal), stats.kurtosis(normal)]
    np.testing.assert_array_less(np.abs(moments), 5 * error * np.sqrt([1, 2, 6, 24]))


def test_kernel_normals_have_their_distribution() -> None:
    counter = np.zeros((500_000, 4), np.uint32)
    counter[:, 0] = np.arange(500_000)
    random = compiled.philox(counter, np.zeros((500_000, 2), np.uint32))
    pair = compiled.normal_pair(random[:, 0].copy(), random[:, 1].copy())
    more = compiled.normal_pair(random[:, 2].copy(), random[:, 3].copy())
    normals = np.array([*pair, *more], np.float64)
    error = 1 / np.sqrt(normals.shape[1])
    for normal in normals:
        assert stats.kstest(normal, "norm").pvalue > 1e-4
        moments = [normal.mean(), normal.var() - 1, stats.skew(normal), stats.kurtosis(normal)]
        np.testing.assert_array_less(np.abs(moments), 5 * error * np.sqrt([1, 2, 6, 24]))
    for power in (1, 2):  # the four of one call are independent, as are neighbouring elements
        columns = np.concatenate([normals[:, :-1], normals[:, 1:]]) ** power
        correlation = np.corrcoef(columns) - np.eye(8)
        assert np.abs(correlation).max() < 5 * error


def test_largest_normal_is_that_of_the_smallest_word() -> None:
    """23 random bits: |normal| ends at sqrt(2 ln 2^24) = 5.77."""
    zero = np.zeros(1, np.uint32)
    a, b = compiled.normal_pair(zero, zero)
    np.testing.assert_allclose(np.hypot(a, b), np.sqrt(2 * np.log(2.0**24)), rtol=3e-7)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"seed -1 is outside 0\.\.2\^64-1"):
        rng.seed_words(-1)
    with pytest.raises(ValueError, match=r"seed 18446744073709551616 is outside"):
        rng.seed_words(2**64)
    with pytest.raises(ValueError, match=r"sample index -3 is outside 0\.\.2\^64-1"):
        rng.sample_indices([5, -3])
    with pytest.raises(ValueError, match="split 'tset' is none of train, validation, test"):
        rng.stage_word("tset", 0)  # type: ignore[arg-type]
