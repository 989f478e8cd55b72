"""The job scripts for SLURM: their commands parse, and the warning before the end is answered."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import ROOT, small
from support.processes import finish, wait_for_step
from torch.distributed.run import get_args_parser

from streamtrain.cli.main import _parse
from streamtrain.config import load_config

SCRIPTS = sorted((ROOT / "launch" / "slurm").glob("*.sh"))
JOB = {
    "SLURM_GPUS_ON_NODE": "2",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_JOB_ID": "123456",
    "first": "node1",
    "port": "29456",
    "processes": "2",
}
"""What SLURM or the script itself sets."""


def test_there_is_one_for_one_node_and_one_for_many() -> None:
    assert [path.name for path in SCRIPTS] == ["many_nodes.sh", "one_node.sh"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_is_bash_and_its_commands_parse(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text(encoding="utf-8")
    (usage,) = re.findall(r"^#   sbatch (.*)$", text, re.MULTILINE)
    words = usage.split()
    config, *settings = words[words.index(f"launch/slurm/{script.name}") + 1 :]
    load_config(ROOT / config, settings)
    command = text.replace("\\\n", " ")
    (line,) = re.findall(r"^(?:srun \S+ )?torchrun (.*) &$", command, re.MULTILINE)
    for name, value in JOB.items():
        line = line.replace(f"${name}", value)
    line = line.replace('"$@"', f"{config} {' '.join(settings)}")
    assert "$" not in line
    given = get_args_parser().parse_args(shlex.split(line))
    assert (given.training_script, given.max_restarts) == ("launch/train.py", 3)
    assert given.nproc_per_node == "2"
    assert _parse(["train", *given.training_script_args]).settings == settings


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_without_a_configuration_says_how_it_is_used(script: Path) -> None:
    result = subprocess.run(
        ["bash", str(script)], capture_output=True, text=True, env={"PATH": os.environ["PATH"]},
        check=False,
    )  # fmt: skip
    assert result.returncode == 2 and "usage: sbatch" in result.stderr


@pytest.mark.slow
@small.EXTRAPOLATES
def test_warning_signal_ends_in_a_checkpoint_and_a_requeue(tmp_path: Path) -> None:
    """one_node.sh as SLURM runs it, with a scontrol that writes down what it is asked."""
    for seed, name in ((1, "train"), (2, "validation")):
        small.lightcone(seed).save(tmp_path / f"{name}.h5")
    config = small.config(
        run=str(tmp_path / "run"),
        data={name: [str(tmp_path / f"{name}.h5")] for name in ("train", "validation")},
        emit={"line": {"model": "li16"}},
        network={"layers": 3, "filters": 4, "dense": 8},
        train={"steps": 100000, "batch_size": 8, "log_every": 1, "threads": 1},
    )
    (tmp_path / "given.yaml").write_text(config.to_yaml())
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (tmp_path / "scontrol").chmod(0o755)
    torchrun = shutil.which("torchrun", path=os.path.dirname(sys.executable))
    assert torchrun is not None
    job = {
        "PATH": os.pathsep.join([str(tmp_path), os.path.dirname(torchrun), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "SLURM_JOB_ID": "17",
        "SLURM_SUBMIT_DIR": str(ROOT),
    }
    script = subprocess.Popen(
        ["bash", str(ROOT / "launch" / "slurm" / "one_node.sh"), str(tmp_path / "given.yaml")],
        env={**os.environ, **job},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_step(tmp_path / "run", 2, script)
    begin = time.monotonic()
    script.send_signal(signal.SIGUSR1)
    errors = finish(script)[1]
    assert script.returncode == 0, errors
    assert time.monotonic() - begin < 25
    assert "the same command continues" in errors
    assert (tmp_path / "asked").read_text() == "requeue 17\n"
    assert len(list((tmp_path / "run" / "checkpoints").glob("step_*"))) >= 1
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))
