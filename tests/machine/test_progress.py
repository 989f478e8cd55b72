"""The progress line: when it is written, and how long it says that something will take."""

from __future__ import annotations

import io
import re
import time

import pytest
from support import ROOT

from streamtrain.machine import progress
from streamtrain.machine.progress import Progress, said_if_slow


class Clock:
    """`time`, as a test turns it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_it_says_how_long_the_rest_will_take(clock: Clock) -> None:
    """From what has been done since the first part, which holds what is done once."""
    stream = io.StringIO()
    shown = Progress(stream=stream, every_s=0.0)
    clock.now += 60.0  # libraries, compiling, the first part
    shown.count("evaluating", 10, 50, "samples")
    clock.now += 2.0
    shown.count("evaluating", 20, 50, "samples")
    clock.now += 4.0
    shown.count("evaluating", 40, 50, "samples")
    clock.now += 1.0
    shown.count("evaluating", 50, 50, "samples")
    assert stream.getvalue().splitlines() == [
        "evaluating: 10/50 samples",
        "evaluating: 20/50 samples  left 0:06",
        "evaluating: 40/50 samples  left 0:02",
        "evaluating: 50/50 samples",
    ]


def test_another_thing_has_a_time_of_its_own(clock: Clock) -> None:
    """Also the same thing for the second time."""
    shown = Progress(stream=io.StringIO())
    for what in ("making", "evaluating", "evaluating"):
        assert shown.left(what, 1, 100) == ""
        clock.now += 3.0
        assert shown.left(what, 2, 100) == "  left 4:54"


def test_a_log_has_the_time_soon_and_then_every_ten_seconds(clock: Clock) -> None:
    stream = io.StringIO()
    shown = Progress(stream=stream)
    for done in range(30):
        shown.count("painting", done + 1, 1000, "maps")
        clock.now += 1.0
    lines = stream.getvalue().splitlines()
    assert [int(re.search(r"(\d+)/", line)[1]) for line in lines] == [1, 2, 12, 22]  # type: ignore[index]
    assert ["left" in line for line in lines] == [False, True, True, True]


LOOPS = {
    "mcmc/inference.py": 4,
    "evaluate/testset.py": 2,
    "evaluate/predictions.py": 1,
    "evaluate/baselines.py": 1,
    "evaluate/alarm/watch.py": 1,
    "evaluate/calibration/calibration.py": 3,
    "evaluate/calibration/recalibrate.py": 2,
    "evaluate/interpret/probes.py": 2,
    "evaluate/repaint/repaint.py": 3,
    "evaluate/robustness/blind.py": 1,
    "evaluate/robustness/scenarios.py": 1,
    "generator/export.py": 1,
    "preview/prior.py": 1,
    "preview/compare_catalogs.py": 1,
}
"""Files of the commands that take minutes, and the loops in each."""


def test_whatever_takes_minutes_says_how_long() -> None:
    """Every loop that is counted on the progress line says what is left of it."""
    package = ROOT / "streamtrain"
    found = {}
    for file in package.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for call in re.finditer(r"\bupdate\(\s*f\".*?\}/\{.*?\n *\)", text, re.DOTALL):
            assert "left" in call[0], file
        number = len(re.findall(r"progress\.count\(|count\(\"[a-z ]+\", (?:done|step)", text))
        if number:
            found[str(file.relative_to(package))] = number
    assert found == LOOPS


def test_what_takes_long_says_what_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, on stderr, of the first rank; what is quick says nothing."""
    with said_if_slow("loading libraries", after_s=0.01):
        time.sleep(0.2)
    assert capsys.readouterr() == ("", "streamtrain: loading libraries ...\n")
    with pytest.raises(ValueError, match="inside"), said_if_slow("it", after_s=0.1):
        raise ValueError("inside")
    monkeypatch.setenv("RANK", "1")
    with said_if_slow("loading libraries", after_s=0.01):
        time.sleep(0.2)
    assert capsys.readouterr() == ("", "")
