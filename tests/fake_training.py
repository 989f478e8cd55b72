"""A training on `fake_generator`, to be run as a process of its own:

python tests/fake_training.py FOLDER [--kill-at STEP] [--delay SECONDS] [--dropout P]
    [--train key=value ...]

Each rank writes the indices of its training batches to FOLDER/indices.RANK.jsonl. --kill-at: kill
-9 this process when so many steps are done; --delay: per training batch.
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
from streamtrain.generator.generator import Batch
from streamtrain.train import Trainer, train
from streamtrain.train.calibration import NUM_SAMPLES


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kill-at", type=int)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--train", nargs="*", default=[])
    given = parser.parse_args()
    record = given.folder / f"indices.{os.environ.get('RANK', '0')}.jsonl"

    class Recorder(FakeGenerator):
        calibration_left = 0 if (given.folder / "checkpoints").exists() else NUM_SAMPLES

        def generate(self, indices: Sequence[int]) -> Batch:
            if self.split == "train" and self.calibration_left:
                self.calibration_left -= len(indices)
            elif self.split == "train":
                time.sleep(given.delay)
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
    return train(tiny_config(given.folder, dropout=given.dropout, **settings), "cpu")


if __name__ == "__main__":
    sys.exit(main())
