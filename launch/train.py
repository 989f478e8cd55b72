"""Train a network on samples made on the fly; the same command continues an interrupted run.

python launch/train.py configs/quickstart.yaml
torchrun --nproc-per-node=2 launch/train.py configs/quickstart.yaml
torchrun --nproc-per-node=8 launch/train.py configs/quickstart.yaml train.steps=20000 run=runs/long
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

if importlib.util.find_spec("streamtrain") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from streamtrain import __main__ as command


def main(arguments: Sequence[str]) -> int:
    """`streamtrain train`, which torchrun can start; its exit status."""
    return command.main(["train", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
