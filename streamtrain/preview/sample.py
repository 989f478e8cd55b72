"""What one sample is made of, seen: its map after each step, what each step adds, its halos."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.config import Config
from streamtrain.evaluate.folder import output_folder
from streamtrain.figures import write_png
from streamtrain.generator.generator import Generator
from streamtrain.luminosity.lines import line_name
from streamtrain.machine.workers import ALONE, Resources
from streamtrain.numerics.rng import Split
from streamtrain.preview import sample_figure
from streamtrain.preview.prior import paint_samples, signal_generator
from streamtrain.preview.prior_figures import PaintedSamples
from streamtrain.preview.sample_figure import Panel
from streamtrain.tables import columns

Float = NDArray[np.float64]

NUM_SAMPLES = 200
"""Samples that the prior's range of luminosity functions is taken from."""
TEXT_WIDTH = 100


@dataclass(frozen=True)
class Step:
    """One step of a sample."""

    name: str
    """`line`, or the key of the configuration."""
    title: str
    """What it is, in plain words."""
    cube: Float
    """The map after it [n_freq, n_dec, n_ra]."""
    added: Float | None
    """What it added [n_freq, n_dec, n_ra]; None for the line and what transforms the map."""
    unit: str
    """uK or Jy/sr; '' after a transform into a number without a unit."""
    telescope: bool = False
    """Whether it is shown beside the map before it."""


def steps_of_sample(generator: Generator, index: int) -> list[Step]:
    """The steps of a sample of the generator's split, in their order."""
    unit: str = generator.grid.units
    before: Float | None = None
    operators = {operator.name: operator for operator in generator.operators}
    steps = []
    for name, tensor in generator.steps(index):
        cube = tensor.cpu().numpy().astype(np.float64)
        operator = operators.get(name)
        if operator is None:  # a line
            title, adds, telescope = _title(generator, name), before is not None, False
        else:
            title, adds, telescope = operator.title, operator.adds, operator.telescope
            unit = "" if operator.unitless else unit
        added = cube - before if adds and before is not None else None
        steps.append(Step(name, title, cube, added, unit, telescope))
        before = cube
    return steps


def _title(generator: Generator, name: str) -> str:
    """What a line is, in plain words."""
    if name == "line":
        return f"{line_name(generator.grid.nu_rest_GHz)} map"
    return f"interloper {line_name(generator.interlopers[name].grid.nu_rest_GHz)}"


def panels_of_steps(steps: Sequence[Step], channel: int) -> list[Panel]:
    """What is drawn of a sample: what is added and then the sum, the map after each transform.

    channel: of the last map; of a map with more channels, the one in the middle of what becomes it.
    """
    panels: list[Panel] = []
    sum_of: list[int] = []
    num_last = len(steps[-1].cube)

    def add(step: Step, title: str, cube: Float, **more: Any) -> int:
        k = (2 * channel + 1) * len(cube) // (2 * num_last)
        empty = not cube.any()
        panels.append(Panel(title, cube[k], step.unit, k, len(cube), empty=empty, **more))
        return len(panels) - 1

    for number, step in enumerate(steps):
        if step.added is not None:
            sum_of.append(add(step, step.title, step.added))
            following = steps[number + 1] if number + 1 < len(steps) else None
            if following is None or following.added is None:
                sum_of = [add(step, "combined", step.cube, terms=tuple(sum_of))]
        else:
            before = sum_of[0] if step.telescope else None
            sum_of = [add(step, step.title, step.cube, compared_with=before)]
    return panels


def table(steps: Sequence[Step]) -> str:
    """Mean and root mean square of the map after every step, and of what it added."""
    rows = []
    for step in steps:
        added = ("", "") if step.added is None else _moments(step.added)
        shape = " x ".join(str(n) for n in step.cube.shape)
        rows.append((step.name, shape, *_moments(step.cube), *added, step.unit or "-"))
    head = ("step", "shape", "mean", "rms", "mean added", "rms added", "unit")
    return "\n".join(columns(head, rows, left=(0, 1, 6)))


