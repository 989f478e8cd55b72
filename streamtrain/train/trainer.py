"""The training loop.

A run is continued by giving the same command: its state is the newest checkpoint in its folder,
and the next sample is the one that the interrupted run would have taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from streamtrain.config import Config
from streamtrain.cores import num_cores
from streamtrain.generator.generator import GENERATOR_VERSION, Batch, Generator
from streamtrain.models import build_network, describe
from streamtrain.stream import SampleStream
from streamtrain.train.calibration import calibrate
from streamtrain.train.checkpoint import load_checkpoint, remove_leftovers, save_checkpoint
from streamtrain.train.distributed import World
from streamtrain.train.folder import RunLock, run_folder
from streamtrain.train.interrupt import StopRequest
from streamtrain.train.monitor import Monitor
from streamtrain.train.optimiser import build_optimiser, learning_rate
from streamtrain.train.stopwatch import Stopwatch
from streamtrain.train.torch_state import TorchState, seed_dropout, use_bfloat16
from streamtrain.train.validation import ValidationResult, validate


class TrainingError(RuntimeError):
    """Training cannot go on; the last checkpoint is intact."""


@dataclass(frozen=True)
class Summary:
    """How a call of `Trainer.run` ended."""

    step: int
    """Optimiser steps done, over all calls."""
    next_index: int
    """The first sample that no step has seen."""
    stopped: bool
    """Somebody asked to stop."""
    loss: float | None
    """Mean training loss since the log before the last."""
    validation: ValidationResult | None
    """The last validation of this call."""


class Trainer:
    """Trains the network of a configuration, from the newest checkpoint of its run if there is one.

    config: the run. device: see `World.start`. max_steps: end this call, with a checkpoint, after
    so many steps (the schedule stays that of the configuration).
    Raises ValueError for settings that cannot work.
    """

    def __init__(
        self,
        config: Config,
        device: str | torch.device | None = None,
        max_steps: int | None = None,
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
        self._cores = max(1, num_cores() // world.local_size)
        threads = train.threads or self._cores
        self._bfloat16 = use_bfloat16(train, self._device)
        self.generator = Generator(config, "train", self._device, threads)
        self._validation = Generator(config, "validation", self._device, threads)
        with self._torch_state():
            self.network = build_network(
                config.network, self.generator.input_shape, self.generator.label
            ).to(self._device)
        self._monitor: Monitor | None = None

    def run(self) -> Summary:
        """Train to the last step, or until SIGINT or SIGTERM; a checkpoint ends it either way.

        Raises ValueError if the run's folder is in use or holds a checkpoint of another
        configuration or of other samples, or for a sample that cannot be made (after a checkpoint
        of the steps before it), and TrainingError if the loss is not finite.
        """
        with ExitStack() as stack:
            stack.callback(self.generator.close)
            stack.callback(self._validation.close)
            stack.enter_context(self._torch_state())
            self._open(stack)
            self._request = stack.enter_context(StopRequest())
            stopped = self._loop()
            loss, result = self._last_loss, self._last_result
            summary = Summary(self.step, self._next_index, stopped, loss, result)
        self.world.close()
        return summary

    def _torch_state(self) -> TorchState:
        return TorchState(self._device, self.config.seed, self._cores)

    def _claim(self, stack: ExitStack) -> dict[str, Any] | None:
        """Lock the run's folder, in rank 0; the state to continue from, if there is one."""
        lock = RunLock(self._folder)
        stack.callback(lock.close)
        checkpoints = self._folder / "checkpoints"
        state = load_checkpoint(checkpoints, self.config, GENERATOR_VERSION)
        self._refuse_other_samples(state)
        remove_leftovers(checkpoints)
        (self._folder / "config.yaml").write_text(self.config.to_yaml(), encoding="utf-8")
        return state

    def _refuse_other_samples(self, state: dict[str, Any] | None) -> None:
        """Raise ValueError if a run would go on with other lightcones or another model."""
        if state is None:
            return
        then, now = state["samples"], self.generator.identity()
        if then == now:
            return
        if then["lightcones"] != now["lightcones"]:
            old, new = then["lightcones"], now["lightcones"]
            what = (
                "the lightcones of data.train are not those the run was trained on: "
                f"{len(old)} then, {len(new)} now, {len(set(old) & set(new))} in both (their order "
                "counts)"
            )
        elif names := [
            name
            for name in {**then, **now}
            if isinstance(now.get(name), dict)
            and isinstance(then.get(name), dict)
            and now[name].get("lightcones") != then[name].get("lightcones")
        ]:
            what = f"the lightcones of emit.{names[0]}.train are not those the run began with"
        elif then.get("sfr") != now.get("sfr"):
            what = "the table of star-formation rates data.sfr is not the one the run began with"
        elif then.get("observe") != now.get("observe"):
            what = "the files that map operators read are not those the run began with"
        else:
            models = ", ".join(self.config.line.components)
            what = f"the luminosity model {models} was edited since the run began"
        raise ValueError(f"{what}; undo that, or give this run another folder (run=...)")

    def _open(self, stack: ExitStack) -> None:
        """Network, optimiser and stream where the run left off; `stack` closes what is opened."""
        config, world = self.config, self.world
        state = world.on_main(lambda: self._claim(stack))
        self._refuse_other_samples(state)
        self.step = state["step"] if state else 0
        if world.is_main:
            self._monitor = Monitor(self._folder, config, self.generator.label, self.step)
            stack.callback(self._monitor.close)
            if self.step < config.train.steps:
                self._say(self.generator.describe())
                self._say(describe(self.network, self.generator.input_shape))
        self._optimiser = build_optimiser(self.network, config.train)
        if state:
            self.network.load_state_dict(state["network"])
            self._optimiser.load_state_dict(state["optimiser"])
            if self.step < config.train.steps:
                self._say(f"continuing {config.run} from step {self.step}")
        else:
            calibrate(
                self.network,
                self.generator,
                chunk=self._share,
                report=lambda done, of: self._busy(f"calibrating: {done}/{of} samples"),
            )
        self._model = world.wrap(self.network)
        self._stream = SampleStream(
            self.generator,
            config.train.batch_size,
            rank=world.rank,
            world_size=world.size,
            start=state["next_index"] if state else 0,
            queue=config.train.queue,
        )
        stack.callback(self._stream.close)
        self._next_index = self._stream.state_dict()["next_index"]
        self._stopwatch = Stopwatch(self._device, config.train.batch_size)
        self._sums = torch.zeros(3, dtype=torch.float64, device=self._device)
        self._logged = self._saved = self.step
        self._last_loss: float | None = None
        self._last_result: ValidationResult | None = None

    def _loop(self) -> bool:
        """Steps, and what is due after each; True if somebody asked to stop."""
        train = self.config.train
        last = train.steps
        if self._max_steps is not None:
            last = min(last, self.step + self._max_steps)
        batches, stop = iter(self._stream), False
        while self.step < last and not stop:
            self._step(batches)
            stop = self.world.agree(self._request.requested)
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
        if self.step == train.steps:
            self._say(f"all {train.steps} steps are done: {self._folder}")
        else:
            self._say(f"stopped after step {self.step}; the same command continues")
        return stop

    def _step(self, batches: Iterator[Batch]) -> None:
        """One update."""
        train = self.config.train
        with self._rescue(), self._stopwatch.wait():
            batch = next(batches)
        self._stopwatch.generated(batch.seconds)
        with self._stopwatch.train():
            for group in self._optimiser.param_groups:
                group["lr"] = learning_rate(self.step, train)
            if self.config.network.dropout:
                seed_dropout(self.config.seed, self.step, self.world.rank)
            self._model.train()
            with self._rescue():  # another rank's error ends up here
                _, loss = self._evaluate(batch)
                loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), train.clip_norm)
            self._optimiser.step()
            self._optimiser.zero_grad()
            self._sums += torch.stack([loss.detach(), norm, batch.saturated.sum()])
        self.step += 1
        self._next_index = self._stream.state_dict()["next_index"]

    @contextmanager
    def _rescue(self) -> Iterator[None]:
        """Around what changes no weight: after an error, keep the steps that are done."""
        try:
            yield
        except Exception:
            if torch.isfinite(self._sums).all() and not self._sums[2]:
                self._save()
            raise

    def _evaluate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Predicted labels [B, num_outputs], and the mean loss."""
        cube, label, counts, one_halo = (
            values.to(self._device, non_blocking=True)
            for values in (batch.cube, batch.label, batch.counts, batch.one_halo)
        )
        model = self._model if torch.is_grad_enabled() else self.network
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            answer = model(cube)
        head = self.network.head
        loss = head.loss(answer, label, counts, one_halo)
        return head.point(answer.detach(), one_halo), loss

    def _log(self) -> None:
        """Means since the last log; the one place that waits for the GPU in a step."""
        steps = self.step - self._logged
        if not steps:
            return
        totals = self.world.sum(self._sums)
        loss, norm = (totals[:2] / (steps * self.world.size)).tolist()
        size = self.config.train.batch_size
        samples = f"samples {self._logged * size} to {self.step * size - 1}"
        self._logged = self.step
        self._sums.zero_()
        if totals[2]:
            raise TrainingError(
                f"halos too bright for the cube's fixed-point range among the {samples}"
            )
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingError(
                f"the loss is {loss:g} and the gradient norm {norm:g} up to step {self.step} "
                f"({samples}); the last checkpoint is intact: try a lower train.learning_rate than "
                f"{self.config.train.learning_rate:g}"
            )
        self._last_loss = loss
        times = self._stopwatch.read()
        if self._monitor:
            rate = learning_rate(self.step - 1, self.config.train)
            self._monitor.log(self.step, loss, rate, norm, times)

    def _validate(self) -> bool:
        """Validate, split over the ranks; True if somebody asked to stop meanwhile."""
        number = self.config.train.validation_samples

        def stopped(done: int) -> bool:
            self._busy(f"step {self.step}: validating {done}/{number} samples")
            return self.world.agree(self._request.requested)

        self._model.eval()
        with torch.no_grad():
            result = validate(
                self._validation,
                self._evaluate,
                self.world,
                num_samples=number,
                chunk=self._share,
                stopped=stopped,
            )
        if result is None:
            return True
        self._last_result = result
        if self._monitor:
            self._monitor.validated(self.step, result)
        return False

    def _save(self) -> None:
        """Write a checkpoint, unless this step has one."""
        if self._saved == self.step:
            return
        self._saved = self.step
        if self.world.is_main:
            state = {
                "step": self.step,
                "next_index": self._next_index,
                "network": self.network.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "input_shape": list(self.generator.input_shape),
                "num_bins": self.generator.num_bins,
                "classes": self.generator.label.classes,
                "samples": self.generator.identity(),
            }
            save_checkpoint(self._folder / "checkpoints", state, self.config, GENERATOR_VERSION)

    def _say(self, text: str) -> None:
        if self._monitor:
            self._monitor.say(text)

    def _busy(self, text: str) -> None:
        if self._monitor:
            self._monitor.busy(text)
