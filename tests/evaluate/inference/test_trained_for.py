"""What a network was trained for, in words: its noise beside that of painted maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import small

from streamtrain import Generator
from streamtrain.config import from_mapping
from streamtrain.evaluate.inference.prepare import map_taken
from streamtrain.evaluate.inference.trained_for import trained_for, trained_for_lines

pytestmark = small.EXTRAPOLATES


def with_noise(*order: str, **noise: Any) -> dict[str, Any]:
    steps = {
        "mean": {"pool": {"factor": [3, 3, 3]}},
        "sum": {"pool": {"factor": [3, 3, 3], "reduce": "sum"}},
        "noise": {"noise": noise},
    }
    return {name: section for step in order for name, section in steps[step].items()}


@pytest.mark.parametrize("per", ["map_voxel", "fine_voxel"])
@pytest.mark.parametrize("order", [("noise",), ("mean", "noise"), ("sum", "noise")])
def test_noise_is_that_of_samples(order: tuple[str, ...], per: str) -> None:
    """8 maps of 147 voxels know it to 1/sqrt(2 x 1176) = 2 %."""
    config = small.config(observe=with_noise(*order, sigma_uK=7.0, per=per))
    plain = small.config(observe=with_noise(*order[:-1]))
    noisy, without = (
        Generator(each, lightcones=[small.lightcone()]).generate(range(8)).cube
        for each in (config, plain)
    )
    low, high = trained_for(config)["noise"]
    assert low == high == pytest.approx(float((noisy - without).std()), rel=0.06)
    assert tuple(trained_for(config)["voxels"]) == noisy.shape[1:]


def test_noise_is_that_of_the_map_which_is_taken() -> None:
    """Voxels are joined after the noise: a map may come joined, and has less."""
    config = small.config(observe=with_noise("noise", "mean", sigma_uK=[0.0, 7.0]))
    assert map_taken(config.observation).shape == (3, 7, 7)
    low, high = trained_for(config)["noise"]
    assert (low, high) == (0.0, pytest.approx(7.0 / np.sqrt(27), rel=1e-3))
    (maps, went) = trained_for_lines(config)
    assert "3 x 7 x 7 voxels" in maps and went.endswith(
        "noise of 0 to 1.35 uK per voxel, pool {factor: [3, 3, 3]}"
    )


def test_what_is_not_known_is_left_as_it_is_set() -> None:
    """A file that is not here, a pool behind a filter, sums."""
    lost = with_noise("noise", hits="nowhere.npy", sigma_uK=5.0)
    config = small.config(observe=lost | {"pca": {"modes": 1}} | with_noise("sum"))
    assert trained_for(config)["noise"] is None
    maps, went = trained_for_lines(config)
    assert "9 x 21 x 21 voxels (freq, dec, ra)" in maps
    assert "noise {sigma_uK: 5.0, hits: nowhere.npy}, pca {modes: 1}" in went
    summed = from_mapping({"observe": with_noise("sum"), "grid": small.GRID})
    assert "(freq, dec, ra, sums of 27)" in trained_for_lines(summed)[0]
    assert trained_for_lines(from_mapping({}))[1] == "maps went through no operator"
