"""Batches made beside the steps that read them: nothing is read too early or overwritten too soon.

The queues of a GPU are played by `fake_lanes`, which runs them in every order that their marks
allow; the tests marked gpu do the same with a kernel that spins.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from random import Random

import pytest
import torch
from support import small
from support.fake_lanes import FakeLanes, Mark

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.generator.batch import Batch
from streamtrain.generator.generator import Generator
from streamtrain.numerics.workspace import Workspace
from streamtrain.stream import CudaLanes, Ring, SampleStream

STEPS = 12


class Played:
    """A ring on fake queues: making batch n writes n into its slot, a step reads it."""

    def __init__(self, lanes: FakeLanes, slots: int = 2) -> None:
        self.lanes = lanes
        self.read: list[float] = []
        cpu = torch.device("cpu")
        self.ring = Ring(self._make, lambda: Workspace(cpu), lanes, slots)

    def _make(self, number: int, memory: Workspace) -> Batch:
        cube = memory.empty("cube", (2,), torch.float32)
        self.lanes.names.append(f"make {number}")
        self.lanes.run(lambda: cube[:1].fill_(number))  # half of it, then the other half
        self.lanes.run(lambda: cube[1:].fill_(number))
        empty = torch.empty(0)
        return Batch(cube, empty, empty, [], [number], empty, empty)

    def step(self) -> None:
        """Take a batch and enqueue a step that reads it twice."""
        cube = self.ring.take().batch.cube
        self.lanes.names.append("step")
        for place in range(2):
            self.lanes.run(lambda place=place: self.read.append(float(cube[place])))  # type: ignore[misc]

    def play(self, random: Random, favourite: int | None) -> list[float]:
        """The values that the steps read."""
        for _ in range(STEPS):
            self.step()
        self.lanes.finish(random, favourite)
        return self.read


EXPECTED = [n for n in range(STEPS) for _ in range(2)]


@pytest.mark.parametrize("slots", [2, 3])
@pytest.mark.parametrize("favourite", [None, 0, 1])
def test_every_order_of_the_queues_reads_the_right_batch(slots: int, favourite: int | None) -> None:
    """favourite: the queue that is ahead: steps that wait for batches, or batches for steps."""
    for seed in range(40):
        assert Played(FakeLanes(), slots).play(Random(seed), favourite) == EXPECTED


class Deaf(FakeLanes):
    """Queues of which one does not wait."""

    def __init__(self, deaf: int) -> None:
        super().__init__()
        self._deaf = deaf

    def wait(self, mark: Mark) -> None:
        if self._present != self._deaf:
            super().wait(mark)


@pytest.mark.parametrize("deaf", [0, 1])
def test_both_waits_are_needed(deaf: int) -> None:
    """The test above would notice: without either wait some orders read a wrong batch."""
    orders = [Played(Deaf(deaf)).play(Random(seed), deaf) for seed in range(20)]
    assert any(read != EXPECTED for read in orders)


def test_the_next_batch_is_enqueued_before_the_step_and_waited_for_after_it() -> None:
    lanes = FakeLanes()
    played = Played(lanes)
    for _ in range(4):
        played.step()
    assert lanes.names == [
        *("make 0", "make 1", "caller waits", "step"),
        *("side waits", "make 2", "caller waits", "step"),
        *("side waits", "make 3", "caller waits", "step"),
        *("side waits", "make 4", "caller waits", "step"),
    ]


def test_a_batch_that_is_given_back_early_makes_room() -> None:
    """`release` right after a copy: the side need not wait for the step."""
    lanes = FakeLanes()
    played = Played(lanes)
    copies = []
    for _ in range(STEPS):
        cube = played.ring.take().batch.cube
        copy = torch.full((2,), torch.nan)
        lanes.run(lambda copy=copy, cube=cube: copy.copy_(cube))  # type: ignore[misc]
        played.ring.release()
        copies.append(copy)
    lanes.finish(Random(0), 1)
    assert torch.stack(copies).flatten().tolist() == EXPECTED


class AtOnce(FakeLanes):
    """Queues whose work has been done when it is enqueued."""

    def _enqueue(self, step: object) -> None:
        pass


@pytest.fixture(scope="module")
def generator(small_sky: Lightcone) -> Generator:
    observe = {"noise": {"sigma_uK": [0, 5]}, "beam": {"fwhm_arcmin": 6.0}, "log_modulus": {}}
    return Generator(small.config(observe=observe), lightcones=[small_sky])


def test_memory_that_is_used_again_makes_the_same_bytes(generator: Generator) -> None:
    """Batches of several sizes in one workspace; kept tensors hold the next batch."""
    memory = Workspace(torch.device("cpu"))
    expected = generator.generate(range(20)).digests()
    found, cubes = [], []
    for first, last in ((0, 6), (6, 12), (12, 14), (14, 20)):
        batch = generator.generate(range(first, last), memory)
        found += batch.digests()
        cubes.append(batch.cube)
    assert found == expected
    assert len({cube.data_ptr() for cube in cubes}) == 1


def test_the_stream_s_ring_hands_out_the_sequence(generator: Generator) -> None:
    """On queues that run at once: order, indices and a start that is not 0."""

    stream = SampleStream(generator, 6, start=12)
    ring = stream._start_ring(AtOnce())  # type: ignore[arg-type]
    made = [ring.take().batch for _ in range(3)]
    assert [b.indices[0] for b in made] == [12, 18, 24]
    assert made[2].digests() == generator.generate(range(24, 30)).digests()


def test_a_ring_does_not_keep_its_stream(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to look for a cycle before the memory of its batches is free."""
    monkeypatch.setattr("streamtrain.stream.CudaLanes", lambda device: AtOnce())
    stream = SampleStream(generator, 6)
    for start in (0, 600):
        stream.load_state_dict({"next_index": start})
        batches = [stream._from_ring() for _ in range(3)]
        assert [batch.indices[0] for batch in batches] == [start, start + 6, start + 12]
        assert batches[2].digests() == generator.generate(range(start + 12, start + 18)).digests()
    ended = weakref.ref(stream)
    gc.disable()
    try:
        del stream
        assert ended() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("own", [True, False])
