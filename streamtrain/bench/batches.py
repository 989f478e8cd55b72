"""Batches as a training takes them."""

from __future__ import annotations

from streamtrain.bench.timing import Grouped
from streamtrain.generator.drawing import drawn_together
from streamtrain.generator.generator import Generator
from streamtrain.stream import SampleStream


def batch_maker(generator: Generator, size: int) -> Grouped:
    """A function that makes the next batch: on a CPU in the calling thread; on a GPU it takes it
    from a stream, whose memory it is valid in until the next call."""
    if generator.device.type == "cuda":
        batches = iter(SampleStream(generator, size, own=False))
        return Grouped(lambda: next(batches), drawn_together(size))
    numbers = iter(range(0, 10**15, size))
    return Grouped(lambda: generator.generate(range(start := next(numbers), start + size)))
