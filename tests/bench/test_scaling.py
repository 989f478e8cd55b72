"""The series of the scaling: what is varied varies, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import small

import streamtrain.bench.scaling as module
from streamtrain.bench.scaling import _cut, _with_halos, draw_scaling, report_scaling, scaling
from streamtrain.config import Config


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    for seed in (1, 2):
        small.lightcone(seed, num=3000).save(tmp_path / f"sky_{seed}.h5")
    monkeypatch.setattr(module, "HALOS", (200, 4000))
    monkeypatch.setattr(module, "SHAPES", ((4, 8, 8), (8, 16, 16)))
    monkeypatch.setattr(module, "BATCHES", (1, 3))
    return small.config(data={"train": [str(tmp_path / "sky_*.h5")]})


def test_series(config: Config, tmp_path: Path) -> None:
    rows = scaling(config, "cpu", 0.0)
    assert all(row["ms_per_sample"] > 0 for row in rows)

    def column(series: str, key: str) -> list[int]:
        return [row[key] for row in rows if row["series"] == series]

    few, many = column("halos", "halos")
    assert few == pytest.approx(200, rel=0.3) and many == pytest.approx(4000, rel=0.15)
    assert len({*column("halos", "voxels"), *column("batch", "voxels")}) == 1
    assert column("voxels", "voxels") == [256, 2048]
    assert column("batch", "batch") == [1, 3]
    sizes = column("lightcone", "lightcone_halos")
    assert sizes[0] < sizes[1] < sizes[-2] == 3000 and sizes[-1] == 6000
    painted = column("lightcone", "halos")
    assert max(painted) < 1.3 * min(painted)
    text = "\n".join(report_scaling(rows))
    assert "8 x 16 x 16" in text and "2 lightcones" in text
    draw_scaling(rows, tmp_path / "figures" / "scaling.png")
    assert (tmp_path / "figures" / "scaling.png").stat().st_size > 10_000


def test_fewer_halos_are_some_and_more_are_those_of_other_lightcones() -> None:
    one, two = small.lightcone(1, num=1000), small.lightcone(2, num=1000)
    few = _with_halos([one, two], 0.1)
    assert len(few) == 100
    assert np.isin(few.mass_Msun, one.mass_Msun).all()
    assert np.median(few.mass_Msun) == pytest.approx(np.median(one.mass_Msun), rel=0.2)
    many = _with_halos([one, two], 2.5)
    assert len(many) == 2500
    assert np.isin(two.mass_Msun, many.mass_Msun).all()


def test_a_cut_lightcone_holds_the_middle() -> None:
    sky = small.lightcone(num=2000)
    cut = _cut(sky, 1.0, (0.6, 0.3))
    assert cut.footprint_deg == pytest.approx((-0.3, 0.3, -0.15, 0.15))
    assert len(cut) == pytest.approx(2000 * 0.6 * 0.3 / 1.44, rel=0.2)
    assert len(_cut(sky, 9.0, (0.6, 0.3))) == 2000
