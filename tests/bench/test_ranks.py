"""Trainings with several ranks are started as a user starts them, and kernels compiled once."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import small

from streamtrain.bench import ranks
from streamtrain.bench.ranks import rank_costs, report_ranks, train_rank
from streamtrain.config import Config
from streamtrain.numerics import backend
from streamtrain.numerics.backend import compile_host, one_at_a_time
from streamtrain.train import trainer


def test_who_compiles_at_the_same_time_compiles_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads stand for processes: each opens the file that is locked, which is what counts."""
    compiled = []
    usual = backend._compile

    def slowly(*arguments: Any) -> Any:
        compiled.append(arguments)
        time.sleep(0.3)
        return usual(*arguments)

    monkeypatch.setattr(backend, "_compile", slowly)
    monkeypatch.setattr(backend, "cache_dir", lambda: tmp_path)
    source = 'extern "C" int answer() { return 42; }\n'
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: compile_host(source, ("-O0",)), range(4)))
    assert len(compiled) == 1
    assert len(set(paths)) == 1 and paths[0].is_file()


def test_an_error_while_compiling_ends_the_waiting(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), one_at_a_time(tmp_path, "key"):
        raise ZeroDivisionError
    with one_at_a_time(tmp_path, "key"):
        pass


def test_a_folder_without_locks_is_no_obstacle(tmp_path: Path) -> None:
    with one_at_a_time(tmp_path / "is not there", "key"):
        pass


def test_a_rank_needs_a_core(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are"):
        rank_costs(small.config(), "cpu", 10_000)


def test_numbers_of_ranks_and_their_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    """1, 2, 4 and the number asked for; the slowest rank's start is the start."""
    asked = []

    def train(config: Any, device: str, number: int, folder: Path, steps: int) -> list[Any]:
        asked.append((number, steps))
        return [
            {"start_s": 3.0 + rank, "compiled": rank == 0, "samples_per_s": 90.0 * number}
            for rank in range(number)
        ]

    monkeypatch.setattr(ranks, "_train", train)
    monkeypatch.setattr(ranks, "num_cores", lambda: 8)
    rows = rank_costs(small.config(), "cpu", 6, steps=20)
    assert [n for n, _ in asked] == [1, 1, 2, 2, 4, 4, 6, 6]
    assert [row["ranks"] for row in rows] == [1, 2, 4, 6]
    assert rows[-1] == {
        "ranks": 6, "cold_start_s": 8.0, "compiled": 1, "warm_start_s": 8.0, "compiled_again": 1,
        "samples_per_s": 540.0, "over_one_rank": 6.0,
    }  # fmt: skip
    assert "6.00 times one rank" in report_ranks(rows)[-1]


def test_a_training_needs_validation_maps() -> None:
    with pytest.raises(ValueError, match=r"needs a lightcone in data\.validation"):
        rank_costs(small.config(), "cpu", 1)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    small.lightcone(1, num=500).save(tmp_path / "train.h5")
    small.lightcone(2, num=500).save(tmp_path / "validation.h5")
    data = {k: [str(tmp_path / f"{k}.h5")] for k in ("train", "validation")}
    network = {"layers": 2, "filters": 2, "dense": 4}
    return small.config(data=data, network=network, train={"batch_size": 2})


def test_one_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    """What torchrun starts, in this process: it trains, and what is compiled meanwhile is counted,
    and used."""
    train = replace(config.train, steps=4, log_every=2, validation_samples=2)
    file = tmp_path / "bench.yaml"
    file.write_text(replace(config, run=str(tmp_path / "run"), train=train).to_yaml())
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    monkeypatch.setattr(backend, "_compile", backend._compile)  # put back in the end
    build = trainer.Trainer.__init__

    def after_a_kernel(self: trainer.Trainer, *arguments: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(backend, "cache_dir", lambda: tmp_path)
            assert compile_host('extern "C" int answer() { return 42; }\n', ("-O0",)).is_file()
        build(self, *arguments)

    monkeypatch.setattr(trainer.Trainer, "__init__", after_a_kernel)
    train_rank(file, "cpu", time.time())
    row = json.loads((tmp_path / "rank_0.json").read_text())
    assert row["compiled"] >= 1 and row["samples_per_s"] > 0.0 < row["start_s"]


@pytest.mark.slow
def test_real_ranks(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    """Two ranks on two cores: kernels are compiled as often as by one rank, and found again."""
    monkeypatch.setattr(ranks, "num_cores", lambda: 2)
    one, two = rank_costs(config, "cpu", 2, steps=20)
    assert one["compiled"] == two["compiled"] > 0
    assert one["compiled_again"] == two["compiled_again"] == 0
    assert two["samples_per_s"] > 0
