"""A prior before training: the numbers against the generator's own samples, figures, command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from support import reference as ref
from support import small

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cli.main import main
from streamtrain.config import load_config
from streamtrain.generator.generator import Generator
from streamtrain.machine.progress import Progress
from streamtrain.machine.workers import Resources
from streamtrain.preview import prior_figures
from streamtrain.preview.prior import (
    functions_of_sample,
    luminosity_functions,
    paint_samples,
    preview_prior,
    signal_generator,
    summary,
)
from streamtrain.preview.prior_figures import PaintedSamples

CONFIG = "configs/reference.yaml"
SETTINGS = ["data.train=[configs/reference_0000.h5]", "data.test=[]"]
EMIT = {"line": {"model": "li16", "prior": "wide"}}
INDICES = [*range(12), 10**12]
NOISE = {"noise": {"sigma_uK": 50.0}}
POOL = {"factor": [3, 7, 3]}


@pytest.fixture
def sky_file(small_sky: Lightcone, tmp_path: Path) -> Path:
    """The small sky as a file."""
    small_sky.save(tmp_path / "sky.h5")
    return tmp_path / "sky.h5"


def generator(sky: Lightcone, threads: int = 2, device: str = "cpu", **sections: Any) -> Generator:
    config = small.config(emit=EMIT, **sections)
    return Generator(config, "train", device, threads, lightcones=[sky])


def made_up(counts: Any, **changes: Any) -> PaintedSamples:
    """Samples of given counts [n, 4] between 10^4 and 10^6 Lsun, 1 uK each."""
    array = np.array(counts, np.int64)
    none = np.zeros(len(array), np.int64)
    given = {
        "counts": array,
        "above": none,
        "below": none,
        "saturated": none,
        "mean": np.ones(len(array)),
        "models": ["li16"] * len(array),
        "lightcones": ["sky"] * len(array),
        "bin_edges": np.linspace(4.0, 6.0, 5),
    }
    return PaintedSamples(**(given | changes))


@pytest.mark.parametrize(
    "observe",
    [
        NOISE,
        {"pool": {**POOL, "reduce": "mean"}, **NOISE},
        {"pool": {**POOL, "reduce": "sum"}, **NOISE, "log_modulus": {}},
        {**NOISE, "pool": {**POOL, "reduce": "sum"}},
    ],
    ids=lambda observe: "-".join(observe),
)
def test_the_mean_is_that_of_the_signal_alone(
    small_sky: Lightcone, observe: dict[str, Any]
) -> None:
    """Whatever is done to the map later, it is the mean over the voxels of the painted cube."""
    plain = generator(small_sky).generate(INDICES)
    signal = plain.cube.double().mean(dim=(1, 2, 3)).numpy()
    noisy = generator(small_sky, observe=observe)
    painted = paint_samples(noisy, INDICES)
    assert painted.mean == pytest.approx(signal, rel=1e-5, abs=1e-9)
    assert (painted.counts == plain.counts.numpy()).all()
    seen = noisy.generate(INDICES).cube.double().mean(dim=(1, 2, 3)).numpy()
    assert np.abs(seen / signal - 1).min() > 1e-3


def test_a_single_pixel_gives_the_same_numbers(sky_file: Path) -> None:
    """What the command paints into is no part of a sample."""
    pool = {"pool": {**POOL, "reduce": "sum"}}
    config = small.config(emit=EMIT, observe=pool, data={"train": [str(sky_file)]})
    fine, coarse = Generator(config), signal_generator(config)
    assert fine.painter.shape == (3, 3, 7) and coarse.painter.shape == (9, 1, 1)
    one, other = (paint_samples(each, INDICES) for each in (fine, coarse))
    assert (one.mean == other.mean).all() and (one.halos == other.halos).all()


def test_halos_outside_the_label(small_sky: Lightcone) -> None:
    """Those above and below are the counts of labels that look there."""
    painted = paint_samples(generator(small_sky), INDICES)
    for found, ends in ((painted.above, [7.0, 30.0]), (painted.below, [-30.0, 3.5])):
        other = generator(small_sky, label={"log10_L": ends, "bins": 1}).generate(INDICES)
        assert np.abs(found - other.counts[:, 0].numpy()).max() <= 1  # a halo on the edge
        assert found.max() > 100
    assert (painted.halos.sum(axis=1) > 3000).all()


def test_batches_and_threads_change_nothing(small_sky: Lightcone) -> None:
    many = range(70)
    one, other = (paint_samples(generator(small_sky, n), many) for n in (1, 3))
    assert (one.mean == other.mean).all() and (one.counts == other.counts).all()
    alone = paint_samples(generator(small_sky), [69])
    assert alone.mean[0] == one.mean[69] and len(one) == 70


@pytest.mark.gpu
def test_the_same_numbers_on_a_gpu(small_sky: Lightcone) -> None:
    cpu, gpu = (paint_samples(generator(small_sky, device=d), INDICES) for d in ("cpu", "cuda"))
    assert (cpu.mean == gpu.mean).all() and (cpu.halos == gpu.halos).all()


def test_percentiles_are_order_statistics(small_sky: Lightcone) -> None:
    """Of 40 samples the 1st, 7th, 20th, 34th and 39th, and for the mean what lies between."""
    painted = paint_samples(generator(small_sky), range(40))
    counts = np.sort(painted.counts, axis=0)
    assert (painted.count_percentiles() == counts[[0, 6, 19, 33, 38]]).all()
    mean = np.sort(painted.mean)
    expected = [np.interp(39 * q, np.arange(40), mean) for q in (0.025, 0.5, 0.975)]
    assert painted.mean_percentiles() == pytest.approx(expected)


def test_luminosity_functions_of_a_power_law() -> None:
    """dN/dL = 1e9 / L^2 integrates to known counts; phi is its mean over a bin, over V."""
    bin_edges, volume = np.linspace(3.0, 6.0, 31), 250.0
    edges = 10.0**bin_edges
    counts = np.round(1e9 * (1 / edges[:-1] - 1 / edges[1:])).astype(np.int64)
    found = luminosity_functions(counts, 1000, bin_edges, volume)
    assert found.above == pytest.approx(1e9 / edges[:-1], rel=1e-3)
    assert found.phi == pytest.approx(1e9 / (edges[1:] * edges[:-1]) / volume, rel=0.01)
    ratio = np.diff(edges) / np.log(edges[1:] / edges[:-1])  # the logarithmic mean of L
    assert found.phi_L == pytest.approx(found.phi * ratio)
    assert found.phi @ np.diff(edges) * volume == pytest.approx(counts.sum())
    assert found.phi_L @ np.diff(np.log(edges)) * volume == pytest.approx(counts.sum())


def test_densities_are_in_the_cosmology_of_the_lightcone(small_sky: Lightcone) -> None:
    """The integral of phi is N/V with V = Omega (chi_2^3 - chi_1^3) / 3."""
    other = replace(small_sky, cosmology={**small_sky.cosmology, "Omega_m": 0.4, "h": 0.6})
    painted, functions = functions_of_sample(generator(other), 3)
    near, far = (ref.comoving_distance(115.27 / nu - 1, 0.4, 0.6) for nu in (34.0, 26.0))
    side = np.deg2rad(0.8)
    volume = side * 2 * np.sin(side / 2) * (far**3 - near**3) / 3
    density = functions.phi @ np.diff(10**functions.bin_edges)
    assert density == pytest.approx(painted.counts.sum() / volume, rel=1e-5)
    assert functions.above[0] == painted.counts.sum() + painted.above.sum() > 100


def test_summary_counts_models_and_poor_draws() -> None:
    painted = made_up(
        [[900, 100, 0, 0], [999, 0, 0, 0], [5000, 0, 0, 0], [0, 0, 0, 0]],
        mean=np.array([1.0, 2.0, 3.0, 4.0]),
        models=["li16", "chung22", "chung22", "chung22"],
        above=np.array([0, 0, 300, 0]),
        below=np.array([10, 0, 0, 0]),
    )
    lines = summary(painted, "uK").splitlines()
    assert lines[0] == "4 training samples: chung22 3, li16 1"
    assert "median 2.5 uK, 95 % of the samples in 1.07 .. 3.92 uK" in lines[1]
    assert "0.1 % below 10^4 Lsun, 95.8 % inside 10^4 .. 10^6 Lsun, 4.1 % above" in lines[2]
    assert lines[3].endswith("fewer than 1000 halos inside: 50.0 %") and len(lines) == 4
    assert lines[1].startswith("mean signal <T>: ")
    assert summary(painted, "Jy/sr").splitlines()[1].startswith("mean signal <I>: median 2.5 Jy/sr")
    lost = replace(painted, above=np.array([400, 0, 300, 0]))
    assert summary(lost, "uK").splitlines()[4].startswith("warning: 9.1 % of all halos lie above")
    faint = replace(painted, below=np.array([4000, 0, 0, 0]))
    assert "warning" not in summary(faint, "uK")
    bright = replace(painted, saturated=np.array([0, 2, 0, 1]))
    told = summary(bright, "uK").splitlines()[4]
    assert told.startswith("warning: 2 samples hold halos too") and "grid.brightest_Lsun" in told


def line(axes: Axes, label: str) -> Any:
    return next(item for item in axes.lines if str(item.get_label()).startswith(label))


def test_prior_figure_marks_empty_bins_and_names_percentiles() -> None:
    """A percentile of no halo is drawn at the tick '0', below the break."""
    counts = [[100, 10, 0, 0], [200, 20, 1, 0], [300, 30, 2, 0]]
    painted = made_up(counts, mean=np.array([1.0, 10.0, 0.0]), above=np.array([10, 20, 30]))
    figure = prior_figures.prior(painted, "uK")
    figure.canvas.draw()
    functions, means, shares = figure.axes
    assert line(functions, "median").get_ydata().tolist() == [200, 20, 1, prior_figures.FLOOR]
    ticks = dict(zip(functions.get_yticks(), functions.get_yticklabels(), strict=True))
    assert ticks[prior_figures.FLOOR].get_text() == "0"
    low, _ = functions.get_ylim()
    assert low < prior_figures.FLOOR < prior_figures.BREAK < 1
    assert [line(functions, "single").get_ydata()[k] for k in (0, 2)] == [
        100,
        prior_figures.FLOOR,
    ]
    heading = means.get_title()
    assert "2.5 %: 0.05,  median: 1,  97.5 %: 9.55 $\\mu$K" in heading
    assert "without any signal, not shown: 1" in heading
    assert sum(patch.get_height() for patch in means.patches) == 2
    texts = [text.get_text() for text in shares.get_legend().get_texts()]
    assert texts == ["below: 0.0 %", "inside: 91.7 %", "above: 8.3 %"]


def test_prior_figure_of_several_models() -> None:
    counts = [[100, 10, 1, 0]] * 3 + [[50, 40, 30, 20]] * 2
    painted = made_up(counts, models=["li16"] * 3 + ["chung22"] * 2)
    functions, means, shares = prior_figures.prior(painted, "Jy/sr").axes
    assert line(functions, "chung22").get_ydata().tolist() == [50, 40, 30, 20]
    assert line(functions, "li16").get_ydata()[:3].tolist() == [100, 10, 1]
    assert [label.get_text() for label in shares.get_yticklabels()] == ["chung22", "li16"]
    assert "Jy/sr" in means.get_xlabel()


def test_luminosity_figure_is_normalised_and_says_by_what() -> None:
    functions = luminosity_functions(np.array([100, 10, 0, 1]), 3, np.linspace(4, 6, 5), 1000.0)
    (axes,) = prior_figures.luminosity(functions, "sample").axes
    assert line(axes, "$N(>L)").get_ydata() == pytest.approx(np.array([114, 14, 4, 4]) / 114)
    assert line(axes, "$N(>L)").get_xdata() == pytest.approx(10 ** np.linspace(4, 5.5, 4))
    density = line(axes, r"$\phi L")
    assert density.get_ydata() == pytest.approx([1, 0.1, np.nan, 0.01], nan_ok=True)
    assert density.get_xdata() == pytest.approx(10 ** np.linspace(4.25, 5.75, 4))
    steep = np.array([1, 0.1, np.nan, 0.01]) * 10 ** -np.linspace(0, 1.5, 4)
    assert line(axes, r"$\phi = ").get_ydata() == pytest.approx(steep, nan_ok=True)
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts[0].endswith("maximum 114")
    assert texts[1].endswith(r"$4.62\times10^{-6}$ Mpc$^{-3}\,L_\odot^{-1}$")  # 0.1/(21623 Lsun)
    assert texts[2].endswith(r"0.0869 Mpc$^{-3}$")  # 0.1 / ln(10^0.5)


def test_luminosity_figure_of_a_dark_map() -> None:
    functions = luminosity_functions(np.zeros(4, np.int64), 0, np.linspace(4, 6, 5), 1.0)
    (axes,) = prior_figures.luminosity(functions).axes
    assert not axes.lines and axes.texts[0].get_text().startswith("no halo")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two figures in the run folder, or in --out; the volume is that of the sample's lightcone."""
    command = ["preview", CONFIG, "--prior", "--samples", "5", "--device", "cpu", *SETTINGS]
    assert main([*command, f"run={tmp_path / 'run'}"]) == 0
    printed = capsys.readouterr().out
    assert "5 training samples: li16 5" in printed and "<T>: median" in printed
    for name in ("prior.png", "luminosity.png"):
        assert str(tmp_path / "run" / name) in printed
        assert (tmp_path / "run" / name).read_bytes().startswith(b"\x89PNG")
    own = load_config(CONFIG, [*SETTINGS, f"run={tmp_path / 'run'}"])
    (tmp_path / "run" / "config.yaml").write_text(own.to_yaml())
    for kind in ([], ["--index", "3"]):  # of a run there is only what its own settings make
        assert main([*command, f"run={tmp_path / 'run'}", *kind, "seed=99"]) == 2
        assert (
            "its own settings: seed = 20190525 in the run, 99 here; --out"
            in capsys.readouterr().err
        )
    assert main([*command, "--index", "3", "--out", str(tmp_path / "out")]) == 0
    first, third = (tmp_path / folder / "luminosity.png" for folder in ("run", "out"))
    assert first.read_bytes() != third.read_bytes()
    names = ("run", "out")
    assert len({(tmp_path / folder / "prior.png").read_bytes() for folder in names}) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.train=[]"], "data.train names no lightcone: name some, as in"),
        (["data.train=[nowhere/*.h5]"], "data.train: no file matches 'nowhere/*.h5'"),
        (["--samples", "0"], "--samples 0: a preview needs one sample or more"),
        (["--index", "-1"], "sample index -1 is outside 0..2^64-1"),
    ],
)
def test_mistakes_get_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = f"run={tmp_path / 'run'}"
    assert main(["preview", CONFIG, "--prior", "--device", "cpu", *SETTINGS, run, *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"streamtrain: {message}") and said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_interrupted_preview_writes_nothing(sky_file: Path, tmp_path: Path) -> None:
    class Interrupted(Progress):
        def update(self, text: str) -> None:
            raise KeyboardInterrupt

    config = small.config(data={"train": [str(sky_file)]}, run=str(tmp_path / "run"))
    with pytest.raises(KeyboardInterrupt):
        preview_prior(config, samples=100, resources=Resources("cpu", 2, Interrupted()))
    assert not (tmp_path / "run").exists()
