"""Compiled libraries: only one's own, intact ones are loaded, and none whose arithmetic differs."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from streamtrain.numerics import backend, libraries
from streamtrain.numerics.backend import BackendError, compile_host
from streamtrain.numerics.libraries import FolderError, cache_dir, find_library, one_at_a_time
from streamtrain.numerics.probe import OPERATIONS, _answers, _inputs, wrong_arithmetic
from streamtrain.schema import AssumptionWarning

SOURCE = 'extern "C" int answer() { return 42; }\n'
FLAGS = ("-O2",)
KEY = "0123456789abcdef"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("STREAMTRAIN_CACHE", str(folder))
    return folder


def answer(library: Path) -> int:
    return int(ctypes.CDLL(str(library)).answer())


def key_of(library: Path) -> str:
    return library.stem.split("-")[1]


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replace_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def link_to_a_copy(path: Path) -> None:
    copy = path.with_name("copy")
    path.replace(copy)
    path.symlink_to(copy)


def open_to_others(path: Path) -> None:
    path.chmod(0o777)


DAMAGES = (
    truncate,
    empty,
    lengthen,
    flip,
    open_to_others,
    link_to_a_copy,
    replace_by(os.mkfifo),
    replace_by(Path.mkdir),
    replace_by(lambda path: path.symlink_to("/dev/zero")),
    replace_by(lambda path: path.symlink_to(path.name)),
    replace_by(lambda path: path.write_bytes(b"\x7fELF planted")),
    replace_by(lambda path: None),
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good one, in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAMTRAIN_CACHE", str(tmp_path_factory.mktemp("made") / "cache"))
        return compile_host(SOURCE, FLAGS)


@pytest.fixture
def kept(cache: Path, library: Path) -> Path:
    """It, in the cache."""
    cache.mkdir(mode=0o700)
    return Path(shutil.copy2(library, cache))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_library_is_not_loaded(kept: Path, damage: Callable[[Path], None]) -> None:
    """A truncated one would end the process with SIGBUS."""
    assert find_library(kept.parent, key_of(kept)) == kept
    damage(kept)
    assert find_library(kept.parent, key_of(kept)) is None
    assert not os.path.lexists(kept)


def test_a_damaged_library_is_made_again(kept: Path, library: Path) -> None:
    assert compile_host(SOURCE, FLAGS) == kept and answer(kept) == 42
    truncate(kept)
    assert compile_host(SOURCE, FLAGS) == kept
    assert kept.read_bytes() == library.read_bytes()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700


def test_a_planted_library_is_not_loaded(kept: Path) -> None:
    """Under the names that others would use: of the key alone, of the key and another digest."""
    content, key = kept.read_bytes() + b"planted", key_of(kept)
    names = (f"kernels-{key}.so", f"kernels-{key}-{'0' * 32}.so", f"kernels-{key}-.so")
    for name in names:
        (kept.parent / name).write_bytes(content)
    assert find_library(kept.parent, key) == kept
    kept.unlink()
    assert find_library(kept.parent, key) is None


def test_another_users_library_is_not_loaded(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = kept.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    assert find_library(kept.parent, key_of(kept)) is None


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o1777, 0o2775])
def test_a_folder_that_others_can_write_is_refused(cache: Path, mode: int) -> None:
    cache.mkdir()
    cache.chmod(mode)
    with pytest.raises(FolderError, match=rf"can be written by others \(mode 0?{mode:o}\)"):
        compile_host(SOURCE, FLAGS)
    assert list(cache.iterdir()) == []


def test_a_folder_of_another_user_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir()
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(FolderError, match=f"belongs to another user \\(number {uid}\\)"):
        cache_dir()


def test_the_default_folder_is_closed_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generous umask (of a group of one's own) made it open."""
    monkeypatch.delenv("STREAMTRAIN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "streamtrain"
    folder.mkdir()
    folder.chmod(0o775)
    assert cache_dir() == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


@pytest.mark.parametrize("home", ["relative", "/dev/null", "/proc", "/nobody/is/here"])
def test_without_a_home_a_private_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STREAMTRAIN_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    usual = libraries._usable
    monkeypatch.setattr(libraries, "_usable", lambda f: "nobody" not in str(f) and usual(f))
    folder = cache_dir()
    assert folder == tmp_path / "tmp" / f"streamtrain-{os.geteuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o777)
    with pytest.raises(FolderError, match="can be written by others"):
        cache_dir()


def test_a_user_without_a_home_or_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert libraries._user_cache() is None


def test_a_relative_folder_does_not_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMTRAIN_CACHE", ".")
    tmp_path.chmod(0o700)
    assert compile_host(SOURCE, FLAGS).is_absolute()


def test_a_stopped_process_keeps_nobody_waiting_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "PATIENCE_S", 0.1)
    with one_at_a_time(tmp_path, KEY):
        begin = time.monotonic()
        with one_at_a_time(tmp_path, KEY):
            assert time.monotonic() - begin < 5.0


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/full")])
def test_what_is_in_the_place_of_the_lock_is_no_obstacle(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    make(tmp_path / f"compiling.{KEY[0]}.lock")
    with one_at_a_time(tmp_path, KEY):
        pass


def test_other_kernels_are_not_waited_for(tmp_path: Path) -> None:
    begin = time.monotonic()
    with one_at_a_time(tmp_path, KEY), one_at_a_time(tmp_path, KEY[::-1]):
        assert time.monotonic() - begin < 5.0


def test_a_full_disk_is_a_sentence(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backend, "keep_library", full)
    with pytest.raises(BackendError, match=r"cannot be kept in .*cache: No space left on device"):
        compile_host(SOURCE, FLAGS)
    assert {path.suffix for path in cache.iterdir()} == {".lock"}


def wrapper(folder: Path, script: str) -> str:
    file = folder / "wrapped"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


def compiler(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("CXX", raising=False)
    return " ".join(backend.compiler_command() or pytest.skip("no compiler"))


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("-ffp-contract=fast -mfma", "fused multiply-add"),
        ("-funsafe-math-optimizations", "reordered|reciprocal"),
        ("-fassociative-math -fno-signed-zeros -fno-trapping-math", "reordered"),
        ("-freciprocal-math -O3", "products with a reciprocal"),
        ("-fno-signed-zeros", "the sign of zero"),
        ("-fsingle-precision-constant", "constants in double precision"),
        ("-x none $(g++ -print-file-name=crtfastmath.o)", "smallest normal one become zero"),
        ("-fvisibility=hidden", "cannot be loaded"),
        ("-c", "cannot be loaded"),
        ("-no-such-flag", "cannot compile the kernels"),
    ],
)
def test_a_wrapper_that_adds_flags_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, reason: str
) -> None:
    usual = compiler(monkeypatch)
    if "Free Software" not in backend._compiler_version(tuple(usual.split())):
        pytest.skip("flags of g++")
    if "fma" in flags and "fma" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("a processor without fused multiply-add")
    monkeypatch.setenv("CXX", wrapper(tmp_path, f'exec {usual} "$@" {flags}'))
    with pytest.raises(BackendError, match=reason) as caught:
        compile_host(SOURCE, FLAGS)
    assert "wrapped" in str(caught.value) and "\n" not in str(caught.value)
    assert {path.suffix for path in cache.iterdir()} == {".lock"}


