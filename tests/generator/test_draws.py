"""Kernels draw what NumPy draws, to the last bit, whatever a configuration draws."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from support import ROOT, small
from support import reference as ref

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cosmology import Cosmology
from streamtrain.generator.draws import SampleDraws
from streamtrain.generator.generator import Generator
from streamtrain.generator.painter import PaintArguments, items_of
from streamtrain.generator.recorder import exact
from streamtrain.generator.windows import Scene
from streamtrain.luminosity.registry import MODELS
from streamtrain.luminosity.symbol import Symbol, TraceError
from streamtrain.numerics import portable
from streamtrain.numerics.workspace import DeviceArrays, Workspace
from streamtrain.operators.noise import Noise, draw_level

pytestmark = [small.EXTRAPOLATES, small.ASSUMES]

CPU = torch.device("cpu")
INDICES = [*range(120), 2**32 - 1, 2**40 + 5, 2**63, 2**64 - 1]
OBSERVE = {"noise": {"sigma_uK": [0, 5]}, "log_modulus": {}}
INTERLOPER = {
    "line": {"model": "li16", "prior": "narrow"},
    "interloper": {"model": "chung22", "nu_rest_GHz": 117.0},
}
EVERY_DISTRIBUTION = {
    "alpha": {"normal": [1.17, 0.3], "low": 1.0, "high": 1.5},
    "beta": {"uniform": [-1.0, 1.0]},
    "r_J1": {"log_uniform": [0.5, 2.0]},
    "sigma_lco": {"sometimes": [0.4, 0.0], "normal": [0.3, 0.2], "low": 0.1, "high": 0.6},
}
MULTIVARIATE = {
    "names": ["alpha", "beta", "sigma_lco"],
    "mean": [1.2, 0.1, 0.3],
    "covariance": [[0.01, 0.004, 0.0], [0.004, 0.04, 0.001], [0.0, 0.001, 0.01]],
}
CASES: dict[str, dict[str, Any]] = {
    "nothing": {"emit": {"line": {"model": "li16"}}, "data": {"roll": "none", "mirror": False}},
    "distributions": {
        "emit": {
            "line": {
                "model": "li16",
                "parameters": EVERY_DISTRIBUTION,
                "constraints": ["alpha < 1.4", "-0.9 < beta <= 0.8"],
            },
            "brightness": {
                "factor": {"normal": [1.0, 0.6], "low": 0.5, "high": 1.6},
                "probability": 0.5,
            },
            "dim": {"above_log10_L": 5.0, "factor": 0.3, "probability": 0.5},
            "blank": {"probability": 0.3},
            "line_width": {"inclination": True},
        },
        "data": {"roll": "quarter"},
    },
    "multivariate": {
        "emit": {"line": {"model": "li16", "multivariate": MULTIVARIATE, "prior_scale": 1.5}},
        "label": {"edges": [3.0, 4.0, 4.2, 5.5, 5.51, 7.0]},
    },
    "operators": {
        "emit": {
            "line": {"model": "li16", "prior": "narrow"},
            "brightness": {"poisson_bins": 5.0, "log_map": True, "probability": 0.7},
        },
        "observe": {
            "radio_sources": {"density": {"log_uniform": [20.0, 2000.0]}, "absent": 0.2},
            "noise": {"sigma_uK": [0.5, 5.0], "absent": 0.3},
            "edge_noise": {"sigma_uK": [1.0, 2.0], "width": 0.4},
        },
    },
    "mixture": {
        "emit": {
            "line": {
                "mixture": {
                    "li16": {"prior": "narrow", "weight": 2.0},
                    "breysse15": {"prior": "published"},
                    "freeform": {"prior": "co10"},
                },
                "require": {"mean_uK": [0.1, 5.0], "halos": [10.0, 1e5]},
            },
            "blank": {"probability": 0.2},
            "interloper": {"model": "chung22", "prior": "correlated", "nu_rest_GHz": 117.0},
        },
    },
}
for preset in ("comap", "comap_pathfinder", "quickstart_freeform", "reference"):
    text = (ROOT / "configs" / f"{preset}.yaml").read_text(encoding="utf-8")
    CASES[preset] = {
        key: part for key, part in yaml.safe_load(text).items() if key in ("emit", "label")
    }


def generator_of(case: dict[str, Any]) -> Generator:
    """On two lightcones of two footprints."""
    return Generator(small.config(**case), lightcones=[small.lightcone(1), small.lightcone(2)])


def drawn_both_ways(
    generator: Generator, indices: Sequence[int]
) -> tuple[Scene, SampleDraws, torch.Tensor, list[DeviceArrays], list[DeviceArrays]]:
    scene = generator.scenes.latest
    assert generator.numpy_because == ""
    by_numpy = generator.draw_for(scene, indices)
    return scene, by_numpy, *generator.draw_on_device(scene, indices, Workspace(CPU))


def check_line(found: DeviceArrays, expected: PaintArguments, models: int) -> None:
    """Bits of all but the items; those hold the expected rows of halos, and few more."""
    for name in ("pose", "values", "keys", "lightcone", "model"):
        one, other = found[name].numpy(), getattr(expected, name)
        assert one.shape == other.shape and one.itemsize == other.itemsize
        assert one.tobytes() == np.ascontiguousarray(other).tobytes(), name
    size, rows = len(expected), [0, 0]
    for k in range(size):
        of_models = [
            found[items_of(m)].numpy().reshape(size, -1, 3)[k] for m in range(models)
        ]  # of a CPU, whose samples are made one by one
        mine = of_models.pop(int(expected.model[k]))
        assert not any(other.any() for other in of_models) and not mine[:, 0].any()
        have = {row for _, first, num in mine.tolist() for row in range(first, first + num)}
        items = expected.items[expected.item_start[k] : expected.item_start[k + 1]].tolist()
        need = {row for _, first, num in items for row in range(first, first + num)}
        assert need <= have
        rows = [rows[0] + len(need), rows[1] + len(have)]
    assert rows[1] <= 1.02 * rows[0]


@pytest.mark.parametrize("name", CASES)
def test_kernels_draw_what_numpy_draws(name: str) -> None:
    generator = generator_of(CASES[name])
    scene, by_numpy, raw, lines, operators = drawn_both_ways(generator, INDICES)
    assert not raw.any()
    every = [by_numpy.arguments, *by_numpy.arguments.others]
    for line, found, expected in zip(scene.lines, lines, every, strict=True):
        check_line(found, expected, len(line.mixture.components))
    assert [list(drawn) for drawn in operators] == [list(drawn) for drawn in by_numpy.operators]
    for made, numbers in zip(operators, by_numpy.operators, strict=True):
        for key, values in numbers.items():
            assert made[key].numpy().tobytes() == values.tobytes(), key
    generator.close()


@pytest.mark.slow
def test_every_model_with_every_prior_is_drawn_by_a_kernel() -> None:
    """Of those for CO(1-0) or any line; the conditions of all published priors among them."""
    mixture = {}
    for name, model in MODELS.items():
        if model.nu_rest_GHz is None or abs(model.nu_rest_GHz / 115.27 - 1.0) < 1e-3:
            for prior in ("fiducial", *model.priors):
                mixture[f"{name}_{prior}"] = {"model": name, "prior": prior}
    generator = generator_of({"emit": {"line": {"mixture": mixture}}})
    _, by_numpy, raw, (found,), _ = drawn_both_ways(generator, range(400))
    assert not raw.any() and len(np.unique(by_numpy.arguments.model)) > 0.9 * len(mixture) > 15
    check_line(found, by_numpy.arguments, len(mixture))
    generator.close()


@pytest.mark.parametrize(("fov", "roll"), [((0.8, 0.3), "any"), ((0.1, 1.1), "none")])
def test_the_items_of_a_steep_sky(fov: tuple[float, float], roll: str) -> None:
    """At a declination of 64 deg, where a field is much wider in ra."""
    rng, number = np.random.default_rng(3), 20_000
    z = rng.uniform(2.3, 3.5, number)
    ra, dec = rng.uniform(-2.0, 2.0, number), rng.uniform(63.0, 65.0, number)
    x, y, depth = ref.position(ra, dec, Cosmology().comoving_distance(z))
    sky = small.lightcone(
        1, number, x_Mpc=x, y_Mpc=y, z_Mpc=depth, z_obs=z, footprint_deg=(-2.0, 2.0, 63.0, 65.0)
    )
    grid = {**small.GRID, "fov_deg": list(fov)}
    config = small.config(grid=grid, data={"roll": roll}, emit={"line": {"model": "breysse15"}})
    generator = Generator(config, lightcones=[sky])
    _, by_numpy, _, (found,), _ = drawn_both_ways(generator, range(300))
    check_line(found, by_numpy.arguments, 1)


# What only NumPy can draw -------------------------------------------------------------------------


def test_an_operator_that_cannot_be_recorded(
    small_sky: Lightcone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The samples are those of NumPy's draws, and the generator says who draws."""
    config = small.config(observe=OBSERVE, emit=INTERLOPER)
    expected = Generator(config, lightcones=[small_sky]).generate(range(6)).digests()
    monkeypatch.setattr(
        Noise,
        "draw",
        lambda self, draws: self.at_level(
            np.sort(np.stack([draw_level(draws, self.sigma, self.absent)]), axis=0)[0]
        ),
    )
    generator = Generator(config, lightcones=[small_sky])
    assert generator.generate(range(6)).digests() == expected
    said = generator.describe().splitlines()[-1]
    assert said.startswith("samples are drawn by NumPy, which takes longer: ")


