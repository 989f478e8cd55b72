"""What the figures show, read back from their artists."""

import io
import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from support import ROOT

from streamtrain.evaluate import figures
from streamtrain.evaluate.baselines import ihle2019, published
from streamtrain.evaluate.robustness.matrix import matrix_figure
from streamtrain.evaluate.scores import delta_percentiles
from streamtrain.figures import (
    CHAIN,
    NETWORK,
    REFERENCE,
    SERIES,
    TRUTH,
    Slices,
    confusion,
    map_slices,
)
from streamtrain.networks.joint import JointCountsHead

EDGES = np.linspace(3.5, 7.0, 50)
CENTRES = 0.5 * (EDGES[1:] + EDGES[:-1])


@pytest.fixture
def functions():
    """Schechter-like luminosity functions: predicted, true (log10 dN), occupied, mean."""
    rng = np.random.default_rng(0)
    knee = 5.8 + 0.3 * rng.normal(size=(60, 1))
    counts = rng.poisson(10 ** (4.5 - 0.25 * (CENTRES - 3.5) - 0.4 * 10 ** (CENTRES - knee)))
    true = np.log10(np.maximum(counts, 1))
    predicted = np.maximum(true + 0.1 * rng.normal(size=true.shape), 0.0)
    return predicted, true, counts > 0, true.mean(axis=0)


def png_size(figure: Figure) -> int:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return len(buffer.getvalue())


def line(axes, label):
    return next(item for item in axes.lines if item.get_label() == label)


def test_comparison_takes_maps_from_all_of_the_test_set(functions):
    _, true, occupied, mean = functions
    offset = np.linspace(0.0, 0.59, 60)
    figure = figures.comparison(
        np.where(occupied, true + offset[:, None], true), true, occupied, EDGES, reference=mean
    )
    titles = [axes.get_title() for axes in figure.axes[:3]]
    assert [t.split(",")[0] for t in titles] == ["map 9", "map 30", "map 50"]
    assert "rms 0.090 dex" in titles[0]
    assert png_size(figure) > 10_000


def test_band_is_that_of_each_map(functions):
    """Around the function, and over the truth below it."""
    predicted, true, occupied, _ = functions
    width = np.array([0.2, 0.5])[:, None]
    band = np.stack([np.maximum(predicted[:2] - width, 0.0), predicted[:2] + width])
    figure = figures.luminosity_function(
        predicted[:2], true[:2], EDGES, occupied=occupied[:2], band=band
    )
    for k in range(2):
        upper, lower = figure.axes[k], figure.axes[2 + k]
        [shade] = upper.collections
        [points] = [path.vertices for path in shade.get_paths()]
        for edge in 10 ** band[:, k]:
            for at, height in zip(10**CENTRES, edge, strict=True):
                assert np.isclose(points, (at, height), rtol=1e-9).all(1).any()
        shown = np.concatenate([p.vertices for p in lower.collections[0].get_paths()])
        first = np.flatnonzero(occupied[k])[0]
        for end in band[:, k, first]:
            expected = (10 ** CENTRES[first], 10 ** (end - true[k, first]))
            assert np.isclose(shown, expected, rtol=1e-9).all(1).any()


def test_luminosity_function_draws_what_it_is_given(functions):
    predicted, true, occupied, mean = functions
    figure = figures.luminosity_function(
        predicted[:2], true[:2], EDGES, occupied=occupied[:2], reference=mean
    )
    upper = figure.axes[0]
    drawn = line(upper, "true")
    assert drawn.get_xdata() == pytest.approx(10 ** CENTRES[occupied[0]])
    assert drawn.get_ydata() == pytest.approx(10 ** true[0, occupied[0]])
    assert line(upper, "network").get_ydata() == pytest.approx(10 ** predicted[0])
    assert line(upper, "mean label").get_ydata() == pytest.approx(10**mean)
    lower = figure.axes[2]
    ratio = lower.lines[0].get_ydata()[occupied[0]]
    assert ratio == pytest.approx(10 ** (predicted - true)[0, occupied[0]])
    assert "L_\\odot" in lower.get_xlabel()
    assert "dN" in upper.get_ylabel()


def test_maps_stand_above_their_functions(functions):
    predicted, true, occupied, mean = functions
    cubes = np.random.default_rng(3).normal(size=(60, 8, 8))
    asked = []

    def slices(numbers):
        asked.extend(numbers)
        return Slices(cubes[numbers], (0.7, 0.7), 30.4, "uK")

    figure = figures.comparison(predicted, true, occupied, EDGES, reference=mean, slices=slices)
    maps = [axes for axes in figure.axes if axes.images]
    assert len(asked) == len(maps) == 3
    for axes, number in zip(maps, asked, strict=True):
        assert np.array_equal(axes.images[0].get_array(), cubes[number])
        assert axes.get_title().startswith(f"map {number},")
        assert axes.get_xlim()[0] > axes.get_xlim()[1]  # east is left
    assert any("30.40 GHz [uK]" in axes.get_ylabel() for axes in figure.axes)
    assert png_size(figure) > 10_000


