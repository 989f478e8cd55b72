"""A long run needs no more memory than a short one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_generator import FakeTrainer, tiny_config

from streamtrain.generator.generator import Batch


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_memory_after_10000_steps_is_that_after_500(tmp_path: Path) -> None:
    """Logging, checkpoints, an average and validations with their figures included. A first run of
    25 validations fills the caches of what draws the figures, which grow no further."""
    found = {}

    class Weighed(FakeTrainer):
        def _step(self, batches: Iterator[Batch]) -> None:
            super()._step(batches)
            if self.step in (500, 10000):
                found[self.step] = resident_bytes()

    FakeTrainer(tiny_config(tmp_path / "first", steps=25, validate_every=1)).run()
    settings = {"validate_every": 400, "checkpoint_every": 100, "log_every": 10, "ema": 0.99}
    Weighed(tiny_config(tmp_path / "long", steps=10001, **settings)).run()
    print({step: f"{size / 1e6:.2f} MB" for step, size in found.items()})
    assert found[10000] < 1.01 * found[500]
