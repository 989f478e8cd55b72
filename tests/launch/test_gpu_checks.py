"""The checks for the minutes on a GPU: what one of them does, no other pays for."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support import ROOT, TESTS
from support.processes import PATIENCE_S

LAUNCH = ROOT / "launch"


def program(name: str) -> ModuleType:
    """A file of launch/ as a module."""
    spec = importlib.util.spec_from_file_location(name, LAUNCH / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gpu_checks = program("gpu_checks")

BEGIN = """
import json, os, sys, time
skies, path = sys.argv[1:]
def tell(status, text, **numbers):
    with open(path, "w") as file:
        json.dump({"status": status, "text": text, "numbers": numbers}, file)
"""


def fake(name: str, code: str, limit_s: float = 5.0, **more: Any) -> Any:
    """A check that runs some lines of Python."""
    return gpu_checks.Check(name, limit_s, command=(sys.executable, "-c", BEGIN + code), **more)


def rows_in(folder: Path) -> dict[str, Any]:
    """What is on disk."""
    rows: dict[str, Any] = json.loads((folder / "gpu_checks.json").read_text())["checks"]
    return rows


def is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


HANGS = """
import signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
tell("unfinished", "half of it", child=child.pid, own=os.getpid())
os.close(1), os.close(2)
time.sleep(99)
"""
BAD = {
    "hangs": (HANGS, "failed", "took longer than 2 s; until then: half of it"),
    "segfault": ("import ctypes; ctypes.string_at(0)", "failed", "ended by SIGSEGV"),
    "raises": ("raise RuntimeError('CUDA error')", "failed", "exit status 1"),
    "silent": ("pass", "failed", "ended with exit status 0 and wrote no result"),
    "rubbish": ("open(path, 'wb').write(b'\\xff{]')", "failed", "wrote no result"),
    "no words": ("open(path, 'w').write('[1]')", "failed", "wrote no result"),
    "noise": ("while True: os.write(1, b'\\xff' * 5000)", "failed", "took longer"),
    "late crash": ("tell('ok', 'good'); os.abort()", "failed", "SIGABRT; until then: good"),
    "too slow here": ("tell('not here', 'slow'); time.sleep(99)", "not here", "slow"),
    "leaves one": ("import subprocess\nc = subprocess.Popen(['sleep', '99'])\n"
                   "tell('ok', 'well', child=c.pid)", "ok", "well"),
    "no number": ("tell('ok', 'well', ratio=float('nan'))", "ok", "well"),
}  # fmt: skip
"""Lines, and the status and words of the row."""


def test_what_a_check_does_no_other_pays_for(tmp_path: Path) -> None:
    """Each that comes after finds the rows of those before on disk; nothing is left behind."""
    witness = f"""
