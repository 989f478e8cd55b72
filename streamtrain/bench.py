"""`streamtrain bench`: how fast samples are made, how fast the network trains, and both together.

All numbers of one call are measured in turn within one run, so that their ratios mean something on
a noisy machine; each is the median over repetitions.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from streamtrain._version import __version__
from streamtrain.alternatives import limlam_pipeline, numpy_user
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import Config
from streamtrain.cores import num_cores
from streamtrain.cut_costs import cut_costs
from streamtrain.generator.generator import Generator
from streamtrain.generator.inputmap import InputMap
from streamtrain.model_costs import REFERENCE, model_costs, operator_cost
from streamtrain.models import build_network
from streamtrain.stream import SampleStream
from streamtrain.train.calibration import calibrate
from streamtrain.train.optimiser import build_optimiser
from streamtrain.train.torch_state import TorchState, use_bfloat16


def _median_seconds(
    call: Callable[[], Any], seconds: float, device: torch.device, least: int = 3
) -> float:
    """Median duration [s] of `call`, repeated for about `seconds`, after one warm-up."""
    call()
    _synchronise(device)
    durations: list[float] = []
    begin = time.perf_counter()
    while len(durations) < least or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        call()
        _synchronise(device)
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def processor_name() -> str:
    """What the numbers were measured on."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def halos_per_field(generator: Generator, indices: range) -> int:
    """Mean number of halos that a sample paints, brighter or fainter than the label's range too."""
    job, _, _ = generator.draw(indices)
    painted = 0
    for k in range(len(job)):
        _, counts = generator.painter.paint(job, k, k + 1)
        painted += int(counts[0, :-1].sum())
    return round(painted / len(job))


def measure(config: Config, device: str, seconds: float) -> dict[str, Any]:
    """Samples per second of generation, of training on one resident batch, and of both."""
    target = torch.device(device)
    threads = config.train.threads or num_cores()
    generator = Generator(config, "train", target, threads)
    size = config.train.batch_size
    numbers = iter(range(0, 10**9, size))
    with TorchState(target, config.seed, num_cores()):
        generate = _median_seconds(
            lambda: generator.generate(range(start := next(numbers), start + size)), seconds, target
        )
        train_step = _train_step(config, generator)
        resident = generator.generate(range(size))
        train = _median_seconds(lambda: train_step(resident), seconds, target)
        stream = SampleStream(generator, size, queue=config.train.queue)
        batches = iter(stream)
        both = _median_seconds(lambda: train_step(next(batches)), seconds, target)
        stream.close()
    generator.close()
    shorter = min(generate, train)
    return {
        "batch_size": size,
        "threads": threads if target.type == "cpu" else 0,
        "halos_per_field": halos_per_field(generator, range(size)),
        "input_shape": list(generator.input_shape),
        "generate_samples_per_s": size / generate,
        "generate_ms_per_sample": 1e3 * generate / size,
        "train_resident_samples_per_s": size / train,
        "train_resident_ms_per_batch": 1e3 * train,
        "both_samples_per_s": size / both,
        "both_ms_per_batch": 1e3 * both,
        "step_live_over_resident": both / train,
        "overlap": (generate + train - both) / shorter,
    }


def _train_step(config: Config, generator: Generator) -> Callable[[Any], None]:
    network = build_network(
        config.network, generator.input_shape, generator.label, InputMap.of(config)
    )
    network.to(generator.device)
    calibrate(
        network,
        generator,
        chunk=config.train.batch_size,
        report=lambda done, of: None,
    )
    optimiser = build_optimiser(network, config.train)
    bfloat16 = use_bfloat16(config.train, generator.device)

    def step(batch: Any) -> None:
        with torch.autocast(generator.device.type, torch.bfloat16, enabled=bfloat16):
            answer = network(batch.cube)
        loss = network.head.loss(answer, batch.label, batch.counts, batch.one_halo)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.train.clip_norm)
        optimiser.step()
        optimiser.zero_grad()

    return step


def compare(config: Config, seconds: float) -> dict[str, Any]:
    """Milliseconds per sample on one CPU thread: streamtrain (in batches of 16, as the stream asks
    for them) and what one would write otherwise (one at a time: a batch would not help them)."""
    generator = Generator(config, "train", "cpu", 1)
    lightcone, grid = generator.lightcones[0], generator.grid
    pooled = replace(grid, shape=generator.input_shape)
    cpu = torch.device("cpu")
    numbers = iter(range(10**9))
    mass = config.data.min_mass_Msun
    ways = [numpy_user(lightcone, pooled, mass), limlam_pipeline(lightcone, pooled, mass)]

    def sixteen() -> None:
        generator.generate([next(numbers) for _ in range(16)])

    ours = 1e3 / 16 * _median_seconds(sixteen, seconds, cpu)
    result: dict[str, Any] = {"streamtrain_ms": ours}
    for way in ways:
        milliseconds = 1e3 * _median_seconds(lambda w=way: w.make(next(numbers)), seconds, cpu)  # type: ignore[misc]
        result[way.name] = {"ms": milliseconds, "ratio": milliseconds / ours}
    result["streamtrain_ms_again"] = 1e3 / 16 * _median_seconds(sixteen, seconds, cpu)
    result["halos_in_lightcone"] = len(lightcone)
    return result


def bench(
    config: Config,
    *,
    device: str,
    seconds: float,
    out: Path | None,
    alternatives: bool,
    models: bool = False,
    cut: Path | None = None,
) -> int:
    """Measure, print a table, write JSON if asked. cut: a wide lightcone to paint fields out of."""
    report: dict[str, Any] = {
        "streamtrain": __version__,
        "torch": torch.__version__,
        "machine": processor_name(),
        "cores": num_cores(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "date": time.strftime("%Y-%m-%d"),
        **measure(config, device, seconds),
    }
    if alternatives:
        report["alternatives"] = compare(config, seconds)
    if models:
        report["operators"] = operator_cost(config, seconds)
        report["models"] = model_costs(config, seconds)
    if cut is not None:
        report["cut"] = cut_costs(config, Lightcone.open(cut), seconds)
    for name, value in report.items():
        if not isinstance(value, dict | list) or name == "input_shape":
            print(f"{name:30s} {value:.4g}" if isinstance(value, float) else f"{name:30s} {value}")
    if alternatives:
        print("\none sample on one CPU thread")
        for name, value in report["alternatives"].items():
            if isinstance(value, dict):
                print(f"{name:42s} {value['ms']:9.1f} ms  {value['ratio']:6.1f} x")
            else:
                print(f"{name:42s} {value:9.1f}")
    if models:
        costs = report["operators"]
        print(
            f"\none sample on one CPU thread: painting {costs['paint_ms']:.2f} ms, with all "
            f"emitters and operators {costs['all_ms']:.2f} ms, {costs['ratio']:.2f} x"
        )
        for name, value in report["models"].items():
            ratio = value / report["models"][REFERENCE]
            print(f"{name:42s} {value:9.2f} ms  {ratio:6.2f} x")
    if cut is not None:
        print(f"\na field on one CPU thread, out of {cut.name} and out of its own lightcone")
        for row in report["cut"]:
            print(
                f"rolled by {row['roll_deg']:5.1f} deg {row['wide_ms']:9.2f} ms "
                f"{row['alone_ms']:9.2f} ms  {row['ratio']:6.2f} x, "
                f"rows read {row['rows_read']:.2f} x"
            )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {out}")
    return 0
