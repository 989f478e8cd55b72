"""The joint posterior of a luminosity function: bands in closed form, integrals by direct sums."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats
from support.network_tools import label_of, labels_from

from streamtrain import Grid, Posterior
from streamtrain.evaluate.alarm.alarm import Alarm
from streamtrain.evaluate.posterior.figures import with_errors
from streamtrain.evaluate.posterior.functions import Curve, functionals, simultaneous_band
from streamtrain.evaluate.posterior.posterior import Source
from streamtrain.networks.network import build_head

Float = NDArray[np.float64]
BINS = 7


def curve(samples: Float) -> Curve:
    return Curve(samples, np.ones(samples.shape[1]), "counts")


def posterior(name: str = "joint_counts", number: int = 500, **label: Any) -> Posterior:
    """Of a head with some weights, which says something of a map that there is none of."""
    made = label_of(BINS, **label)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        head = build_head(name, made)
        rates = torch.exp(torch.linspace(6.0, -1.0, BINS) + torch.randn(200, 1))
        counts = torch.poisson(rates)
        unit_label = made.unit_label(np.zeros(1, np.int64))
        head.set_normalisation(labels_from(made, counts), counts, unit_label)
        prediction = head(0.1 * torch.randn(1, head.num_numbers)).detach()
    source, unit = Source(head, prediction), made.unit_of(unit_label)
    return Posterior(
        source.draw(number, 0),
        made.bins.edges,
        made.config.quantity,
        np.ones(BINS) if unit is None else unit[0],
        tuple(functionals(made.bins, Grid())),
        head.joint,
        0,
        source=source,
    )


@pytest.mark.parametrize("level", [0.68, 0.95])
def test_band_of_independent_bins(level: float) -> None:
    """Each of K bins has the K-th root of the level. The error of a quantile of S samples at the
    tail t of a normal distribution is sqrt(t (1 - t) / S) / phi."""
    num, bins = 20_000, 5
    samples = np.random.default_rng(1).normal(size=(num, bins)) * np.arange(1, bins + 1)
    low, high = curve(samples).band(level) / np.arange(1, bins + 1)
    tail = 0.5 * (1.0 - level ** (1.0 / bins))
    expected = -stats.norm.ppf(tail)
    error = np.sqrt(tail * (1.0 - tail) / num) / stats.norm.pdf(expected)
    assert high == pytest.approx(expected, abs=4.0 * error)
    assert low == pytest.approx(-expected, abs=4.0 * error)


@pytest.mark.parametrize("level", [0.68, 0.95])
def test_band_of_bins_that_are_one_number_is_the_interval(level: float) -> None:
    """To one order statistic, of 4000."""
    one = np.random.default_rng(2).normal(size=4000)
    whole = curve(np.stack([one, 3.0 * one, 5.0 + one], axis=1))
    order = np.searchsorted(np.sort(one), one)
    band, interval = whole.band(level), whole.interval(level)
    for ends, sample in zip((band, interval), (one, one), strict=True):
        assert ends[:, 1] == pytest.approx(3.0 * ends[:, 0]) and sample is one
        assert ends[:, 2] == pytest.approx(5.0 + ends[:, 0])
    rank = [order[one == end][0] for end in (*band[:, 0], *interval[:, 0])]
    assert abs(rank[0] - rank[2]) <= 1 and abs(rank[1] - rank[3]) <= 1
    assert rank[1] - rank[0] >= level * 4000


def test_band_holds_new_functions_as_often_as_it_says() -> None:
    """Not only the samples that it is made of: 1000 samples of 20 bins that hang together."""
    rng, bins = np.random.default_rng(3), 20
    mixing = np.linalg.cholesky(0.5 + 0.5 * np.eye(bins))
    held, new = [], []
    for _ in range(40):
        (low, high), said = simultaneous_band(rng.normal(size=(1000, bins)) @ mixing.T, 0.95)
        others = rng.normal(size=(2000, bins)) @ mixing.T
        held.append(said)
        new.append(((others >= low) & (others <= high)).all(axis=1).mean())
    error = np.std(new) / np.sqrt(len(new))
    assert error < 0.002 and min(held) >= 0.95
    assert np.mean(new) == pytest.approx(np.mean(held), abs=4.0 * error)


@pytest.mark.parametrize("level", [0.3, 0.68, 0.9])
def test_band_by_its_definition(level: float) -> None:
    """Of counts, which have ties: each function is taken out and looked at with the others' band,
    whose ends are their m-th lowest and highest; the largest m that holds enough is taken."""
    halos = np.random.default_rng(6).poisson([0.3, 2.0, 40.0], (60, 3)).astype(float)
    shares = []
    for order in range(1, 30):
        inside = []
        for k, function in enumerate(halos):
            others = np.sort(np.delete(halos, k, axis=0), axis=0)
            inside.append(((function >= others[order - 1]) & (function <= others[-order])).all())
        shares.append(np.mean(inside))
    order = max(m for m, share in enumerate(shares, 1) if share >= level)
    (low, high), held = simultaneous_band(halos, level)
    ordered = np.sort(halos, axis=0)
    assert np.array_equal(low, ordered[order - 1]) and np.array_equal(high, ordered[-order])
    assert held == pytest.approx(shares[order - 1])


def test_too_few_functions_for_a_band() -> None:
    samples = np.random.default_rng(4).normal(size=(100, 49))
    message = r"a simultaneous 95 % band needs more than 100 functions: the range of them all holds"
    with pytest.raises(ValueError, match=message):
        curve(samples).band(0.95)
    with pytest.raises(ValueError, match=r"holds 8\d\.0 % of new ones"):
        curve(samples[:, :8]).band(0.95)
    low, high = curve(samples[:, :5]).band(0.68)
    assert (low > samples.min(0)[:5]).all() and (high < samples.max(0)[:5]).all()


def test_quantiles_are_whole_samples() -> None:
    halos = np.random.default_rng(5).poisson([0.1, 2.5], (1001, 2)).astype(float)
    found = curve(halos).quantiles([0.0, 0.3, 0.5, 1.0])
    ordered = np.sort(halos, axis=0)
    assert np.array_equal(found, ordered[[0, 300, 500, 1000]])
    for wrong in ([1.5], 0.5, [[0.5]]):
        with pytest.raises(ValueError, match=r"levels must be a list of numbers in 0\.\.1, not"):
            curve(halos).quantiles(wrong)
    with pytest.raises(ValueError, match=r"level = 95 must lie between 0 and 1"):
        curve(halos).band(95)


def test_intervals_are_those_of_the_distribution() -> None:
    """Of a negative binomial head, whose own quantiles are scipy's."""
    found = posterior("negative_binomial", 40_000)
    assert found.source is not None
    head, unit_label = found.source.head, torch.zeros(1, BINS)
    exact = head.spread(found.source.prediction, unit_label, (0.16, 0.84))
    assert exact is not None
    counts = 10.0 ** exact[:, 0].numpy()
    counts[counts == 1.0] = found.interval(0.68)[counts == 1.0]  # none or one, in the log10 scale
    assert found.interval(0.68) == pytest.approx(counts, rel=0.03, abs=1.0)
    assert (found.interval(0.68) >= 0.0).all() and found.interval(0.68)[1, 0] > 300


