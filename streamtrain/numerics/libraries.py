"""Compiled libraries on disk: in a folder that nobody else can write, checked before they are used.

A library is a file `kernels-KEY-DIGEST.so`, or .gpu: KEY tells what it was made of, DIGEST is the
start of the sha256 of its bytes, so that a damaged one is seen before it is loaded, and made again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamtrain.machine.files import discard, open_plain, sha256

PATIENCE_S = 300.0
"""How long another process may compile before this one does so itself: it may be stopped [s]."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class FolderError(ValueError):
    """A folder for compiled libraries that cannot be used; one sentence."""


def cache_dir() -> Path:
    """Where compiled libraries are kept: $STREAMTRAIN_CACHE, or streamtrain in the user's cache
    folder, or a private temporary folder where those cannot be written.

    What is loaded from there runs, so it has to belong to this user and be closed to others'
    writing. Raises FolderError if the folder that the user names is not, or if none is.
    """
    given = os.environ.get("STREAMTRAIN_CACHE")
    if given:
        folder = Path(os.path.abspath(given))
        if _usable(folder):
            if fault := _fault(folder):
                raise FolderError(
                    f"STREAMTRAIN_CACHE = {given} {fault}, and what is compiled there is run: name "
                    "another folder, or `chmod go-w` it"
                )
            return folder
    elif base := _user_cache():
        folder = base / "streamtrain"
        if _usable(folder):
            _close(folder)
            if _fault(folder) is None:
                return folder
    private = Path(tempfile.gettempdir()).absolute() / f"streamtrain-{os.geteuid()}"
    if not _usable(private):
        raise FolderError(
            f"no folder can be written for compiled kernels, not even {private}: set "
            "STREAMTRAIN_CACHE to one"
        )
    if fault := _fault(private):
        raise FolderError(f"{private} {fault}: remove it, or set STREAMTRAIN_CACHE to a folder")
    return private


def _user_cache() -> Path | None:
    """The user's cache folder; a relative one is none, it would move with the current folder."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home
        return None
    return base if base.is_absolute() else None


def _usable(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made if it is not there."""
    try:
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):  # another rank was faster
                folder.mkdir(mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _close(folder: Path) -> None:
    """Take others' leave to write from a folder of this user, made with a generous umask."""
    with contextlib.suppress(OSError):
        found = os.lstat(folder)
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
            os.chmod(folder, stat.S_IMODE(found.st_mode) & ~_OTHERS_WRITE)


def _fault(path: Path) -> str | None:
    """Why what is loaded from here could be somebody else's; None: it could not."""
    found = os.stat(path)
    owner = os.lstat(path).st_uid  # of a link: who can turn it elsewhere
    for user in (found.st_uid, owner):
        if user != os.geteuid():
            return f"belongs to another user (number {user})"
    if found.st_mode & _OTHERS_WRITE:
        return f"can be written by others (mode {stat.S_IMODE(found.st_mode):04o})"
    return None


@contextmanager
def one_at_a_time(folder: Path, key: str) -> Iterator[None]:
    """Meanwhile no other process compiles this library into this folder (nor one of fifteen others,
    which share its lock): ranks that start together wait for the first of them, and then find what
    it compiled."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a file system without locks: everyone compiles
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            file = os.open(folder / f"compiling.{key[:1]}.lock", flags, 0o600)
            stack.callback(os.close, file)
            if _lock(file):  # ends with the process at the latest
                stack.callback(fcntl.flock, file, fcntl.LOCK_UN)  # which a fork would outlive
        yield


def _lock(file: int) -> bool:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.02)
    return False


def find_library(folder: Path, key: str, suffix: str = ".so") -> Path | None:
    """The intact library of a key, or None; damaged ones, and what is no file of this user, are
    removed."""
    for path in sorted(folder.glob(f"kernels-{key}-*{suffix}")):
        try:
            intact = path.stem.rpartition("-")[2] == _digest(path)
        except (OSError, ValueError):
            intact = False
        if intact:
            return path
        discard(path)
    return None


def _digest(path: Path) -> str:
    """The start of the sha256 of a file of this user; OSError or ValueError for anything else."""
    with open_plain(path) as file:
        found = os.fstat(file.fileno())
        if found.st_uid != os.geteuid() or found.st_mode & _OTHERS_WRITE:
            raise PermissionError(f"{path} is not a file of this user alone")
        return sha256(file)[:32]


def keep_library(built: Path, folder: Path, key: str, suffix: str = ".so") -> Path:
    """Move a library that was just built into the folder, whole or not at all."""
    built.chmod(0o700)
    with built.open("rb+") as file:
        os.fsync(file.fileno())
    kept = folder / f"kernels-{key}-{_digest(built)}{suffix}"
    built.replace(kept)
    return kept
