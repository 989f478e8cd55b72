"""The folder of a run: who may write in it, its history, and that its samples stay what they were.

run/config.yaml        the resolved configuration
run/history.jsonl      one line per logged step
run/checkpoints/       see checkpoint.py
run/events.out.*       TensorBoard
run/lock               held by the process that trains
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from io import BufferedRandom
from pathlib import Path
from typing import Any

from streamtrain.catalogs.headers import Header
from streamtrain.catalogs.skies import again_of, made_again
from streamtrain.config import Config
from streamtrain.machine.files import one_line, open_plain, write_text
from streamtrain.machine.interrupt import Stopped
from streamtrain.schema import ConfigError, differences
from streamtrain.shipped import is_shipped

_LONGEST_LINE = 1_000_000
"""Bytes of a line of a history."""


def run_folder(config: Config) -> Path:
    """The folder of a run. Raises ConfigError if the configuration names none."""
    if not config.run.strip():
        raise ConfigError(f"run = '{config.run}' must be the name of a folder")
    return Path(config.run)


def check_trainable(folder: Path) -> None:
    """Raise ValueError for a folder that ships with streamtrain."""
    if is_shipped(folder):
        name = folder.name
        raise ValueError(
            f"{name} ships with streamtrain and is not trained on: give the training a folder of "
            f"its own, which begins with these weights (run=runs/{name} train.start_from={name})"
        )


class RunLock:
    """Keeps a run's folder to one training at a time, from now until `close`.

    The lock ends with its process, however that ends. A training that was just killed may have
    ranks that take a moment to notice, so a held lock is waited for.

    path: the folder, created if needed
    patience_s: how long to wait for the lock [s]
    stopped: whether somebody asked to stop meanwhile
    Raises ValueError if another process keeps it, and Stopped.
    """

    def __init__(
        self,
        path: Path,
        patience_s: float = 30.0,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.path, self._stopped = path, stopped
        path.mkdir(parents=True, exist_ok=True)
        self._lock = self._acquire(patience_s)

    def _acquire(self, patience_s: float) -> BufferedRandom:
        file = open_plain(self.path / "lock", os.O_RDWR | os.O_CREAT, "rb+")
        end = time.monotonic() + patience_s
        waiting = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                owner = one_line(file.read(200).decode(errors="replace")) or "another process"
                if time.monotonic() > end:
                    file.close()
                    raise ValueError(
                        f"{self.path} is in use by {owner}: stop that training, or give this one "
                        "another folder (run=...)"
                    ) from None
                if self._stopped():
                    file.close()
                    raise Stopped from None
                if not waiting:
                    print(f"waiting for {self.path}, in use by {owner}", file=sys.stderr)
                waiting = True
                time.sleep(0.2)
            except OSError:  # a file system without locks
                break
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        file.flush()
        return file

    def close(self) -> None:
        """Let the next training in."""
        self._lock.close()


class History:
    """`history.jsonl`: one JSON object per logged step, for figures and tests.

    path: the file
    step: the step that training continues from; entries past it are dropped, as they are made again
    """

    def __init__(self, path: Path, step: int) -> None:
        kept = [entry for entry in read_history(path) if entry["step"] <= step]
        write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept), alone=True)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (held open)

    def append(self, entry: dict[str, Any]) -> None:
        """Add one line; it reaches the file at once."""
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; nothing can be added afterwards."""
        self._file.close()


def read_history(path: Path, number: str = "step") -> list[dict[str, Any]]:
    """The entries of a history file; an unfinished last line is left out.

    number: the name of the whole number that every entry has. Lines that are none are left out, and
    how many is said on stderr. Raises ValueError where the file is not a plain one, and OSError.
    """
    if not os.path.lexists(path):
        return []
    entries, damaged = [], []
    with open_plain(path) as file:
        for count, line in enumerate(file, start=1):
            entry = _entry(line, number)
            if entry is not None:
                entries.append(entry)
            elif line.endswith(b"\n"):
                damaged.append(count)
    if damaged:
        some = ", ".join(map(str, damaged[:3])) + (", ..." if len(damaged) > 3 else "")
        print(
            f"streamtrain: warning: {path}: {len(damaged)} damaged lines are left out ({some})",
            file=sys.stderr,
        )
    return entries


def _entry(line: bytes, number: str) -> dict[str, Any] | None:
    """What a line of a history file says, if it is one."""
    if len(line) > _LONGEST_LINE:
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or type(entry.get(number)) is not int:
        return None
    return entry


def refuse_other_samples(
    then: Mapping[str, Any],
    now: Mapping[str, Any],
    models: list[str],
    recipes: Mapping[str, str],
    headers: Sequence[Header],
) -> str | None:
    """Raise ValueError if a run would go on with other lightcones or another model; a sentence if
    its lightcones were made again elsewhere.

    then, now: `Generator.identity` of the checkpoint and of this call; models: names for the
    message; recipes: of the lightcones of the checkpoint, by their digests; headers: of the
    lightcones of this call.
    """
    changed = [difference.name.split(".") for difference in differences(then, now)]
    if not changed:
        return None
    if (again := again_of(then, now, recipes, headers)) is not None:
        return f"{made_again(again, 'those the run began with')}; training goes on with them"
    parts = {name[0] for name in changed}
    if "lightcones" in parts:
        old, new = then.get("lightcones"), now["lightcones"]
        what = "the lightcones of data.train are not those the run was trained on"
        if isinstance(old, list) and isinstance(new, list):  # files, not made during training
            both = len({*map(str, old)} & {*map(str, new)})
            what += f": {len(old)} then, {len(new)} now, {both} in both (their order counts)"
    elif own := [name[0] for name in changed if name[1:2] == ["lightcones"]]:
        what = f"the lightcones of emit.{own[0]}.train are not those the run began with"
    elif "sfr" in parts:
        what = "the table of star-formation rates data.sfr is not the one the run began with"
    elif "observe" in parts:
        what = "the files that map operators read are not those the run began with"
    else:
        what = f"the luminosity model {', '.join(models)} was edited since the run began"
    raise ValueError(f"{what}; undo that, or give this run another folder (run=...)")
