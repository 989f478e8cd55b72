"""Samples as a pure function of (configuration, seed, split, index)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.catalogs.bank import Bank, check_disjoint, expand
from streamtrain.catalogs.lightcone import CatalogError, Lightcone
from streamtrain.config import Config, ConfigError, GridConfig
from streamtrain.cores import num_cores
from streamtrain.generator.backend import Kernels, full_device, kernels_for
from streamtrain.generator.emission import Emission
from streamtrain.generator.geometry import Grid, Pose, check_fits, draw_poses
from streamtrain.generator.labels import EXTRA_COUNTS, LuminosityBins, make_label
from streamtrain.generator.mixture import Mixture
from streamtrain.generator.operators import Drawn, Pool, build_operators
from streamtrain.generator.painter import Job, Painter
from streamtrain.generator.priors import Condition, Parameters
from streamtrain.generator.sfr_table import SFRTable, sfr_source
from streamtrain.rng import SPLITS, STAGE_MODEL, STAGE_POSE, Draws, Split, sample_indices

GENERATOR_VERSION = 1
"""Goes up when a release changes the bits of samples, together with the golden digests."""
MAX_OUTSIDE_PERCENT = 5.0
"""Halos outside the label's luminosities that go without a warning."""
MASS_TOLERANCE = 1.1
Z_TOLERANCE = 0.01


