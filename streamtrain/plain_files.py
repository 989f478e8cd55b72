"""Files that somebody else may have put where ours belong, and texts that others wrote."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from io import BufferedRandom
from pathlib import Path
from typing import cast


class NotPlainError(ValueError):
    """A link, a folder, a device or a pipe in the place of a file."""


def open_plain(path: Path, flags: int = os.O_RDONLY, mode: str = "rb") -> BufferedRandom:
    """Open a regular file itself; nothing is waited for, and no link is followed.

    flags: of os.open. Raises NotPlainError for anything else, and OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        _refuse(path, os.lstat(path).st_mode)
    more = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags | more, 0o666)
    try:
        _refuse(path, os.fstat(descriptor).st_mode)
        return cast(BufferedRandom, os.fdopen(descriptor, mode))
    except BaseException:
        os.close(descriptor)
        raise


def _refuse(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "folder", stat.S_IFLNK: "link", stat.S_IFIFO: "pipe"}
        kind = kinds.get(stat.S_IFMT(mode), "device")
        raise NotPlainError(f"{path} is a {kind}, not a file")


def read_plain(path: Path, most: int) -> bytes:
    """The content of a regular file of at most so many bytes; see `open_plain`."""
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise NotPlainError(f"{path} has {size} bytes, more than such a file can have")
        return file.read(most)


def replace_text(path: Path, text: str) -> None:
    """Write a file anew, whole or not at all; a link is replaced, not followed. Raises OSError."""
    temporary = path.with_name(f".{path.name}.tmp")
    discard(temporary)
    with open_plain(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, "wb") as file:
        file.write(text.encode())
    os.replace(temporary, path)


def discard(path: Path) -> None:
    """Remove a file, a link or a folder with what is in it, as far as that is allowed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def one_line(text: object) -> str:
    """A message of another program in one line that can be printed anywhere."""
    line = " ".join(str(text).split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)
