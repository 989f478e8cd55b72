"""The stream's whole state is one integer, and its order depends on nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import islice

import pytest
import torch
from support import small
from torch.utils.data import DataLoader

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.generator.generator import Generator
from streamtrain.stream import SampleStream

Make = Callable[..., SampleStream]


@pytest.fixture(scope="module")
def generator(small_sky: Lightcone) -> Generator:
    return Generator(small.config(observe={"noise": {}}), lightcones=[small_sky])


@pytest.fixture
def make(generator: Generator) -> Iterator[Make]:
    """SampleStream with the generator, closed at the end."""
    streams: list[SampleStream] = []

    def build(batch_size: int = 6, **options: int) -> SampleStream:
        streams.append(SampleStream(generator, batch_size, **options))
        return streams[-1]

    yield build
    for stream in streams:
        stream.close()


def first(stream: SampleStream, steps: int) -> list[list[str]]:
    return [batch.digests() for batch in islice(stream, steps)]


def test_sequence_is_that_of_the_indices(make: Make, generator: Generator) -> None:
    stream = make(queue=3)
    batches = list(islice(stream, 4))
    assert [b.indices for b in batches] == [list(range(6 * k, 6 * k + 6)) for k in range(4)]
    expected = generator.generate(range(24)).digests()
    assert [d for b in batches for d in b.digests()] == expected
    assert stream.state_dict() == {"next_index": 24}


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_resume_gives_the_next_sample(taken: int, make: Make) -> None:
    """Batches made ahead are no part of the state; neither is the number of ranks."""
    whole = first(make(), 6)
    stream = make(queue=2)
    assert first(stream, taken) == whole[:taken]
    state = stream.state_dict()
    resumed = make()
    resumed.load_state_dict(state)
    assert first(resumed, 6 - taken) == whole[taken:]
    assert first(stream, 2) == whole[taken : taken + 2]  # iterating again goes on as well
    parts = [make(rank=r, world_size=2) for r in range(2)]
    for part in parts:
        part.load_state_dict(state)
    steps = zip(*(first(part, 2) for part in parts), strict=True)
    assert [a + b for a, b in steps] == whole[taken : taken + 2]


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_ranks_share_the_sequence_of_one(world_size: int, make: Make) -> None:
    alone = first(make(), 3)
    ranks = [first(make(rank=r, world_size=world_size), 3) for r in range(world_size)]
    together = [[d for part in step for d in part] for step in zip(*ranks, strict=True)]
    assert together == alone
    assert make(rank=world_size - 1, world_size=world_size).state_dict() == {"next_index": 0}


def test_without_a_queue_batches_are_made_when_they_are_asked_for(make: Make) -> None:
    stream = make(queue=0)
    assert first(stream, 2) == first(make(), 2)
    assert stream._executor is None


def test_start_far_away(make: Make, generator: Generator) -> None:
    start = 6 * 10**12
    (batch,) = islice(make(start=start), 1)
    assert batch.indices[0] == start
    assert batch.digests() == generator.generate(range(start, start + 6)).digests()


def test_in_a_data_loader(make: Make) -> None:
    loader = DataLoader(make(), batch_size=None, generator=torch.Generator())
    found = [batch.digests() for batch in islice(loader, 2)]
    assert found == first(make(), 2)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_of_batches_are_refused(make: Make, batch_size: int) -> None:
    """A DataLoader makes them unless it is told not to, and has no words of its own for that."""
    loader = DataLoader(make(), batch_size=batch_size, generator=torch.Generator())
    with pytest.raises(ValueError, match=r"use DataLoader\(stream, batch_size=None"):
        next(iter(loader))


def test_worker_processes_are_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spawned workers when they are started, forked ones when they ask for a batch."""
    refusal = r"DataLoader\(stream, batch_size=None, num_workers=0\)"
    options = {"num_workers": 1, "multiprocessing_context": "spawn"}
    loader = DataLoader(make(), batch_size=None, generator=torch.Generator(), **options)
    with pytest.raises(ValueError, match=refusal):
        next(iter(loader))
    monkeypatch.setattr("streamtrain.stream.get_worker_info", lambda: "a worker's")
    with pytest.raises(ValueError, match=refusal):
        next(iter(make()))


def test_close_ends_the_threads_and_can_be_undone(make: Make) -> None:
    def threads() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("streamtrain-stream")]

    before = len(threads())
    stream = make()
    whole = first(stream, 2)
    assert len(threads()) == before + 1
    stream.close()
    assert len(threads()) == before
    stream.load_state_dict({"next_index": 0})
    assert first(stream, 2) == whole


def test_errors_of_the_generator_reach_the_caller(small_sky: Lightcone) -> None:
    line = {"model": "breysse15", "parameters": {"A": 1e6, "duty": 1.0}}
    stream = SampleStream(Generator(small.config(emit={"line": line}), lightcones=[small_sky]), 2)
    with pytest.raises(ValueError, match="too bright"):
        next(iter(stream))
    stream.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size = 0 must be a positive multiple of the 1 ranks"),
        ({"batch_size": 7, "world_size": 2}, "batch_size = 7 must be .* multiple of the 2 ranks"),
        ({"rank": 2, "world_size": 2}, r"rank 2 is outside 0\.\.1"),
        ({"queue": -1}, "queue = -1 must be at least 0"),
        ({"start": 5}, "start = 5 must be a multiple of batch_size = 6"),
        ({"start": -6}, "start = -6 must be"),
    ],
)
def test_sizes_that_do_not_fit(make: Make, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_state_of_another_batch_size(make: Make) -> None:
    with pytest.raises(ValueError, match="next_index = 8 is not a multiple of batch_size = 6"):
        make().load_state_dict({"next_index": 8})
