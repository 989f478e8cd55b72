"""The command as a process: signals at any time, streams that are closed, nonsense around it."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

from streamtrain import __main__ as command
from streamtrain.cli import main
from streamtrain.machine.progress import Progress
from streamtrain.train.distributed import ranks_of

COMMAND = [sys.executable, "-m", "streamtrain"]
SIGNALS = (signal.SIGINT, signal.SIGTERM)

pytestmark = pytest.mark.usefixtures("usual_signals")


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": ROOT} | options
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment | options.pop("environment", {}),
        text=True,
        **options,
    )


def assert_a_sentence(status: int, said: str, number: int) -> None:
    """Of an interruption: nothing else, wherever it came."""
    name = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    lines = said.splitlines()
    assert "Traceback" not in said and "Error" not in said and "ignored" not in said, said
    assert status == 128 + number and f"streamtrain: interrupted{name}" in lines, (status, said)


def interrupt(arguments: list[str], number: int, after_s: float) -> tuple[int, str]:
    """Send a signal so long after the command's own first line [s]; exit status and stderr."""
    script = (
        "import os, sys, threading, time\n"
        "from streamtrain import __main__\n"
        "number, after = int(sys.argv.pop(1)), float(sys.argv.pop(1))\n"
        "def later():\n    time.sleep(after)\n    os.kill(os.getpid(), number)\n"
        "usual = __main__._answer_signals\n"
        "def answer(*given):\n    usual(*given)\n"
        "    threading.Thread(target=later, daemon=True).start()\n"
        "    __main__._answer_signals = usual\n"
        "__main__._answer_signals = answer\n"
        "sys.exit(__main__.main())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(int(number)), str(after_s), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    said = process.communicate(timeout=300)[1]
    return process.returncode, said


def commands(folder: Path) -> dict[str, list[str]]:
    run = f"run={folder / 'run'}"
    reference = "configs/reference_0000.h5"
    data = [f"data.train=[{reference}]", "data.validation=[]", "data.test=[]"]
    return {
        "train": ["train", "configs/reference.yaml", run, *data, "train.steps=100000"],
        "evaluate": ["evaluate", "configs/reference.yaml", run],
        "bench": ["bench", "configs/reference.yaml", run],
        "testset make": ["testset", "make", "configs/reference.yaml", run, "test.samples=100000"],
        "catalog make": ["catalog", "make", "3", "--prefix", str(folder / "sky")],
    }


@pytest.mark.parametrize(
    ("name", "number", "after_s"),
    [("testset make", signal.SIGINT, 0.0), ("train", signal.SIGTERM, 0.5)],
)
def test_a_signal_while_libraries_are_imported(
    tmp_path: Path, name: str, number: int, after_s: float
) -> None:
    assert_a_sentence(*interrupt(commands(tmp_path)[name], number, after_s), number)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("name", ["train", "evaluate", "bench", "testset make", "catalog make"])
def test_signals_at_any_time(tmp_path: Path, name: str, number: int) -> None:
    """40 times between the first line of ours and six seconds later."""
    for step in range(40):
        status, said = interrupt(commands(tmp_path)[name], number, 0.15 * step)
        assert "Traceback" not in said and "ignored" not in said, said
        over = status in (0, 2) or status == -number  # it had ended, or stopped after a step
        if not over:
            assert_a_sentence(status, said, number)


def test_a_reader_that_has_gone() -> None:
    """`streamtrain train --print-config | head -1`"""
    process = start("train", "configs/comap.yaml", "--print-config")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    assert (process.wait(60), said) == (command.PIPE_CLOSED, "")
    process.stderr.close()


def test_a_full_stdout() -> None:
    with open("/dev/full", "w") as full:
        process = start("train", "configs/comap.yaml", "--print-config", stdout=full)
        said = process.communicate()[1]
    assert process.returncode in (1, 2) and said.count("\n") == 1
    assert said == "streamtrain: the disk is full\n"


def test_a_full_stderr() -> None:
    """What cannot be shown stops no work."""

    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    stream = Full()
    progress = Progress(stream=stream, every_s=0.0)
    for number in range(3):
        progress.update(f"{number}/3 samples")
        progress.note("a note")
    progress.close()
    assert stream.getvalue().count("a note") == 3


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams(tmp_path: Path, closed: str) -> None:
    """A file that is opened must not take the number of stderr."""
    script = f'exec "$@" {closed}'
    arguments = [*COMMAND, "train", "nothing.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["sh", "-c", script, "sh", *arguments], env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"")


ENVIRONMENTS: list[tuple[dict[str, str], str]] = [
    ({"RANK": "abc"}, "RANK = 'abc' in the environment is no whole number"),
    ({"RANK": ""}, "RANK = ''"),
    ({"RANK": "-1"}, "RANK = '-1'"),
    ({"RANK": "1.0"}, "RANK = '1.0'"),
    ({"RANK": "9" * 5000}, "RANK = '9"),
    ({"RANK": "\N{ARABIC-INDIC DIGIT ONE}"}, "RANK = "),
    ({"RANK": "3"}, "RANK = 3 in the environment of WORLD_SIZE = 1"),
    ({"WORLD_SIZE": "0"}, "RANK = 0 in the environment of WORLD_SIZE = 0"),
    ({"WORLD_SIZE": "two"}, "WORLD_SIZE = 'two'"),
    ({"LOCAL_RANK": "x"}, "LOCAL_RANK = 'x'"),
    ({"LOCAL_RANK": "1"}, "LOCAL_RANK = 1 in the environment of LOCAL_WORLD_SIZE = 1"),
    ({"LOCAL_WORLD_SIZE": "0"}, "LOCAL_RANK = 0 in the environment of LOCAL_WORLD_SIZE = 0"),
    ({"WORLD_SIZE": "2"}, "without RANK, MASTER_ADDR, MASTER_PORT"),
    ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "::1"}, "without MASTER_PORT"),
    *(
        (
            {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "::1", "MASTER_PORT": port},
            f"MASTER_PORT = '{port}' in the environment is no port",
        )
        for port in ("abc", "-1", "65536", "1e3", "80 ")
    ),
]


