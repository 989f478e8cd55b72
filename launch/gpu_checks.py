"""Everything that needs an NVIDIA GPU, in the minutes that one is there, with a short table last.

python launch/gpu_checks.py                      from a checkout, nothing installed but the packages
python launch/gpu_checks.py --budget 540 --out results     ends within 540 s
python launch/gpu_checks.py --only sanitizer --only roof   the checks whose names hold a word

Each check is a process of its own with a limit of its own (`one_gpu_check.py`), and gpu_checks.json
and gpu_checks.md in the folder are written again after each, so that a check that hangs or crashes
costs no other its result. Lightcones are made beside the first checks. A check that no longer fits
into the budget is left for another command, which keeps what the folder holds of the others. Exit
status 1 if a check failed; what a machine cannot run, and a bar that is missed, are no failures.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BEGIN = time.monotonic()
ROOT = Path(__file__).resolve().parent.parent
SECOND_S = 250.0
"""What must be left of the budget for the checks that come second [s]."""
TAIL = 6000
"""Bytes of a check's output that are kept."""
GRACE_S = 2.0
"""What a killed process may take to be gone [s]."""


@dataclass(frozen=True)
class Check:
    """What is run, and for how long at most [s]."""

    name: str
    limit_s: float
    skies: bool = False
    """Whether it needs the lightcones, for which it then waits."""
    second: bool = False
    """Whether it is only run if much of the budget is left, or if it is named."""
    command: tuple[str, ...] = ()
    """Default: the check of this name. The folder of the lightcones and the file for the result are
    added."""


SKIES = Check("lightcones", 180)
CHECKS = (
    Check("environment", 60),
    Check("golden digests", 90),
    Check("tests marked gpu", 150),
    Check("64 digests, li16", 90, skies=True),
    Check("paint variants", 60, skies=True),
    Check("bench, li16", 75, skies=True),
    Check("64 digests, all on", 120, skies=True),
    Check("bench, 3-D ResNet", 90, skies=True),
    Check("bench, 2-D CNN", 75, skies=True),
    Check("roofline", 60, skies=True),
    Check("sanitizer, memcheck", 85),
    Check("sanitizer, racecheck", 85),
    Check("bench, all on", 90, skies=True),
    Check("deterministic training", 90, skies=True, second=True),
    Check("synthesis", 40, second=True),
    Check("alternatives", 150, skies=True, second=True),
)


class Stopped(Exception):
    """A signal came."""


class Child:
    """A process with all that it starts, in a group of their own; the end of their output."""

    def __init__(self, command: Sequence[str]) -> None:
        paths = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p)
        own = {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
        self._process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **own}, preexec_fn=_own_group,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert self._process.stdout is not None
        self._pipe = self._process.stdout
        self.output = self._pipe.fileno()
        os.set_blocking(self.output, False)
        self._tail = b""
        self.silent = False
        """Whether nobody can write any more."""
        self.killed = False
        """Whether it had not ended by itself."""
        self.status: int | None = None
        """Exit status, or minus the signal that ended it; None: it is still there."""

    def read(self) -> None:
        """Take some of what it has written, which it could not go on without."""
        with suppress(BlockingIOError):
            more = os.read(self.output, 1 << 16)
            self._tail = (self._tail + more)[-TAIL:]
            self.silent = not more

    def tail(self) -> str:
        """The end of what it has written."""
        return self._tail.decode(errors="replace")

    def ended(self) -> bool:
        """Whether the process is done; it is not reaped, so that its number stays its own."""
        asked = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return self._pipe.closed or os.waitid(os.P_PID, self._process.pid, asked) is not None

    def end(self) -> None:
        """Kill what is left of the group, and let go of the process."""
        if self._pipe.closed:
            return
        self.killed = not self.ended()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # a driver may not let go of it
            self.status = self._process.wait(GRACE_S)
        self.read()
        self._pipe.close()
        self.silent = True

    def how_it_ended(self) -> str:
        """In words."""
        if self.status is not None and self.status < 0:
            return f"ended by {signal.Signals(-self.status).name}"
        return f"ended with exit status {self.status}"


_libc = ctypes.CDLL(None)