def test_functions_with_other_last_digits_are_not_recorded() -> None:
    """Those of NumPy may differ from a kernel's; those of numerics.portable do not."""
    drawn: Any = Symbol("uniform", name="2 0 0")
    exact(portable.exp10(drawn) + np.sqrt(portable.log2(drawn)))
    for wrong in (np.exp(drawn), np.log10(drawn), np.abs(drawn) ** 1.5):
        with pytest.raises(TraceError, match="has other last digits on other machines"):
            exact(wrong)


def test_a_prior_that_no_draw_satisfies(small_sky: Lightcone) -> None:
    """After so many attempts the sample has no parameters; the message is NumPy's."""
    line = {
        "model": "li16",
        "parameters": {"alpha": {"normal": [1.2, 0.01]}},
        "constraints": ["alpha > 3"],
    }
    generator = Generator(small.config(emit={"line": line}), lightcones=[small_sky])
    assert generator.numpy_because == ""
    with pytest.raises(ValueError, match="no draw in 1000 attempts satisfies the prior's bounds"):
        generator.generate([3])


# Batches ------------------------------------------------------------------------------------------


class Watched(Generator):
    """Remembers what NumPy has drawn."""

    drawn: list[list[int]]

    def draw_for(self, scene: Scene, indices: Sequence[int], *more: Any) -> SampleDraws:
        self.drawn.append(list(indices))
        return super().draw_for(scene, indices, *more)


