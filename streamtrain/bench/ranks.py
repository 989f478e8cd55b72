"""Training with several processes: how long they take to start, and how much faster they are.

`rank_costs` starts torchrun, as a user does, on this module: each rank trains a few steps, on a CPU
pinned to a core of its own, and leaves its times in a file.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from streamtrain.config import Config
from streamtrain.machine.workers import num_cores
from streamtrain.numerics import backend

STEPS = 60
LOG_EVERY = 10
PATIENCE_S = 900.0
Row = dict[str, Any]


def rank_costs(config: Config, device: str, most: int, steps: int = STEPS) -> list[Row]:
    """One row for each of 1, 2, 4 ... `most` ranks: start-up with no compiled kernel anywhere and
    with all of them [s], how many were compiled, and the samples per second of all ranks together.

    Every rank trains on `train.batch_size` samples per step whatever their number, so that ideal
    ranks make their number times the samples of one. Raises ValueError for more ranks than cores.
    """
    kind = device.partition(":")[0]
    if kind == "cpu" and most > num_cores():
        raise ValueError(f"--ranks {most}: there are {num_cores()} cores, and a rank needs its own")
    numbers = [n for n in (1 << k for k in range(20)) if n < most] + [most]
    rows = []
    for number in numbers:
        with tempfile.TemporaryDirectory() as folder:
            cold = _train(config, kind, number, Path(folder), LOG_EVERY)
            warm = _train(config, kind, number, Path(folder), steps)
        rows.append(
            {
                "ranks": number,
                "cold_start_s": max(r["start_s"] for r in cold),
                "compiled": sum(r["compiled"] for r in cold),
                "warm_start_s": max(r["start_s"] for r in warm),
                "compiled_again": sum(r["compiled"] for r in warm),
                "samples_per_s": warm[0]["samples_per_s"],
            }
        )
        rows[-1]["over_one_rank"] = rows[-1]["samples_per_s"] / rows[0]["samples_per_s"]
    return rows


def _train(config: Config, device: str, ranks: int, folder: Path, steps: int) -> list[Row]:
    """A training of its own, from the start; what the ranks say of it."""
    if not config.data.validation:
        raise ValueError("--ranks trains, which needs a lightcone in data.validation")
    run = Path(tempfile.mkdtemp(dir=folder))
    train = replace(
        config.train,
        steps=steps,
        warmup_steps=0,
        batch_size=ranks * config.train.batch_size,
        log_every=LOG_EVERY,
        validate_every=steps + 1,
        validation_samples=ranks,
        checkpoint_every=steps + 1,
        threads=1 if device == "cpu" else config.train.threads,
    )
    file = run / "bench.yaml"
    file.write_text(replace(config, run=str(run / "run"), train=train).to_yaml())
    environment = {
        **os.environ,
        "STREAMTRAIN_CACHE": str(folder / "cache"),
        "CUPY_CACHE_DIR": str(folder / "cupy"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
    }
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [*launcher, "-m", __name__, str(file), device, repr(time.time())]
    result = subprocess.run(
        [sys.executable, *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    files = sorted(run.glob("rank_*.json"))
    if result.returncode or len(files) != ranks:
        raise ValueError(f"--ranks {ranks}: training failed:\n{result.stderr[-6000:]}")
    return [json.loads(path.read_text()) for path in files]


def train_rank(file: Path, device: str, begun: float) -> None:
    """What a rank does: train as the file says, and write down its times.

    begun: when torchrun was started, seconds since 1970.
    """
    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    if device == "cpu":
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[local]})
    from streamtrain.config import load_config
    from streamtrain.train.folder import read_history
    from streamtrain.train.trainer import Trainer

    compiled = 0
    usual = backend._compile

    def counting(*arguments: Any) -> Any:
        nonlocal compiled
        compiled += 1
        return usual(*arguments)

    backend._compile = counting  # type: ignore[assignment]
    config = load_config(file)
    trainer = Trainer(config, device)
    start_s = time.time() - begun
    trainer.run()
    speed = 0.0
    if rank == 0:
        entries = [e for e in read_history(Path(config.run) / "history.jsonl") if "train_ms" in e]
        speeds = [e["samples_per_s"] for e in entries]
        speed = statistics.median(speeds[1:] or speeds)
    row = {"start_s": start_s, "compiled": compiled, "samples_per_s": speed}
    (file.parent / f"rank_{rank}.json").write_text(json.dumps(row))


def report_ranks(rows: list[Row]) -> list[str]:
    """Lines of a table."""
    lines = ["\ntraining on several ranks, each with the same share of a step"]
    for row in rows:
        lines.append(
            f"{row['ranks']:3d} ranks: {row['samples_per_s']:8.1f} samples/s, "
            f"{row['over_one_rank']:.2f} times one rank; start {row['cold_start_s']:.1f} s with "
            f"{row['compiled']} kernels to compile, {row['warm_start_s']:.1f} s without"
        )
    return lines


if __name__ == "__main__":
    train_rank(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
