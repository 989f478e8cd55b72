"""What `streamtrain bench` prints, and writes as JSON."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from streamtrain._version import __version__
from streamtrain.bench.comparison import compare, compare_on_gpu
from streamtrain.bench.models import REFERENCE, cut_costs, model_costs, operator_cost
from streamtrain.bench.ranks import rank_costs, report_ranks
from streamtrain.bench.roofline import floor, report_floor
from streamtrain.bench.scaling import draw_scaling, report_scaling, scaling
from streamtrain.bench.speed import measure
from streamtrain.bench.training import report_options, training_options
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import Config
from streamtrain.luminosity.registry import MODELS
from streamtrain.machine.files import write_text
from streamtrain.machine.progress import Progress, duration
from streamtrain.machine.workers import num_cores


@dataclass(frozen=True)
class Wanted:
    """What to measure besides generation, training and both together."""

    alternatives: bool = False
    floor: bool = False
    models: bool = False
    training: bool = False
    scaling: bool = False
    cut: Path | None = None
    """A wide lightcone to paint fields out of."""
    ranks: int = 0
    figure: Path | None = None
    """Where to draw the scaling."""

    def least(self) -> int:
        """Numbers that are measured, at least."""
        return (
            3
            + 3 * self.floor
            + 4 * self.alternatives
            + (2 + len(MODELS)) * self.models
            + 2 * self.training
            + 4 * self.scaling
            + 2 * (self.cut is not None)
            + self.ranks
        )


def processor_name() -> str:
    """What the numbers were measured on."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def bench(
    config: Config, *, device: str, seconds: float, out: Path | None, wanted: Wanted | None = None
) -> int:
    """Measure, print tables, write JSON if asked. seconds: about, per measurement."""
    wanted = wanted or Wanted()
    least = duration(seconds * wanted.least())
    Progress().note(f"measuring for {least} or more, {seconds:g} s for each number")
    report: dict[str, Any] = {
        "streamtrain": __version__,
        "torch": torch.__version__,
        "machine": processor_name(),
        "cores": num_cores(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "date": time.strftime("%Y-%m-%d"),
        **measure(config, device, seconds),
    }
    for name, value in report.items():
        print(f"{name:30s} {value:.4g}" if isinstance(value, float) else f"{name:30s} {value}")
    for name, part, lines in _parts(config, device, seconds, wanted):
        report[name] = part
        print("\n".join(lines), flush=True)
    if out is not None:
        write_text(out, json.dumps(report, indent=1) + "\n")
        print(f"wrote {out}")
    return 0


def _parts(config: Config, device: str, seconds: float, wanted: Wanted) -> Any:
    """(name, numbers, lines) of each further measurement, as it is made."""
    if wanted.floor:
        found = floor(config, device, seconds)
        yield "floor", found, report_floor(found)
    if wanted.alternatives:
        found = compare(config, seconds)
        yield "alternatives", found, ["\none sample on one CPU thread", *_alternatives(found)]
        if device.startswith("cuda"):
            found = compare_on_gpu(config, torch.device(device), seconds)
            yield "alternatives_gpu", found, ["\none sample on the GPU", *_alternatives(found)]
    if wanted.models:
        costs = operator_cost(config, seconds)
        yield (
            "operators",
            costs,
            [
                f"\none sample on one CPU thread: painting {costs['paint_ms']:.2f} ms, with all of "
                f"`emit` and `observe` {costs['all_ms']:.2f} ms, {costs['ratio']:.2f} x"
            ],
        )
        models = model_costs(config, seconds)
        yield "models", models, [_ratio(name, ms, models[REFERENCE]) for name, ms in models.items()]
    if wanted.training:
        options = training_options(config, device, seconds)
        yield "training", options, report_options(options)
    if wanted.scaling:
        rows = scaling(config, device, seconds)
        lines = report_scaling(rows)
        if wanted.figure is not None:
            draw_scaling(rows, wanted.figure)
            lines.append(f"wrote {wanted.figure}")
        yield "scaling", rows, lines
    if wanted.cut is not None:
        rows = cut_costs(config, Lightcone.open(wanted.cut), seconds)
        head = f"\na field on one CPU thread, out of {wanted.cut.name} and out of its own lightcone"
        yield "cut", rows, [head, *map(_cut, rows)]
    if wanted.ranks:
        ranks = rank_costs(config, device, wanted.ranks)
        yield "ranks", ranks, report_ranks(ranks)


def _alternatives(found: dict[str, Any]) -> list[str]:
    lines = []
    for name, value in found.items():
        if not isinstance(value, dict):
            lines.append(f"{name:50s} {value if value is None else format(value, '9.4g')}")
        elif "ms" in value:
            lines.append(f"{name:50s} {value['ms']:9.4g} ms  {value['ratio']:6.1f} x")
        else:
            lines += [f"{name}: {way}: {reason}" for way, reason in value.items()]
    return lines


def _ratio(name: str, ms: float, reference: float) -> str:
    return f"{name:42s} {ms:9.2f} ms  {ms / reference:6.2f} x"


def _cut(row: dict[str, Any]) -> str:
    return (
        f"rolled by {row['roll_deg']:5.1f} deg {row['wide_ms']:9.2f} ms {row['alone_ms']:9.2f} ms  "
        f"{row['ratio']:6.2f} x, rows read {row['rows_read']:.2f} x"
    )
