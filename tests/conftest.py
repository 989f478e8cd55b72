"""What every test shares: skips with a reason, a guard of global state, a small sky."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from support import SHARED, TESTS, readable, small
from support.processes import answer_signals, one_thread

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.numerics.backend import Kernels, kernels_for

QUICK = (
    *("test_config", "test_layers", "test_stream", "test_bins", "test_labels"),
    *("catalogs/test_lightcone", "catalogs/test_expressions", "catalogs/test_splits"),
    *("luminosity/test_priors", "luminosity/test_mixture", "operators/test_operators"),
    *("numerics/test_portable", "numerics/test_rng", "generator/test_generator"),
    *("generator/test_windows", "generator/test_observe", "networks/test_heads"),
    *("networks/test_settings", "train/test_average", "train/test_nonfinite"),
    *("evaluate/test_testset", "evaluate/test_bootstrap", "evaluate/inference/test_prepare"),
    *(
        "train/test_checkpoint",
        "mcmc/test_sampling",
        "preview/test_sample",
        "bench/test_scaling",
        "cli/test_cli",
    ),
)
"""Files of tests that stand for their room before each commit: together a minute on 2 cores."""


SLOW_FIRST = (
    *("test_stand_in_gpu", "train/test_distributed", "train/test_survival", "test_site"),
    *("catalogs/test_statistics", "catalogs/test_make", "bench/test_models", "networks/test_joint"),
)
"""Files with tests of 10 s and more, so that no process ends the run alone with one of them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")
    parser.addoption("--quick", action="store_true", help="run the core of every room alone")


def pytest_configure(config: pytest.Config) -> None:
    """Processes side by side have the cores to themselves: threads of each would wait for those of
    the others, which costs ten times what they do. Nothing is garbage while tests are collected,
    and looking for it takes a third of that time."""
    gc.disable()
    if config.getoption("numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if not config.getoption("--quick") or collection_path.suffix != ".py":
        return None
    return True if _name(collection_path) not in QUICK else None


def _name(file: Path) -> str:
    return file.relative_to(TESTS).with_suffix("").as_posix()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _name(item.path) not in SLOW_FIRST)
    reasons = {"gpu": _no_gpus(1), "multigpu": _no_gpus(2)}
    if not config.getoption("--slow"):
        reasons["slow"] = "slow: run with --slow"
    for item in items:
        for name, reason in reasons.items():
            if reason and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is there before the first test stays to the end: looking through it for garbage, time
    and again, takes a tenth of the run."""
    gc.collect()
    gc.freeze()
    gc.enable()


def _no_gpus(needed: int) -> str:
    """Why tests that need so many GPUs cannot run here, or nothing."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found < needed:
        return f"needs {needed} NVIDIA GPU(s) that torch can use, found {found}"
    from streamtrain.numerics.backend import BackendError, import_cupy

    try:
        import_cupy()
    except BackendError as error:
        return str(error)
    return ""


def _global_state() -> dict[str, Any]:
    others = ("PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR")  # pytest's and torch's own doing
    _, words, *more = np.random.get_state()  # noqa: NPY002
    environment = {k: v for k, v in os.environ.items() if k not in others}
    return {
        "os.environ": environment,
        "the current folder": os.getcwd(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's number of threads": torch.get_num_threads(),
        "torch's random state": torch.get_rng_state().numpy().tobytes(),
        "torch's deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "NumPy's random state": (words.tobytes(), *more),
        "NumPy's error state": np.geterr(),
    }


@pytest.fixture(autouse=True, scope="module")
def empty_figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Trainings in tests of the rooms show empty figures, which cost them more than their steps;
    they are drawn in train/test_monitor, by the commands, and where users' ways are followed."""
    place = request.path.relative_to(TESTS)
    with pytest.MonkeyPatch.context() as patch:
        if len(place.parts) > 1 and place.parts[0] not in ("cli", "preview"):
            from streamtrain.train import monitor

            for name in ("map_slices", "luminosity_function"):
                patch.setattr(monitor, name, lambda *_, **__: Figure(figsize=(1, 1)))
        yield


@pytest.fixture(autouse=True, scope="session")
def _figures_are_readable() -> Iterator[None]:
    """Every figure that any test has written can be read alone."""
    save = Figure.savefig

    def checked(figure: Figure, *arguments: Any, **options: Any) -> None:
        save(figure, *arguments, **options)
        problems = readable.problems(figure)
        assert not problems, "; ".join(problems)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", checked)
        yield


@pytest.fixture(autouse=True)
def _no_global_state_changes() -> Iterator[None]:
    """Fails a test that leaves global state behind, so that no test depends on another."""
    before = _global_state()
    yield
    after = _global_state()
    changed = [name for name in before if before[name] != after[name]]
    assert not changed, f"the test changed {', '.join(changed)}"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The project's shared folder, for tests of data that the repository does not carry."""
    if not SHARED.is_dir():
        pytest.skip(f"no shared folder at {SHARED} (set STREAMTRAIN_SHARED)")
    return SHARED


@pytest.fixture(scope="session")
def small_sky() -> Lightcone:
    """20 000 halos over 1.2 deg, z = 2.3..3.5."""
    return small.lightcone()


@pytest.fixture(scope="session")
def kernels() -> Kernels:
    """Those of the map operators, on the CPU."""
    return kernels_for("cpu", "observe.cu")


@pytest.fixture
def usual_signals() -> Iterator[None]:
    """No signal is ignored by the test and the processes that it starts."""
    with answer_signals():
        yield


@pytest.fixture(name="one_thread")
def _one_thread() -> Iterator[None]:
    """Torch computes on one."""
    with one_thread():
        yield


@pytest.fixture
def host_never_waits() -> Callable[[], AbstractContextManager[None]]:
    """A context in which torch raises an error where the host would wait for the GPU."""

    @contextmanager
    def forbidden() -> Iterator[None]:
        with warnings.catch_warnings():  # the first call in a process says that it is a prototype
            warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return forbidden
