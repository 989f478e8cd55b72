"""Train a network on samples made on the fly; the same command continues an interrupted run.

python launch/train.py configs/quickstart.yaml
torchrun --nproc-per-node=2 launch/train.py configs/quickstart.yaml
torchrun --nproc-per-node=8 launch/train.py configs/quickstart.yaml train.steps=20000 run=runs/long
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

if importlib.util.find_spec("streamtrain") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from streamtrain.config import load_config
from streamtrain.train import TrainingError, train


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done or stopped with a checkpoint, 1 failed, 2 bad input, 130 Ctrl-C before
    the first step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="a configuration file, or the name of one that ships")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings to change")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ...; default: a GPU if there is one")
    given = parser.parse_intermixed_args(arguments)
    try:
        return train(load_config(given.config, given.settings), given.device)
    except ValueError as error:
        return _fail(str(error), 2)
    except TrainingError as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail("interrupted before the first step", 130)


def _fail(message: str, status: int) -> int:
    if os.environ.get("RANK", "0") == "0":
        print(f"streamtrain: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
