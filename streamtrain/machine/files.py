"""Files that users give and get: what is wrong with one is a sentence about it.

Only regular files are opened (a FIFO would wait for ever, /dev/zero never ends), nothing is read
that does not fit in memory, any error behind a reader is one line with the file's name, and what is
written is there whole or not at all. With STREAMTRAIN_DEBUG set, errors that are not sentences come
through as they are.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import has_magic
from io import BufferedRandom
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from streamtrain.machine.memory import free_memory

DEBUG = "STREAMTRAIN_DEBUG"
MAX_TEXT = 300
"""Characters of foreign text in a message."""
MAX_YAML_BYTES = 500_000
"""Largest size of a file of settings; those that ship have up to 8 kB, one that names many files
has more."""
MAX_TABLE_BYTES = 16 * 2**20
"""Largest size of a text file that is read line by line."""
SMALL = 64 * 2**20
"""Bytes that are read without a look at the memory."""
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_READ = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE)
"""Errors of the system that say nothing of what is in a file."""


def one_line(text: object, most: int = MAX_TEXT) -> str:
    """Foreign text on one line, without control characters, at most `most` characters of it."""
    flat = " ".join(str(text).split())
    plain = "".join(c if c.isprintable() else "?" for c in flat)
    return plain if len(plain) <= most else f"{plain[:most]} ..."


def reason_of(error: BaseException) -> str:
    """What an error says, on one line; its kind if it says nothing."""
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "it is no text file"
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno)
    return one_line(error) or type(error).__name__


def why_not_a_file(path: str | os.PathLike[str]) -> str | None:
    """Half a sentence if a path is no regular file or link to one, or one that this user may not
    read, else None."""
    try:
        mode = os.stat(path).st_mode
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), None)
        if kind is not None:
            return f"{kind}, not a file"
        with open(path, "rb"):
            return None
    except FileNotFoundError:
        return "there is no such file"
    except (OSError, ValueError) as error:
        return f"it cannot be read ({reason_of(error)})"


def why_nothing_found(pattern: str | os.PathLike[str]) -> str | None:
    """Half a sentence if a path, or a glob, finds no file because this user may not look into a
    folder, else None."""
    folder = Path(pattern)
    while folder != folder.parent and has_magic(str(folder)):
        folder = folder.parent
    try:
        os.stat(folder)
        if folder.is_dir():
            os.scandir(folder).close()
    except PermissionError as error:
        return f"{error.filename} cannot be read ({reason_of(error)})"
    except (OSError, ValueError):
        return None
    return None


@contextmanager
def reading(
    path: str | os.PathLike[str], error: Callable[[str], ValueError], damaged: str
) -> Iterator[None]:
    """Whatever goes wrong inside is `error` with one sentence that begins with the file's name.

    error: the class of the room, whose own messages are kept; damaged: what the sentence says of
    everything else, before the reason in brackets. A path that is no regular file is refused.
    """
    if problem := why_not_a_file(path):
        raise error(f"{path}: {problem}")
    try:
        yield
    except Warning:  # made an exception by the caller's filters
        raise
    except Exception as cause:
        own = isinstance(error, type) and isinstance(cause, error)
        if own and str(cause).startswith(str(path)):
            raise
        if not own and os.environ.get(DEBUG):
            raise
        if own:
            text = one_line(cause, 4 * MAX_TEXT)
        elif (number := _error_number(cause)) in _NOT_READ:
            named = getattr(cause, "filename", None)
            other = named is not None and Path(os.fsdecode(named)) != Path(path)
            text = f"{one_line(named) if other else 'it'} cannot be read ({os.strerror(number)})"
        else:
            text = f"{damaged} ({reason_of(cause)})"
        raise error(f"{path}: {text}") from cause


def check_memory(claimed: int, what: str) -> None:
    """ValueError if `what` [bytes] is more than the memory that is free."""
    if claimed <= SMALL:
        return
    free = free_memory()
    if claimed > free:
        raise ValueError(
            f"{what} {claimed / 1e9:.3g} GB, but {free / 1e9:.3g} GB of memory are free"
        )


def check_npz(archive: zipfile.ZipFile) -> None:
    """ValueError if the arrays of an npz file do not fit in memory when they are unpacked, or if
    one claims other numbers of bytes than are there."""
    members = archive.infolist()
    check_memory(sum(member.file_size for member in members), "its arrays unpack to")
    for member in members:
        if not member.filename.endswith(".npy"):
            continue
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            if version not in _NPY_HEADERS:
                raise ValueError(f"npy format version {version} is not known")
            shape, _, dtype = _NPY_HEADERS[version](file)
            stored = member.file_size - file.tell()
        claimed = math.prod(shape) * dtype.itemsize
        if not dtype.hasobject and claimed != stored:
            name = one_line(member.filename, 60)
            raise ValueError(f"'{name}' claims {claimed} bytes, but {stored} are stored")


def npz_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an npz file. Raises ValueError for one that is none, or too large."""
    with path.open("rb") as stream:
        if not zipfile.is_zipfile(stream):
            raise ValueError("it is no npz file")
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as data:
            check_npz(data.zip)
            return {name: data[name] for name in data.files}