@pytest.mark.parametrize("quantity", ["counts", "phi_L"])
def test_numbers_of_a_posterior_are_those_of_its_samples(quantity: str) -> None:
    """Integrals and N(>L) do not depend on what the label counts."""
    found = posterior(quantity=quantity)
    halos = found.samples
    assert halos.shape == (500, BINS) and (halos == np.rint(halos)).all()
    assert found.quantiles([0.4]) == pytest.approx(np.sort(halos, 0)[[199]] * found.unit)
    assert (found.unit == 1.0).all() == (quantity == "counts")
    above = np.array([[row[k:].sum() for k in range(BINS)] for row in halos])
    assert np.array_equal(found.above.samples, above)
    assert found.above.L_Lsun == pytest.approx(10.0 ** found.bin_edges[:-1])
    assert found.function.L_Lsun == pytest.approx(np.sqrt(10.0 ** (2 * found.bin_edges[:-1] + 0.5)))
    edges = found.bin_edges  # 3.5 to 7 in steps of 0.5
    bright = found.functional("N(>10^6)")
    k = int(np.abs(edges - 6.0).argmin())
    assert bright.interval_95 == tuple(found.above.interval(0.95)[:, k])
    assert bright.interval_68 == tuple(found.above.interval(0.68)[:, k])
    assert bright.median == found.above.quantiles([0.5])[0, k]
    assert bright.mean == pytest.approx(halos[:, k:].sum(1).mean())
    mean_L = np.diff(10.0**edges) / np.diff(edges) / np.log(10.0)
    density = halos @ mean_L / Grid().volume_Mpc3()
    assert found.values("rho_L") == pytest.approx(density)
    rho = found.functional("rho_L")
    assert rho.interval_95 == pytest.approx(np.sort(density)[[12, 487]])
    assert rho.unit == "Lsun Mpc-3" and "10^7 Lsun" in found.outside

    def light_of_bright(counts: Float) -> Float:
        return counts[:, 4:] @ mean_L[4:] / (counts @ mean_L)

    share = found.functional(light_of_bright)
    assert share.name == "light_of_bright" and share.unit == ""
    assert share.median == np.sort(light_of_bright(halos))[249]
    assert share.to_dict()["low_68"] == np.sort(light_of_bright(halos))[79]