def test_batches_of_their_own_outlive_the_slot(generator: Generator, own: bool) -> None:
    """The third batch is made where the first one was."""
    stream = SampleStream(generator, 6, own=own)
    stream._ring = stream._start_ring(AtOnce())
    first = stream._from_ring()
    expected = generator.generate(range(6)).digests()
    assert first.digests() == expected and first.marks is not None
    stream._from_ring()
    assert (first.digests() == expected) == own


# On a GPU -----------------------------------------------------------------------------------------

SPIN_CYCLES = 20_000_000
"""About 10 ms."""


@pytest.fixture
def gpu_generator(small_sky: Lightcone) -> Iterator[Generator]:
    observe = {"noise": {"sigma_uK": [0, 5]}, "beam": {"fwhm_arcmin": 6.0}, "log_modulus": {}}
    generator = Generator(small.config(observe=observe), device="cuda", lightcones=[small_sky])
    yield generator
    generator.close()


def checksums(stream: SampleStream, steps: int, spin: bool) -> list[list[int]]:
    """Sums of the bits of each sample, computed on the device behind a kernel that spins."""
    sums = []
    for batch in islice(stream, steps):
        if spin:
            torch.cuda._sleep(SPIN_CYCLES)
        sums.append(batch.cube.view(torch.int32).sum(dim=(1, 2, 3), dtype=torch.int64))
    return torch.stack(sums).tolist()


@pytest.mark.gpu
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("spin", [True, False])
def test_streams_on_and_off_give_the_same_bytes(
    gpu_generator: Generator, own: bool, spin: bool
) -> None:
    """Steps that take much longer than batches: too early an overwrite would be seen."""
    off = checksums(SampleStream(gpu_generator, 6, queue=0), 20, False)
    stream = SampleStream(gpu_generator, 6, own=own)
    assert checksums(stream, 20, spin) == off
    stream.close()


@pytest.mark.gpu
def test_batches_of_their_own_stay(gpu_generator: Generator) -> None:
    stream = SampleStream(gpu_generator, 6)
    batches = list(islice(stream, 5))
    digests = [d for batch in batches for d in batch.digests()]
    assert digests == gpu_generator.generate(range(30)).digests()
    stream.close()


@pytest.mark.gpu
def test_nothing_is_allocated_in_steady_state(gpu_generator: Generator) -> None:
    """Neither by torch on the device nor in its pinned memory, nor ever in CuPy's pool."""
    import cupy

    stream = SampleStream(gpu_generator, 6, own=False)
    batches = iter(stream)
    for _ in range(8):
        next(batches)
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()["num_device_alloc"], torch.cuda.memory_reserved()
    for _ in range(50):
        next(batches)
    torch.cuda.synchronize()
    assert (torch.cuda.memory_stats()["num_device_alloc"], torch.cuda.memory_reserved()) == before
    assert cupy.get_default_memory_pool().total_bytes() == 0
    stream.close()


@pytest.mark.gpu
def test_the_host_does_not_wait_for_a_batch(
    gpu_generator: Generator, host_never_waits: Callable[[], AbstractContextManager[None]]
) -> None:
    """torch's own check for synchronising calls finds none while batches are taken."""
    stream = SampleStream(gpu_generator, 6, own=False)
    batches = iter(stream)
    for _ in range(4):
        next(batches)
    torch.cuda.synchronize()
    with host_never_waits():
        for _ in range(10):
            next(batches)
    stream.close()


@pytest.mark.gpu
def test_a_batch_is_made_while_a_step_runs(gpu_generator: Generator) -> None:
    """The mark after the making of the next batch is passed before a long step ends."""
    lanes = CudaLanes(gpu_generator.device)
    ring = SampleStream(gpu_generator, 6)._start_ring(lanes)
    for _ in range(4):
        ring.take()
    torch.cuda.synchronize()
    ring.take()
    torch.cuda._sleep(20 * SPIN_CYCLES)
    step = lanes.mark()
    made = ring._ahead[0]
    made.ready.synchronize()
    assert not step.query()
    torch.cuda.synchronize()
    ring.close()