@dataclass
class Batch:
    """B samples on one device."""

    cube: torch.Tensor
    """Network input, float32 [B, n_freq, n_dec, n_ra]."""
    label: torch.Tensor
    """float32 [B, n_bins]."""
    counts: torch.Tensor
    """Halos per luminosity bin, int32 [B, n_bins]."""
    draws: list[dict[str, Any]]
    """What was drawn for each sample: lightcone, centre_deg, roll_deg, mirror, model, ..."""
    indices: list[int]
    """Global sample indices."""
    saturated: torch.Tensor = field(repr=False)
    """Deposits at the largest representable value, int32 [B]; any makes the sample wrong."""
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
        lightcones: Sequence[Lightcone] | None = None,
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
        self.mixture = Mixture(config.line)
        self.sfr = sfr_source(config.data.sfr, "data.sfr")
        self.bins = LuminosityBins(config.label.log10_L, config.label.bins)
        self.lightcones = list(lightcones) if lightcones is not None else _open(config, split)
        for lightcone in self.lightcones:
            self._check(lightcone)
        self.operators = build_operators(config.observe, self.grid)
        pool = self.operators.pop(0) if self._pools_first() else None
        pooling = pool.factor if isinstance(pool, Pool) else (1, 1, 1)
        self.bank = Bank(self.lightcones)
        self.painter = Painter(
            self.bank,
            self.grid,
            self.mixture.models,
            self.bins,
            min_mass_Msun=config.data.min_mass_Msun,
            pooling=pooling,
            mean=pool.mean if isinstance(pool, Pool) else True,
            device=self.device,
            compiler_flags=compiler_flags,
            sfr=self.sfr,
        )
        self._check_halos()
        self._accept = [self._condition(emission) for emission in self.painter.emissions]
        self._observe: Kernels = kernels_for(self.device, "observe.cu", "", compiler_flags)
        self._label: Kernels = kernels_for(self.device, "label.cu", "", compiler_flags)
        self.threads = max(1, threads or num_cores())
        self._pool: ThreadPoolExecutor | None = None

    def _pools_first(self) -> bool:
        """A pool at the head of the list is done by painting into the joined voxels: integers add
        up to the same sum, so the bits are those of painting first and pooling then."""
        return bool(self.operators) and isinstance(self.operators[0], Pool)

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
    def bin_edges(self) -> NDArray[np.float64]:
        """log10(L / Lsun) [num_bins + 1]."""
        return self.bins.edges

    def describe(self) -> str:
        """What samples are made of: skies and halos in a line, then one for each luminosity model,
        with the share of its prior's draws that are accepted and of the halos that its accepted
        draws put beyond the label's luminosities."""
        cones, data = self.lightcones, self.config.data
        skies = len({cone.realisation for cone in cones})
        head = (
            f"{self.split}: {len(cones)} lightcones of {skies} skies, "
            f"{int(self.painter.halos.num_painted.sum())} halos in the band above "
            f"{data.min_mass_Msun:.3g} Msun"
        )
        return "\n".join([head, *map(self._describe_model, range(len(self.mixture.components)))])

    def _describe_model(self, number: int) -> str:
        component = self.mixture.components[number]
        emission, accept = self.painter.emissions[number], self._accept[number]
        defaults = component.model.defaults
        draws = Draws(self.seed, self.split, np.arange(512, dtype=np.uint64), STAGE_MODEL)
        accepted = component.prior.acceptance(draws, defaults, accept)
        some = draws.take(np.arange(64))
        expected = emission.expect(component.prior.draw(some, defaults, accept))
        total = float((expected.inside + expected.below + expected.above).sum())
        below, above = (100 * float(e.sum()) / total for e in (expected.below, expected.above))
        several = len(self.mixture.components) > 1
        share = f", {100 * self.mixture.share(number):.0f} % of the samples" if several else ""
        warning = ""
        if below + above > MAX_OUTSIDE_PERCENT:
            warning = f" (warning: more than {MAX_OUTSIDE_PERCENT:g} % are outside the label)"
        return (
            f"{component.name}: prior '{component.prior_name}'{share}, "
            f"{100 * accepted:.0f} % of its draws accepted; {below:.1f} % of the halos are fainter "
            f"than the label's luminosities, {above:.2g} % brighter{warning}"
        )

    def identity(self) -> dict[str, Any]:
        """What decides samples besides the configuration: digests of lightcones, models and, where
        they are used, table of star-formation rates and files of map operators."""
        texts = [emission.traced.identity() for emission in self.painter.emissions]
        model = hashlib.sha256("\0".join(texts).encode()).hexdigest()
        table = {"sfr": self.sfr.digest} if isinstance(self.sfr, SFRTable) else {}
        digests = [getattr(operator, "digest", None) for operator in self.operators]
        files = {"files": [d for d in digests if d is not None]} if any(digests) else {}
        return {"lightcones": [c.digest for c in self.lightcones], "model": model, **table, **files}

    def _check(self, lightcone: Lightcone) -> None:
        """Refuse a lightcone that cannot fill the cube."""
        data, grid = self.config.data, self.grid
        try:
            check_fits(lightcone.footprint_deg, grid.fov_deg, data.roll, lightcone.name)
        except ValueError as error:
            raise CatalogError(str(error)) from None
        low, high = grid.z_range
        have = lightcone.z_range
        if have[0] > low + Z_TOLERANCE or have[1] < high - Z_TOLERANCE:
            raise CatalogError(
                f"{lightcone.name} holds halos at z = {have[0]:.3f}..{have[1]:.3f}, but the band "
                f"{grid.nu_GHz[0]:g}..{grid.nu_GHz[1]:g} GHz needs z = {low:.3f}..{high:.3f}"
            )
        if lightcone.min_mass_Msun > MASS_TOLERANCE * data.min_mass_Msun:
            raise CatalogError(
                f"{lightcone.name} holds halos above {lightcone.min_mass_Msun:.3g} Msun only, but "
                f"data.min_mass_Msun = {data.min_mass_Msun:.3g}: raise it to that"
            )

    def _condition(self, emission: Emission) -> Condition:
        """What a draw of a model's parameters must satisfy besides its prior's own conditions."""
        require = self.config.line.require
        if require.mean_uK is None and require.halos is None:
            return emission.fits

        def accept(parameters: Parameters) -> NDArray[np.bool_]:
            accepted, expected = emission.fits(parameters), emission.expect(parameters)
            for bounds, value in (
                (require.mean_uK, expected.mean),
                (require.halos, expected.inside),
            ):
                if bounds is not None:
                    accepted &= (bounds[0] <= value) & (value <= bounds[1])
            return accepted

        return accept

    def _check_halos(self) -> None:
        for lightcone, number in zip(self.lightcones, self.painter.halos.num_painted, strict=True):
            if number == 0:
                high, low = self.grid.nu_GHz
                raise CatalogError(
                    f"no halo of {lightcone.name} is left above "
                    f"{self.config.data.min_mass_Msun:.3g} Msun and inside {high:g}..{low:g} GHz"
                )

    def generate(self, indices: Sequence[int]) -> Batch:
        """Make the samples of these global indices (any order, any number, 0..2^64-1)."""
        with torch.inference_mode(False), torch.no_grad():  # both are per thread, ours has others
            return self._generate(indices)

    def _generate(self, indices: Sequence[int]) -> Batch:
        start = time.perf_counter()
        job, drawn, records = self.draw(indices)
        size = len(job)
        cube = torch.empty((size, *self.input_shape), dtype=torch.float32, device=self.device)
        raw = torch.empty(
            (size, self.num_bins + EXTRA_COUNTS), dtype=torch.int32, device=self.device
        )
        if self.device.type == "cpu" and self.threads > 1 and size > 1:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads, "streamtrain-generate")
            list(self._pool.map(lambda k: self._make(job, drawn, k, k + 1, cube, raw), range(size)))
        elif self.device.type == "cpu":
            for k in range(size):
                self._make(job, drawn, k, k + 1, cube, raw)
        elif size:
            self._make(job, drawn, 0, size, cube, raw)
        label = make_label(self._label, raw, self.config.label)
        counts = raw[:, : self.num_bins].contiguous()
        batch = Batch(cube, label, counts, records, [int(i) for i in indices], raw[:, -1])
        if self.device.type == "cpu":
            batch.check()
        batch.seconds = time.perf_counter() - start
        return batch

    def _make(
        self,
        job: Job,
        drawn: list[Drawn],
        first: int,
        last: int,
        cube_out: torch.Tensor,
        counts_out: torch.Tensor,
    ) -> None:
        """Paint and observe samples first..last-1 into their places."""
        total, counts = self.painter.paint(job, first, last)
        counts_out[first:last] = counts
        target = cube_out[first:last]
        cube = target
        if self.painter.shape != self.input_shape:
            cube = torch.empty(total.shape, dtype=torch.float32, device=self.device)
        keys = torch.from_numpy(job.keys[first:last].view(np.int32)).to(self.device)
        self._observe.elementwise(
            "from_fixed_point",
            last - first,
            total[0].numel(),
            np.float64(self.painter.unit),
            total,
            cube,
        )
        for operator, values in zip(self.operators, drawn, strict=True):
            tensors = {
                name: torch.from_numpy(v[first:last]).to(self.device) for name, v in values.items()
            }
            cube = operator.apply(self._observe, cube, keys, tensors)
        if cube is not target:
            target.copy_(cube)

    def draw(self, indices: Sequence[int]) -> tuple[Job, list[Drawn], list[dict[str, Any]]]:
        """Everything that is drawn for B samples: for the painter, for each map operator, and as a
        record per sample. `generate` is this and the painting of it."""
        numbers = sample_indices(indices)
        pose_draws = Draws(self.seed, self.split, numbers, STAGE_POSE)
        cones = len(self.lightcones)
        lightcone = np.minimum(np.floor(pose_draws.uniform([0])[:, 0] * cones), cones - 1).astype(
            np.int64
        )
        pose = draw_poses(
            pose_draws,
            self.bank.footprints[lightcone],
            self.grid.fov_deg,
            self.config.data.roll,
            self.config.data.mirror,
        )
        choice = self.mixture.choose(pose_draws)
        parameters = self.mixture.draw(pose_draws, choice, self._accept)
        job = self.painter.job(
            lightcone, pose, choice, parameters, seed=self.seed, split=self.split, indices=numbers
        )
        drawn = [
            operator.draw(Draws(self.seed, self.split, numbers, operator.stage))
            for operator in self.operators
        ]
        return job, drawn, self._records(lightcone, pose, choice, parameters, drawn)

    def _records(
        self,
        lightcone: NDArray[np.int64],
        pose: Pose,
        choice: NDArray[np.int64],
        parameters: list[Parameters],
        drawn: list[Drawn],
    ) -> list[dict[str, Any]]:
        records = []
        names, seen = self.mixture.names, [0] * len(parameters)
        for k, (number, model) in enumerate(zip(lightcone, choice, strict=True)):
            place = seen[model]
            seen[model] += 1
            record: dict[str, Any] = {
                "lightcone": self.lightcones[number].name,
                "centre_deg": [float(a) for a in pose.centre_deg[k]],
                "roll_deg": float(pose.roll_deg[k]),
                "mirror": bool(pose.mirror[k]),
                "model": names[model],
                "parameters": {n: float(v[place]) for n, v in parameters[model].items()},
            }
            for operator, values in zip(self.operators, drawn, strict=True):
                if values:
                    record[operator.name] = {name: float(v[k]) for name, v in values.items()}
            records.append(record)
        return records

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def _open(config: Config, split: Split) -> list[Lightcone]:
    """The lightcones of a split; the splits must be different realisations."""
    paths: dict[str, list[Path]] = {
        name: expand(getattr(config.data, name), f"data.{name}", must_exist=name == split)
        for name in SPLITS
    }
    if not paths[split]:
        raise ConfigError(
            f"data.{split} names no lightcone: make some with `streamtrain catalog make`, or "
            "import your own with `streamtrain catalog import`"
        )
    check_disjoint(paths)
    return [Lightcone.open(path) for path in paths[split]]
