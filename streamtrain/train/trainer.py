"""The training loop.

A run is continued by giving the same command: its state is the newest checkpoint in its folder,
and the next sample is the one that the interrupted run would have taken.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streamtrain.catalogs.skies import recipes_of
from streamtrain.config import Config
from streamtrain.generator.batch import Batch
from streamtrain.generator.draws import SampleGenerator
from streamtrain.generator.generator import GENERATOR_VERSION, Generator
from streamtrain.generator.open import refuse_missing_files
from streamtrain.machine.files import write_text
from streamtrain.machine.interrupt import Stopped, StopRequest, Unfinished
from streamtrain.machine.progress import Progress
from streamtrain.machine.workers import own_cores
from streamtrain.networks.network import Network, build_network, describe
from streamtrain.schema import to_dict
from streamtrain.stream import SampleStream
from streamtrain.train.checkpoint import (
    load_weights,
    newest,
    refuse_other_run,
    remove_leftovers,
)
from streamtrain.train.distributed import World, wait_for
from streamtrain.train.folder import RunLock, check_trainable, refuse_other_samples, run_folder
from streamtrain.train.monitor import Logged, Monitor, Record
from streamtrain.train.nonfinite import FILE, Guard, Skipped, SkipRecord, describe_stop
from streamtrain.train.normalisation import refuse_equal_labels, set_normalisation
from streamtrain.train.optimiser import (
    ExponentialMovingAverage,
    build_optimiser,
    compiled,
    learning_rate,
    load_state,
    refuse_missing_muon,
)
from streamtrain.train.start import (
    Start,
    begun_anew,
    continued,
    describe_extension,
    with_same_schedule,
)
from streamtrain.train.stopwatch import Stopwatch
from streamtrain.train.torch_state import (
    TorchState,
    refuse_random_order,
    seed_dropout,
    use_bfloat16,
)
from streamtrain.train.validation import NUM_DRAWS, Drawn, Summary, ValidationResult, validate
from streamtrain.train.writer import CheckpointWriter


class TrainingError(RuntimeError):
    """Training cannot go on; the last checkpoint is intact."""


class Trainer:
    """Trains the network of a configuration, from the newest checkpoint of its run if there is one.

    config: the run. device: see `World.start`. max_steps: end this call, with a checkpoint, after
    so many steps (the schedule stays that of the configuration). generator: makes the samples of a
    split, called as `Generator`. network: trained instead of the configuration's, with its outputs.
    Raises ValueError for settings that cannot work, and Stopped where somebody asks to stop while
    lightcones are made.
    """

    def __init__(
        self,
        config: Config,
        device: str | torch.device | None = None,
        max_steps: int | None = None,
        *,
        generator: Callable[..., SampleGenerator] = Generator,
        network: Network | None = None,
    ) -> None:
        self.config, self._max_steps = config, max_steps
        self._folder = run_folder(config)
        self.world = world = World.start(device)
        train, self._device = config.train, world.device
        if train.batch_size % world.size:
            raise ValueError(
                f"train.batch_size = {train.batch_size} cannot be shared equally by {world.size} "
                "processes"
            )
        self._share = train.batch_size // world.size
        self._cores = own_cores()
        threads = train.threads or self._cores
        self._bfloat16 = use_bfloat16(train, self._device)
        check_trainable(self._folder)
        refuse_missing_muon(train)
        refuse_missing_files(config, ("train", "validation"))
        self._start = world.on_main(lambda: Start.of(config))
        self._request = StopRequest()
        with self._request, closing(Progress(active=world.is_main)) as progress:

            def report(done: float, what: str) -> None:
                left = progress.left(what.partition(":")[0], done, 1.0)
                progress.update(f"{what}, {100 * done:.0f} %{left}")
                if world.agree(self._request.requested):
                    progress.note("stopped before the first step")
                    raise Stopped

            self.generator = generator(config, "train", self._device, threads, report=report)
            self._validation = generator(config, "validation", self._device, threads)
        with self._torch_state():
            network = network or build_network(
                config.network,
                self.generator.input_shape,
                self.generator.label,
                config.observation.input_map,
                channels_last=train.channels_last,
            )
            self.network = network.to(self._device)
            if self._start is not None:
                self._start.load_into(self.network, self.generator.input_shape)
            if train.deterministic:
                refuse_random_order(self.network, self.generator.input_shape, self._device)

    def run(self) -> Summary:
        """Train to the last step, or until one of `interrupt.SIGNALS`; a checkpoint ends it either
        way.

        Raises ValueError if the run's folder is in use or holds a checkpoint of another
        configuration or of other samples, or for a sample that cannot be made (after a checkpoint
        of the steps before it), and TrainingError if the loss is not finite too often in a row or
        if the last checkpoint cannot be written.
        """
        self.step = self._next_index = 0
        self._last_loss: float | None = None
        self._last_result: ValidationResult | None = None
        with ExitStack() as stack:
            stack.callback(self.generator.close)
            stack.callback(self._validation.close)
            stack.enter_context(self._torch_state())
            stack.enter_context(self._request)
            try:
                with self._withdrawn_if_refused():
                    self._open(stack)
                stopped = self._loop()
            except Stopped:
                self._say("stopped before the first step")
                stopped = True
            loss, result = self._last_loss, self._last_result
            extensions = self.config.train.extensions
            summary = Summary(self.step, self._next_index, stopped, loss, result, extensions)
        self.world.close()
        return summary

    def _torch_state(self) -> TorchState:
        share = max(1, (os.cpu_count() or 1) // self.world.local_size)
        return TorchState(
            self._device,
            self.config.seed,
            self._cores,
            deterministic=self.config.train.deterministic,
            machine_cores=share,
        )

    def _claim(self, stack: ExitStack) -> tuple[dict[str, Any] | None, Config]:
        """Lock the run's folder, in rank 0; the state to continue from, if there is one, and the
        configuration with what the run keeps of itself."""
        lock = RunLock(self._folder, stopped=lambda: self._request.requested)
        stack.callback(lock.close)
        checkpoints, config, state = self._folder / "checkpoints", self.config, None
        found = newest(checkpoints)
        if found is None:
            config = begun_anew(config, self._start)
        else:
            state = found.state
            config = continued(config, found.config, state["step"], self._folder)
            saved = with_same_schedule(found.config, config)
            refuse_other_run(found, saved, to_dict(config), GENERATOR_VERSION)
        self._refuse_other_samples(state)
        remove_leftovers(checkpoints)
        write_text(self._folder / "config.yaml", config.to_yaml(), alone=True)
        self._begun = found is None
        return state, config

    @contextmanager
    def _withdrawn_if_refused(self) -> Iterator[None]:
        """Take a run's configuration out of its folder where its first samples are refused: nothing
        was made with it, and what others make there need not agree with it."""
        self._begun = False
        try:
            yield
        except ValueError:
            if self._begun:
                (self._folder / "config.yaml").unlink(missing_ok=True)
            raise

    def _refuse_other_samples(self, state: dict[str, Any] | None) -> str | None:
        if state is None:
            return None
        now, models = self.generator.identity(), self.config.line.class_names
        recipes, headers = state.get("recipes", {}), self.generator.headers
        return refuse_other_samples(state["samples"], now, models, recipes, headers)

    def _open(self, stack: ExitStack) -> None:
        """Network, optimiser and stream where the run left off; `stack` closes what is opened."""
        world = self.world
        state, self.config = world.on_main(lambda: self._claim(stack))
        config = self.config
        again = self._refuse_other_samples(state)
        self.step = state["step"] if state else 0
        self._next_index = state["next_index"] if state else 0
        self._open_record(stack)
        if again is not None:
            self._tell("lightcones", again)
        if self.step < config.train.steps:
            self._say(self.generator.describe())
            self._say(describe(self.network, self.generator.input_shape))
            self._warn_of_idle_skies()
        self._optimiser = build_optimiser(self.network, config.train)
        if state:
            load_weights(self.network, state["network"])
            load_state(self._optimiser, state["optimiser"])
            if self.step < config.train.steps:
                self._say(f"continuing {config.run} from step {self.step}")
                for extension in config.train.extensions[-1:]:
                    self._tell("extension", describe_extension(extension, config.train))
        elif self._start is not None:
            self._tell("start", self._start.describe())
            refuse_equal_labels(self.generator, self._share, self._report_normalisation)
        else:
            set_normalisation(
                self.network, self.generator, chunk=self._share, report=self._report_normalisation
            )
        self._average = (
            ExponentialMovingAverage(self.network, config.train.ema) if config.train.ema else None
        )
        if self._average and state:
            self._average.load_state_dict(state["average"])
        self._in_a_row = state["skipped_in_a_row"] if state else 0
        self._guard = Guard(
            self.network,
            self._optimiser,
            self._device,
            allowed=config.train.max_nonfinite,
            every=min(config.train.log_every, config.train.steps),
            in_a_row=self._in_a_row,
        )
        self._model = compiled(world.wrap(self.network), config.train.compile)
        self._stream = SampleStream(
            self.generator,
            config.train.batch_size,
            rank=world.rank,
            world_size=world.size,
            start=self._next_index,
            queue=config.train.queue,
            own=False,
        )
        stack.callback(self._stream.close)
        stack.callback(self.generator.give_up)  # or the stream's threads end after a lightcone
        self._stopwatch = Stopwatch(self._device, config.train.batch_size)
        self._sums = torch.zeros(4, dtype=torch.float64, device=self._device)
        self._logged = self._saved = self.step

    def _warn_of_idle_skies(self) -> None:
        train, splits = self.config.train, {"train": self.generator, "validation": self._validation}
        numbers = train.steps * train.batch_size, train.validation_samples
        for (split, generator), number in zip(splits.items(), numbers, strict=True):
            samples = f"the {number} samples of {split}"
            if text := generator.skies_of(number - 1).waiting(samples):
                self._warn(text)

    def _open_record(self, stack: ExitStack) -> None:
        """What rank 0 alone writes: record, list of skipped steps, checkpoints."""
        folder, config = self._folder, self.config
        self._skips: SkipRecord | None = None
        self._writer: CheckpointWriter | None = None
        if not self.world.is_main:
            self._record = Record(None, self.step)
            return
        label, device = self.generator.label, self._device
        self._record = Record(lambda step: Monitor(folder, config, label, device, step), self.step)
        stack.callback(self._record.close)
        self._skips = SkipRecord(folder, self.step, config.train.batch_size)
        stack.callback(self._skips.close)
        self._writer = CheckpointWriter(folder / "checkpoints", config, GENERATOR_VERSION)
        stack.callback(self._tell_failure, "the one before is intact")
        stack.callback(self._writer.close)

    def _report_normalisation(self, done: int, of: int) -> None:
        self._busy(f"normalising: {done}/{of} samples")
        if not wait_for(partial(self.generator.ready, done), self.world, self._request):
            raise Stopped

    def _loop(self) -> bool:
        """Steps, and what is due after each; True if somebody asked to stop."""
        train = self.config.train
        last = train.steps
        if self._max_steps is not None:
            last = min(last, self.step + self._max_steps)
        batches, stop = iter(self._stream), False
        while self.step < last and not stop:
            stop = self._step(batches) or self.world.agree(self._request.requested)
            ends = stop or self.step == last
            validates = self.step % train.validate_every == 0 or self.step == train.steps
            saves = self.step % train.checkpoint_every == 0 or ends
            if self.step % train.log_every == 0 or validates or saves:
                self._log()
            with self._stopwatch.pause():
                if validates and not stop:
                    with self._rescue():
                        stop = self._validate()
                if saves or stop:
                    self._save()
        self._busy(f"step {self.step}: writing the checkpoint")
        self.world.on_main(self._complete)
        if self.step == train.steps:
            self._say(f"all {train.steps} steps are done: {self._folder}")
        else:
            self._say(f"stopped after step {self.step}; the same command continues")
        return stop

    def _step(self, batches: Iterator[Batch]) -> bool:
        """One update; True instead if somebody asked to stop while it waited for lightcones."""
        train, stream = self.config.train, self._stream
        with self._rescue(), self._stopwatch.wait():
            if stream.may_wait and not wait_for(stream.ready, self.world, self._request):
                return True
            batch = next(batches)
        self._stopwatch.generated(batch.seconds, batch.marks)
        with self._stopwatch.train():
            for group in self._optimiser.param_groups:
                group["lr"] = learning_rate(self.step, train)
            if self.config.network.dropout:
                seed_dropout(self.config.seed, self.step, self.world.rank)
            self._model.train()
            self._guard.begin()
            with self._rescue():  # another rank's error ends up here
                _, loss = self._forward(batch)
                self._guard.tied(loss).backward()
            norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), train.clip_norm)
            done = self._guard.update(norm)
            self._optimiser.zero_grad()
            if self._average:
                self._average.update(self.step)
            counted = torch.stack([loss.detach(), norm, torch.ones_like(norm)])
            saturated = batch.saturated.sum().reshape(1)
            self._sums += torch.cat([torch.where(done, counted, 0.0), saturated])
        self.step += 1
        self._next_index = stream.state_dict()["next_index"]
        return False

    @contextmanager
    def _rescue(self) -> Iterator[None]:
        """Around what changes no weight: after an error, keep the steps that are done."""
        try:
            yield
        except Exception as error:
            with contextlib.suppress(Exception):  # the first error is the one to tell
                self._guard.undo()
                if not self._sums[3] and not self._write_skipped().stop:
                    self._save()
            if self.config.train.deterministic and "deterministic" in str(error):
                reason = str(error).partition(".")[0]
                raise TrainingError(f"train.deterministic: {reason}; set it to false") from error
            raise

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the network predicts [B, head.num_numbers], and the mean loss."""
        cube, label, counts, unit_label = (
            values.to(self._device, non_blocking=True)
            for values in (batch.cube, batch.label, batch.counts, batch.unit_label)
        )
        model = self._model if torch.is_grad_enabled() else self.network
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            prediction = model(cube)
        return prediction, self.network.head.loss(prediction, label, counts, unit_label)

    def _evaluate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Predicted labels [B, num_outputs], and the mean loss."""
        prediction, loss = self._forward(batch)
        return self.network.head.point(prediction, batch.unit_label.to(self._device)), loss

    def _draw(self, batch: Batch) -> Drawn:
        """The joint posterior of a batch, with the same random numbers every time."""
        head, counts = self.network.head, batch.counts.to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            prediction = self.network(batch.cube.to(self._device))
        luck = torch.Generator().manual_seed(batch.indices[0])
        samples = head.sample(prediction, NUM_DRAWS, luck)
        true, drawn = (head.log_prob(prediction, given) for given in (counts, samples))
        return Drawn(samples.cpu().numpy(), (true.cpu().numpy(), drawn.cpu().numpy()))

    @cached_property
    def _ln_accepted(self) -> Tensor:
        return torch.from_numpy(self._validation.ln_accepted()).to(self._device)

    def _mean_label_loss(self, batch: Batch) -> Tensor:
        """The loss of what an untrained head makes of zeros: the mean label of the training. Of
        parameters it is the prior, whose conditions raise its density where they leave any."""
        head = self.network.head
        if head.label.is_parameters:
            classes = head.label.num_class_columns
            made = batch.label[:, :classes].argmax(1) if classes else slice(None)
            return self._ln_accepted[made].mean()
        with torch.random.fork_rng(devices=[]):
            untrained = type(head)(head.label, head.name, self.config.network.monotonic)
        untrained.load_state_dict(dict(head.named_buffers()), strict=False)
        untrained.to(self._device)
        zeros = torch.zeros(len(batch), head.num_numbers, device=self._device)
        given = (batch.label, batch.counts, batch.unit_label)
        return untrained.loss(untrained(zeros), *(values.to(self._device) for values in given))

    def _log(self) -> None:
        """Means since the last log; the one place that waits for the GPU in a step."""
        steps = self.step - self._logged
        if not steps:
            return
        totals = self.world.sum(self._sums)
        skipped = self._write_skipped()
        last_bad = self._logged + max(skipped.steps, default=-1) + 1
        size = self.config.train.batch_size
        samples = f"samples {self._logged * size} to {self.step * size - 1}"
        self._logged = self.step
        self._sums.zero_()
        if totals[3]:
            raise TrainingError(
                "halos too bright for the cube's fixed-point range, for which grid.brightest_Lsun "
                f"makes room, or parameters that no attempt could draw, among the {samples}"
            )
        if skipped.stop:
            raise TrainingError(describe_stop(skipped, self.config, last_bad))
        if not totals[2]:  # no step counts
            return
        loss, norm = (totals[:2] / totals[2]).tolist()
        self._last_loss = loss
        step, made = self.step, self.generator.take_made()
        logged = Logged(
            loss=loss,
            gradient_norm=norm,
            learning_rate=learning_rate(step - 1, self.config.train),
            times=self._stopwatch.read(),
            skies=self.generator.skies_of(self._next_index - 1),
        )
        self._record.write(step, lambda monitor: monitor.log(step, logged))
        if made:
            self._record.write(step, lambda monitor: monitor.made(step, made))

    def _write_skipped(self) -> Skipped:
        """Write down which steps since the last log were skipped; waits for the GPU."""
        skipped = self._guard.read()
        self._in_a_row = skipped.in_a_row
        for number in skipped.steps:
            step = self._logged + number + 1
            if self._skips:
                with contextlib.suppress(OSError):
                    self._skips.add(step)
            first = (step - 1) * self.config.train.batch_size
            self._warn(
                f"step {step} is skipped, its loss or gradient is not finite: samples {first} to "
                f"{first + self.config.train.batch_size - 1}, see {self._folder / FILE}"
            )
        return skipped

    def _validate(self) -> bool:
        """Validate, split over the ranks; True if somebody asked to stop meanwhile."""
        number, label = self.config.train.validation_samples, self._validation.label

        def stopped(done: int) -> bool:
            self._busy(f"step {self.step}: validating {done}/{number} samples")
            return self.world.agree(self._request.requested)

        self._model.eval()
        average = self._average.installed() if self._average else contextlib.nullcontext()
        with torch.no_grad(), average:
            result = validate(
                self._validation,
                self._evaluate,
                self.world,
                num_samples=number,
                chunk=self._share,
                stopped=stopped,
                draw=self._draw if self.network.head.joint else None,
                mean_label=None if label.is_class else self._mean_label_loss,
            )
        if result is None:
            return True
        if not np.isfinite(result.loss):
            raise TrainingError(
                f"step {self.step}: the network's loss on the validation samples is {result.loss}, "
                "although its training steps were finite; the checkpoint before is intact: "
                "train.learning_rate or train.clip_norm may be too large"
            )
        self._last_result, step = result, self.step
        self._record.write(step, lambda monitor: monitor.validated(step, result))
        return False

    def _save(self) -> None:
        """Begin to write a checkpoint, unless this step has one."""
        if self._saved == self.step or self._writer is None:
            return
        self._saved = self.step
        self._record.write(self.step, Monitor.flush)
        self._writer.wait()
        self._tell_failure("training goes on and the one before is intact")
        self._writer.save(self._state())

    def _state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        state = {
            "step": self.step,
            "next_index": self._next_index,
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "skipped_in_a_row": self._in_a_row,
            "input_shape": list(self.generator.input_shape),
            "num_bins": self.generator.num_bins,
            "classes": self.generator.label.classes,
            "samples": self.generator.identity(),
            "recipes": recipes_of(self.generator.headers),
        }
        return state | ({"average": self._average.state_dict()} if self._average else {})

    def _complete(self) -> None:
        """Wait for the last checkpoint; if it could not be written, try once more."""
        if self._writer is None:
            return
        self._writer.wait()
        if self._writer.failure is None:
            return
        self._tell_failure("trying once more")
        self._writer.save(self._state())
        self._writer.wait()
        if self._writer.failure is not None:
            raise TrainingError(
                f"{self._writer.failure}; the one before is intact, and the same command goes on "
                "from it"
            )

    def _tell_failure(self, consequence: str) -> None:
        """Warn of a checkpoint that could not be written."""
        if self._writer is not None:
            self._writer.poll()
            if self._writer.failure is not None:
                self._warn(f"{self._writer.failure}; {consequence}")
                self._writer.failure = None

    def _warn(self, text: str) -> None:
        self._record.write(self.step, lambda monitor: monitor.warn(self.step, text))

    def _tell(self, name: str, text: str) -> None:
        self._record.write(self.step, lambda monitor: monitor.tell(self.step, name, text))

    def _say(self, text: str) -> None:
        self._record.write(self.step, lambda monitor: monitor.say(text))

    def _busy(self, text: str) -> None:
        self._record.write(self.step, lambda monitor: monitor.busy(text))


def train(
    config: Config, device: str | torch.device | None = None, max_steps: int | None = None
) -> Trainer:
    """Train, or continue training; returns what has trained, whose `config` is that of the run.

    device, max_steps: see `Trainer`. Raises ValueError for what the user can put right,
    TrainingError if the loss is not finite, and Unfinished, a KeyboardInterrupt, where somebody
    asked to stop: the work is safe in a checkpoint.
    """
    try:
        trainer = Trainer(config, device, max_steps)
    except Stopped:  # the lightcones of the first samples were still made
        raise Unfinished("stopped before the first step; the same call continues") from None
    summary = trainer.run()
    if summary.stopped:
        raise Unfinished(
            f"stopped after step {summary.step} of {config.train.steps}; the same call continues"
        )
    return trainer