def test_bins_hang_together_in_integrals() -> None:
    """The error of a sum is that of the samples, not that of independent bins."""
    found = posterior(number=4000)
    rng = np.random.default_rng(0)
    apart = np.stack([rng.permutation(column) for column in found.samples.T], axis=1)
    shuffled = replace(found, samples=apart)
    assert np.allclose(found.interval(0.68), shuffled.interval(0.68))
    widths = [
        np.ptp(np.log(each.functional("rho_L").interval_68 or ())) for each in (found, shuffled)
    ]
    assert widths[0] > 1.3 * widths[1]


@pytest.mark.parametrize("name", ["poisson", "negative_binomial"])
def test_independent_bins_have_no_integrals_with_errors(name: str) -> None:
    found = posterior(name)
    assert not found.joint and found.band(0.95).shape == (2, BINS)
    assert (found.band(0.95)[1] >= found.interval(0.95)[1]).all()
    number = found.functional("N(>10^6)")
    assert (number.median, number.interval_68, number.interval_95) == (None, None, None)
    assert number.mean == pytest.approx(found.samples[:, 5:].sum(1).mean())
    assert number.to_dict().keys() == {"unit", "meaning", "mean"}
    assert str(number).endswith("(mean, error not known)")
    sentence = r"interval here: this network predicts the bins independently .*joint_counts"
    with pytest.raises(ValueError, match=r"N\(>L\) has no " + sentence):
        _ = found.above
    with pytest.raises(ValueError, match="rho_L has no " + sentence):
        found.values("rho_L")
    assert not found.plot().axes[1].collections
    texts = found.plot().axes[1].get_title()
    assert "no errors, as the bins are independent" in texts and "^{+" not in texts


def test_a_seed_draws_the_same_functions() -> None:
    found = posterior()
    assert np.array_equal(found.sample(500, 0), found.samples)
    assert np.array_equal(found.sample(3, 8), found.sample(3, 8))
    assert not np.array_equal(found.sample(500, 8), found.samples)
    for number, seed, message in (
        (0, 1, "number = 0 must be 1 or more"),
        (2.5, 1, "number must be a whole number"),
        (3, -1, "seed = -1 is outside"),
        (3, 2**63, "seed = 9223372036854775808 is outside"),
    ):
        with pytest.raises(ValueError, match=message):
            found.sample(number, seed)  # type: ignore[arg-type]


def test_log_probability_is_the_heads() -> None:
    found = posterior("poisson")
    assert found.source is not None
    rates = found.source.prediction.double().exp().numpy()[0]
    expected = stats.poisson.logpmf(found.samples[:4], rates).sum(1)
    assert found.log_prob(found.samples[:4]) == pytest.approx(expected, rel=1e-9)
    assert found.log_prob(found.samples[0].astype(int)) == pytest.approx(expected[0])
    assert found.log_prob(found.samples[0]).shape == ()
    joint = posterior()
    inside = joint.log_prob(joint.samples)
    assert inside.shape == (500,) and inside.mean() > joint.log_prob(joint.samples + 5000.0).max()
    for counts, message in (
        (np.ones(3), r"counts has the shape \(3,\), not \(7,\) or \(n, 7\)"),
        (np.full(BINS, 0.5), "must be halos per bin, whole numbers up to 2.53, not 0.5"),
        (np.full(BINS, -1.0), "whole numbers up to .*, not -1"),
        (np.full(BINS, np.nan), "whole numbers up to .*, not nan"),
        (["a"] * BINS, "log_prob: counts must be numbers"),
        (np.ma.masked_less(np.arange(BINS), 2), "log_prob: counts: 2 are masked, and so have no"),
        (np.full(BINS, 1e300), r"whole numbers up to 2\^53, not 1e\+300"),
    ):
        with pytest.raises(ValueError, match=message):
            found.log_prob(counts)


