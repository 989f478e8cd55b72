"""Batches as a training takes them."""

from __future__ import annotations

from collections.abc import Callable

from streamtrain.generator.batch import Batch
from streamtrain.generator.generator import Generator
from streamtrain.stream import SampleStream


def batch_maker(generator: Generator, size: int) -> Callable[[], Batch]:
    """A function that makes the next batch: on a CPU in the calling thread; on a GPU it takes it
    from a stream, whose memory it is valid in until the next call."""
    if generator.device.type == "cuda":
        batches = iter(SampleStream(generator, size, own=False))
        return lambda: next(batches)
    numbers = iter(range(0, 10**15, size))
    return lambda: generator.generate(range(start := next(numbers), start + size))