rows = json.load(open({str(tmp_path / "gpu_checks.json")!r}))["checks"]
tell("ok", "saw " + str(len(rows)))
"""
    checks = []
    limits = {"hangs": 2.0, "noise": 0.4, "too slow here": 1.0}
    for number, (name, (code, _, _)) in enumerate(BAD.items()):
        checks.append(fake(name, code, limits.get(name, 10.0)))
        checks.append(fake(f"after {number}", witness))
    missing = gpu_checks.Check("missing", 1.0, command=("/no/such/program",))
    begin = time.monotonic()
    status = gpu_checks.Checks(tmp_path, 60.0, begin).run([missing, *checks])
    rows = rows_in(tmp_path)
    assert status == 1
    assert "cannot be run" in rows["missing"]["text"]
    for number, (name, (_, expected, words)) in enumerate(BAD.items()):
        assert rows[name]["status"] == expected, rows[name]
        assert words in rows[name]["text"]
        assert rows[f"after {number}"]["text"] == f"saw {2 * number + 2}"
    assert "RuntimeError: CUDA error" in rows["raises"]["output"]
    assert "RuntimeError: CUDA error" in (tmp_path / "gpu_checks.md").read_text()
    assert rows["no number"]["numbers"] == {"ratio": "nan"}
    numbers = [rows["leaves one"]["numbers"]["child"], *rows["hangs"]["numbers"].values()]
    assert not any(is_there(number) for number in numbers)
    assert sorted(os.listdir(tmp_path)) == ["gpu_checks.json", "gpu_checks.md"]


def test_the_end_is_within_the_budget(tmp_path: Path) -> None:
    """What fits whole comes first, then what fits by half, cut off; the rest is left."""
    well = "tell('ok', 'well')"
    checks = [
        fake("long", "tell('unfinished', 'begun'); time.sleep(99)", 5.0),
        fake("short", well, 1.0),
        fake("longest", well, 20.0),
        fake("second", well, 0.5, second=True),
    ]
    begin = time.monotonic()
    run = gpu_checks.Checks(tmp_path, 4.0, begin)
    assert run.run(checks) == 0
    assert time.monotonic() - begin < 4.0
    rows = rows_in(tmp_path)
    assert list(rows) == ["short", "long"]
    assert rows["long"]["status"] == "left"
    assert "until then: begun" in rows["long"]["text"]
    [*_, names, _] = run.lines()[-4:]
    assert "second" in names
    assert "--only longest --only second" in run.lines()[-1] and "short" not in run.lines()[-1]


@pytest.mark.parametrize(
    ("sky", "status", "words"),
    [
        ("open(skies + '/a.h5', 'w'); time.sleep(0.5); tell('ok', 'made')", "ok", "saw a.h5"),
        ("open(skies + '/a.h5', 'w'); os.abort()", "ok", "saw a.h5"),
        ("os.abort()", "failed", "there are no lightcones"),
        ("time.sleep(99)", "failed", "there are no lightcones"),
    ],
)
def test_lightcones_are_made_beside(tmp_path: Path, sky: str, status: str, words: str) -> None:
    """Those who need them wait; if they die or hang, the others go on, and so do those who need
    them with what there is."""
    sees = "tell('ok', 'saw ' + ' '.join(os.listdir(skies)))"
    checks = [
        fake("beside", "tell('ok', str(len(os.listdir(skies))))"),
        fake("needs", sees, skies=True),
        fake("needs too", sees, skies=True),
        fake("after", "tell('ok', 'well')"),
    ]
    maker = fake("lightcones", sky, 1.0 if "99" in sky else 10.0)
    gpu_checks.Checks(tmp_path, 60.0, time.monotonic()).run(checks, maker)
    rows = rows_in(tmp_path)
    assert rows["after"]["text"] == "well" and rows["beside"]["status"] == "ok"
    for name in ("needs", "needs too"):
        assert (rows[name]["status"], rows[name]["text"]) == (status, words)
    assert rows["lightcones"]["status"] == ("ok" if "made" in sky else "failed")


def test_a_check_whose_lightcones_are_late_comes_again_at_the_end(tmp_path: Path) -> None:
    late = "time.sleep(1.2); open(skies + '/a.h5', 'w'); tell('ok', 'made')"
    well = "tell('ok', 'well')"
    checks = [fake("needs", well, 1.0, skies=True), fake("after", "time.sleep(1.0);" + well)]
    run = gpu_checks.Checks(tmp_path, 60.0, time.monotonic())
    assert run.run(checks, fake("lightcones", late, 30.0)) == 0
    assert rows_in(tmp_path)["needs"]["text"] == "well"


def test_lightcones_that_are_too_late_leave_a_check_for_another_command(tmp_path: Path) -> None:
    check = fake("needs", "tell('ok', 'well')", 0.3, skies=True)
    run = gpu_checks.Checks(tmp_path, 60.0, time.monotonic())
    assert run.run([check], fake("lightcones", "time.sleep(99)", 30.0)) == 0
    assert rows_in(tmp_path)["needs"]["status"] == "left"
    assert run.lines()[-1].endswith("--only needs")


def test_lightcones_that_nobody_can_make(tmp_path: Path) -> None:
    checks = [fake("needs", "", skies=True), fake("after", "tell('ok', 'well')")]
    maker = gpu_checks.Check("lightcones", 9.0, command=("/no/such/program",))
    assert gpu_checks.Checks(tmp_path, 60.0, time.monotonic()).run(checks, maker) == 1
    rows = rows_in(tmp_path)
    assert [row["status"] for row in rows.values()] == ["failed", "failed", "ok"]
    assert "cannot be run" in rows["lightcones"]["text"]


STOPPED_AT = "stopped by a signal; until then: half of it"
STOPPED = f"""
import sys
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(TESTS)!r}]
from pathlib import Path
from test_gpu_checks import HANGS, fake, gpu_checks
checks = [fake("first", "tell('ok', 'well')"), fake("hangs", HANGS, 60.0), fake("last", "")]
run = gpu_checks.Checks(Path(sys.argv[1]), 100.0)
sys.exit(run.run(checks, fake("lightcones", HANGS), asked=True))
"""


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_leaves_what_is_found(tmp_path: Path, number: signal.Signals) -> None:
    """On disk, and no process."""
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("first: well")
    deadline = time.monotonic() + PATIENCE_S
    while not (children := _children(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert children
    process.send_signal(number)
    status = process.wait(PATIENCE_S)
    assert status == (-number if number == signal.SIGKILL else 128 + number)
    rows = rows_in(tmp_path)
    assert rows["first"]["text"] == "well"
    if number != signal.SIGKILL:
        assert rows["hangs"]["status"] == "left"
        assert rows["hangs"]["text"] in ("stopped by a signal", STOPPED_AT)
    while any(map(is_there, children)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_there, children))
    process.stdout.close()


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(number) for number in listed.split()]


def test_another_command_keeps_what_is_there(tmp_path: Path) -> None:
    for name, text in (("a", "old"), ("b", "old"), ("b", "new")):
        run = gpu_checks.Checks(tmp_path, 20.0, time.monotonic())
        run._started = text
        run.run([fake(name, f"tell('ok', {text!r})")])
    rows = rows_in(tmp_path)
    assert {name: row["text"] for name, row in rows.items()} == {"a": "old", "b": "new"}
    assert "a" in run.lines()[2] and run.lines()[2].endswith("old, of old")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"checks": {"a": {}}}', '{"checks": [1]}'])
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str, capsys: Any) -> None:
    (tmp_path / "gpu_checks.json").write_text(text)
    with pytest.raises(SystemExit) as stopped:
        gpu_checks.main(["--out", str(tmp_path)])
    assert stopped.value.code == 2
    assert "holds no results of this program" in capsys.readouterr().err
    assert (tmp_path / "gpu_checks.json").read_text() == text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "bench", "--only", "bnch"], "--only bnch: no check has this in its name"),
        (["--budget", "0"], "--budget 0 must be"),
        (["--budget", "nan"], "--budget nan must be"),
        (["--budget", "inf"], "--budget inf must be"),
        (["--out", "/dev/null/folder"], "/dev/null/folder"),
    ],
)
def test_arguments_that_make_no_sense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        gpu_checks.main(arguments)
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


def test_named_checks() -> None:
    found = [check.name for check in gpu_checks.chosen(["sanitizer", "bench, a", "roof"])]
    assert found == ["roofline", "sanitizer, memcheck", "sanitizer, racecheck", "bench, all on"]
    names = [check.name for check in gpu_checks.CHECKS]
    assert all(gpu_checks.chosen([name])[0].name == name for name in names)
    one = program("one_gpu_check")
    assert set(one.CHECKS) == {gpu_checks.SKIES.name, *names}


def test_nothing_outside_of_python_is_imported() -> None:
    """So whatever is wrong with a package, its checks say so and the others have their results."""
    command = [sys.executable, "-I", "-S", str(LAUNCH / "gpu_checks.py"), "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and "roofline" in result.stdout


CLEAN = "========= COMPUTE-SANITIZER\nsamples made 4\n========= ERROR SUMMARY: 0 errors\n"
WRONG = """========= COMPUTE-SANITIZER
========= Invalid __global__ write of size 8 bytes
=========     at paint+0x2c0 in kernels.cu:120
samples made 4
========= ERROR SUMMARY: 3 errors
"""
RACE = """========= COMPUTE-SANITIZER
========= Error: Race reported between Write access at paint+0x80 and Read access at paint+0x90
samples made 4
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)
"""
REFUSED = """========= COMPUTE-SANITIZER
========= Error: Device not supported. Please refer to the documentation
Traceback (most recent call last):
torch.AcceleratorError: CUDA error: unknown error
========= ERROR SUMMARY: 1 error
"""


@pytest.mark.parametrize(
    ("status", "output", "raised", "words"),
    [
        (0, CLEAN, "", "memcheck clean"),
        (9, WRONG, "Failed", "Invalid __global__ write"),
        (9, WRONG.replace("samples made 4", "CUDA error"), "Failed", "Invalid __global__ write"),
        (9, RACE, "Failed", "Race reported"),
        (9, REFUSED, "NotHere", "Device not supported"),
        (1, "Traceback\nImportError: no module named cupy\n", "NotHere", "no module named cupy"),
        (0, "", "NotHere", "exit code 0"),
    ],
)
def test_what_the_sanitizer_says(status: int, output: str, raised: str, words: str) -> None:
    one = program("one_gpu_check")
    if not raised:
        assert words in one.verdict("memcheck", status, output)
        return
    with pytest.raises(getattr(one, raised), match=words):
        one.verdict("memcheck", status, output)