def test_bad_functionals() -> None:
    found = posterior()
    with pytest.raises(ValueError, match=r"functional 'rho' is none of N\(>10\^5\), .*rho_L, <T>"):
        found.functional("rho")
    with pytest.raises(ValueError, match=r"one number per sample, shape \(500,\), not \(7,\)"):
        found.functional(lambda counts: counts.sum(0))
    with pytest.raises(ValueError, match=r"empty is NaN or infinite for 500 of 500 samples"):

        def empty(counts: Float) -> Float:
            return np.full(len(counts), np.nan)

        found.functional(empty)
    for given, message in (
        (lambda n: n.sum(1) + 1j, "must be numbers, not complex numbers"),
        (lambda n: np.ma.masked_less(n.sum(1), 1e9), "is masked for 500 of 500 samples"),
        (lambda n: ["1"] * len(n), "must be numbers, not '1'"),
        (lambda n: None, "must be numbers, not a NoneType"),
        (3, "a functional is a name or a function, not 3"),
    ):
        for ask in (found.functional, found.values):
            with pytest.raises(ValueError, match=message):
                ask(given)  # type: ignore[arg-type]


def test_too_many_functions_at_a_time() -> None:
    with pytest.raises(ValueError, match=r"number = 1\d+ must be 1000000 or less"):
        posterior().sample(10**13, 0)  # which no memory holds


def test_a_functional_may_change_what_it_is_given() -> None:
    found = posterior()
    before, rho = found.samples.copy(), found.functional("rho_L")

    def brightest(counts: Float) -> Float:
        counts.sort(axis=0)
        return counts[:, -1]

    found.functional(brightest)
    found.values(brightest)
    assert np.array_equal(found.samples, before) and found.functional("rho_L") == rho


def test_a_functional_keeps_its_unit_and_truth_values_are_probabilities() -> None:
    units = pytest.importorskip("astropy.units")
    found = posterior()
    total = found.samples.sum(1)
    light = found.functional(lambda n: n.sum(1) * units.Lsun)
    assert (light.unit, light.median) == ("solLum", found.functional(lambda n: n.sum(1)).median)
    many = total > np.median(total)
    for given in (lambda n: many, lambda n: torch.from_numpy(many)):
        assert found.functional(given).mean == many.mean()


def test_levels_that_are_none() -> None:
    found = posterior()
    for level in ("0.68", None, [0.68, 0.95], True, 68, np.nan):
        for ask in (found.interval, found.band, found.above.interval, found.above.band):
            with pytest.raises(ValueError, match="level "):
                ask(level)  # type: ignore[arg-type]
    for levels in (["a"], [None], 0.5, [2.0], [np.nan], "0.5"):
        with pytest.raises(ValueError, match="quantiles: levels "):
            found.quantiles(levels)
    assert np.array_equal(found.interval(np.float32(0.5)), found.interval(0.5))
    assert np.array_equal(found.band(1e-12), found.band(1e-6))


def test_kept_and_read_again(tmp_path: Path) -> None:
    found = replace(posterior(), notes=("a note",), warnings=("one", "two"))
    again = pickle.loads(pickle.dumps(found))
    assert np.array_equal(again.sample(5, 2), found.sample(5, 2))
    found.save(tmp_path / "p.npz")
    np.savez(tmp_path / "q.npz", **found.to_dict())
    with np.load(tmp_path / "q.npz") as data:
        read = [Posterior.load(tmp_path / "p.npz"), Posterior.from_dict(data)]
    for other in read:
        assert np.array_equal(other.samples, found.samples)
        assert other.estimates() == found.estimates() and repr(other) == repr(found)
        assert (other.seed, other.notes, other.warnings) == (0, ("a note",), ("one", "two"))
        with pytest.raises(ValueError, match="was read from a file, without the network"):
            other.log_prob(found.samples[0])
        with pytest.raises(ValueError, match=r"Run\.infer makes one"):
            other.sample(3, 3)
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", samples=np.ones(3))
    for name in ("text.npz", "other.npz"):
        with pytest.raises(ValueError, match=rf"{name}: .*is no") as caught:
            Posterior.load(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"gone\.npz"):
        Posterior.load(tmp_path / "gone.npz")
    with pytest.raises(ValueError, match="saved by the name of a file, not None"):
        found.save(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["samples", "log10_L_edges", "one_halo", "functional_weights"])
