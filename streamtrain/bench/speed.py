"""Samples per second of generation, of training on a resident batch, and of both together."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from streamtrain.bench.timing import batch_maker, median_seconds
from streamtrain.bench.training import train_step
from streamtrain.bins import Counts
from streamtrain.config import Config
from streamtrain.generator.generator import Generator
from streamtrain.machine.workers import num_cores
from streamtrain.networks.network import build_network
from streamtrain.numerics.workspace import Workspace
from streamtrain.stream import SampleStream
from streamtrain.train.normalisation import set_normalisation
from streamtrain.train.torch_state import TorchState

ROUNDS = 3
"""Generating, training and both are measured one after the other so many times."""
HOST_CALLS = 20


def halos_per_field(generator: Generator, indices: range) -> int:
    """Mean number of halos that a sample paints, brighter or fainter than the label's range too."""
    arguments = generator.draw(indices).arguments
    painted = 0
    for k in range(len(arguments)):
        _, counts = generator.painter.paint(arguments, k, k + 1)
        painted += int(Counts(counts).halos)
    return round(painted / len(arguments))


def measure(config: Config, device: str, seconds: float) -> dict[str, Any]:
    """Samples per second of generation, of training on one resident batch, and of both; what the
    host spends on a sample, and on a GPU the memory that generation takes."""
    target = torch.device(device)
    threads = config.train.threads or num_cores()
    generator = Generator(config, "train", target, threads)
    size = config.train.batch_size
    times: dict[str, list[float]] = {"generate": [], "train": [], "both": []}

    generate = batch_maker(generator, size)
    with TorchState(target, config.seed, num_cores()):
        memory = _memory(generator, generate) if target.type == "cuda" else {}
        network = build_network(
            config.network,
            generator.input_shape,
            generator.label,
            config.observation.input_map,
            channels_last=config.train.channels_last,
        )
        network.to(generator.device)
        set_normalisation(network, generator, chunk=size, report=lambda done, of: None)
        step = train_step(network, config.train, generator.device)
        resident = generator.generate(range(size))
        for _ in range(ROUNDS):
            share = seconds / ROUNDS
            times["generate"].append(median_seconds(generate, share, target))
            times["train"].append(median_seconds(lambda: step(resident), share, target))
            times["both"].append(_both(config, generator, step, share))
    made, train, both = (statistics.median(found) for found in times.values())
    host_us = _host_us(generator, size)
    generator.close()
    return {
        "batch_size": size,
        "threads": threads if target.type == "cpu" else 0,
        "halos_per_field": halos_per_field(generator, range(size)),
        "input_shape": list(generator.input_shape),
        "generate_samples_per_s": size / made,
        "generate_ms_per_sample": 1e3 * made / size,
        "host_us_per_sample": host_us,
        "train_resident_samples_per_s": size / train,
        "train_resident_ms_per_batch": 1e3 * train,
        "both_samples_per_s": size / both,
        "both_ms_per_batch": 1e3 * both,
        "step_live_over_resident": both / train,
        "overlap": (made + train - both) / min(made, train),
        **memory,
    }


def _both(config: Config, generator: Generator, step: Any, seconds: float) -> float:
    """Seconds of a step that takes its batch from the stream, once the batches are used up that
    were made while nobody trained."""
    train = config.train
    stream = SampleStream(generator, train.batch_size, queue=train.queue, own=False)
    batches = iter(stream)
    for _ in range(train.queue + 1):
        step(next(batches))
    both = median_seconds(lambda: step(next(batches)), seconds, generator.device)
    stream.close()
    return both


def _host_us(generator: Generator, size: int) -> float:
    """What the host spends on a sample [us]: on a GPU all that it does, which is to enqueue the
    kernels; on a CPU the drawing, alone. Median of some calls."""
    memory, durations = Workspace(generator.device), []
    for call in range(HOST_CALLS + 1):
        some = range(call * size, (call + 1) * size)
        if generator.device.type == "cuda":
            torch.cuda.synchronize(generator.device)
            start = time.perf_counter()
            generator.generate(some, memory)
        else:
            start = time.perf_counter()
            draw(generator, some, memory)
        durations.append(time.perf_counter() - start)
    return 1e6 * statistics.median(durations[1:]) / size


def draw(generator: Generator, indices: Sequence[int], memory: Workspace) -> None:
    """Draw samples of one window as `Generator.generate` does, and make nothing of it."""
    scene = generator.scenes.of(generator.window(indices[0]))
    if generator.numpy_because:
        generator.draw_for(scene, indices)
    else:
        generator.draw_on_device(scene, indices, memory)


def lightcone_bytes(generator: Generator) -> int:
    """What the halos in use take on the device [bytes]: their banks, and what every line adds."""
    return sum(tensor.nbytes for tensor in generator.scenes.latest.tensors)


def _memory(generator: Generator, generate: Any) -> dict[str, float]:
    """Peak device memory while batches are made, and what lightcones and one batch take [MB]."""
    torch.cuda.synchronize(generator.device)
    torch.cuda.reset_peak_memory_stats(generator.device)
    for _ in range(3):
        batch = generate()
    torch.cuda.synchronize(generator.device)
    arrays = (batch.cube, batch.label, batch.counts)
    return {
        "generator_peak_MB": torch.cuda.max_memory_allocated(generator.device) / 1e6,
        "lightcones_MB": lightcone_bytes(generator) / 1e6,
        "batch_MB": sum(a.numel() * a.element_size() for a in arrays) / 1e6,
    }
