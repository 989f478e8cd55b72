"""A training on `fake_generator`, to be run as a process of its own:

python tests/fake_training.py FOLDER [--kill-at STEP] [--delay SECONDS] [--dropout P]
    [--fail-at INDEX] [--train key=value ...]

It is `streamtrain train`, with its messages and exit status. Each rank writes the indices of its
training batches to FOLDER/indices.RANK.jsonl. --kill-at: kill -9 this process when so many steps
are done; --fail-at: a training sample that cannot be made; --delay: per training batch.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from fake_generator import FakeGenerator, tiny_config

import streamtrain.train
from streamtrain import cli
from streamtrain.generator.generator import Batch
from streamtrain.train import Trainer
from streamtrain.train.calibration import NUM_SAMPLES


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kill-at", type=int)
    parser.add_argument("--fail-at", type=int)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--train", nargs="*", default=[])
    given = parser.parse_args()
    rank = os.environ.get("RANK", "0")
    record = given.folder / f"indices.{rank}.jsonl"

    class Recorder(FakeGenerator):
        calibration_left = 0 if (given.folder / "checkpoints").exists() else NUM_SAMPLES

        def generate(self, indices: Sequence[int]) -> Batch:
            if self.split == "train" and self.calibration_left:
                self.calibration_left -= len(indices)
            elif self.split == "train":
                time.sleep(given.delay)
                if given.fail_at in indices:
                    raise ValueError(f"sample {given.fail_at}: no such halo")
                with open(record, "a", encoding="utf-8") as file:
                    file.write(json.dumps(list(indices)) + "\n")
            return super().generate(indices)

    class Victim(Trainer):
        def _step(self, batches: Iterator[Batch]) -> None:
            if self.step == given.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            super()._step(batches)

    streamtrain.train.trainer.Generator = Recorder
    streamtrain.train.Trainer = Victim
    settings = {key: yaml.safe_load(text) for key, text in (s.split("=") for s in given.train)}
    config = tiny_config(given.folder, dropout=given.dropout, **settings)
    file = given.folder / f"given.{rank}.yaml"
    file.write_text(config.to_yaml(), encoding="utf-8")
    return cli.main(["train", str(file), "--device", "cpu"])


if __name__ == "__main__":
    sys.exit(main())
