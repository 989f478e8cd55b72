"""What permission bits say, also to tests that root runs."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_VERSION = 0x20080522
_OVERRIDES = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, by which permission bits do not bind root."""


@contextmanager
def forbidden(path: Path, mode: int = 0) -> Iterator[None]:
    """Meanwhile a file or folder has these permission bits, and they bind this thread."""
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        with _bits_bind():
            yield
    finally:
        path.chmod(before)


@contextmanager
def _bits_bind() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    assert sys.platform == "linux", "root of another system: run the tests as a user"
    libc = ctypes.CDLL(None, use_errno=True)
    head = ctypes.create_string_buffer(struct.pack("Ii", _VERSION, 0))
    before = ctypes.create_string_buffer(24)
    assert libc.capget(head, before) == 0
    words = list(struct.unpack("6I", before.raw))
    words[0] &= ~_OVERRIDES  # effective, permitted, inheritable of capabilities 0..31
    assert libc.capset(head, ctypes.create_string_buffer(struct.pack("6I", *words))) == 0
    try:
        yield
    finally:
        assert libc.capset(head, before) == 0
