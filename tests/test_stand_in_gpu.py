"""What users run on a GPU, run where there is none: see `support.stand_in_gpu`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from support import ROOT, TESTS, small

from streamtrain.cli.main import main
from streamtrain.train.folder import read_history

pytestmark = pytest.mark.skipif(
    torch.version.cuda is not None,
    reason="needs a CPU build of torch: this one has a real GPU's part",
)
SETTINGS = {
    "seed": 3,
    "run": "run",
    "grid": small.GRID,
    "data": {"train": ["train.h5"], "validation": ["validation.h5"], "test": ["test.h5"]},
    "emit": {
        "line": {"mixture": {"li16": {"prior": "narrow"}, "chung22": {"prior": "correlated"}}}
    },
    "observe": {
        "pool": {"factor": [1, 3, 3]},
        "beam": {"fwhm_arcmin": 9.0},
        "beam_2": {"profile": str(TESTS / "data" / "beam.csv")},
        "channel_response": {"fwhm_MHz": 900.0},
        "transfer_function": {"file": str(TESTS / "data" / "transfer.npz")},
        "noise": {"sigma_uK": [0.0, 2.0]},
        "log_modulus": {},
    },
    "network": {"kind": "cnn", "layers": 2, "filters": 4, "head": "gaussian", "dropout": 0.1},
    "train": {
        "steps": 12,
        "batch_size": 4,
        "precision": "bfloat16",
        "warmup_steps": 2,
        "log_every": 4,
        "validate_every": 12,
        "validation_samples": 8,
        "checkpoint_every": 6,
    },
    "test": {"samples": 20},
}
COMMANDS = (
    "check",
    "train small.yaml",
    "testset make run",
    "evaluate run",
    "layers run --index 1",
    "export run --samples 2 --raw --out maps.h5",
    "alarm run --maps 200",
    "infer run maps.h5 --index 1",
    "preview small.yaml --index 5 run=previews",
    "catalog make 1 --footprint-deg 0.3 --z-range 2.4 2.5 --device cuda",
)
NOT_HERE = (
    "test_nothing_is_allocated_in_steady_state",
    "test_a_batch_is_made_while_a_step_runs",
)
"""Tests of what the stand-in has not: an allocator, and streams that take their time."""
ONE_BY_ONE = ("everything", "filters", "telescope")
"""Samples that take a third of the time; they are made in one batch, and others one by one."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three skies and a configuration."""
    made = tmp_path_factory.mktemp("stand_in")
    for seed, name in enumerate(("train", "validation", "test")):
        small.lightcone(seed, 4000).save(made / f"{name}.h5")
    (made / "small.yaml").write_text(yaml.safe_dump(SETTINGS, sort_keys=False), encoding="utf-8")
    return made


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with the stand-in within reach, at the place of the checkout."""
    paths = [str(TESTS), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


EACH = """
from support.stand_in_gpu import plugin
import sys
from matplotlib.figure import Figure
from streamtrain.cli.main import main
Figure.draw = lambda *_: None
for command in sys.argv[1:]:
    print("+", command, flush=True)
    status = main(command.split())
    if status:
        sys.exit(status)
"""


@small.ASSUMES
def test_commands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each ends well; the CPU then finds the bits of the GPU's test set. Figures are filled with
    what comes from the GPU and saved without ink, which costs more than all else."""
    result = python(folder, "-c", EACH, *COMMANDS)
    assert result.returncode == 0, result.stdout[-1000:] + result.stderr[-3000:]
    assert "bit-exact on cuda: yes" in result.stdout
    assert read_history(folder / "run" / "history.jsonl")[-1]["step"] == 12
    monkeypatch.chdir(folder)
    assert main(["testset", "verify", "run", "--device", "cpu"]) == 0


CORE_ONLY = """
import sys
import pytest
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("astropy", "colossus", "emcee", "powerbox", "pyarrow", "ziglang"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
sys.exit(pytest.main(sys.argv[1:]))
"""


def test_tests_marked_gpu() -> None:
    """They can run, also without the packages that only other tests need, so a GPU will find no
    fault in the tests themselves."""
    left_out = " and ".join(f"not {name}" for name in NOT_HERE)
    plugin = ("-p", "support.stand_in_gpu.plugin", "-p", "no:cacheprovider")
    files = [str(f) for f in sorted(TESTS.rglob("test_*.py")) if "mark.gpu" in f.read_text("utf-8")]
    assert len(files) > 5
    one_by_one = [f"--deselect=tests/generator/test_bits.py::test_gpu[{k}-1]" for k in ONE_BY_ONE]
    chosen = ("-m", "gpu", "-k", left_out, *one_by_one)
    result = python(ROOT, "-c", CORE_ONLY, "-q", *chosen, *plugin, *files)
    assert result.returncode == 0, result.stdout[-3000:]
    lines = result.stdout.splitlines()
    assert " passed" in lines[-1], lines[-1]
    skipped = [line for line in lines if line.startswith("SKIPPED")]  # files of other tests
    assert all("could not import" in line for line in skipped), skipped


MIXED = """
from support.stand_in_gpu import plugin
import torch
here, there = torch.ones(3), torch.ones(3, device="cuda")
copy = there.to("cpu", non_blocking=True)
assert not (copy == 1).any()
torch.cuda.synchronize()
assert (copy == 1).all()
try:
    here + there
except RuntimeError as error:
    print(error)
"""


VARIANTS = """
import json
from streamtrain.bench.variants import VARIANTS, Variant, paint_variants, report_variants
from streamtrain.config import load_config

class Added(Variant):
    prologue = property(lambda self: Variant.prologue.fget(self) + self.line)

class Wrong(Added):
    line = "#define normal_pair(a, b, x, y) (*(x) = *(y) = 0.0f)\\n"

class Refused(Added):
    line = "#error no such instruction\\n"

chosen = {"128": VARIANTS["128 threads, 8 blocks"], "no": Refused(), "wrong": Wrong()}
told = []
config = load_config("small.yaml", [])
found = paint_variants(config, torch.device("cuda", 0), 0.0, lambda f: told.append(len(f)), chosen)
assert told == [2, 3, 4]
assert len(report_variants(found)) == 5
print(json.dumps(found))
"""


def test_variants_of_the_paint_kernel(folder: Path) -> None:
    """One that makes other bytes is found out, one that cannot be compiled costs no other. Before:
    tensors of two devices do not mix, and a copy that is not waited for has not arrived."""
    result = python(folder, "-c", MIXED + VARIANTS)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "same device" in result.stdout.splitlines()[0]
    found = json.loads(result.stdout.splitlines()[-1])
    assert list(found) == ["shipped", "128", "no", "wrong"]
    assert found["128"]["same_bytes"] and not found["wrong"]["same_bytes"]
    assert found["128"]["over_shipped"] > 0.0
    assert "no such instruction" in found["no"]["error"]
