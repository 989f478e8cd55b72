"""What tests share: the physics and the kernels' arithmetic in NumPy, fakes, files, processes.

reference, reference_models   a sample in float64 NumPy, written from the papers
bit_*                         the arithmetic of the kernels, one IEEE operation after the other
fake_*, stand_in_gpu          a generator, queues, a training and a GPU that are none
small, *_files, *_runs, ...   skies, catalogues, runs and maps of which every number is known
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
SUPPORT = TESTS / "support"
SHARED = Path(os.environ.get("STREAMTRAIN_SHARED", ROOT.parent / "shared"))
"""Data that the repository does not carry, for the tests that find it."""
