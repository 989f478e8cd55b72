"""A sample before training, step by step: what adds up, what is drawn where, the command."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from support import small

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cli.main import main
from streamtrain.generator.generator import Generator
from streamtrain.luminosity.lines import line_name
from streamtrain.preview import prior_figures
from streamtrain.preview.prior import paint_samples
from streamtrain.preview.sample import (
    Step,
    drawn,
    numbers,
    panels_of_steps,
    steps_of_sample,
    table,
)
from streamtrain.preview.sample_figure import Panel, places, sample

pytestmark = small.EXTRAPOLATES

SETTINGS = ["data.train=[configs/reference_0000.h5]", "data.test=[]"]
COMMAND = ["preview", "configs/reference.yaml", "--device", "cpu", "--samples", "5", *SETTINGS]
EMIT = {
    "line": {"model": "li16", "prior": "narrow"},
    "interloper": {"model": "lidz11", "nu_rest_GHz": 115.27},
}
OBSERVE_ALL = {
    "radio_sources": {"density": 200.0},
    "beam": {"fwhm_arcmin": 8.0},
    "pool": {"factor": [3, 1, 1]},
    "noise": {"sigma_uK": 2.0},
    "edge_noise": {"sigma_uK": 50.0, "width": 0.2},
    "mask": {"edge_pixels": 2},
    "log_modulus": {},
}


def generator(sky: Lightcone, **sections: Any) -> Generator:
    return Generator(small.config(**sections), lightcones=[sky])


def drawing(made: Generator, panels: Sequence[Panel], index: int = 3) -> Figure:
    """The figure, drawn."""
    one, prior = paint_samples(made, [index]), paint_samples(made, range(10))
    model = f"li16: {numbers(made.draw([index]).records[0]['parameters'])}"
    figure = sample(panels, made.grid, one, prior, title=f"sample {index}", model=model)
    FigureCanvasAgg(figure).draw()
    return figure


def test_panels_add_up_to_the_sample(small_sky: Lightcone) -> None:
    """Line, interloper and sources make the first combined map, the pooled map and noise the
    second; the last panel is a slice of what the network is given."""
    made = generator(small_sky, emit=EMIT, observe=OBSERVE_ALL)
    panels = panels_of_steps(steps_of_sample(made, 3), 2)
    assert [panel.title for panel in panels] == [
        "CO(1-0) map",
        "interloper CO(1-0)",
        "radio sources",
        "combined",
        "smoothed by the beam",
        "pooled: mean of 3 x 1 x 1",
        "detector noise",
        "noise at the edges",
        "combined",
        "masked",
        "log-modulus",
    ]
    assert [p.terms for p in panels if p.terms] == [(0, 1, 2), (5, 6, 7)]
    for panel in panels:
        if panel.terms:
            total = sum(panels[term].image for term in panel.terms)
            assert np.allclose(panel.image, total, rtol=0, atol=1e-4)
            for left_out in panel.terms:
                assert np.abs(panel.image - total + panels[left_out].image).max() > 0.1
    cube = made.generate([3]).cube[0].numpy()
    assert (panels[-1].image == cube[2]).all()
    alone = generator(small_sky, emit={"line": EMIT["line"]}).generate([3]).cube[0].numpy()
    assert (panels[0].image == alone[7]).all()  # of the channels 6, 7 and 8, which become 2
    assert [p.channel for p in panels] == [7] * 5 + [2] * 6
    assert [p.compared_with for p in panels].index(3) == 4  # the beam, with what it smooths
    assert [p.unit for p in panels] == ["uK"] * 10 + [""]


def test_what_steps_add(small_sky: Lightcone) -> None:
    """Numbers in the table are those of the noise that was asked for."""
    observe = {"log_modulus": {}, "noise": {"sigma_uK": 4.0}, "noise_2": {"sigma_uK": 0.5}}
    steps = steps_of_sample(generator(small_sky, observe=observe), 5)
    assert [step.unit for step in steps] == ["uK", "", "", ""]
    rows = [line.split() for line in table(steps).splitlines()]
    assert rows[0][-3:] == ["rms", "added", "unit"]
    assert rows[1][0] == "line" and rows[1][-1] == "uK" and len(rows[1]) == 9
    signal = steps[0].cube
    assert float(rows[1][6]) == pytest.approx(signal.mean(), rel=1e-3)
    assert float(rows[1][7]) == pytest.approx(np.sqrt((signal**2).mean()), rel=1e-3)
    for row, sigma in ((rows[3], 4.0), (rows[4], 0.5)):
        assert float(row[9]) == pytest.approx(sigma, rel=0.05) and abs(float(row[8])) < 0.1 * sigma
    panels = panels_of_steps(steps, 0)
    assert [p.title for p in panels][2:] == ["detector noise", "detector noise 2", "combined"]
    assert panels[-1].terms == (1, 2, 3)


def test_a_second_use_is_in_plain_words(small_sky: Lightcone) -> None:
    twice = {"noise": {}, "pool": {"factor": [1, 3, 3], "reduce": "sum"}, "pool_2": {}}
    steps = steps_of_sample(generator(small_sky, observe=twice), 0)
    assert [s.title for s in steps[2:]] == [
        "pooled: sum of 1 x 3 x 3",
        "pooled: mean of 1 x 1 x 1 (2)",
    ]


@pytest.mark.parametrize(
    ("nu_rest_GHz", "name"),
    [
        (115.27, "CO(1-0)"),
        (230.538, "CO(2-1)"),
        (806.652, "CO(7-6)"),
        (857.3, "857.3 GHz"),
        (1900.537, "[CII]"),
        (1420.4, "1420.4 GHz"),
    ],
)
def test_names_of_lines(nu_rest_GHz: float, name: str) -> None:
    assert line_name(nu_rest_GHz) == name


def test_what_was_drawn(small_sky: Lightcone) -> None:
    emit = {**EMIT, "brightness": {"factor": 0.5}}
    made = generator(small_sky, emit=emit, observe={"noise": {"sigma_uK": 3.0}})
    record = made.draw([4]).records[0]
    said = dict(drawn(record))
    assert list(said) == ["field", "line", "brightness", "interloper", "noise"]
    assert said["line"].startswith(
        f"li16: log10_delta_mf = {record['parameters']['log10_delta_mf']:.4g},"
    )
    assert said["interloper"].startswith("lidz11: ")
    assert said["interloper"].endswith("; in the field of the line")
    assert said["noise"] == "sigma_uK = 3, voxel_sigma = 3" and said["brightness"] == "factor = 0.5"
    assert f"rolled by {record['roll_deg']:.1f} deg" in said["field"]
    record["interloper"] = {**record["interloper"], "lightcone": "other.h5"}
    assert "; other.h5, centre" in dict(drawn(record))["interloper"]


@pytest.mark.parametrize("maps", range(1, 20))
def test_places_of_panels(maps: int) -> None:
    """No two panels in one cell, two cells or more for the last, a pair side by side."""
    for pair in range(maps):
        at = places([k == pair and k > 0 for k in range(maps)])
        assert len(set(at.cells)) == maps and at.cells == sorted(at.cells)
        assert at.wide > at.cells[-1] and at.columns - at.wide[1] >= 2
        if pair:
            (row, column), (other, after) = at.cells[pair - 1 : pair + 1]
            assert row == other and column + 1 == after


def is_bar(axes: Axes) -> bool:
    return axes.get_label() == "colours" and axes.axison


def texts(figure: Figure) -> list[Text]:
    """All that is written outside the panels; ticks that are drawn, not those beyond an axis."""
    found = [figure._suptitle]  # type: ignore[attr-defined]
    for axes in figure.axes:
        legend = axes.get_legend()
        found += legend.get_texts() if legend is not None else []
        found += [axes.title, axes._left_title]  # type: ignore[attr-defined]
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            found.append(axis.label)
            for tick in axis._update_ticks():  # type: ignore[attr-defined]
                found += [tick.label1, tick.label2]
    return [text for text in found if text.get_visible() and text.get_text()]


@pytest.mark.parametrize("observe", [{}, {"log_modulus": {}}, {"noise": {}}, OBSERVE_ALL], ids=len)
@pytest.mark.parametrize("fov_deg", [(0.8, 0.8), (0.8, 0.4), (0.4, 0.8)])
def test_nothing_in_the_figure_overlaps(
    small_sky: Lightcone, observe: dict[str, Any], fov_deg: tuple[float, float]
) -> None:
    made = generator(small_sky, emit=EMIT, observe=observe, grid={**small.GRID, "fov_deg": fov_deg})
    figure = drawing(made, panels_of_steps(steps_of_sample(made, 3), 0))
    boxes = [(str(axes), axes.get_window_extent()) for axes in figure.axes]
    boxes += [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    assert len(boxes) > 20
    for name, box in boxes:
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, name
        assert box.y0 >= 0 and box.y1 <= figure.bbox.y1, name
    for (name, one), (other_name, other) in itertools.combinations(boxes, 2):
        assert not one.padded(-1).overlaps(other.padded(-1)), (name, other_name)


def test_what_the_figure_shows(small_sky: Lightcone) -> None:
    """East is left; letters and sums; the beam's colours; the sample within the prior."""
    observe = {**OBSERVE_ALL, "edge_noise": {"absent": 1.0}}
    made = generator(small_sky, emit=EMIT, observe=observe)
    panels = panels_of_steps(steps_of_sample(made, 3), 2)
    figure = drawing(made, panels)
    maps = [axes for axes in figure.axes if axes.images]
    headings = [axes.get_title(loc="left") for axes in maps]
    assert headings[0] == "(a) CO(1-0) map\n      slice 7 of 0..8"
    assert headings[8] == "(i) combined: f + g + h"
    shown = maps[-1].images[0]
    assert (np.asarray(shown.get_array()) == panels[-1].image).all()
    assert maps[-1].get_xlim() == (0.4, -0.4) and maps[-1].get_ylim() == (-0.4, 0.4)
    assert shown.get_extent()[0] == -0.4  # the first column is at the lowest ra, on the right
    limits = [axes.images[0].get_clim() for axes in maps]
    ends = np.percentile(panels[3].image, 0.5), np.percentile(panels[4].image, 99.8)
    assert limits[3] == limits[4] == pytest.approx(ends)
    assert limits[5] != limits[8]
    assert [text.get_text() for text in maps[7].texts] == ["none in this sample"]
    assert not maps[6].texts
    units = [axes.get_ylabel() for axes in figure.axes if is_bar(axes)]
    assert len(units) == 10 and units[-1] == "dimensionless"
    assert all(unit.endswith(r"$\mu$K") for unit in units[:-1])
    assert figure._suptitle.get_text().endswith(  # type: ignore[attr-defined]
        "frequency slice 2 of 0..2, 27.33 GHz, $z$ = 3.22"
    )
    wide = figure.axes[-1]
    assert wide.get_title().startswith("li16: log10_delta_mf\N{NO-BREAK SPACE}=")
    counts = made.generate([3]).counts[0].numpy()
    line = next(item for item in wide.lines if item.get_label() == "this sample")
    assert (np.asarray(line.get_ydata()) == prior_figures.on_axis(counts)).all()
    assert "95 % of 10 samples" in [t.get_text() for t in wide.get_legend().get_texts()]