def test_kernels_that_fail_with_options_that_a_compiler_has_are_told(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It compiles the probe with them: then it is the kernels that it cannot, and slower ones come
    out."""
    usual = compiler(monkeypatch)
    script = (
        'case "$*" in *-march*kernels.cpp*) echo "kernels.cpp:1:1: error: it is tired" >&2\n'
        f'exit 1;; esac\nexec {usual} "$@"'
    )
    monkeypatch.setenv("CXX", wrapper(tmp_path, script))
    with pytest.warns(AssumptionWarning, match=r"-march=native .*tired.*compiled with -O3, and"):
        assert answer(compile_host(SOURCE)) == 42


@pytest.mark.parametrize("flags", ["-O0", "-O3 -funroll-loops", "-g", "-frounding-math"])
def test_flags_that_change_no_bit_are_not(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str
) -> None:
    usual = compiler(monkeypatch)
    monkeypatch.setenv("CXX", wrapper(tmp_path, f'exec {usual} "$@" {flags}'))
    assert answer(compile_host(SOURCE, FLAGS)) == 42


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 3", "ends with status 3"),
        ("exit 0", "ends with status 0"),
        ("kill -9 $$", "ends with status -9"),
        (r"printf '\377\376 error: \200\n' >&2; exit 1", "error"),
        (
            'for last; do :; done; case "$last" in *.so|*.o) echo text > "$last";; esac',
            "cannot be loaded",
        ),
        ("echo first >&2; echo fatal error: no memory >&2; exit 1", "fatal error: no memory"),
    ],
)
def test_a_compiler_that_does_not_work_is_a_sentence(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    monkeypatch.setenv("CXX", wrapper(tmp_path, script))
    with pytest.raises(BackendError, match=reason) as caught:
        compile_host(SOURCE, FLAGS)
    assert "\n" not in str(caught.value)
    assert {path.suffix for path in cache.iterdir()} == {".lock"}


@pytest.mark.parametrize("chosen", ["", "  ", "\t"])
def test_an_empty_choice_of_a_compiler_is_none(
    monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    monkeypatch.setenv("CXX", chosen)
    compiler = backend.compiler_command()
    monkeypatch.delenv("CXX")
    assert compiler == backend.compiler_command()


def test_the_probe_is_compiled_once_for_the_same_flags(cache: Path) -> None:
    """It is linked to every library all the same; a damaged one is made again."""
    first = compile_host(SOURCE, FLAGS)
    (probe,) = cache.glob("*.o")
    content = probe.read_bytes()
    again = compile_host(SOURCE.replace("42", "43"), FLAGS)
    assert answer(again) == 43 and list(cache.glob("*.o")) == [probe]
    assert all(wrong_arithmetic(library) is None for library in (first, again))
    truncate(probe)
    assert answer(compile_host(SOURCE.replace("42", "44"), FLAGS)) == 44
    assert list(cache.glob("*.o")) == [probe] and probe.read_bytes() == content
    compile_host(SOURCE, ("-O1",))
    assert len(list(cache.glob("*.o"))) == 2


def test_a_library_that_crashes_ends_the_probe_alone(cache: Path) -> None:
    """As one for another processor does."""
    crash = "static void crash() __attribute__((constructor));\nstatic void crash() "
    with pytest.raises(BackendError, match="ends with signal"):
        compile_host(SOURCE + crash + "{ __builtin_trap(); }\n", FLAGS)


def test_known_answers_do_not_depend_on_this_process(library: Path) -> None:
    """Subnormal numbers of this process may be flushed; the library is as good."""
    assert torch.set_flush_denormal(True) or pytest.skip("a processor that cannot")
    try:
        assert wrong_arithmetic(library) is None
        assert np.float32(2.0**-100) * np.float32(2.0**-40) == 0.0
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("executable", ["/no/python/here", None])
def test_a_python_that_cannot_be_started_probes_itself(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executable: str | None
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    assert wrong_arithmetic(library) is None
    other = tmp_path / "other.so"
    other.write_text("no library")
    assert "cannot be loaded" in str(wrong_arithmetic(other))


def test_every_operation_of_the_probe_could_go_wrong() -> None:
    """The answers to fused, reordered or flushed operations are others."""
    a, b, c, _, tiny = (array.astype(np.longdouble) for array in _inputs()[0])
    answers = _answers(*_inputs()[0])
    assert answers.shape[0] == len(OPERATIONS)
    fused = (a * b + c).astype(np.float32), (c - a * b).astype(np.float32)
    assert all((row != right).sum() > 5 for row, right in zip(fused, answers, strict=False))
    assert ((a + c - a).astype(np.float32) != answers[2]).sum() > 5
    assert (answers[7] > 0).all() and (answers[7] < 1.2e-38).sum() > 5
    assert (a * tiny < 1.2e-38).sum() > 5
