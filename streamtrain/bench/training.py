"""A training step, and which of its options pay: `streamtrain bench --training`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch

from streamtrain.bench.timing import in_turn
from streamtrain.config import Config
from streamtrain.generator.batch import Batch
from streamtrain.generator.generator import Generator
from streamtrain.machine.workers import num_cores
from streamtrain.networks.network import Network, build_network
from streamtrain.networks.settings import CNNConfig, NetworkConfig, ResNetConfig
from streamtrain.train.normalisation import set_normalisation
from streamtrain.train.optimiser import build_optimiser, compiled
from streamtrain.train.settings import TrainConfig
from streamtrain.train.torch_state import TorchState, use_bfloat16

Step = Callable[[Batch], None]
USUAL = "float32, channels last, fused, not compiled"
"""What the options are compared with."""
ALL = "all of them"


def train_step(network: Network, train: TrainConfig, device: torch.device) -> Step:
    """A function that makes one update from a batch, as the trainer makes it."""
    optimiser = build_optimiser(network, train)
    return _step(network, train, device, optimiser)


def _step(
    network: Network, train: TrainConfig, device: torch.device, optimiser: torch.optim.Optimizer
) -> Step:
    bfloat16 = use_bfloat16(train, device)
    model = compiled(network, train.compile)
    model.train()

    def step(batch: Batch) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            prediction = model(batch.cube)
        loss = network.head.loss(prediction, batch.label, batch.counts, batch.unit_label)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), train.clip_norm)
        optimiser.step()
        optimiser.zero_grad()

    return step


def networks(config: Config, device: torch.device) -> dict[str, NetworkConfig]:
    """The networks whose steps are timed: the configuration's, the 2-D CNN, the published 3-D
    ResNet (on a CPU an eighth as wide, as the published one takes minutes there)."""
    filters = 64 if device.type == "cuda" else 8
    return {
        f"network.kind = {config.network.kind}, as configured": config.network,
        "2-D CNN": CNNConfig(layers=5, kernel=3, filters=32),
        f"3-D ResNet, {filters} filters": ResNetConfig(filters=filters),
    }


def training_options(config: Config, device: str, seconds: float) -> dict[str, dict[str, float]]:
    """Milliseconds of a step, for each network with each option changed alone and with all of
    float32's rivals at once, all in turn: {network: {option: ms}}.

    On a CPU the batch is at most 16 samples.
    """
    target = torch.device(device)
    size = config.train.batch_size if target.type == "cuda" else min(config.train.batch_size, 16)
    generator = Generator(config, "train", target, config.train.threads or num_cores())
    batch = generator.generate(range(size))
    found = {}
    with TorchState(target, config.seed, num_cores()):
        for name, network in networks(config, target).items():
            ways = {
                option: _bound(build(generator, network, config.train, option), batch)
                for option in OPTIONS
            }
            times = in_turn(ways, seconds / len(ways), target)
            found[name] = {option: 1e3 * s for option, s in times.items()}
    generator.close()
    return found


def _bound(step: Step, batch: Batch) -> Callable[[], None]:
    return lambda: step(batch)


Precision = Literal["float32", "bfloat16"]
OPTIONS: dict[str, tuple[Precision, bool, bool, bool]] = {
    USUAL: ("float32", True, True, False),
    "bfloat16": ("bfloat16", True, True, False),
    "channels first": ("float32", False, True, False),
    "optimiser not fused": ("float32", True, False, False),
    "compiled": ("float32", True, True, True),
    "bfloat16, channels first": ("bfloat16", False, True, False),
    "bfloat16, compiled": ("bfloat16", True, True, True),
}
"""precision, channels last, fused optimiser, compiled."""


def build(generator: Generator, network: NetworkConfig, train: TrainConfig, option: str) -> Step:
    """The step of a fresh network with one of `OPTIONS`."""
    precision, channels_last, fused, compile_ = OPTIONS[option]
    train = replace(train, precision=precision, channels_last=channels_last, compile=compile_)
    built = build_network(
        network,
        generator.input_shape,
        generator.label,
        generator.config.observation.input_map,
        channels_last=channels_last,
    ).to(generator.device)
    set_normalisation(built, generator, chunk=train.batch_size, report=lambda done, of: None)
    optimiser = build_optimiser(built, train)
    if not fused:
        for group in optimiser.param_groups:
            group["fused"] = False
    return _step(built, train, generator.device, optimiser)


def best_option(times: dict[str, float]) -> tuple[str, float]:
    """The fastest option and what it gains over `USUAL`; below 2 % nothing pays."""
    option = min(times, key=lambda name: times[name])
    gain = times[USUAL] / times[option]
    return (option, gain) if gain > 1.02 else (USUAL, 1.0)


def report_options(found: dict[str, dict[str, Any]]) -> list[str]:
    """Lines of a table."""
    lines = []
    for name, times in found.items():
        lines.append(f"\na training step, {name}")
        for option, ms in times.items():
            lines.append(f"{option:46s} {ms:9.2f} ms  {times[USUAL] / ms:6.2f} x as fast")
        option, gain = best_option(times)
        lines.append(f"what pays: {option} ({gain:.2f} x)")
    return lines