def made_up(cube: Any, kind: str = "line", added: bool = False) -> Step:
    array = np.asarray(cube, np.float64)
    return Step(kind, kind, array, array if added else None, "uK", kind == "beam")


def test_noise_that_a_beam_removes_keeps_its_own_colours(small_sky: Lightcone) -> None:
    """In those of the smoothed map it would be black and white."""
    noise = np.random.default_rng(1).normal(0.0, 1.0, (1, 21, 21))
    for factor, shared in ((0.5, True), (0.05, False)):
        steps = [made_up(noise), made_up(noise * factor, "beam")]
        figure = drawing(generator(small_sky), panels_of_steps(steps, 0))
        before, after = (axes.images[0].get_clim() for axes in figure.axes if axes.images)
        assert (before == after) is shared


def test_large_numbers_are_a_power_of_ten(small_sky: Lightcone) -> None:
    cube = np.linspace(0, 5e6, 9 * 21 * 21).reshape(9, 21, 21)
    figure = drawing(generator(small_sky), panels_of_steps([made_up(cube)], 8))
    bar = next(axes for axes in figure.axes if is_bar(axes))
    assert bar.get_ylabel() == r"$10^{6}$ $\mu$K"
    ticks = zip(bar.get_yticks(), bar.get_yticklabels(), strict=True)
    assert all(float(label.get_text()) == pytest.approx(value / 1e6) for value, label in ticks)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Alone, with --prior, and of other splits; a class or a density as label changes nothing."""
    assert main([*COMMAND, f"run={tmp_path / 'run'}"]) == 0
    said = capsys.readouterr().out
    assert "sample 0 (train)" in said and f"wrote {tmp_path / 'run' / 'sample_0.png'}" in said
    assert "\n  line " in said and "\nlog_modulus " in said and "\n  halos " in said
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["sample_0.png"]
    both = [*COMMAND, "--prior", "--index", "3", "--out", str(tmp_path / "both")]
    assert main(both) == 0
    names = sorted(path.name for path in (tmp_path / "both").iterdir())
    assert names == ["luminosity.png", "prior.png", "sample_3.png"]
    images = {(tmp_path / "both" / "sample_3.png").read_bytes()}
    for number, more in enumerate(
        (
            ["--channel", "2"],
            ["--split", "test", "data.train=[]", "data.test=[configs/reference_0000.h5]"],
            ["label.quantity=phi"],
            ["label.quantity=class", "emit.line={mixture: {li16: {}, chung22: {}}}"],
        )
    ):
        out = tmp_path / str(number)
        assert main([*COMMAND, "--index", "3", "--out", str(out), *more]) == 0
        images.add((out / "sample_3.png").read_bytes())
    assert len(images) == 4  # the density's is the first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--samples", "0"], "--samples 0: a preview needs one sample or more"),
        (["--index", "-1"], "sample index -1 is outside 0..2^64-1"),
        (["--channel", "10"], "--channel 10 is outside 0..9"),
        (["--channel", "-1"], "--channel -1 is outside 0..9"),
        (["--split", "tests"], "split 'tests' is none of train, validation, test"),
        (["--split", "test"], "data.test names no lightcone"),
        (["--prior", "--split", "test"], "--split and --channel are of a sample"),
        (["--prior", "--channel", "0"], "--split and --channel are of a sample"),
    ],
)
def test_mistakes_get_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND, f"run={tmp_path / 'run'}", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"streamtrain: {message}") and said.count("\n") == 1
    assert not (tmp_path / "run").exists()
