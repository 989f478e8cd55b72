"""Costs of models and operators: every family of models is timed, and the ratios are there."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import small

from streamtrain.bench.models import REFERENCE, model_costs, operator_cost
from streamtrain.luminosity.registry import MODELS


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, dict[str, list[str]]]:
    small.lightcone(num=2000).save(tmp_path / "sky.h5")
    return {"data": {"train": [str(tmp_path / "sky.h5")]}}


def test_every_family_of_models_is_timed(settings: dict[str, dict[str, list[str]]]) -> None:
    costs = model_costs(small.config(**settings), 0.0)
    assert {name.rstrip("1234567890_com") for name in costs} == {
        name.rstrip("1234567890_com") for name in MODELS
    }
    assert REFERENCE in costs and all(value > 0 for value in costs.values())


def test_operators_cost_more_than_painting_alone(
    settings: dict[str, dict[str, list[str]]],
) -> None:
    """Ten beams as wide as the map."""
    beams = {f"beam_{k}": {"fwhm_pixels": 20.0} for k in range(1, 11)}
    config = small.config(**settings, observe={"pool": {"factor": [3, 1, 1]}, **beams})
    costs = operator_cost(config, 0.0)
    assert costs["all_ms"] > costs["paint_ms"] > 0
    assert costs["ratio"] == pytest.approx(costs["all_ms"] / costs["paint_ms"])
