"""What is drawn ahead makes the same samples, and no lightcone is asked for early."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from support import small

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.generator import draws
from streamtrain.generator.draws import DrawAhead, SampleDraws
from streamtrain.generator.generator import Generator
from streamtrain.machine import forked
from streamtrain.machine.forked import Forked
from streamtrain.numerics.workspace import Workspace

pytestmark = small.EXTRAPOLATES

OBSERVE = {"noise": {"sigma_uK": [0, 5]}, "log_modulus": {}}
INTERLOPER = {
    "line": {"model": "li16", "prior": "narrow"},
    "interloper": {"model": "chung22", "nu_rest_GHz": 117.0},
}


class Watched(Generator):
    """Remembers what was drawn at once."""

    def draw(self, indices: Sequence[int]) -> SampleDraws:
        self.drawn = [*getattr(self, "drawn", []), list(indices)]
        return super().draw(indices)


def test_threads_share_no_memory(small_sky: Lightcone) -> None:
    """Samples that several threads make are in memory of their own, whatever is given."""
    generator = Generator(small.config(observe=OBSERVE), threads=2, lightcones=[small_sky])
    draws, memory = generator.draw(range(12)), Workspace(torch.device("cpu"))
    made = [generator.make(draws, first, first + 6, memory) for first in (0, 6)]
    assert [d for b in made for d in b.digests()] == generator.generate(range(12)).digests()
    generator.close()


def digests(ahead: DrawAhead, numbers: range) -> list[str]:
    """Of batches that are drawn ahead and made in one memory after the other."""
    memory = [Workspace(torch.device("cpu")) for _ in range(2)]
    return [d for n in numbers for d in ahead.make(n, memory[n % 2]).digests()]


def batches(generator: Generator, size: int, number: int, samples: int) -> list[str]:
    """Digests of the first batches."""
    ahead = DrawAhead(generator, lambda n: list(range(n * size, (n + 1) * size)), samples)
    return digests(ahead, range(number))


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


# In processes of their own ------------------------------------------------------------------------

forks = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system forks no process"
)


@pytest.fixture
def elsewhere(
    small_sky: Lightcone, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., DrawAhead]]:
    """elsewhere(cores): batches of 6 samples, drawn by `cores` - 1 processes for two batches at a
    time in windows of 12 samples or more; the generator says what this process draws."""
    monkeypatch.setattr(draws, "WORTH_FORKING", 12)
    made = []

    def start(cores: int, skies: Sequence[Lightcone] = (small_sky,), **sections: Any) -> DrawAhead:
        monkeypatch.setattr(draws, "own_cores", lambda: cores)
        generator = Watched(small.config(observe=OBSERVE, **sections), lightcones=skies)
        numbers = lambda n: list(range(6 * n, 6 * n + 6))  # noqa: E731
        made.append(DrawAhead(generator, numbers, 12, processes=2))
        return made[-1]

    yield start
    for ahead in made:
        ahead.close()
        ahead._generator.close()


def drawn_here(ahead: DrawAhead) -> list[int]:
    """First samples of what this process has drawn at once."""
    return [indices[0] for indices in getattr(ahead._generator, "drawn", [])]


@forks
@pytest.mark.parametrize("cores", [1, 2, 3, 9])
def test_who_draws_does_not_matter(elsewhere: Callable[..., DrawAhead], cores: int) -> None:
    """Nobody else, one process, or two in turn: the same bytes, and the same records."""
    ahead = elsewhere(cores, emit=INTERLOPER)
    expected = ahead._generator.generate(range(54))
    assert digests(ahead, range(9)) == expected.digests()
    assert drawn_here(ahead) == ([0, 12, 24, 36, 48] if cores == 1 else [])
    drawn = ahead.drawn(9)
    assert drawn is not None
    whole, first, last = drawn
    records = whole.records[first:last]
    assert records == ahead._generator.generate(range(54, 60)).draws
    assert pickle.loads(pickle.dumps(records)) == records
    if cores > 1:
        assert ahead.drawers is not None
        processes = ahead.drawers.processes
        assert len(processes) == min(2, cores - 1) and all(p.pid for p in processes)
        ahead.close()
        assert not any(p.pid for p in processes)


@forks
def test_without_a_process_this_one_draws(elsewhere: Callable[..., DrawAhead]) -> None:
    """From where the one that was killed had got to."""
    ahead = elsewhere(3)
    first = digests(ahead, range(5))
    assert ahead.drawers is not None
    ahead.drawers.processes[1].close()
    made = first + digests(ahead, range(5, 30))
    assert made == ahead._generator.generate(range(180)).digests()
    assert drawn_here(ahead) == list(range(36, 180, 24))


@forks
def test_batches_in_another_order_are_drawn_here(elsewhere: Callable[..., DrawAhead]) -> None:
    ahead = elsewhere(2)
    expected = ahead._generator.generate(range(60)).digests()
    for number in (0, 1, 7, 3, 2, 9):
        found = digests(ahead, range(number, number + 1))
        assert found == expected[6 * number : 6 * number + 6]


@forks
@pytest.mark.parametrize("cores", [1, 2, 3])
def test_each_window_has_processes_of_its_own(
    elsewhere: Callable[..., DrawAhead], small_sky: Lightcone, cores: int
) -> None:
    """Windows of 27 samples: batches 0..3, 5..8, 9..12 lie in one each, 4 and 13 in two."""
    skies = [small_sky, *(small.lightcone(seed) for seed in (2, 3))]
    ahead = elsewhere(cores, skies, data={"active": 1, "active_samples": 27})
    expected = ahead._generator.generate(range(84)).digests()
    found: list[str] = []
    pids: list[Any] = []
    for number in range(14):
        found += digests(ahead, range(number, number + 1))
        pids.append(None if ahead.drawers is None else ahead.drawers.processes[0].pid)
    assert found == expected
    if cores == 1:
        assert pids == [None] * 14 and drawn_here(ahead) == [0, 12, 30, 42, 54, 66]
    else:
        assert pids == [*[pids[0]] * 5, *[pids[5]] * 4, *[pids[9]] * 5]
        assert len({pids[0], pids[5], pids[9], None}) == 4 and drawn_here(ahead) == []
        for pid in (pids[0], pids[5]):
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


@forks
def test_short_windows_have_none(elsewhere: Callable[..., DrawAhead], small_sky: Lightcone) -> None:
    """Forking would take longer than drawing."""
    ahead = elsewhere(2, [small_sky, small.lightcone(2)], data={"active": 1, "active_samples": 9})
    assert digests(ahead, range(6)) == ahead._generator.generate(range(36)).digests()
    assert ahead.drawers is None and drawn_here(ahead) == [0, 12, 18, 30]


@forks
def test_no_process_to_be_had(
    elsewhere: Callable[..., DrawAhead], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a user may have no more of them: the first one is ended, too."""
    started: list[Forked[Any]] = []

    class OnlyOne(Forked[Any]):
        def __init__(self, make: Callable[[int], Any]) -> None:
            if started:
                raise BlockingIOError(11, "Resource temporarily unavailable")
            super().__init__(make)
            started.append(self)

    monkeypatch.setattr(forked, "Forked", OnlyOne)
    ahead = elsewhere(3)
    assert digests(ahead, range(3)) == ahead._generator.generate(range(18)).digests()
    assert ahead.drawers is not None and not ahead.drawers.processes and started[0].pid is None
    assert drawn_here(ahead) == [0, 12]