def read_text(path: Path, most: int = MAX_YAML_BYTES, errors: str = "strict") -> str:
    """The text of a small file, in UTF-8. Raises ValueError for a larger one, OSError and
    UnicodeDecodeError."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(most + 1) if size else b""
    if len(content) > most:
        raise ValueError(f"{size} bytes are too many for a file of settings (at most {most})")
    return content.decode("utf-8", errors).replace("\r\n", "\n").replace("\r", "\n")


def why_not_written(error: BaseException) -> str | None:
    """Half a sentence if an error, or the one behind it, is of a file that cannot be written.

    HDF5 and others hide the number of the system's error in their text.
    """
    number = _error_number(error)
    if number:
        return "the disk is full" if number in DISK_FULL else os.strerror(number)
    return reason_of(error) if isinstance(error, OSError) else None


def _error_number(error: BaseException) -> int:
    """The number of the system's error in an error, or in the one behind it; 0 without one."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    for one in chain:
        found = re.search(r"\b[Ee]rrno\D{0,3}(\d+)", str(one))
        number = getattr(one, "errno", None) or (int(found[1]) if found else None)
        if isinstance(number, int) and number in errno.errorcode:
            return number
    return 0


def reserve(path: Path, size: int) -> None:
    """OSError if there is no room for `size` bytes in a file at `path`, which is left away.

    Found out before HDF5 writes: where it fails it keeps parts in memory and complains of them
    whenever they are freed.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with path.open("xb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno in (*DISK_FULL, errno.EFBIG):
                raise
        finally:
            path.unlink()


@contextmanager
def writing(
    path: Path,
    error: Callable[[str], Exception] = OSError,
    *,
    alone: bool = False,
) -> Iterator[Path]:
    """A temporary name for a file or folder, which becomes `path` when all is written and on disk.

    What cannot be written is `error` with one sentence, and leaves nothing behind; other errors
    come through as they are. alone: no other process writes it, so what one that was killed has
    left of it is replaced.
    """
    number = "" if alone else f".{os.getpid()}"
    temporary = path.with_name(f".{path.name}{number}.tmp")
    try:
        discard(temporary)
        yield temporary
        if not temporary.is_dir():
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
    except Exception as cause:
        reason = why_not_written(cause)
        if reason is None or os.environ.get(DEBUG):
            raise
        raise error(f"{path} cannot be written: {reason}") from cause
    finally:
        discard(temporary)


class NotPlainError(ValueError):
    """A link, a folder, a device or a pipe in the place of a file."""


def open_plain(path: Path, flags: int = os.O_RDONLY, mode: str = "rb") -> BufferedRandom:
    """Open a regular file itself; nothing is waited for, and no link is followed.

    flags: of os.open. Raises NotPlainError for anything else, and OSError.
    """
    with suppress(FileNotFoundError):
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


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of the system inside names this file, instead of a temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_text(path: Path, text: str, *, alone: bool = False) -> None:
    """Write a text file anew, whole or not at all; its folder is made if needed, and a link is
    replaced, not followed. alone: see `writing`. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path, alone=alone) as part, part.open("xb") as file:
        file.write(text.encode())


def write_json(path: Path, data: Any) -> None:
    """Write plain data as JSON, as `write_text` does. Raises ValueError for a number that is not
    finite, and OSError."""
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def sha256(file: Path | IO[bytes]) -> str:
    """sha256 [hex] of the bytes of a file; of one that is open, from where it stands."""
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return sha256(opened)
    total = hashlib.sha256()
    while block := file.read(1 << 24):
        total.update(block)
    return total.hexdigest()


def sha256_of(data: Any) -> str:
    """sha256 [hex] of plain data, as JSON."""
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()


def discard(path: Path) -> None:
    """Remove a file, a link or a folder with what is in it, as far as that is allowed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