def test_cumulative_functions_stand_at_the_lower_edges(functions):
    predicted, true, _, _ = functions
    figure = figures.luminosity_function(predicted[:1], true[:1], EDGES, quantity="cumulative")
    assert line(figure.axes[0], "network").get_xdata() == pytest.approx(10 ** EDGES[:-1])
    assert "N(>L)" in figure.axes[0].get_ylabel()


def test_densities_are_drawn_in_their_own_unit(functions):
    predicted, true, occupied, mean = functions
    unit = 1e-6 * 10.0 ** -CENTRES[None] * np.array([[1.0], [2.0]])
    figure = figures.luminosity_function(
        predicted[:2], true[:2], EDGES, occupied=occupied[:2], reference=mean, quantity="phi",
        unit=unit,
    )  # fmt: skip
    for k, axes in enumerate(figure.axes[:2]):
        shown = occupied[k]
        assert line(axes, "true").get_ydata() == pytest.approx(
            unit[k, shown] * 10 ** true[k, shown]
        )
        assert line(axes, "network").get_ydata() == pytest.approx(unit[k] * 10 ** predicted[k])
        assert line(axes, "mean label").get_ydata() == pytest.approx(unit[k] * 10**mean)
        assert line(axes, "one halo").get_ydata() == pytest.approx(unit[k])
        low, high = axes.get_ylim()
        assert low < unit.min() and high > (unit[k] * 10 ** predicted[k]).max()
    assert "Mpc$^{-3}$ $L_\\odot^{-1}$" in figure.axes[0].get_ylabel()
    ratio = figure.axes[2].lines[0].get_ydata()[occupied[0]]
    assert ratio == pytest.approx(10 ** (predicted - true)[0, occupied[0]])


def test_comparison_takes_the_units_of_its_maps(functions):
    predicted, true, occupied, _ = functions
    unit = np.broadcast_to(np.arange(1.0, 61.0)[:, None], true.shape)
    figure = figures.comparison(predicted, true, occupied, EDGES, quantity="phi_L", unit=unit)
    for axes in figure.axes[:3]:
        chosen = int(axes.get_title().split(",")[0].split()[1])
        assert set(line(axes, "one halo").get_ydata()) == {chosen + 1.0}


def test_confusion_shows_shares_and_numbers():
    counts = np.array([[30, 10], [0, 0]])
    figure = confusion(counts, ["li16", "chung22"])
    axes = figure.axes[0]
    assert axes.images[0].get_array().tolist() == [[0.75, 0.25], [0.0, 0.0]]
    assert axes.texts[0].get_text() == "0.75\n(30)"
    assert [t.get_text() for t in axes.get_yticklabels()] == ["li16", "chung22"]
    assert png_size(figure) > 5_000


def test_luminosity_function_refuses_other_shapes(functions):
    predicted, true, _, _ = functions
    with pytest.raises(ValueError, match="shape mismatch"):
        figures.luminosity_function(predicted[:2], true[:1], EDGES)


def test_ratio_bands_are_the_percentiles(functions):
    predicted, true, occupied, mean = functions
    figure = figures.ratio_bands(predicted, mean, true, occupied, EDGES)
    for axes, values in zip(figure.axes, (predicted, mean), strict=True):
        median = 1 + delta_percentiles(values - true, occupied)[2]
        assert line(axes, "median").get_ydata() == pytest.approx(median, nan_ok=True)
    assert png_size(figure) > 10_000


def test_ratio_bands_of_a_perfect_network_and_empty_bins(functions):
    _, true, occupied, mean = functions
    occupied[:, -3:] = False
    assert png_size(figures.ratio_bands(true, mean, true, occupied, EDGES)) > 10_000


def test_loss_history_joins_training_and_validation():
    entries = [
        {"step": 10, "loss": 0.5},
        {"step": 20, "loss": 0.25},
        {"step": 20, "validation_loss": 0.3, "mean_label_loss": 0.6},
    ]
    axes = figures.loss_history(entries).axes[0]
    assert line(axes, "training").get_xydata().tolist() == [[10, 0.5], [20, 0.25]]
    assert line(axes, "validation").get_xydata().tolist() == [[20, 0.3]]
    assert line(axes, "mean label,\nvalidation").get_xydata().tolist() == [[20, 0.6]]
    assert axes.get_yscale() == "log"


