"""A run, from its folder: configuration, trained network, test set, evaluation and generators.

`Run` opens each where it is first used, and closes the generators.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike

from streamtrain.arguments import truth_value, whole_number
from streamtrain.config import Config
from streamtrain.evaluate import testset
from streamtrain.evaluate.alarm.watch import FILE as ALARM_FILE
from streamtrain.evaluate.alarm.watch import (
    NO_ALARM,
    Other,
    Watch,
    check_comparable,
    check_maps,
    kept_others,
    open_watch,
)
from streamtrain.evaluate.folder import output_folder, own_config, read_evaluation, run_config
from streamtrain.evaluate.for_sbi import SbiPosterior
from streamtrain.evaluate.inference.prepare import PREPARING, Prepared, as_input, prepare
from streamtrain.evaluate.inference.training_field import Kept, TrainingField
from streamtrain.evaluate.posterior.posterior import (
    NUM_FUNCTIONS,
    Posterior,
    check_functions,
    check_posterior,
    check_seed,
    posterior_of,
)
from streamtrain.evaluate.repaint.repaint import (
    NUM_CALIBRATION,
    NUM_PAINTED,
    Check,
    Painting,
    check,
    check_can_be_painted,
)
from streamtrain.evaluate.trained import Trained
from streamtrain.generator.generator import Generator
from streamtrain.labels import NO_FUNCTION, Label
from streamtrain.luminosity.scores import in_label
from streamtrain.machine.progress import SILENT, Progress
from streamtrain.machine.workers import Resources, num_cores
from streamtrain.maps import READING
from streamtrain.maps.read import map_of_array, read_map
from streamtrain.maps.skymap import SkyMap
from streamtrain.networks.network import Network
from streamtrain.shipped import is_shipped, run_name
from streamtrain.train.checkpoint import last_step
from streamtrain.train.distributed import choose_device
from streamtrain.train.folder import run_folder


class Run:
    """A trained network with its configuration, test set and evaluation, from the folder of a run.

    `train` returns one, `Run.open` opens one from disk. Generators of its samples that were opened
    are closed with `close`, or at the end of a `with`. config: of the run, see `run_config`;
    device, threads: for generators and the network [device: a GPU if there is one; threads:
    train.threads, or one per core];
    recalibrated: whether its posterior is shifted and widened as `streamtrain calibrate` has
    learned, if it has; progress: of what takes long.

    >>> from streamtrain import Generator, Run
    >>> with Run.open("runs/example") as run:
    ...     print(run)
    ...     batch = Generator(run.config, "test").generate([0])
    ...     posterior = run.infer(batch.cube[0], prepared=True, functions=200, compare_with=0)
    Run('runs/example', step 8 of 8, counts, hybrid)
    >>> posterior.functional("rho_L").unit
    'Lsun Mpc-3'
    """

    def __init__(
        self,
        config: Config,
        *,
        device: str | None = None,
        threads: int | None = None,
        recalibrated: bool = True,
        progress: Progress | None = None,
    ) -> None:
        if not isinstance(config, Config):
            raise ValueError(
                f"a Run is of what load_config returns, not of a {type(config).__name__}: "
                "Run.open takes a folder"
            )
        self.config, self.folder = config, run_folder(config)
        self.device = str(choose_device(None)) if device is None else device
        self.recalibrated = recalibrated
        if threads is not None and whole_number(threads, "threads") < 0:
            raise ValueError(f"threads = {threads} must be 0, one per core, or more")
        self.threads = threads or config.train.threads or num_cores()
        self.progress = progress or SILENT
        self._generators: weakref.WeakSet[Generator] = weakref.WeakSet()
        self._networks: dict[TrainingField, Network] = {}
        self._watches: dict[tuple[int | None, tuple[str, ...]], Watch] = {}

    def __repr__(self) -> str:
        steps, label = self.config.train.steps, self.config.label.quantity
        last = None
        with suppress(OSError, ValueError):
            last = last_step(self.folder / "checkpoints")
        trained = "not trained" if last is None else f"step {last} of {steps}"
        return f"Run({run_name(self.folder)!r}, {trained}, {label}, {self.config.network.kind})"

    @classmethod
    def open(cls, run: Config | str | Path, settings: Iterable[str] = (), **options: Any) -> Run:
        """Open the run of a configuration, of the folder of a run, or of a trained network that
        ships, by its name; settings: see `run_config`; options: of the constructor."""
        if isinstance(run, Config) and list(settings):
            raise ValueError(
                "settings change the configuration in the folder of a run; load_config changes a "
                "Config"
            )
        return cls(run if isinstance(run, Config) else run_config(run, settings), **options)

    @classmethod
    def using(
        cls, resources: Resources, run: Config | str | Path, *, recalibrated: bool = True
    ) -> Run:
        """Open the run of a configuration, or of the folder of a run, for a command."""
        return cls.open(
            run,
            device=resources.device,
            threads=resources.threads,
            progress=resources.progress,
            recalibrated=recalibrated,
        )

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the generators that were opened here, and end the line of progress."""
        for generator in list(self._generators):
            generator.close()
        self.progress.close()

    @cached_property
    def trained(self) -> Trained:
        """The newest intact checkpoint. Raises ValueError, one sentence, see `Trained.load`."""
        return Trained.load(self.config, recalibrated=self.recalibrated)

    @cached_property
    def evaluation(self) -> dict[str, Any] | None:
        """What evaluation.json holds; None where there is none that can be read."""
        return read_evaluation(self.folder)

    def infer(
        self,
        cube: torch.Tensor | ArrayLike | SkyMap | str | Path,
        *,
        functions: int = NUM_FUNCTIONS,
        seed: int = 0,
        compare_with: int | None = None,
        prepared: bool = False,
        **reading: Any,
    ) -> Posterior:
        """The joint posterior of the luminosity function behind a map.

        cube: one of three. A file of a map, or what `read_map` made of one: its line, units, band,
        field and voxels are checked, and the operators that are left to do are applied, as
        `streamtrain infer` does. With `units`, an array [n_freq, n_dec, n_ra] of a map: it gets
        what a file gets, and its coordinates are taken to be those of the run's grid, from high to
        low frequency and from low to high dec and ra. With `prepared=True`, an array that is the
        network's input already: in that order, after all operators of the run's `observe`, as a
        `Generator` or `observe(cube, config)` makes it. An array with neither is taken for the
        network's input, with a warning. functions: luminosity functions that are drawn; seed: the
        same one draws the same functions; compare_with: maps of the prior that the map is compared
        with (`watch`), 0: none. reading: how a map is read, `units`, `nu_rest_GHz`, `index`, `hdu`,
        `no_value` and `sum_feeds` of a file (see `read_map`), of which `units` and `no_value` also
        of an array; `regrid`, `centre_deg`, `rayleigh_jeans` and `anyway` of all and of a `SkyMap`
        (see `prepare`). What was applied, found and assumed is in `applied`, `notes` and `warnings`
        of the result.

        Raises ValueError, one sentence, for a map that does not fit the network, a run without a
        checkpoint, and a network whose head predicts no numbers of halos.
        """
        functions, seed = check_functions(functions), check_seed(seed)
        check_posterior(self.config)
        found = self._prepared("infer", cube, prepared, reading)
        network, field, problems = self._answer
        watch, failed = self.watch(compare_with)
        if watch is None and not failed:
            found = replace(found, notes=[*found.notes, NO_ALARM])
        return posterior_of(
            network,
            found,
            self.config.grid,
            field,
            watch=watch,
            functions=functions,
            seed=seed,
            problems=[*found.warnings, *problems, *failed],
            applied=self.trained.applied,
            network_name=self.named,
        )

    @property
    def named(self) -> str:
        """What a reader calls its network: the run and the step of its checkpoint."""
        name = f"{run_name(self.folder)}, step {self.trained.step}"
        ships = " (ships with streamtrain)" if is_shipped(self.folder) else ""
        return name + ships

    def watch(
        self,
        maps: int | None = None,
        *,
        again: bool = False,
        beside: Sequence[str | Path] = (),
        make: bool = True,
    ) -> tuple[Watch | None, list[str]]:
        """What says whether a map is one of those that the training could have made, and a sentence
        if that cannot be found here.

        It is in the run folder, alarm.npz, or is made and kept there. maps: of the prior that maps
        are compared with, half of them on the training's skies; more are used where more are kept,
        None: as kept, or 2000; 0: none. again: make it anew. beside: folders of other runs that
        take the same maps, whose disagreement counts; none: those of the kept one. make: whether to
        make it where none is kept. No recalibration counts, of this run or of others: networks are
        compared as they were trained. Raises ValueError, one sentence, for a run of `beside` that
        does not fit.
        """
        given = None if maps is None else check_maps(whole_number(maps, "maps"))
        if given == 0 or not (make or (self.folder / ALARM_FILE).is_file()):
            return None, []
        key = (given, tuple(map(str, beside)))
        if again or key not in self._watches:
            try:
                others = [self._other(folder) for folder in beside or kept_others(self.folder)]
            except ValueError as error:
                if beside:
                    raise
                return None, [
                    f"no map is compared with maps of the prior: {error}; `streamtrain alarm "
                    f"{self.folder}` makes an alarm without that run, --beside RUN one with another"
                ]
            try:
                found = open_watch(
                    self.folder,
                    self.trained.made_of(self._own),
                    self._as_trained,
                    self._own.observation.input_map,
                    self._samples_of if make else None,
                    maps=given,
                    again=again,
                    others=others,
                    has_validation=bool(self._own.data.files("validation")),
                    progress=self.progress,
                )
            except (ValueError, OSError) as error:
                return None, [f"the map was not compared with maps of the prior: {error}"]
            if found is None:
                return None, [
                    f"no map is compared with maps of the prior: {self.folder / ALARM_FILE} is of "
                    "another checkpoint, other maps or an earlier version; `streamtrain alarm "
                    f"{self.folder}` makes it again"
                ]
            self._watches[key] = found
        return self._watches[key], []

    def kept_watch(self) -> Watch | None:
        """The alarm that the run has; None where it has none, or one of no use, which is noted."""
        found, problems = self.watch(make=False)
        for text in problems:
            self.progress.note(text)
        return found

    @cached_property
    def _own(self) -> Config:
        return own_config(self.config)

    @property
    def _as_trained(self) -> Network:
        """The network for maps from elsewhere, without a recalibration."""
        network, trained = self._answer[0], self.trained
        moved = trained.applied.recalibration is not None
        return trained.plain.network(network.head.label, self.device) if moved else network

    def _samples_of(self, split: str) -> Generator:
        if split == "train":
            return self.training(self._own)
        return self.keep(Generator(self._own, split="validation", **self._options))

    def _other(self, folder: str | Path) -> Other:
        """The network of another run. Raises ValueError, one sentence, if it does not take the maps
        of this one, or predicts something else."""
        with Run.open(folder, recalibrated=False, **self._options) as other:
            check_comparable(self.config, other.config, folder)
            where, trained = os.path.abspath(folder), other.trained
            return Other(where, trained.step, trained.weights_sha256, other._answer[0])

    def check(
        self,
        cube: torch.Tensor | ArrayLike | SkyMap | str | Path,
        posterior: Posterior | None = None,
        *,
        number: int = NUM_PAINTED,
        seed: int = 0,
        maps: int = NUM_CALIBRATION,
        noise_level: float | None = None,
        prepared: bool = False,
        **reading: Any,
    ) -> Check:
        """Whether a map is what its posterior paints, a posterior predictive check.

        New maps are painted from the posterior, of the training skies' halos, with new noise and
        foregrounds, and the map is compared with them in power spectra, the voxel intensity
        distribution, means and scatter of channels, the brightest voxel and the network's own
        numbers. The p-values are ranks among maps of the prior that went through the same, see
        `streamtrain.evaluate.repaint`; these are made at the first use, which takes minutes, and
        kept in the run folder.

        cube, prepared, reading: as of `infer`. posterior: that `infer` made of it; None: it is made
        here. number: maps that are painted; seed: the same one paints the same maps; maps: of the
        prior, that the map is ranked among, which the smallest p follows from. noise_level: of the
        map, as `observe.noise.sigma_uK` quotes it, where that differs from sample to sample; None:
        it is read off the map.

        Raises ValueError, one sentence, as `infer` does, and where training maps cannot be painted.
        """
        check_can_be_painted(self.config)
        given = self._prepared("check", cube, prepared, reading)
        found = check(
            self.painting,
            given.cube,
            functions=None if posterior is None else posterior.samples,
            number=number,
            seed=seed,
            maps=maps,
            noise_level=noise_level,
        )
        return replace(found, of_the_map=tuple(given.warnings))

    @cached_property
    def painting(self) -> Painting:
        """What `check` needs of the run. Raises ValueError where training maps cannot be made."""
        training = self.training()
        return Painting(
            self.config,
            self.folder,
            self.trained.weights_sha256,
            self.trained.applied,
            self.network(training),
            training,
            lambda: self.keep(Generator(self.config, "validation", **self._options)),
            self.progress,
        )

    def sbi_posterior(self) -> SbiPosterior:
        """The posterior of any map, as a function of it, with the methods that the package sbi
        wants of one: for its diagnostics and figures. Its x is always the network's input, after
        all operators of the run's `observe`; `network_input` makes it of a file or an array.

        Raises ValueError, one sentence, as `infer` does for a network without a posterior, and for
        one of the parameters of several luminosity models.
        """
        if self.config.label.quantity == "parameters":
            with closing(self.training()) as generator:
                network = self.network(generator)
        else:
            check_posterior(self.config)
            network, _, _ = self._answer
        return SbiPosterior(network, self.trained.input_shape)

    def network_input(
        self,
        cube: torch.Tensor | ArrayLike | SkyMap | str | Path,
        *,
        prepared: bool = False,
        **reading: Any,
    ) -> Prepared:
        """What the network takes of a map: `cube`, float32 [n_freq, n_dec, n_ra], with what was
        `applied`, `left_out`, found and assumed (`notes`, `warnings`).

        cube, prepared, reading: as of `infer`. Raises ValueError, one sentence, for a map that does
        not fit.
        """
        return self._prepared("network_input", cube, prepared, reading)

    def _prepared(self, what: str, cube: Any, is_input: Any, reading: dict[str, Any]) -> Prepared:
        """The network's input; what: the method that wants it, for messages."""
        unknown = [name for name in reading if name not in (*READING, *PREPARING)]
        if unknown:
            raise ValueError(
                f"{', '.join(unknown)} is no option of how a map is read, which are "
                f"{', '.join((*READING, *PREPARING))}"
            )
        is_file = isinstance(cube, str | Path)
        if truth_value(is_input, "prepared") and (is_file or isinstance(cube, SkyMap)):
            raise ValueError(
                f"{what}: prepared=True is of an array that is the network's input; a "
                f"{'file' if is_file else 'map'} with coordinates is prepared here"
            )
        if is_input and reading:
            raise ValueError(
                f"{what}: prepared=True says that nothing is left to do to the array, so "
                f"{', '.join(reading)} has no place beside it"
            )
        if is_file:
            of_file = {name: reading.pop(name) for name in READING if name in reading}
            cube = read_map(cube, **of_file)
        if isinstance(cube, SkyMap):
            of_file = {name: reading[name] for name in READING if name in reading}
            if of_file:
                raise ValueError(
                    f"{what}: {', '.join(of_file)} is for the file of a map; read_map takes it"
                )
            return prepare(cube, self.config, device=self.device, **reading)
        of_file = {name: reading.pop(name) for name in READING if name in reading}
        of_array = {name: of_file.pop(name) for name in ("units", "no_value") if name in of_file}
        if of_file:
            raise ValueError(f"{what}: {', '.join(of_file)} is for the file of a map, not an array")
        if of_array.get("units") is not None:
            sky = map_of_array(cube, self.config.grid, **of_array)
            return prepare(sky, self.config, device=self.device, **reading)
        if of_array.keys() - {"units"} or reading:
            names = ", ".join([*(of_array.keys() - {"units"}), *reading])
            raise ValueError(
                f"{what}: {names} is for a map; an array is one where units, such as "
                f"'{self.config.grid.units}', says so"
            )
        return as_input(cube, self.config, self.device, said=is_input)

    @cached_property
    def _answer(self) -> tuple[Network, TrainingField, list[str]]:
        """The network with its head, the training field and what could not be found of it."""
        kept = Kept(self.config)
        function = self.config.label.quantity not in NO_FUNCTION
        field, problems = kept.field(self.training, cosmology=function)
        kept.save()
        return self.network_of(field), field, problems

    def network_of(self, field: TrainingField) -> Network:
        """The trained network for maps from elsewhere, whose label is of the training field."""
        if field not in self._networks:
            label = self.config.label
            known = Label(
                label,
                [field.volume_Mpc3],
                self.trained.classes,
                parameters=in_label(label, self.config.line),
            )
            self._networks[field] = self.trained.network(known, self.device)
        return self._networks[field]

    def network(self, generator: Generator) -> Network:
        """The trained network, on the device of a generator of this run's samples."""
        return self.trained.network(generator.label, generator.device)

    def training(self, config: Config | None = None, **more: Any) -> Generator:
        """A generator of training samples.

        config: another than the run's; more: other arguments of `Generator`. Raises ValueError if
        its lightcones are not those that the network was trained on.
        """
        generator = Generator(config or self.config, split="train", **self._options, **more)
        self.keep(generator)
        self.trained.check_training(generator)
        return generator

    def testing(self, config: Config | None = None, **more: Any) -> Generator:
        """A generator of test samples; see `training`."""
        return self.keep(testset.open_generator(config or self.config, self.resources, **more))

    def test_set(self) -> tuple[testset.Manifest, Generator]:
        """The run's test set, which is made if it is not there, and the generator of its samples.

        Raises ValueError, one sentence, if it cannot be made, and `testset.OtherTestSet`.
        """
        path = testset.default_path(self.config)
        if not path.exists():
            output_folder(self.config, None, test=False)
            testset.make(self.config, path, self.resources)
        return self.reopened(path)

    def reopened(
        self, path: Path, config: Config | None = None, **more: Any
    ) -> tuple[testset.Manifest, Generator]:
        """`testset.reopen`. config, more: see `training`."""
        found = testset.reopen(path, config or self.config, self.resources, **more)
        self.keep(found[1])
        return found

    def keep(self, generator: Generator) -> Generator:
        """Close a generator with this run."""
        self._generators.add(generator)
        return generator

    def said(self, generator: Generator | None = None) -> list[str]:
        """What should be known of this run's posterior besides its training, a sentence each.

        generator: of the test maps, whose skies a recalibration may have been learned from.
        """
        applied = self.trained.applied
        if generator is None or applied.recalibration is None:
            return applied.said()
        return [*applied.said(), *applied.recalibration.seen(generator.headers)]

    @property
    def _options(self) -> dict[str, Any]:
        return {"device": self.device, "threads": self.threads}

    @property
    def resources(self) -> Resources:
        """What the run computes with."""
        return Resources(**self._options, progress=self.progress)