def _own_group() -> None:
    """In the new process, which does not outlive this one."""
    os.setpgrp()
    if sys.platform == "linux":
        _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Checks:
    """A run of checks: what they found, in files, and the time that is left."""

    def __init__(self, out: Path, budget: float, begin: float = BEGIN) -> None:
        self.found = earlier(out / "gpu_checks.json")
        """Rows by name: status, text, numbers, output, seconds, at."""
        self._out, self._budget = out, budget
        self._end = begin + budget - min(8.0, 0.1 * budget)
        self._started = time.strftime("%Y-%m-%d %H:%M:%S")
        self._left: list[Check] = []
        self._skies: Child | None = None
        self._signal: signal.Signals | None = None

    def run(self, checks: Sequence[Check], sky: Check = SKIES, *, asked: bool = False) -> int:
        """Run what fits into the budget, in order. sky: makes the lightcones; asked: the checks
        were named, so all of them count. Returns the exit status."""
        self._left, self._sky, status = list(checks), sky, 0
        with (
            tempfile.TemporaryDirectory(prefix="gpu-checks-", ignore_cleanup_errors=True) as folder,
            self._listening(),
        ):
            self._folder = Path(folder)
            (self._folder / "skies").mkdir()
            try:
                self._all(checks, asked)
            except Stopped:
                status = 128 + (self._signal or 0)
            finally:
                if self._skies is not None:
                    self._skies.end()
                self.write()
        own = (row for row in self.found.values() if row["at"] == self._started)
        return status or int(any(row["status"] == "failed" for row in own))

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """A signal is answered where a check is waited for."""

        def came(number: int, frame: Any) -> None:
            self._signal = signal.Signals(number)

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, came) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _left_s(self) -> float:
        return self._end - time.monotonic()

    def _all(self, checks: Sequence[Check], asked: bool) -> None:
        if any(check.skies for check in checks):
            self._skies_began = time.monotonic()
            try:
                self._skies = Child(self._command(self._sky))
            except OSError as error:
                self._add(self._sky, _row("failed", f"cannot be run: {error}"), 0.0)
        first = [check for check in checks if asked or not check.second]
        second = [check for check in checks if check not in first]
        for chosen, share in ((first, 1.0), (first, 0.5), (second, 1.0)):
            if chosen is second and self._left_s() < SECOND_S:
                break
            for check in list(chosen):
                if check.limit_s * share <= self._left_s():
                    row = self._one(check)
                    if row["numbers"].get("stop"):
                        return
                    if row["status"] != "left":
                        chosen.remove(check)

    def _one(self, check: Check) -> dict[str, Any]:
        """Run a check, whatever it does; its row."""
        start = time.monotonic()
        limit = min(check.limit_s, self._left_s())
        child: Child | None = None
        row = _row("failed", "there are no lightcones")
        try:
            if check.skies and not self._skies_are_there(start + limit):
                if self._skies is not None:
                    row = _row("left", f"the lightcones were not ready after {limit:.0f} s")
            else:
                child = Child(self._command(check))
                self._wait(child.ended, start + limit, child)
                child.end()
                row = self._judge(check, child, limit)
        except Stopped:
            found = result_in(self._result(check))
            row = _row("left", f"stopped by a signal{_so_far(found)}", found["numbers"])
            raise
        except Exception as error:  # of whatever kind, the others go on
            row = _row("failed", f"cannot be run: {type(error).__name__}: {error}")
        finally:
            if child is not None:
                child.end()
            if row["status"] != "left":
                self._left.remove(check)
            self._add(check, row, time.monotonic() - start)
        return row

    def _add(self, check: Check, row: dict[str, Any], seconds: float) -> None:
        row |= {"seconds": round(seconds, 1), "at": self._started}
        self.found.pop(check.name, None)  # an earlier command's
        self.found[check.name] = row
        say(f"{check.name}: {_words(row)} ({seconds:.0f} s)")
        self.write()

    def _wait(self, done: Callable[[], bool], until: float, child: Child | None = None) -> None:
        """Until something is done, or a time; what processes say is heard meanwhile."""
        while not done() and (left := until - time.monotonic()) > 0:
            if self._signal is not None:
                raise Stopped
            heard = [c for c in (child, self._skies) if c is not None and not c.silent]
            ready = select.select([c.output for c in heard], [], [], min(left, 0.05))[0]
            for speaker in heard:
                if speaker.output in ready:
                    speaker.read()
            self._look_at_skies()

    def _look_at_skies(self) -> None:
        """When the lightcones are made, or should be, say so."""
        if self._skies is None:
            return
        seconds = time.monotonic() - self._skies_began
        if self._skies.ended() or seconds > self._sky.limit_s:
            self._skies.end()
            row = self._judge(self._sky, self._skies, self._sky.limit_s)
            self._skies = None
            self._add(self._sky, row, seconds)

    def _skies_are_there(self, until: float) -> bool:
        """Whether there is a lightcone, as soon as no more are made."""
        self._look_at_skies()
        self._wait(lambda: self._skies is None, until)
        return self._skies is None and any((self._folder / "skies").glob("*.h5"))

    def _command(self, check: Check) -> list[str]:
        usual = (sys.executable, str(ROOT / "launch" / "one_gpu_check.py"), check.name)
        return [*(check.command or usual), str(self._folder / "skies"), str(self._result(check))]

    def _result(self, check: Check) -> Path:
        return self._folder / ("".join(c if c.isalnum() else "_" for c in check.name) + ".json")

    def _judge(self, check: Check, child: Child, limit: float) -> dict[str, Any]:
        """What a process has found, by its result and by how it ended."""
        found = result_in(self._result(check))
        row = _row(found["status"], found["text"], found["numbers"], child.tail())
        if child.killed and found["status"] != "not here":
            own = limit >= check.limit_s
            row["status"] = "failed" if own else "left"
            row["text"] = f"{'took longer than' if own else 'cut off after'} {limit:.0f} s"
            row["text"] += _so_far(found) + ("; cannot be killed" if child.status is None else "")
        elif not child.killed and (child.status != 0 or found["status"] == "unfinished"):
            row["status"] = "failed"
            row["text"] = child.how_it_ended() + (_so_far(found) or " and wrote no result")
        return row

    def write(self) -> None:
        """Both files, each whole or as it was."""
        rows = {name: _finite(row) for name, row in self.found.items()}
        whole = {"budget_s": self._budget, "checks": rows, "left": [c.name for c in self._left]}
        texts = {"gpu_checks.json": json.dumps(whole, indent=1), "gpu_checks.md": self.markdown()}
        for name, text in texts.items():
            part = self._out / f".{name}.part"
            try:
                with part.open("w", encoding="utf-8", errors="replace") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(self._out / name)
            except OSError as error:
                say(f"{self._out / name} cannot be written: {error}")

    def lines(self) -> list[str]:
        """The table, a line for each check, and what is left for another command."""
        devices = [row["numbers"].get("device") for row in self.found.values()]
        lines = [next((str(d) for d in reversed(devices) if d), "no GPU was seen"), ""]
        for name, row in self.found.items():
            before = f", of {row['at']}" if row["at"] != self._started else ""
            lines.append(f"{name:22s} {row['seconds']:6.1f} s  {_words(row)}{before}")
        if self._left:
            lines += ["", "left for another command:"]
            lines += [f"{c.name:22s} {c.limit_s:6.0f} s at most" for c in self._left]
            words = [word for c in self._left for word in ("--only", c.name)]
            command = ["python", "launch/gpu_checks.py", "--out", str(self._out), *words]
            lines.append(shlex.join(command))
        return lines

    def markdown(self) -> str:
        """The table, and the end of what those printed that are not well."""
        parts = ["# GPU checks", "", "```", *self.lines(), "```"]
        for name, row in self.found.items():
            if row["status"] != "ok" and row["output"]:
                parts += ["", f"## {name}", "", "```", row["output"].rstrip(), "```"]
        return "\n".join(parts) + "\n"