def test_functions_show_a_map_on_four_axes(functions):
    predicted, true, occupied, mean = functions
    figure = figures.functions(predicted, true, occupied, EDGES, reference=mean)
    panels = np.array(figure.axes).reshape(4, 3)
    assert [axes.get_yscale() for axes in panels[:, 0]] == ["log", "linear", "log", "linear"]
    assert panels[2, 0].get_ylim() == (0.2, 5.0)
    assert panels[3, 0].get_ylim() == (0.7, 1.3)
    for column in panels.T:
        chosen = int(column[0].get_title().split(",")[0].split()[1])
        for axes in column[:2]:
            assert line(axes, "network").get_ydata() == pytest.approx(10 ** predicted[chosen])
            shown = occupied[chosen]
            assert line(axes, "true").get_ydata() == pytest.approx(10 ** true[chosen, shown])
        for axes in column[2:]:
            ratio = axes.lines[0].get_ydata()[occupied[chosen]]
            assert ratio == pytest.approx(10 ** (predicted - true)[chosen, occupied[chosen]])
    assert png_size(figure) > 10_000


def test_residuals_lie_on_the_published_bands(functions):
    predicted, true, occupied, _ = functions
    theirs, limits = published("basic"), ihle2019()
    figure = figures.residual_bands(
        predicted, true, occupied, EDGES, published=theirs, limits=limits, other_maps=False
    )
    axes = figure.axes[0]
    bands = delta_percentiles(predicted - true, occupied)
    assert line(axes, "median").get_ydata() == pytest.approx(bands[2], nan_ok=True)
    assert line(axes, "median").get_xdata() == pytest.approx(10**CENTRES)
    assert line(axes, "68 %, published network").get_ydata() == pytest.approx(theirs.percentiles[1])
    named = "95 %, Ihle et al. 2019\n(other maps and method)"
    assert line(axes, named).get_ydata() == pytest.approx(limits[0], nan_ok=True)
    filled = {c.get_label(): c.get_paths()[0].vertices for c in axes.collections}
    behind = filled["95 %, published network"][:, 1]
    assert behind.min() == pytest.approx(theirs.percentiles[0].min())
    assert behind.max() == pytest.approx(theirs.percentiles[4].max())
    usual = figures.residual_bands(predicted, true, occupied, EDGES, published=theirs)
    texts = [text.get_text() for text in usual.legends[0].get_texts()]
    assert "68 %, published network\n(other maps: 1.4 deg, Li+16)" in texts
    assert "95 %, published network\n(other maps: 1.4 deg, Li+16)" in texts
    alone = figures.residual_bands(predicted, true, occupied, EDGES)
    assert len(alone.axes[0].collections) == 2
    assert png_size(figure) > 10_000


def test_loss_history_shows_each_luminosity_range():
    entries = [
        {"step": 10, "loss": 0.5},
        {"step": 20, "validation_loss": 0.3, "error_dex_3.5-4.5": 0.2, "error_dex_all": 0.4},
        {"step": 30, "validation_loss": 0.2, "error_dex_3.5-4.5": 0.1, "error_dex_all": 0.3},
    ]
    loss, ranges = figures.loss_history(entries).axes
    assert line(loss, "validation").get_ydata().tolist() == [0.3, 0.2]
    assert line(ranges, "3.5-4.5").get_xydata().tolist() == [[20, 0.2], [30, 0.1]]
    assert line(ranges, "all").get_ydata().tolist() == [0.4, 0.3]


@pytest.mark.parametrize("name", [*JointCountsHead.losses.values(), "mean squared error"])
def test_loss_history_holds_all_its_words(name):
    """Title, axes and legend lie within the figure, and the legend covers no curve."""
    entries = [
        {"step": s, "loss": 7.0 - s / 10, "validation_loss": 7.1 - s / 10}
        | {f"error_dex_{k}": 0.1 + s / 100 + n / 10 for n, k in enumerate(("4-5", "5-6", "all"))}
        for s in range(10, 40, 10)
    ]
    figure = figures.loss_history(entries, name)
    FigureCanvasAgg(figure).draw()
    ranges = figure.axes[1]
    for axes in figure.axes:
        ticks = [t.get_text() for t in axes.get_yticklabels(which="both") if t.get_text()]
        assert ticks and not any("e" in t or "$" in t for t in ticks)
        for text in (axes.title, axes.yaxis.label, axes.xaxis.label):
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.y0 >= 0
            assert box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
    assert ranges.get_legend().get_window_extent().x0 >= ranges.bbox.x1