def _moments(cube: Float) -> tuple[str, str]:
    return f"{cube.mean():.4g}", f"{np.sqrt(np.mean(cube * cube)):.4g}"


def drawn(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was drawn for a sample, an entry of `Batch.draws`: names and what is said of them."""
    items = [("field", _field(record)), ("line", _model(record))]
    own = ("lightcone", "centre_deg", "roll_deg", "mirror", "model", "parameters")
    for name, value in record.items():
        if name in own:
            continue
        if "model" in value:
            there = _field(value)
            where = "in the field of the line" if there == _field(record) else there
            items.append((name, f"{_model(value)}; {where}"))
        else:
            items.append((name, numbers(value)))
    return items


def entries(items: Sequence[tuple[str, str]]) -> str:
    """Names and what is said of them in two columns."""
    width = max(len(name) for name, _ in items) + 2
    lines = []
    for name, text in items:
        kept = text.replace(" = ", "\0=\0")  # a name stays with its value
        rest = " " * (width + 2)
        first = f"  {name.ljust(width)}"
        lines += textwrap.wrap(
            kept, TEXT_WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False
        )
    return "\n".join(lines).replace("\0", " ")


def numbers(values: Mapping[str, float]) -> str:
    """'alpha = 1.38, beta = -1.9'."""
    return ", ".join(f"{name} = {value:.4g}" for name, value in values.items())


def _model(record: Mapping[str, Any]) -> str:
    parameters = record["parameters"]
    return record["model"] + (f": {numbers(parameters)}" if parameters else "")


def _field(record: Mapping[str, Any]) -> str:
    ra, dec = record["centre_deg"]
    mirrored = ", mirrored" if record["mirror"] else ""
    return (
        f"{record['lightcone']}, centre ({ra:.3f}, {dec:.3f}) deg, "
        f"rolled by {record['roll_deg']:.1f} deg{mirrored}"
    )


def _halos(painted: PaintedSamples) -> str:
    below, inside, above = (int(n) for n in painted.halos[0])
    first, last = (f"10^{painted.bin_edges[k]:.3g}" for k in (0, -1))
    return (
        f"{inside} with {first} .. {last} Lsun, {below} fainter (or switched off), {above} brighter"
    )


def preview_sample(
    config: Config,
    index: int = 0,
    *,
    split: Split = "train",
    channel: int | None = None,
    samples: int = NUM_SAMPLES,
    out: Path | None = None,
    resources: Resources = ALONE,
) -> Path:
    """Draw what the sample `index` of a split is made of, sample_<index>.png, into `out` (default:
    the run folder), and print what was drawn for it and the mean and rms of its steps.

    channel: frequency slice of the network's input (default: the middle one); samples: of the same
    split, for the prior's range of luminosity functions. Returns the path. Raises ValueError, one
    sentence, for input that cannot be used.
    """
    start = time.perf_counter()
    if samples < 1:
        raise ValueError(f"--samples {samples}: a preview needs one sample or more")
    folder = output_folder(config, out, test=split == "test")
    generator = Generator(config, split, **resources.of_generator(config.train.threads))
    num_channels = generator.input_shape[0]
    channel = num_channels // 2 if channel is None else channel
    if not 0 <= channel < num_channels:
        raise ValueError(f"--channel {channel} is outside 0..{num_channels - 1}")
    batch = generator.generate([index])
    batch.check()
    steps = steps_of_sample(generator, index)
    generator.close()
    signal = signal_generator(config, split, resources, generator.skies)
    one = paint_samples(signal, [index])
    prior = paint_samples(signal, range(samples), resources.progress)
    signal.close()
    resources.progress.close()
    record = batch.draws[0]
    figure = sample_figure.sample(
        panels_of_steps(steps, channel),
        generator.grid,
        one,
        prior,
        title=f"sample {index} ({split})",
        model=_model(record),
    )
    path = folder / f"sample_{index}.png"
    write_png(figure, path)
    print(f"sample {index} ({split})")
    print(entries([*drawn(record), ("halos", _halos(one))]))
    print(table(steps))
    print(f"wrote {path}")
    print(f"took {time.perf_counter() - start:.1f} s")
    return path