def _row(
    status: str, text: str, numbers: dict[str, Any] | None = None, output: str = ""
) -> dict[str, Any]:
    return {"status": status, "text": text, "numbers": numbers or {}, "output": output}


def _so_far(found: dict[str, Any]) -> str:
    return f"; until then: {found['text']}" if found["text"] else ""


def _words(row: dict[str, Any]) -> str:
    """A row in one line."""
    text = " ".join(row["text"].split())
    text = text if len(text) <= 500 else text[:500] + "..."
    return text if row["status"] == "ok" else f"{row['status'].upper()}: {text}"


def _finite(value: Any) -> Any:
    """The same with words for numbers that JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def result_in(path: Path) -> dict[str, Any]:
    """What a check wrote; an unfinished one of no words where it wrote nothing, or rubbish."""
    kinds = {"status": str, "text": str, "numbers": dict}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = found["status"] in ("ok", "failed", "not here", "unfinished")
        if known and all(isinstance(found[name], kind) for name, kind in kinds.items()):
            return dict(found)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    return {"status": "unfinished", "text": "", "numbers": {}}


def earlier(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of earlier commands in a file. Raises ValueError if it holds something else."""
    if not path.exists():
        return {}
    keys = {"status", "text", "numbers", "output", "seconds", "at"}
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["checks"]
        good = all(keys <= row.keys() for row in rows.values())
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        good = False
    if not good:
        raise ValueError(f"{path} holds no results of this program: name another --out")
    return dict(rows)


def say(text: str) -> None:
    """Print, as long as somebody listens."""
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def chosen(words: Sequence[str]) -> list[Check]:
    """The checks whose names hold one of the words. Raises ValueError for a word of none."""
    names = [check.name for check in CHECKS]
    for word in words:
        if not any(word in name for name in names):
            raise ValueError(f"--only {word}: no check has this in its name: {'; '.join(names)}")
    return [check for check in CHECKS if any(word in check.name for word in words)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 if a check failed, 2 for arguments that make no sense."""
    names = "\n".join(f"  {check.name:24s}{check.limit_s:4.0f} s at most" for check in CHECKS)
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"checks:\n{names}\nThe last three only if {SECOND_S:.0f} s are left, or if named.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--budget", type=float, default=540.0, help="seconds until the end [%(default)s]")
    add("--out", type=Path, default=Path("gpu_results"), help="folder of the files [%(default)s]")
    add("--only", action="append", help="only checks whose names hold this; may be repeated")
    given = parser.parse_args(arguments)
    try:
        if not 0 < given.budget < math.inf:
            raise ValueError(f"--budget {given.budget:g} must be a number of seconds above 0")
        checks = chosen(given.only) if given.only else list(CHECKS)
        given.out.mkdir(parents=True, exist_ok=True)
        run = Checks(given.out.resolve(), given.budget)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{error}\n")
    status = run.run(checks, asked=bool(given.only))
    say("\n" + "\n".join(run.lines()))
    return status


if __name__ == "__main__":
    sys.exit(main())