def test_records_are_drawn_when_they_are_asked_for(small_sky: Lightcone) -> None:
    skies = [small_sky, *(small.lightcone(seed) for seed in (2, 3))]
    config = small.config(observe=OBSERVE, data={"active": 1, "active_samples": 4})
    generator = Watched(config, lightcones=skies)
    generator.drawn = []
    batch = generator.generate(range(3))
    assert generator.drawn == []
    expected = generator.draw(range(3)).records
    assert batch.draws[1] == expected[1] and batch.draws == expected
    assert generator.drawn == [[0, 1, 2], [0, 1, 2]]
    generator.close()


def test_a_batch_does_not_keep_its_lightcones(small_sky: Lightcone) -> None:
    """They may fill a GPU; where they have gone, records are drawn from them anew."""
    skies = [small_sky, *(small.lightcone(seed) for seed in (2, 3, 4))]
    config = small.config(data={"active": 1, "active_samples": 4})
    generator = Generator(config, lightcones=skies)
    batch = generator.generate(range(2))
    scene = weakref.ref(generator.scenes.of(0))
    expected = list(generator.draw(range(2)).records)
    for window in (1, 2, 3):
        generator.scenes.of(window, ahead=False)
    gc.collect()
    assert scene() is None
    assert batch.draws == expected
    generator.close()


def test_threads_share_no_memory(small_sky: Lightcone) -> None:
    """Samples that several threads make are in memory of their own, whatever is given."""
    generator = Generator(small.config(observe=OBSERVE), threads=2, lightcones=[small_sky])
    draws, memory = generator.draw(range(12)), Workspace(CPU)
    made = [generator.make(draws, first, first + 6, memory) for first in (0, 6)]
    assert [d for b in made for d in b.digests()] == generator.generate(range(12)).digests()
    generator.close()


@pytest.mark.parametrize("indices", [[5, 6, 7], [7, 5, 2**64 - 1], range(5, 12, 3)])
def test_any_indices(small_sky: Lightcone, indices: Sequence[int]) -> None:
    generator = Generator(small.config(observe=OBSERVE, emit=INTERLOPER), lightcones=[small_sky])
    batch = generator.generate(indices)
    assert batch.indices == list(indices)
    alone = [generator.generate([index]).digests()[0] for index in indices]
    assert batch.digests() == alone