def test_arrays_that_do_not_fit_are_no_posterior(name: str) -> None:
    data = posterior().to_dict()
    for given in (data[name][..., :-1], data[name].ravel()[0], data[name][:0]):
        with pytest.raises(ValueError, match="this is no posterior"):
            Posterior.from_dict(data | {name: given})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("samples", lambda n: n * np.nan, "its samples are not all numbers of halos"),
        ("samples", np.negative, "its samples are not all numbers of halos"),
        ("log10_L_edges", np.flip, "its log10_L_edges do not rise"),
        ("one_halo", np.zeros_like, "its one_halo is not positive in every bin"),
        ("quantity", lambda name: name[::-1], "its quantity is none of counts, "),
    ],
)
def test_numbers_without_a_meaning_are_no_posterior(name: str, change: Any, message: str) -> None:
    data = posterior().to_dict()
    with pytest.raises(ValueError, match=f"this is no posterior: {message}"):
        Posterior.from_dict(data | {name: change(data[name])})
    del data[name]
    with pytest.raises(ValueError, match=f"this is no posterior: it has no '{name}'"):
        Posterior.from_dict(data)


def test_what_is_printed() -> None:
    found = replace(posterior(), warnings=("the map is unlike the others",))
    assert repr(found) == (
        "Posterior(500 functions, 7 bins of log10 L/Lsun = 3.5..7, counts, joint, 1 warning)"
    )
    lines = str(found).splitlines()
    assert lines[0] == "warning   the map is unlike the others"
    assert [line.split()[0] for line in lines[2:5]] == ["N(>10^5)", "N(>10^6)", "N(>10^6.5)"]
    assert lines[-1].startswith("halos below 10^3.5 or above 10^7 Lsun, outside the bins, are left")
    assert re.match(r"rho_L = \d[\d.e+]* \+\S+ -\S+ Lsun Mpc-3$", str(found.functional("rho_L")))
    estimate = replace(
        found.functional("rho_L"), median=1859.0, interval_68=(1635.4, 2125.6), unit="Lsun Mpc-3"
    )
    assert str(estimate) == "rho_L = 1859 +267 -224 Lsun Mpc-3"


def test_the_prior_stands_beside_what_a_map_says(tmp_path: Path) -> None:
    """A number that is known a little better than without the map is named; one that is known much
    better, and one that the prior knows, are not."""
    found = posterior()
    rho, above = found.functional("rho_L"), found.functional("N(>10^6)")
    low, high = rho.interval_68 or (0.0, 0.0)
    prior = {
        "rho_L": (0.5 * low, low**1.1 / high**0.1, rho.value, high**1.1 / low**0.1, 2.0 * high),
        "N(>10^5)": (7.0,) * 5,
        "N(>10^6)": (0.0, 1e-3 * above.value, 1.0, 1e3 * above.value, 1e6),
    }
    found = replace(found, alarm=Alarm(0.5, {}, (), 300, "2 skies", prior))
    assert found.functional("rho_L").of_prior == pytest.approx(1.0 / 1.2)
    assert found.functional("N(>10^5)").of_prior is None
    assert found.functional("N(>10^6)").of_prior < 0.2  # type: ignore[operator]
    assert found.functional(lambda n: n.sum(1)).prior_68 is None
    lines = found.lines()
    assert "prior's 68 %" in lines[0] and "7 .. 7" in "\n".join(lines)
    assert "this map tells little of rho_L: their 68 % are more than 0.7 times" in " ".join(lines)
    assert "(nearly the prior's: rho_L)" in found._shown().texts
    found.save(tmp_path / "p.npz")
    again = Posterior.load(tmp_path / "p.npz")
    assert again.lines() == lines and again.estimates() == found.estimates()
    assert again.functional("rho_L").to_dict()["prior_low_68"] == prior["rho_L"][1]


@pytest.mark.parametrize(
    ("p", "word"),
    [(0.5, "no alarm"), (0.05, "no alarm"), (0.04, "unusual"), (0.009, "extrapolated")],
)
def test_what_a_map_is_called(p: float, word: str) -> None:
    alarm = Alarm(p, {}, (), 300, "2 skies")
    assert alarm.word == word and alarm.extrapolated == (word == "extrapolated")
    assert str(alarm).startswith(f"p = {p:.2g} " if p >= 0.05 else f"{word}, p = {p:.2g} ")
    assert f"\n{word}: p = {p:.2g}" in replace(posterior(), alarm=alarm).plot().get_suptitle()


