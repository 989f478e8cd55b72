"""Samples as a pure function of (configuration, seed, split, index)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.catalogs.bank import check_disjoint, expand
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.skies import Header, Skies
from streamtrain.config import Config, ConfigError, GridConfig
from streamtrain.config_emit import InterloperConfig
from streamtrain.cores import num_cores
from streamtrain.generator.backend import Kernels, full_device, kernels_for
from streamtrain.generator.emitters import build_emitters, emit_stage
from streamtrain.generator.geometry import Grid
from streamtrain.generator.labels import EXTRA_COUNTS, Label
from streamtrain.generator.line import Line, Stages
from streamtrain.generator.memory import check_memory
from streamtrain.generator.mixture import Mixture
from streamtrain.generator.operators import Drawn, Operator, Pool, build_operators
from streamtrain.generator.operators.scaled_log import ScaledLog
from streamtrain.generator.painter import Job, Painter
from streamtrain.generator.scenes import Scene, Scenes
from streamtrain.generator.schedule import Schedule
from streamtrain.generator.sfr_table import SFRTable, sfr_source
from streamtrain.rng import SPLITS, STAGE_POSE, Draws, Split, sample_indices

GENERATOR_VERSION = 1
"""Goes up when a release changes the bits of samples, together with the golden digests."""


@dataclass
class Batch:
    """B samples on one device."""

    cube: torch.Tensor
    """Network input, float32 [B, n_freq, n_dec, n_ra]."""
    label: torch.Tensor
    """float32 [B, num_outputs]: per luminosity bin, or one-hot per class."""
    counts: torch.Tensor
    """Halos per luminosity bin, int32 [B, n_bins]."""
    draws: list[dict[str, Any]]
    """What was drawn for each sample: lightcone, centre_deg, roll_deg, mirror, model, ..."""
    indices: list[int]
    """Global sample indices."""
    saturated: torch.Tensor = field(repr=False)
    """Deposits at the largest representable value, int32 [B]; any makes the sample wrong."""
    one_halo: torch.Tensor = field(repr=False)
    """The label of one halo in each bin, float32 [1 or B, n_bins]; see `Label.log10_counts`."""
    seconds: float = 0.0
    """Host seconds spent on this batch."""

    def __len__(self) -> int:
        return len(self.indices)

    def check(self) -> None:
        """Raise ValueError if a halo was too bright for the fixed-point cube (synchronises)."""
        bad = torch.nonzero(self.saturated).flatten().tolist()
        if bad:
            first = bad[0]
            raise ValueError(
                f"sample {self.indices[first]}: {int(self.saturated[first])} halos are too bright "
                f"for the cube's fixed-point range; parameters {self.draws[first]['parameters']}"
            )

    def digests(self) -> list[str]:
        """sha256 of cube and counts of each sample (little-endian bytes)."""
        cubes = self.cube.cpu().numpy().astype("<f4", copy=False)
        counts = self.counts.cpu().numpy().astype("<i4", copy=False)
        return [
            hashlib.sha256(
                np.ascontiguousarray(c).tobytes() + np.ascontiguousarray(n).tobytes()
            ).hexdigest()
            for c, n in zip(cubes, counts, strict=True)
        ]


def grid_of(config: GridConfig) -> Grid:
    """The grid of a configuration."""
    return Grid(config.fov_deg, config.shape, config.nu_GHz, config.nu_rest_GHz, config.units)


class Generator:
    """Makes the samples of one split: `generate([0, 7, 10**12])`.

    split: train, validation or test. device: "cpu" or "cuda". threads: samples made side by side
    on a CPU (they do not change a bit). lightcones: used instead of the configuration's files.
    Raises ConfigError or CatalogError, one sentence each, for input that cannot be used.
    """

    def __init__(
        self,
        config: Config,
        split: Split = "train",
        device: torch.device | str = "cpu",
        threads: int = 1,
        *,
        lightcones: Sequence[Lightcone] | Skies | None = None,
        compiler_flags: Sequence[str] = (),
    ) -> None:
        if split not in SPLITS:
            raise ConfigError(f"split '{split}' is none of {', '.join(SPLITS)}")
        self.config, self.split = config, split
        self.seed = config.seed
        if split == "test" and config.test.seed is not None:
            self.seed = config.test.seed
        self.device = full_device(device)
        self.grid = grid_of(config.grid)
        self.sfr = sfr_source(config.data.sfr, "data.sfr")
        if not isinstance(lightcones, Skies):
            lightcones = Skies(lightcones if lightcones is not None else _open(config, split))
        self.skies = lightcones
        active = config.data.active or len(self.skies)
        self.schedule = Schedule(
            self.seed, split, len(self.skies), active, config.data.active_samples
        )
        self.classes = list(config.line.class_names)
        """Names of the luminosity models that samples are told apart by."""
        cosmologies = [(h.cosmology["Omega_m"], h.cosmology["h"]) for h in self.skies.headers]
        volumes = {pair: self.grid.volume_Mpc3(*pair) for pair in set(cosmologies)}
        self.label = Label(
            config.label, [volumes[pair] for pair in cosmologies], self.classes, self.device
        )
        self.bins = self.label.bins
        self.operators = build_operators(config.observe, self.grid)
        first = self.operators[0] if self.operators else None
        pool = first if isinstance(first, Pool) else None
        if pool is not None:
            # painting into the joined voxels adds up to the same integers, so to the same bits
            del self.operators[0]
        self.emitters = build_emitters(config.emit, self.bins)
        self.operators[:0] = [ScaledLog(b.name, b.stage, b) for b in self.emitters.in_label]
        options: dict[str, Any] = {
            "sfr": self.sfr,
            "device": self.device,
            "compiler_flags": compiler_flags,
        }
        self._line_options, self._leading_pool = options, pool
        self._own_skies = self._interlopers_own()
        check_memory(
            [self.skies, *self._own_skies.values()],
            self.schedule,
            config.data.memory_GB,
            self.device,
        )
        follows = split == "train" and self.schedule.turns
        self.scenes = Scenes(self._scene, self.device, follows=follows)
        self._observe: Kernels = kernels_for(self.device, "observe.cu", "", compiler_flags)
        self._label: Kernels = kernels_for(self.device, "label.cu", "", compiler_flags)
        self.threads = max(1, threads or num_cores())
        self._pool: ThreadPoolExecutor | None = None

    def _interlopers_own(self) -> dict[str, Skies]:
        """Lightcones of interlopers that do not share the line's."""
        found = {}
        for name, section in self.config.emit.items():
            if isinstance(section, InterloperConfig):
                own: dict[str, list[str]] = {s: getattr(section, s) for s in SPLITS}
                if any(own.values()):
                    paths = open_lightcones(own, self.split, f"emit.{name}")
                    self._check_shared(own, f"emit.{name}")
                    found[name] = Skies(paths)
        return found

    def _check_shared(self, own: dict[str, list[str]], where: str) -> None:
        """CatalogError when a sky of an interloper is in another split of the line."""
        lines = {s: getattr(self.config.data, s) for s in SPLITS}
        together: dict[str, list[Path]] = {
            s: expand(lines[s], f"data.{s}", must_exist=False)
            + expand(own[s], f"{where}.{s}", must_exist=False)
            for s in SPLITS
        }
        check_disjoint(together)

    def _scene(self, window: int) -> Scene:
        """What the samples of a window are painted from."""
        config = self.config
        numbers = self.schedule.lightcones(window)
        lightcones = [self.skies.load(number) for number in numbers]
        line = Line(
            config.line,
            config.data,
            self.grid,
            lightcones,
            self.bins,
            self._leading_pool,
            emitters=self.emitters,
            stages=Stages(),
            **self._line_options,
        )
        interlopers = {
            name: self._interloper(name, section, position, lightcones, window)
            for position, (name, section) in enumerate(config.emit.items())
            if isinstance(section, InterloperConfig)
        }
        return Scene(np.array(numbers), line, interlopers)

    def _interloper(
        self,
        name: str,
        section: InterloperConfig,
        position: int,
        lightcones: list[Lightcone],
        window: int,
    ) -> Line:
        """The halos that shine in another line into the same band."""
        stage, own = emit_stage(position), self._own_skies.get(name)
        if own is not None:
            numbers = self.schedule.of(len(own)).lightcones(window)
            lightcones = [own.load(number) for number in numbers]
        return Line(
            section.line,
            self.config.data,
            replace(self.grid, nu_rest_GHz=section.nu_rest_GHz),
            lightcones,
            self.bins,
            self._leading_pool,
            emitters=self.emitters.blank,
            stages=Stages(STAGE_POSE if own is None else stage + 1, stage, stage + 3, stage + 2),
            exponent=self.grid.fixed_point_exponent,
            **self._line_options,
        )

    @property
    def line(self) -> Line:
        """The line that labels are about, with the lightcones that were used last."""
        return self.scenes.latest.line

    @property
    def interlopers(self) -> dict[str, Line]:
        """Other lines in the same maps, likewise."""
        return self.scenes.latest.interlopers

    @property
    def headers(self) -> list[Header]:
        """Of all lightcones: the line's, then those of interlopers that have their own."""
        return [h for skies in (self.skies, *self._own_skies.values()) for h in skies.headers]

    @property
    def lightcones(self) -> list[Lightcone]:
        """The lightcones that were used last: all, unless `data.active` says otherwise."""
        return self.line.lightcones

    @property
    def mixture(self) -> Mixture:
        """The luminosity models that samples are made with."""
        return self.line.mixture

    @property
    def painter(self) -> Painter:
        """Of the line."""
        return self.line.painter

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (n_freq, n_dec, n_ra) of a sample's cube."""
        shape = self.painter.shape
        for operator in self.operators:
            shape = operator.output_shape(shape)
        return shape

    @property
    def num_bins(self) -> int:
        """Number of luminosity bins."""
        return self.bins.num

    @property
    def num_outputs(self) -> int:
        """Numbers in a label: luminosity bins, or classes."""
        return self.label.num_outputs

    @property
    def bin_edges(self) -> NDArray[np.float64]:
        """log10(L / Lsun) [num_bins + 1]."""
        return self.bins.edges

    def describe(self) -> str:
        """What samples are made of: skies and halos in a line, then one for each luminosity model,
        see `Line.describe`."""
        headers, data = self.skies.headers, self.config.data
        skies = len({header.realisation for header in headers})
        turns = ""
        if len(self.lightcones) < len(headers):
            turns = (
                f"{len(self.lightcones)} of them in use for {data.active_samples} samples each, "
            )
        head = (
            f"{self.split}: {len(headers)} lightcones of {skies} skies, {turns}"
            f"{int(self.painter.halos.num_painted.sum())} halos in the band above "
            f"{data.min_mass_Msun:.3g} Msun"
        )
        others = [
            f"{name}: {int(line.painter.halos.num_painted.sum())} halos in the band by "
            f"{', '.join(line.mixture.names)} at {line.grid.nu_rest_GHz:g} GHz"
            for name, line in self.interlopers.items()
        ]
        return "\n".join([head, *self.line.describe(self.seed, self.split), *others])

    def identity(self) -> dict[str, Any]:
        """What decides samples besides the configuration: digests of lightcones, models and, if
        they are used, a table of star-formation rates and the files of map operators."""
        files: dict[str, Any] = {}
        if isinstance(self.sfr, SFRTable):
            files["sfr"] = self.sfr.digest
        if read := {o.name: d for o in self.operators if (d := getattr(o, "digest", None))}:
            files["observe"] = read
        others = {name: line.identity() for name, line in self.interlopers.items()}
        for name, own in self._own_skies.items():
            others[name]["lightcones"] = [header.digest for header in own.headers]
        digests = [header.digest for header in self.skies.headers]
        return {**self.line.identity(), "lightcones": digests, **files, **others}

    def generate(self, indices: Sequence[int]) -> Batch:
        """Make the samples of these global indices (any order, any number, 0..2^64-1)."""
        with torch.inference_mode(False), torch.no_grad():  # both are per thread, ours has others
            return self._generate(indices)

    def _generate(self, indices: Sequence[int]) -> Batch:
        start = time.perf_counter()
        parts = [
            self._generate_in(self.scenes.of(window), indices[first:last])
            for window, first, last in self.schedule.runs(indices)
        ]
        batch = parts[0] if len(parts) == 1 else _join(parts)
        batch.seconds = time.perf_counter() - start
        return batch

    def _generate_in(self, scene: Scene, indices: Sequence[int]) -> Batch:
        job, drawn, records = self._draw(scene, indices)
        size = len(job)
        cube = torch.empty((size, *self.input_shape), dtype=torch.float32, device=self.device)
        raw = torch.empty(
            (size, self.num_bins + EXTRA_COUNTS), dtype=torch.int32, device=self.device
        )
        if self.device.type == "cpu" and self.threads > 1 and size > 1:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads, "streamtrain-generate")
            list(
                self._pool.map(
                    lambda k: self._make(scene, job, drawn, k, k + 1, cube, raw), range(size)
                )
            )
        elif self.device.type == "cpu":
            for k in range(size):
                self._make(scene, job, drawn, k, k + 1, cube, raw)
        elif size:
            self._make(scene, job, drawn, 0, size, cube, raw)
        one_halo = self.label.one_halo(scene.numbers[job.lightcone])
        label = self.label.make(self._label, raw, one_halo, job.model)
        counts = raw[:, : self.num_bins].contiguous()
        numbers = [int(i) for i in indices]
        batch = Batch(cube, label, counts, records, numbers, raw[:, -1], one_halo)
        if self.device.type == "cpu":
            batch.check()
        return batch

    def _make(
        self,
        scene: Scene,
        job: Job,
        drawn: list[Drawn],
        first: int,
        last: int,
        cube_out: torch.Tensor,
        counts_out: torch.Tensor,
    ) -> None:
        """Paint and observe samples first..last-1 into their places."""
        total, counts = scene.line.painter.paint(job, first, last)
        counts_out[first:last] = counts
        for line, other in zip(scene.interlopers.values(), job.others, strict=True):
            counts_out[first:last, -1] += line.painter.paint(other, first, last, total)[1][:, -1]
        target = cube_out[first:last]
        cube = target
        if self.painter.shape != self.input_shape:
            cube = torch.empty(total.shape, dtype=torch.float32, device=self.device)
        self._to_map_units(total, cube)
        keys = torch.from_numpy(job.keys[first:last].view(np.int32)).to(self.device)
        for operator, values in zip(self.operators, drawn, strict=True):
            cube = self._apply(operator, cube, keys, values, first, last)
        if cube is not target:
            target.copy_(cube)

    def _to_map_units(self, total: torch.Tensor, cube: torch.Tensor) -> None:
        self._observe.elementwise(
            "from_fixed_point",
            len(total),
            total[0].numel(),
            np.float64(self.painter.unit),
            total,
            cube,
        )

    def _apply(
        self,
        operator: Operator,
        cube: torch.Tensor,
        keys: torch.Tensor,
        values: Drawn,
        first: int,
        last: int,
    ) -> torch.Tensor:
        tensors = {
            name: torch.from_numpy(v[first:last]).to(self.device) for name, v in values.items()
        }
        return operator.apply(self._observe, cube, keys, tensors)

    def steps(self, index: int) -> list[tuple[str, torch.Tensor]]:
        """How a sample is made: the map after each step, float32 [n_freq, n_dec, n_ra], by name:
        `line`, each interloper that is added to it, each map operator."""
        with torch.inference_mode(False), torch.no_grad():
            scene = self.scenes.of(self.schedule.window(index))
            job, drawn, _ = self._draw(scene, [index])
            total, _ = scene.line.painter.paint(job, 0, 1)
            names, totals = ["line"], [total]
            for (name, line), other in zip(scene.interlopers.items(), job.others, strict=True):
                names.append(name)
                totals.append(line.painter.paint(other, 0, 1, totals[-1].clone())[0])
            cubes = [torch.empty(t.shape, dtype=torch.float32, device=self.device) for t in totals]
            for made, cube in zip(totals, cubes, strict=True):
                self._to_map_units(made, cube)
            keys = torch.from_numpy(job.keys.view(np.int32)).to(self.device)
            for operator, values in zip(self.operators, drawn, strict=True):
                names.append(operator.name)
                cubes.append(self._apply(operator, cubes[-1].clone(), keys, values, 0, 1))
            return [(name, cube[0]) for name, cube in zip(names, cubes, strict=True)]

    def draw(self, indices: Sequence[int]) -> tuple[Job, list[Drawn], list[dict[str, Any]]]:
        """Everything that is drawn for B samples of one window of the schedule: for the painter,
        for each map operator, and as a record per sample. `generate` is this and the painting."""
        windows = [window for window, _, _ in self.schedule.runs(indices)]
        if len(windows) > 1:
            raise ValueError(
                f"samples of {len(windows)} windows of data.active cannot be drawn at once"
            )
        return self._draw(self.scenes.of(windows[0] if windows else 0), indices)

    def _draw(
        self, scene: Scene, indices: Sequence[int]
    ) -> tuple[Job, list[Drawn], list[dict[str, Any]]]:
        numbers = sample_indices(indices)
        draws = Draws(self.seed, self.split, numbers, STAGE_POSE)
        fields = scene.line.fields(draws)
        adjustments = self.emitters.draw(draws)
        job, records = scene.line.draw(draws, fields, adjustments)
        for k, record in enumerate(records):
            for name, made in adjustments.records.items():
                record[name] = {key: float(v[k]) for key, v in made.items()}
        for name, line in scene.interlopers.items():
            same = line.stages.pose == scene.line.stages.pose
            theirs = fields if same else line.fields(draws)
            other, described = line.draw(draws, theirs, line.emitters.draw(draws))
            job.others.append(other)
            for record, part in zip(records, described, strict=True):
                record[name] = part
        drawn = [
            operator.draw(Draws(self.seed, self.split, numbers, operator.stage))
            for operator in self.operators
        ]
        for operator, values in zip(self.operators, drawn, strict=True):
            if values:
                for k, record in enumerate(records):
                    record[operator.name] = {name: float(v[k]) for name, v in values.items()}
        return job, drawn, records

    def close(self) -> None:
        """Stop the threads."""
        self.scenes.close()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def _join(parts: list[Batch]) -> Batch:
    """Batches one after the other."""

    def together(name: str) -> torch.Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    rows = [part.one_halo.expand(len(part), -1) for part in parts]
    return Batch(
        together("cube"),
        together("label"),
        together("counts"),
        [record for part in parts for record in part.draws],
        [index for part in parts for index in part.indices],
        together("saturated"),
        torch.cat(rows),
    )


def _open(config: Config, split: Split) -> list[Path]:
    """The lightcone files of a split."""
    return open_lightcones({name: getattr(config.data, name) for name in SPLITS}, split, "data")


def open_lightcones(patterns: Mapping[str, Sequence[str]], split: Split, where: str) -> list[Path]:
    """The lightcone files of a split; the splits must be different realisations. patterns: files or
    globs for each split; where: the section they stand in."""
    paths: dict[str, list[Path]] = {
        name: expand(patterns[name], f"{where}.{name}", must_exist=name == split) for name in SPLITS
    }
    if not paths[split]:
        raise ConfigError(
            f"{where}.{split} names no lightcone: make some with `streamtrain catalog make`, or "
            "import your own with `streamtrain catalog import`"
        )
    check_disjoint(paths)
    return paths[split]