def test_the_matrix_puts_each_scenario_on_a_line_of_its_own():
    def predictor(mse):
        ranges = [{"log10_L": (3.5, 4.5), "rms_dex": mse**0.5, "rms_dex_error": 0.01}]
        return {"mse": mse, "mse_error": 0.1 * mse, "ranges": ranges}

    def row(name, mse, theirs):
        found = {key: predictor(mse * k) for k, key in enumerate(
            ("network", "mean_label", "scenario_mean", "floor"), 1
        )}  # fmt: skip
        beside = theirs and {"mse": theirs, "note": "", "ranges": [{"rms_dex": 0.2}]}
        return found | {"name": name, "published": beside}

    rows = [row("basic", 0.01, 0.066), row("breysse15", 0.5, None)]
    figure = matrix_figure({"scenarios": rows, "label": "counts", "bootstrap": {}})
    left = figure.axes[0]
    assert [t.get_text() for t in left.get_yticklabels()] == ["basic", "breysse15"]
    marks = {c.get_label(): c.lines[0].get_xydata() for c in left.containers}
    assert marks["network"].tolist() == [[0.01, 0], [0.5, 1]]
    assert marks["floor"].tolist() == [[0.04, 0], [2.0, 1]]
    assert line(left, "published").get_xydata().tolist() == [[0.066, 0]]
    assert png_size(figure) > 10_000


def test_loss_history_of_an_empty_run_is_an_empty_figure():
    assert png_size(figures.loss_history([])) > 1000


def test_map_slices_lie_as_on_the_sky():
    cube = np.arange(10 * 4 * 6, dtype=np.float32).reshape(10, 4, 6)
    maps = {"network input": cube, "light [uK]": 1e3 * cube}
    figure = map_slices(maps, fov_deg=(1.5, 1.0), nu_GHz=(34.0, 26.0), num_slices=3, title="li16")
    assert figure.get_suptitle() == "li16"
    panels = figure.axes[:3]
    assert [axes.get_title() for axes in panels] == ["33.60 GHz", "30.40 GHz", "26.40 GHz"]
    assert (panels[2].images[0].get_array() == cube[9]).all()
    assert panels[0].get_xlim() == (0.75, -0.75)  # east, positive ra, is left
    assert panels[0].images[0].get_extent() == [-0.75, 0.75, -0.5, 0.5]
    beside = figure.axes[3:6]  # each map on its own colours
    assert (beside[2].images[0].get_array() == 1e3 * cube[9]).all()
    assert beside[0].get_xlim() == (0.75, -0.75) and not beside[0].get_title()
    assert [axes.get_ylabel() for axes in figure.axes[6:]] == ["network input", "light [uK]"]
    assert png_size(figure) > 5_000


def test_map_slices_of_a_constant_cube():
    assert png_size(map_slices({"input": np.zeros((1, 4, 4), np.float32)})) > 1000


@pytest.mark.parametrize("fov_deg", [(2.0, 2.0), (8.0, 1.0), (1.0, 3.0)])
@pytest.mark.parametrize("number", [1, 2])
def test_maps_of_long_fields_fill_their_figures(fov_deg, number):
    """Maps and colour bars cover the figure but for words and ticks, whatever the field's shape."""
    shape = (6, round(16 * fov_deg[1]), round(16 * fov_deg[0]))
    maps = {f"map {k} [uK]": np.random.default_rng(k).normal(size=shape) for k in range(number)}
    figure = map_slices(maps, fov_deg=fov_deg, nu_GHz=(34.0, 26.0), title="a field")
    FigureCanvasAgg(figure).draw()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    low, high = min(box.y0 for box in boxes), max(box.y1 for box in boxes)
    left, right = min(box.x0 for box in boxes), max(box.x1 for box in boxes)
    title = 0.35 * figure.dpi
    assert high - low > 0.85 * (figure.bbox.height - title)
    assert right - left > 0.85 * figure.bbox.width
    filled = sum(axes.bbox.width * axes.bbox.height for axes in figure.axes if axes.images)
    assert filled > 0.35 * figure.bbox.width * figure.bbox.height


def test_all_colours_are_of_one_palette():
    """In streamtrain/figures.py, by name; matplotlib's own names are black, white and none."""
    for file in (ROOT / "streamtrain").rglob("*.py"):
        if file.name != "figures.py" or file.parent.name != "streamtrain":
            text = file.read_text(encoding="utf-8")
            strange = re.findall(
                r"""["']#[0-9A-Fa-f]{6}["']|colou?rs?=["'](?!white)\w+|cmap=["']|colormaps""", text
            )
            assert not strange, f"{file}: {strange}"
    assert len({NETWORK, REFERENCE, TRUTH, CHAIN, *SERIES}) == 8


def test_residuals_stay_on_their_axis(functions):
    """However wrong: 95 % of the maps are shown, up to a hundred times the truth."""
    predicted, true, occupied, _ = functions
    wild = predicted + np.linspace(-2.0, 2.0, 60)[:, None]
    axes = figures.residual_bands(wild, true, occupied, EDGES, published=published("basic")).axes[0]
    tops = [c.get_paths()[0].vertices[:, 1].max() for c in axes.collections]
    assert max(tops) > 50 and axes.get_ylim()[1] > max(tops) and axes.get_yscale() == "symlog"
