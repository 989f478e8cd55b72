"""What is drawn ahead makes the same samples, and no lightcone is asked for early."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import small
import torch

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.generator.drawing import Drawing, DrawnAhead
from streamtrain.generator.generator import Generator
from streamtrain.generator.workspace import Workspace

pytestmark = small.EXTRAPOLATES

OBSERVE = {"noise": {"sigma_uK": [0, 5]}, "log_modulus": {}}
INTERLOPER = {
    "line": {"model": "li16", "prior": "narrow"},
    "interloper": {"model": "chung22", "nu_rest_GHz": 117.0},
}


class Watched(Generator):
    """Remembers what was drawn at once."""

    def draw(self, indices: Sequence[int]) -> Drawing:
        self.drawn = [*getattr(self, "drawn", []), list(indices)]
        return super().draw(indices)


def test_threads_share_no_memory(small_sky: Lightcone) -> None:
    """Samples that several threads make are in memory of their own, whatever is given."""
    generator = Generator(small.config(observe=OBSERVE), threads=2, lightcones=[small_sky])
    drawing, memory = generator.draw(range(12)), Workspace(torch.device("cpu"))
    made = [generator.make(drawing, first, first + 6, memory) for first in (0, 6)]
    assert [d for b in made for d in b.digests()] == generator.generate(range(12)).digests()
    generator.close()


def batches(generator: Generator, size: int, number: int, samples: int) -> list[str]:
    """Digests of the first batches, drawn ahead and made in one memory after the other."""
    ahead = DrawnAhead(generator, lambda n: list(range(n * size, (n + 1) * size)), samples)
    memory = [Workspace(torch.device("cpu")) for _ in range(2)]
    return [d for n in range(number) for d in ahead.make(n, memory[n % 2]).digests()]


@pytest.mark.parametrize("samples", [1, 12, 24])
def test_batches_are_those_of_generate(small_sky: Lightcone, samples: int) -> None:
    """Drawn one, two or four at a time, also of two lines."""
    config = small.config(observe=OBSERVE, emit=INTERLOPER)
    generator = Watched(config, lightcones=[small_sky])
    assert batches(generator, 6, 5, samples) == generator.generate(range(30)).digests()
    together = max(1, samples // 6)
    starts = range(0, 5, together)
    assert generator.drawn == [list(range(6 * s, 6 * (s + together))) for s in starts]


def test_windows_are_drawn_for_when_they_are_reached(small_sky: Lightcone) -> None:
    """Windows of 15 samples: batches 2, 5, ... hold samples of two, and are drawn as before."""
    skies = [small_sky, *(small.lightcone(seed) for seed in (2, 3))]
    config = small.config(observe=OBSERVE, data={"active": 1, "active_samples": 15})
    generator = Watched(config, lightcones=skies)
    expected = generator.generate(range(42)).digests()
    assert batches(generator, 6, 7, 24) == expected
    assert generator.drawn == [
        [*range(12)],
        [*range(18, 30)],
        [*range(30, 42)],
    ]
    generator.close()