@pytest.mark.parametrize(("environment", "sentence"), ENVIRONMENTS, ids=range(len(ENVIRONMENTS)))
def test_an_environment_that_is_none_of_torchrun(
    environment: dict[str, str], sentence: str
) -> None:
    with pytest.raises(ValueError) as caught:
        ranks_of(environment)
    assert sentence in str(caught.value)


def test_environments_of_torchrun() -> None:
    assert ranks_of({}) == (0, 1, 0, 1)
    many = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert ranks_of(many | {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}) == (5, 8, 1, 4)


def test_a_rank_that_is_none_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for text in ("abc", "3"):
        monkeypatch.setenv("RANK", text)
        assert (
            main.main(["train", "configs/reference.yaml", f"run={tmp_path}", "--device=cpu"]) == 2
        )
        said = capsys.readouterr().err
        assert said.startswith("streamtrain: RANK = ") and said.count("\n") == 1


ERRORS: list[tuple[BaseException, int, str]] = [
    (KeyError("x"), 1, "): KeyError: 'x'; please report it"),
    (RecursionError("maximum depth"), 1, "RecursionError: maximum depth; please report it"),
    (MemoryError(), 1, "): MemoryError"),
    (RuntimeError("CUDA out of memory.\nTried"), 1, "not enough memory in main (main.py, line "),
    (
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        1,
        "not enough memory in ",
    ),
    (ZeroDivisionError("division"), 1, "internal error in main (main.py, line "),
    (AssertionError(), 1, "): AssertionError; please report it"),
    (RuntimeError("[enforce fail\n at x.cc]"), 1, "RuntimeError: [enforce fail at x.cc]; please"),
    (ValueError("of two\nlines\r\x1b[31m\0"), 2, "of two lines ?[31m?"),
    (ValueError(), 2, "ValueError"),
    (OSError(28, "No space left on device", "x"), 2, "x cannot be written: the disk is full"),
    (BrokenPipeError(32, "Broken pipe"), 2, "[Errno 32] Broken pipe"),
    (KeyboardInterrupt(), 130, "interrupted"),
]


@pytest.mark.parametrize(("error", "status", "sentence"), ERRORS, ids=range(len(ERRORS)))
def test_any_exception_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    sentence: str,
) -> None:
    def failing(*_: object) -> int:
        raise error

    monkeypatch.setattr(main, "_check", failing)
    monkeypatch.delenv("STREAMTRAIN_DEBUG", raising=False)
    assert main.main(["check"]) == status
    said = capsys.readouterr().err
    assert said.startswith("streamtrain: ") and sentence in said and said.count("\n") == 1


def test_all_of_an_unexpected_error_is_shown_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> int:
        raise KeyError("x")

    monkeypatch.setattr(main, "_check", failing)
    monkeypatch.setenv("STREAMTRAIN_DEBUG", "1")
    with pytest.raises(KeyError):
        main.main(["check"])


@pytest.mark.parametrize(
    "error", ["ModuleNotFoundError: no torch", "OSError: libc10.so: no such file"]
)
def test_a_library_that_cannot_be_imported_is_a_sentence(error: str, tmp_path: Path) -> None:
    kind, _, text = error.partition(": ")
    (tmp_path / "torch.py").write_text(f"raise {kind}({text!r})\n")
    paths = os.pathsep.join(map(str, (tmp_path, ROOT)))
    environment = {**os.environ, "PYTHONPATH": paths, "STREAMTRAIN_DEBUG": ""}
    command = [sys.executable, "-m", "streamtrain", "check"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said = f"streamtrain: a library that it needs cannot be imported: {error}\n"
    assert done.returncode == 1 and done.stderr == said


def test_the_first_lines_import_nothing_large() -> None:
    """Signals are answered before it is."""
    script = "import sys, streamtrain.__main__; print('numpy' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    """oneMKL would abort the process."""
    script = 'rmdir "$PWD"; exec "$@"'
    (tmp_path / "gone").mkdir()
    done = subprocess.run(
        ["sh", "-c", script, "sh", *COMMAND, "check"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path / "gone",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("streamtrain: the current folder cannot be used (No such file")
