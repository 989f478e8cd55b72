"""A training on `fake_generator`, to be run as a process of its own:

    PYTHONPATH=tests python -m support.fake_training FOLDER
        [--kill-at STEP] [--kill-rank RANK] [--kill-event N] [--events FILE]
        [--file-limit BYTES FIRST LAST] [--bad INDEX ...] [--fail-at INDEX] [--delay SECONDS]
        [--delay-from INDEX] [--slow-calibration SECONDS] [--dropout P]
        [--network YAML] [--train key=value ...]

It is `streamtrain train`, with its messages and exit status. Each rank writes the indices of its
training batches to FOLDER/indices.RANK.jsonl.

--kill-at: kill -9 this process (of --kill-rank, at its first start) when so many steps are done and
checkpoints written; --kill-event: at this event while files are written (see `watch`), whose names
go to --events; --file-limit: from step FIRST to LAST the kernel lets no file grow beyond so many
bytes;
--bad: training samples that are not finite; --fail-at: one that cannot be made; --delay: per
training batch, from a sample on; --slow-calibration: per batch of the calibration.
"""

from __future__ import annotations

import argparse
import builtins
import json
import math
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

import streamtrain.train.monitor
import streamtrain.train.trainer
from streamtrain.cli import main as cli
from streamtrain.config import Config
from streamtrain.generator.generator import Batch
from streamtrain.train.normalisation import NUM_SAMPLES
from support.fake_generator import FakeGenerator, FakeTrainer, tiny_config


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kill-at", type=int)
    parser.add_argument("--kill-rank", type=int, default=0)
    parser.add_argument("--kill-event", type=int)
    parser.add_argument("--events", type=Path)
    parser.add_argument("--file-limit", type=int, nargs=3)
    parser.add_argument("--bad", type=int, nargs="*", default=[])
    parser.add_argument("--fail-at", type=int)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--delay-from", type=int, default=0)
    parser.add_argument("--slow-calibration", type=float, default=0.0)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--network", type=yaml.safe_load)
    parser.add_argument("--train", nargs="*", default=[])
    given = parser.parse_args(arguments)
    rank = int(os.environ.get("RANK", "0"))
    first_start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    record = given.folder / f"indices.{rank}.jsonl"

    class Recorder(FakeGenerator):
        calibration_left = 0 if any(given.folder.glob("checkpoints/step_*")) else NUM_SAMPLES

        def generate(self, indices: Sequence[int]) -> Batch:
            if self.split != "train":
                return super().generate(indices)
            if self.calibration_left:
                self.calibration_left -= len(indices)
                time.sleep(given.slow_calibration)
                return super().generate(indices)
            if indices[0] >= given.delay_from:
                time.sleep(given.delay)
            if given.fail_at in indices:
                raise ValueError(f"sample {given.fail_at}: no such halo")
            with open(record, "a", encoding="utf-8") as file:
                file.write(json.dumps(list(indices)) + "\n")
            batch = super().generate(indices)
            for index in {*indices} & {*given.bad}:
                batch.cube[list(indices).index(index), 0, 0, 0] = math.nan
            return batch

    class Victim(FakeTrainer):
        def __init__(self, config: Config, device: str, max_steps: int | None = None) -> None:
            super().__init__(config, device, max_steps, generator=Recorder)

        def _step(self, batches: Iterator[Batch]) -> bool:
            if self.step == given.kill_at and rank == given.kill_rank and first_start:
                if self._writer:
                    self._writer.wait()
                os.kill(os.getpid(), signal.SIGKILL)
            if given.file_limit:
                size, first, last = given.file_limit
                if self._writer and self.step in (first, last + 1):
                    self._writer.wait()  # a checkpoint is written under one limit
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # EFBIG instead
                limit = size if first <= self.step <= last else resource.RLIM_INFINITY
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            return super()._step(batches)

    streamtrain.train.trainer.Trainer = Victim  # which the command takes from there
    for name in ("map_slices", "luminosity_function"):  # they cost more than all steps
        setattr(streamtrain.train.monitor, name, lambda *_, **__: Figure(figsize=(1, 1)))
    settings = {key: yaml.safe_load(text) for key, text in (s.split("=") for s in given.train)}
    config = tiny_config(given.folder, given.dropout, network=given.network, **settings)
    file = given.folder / f"given.{rank}.yaml"
    file.write_text(config.to_yaml(), encoding="utf-8")
    if given.kill_event is not None or given.events:
        watch(given.folder, given.kill_event, given.events)
    return cli.main(["train", str(file), "--device", "cpu"])


def watch(folder: Path, fatal: int | None, names: Path | None) -> None:
    """Count what this process does to the files of checkpoints and history, and kill -9 it there.

    Events, from 0: before and after each fsync, rename, removal and new folder, and in the middle
    of every 60th write to a file of a checkpoint.
    """
    lock, count = threading.Lock(), 0

    def event(name: str) -> None:
        nonlocal count
        with lock:
            if names is not None:
                with real_open(names, "a", encoding="utf-8") as file:
                    file.write(name + "\n")
            if count == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

    def around(owner: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def watched(*arguments: Any, **more: Any) -> Any:
            event(f"before {name}")
            value = real(*arguments, **more)
            event(f"after {name}")
            return value

        setattr(owner, name, watched)

    class HalfWritten:
        """A file that reports when half of each piece is on disk."""

        def __init__(self, file: Any) -> None:
            self._file, self._writes = file, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def __enter__(self) -> HalfWritten:
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def write(self, data: Any) -> int:
            data = data if isinstance(data, str) else bytes(data)
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            if self._writes % 60 == 0:
                event(f"within {Path(self._file.name).name}")
            self._writes += 1
            self._file.write(data[len(data) // 2 :])
            return len(data)

    real_open = builtins.open

    def watched_open(file: Any, mode: str = "r", *arguments: Any, **more: Any) -> Any:
        opened = real_open(file, mode, *arguments, **more)
        inside = str(folder / "checkpoints") in str(file)
        return HalfWritten(opened) if inside and "w" in mode else opened

    for owner, name in ((os, "fsync"), (os, "rename"), (os, "replace"), (shutil, "rmtree")):
        around(owner, name)
    around(Path, "mkdir")
    builtins.open = watched_open


if __name__ == "__main__":
    sys.exit(main())
