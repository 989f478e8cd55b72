"""Samples as a pure function of (configuration, seed, split, index)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.arguments import whole_number
from streamtrain.bins import Counts
from streamtrain.catalogs.headers import Header
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.sfr import SFRTable, sfr_source
from streamtrain.catalogs.skies import LightconeFiles
from streamtrain.catalogs.synthesis.fresh import FreshSkies, MadeLightcone
from streamtrain.config import Config
from streamtrain.generator.batch import Batch, DrawnLater, Records, join
from streamtrain.generator.draws import NumpyDraws, SampleDraws
from streamtrain.generator.kernel_draws import OperatorDraws, seed_of
from streamtrain.generator.line import Chosen, EmissionLine
from streamtrain.generator.open import Report, open_skies
from streamtrain.generator.painter import LinePainter
from streamtrain.generator.pipeline import Pipeline
from streamtrain.generator.scenes import SceneBuilder, check_memory
from streamtrain.generator.windows import (
    LightconeWindows,
    Scene,
    SkiesInUse,
    schedule_of,
)
from streamtrain.luminosity.mixture import Mixture
from streamtrain.luminosity.scores import scores_of
from streamtrain.machine.workers import num_cores
from streamtrain.numerics.backend import (
    BackendError,
    Kernels,
    full_device,
    kernels_for,
    launching,
)
from streamtrain.numerics.rng import SPLITS, Draws, Split, sample_indices
from streamtrain.numerics.workspace import Arrays, DeviceArrays, FreshMemory, Workspace
from streamtrain.operators.transforms import ScaledLog
from streamtrain.schema import ConfigError

ACCEPTANCE_DRAWS = 4096
"""Draws of a prior by which the share that its conditions accept is measured."""
GENERATOR_VERSION = 2
"""Goes up when a release changes the bits of samples, together with the golden digests."""


class Generator:
    """Makes the samples of one split: `generate([0, 7, 10**12])`.

    split: train, validation or test. device: "cpu" or "cuda". threads: samples made side by side
    on a CPU (they do not change a bit). lightcones: used instead of the configuration's. scenes: of
    a generator that differs in `observe` alone, and not in a pool at its head, which are not made
    again. report: called while the first lightcones are made, with (fraction done, what is being
    done).
    Raises ConfigError or CatalogError, one sentence each, for input that cannot be used.

    >>> from streamtrain import Generator, load_config
    >>> generator = Generator(load_config("reference.yaml"), "test")
    >>> generator
    Generator('test', 1 lightcone, cube [10, 16, 16], 49 outputs, on cpu)
    >>> batch = generator.generate([0, 7, 10**12])
    >>> batch.cube.shape
    torch.Size([3, 10, 16, 16])
    >>> generator.close()
    """

    def __init__(
        self,
        config: Config,
        split: Split = "train",
        device: torch.device | str = "cpu",
        threads: int = 1,
        *,
        lightcones: Sequence[Lightcone] | LightconeFiles | FreshSkies | None = None,
        scenes: LightconeWindows | None = None,
        compiler_flags: Sequence[str] = (),
        report: Report | None = None,
    ) -> None:
        if not isinstance(config, Config):
            raise ConfigError(
                f"a Generator needs what load_config returns, not a {type(config).__name__}"
            )
        if split not in SPLITS:
            raise ConfigError(f"split '{split}' is none of {', '.join(SPLITS)}")
        threads = whole_number(threads, "threads")
        if threads < 0:
            raise ConfigError(f"threads = {threads} must be 0, one per core, or more")
        self.config, self.split = config, split
        self.seed = config.seed
        if split == "test" and config.test.seed is not None:
            self.seed = config.test.seed
        self.device = full_device(device)
        self.grid = config.grid
        self.sfr = sfr_source(config.data.sfr, "data.sfr")
        if lightcones is None:
            lightcones = open_skies(config, split, report, device=str(self.device))
        elif not isinstance(lightcones, LightconeFiles | FreshSkies):
            if isinstance(lightcones, Lightcone | str | Path):
                raise ConfigError("lightcones must be a list of them, not one")
            if not isinstance(lightcones, Sequence):
                kind = type(lightcones).__name__
                raise ConfigError(f"lightcones must be a list of Lightcone, not a {kind}")
            lightcones = LightconeFiles(lightcones)
        self.skies = lightcones
        self.schedule = schedule_of(config.data, self.seed, split, self.skies)
        self.classes = list(config.line.class_names)
        """Names of the luminosity models, the classes that samples can be of."""
        self._builder = SceneBuilder(
            config,
            split,
            self.skies,
            self.schedule,
            sfr=self.sfr,
            device=self.device,
            compiler_flags=compiler_flags,
        )
        self.label, self.modifiers = self._builder.label, self._builder.modifiers
        self.bins = self.label.bins
        self.observation = config.observation
        self.operators = self.observation.operators()
        self.observation.check_filled(self.operators)
        if self.observation.leading_pool is not None:
            # painting into the joined voxels adds up to the same integers, so to the same bits
            del self.operators[0]
        self.operators[:0] = [ScaledLog(b.name, b.stage, b) for b in self.modifiers.in_label]
        scores = scores_of(Mixture(config.line)) if self.label.is_parameters else []
        self._numpy = NumpyDraws(
            self.seed, split, self.modifiers, self.operators, self.label, scores
        )
        follows = split == "train" and self.schedule.turns
        if scenes is None:
            check_memory(self._builder.lines, config.data.memory_GB, self.device)
            scenes = LightconeWindows(self._builder.build, self.device, follows=follows)
        self.scenes = scenes
        if isinstance(self.skies, FreshSkies):
            self.skies.report = None  # what is made in the background interrupts nobody
        observe = kernels_for(self.device, "observe.cu", "", compiler_flags)
        self.pipeline = Pipeline(self.operators, observe, self.device, self.bins)
        self._seed = seed_of(self.seed, split, self.device)
        self._operator_draws: OperatorDraws | None = None
        self.numpy_because = self._why_numpy(compiler_flags)
        """Why NumPy draws samples, which takes longer; empty where kernels do."""
        if self.device.type == "cuda":  # any stream may read what was sent there
            torch.cuda.current_stream(self.device).synchronize()
        self._label: Kernels = kernels_for(self.device, "label.cu", "", compiler_flags)
        self.threads = max(1, threads or num_cores())
        self._pool: ThreadPoolExecutor | None = None

    def _why_numpy(self, compiler_flags: Sequence[str]) -> str:
        if self.label.is_parameters:
            return "a label of parameters is worked out on the host"
        try:
            self._operator_draws = OperatorDraws(self.operators, self.device, compiler_flags)
        except BackendError:
            raise
        except Exception as error:  # whatever a user's operator makes of what is no array
            return str(error)
        return self.scenes.latest.numpy_because

    def __repr__(self) -> str:
        made = "fresh lightcones"
        if isinstance(self.skies, LightconeFiles):
            made = f"{len(self.skies)} lightcone{'s'[: len(self.skies) != 1]}"
        return (
            f"Generator({self.split!r}, {made}, cube {list(self.input_shape)}, "
            f"{self.num_outputs} outputs, on {self.device})"
        )

    @property
    def line(self) -> EmissionLine:
        """The line that labels are about, with the lightcones that were used last."""
        return self.scenes.latest.line

    @property
    def interlopers(self) -> dict[str, EmissionLine]:
        """Other lines in the same maps, likewise."""
        return self.scenes.latest.interlopers

    @property
    def headers(self) -> list[Header]:
        """Headers of all lightcone files: the line's, then those of interlopers that have their
        own."""
        return self._builder.headers

    @property
    def lightcones(self) -> list[Lightcone]:
        """The lightcones that were used last: all, unless `data.active` says otherwise."""
        return self.line.lightcones

    @property
    def mixture(self) -> Mixture:
        """The luminosity models that samples are made with."""
        return self.line.mixture

    @property
    def painter(self) -> LinePainter:
        """The painter of the line."""
        return self.line.painter

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (n_freq, n_dec, n_ra) of a sample's cube."""
        return self.observation.state.shape

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
        see `EmissionLine.describe`."""
        data = self.config.data
        if isinstance(self.skies, LightconeFiles):
            skies = len({header.realisation for header in self.skies.headers})
            made = f"{len(self.skies)} lightcones of {skies} skies, "
            if len(self.lightcones) < len(self.skies):
                made += (
                    f"{len(self.lightcones)} of them in use for {data.active_samples} samples each"
                    ", "
                )
        else:
            made = (
                f"fresh lightcones, {len(self.lightcones)} of them in use for "
                f"{self.schedule.samples} samples, "
            )
        head = (
            f"{self.split}: {made}{int(self.painter.halos.num_painted.sum())} halos in the band "
            f"above {data.min_mass_Msun:.3g} Msun"
        )
        others = [
            f"{name}: {int(line.painter.halos.num_painted.sum())} halos in the band by "
            f"{', '.join(line.mixture.names)} at {line.grid.nu_rest_GHz:g} GHz"
            for name, line in self.interlopers.items()
        ]
        drawn = []
        if self.numpy_because:
            drawn = [f"samples are drawn by NumPy, which takes longer: {self.numpy_because}"]
        return "\n".join([head, *self.line.describe(self.seed, self.split), *others, *drawn])

    def ln_accepted(self) -> NDArray[np.float64]:
        """ln of the share that the conditions on a draw leave of the space of each luminosity
        model's normal scores [num_models]."""
        line, indices = self.line, np.arange(ACCEPTANCE_DRAWS, dtype=np.uint64)
        draws = Draws(self.seed, self.split, indices, line.stages.model)
        scores = scores_of(self.mixture)
        shares = [line.acceptance(k, draws) / of.within_bounds for k, of in enumerate(scores)]
        return np.log(np.minimum(np.array(shares), 1.0))

    def identity(self) -> dict[str, Any]:
        """What decides samples besides the configuration: digests of lightcones, models and, if
        they are used, a table of star-formation rates and the files of map operators."""
        files: dict[str, Any] = {}
        if isinstance(self.sfr, SFRTable):
            files["sfr"] = self.sfr.digest
        if read := {o.name: d for o in self.operators if (d := o.identity())}:
            files["observe"] = read
        return self._builder.identity(self.scenes.latest, files)

    def generate(self, indices: Sequence[int], memory: Workspace | None = None) -> Batch:
        """Make the samples of these global indices (any order, any number, 0..2^64-1).

        memory: where they are made; the batch is then valid until the next is made there. Default:
        new memory, as for samples of several windows of the schedule and of several threads of a
        CPU. On a GPU all happens on torch's current stream, and the host waits for nothing; of
        consecutive indices, as a `range`, no more than the first is sent to it.
        """
        start = time.perf_counter()
        if isinstance(indices, range) and indices:
            sample_indices([indices[0], indices[-1]])
        else:
            indices = sample_indices(indices).tolist()
        with torch.inference_mode(False), torch.no_grad():  # both are per thread, ours has others
            runs = list(self.schedule.runs(indices))
            given = memory or FreshMemory(self.device)
            alone = len(runs) == 1 and not self._side_by_side
            used = given if alone else FreshMemory(self.device)
            given.begin()
            parts = []
            for window, first, last in runs:
                scene = self.scenes.of(window)
                given.keep(scene)
                parts.append(self._generate(scene, indices[first:last], used))
            batch = parts[0] if len(parts) == 1 else join(parts)
        batch.seconds = time.perf_counter() - start
        return batch

    @property
    def _side_by_side(self) -> bool:
        """Whether samples are made by several threads, which cannot share memory."""
        return self.device.type == "cpu" and self.threads > 1

    def make(self, drawing: SampleDraws, first: int, last: int, memory: Workspace) -> Batch:
        """The samples first..last-1 of what has been drawn, made in `memory`, see `generate`."""
        start = time.perf_counter()
        with torch.inference_mode(False), torch.no_grad():
            memory.begin()
            memory.keep(drawing)
            used = FreshMemory(self.device) if self._side_by_side else memory
            batch = self._make(drawing, first, last, used)
        batch.seconds = time.perf_counter() - start
        return batch

    def _make(self, drawing: SampleDraws, first: int, last: int, memory: Workspace) -> Batch:
        """Samples that NumPy has drawn."""
        scene, arguments, some = drawing.scene, drawing.arguments, slice(first, last)
        known: dict[str, NDArray[np.generic]] = {
            "model": arguments.model[some],
            "lightcone": arguments.lightcone[some],
        }
        if drawing.parameters is not None:
            known["parameters"] = drawing.parameters[some]

        def send(begin: int, end: int, *more: Arrays) -> list[DeviceArrays]:
            arrays = self.pipeline.kernel_arguments(
                scene, arguments, drawing.operators, first + begin, first + end
            )
            return memory.send([*arrays, *more])

        whole: list[DeviceArrays] = []
        if self.device.type == "cuda":
            *whole, drawn = send(0, last - first, known)  # one copy
        else:
            (drawn,) = memory.send([known])
        return self._painted(
            scene,
            drawing.indices[some],
            self._no_counts(last - first, memory),
            lambda begin, end: whole or send(begin, end),
            drawn,
            drawing.records[some],
            memory,
        )

    def _generate(self, scene: Scene, indices: Sequence[int], memory: Workspace) -> Batch:
        """Samples of one window, which kernels draw, or NumPy where they cannot."""
        size = len(indices)
        if self.numpy_because or scene.numpy_because:
            return self._make(self.draw_for(scene, indices), 0, size, memory)
        with launching(self.device):
            raw, lines, numbers = self.draw_on_device(scene, indices, memory)

        def part(begin: int, end: int) -> list[DeviceArrays]:
            of_lines = zip(scene.lines, lines, strict=True)
            return [
                *(line.part(arrays, begin, end) for line, arrays in of_lines),
                *({name: v[begin:end] for name, v in drawn.items()} for drawn in numbers),
            ]

        kept = ref(scene)  # a batch must not hold on to its lightcones

        def records() -> Records:
            there = kept() or self.scenes.of(self.schedule.window(indices[0]))
            return self.draw_for(there, indices).records

        return self._painted(scene, indices, raw, part, lines[0], DrawnLater(records, size), memory)

    def draw_on_device(
        self, scene: Scene, indices: Sequence[int], memory: Workspace
    ) -> tuple[torch.Tensor, list[DeviceArrays], list[DeviceArrays]]:
        """Draw samples of one window by kernels, which `numpy_because` must not rule out.

        Returns the paint kernel's counts, int32 [B, bins + 3], 0 but in the last place of samples
        that could not be drawn; what it reads of each line; what each map operator reads.
        """
        assert self._operator_draws is not None
        raw, index = self._no_counts(len(indices), memory), self._index(indices, memory)
        lines = [
            line.draw_on_device(index, self._seed, raw, memory, f"line {k}")
            for k, line in enumerate(scene.lines)
        ]
        return raw, lines, self._operator_draws.draw(index, self._seed, raw, memory)

    def _no_counts(self, size: int, memory: Workspace) -> torch.Tensor:
        return memory.zeros("counts", (size, self.bins.num_counts), torch.int32)

    def _index(self, indices: Sequence[int], memory: Workspace) -> torch.Tensor:
        """Global indices on the device, int64 [B], of the bits of uint64."""
        if self.device.type == "cuda" and isinstance(indices, range) and indices.stop <= 2**63:
            index = memory.empty("index", (len(indices),), torch.int64)
            return torch.arange(indices.start, indices.stop, indices.step, out=index)
        return memory.send([{"index": sample_indices(indices).view(np.int64)}])[0]["index"]

    def _painted(
        self,
        scene: Scene,
        indices: Sequence[int],
        raw: torch.Tensor,
        part: Callable[[int, int], list[DeviceArrays]],
        drawn: DeviceArrays,
        records: Sequence[dict[str, Any]],
        memory: Workspace,
    ) -> Batch:
        """Samples of what has been drawn for them.

        raw: the paint kernel's counts, zero but where a sample could not be drawn; part: what
        `Pipeline.make` reads of some of them; drawn: `lightcone` and `model`, and the label where
        it is of parameters.
        """
        scene.read_from_here(self.device)
        size = len(indices)
        cube = memory.empty("cube", (size, *self.input_shape), torch.float32)

        def make(begin: int, end: int) -> None:
            some = cube[begin:end], raw[begin:end]
            self.pipeline.make(scene, part(begin, end), *some, memory)

        with launching(self.device):
            if self.device.type == "cuda" and size:
                make(0, size)  # one launch per kernel
            else:
                self._for_each(size, lambda k: make(k, k + 1))
            unit_label = scene.unit_label
            if len(unit_label) > 1:
                unit_label = unit_label[drawn["lightcone"]]
            label = self.label.make(self._label, raw, unit_label, drawn, memory)
        counts = memory.empty("label counts", (size, self.num_bins), torch.int32)
        counts.copy_(Counts(raw).bins)
        saturated = Counts(raw).saturated
        batch = Batch(cube, label, counts, records, list(indices), saturated, unit_label)
        batch.bin_edges = self.bin_edges
        if self.device.type == "cpu":
            batch.check()
        return batch

    def _for_each(self, size: int, make: Callable[[int], object]) -> None:
        """Call `make` of 0..size-1, on the generator's threads."""
        if self.threads == 1 or size < 2:
            for k in range(size):
                make(k)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads, "streamtrain-generate")
        list(self._pool.map(make, range(size)))

    def counts(self, indices: Sequence[int]) -> torch.Tensor:
        """Halos per luminosity bin of these samples, int32 [B, num_bins] on the CPU, as `generate`
        has them, but without interlopers and map operators: where the maps do not matter."""
        indices = sample_indices(indices).tolist()
        found = torch.zeros((len(indices), self.num_bins), dtype=torch.int32)
        with torch.inference_mode(False), torch.no_grad():
            for _, first, last in self.schedule.runs(indices):
                drawing = self.draw(indices[first:last])
                painter, arguments = drawing.scene.line.painter, drawing.arguments
                rows = found[first:last]

                def paint(
                    k: int, rows: Any = rows, painter: Any = painter, arguments: Any = arguments
                ) -> None:
                    rows[k] = Counts(painter.paint(arguments, k, k + 1)[1]).bins[0].cpu()

                self._for_each(last - first, paint)
        return found

    def blank(self, indices: Sequence[int]) -> torch.Tensor:
        """The maps of these samples had there been no halo: what foregrounds, noise and the other
        operators make of nothing, float32 [B, n_freq, n_dec, n_ra]."""
        indices = sample_indices(indices).tolist()
        with torch.inference_mode(False), torch.no_grad():
            memory = FreshMemory(self.device)
            cube = memory.empty("cube", (len(indices), *self.input_shape), torch.float32)
            for window, first, last in self.schedule.runs(indices):
                scene = self.scenes.of(window)
                drawing = self.draw_for(scene, indices[first:last])
                keys = {"keys": drawing.arguments.keys.view(np.int32)}
                arrays, *values = memory.send([keys, *drawing.operators])
                nothing = self.pipeline.blank_total(scene, last - first, memory)
                target = cube[first:last]
                self.pipeline.finish(scene, nothing, arrays["keys"], values, target, memory)
            return cube

    def steps(self, index: int) -> list[tuple[str, torch.Tensor]]:
        """How a sample is made: the map after each step, float32 [n_freq, n_dec, n_ra], by name:
        `line`, each interloper that is added to it, each map operator."""
        (index,) = sample_indices([index]).tolist()
        with torch.inference_mode(False), torch.no_grad():
            scene = self.scenes.of(self.schedule.window(index))
            scene.read_from_here(self.device)
            drawing = self.draw_for(scene, [index])
            arguments = drawing.arguments
            total, _ = scene.line.painter.paint(arguments, 0, 1)
            names, totals = ["line"], [total]
            for (name, line), other in zip(
                scene.interlopers.items(), arguments.others, strict=True
            ):
                names.append(name)
                totals.append(line.painter.paint(other, 0, 1, totals[-1].clone())[0])
            cubes = [torch.empty(t.shape, dtype=torch.float32, device=self.device) for t in totals]
            for made, cube in zip(totals, cubes, strict=True):
                self.pipeline.to_map_units(scene, made, cube)
            memory = FreshMemory(self.device)
            keys = {"keys": arguments.keys.view(np.int32)}
            arrays, *values = memory.send([keys, *drawing.operators])
            for name, cube in self.pipeline.observed(cubes[-1].clone(), arrays["keys"], values):
                names.append(name)
                cubes.append(cube.clone())
            return [(name, cube[0]) for name, cube in zip(names, cubes, strict=True)]

    def draw(
        self,
        indices: Sequence[int],
        chosen: Chosen | None = None,
        levels: Mapping[str, NDArray[np.float64]] | None = None,
    ) -> SampleDraws:
        """Everything that is drawn for samples of one window of the schedule; `generate` is this
        and `make`.

        chosen: luminosity models and parameters of the line that the samples have instead of those
        that they would draw; levels: sigma [map units] of noise, in the units in which it is quoted
        in the configuration, [B] by the operator's name.
        """
        indices = sample_indices(indices).tolist()
        windows = [window for window, _, _ in self.schedule.runs(indices)]
        if len(windows) > 1:
            raise ValueError(
                f"samples of {len(windows)} windows of data.active cannot be drawn at once"
            )
        scene = self.scenes.of(windows[0] if windows else 0)
        return self.draw_for(scene, indices, chosen, levels)

    def draw_for(
        self,
        scene: Scene,
        indices: Sequence[int],
        chosen: Chosen | None = None,
        levels: Mapping[str, NDArray[np.float64]] | None = None,
    ) -> SampleDraws:
        """Draw samples of one window whose lightcones are at hand, with NumPy alone; see `draw`."""
        return self._numpy.draw(scene, indices, chosen, levels)

    def skies_of(self, index: int) -> SkiesInUse:
        """The lightcones that a sample may be painted from."""
        window = self.schedule.window(index)
        names = [self.skies.name(number) for number in self.schedule.lightcones(window)]
        return SkiesInUse(names, self.schedule.seen(window), self.schedule.num)

    def skies_until(self, number: int) -> dict[str, str]:
        """The sky of each lightcone file that samples 0 .. number - 1 may be painted from, by the
        lightcone's name."""
        windows = range(self.schedule.window(number - 1) + 1)
        used = {self.skies.name(k) for w in windows for k in self.schedule.lightcones(w)}
        return {name: sky for name, sky in self.skies.realisations.items() if name in used}

    def window(self, index: int) -> int:
        """The stretch of indices with the same lightcones that a sample lies in."""
        return self.schedule.window(index)

    def ready(self, index: int, seconds: float) -> bool:
        """Whether the lightcones of a sample are in use, after waiting for at most so long [s]."""
        return self.scenes.ready(self.window(index), seconds)

    def take_made(self) -> list[MadeLightcone]:
        """The lightcones that were made, not read, since the last call."""
        return self.skies.take_made() if isinstance(self.skies, FreshSkies) else []

    def give_up(self) -> None:
        """Make no more lightcones: a sample that waits for one fails."""
        if isinstance(self.skies, FreshSkies):
            self.skies.close()

    def close(self) -> None:
        """Stop the generator's threads; it cannot be used afterwards."""
        self.give_up()
        self.scenes.close()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