def test_figure(tmp_path: Path) -> None:
    found = posterior(number=4000)
    figure = found.plot(tmp_path / "p.png", title="a map", true=found.samples[0])
    assert (tmp_path / "p.png").stat().st_size > 20_000
    left, right = figure.axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == [  # type: ignore[union-attr]
        "whole curve, 95 %", "each bin alone, 95 %", "each bin alone, 68 %", "median", "true"
    ]  # fmt: skip
    for axes, drawn in ((left, found.function), (right, found.above)):
        ends = [fill.get_paths()[0].vertices for fill in axes.collections]
        expected = [drawn.band(0.95), drawn.interval(0.95), drawn.interval(0.68)]
        for vertices, (_, high) in zip(ends, expected, strict=True):
            assert np.asarray(vertices)[:, 1].max() == pytest.approx(high.max())
    words = right.get_title()
    assert words.count("^{+") == 5 and r"$\rho_L$" in words
    assert figure.get_suptitle() == "a map\nalarm off"
    named = replace(found, network="mine, step 9", alarm=Alarm(0.004, {}, (), 300, "2 skies"))
    told = "network mine, step 9; extrapolated: p = 0.004 among 300 maps like those of the training"
    assert named.plot().get_suptitle().endswith(told)
    named = replace(named, network=50 * "x")
    assert named.plot().get_suptitle().split("\n")[1] == f"network {50 * 'x'}"
    axes = Figure().subplots()
    assert found.plot(axes, title="alone") is axes.get_figure()
    assert axes.get_title() == "alone" and len(axes.collections) == 3
    with pytest.raises(ValueError, match=r"true has the shape \(3,\), not \(7,\)"):
        found.plot(true=np.ones(3))


def test_figures_that_cannot_be_drawn(tmp_path: Path) -> None:
    found = posterior()
    one = found.samples[0]
    for target in (found.plot(), [found.plot().axes[0]], 3):
        with pytest.raises(ValueError, match="target is the name of a PNG file or axes, not "):
            found.plot(target)  # type: ignore[arg-type]
    for name in ("p.pdf", "p", "p.png.gz"):  # which would hold a PNG all the same
        with pytest.raises(ValueError, match=rf"{name}: a figure is written as PNG"):
            found.plot(tmp_path / name)
    assert not list(tmp_path.iterdir())
    for true, message in (
        (one + 1j, "must be numbers, not complex"),
        (["a"] * BINS, "must be numbers, not 'a'"),
        (np.ma.masked_less(np.arange(BINS), 2), "2 are masked, and so have no value"),
        (one[:3], r"true has the shape \(3,\), not \(7,\)"),
    ):
        with pytest.raises(ValueError, match=f"plot: true.*{message}|plot: {message}"):
            found.plot(true=true)


def test_tails_do_not_set_the_axes() -> None:
    """A band that reaches far above the intervals of bins is cut off, and the legend says where it
    ends; the truth is in sight wherever it lies."""
    found = posterior(number=4000)
    samples = found.samples.copy()
    samples[:40, 2] = 1e12  # more than the band leaves out, fewer than an interval
    wild = replace(found, samples=samples)
    assert wild.band(0.95)[1].max() == 1e12
    left, right = wild.plot().axes
    for axes, drawn in ((left, wild.function), (right, wild.above)):
        assert axes.get_ylim()[1] == pytest.approx(3.0 * drawn.interval(0.95)[1].max())
    labels = [text.get_text() for text in left.get_legend().get_texts()]  # type: ignore[union-attr]
    assert labels[0] == "whole curve, 95 %, up to 1e+12"
    true = np.full(BINS, 1e9)
    assert wild.plot(true=true).axes[0].get_ylim()[1] == pytest.approx(3e9)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (("rho_L", "Lsun Mpc-3", 754.0, (700.0, 813.0)),
         r"$\rho_L$ = $754^{+59}_{-54}$ $L_\odot$ Mpc$^{-3}$"),
        (("N(>10^6.5)", "", 1.234e6, (1.1e6, 1.4e6)),
         r"$N(>10^{6.5}\,L_\odot)$ = $1.23^{+0.17}_{-0.13}\times 10^{6}$"),
        (("<T>", "uK", 0.00521, None), r"$\langle T \rangle$ = $5.21\times 10^{-3}$ $\mu$K"),
        (("N(>10^6)", "", 0.0, (0.0, 0.0)), r"$N(>10^{6}\,L_\odot)$ = 0"),
        (("N(>10^6)", "", 0.0, (0.0, 2.0)), r"$N(>10^{6}\,L_\odot)$ = $0^{+2}_{-0}$"),
    ],
)  # fmt: skip
def test_a_number_with_its_errors(given: Any, text: str) -> None:
    assert with_errors(*given) == text
