"""Probes of networks whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import map_runs as runs
from support import small

from streamtrain import Generator
from streamtrain.bins import ranges_with_bins
from streamtrain.cli import main
from streamtrain.config import Config
from streamtrain.evaluate import trained as trained_module
from streamtrain.evaluate.interpret import probes as probes_module
from streamtrain.evaluate.interpret.probes import run_probes, turned
from streamtrain.networks.network import build_head

pytestmark = small.EXTRAPOLATES
SETTINGS: dict[str, Any] = {
    "grid": {"fov_deg": [0.8, 0.8], "shape": [6, 20, 20]},
    "observe": {"noise": {"sigma_uK": [0.5, 2.0]}},
    "test": {"samples": 16},
}


class Mean(torch.nn.Module):
    """Predictions the log of the mean brightness in every bin, which knows nothing of positions."""

    def __init__(self, weights: list[float] | None = None, corner: bool = False) -> None:
        super().__init__()
        self.weights, self.corner = weights, corner

    def forward(self, cube: torch.Tensor) -> torch.Tensor:
        values = cube if not self.corner else cube[:, :, :10, :10]
        channels = values.double().mean((2, 3))
        weights = torch.tensor(self.weights or [1.0] * channels.shape[1], dtype=torch.float64)
        mean = (channels * weights).mean(1, keepdim=True)
        answer = 3.0 + torch.log10(mean.clamp(min=1e-3))
        return answer.float().expand(-1, 14)


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes a run whose network is the given one."""

    def made(network: torch.nn.Module, **sections: Any) -> Config:
        config = runs.make_run(tmp_path, **(SETTINGS | sections))
        network.head = build_head("auto", Generator(config, "test").label)  # type: ignore[assignment]
        monkeypatch.setattr(trained_module.Trained, "network", lambda *_: network)
        monkeypatch.setattr(probes_module, "write_png", lambda figure, path: None)
        return config

    return made


def by_name(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {probe["probe"]: probe["whole"] for probe in result["probes"]}


def test_a_network_that_reads_the_mean(use: Any) -> None:
    config = use(Mean(), observe={})
    result = run_probes(config)
    found = by_name(result)
    assert found["turned and mirrored"]["rms_dex"] < 1e-6
    assert found["frequencies shuffled"]["rms_dex"] < 1e-6
    assert found["brightness x 2"]["shift_dex"] == pytest.approx(np.log10(2.0), abs=1e-5)
    assert found["brightness x 0.5"]["shift_dex"] == pytest.approx(-np.log10(2.0), abs=1e-5)
    assert found["brightness x 2"]["expected_dex"] > 0.1
    generator = Generator(config, "test")
    used = generator.generate(range(16)).counts.numpy() > 0
    blank = found["no halo"]
    assert blank["shift_dex"] == pytest.approx(blank["expected_dex"], abs=1e-6)
    assert used.any() and result["skipped"] == {
        "noise": "the maps have no noise and no foregrounds"
    }
    assert json.loads((Path(config.run) / "probes.json").read_text()) == json.loads(
        json.dumps(result)
    )


def test_what_the_truth_does_when_halos_are_brighter(use: Any) -> None:
    """With bins of log10(2) and no scatter, what one bin held comes to the next."""
    ends = [3.5, 3.5 + 14 * np.log10(2.0)]
    config = use(Mean(), label={"log10_L": ends, "bins": 14}, observe={})
    probe = next(p for p in run_probes(config)["probes"] if p["probe"] == "brightness x 2")
    generator = Generator(config, "test")
    counts = generator.generate(range(16)).counts.numpy()
    log10 = np.log10(np.maximum(counts, 1))
    change = np.roll(log10, 1, axis=1) - log10
    used = (counts > 0) & (np.roll(counts, 1, axis=1) > 0)
    inside = dict(ranges_with_bins(generator.bin_edges))
    assert len(probe["ranges"]) == len(inside)
    for row in probe["ranges"]:
        mask = inside[row["log10_L"]] & used
        if not inside[row["log10_L"]][0]:  # halos from below the first bin are not known
            assert row["expected_dex"] == pytest.approx(change[mask].mean(), abs=2e-3)


def test_a_network_that_looks_at_a_corner_and_a_channel_is_found(use: Any) -> None:
    config = use(Mean([6.0, 0, 0, 0, 0, 0], corner=True), observe={})
    found = by_name(run_probes(config))
    assert found["turned and mirrored"]["rms_dex"] > 0.02
    assert found["frequencies shuffled"]["rms_dex"] > 0.02


def test_the_scatter_over_noise_is_that_of_the_noise(use: Any) -> None:
    """The mean over a map of N voxels scatters by sigma / sqrt(N)."""

    class Linear(Mean):
        def forward(self, cube: torch.Tensor) -> torch.Tensor:
            return (5.0 + cube.mean((1, 2, 3))[:, None]).expand(-1, 14)

    config = use(Linear(), observe={"noise": {"sigma_uK": 9.0}})
    found = by_name(run_probes(config))
    assert found["other noise"]["rms_dex"] == pytest.approx(9.0 / np.sqrt(2400), rel=0.25)
    assert found["turned and mirrored"]["rms_dex"] < 1e-6


def test_turns_and_mirror_images() -> None:
    cubes = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    copies = [cubes, *turned(cubes)]
    assert len(copies) == 8
    assert len({tuple(copy.flatten().tolist()) for copy in copies}) == 8
    assert all(torch.equal(c.sum((2, 3)), cubes.sum((2, 3))) for c in copies)
    long = cubes[..., :3]
    assert [tuple(c.shape) for c in turned(long)] == [(2, 3, 4, 3)] * 3


def test_the_scaled_logarithm_is_left_out(use: Any) -> None:
    brightness = {"poisson_bins": 5, "log_map": True}
    emit = {"line": {"model": "breysse15"}, "brightness": brightness}
    assert set(run_probes(use(Mean(), emit=emit))["skipped"]) == {"brightness", "noise"}


def test_the_command(use: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    config = use(Mean())
    monkeypatch.setattr(probes_module, "write_png", lambda f, path: f.savefig(path))
    (given := Path(config.run) / "given.yaml").write_text(config.to_yaml())
    assert main.main(["evaluate", str(given), "--probes", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "turned and mirrored: should not change (8 copies)" in said
    assert (Path(config.run) / "probes.png").stat().st_size > 10_000
    classes = {"mixture": {"breysse15": {}, "padmanabhan18": {}}}
    given.write_text(
        runs.with_settings(config, emit={"line": classes}, label={"quantity": "class"}).to_yaml()
    )
    assert main.main(["evaluate", str(given), "--probes", "--device", "cpu"]) == 2
    assert "--probes are of luminosity functions" in capsys.readouterr().err
