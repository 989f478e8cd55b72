"""Figures of runs next to each other draw the numbers of the runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from support.made_runs import BINS, MAPS, TRUE, make_run, read

from streamtrain.evaluate import predictions as answers_file
from streamtrain.evaluate.compare import runs_figures


def test_the_figure_draws_the_numbers(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / "one", 0.1), make_run(tmp_path / "two", 0.2)]
    found = read(*folders)
    figure = runs_figures.comparison(found)
    assert figure is not None
    loss, error, *rest = figure.axes
    curves = [line.get_ydata() for line in loss.lines]
    np.testing.assert_allclose(curves[0], 1 / np.arange(4, 41, 4))
    np.testing.assert_allclose(curves[1], [3 / 20, 3 / 40])
    np.testing.assert_allclose(loss.lines[1].get_xdata(), [160, 320])
    np.testing.assert_allclose(error.lines[0].get_ydata(), [2 / 20, 2 / 40])
    np.testing.assert_allclose(error.lines[1].get_ydata(), [0.3, 0.3])  # the mean label
    bars = rest[-1]
    heights = [patch.get_height() for patch in bars.patches]
    expected = [
        part["rms_dex"]
        for run in found
        for part in [*run.evaluation["network"]["ranges"], run.evaluation["network"]["whole"]]  # type: ignore[index]
    ]
    np.testing.assert_allclose(heights, expected)
    bands = [axes for axes in rest if axes.get_title().endswith("68 and 95 %")]
    assert [axes.get_title().split(":")[0] for axes in bands] == ["one", "two"]


@pytest.mark.parametrize("per_bin", [True, False])
def test_bands_are_percentiles_of_the_ratio(tmp_path: Path, per_bin: bool) -> None:
    residual = np.random.default_rng(1).normal(size=(MAPS, BINS)) * 0.1
    folder = make_run(tmp_path / "one", residual)
    (run,) = read(folder)
    given = {"one": answers_file.predictions_of(run)} if per_bin else None
    figure = runs_figures.comparison([run], given)
    assert figure is not None
    axes = next(a for a in figure.axes if a.get_title().endswith("68 and 95 %"))
    median = axes.lines[0].get_ydata()
    ratio = 10 ** (np.maximum(TRUE + residual, 0.0) - TRUE)
    if per_bin:
        expected = [np.median(ratio[TRUE[:, k] > 0, k]) for k in range(BINS)]
    else:
        expected = []
        for low, high in ((0, 2), (2, 4), (4, 5), (5, 6), (6, 7)):
            inside = ratio[:, low:high][TRUE[:, low:high] > 0]
            expected += [np.median(inside)] * 2
    np.testing.assert_allclose(median, expected, rtol=1e-6)
    outer = axes.collections[0].get_paths()[0].vertices[:, 1]
    inner = axes.collections[1].get_paths()[0].vertices[:, 1]
    assert outer.min() < inner.min() < inner.max() < outer.max()


def test_maps_show_every_run_and_its_ratio(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / "one", 0.1), make_run(tmp_path / "two", 0.2)]
    folders.append(make_run(tmp_path / "other", label={"quantity": "cumulative"}))
    found = read(*folders)
    given = {run.name: answers_file.predictions_of(run) for run in found}
    same = runs_figures.comparable_runs(found, given)
    assert [run.name for run in same] == ["one", "two"]
    figure = runs_figures.same_maps(same, given)
    assert len(figure.axes) == 9
    upper, lower, close = (figure.axes[k] for k in (0, 3, 6))
    number = int(re.match(r"test map (\d+)", upper.get_title()).group(1))  # type: ignore[union-attr]
    np.testing.assert_allclose(upper.lines[0].get_ydata(), 10 ** TRUE[number][TRUE[number] > 0])
    np.testing.assert_allclose(upper.lines[2].get_ydata(), 10 ** (TRUE[number] + 0.2))
    for axes in (lower, close):
        ratio = axes.lines[1].get_ydata()
        np.testing.assert_allclose(ratio[TRUE[number] > 0], 10**0.2)
