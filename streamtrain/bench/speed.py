"""Samples per second of generation, of training on a resident batch, and of both together."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from streamtrain.bench.timing import Grouped, batch_maker, median_seconds
from streamtrain.bench.training import train_step
from streamtrain.config import Config
from streamtrain.generator.draws import DrawAhead, SampleDraws, drawn_together
from streamtrain.generator.generator import Generator
from streamtrain.labels import Counts
from streamtrain.machine.workers import num_cores
from streamtrain.networks.network import build_network
from streamtrain.numerics.workspace import Workspace, layout, pack
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
    host = _host_us(generator, size, config.train.processes)
    generator.close()
    return {
        "batch_size": size,
        "threads": threads if target.type == "cpu" else 0,
        "halos_per_field": halos_per_field(generator, range(size)),
        "input_shape": list(generator.input_shape),
        "generate_samples_per_s": size / made,
        "generate_ms_per_sample": 1e3 * made / size,
        **host,
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
    stream = SampleStream(
        generator, train.batch_size, queue=train.queue, processes=train.processes, own=False
    )
    batches = iter(stream)
    for _ in range(train.queue + 1):
        step(next(batches))
    trained = Grouped(lambda: step(next(batches)), drawn_together(train.batch_size))
    both = median_seconds(trained, seconds, generator.device)
    stream.close()
    return both


def _host_us(generator: Generator, size: int, processes: int) -> dict[str, float]:
    """What the host spends on a sample [us]: all of it, and what the training's own process spends
    when so many others draw; the same where none can."""
    alone = _host_seconds(generator, size, 0)
    beside = _host_seconds(generator, size, processes, pause=2.0 * alone)
    return {
        "host_us_per_sample": 1e6 * alone / size,
        "training_process_us_per_sample": 1e6 * beside / size,
    }


def _host_seconds(generator: Generator, size: int, processes: int, pause: float = 0.0) -> float:
    """What the host spends on a batch of a GPU, as `stream` makes it: drawing, choosing tiles and
    putting the arguments together; on a GPU itself also the copy and the launches. Median of some
    calls for all the batches that are drawn at once.

    processes: that draw, for `pause` seconds per batch before anything is timed.
    """
    ahead = DrawAhead(
        generator, lambda n: list(range(n * size, (n + 1) * size)), processes=processes
    )
    on_gpu = generator.device.type == "cuda"
    # a workspace's memory for arguments is used again when the GPU has read them: none is here
    scratch = Workspace(generator.device)
    memory = [Workspace(generator.device, scratch) for _ in range(ahead.together)]
    durations = []
    for call in range(HOST_CALLS + 1):
        if on_gpu:
            torch.cuda.synchronize(generator.device)
        time.sleep(pause * ahead.together)
        start = time.perf_counter()
        for k, workspace in enumerate(memory, call * ahead.together):
            if on_gpu:
                ahead.make(k, workspace)
            elif drawn := ahead.drawn(k):
                pack_arguments(generator, *drawn)
        durations.append(time.perf_counter() - start)
    ahead.close()
    return statistics.median(durations[1:]) / ahead.together


def pack_arguments(generator: Generator, drawing: SampleDraws, first: int, last: int) -> None:
    """Pack the kernels' arguments for samples of a drawing, as for a GPU."""
    arrays = generator.pipeline.kernel_arguments(
        drawing.scene, drawing.arguments, drawing.operators, first, last
    )
    starts, size = layout(arrays)
    pack(arrays, starts, torch.empty(size, dtype=torch.uint8))


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
