"""Samples and posteriors as sbi takes them; sbi's diagnostics on posteriors that are known exactly.

What needs sbi is skipped where it is not installed: `pip install sbi`.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from support import ROOT, small
from support import map_runs as runs
from torch import Tensor

from streamtrain import Generator, Run
from streamtrain.config import Config
from streamtrain.evaluate.for_sbi import (
    BATCH_SIZE,
    SbiPosterior,
    counts_of,
    simulations,
    stream,
    theta_of,
)
from streamtrain.networks.heads import Head
from streamtrain.ranks import RankedTruth, p_value, tell_apart

pytestmark = small.EXTRAPOLATES

SHAPE, EXPOSURE = 4.0, 5.0
"""Of the gamma prior of a brightness, whose mean is 1; Poisson mean of what measures it."""
ONE = torch.ones(1, 1, 1)
"""A map."""
UNIT = (200.0, 30.0, 0.7)
"""Mean halos per bin of the toy."""
MAPS, DRAWS = 2000, 100
NARROW = 0.8
"""The factor of the widths of a posterior that is wrong."""


class ToyHead(Head):
    """Halos per bin are Poisson numbers around a common brightness that the map measures: their
    posterior is a negative multinomial distribution, in closed form, and its bins hang together.

    width: of the brightness' posterior, in units of the exact one.
    """

    def __init__(self, unit: tuple[float, ...], width: float) -> None:
        torch.nn.Module.__init__(self)
        self.unit, self.squeeze = torch.tensor(unit, dtype=torch.float64), width**-2
        self.num_outputs = len(unit)

    def of_brightness(self, measured: Tensor) -> tuple[Tensor, float]:
        """Shape [B] and rate of the gamma distribution that the brightness has."""
        return (SHAPE + measured.double()[:, 0]) * self.squeeze, (SHAPE + EXPOSURE) * self.squeeze

    def sample(self, prediction: Tensor, number: int, generator: torch.Generator) -> Tensor:
        shape, rate = self.of_brightness(prediction)
        brightness = torch._standard_gamma(shape.expand(number, -1), generator=generator) / rate
        return torch.poisson(brightness[..., None] * self.unit, generator=generator)

    def log_prob(self, prediction: Tensor, counts: Tensor) -> Tensor:
        shape, rate = self.of_brightness(prediction)
        total, whole = counts.sum(-1), rate + self.unit.sum()
        found = torch.lgamma(shape + total) - torch.lgamma(shape)
        found = found + shape * math.log(rate / whole)
        share = counts * (self.unit / whole).log() - torch.lgamma(counts + 1)
        return found + share.sum(-1)


def toy(width: float = 1.0, unit: tuple[float, ...] = UNIT) -> SbiPosterior:
    """The posterior of a map of one voxel, which is the number that measures the brightness."""

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = ToyHead(unit, width)
            self.input_mean = torch.zeros(1)

        def forward(self, cube: Tensor) -> Tensor:
            return cube.flatten(1)

    return SbiPosterior(Network(), (1, 1, 1))  # type: ignore[arg-type]


def toy_maps(number: int = MAPS, seed: int = 1) -> tuple[Tensor, Tensor]:
    """theta [number, 3] and x [number, 1, 1, 1]."""
    rng = np.random.default_rng(seed)
    brightness = rng.gamma(SHAPE, 1.0 / SHAPE, number)
    counts = torch.from_numpy(rng.poisson(brightness[:, None] * UNIT))
    measured = torch.from_numpy(rng.poisson(EXPOSURE * brightness)).float()
    return theta_of(counts, torch.from_numpy(rng.random(counts.shape))), measured.view(-1, 1, 1, 1)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global random numbers begin at a seed, and go on afterwards as if nothing was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def test_theta_is_a_count_and_a_place() -> None:
    """To the count: float32 resolves theta below 8 to 2^-22, a count N to N ln(10) 2^-22."""
    counts = torch.tensor([0, 1, 2, 7, 300, 10_000], dtype=torch.float64)[:, None]
    place = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    theta = theta_of(counts, place)
    assert theta.dtype == torch.float32
    assert torch.equal(counts_of(theta), counts.expand(theta.shape))
    exact = np.log10(counts.numpy() + place.numpy())
    np.testing.assert_allclose(theta.numpy(), exact, rtol=1e-6, atol=1e-7)
    assert (counts_of(theta_of(counts * 100, place)) - counts * 100).abs().max() <= 1


@pytest.mark.parametrize("measured", [0.0, 9.0])
def test_density_holds_the_probability_of_a_count(measured: float) -> None:
    """Between log10 N and log10(N + 1) lies the probability of N, of a negative binomial
    distribution as scipy has it; all of theta has the probability one."""
    posterior, x = toy(unit=(3.0,)), torch.full((1, 1, 1), measured)
    expected = stats.nbinom(SHAPE + measured, (SHAPE + EXPOSURE) / (SHAPE + EXPOSURE + 3.0))

    def density(theta: float) -> float:
        return float(posterior.log_prob(torch.tensor([theta], dtype=torch.float64), x).exp())

    held = []
    for count in range(25):
        low = -12.0 if count == 0 else math.log10(count) + 1e-9
        held.append(integrate.quad(density, low, math.log10(count + 1) - 1e-9)[0])
    assert held == pytest.approx(expected.pmf(np.arange(25)), rel=1e-6, abs=1e-9)
    assert sum(held) == pytest.approx(expected.cdf(24), rel=1e-6)


def test_samples_are_those_of_the_head() -> None:
    """Of shapes as sbi asks for them, of torch's random numbers, several batches of maps."""
    posterior, (_, x) = toy(), toy_maps(2 * BATCH_SIZE + 3)
    with seeded(1):
        drawn = posterior.sample_batched((4000,), x)
        assert posterior.sample((), x[0]).shape == (3,)
        assert posterior.sample((5, 2), x[:1]).shape == (5, 2, 3)
        assert posterior.sample_batched(torch.Size([5, 2]), x).shape == (5, 2, len(x), 3)
        one = posterior.set_default_x(x[0]).sample((7,), show_progress_bars=False)
    with seeded(1):
        assert torch.equal(posterior.sample_batched((4000,), x), drawn)
    with seeded(2):
        assert not torch.equal(posterior.sample_batched((4000,), x), drawn)
    assert one.shape == (7, 3) and drawn.dtype == torch.float32
    counts, measured = counts_of(drawn), x.flatten().double()
    mean = (SHAPE + measured) / (SHAPE + EXPOSURE)
    variance = mean / (SHAPE + EXPOSURE)
    for k, unit in enumerate(UNIT):
        error = (unit * mean + unit**2 * variance).sqrt() / math.sqrt(4000)
        assert ((counts[..., k].mean(0) - unit * mean) / error).abs().max() < 4.5
    place = (torch.pow(10.0, drawn.double()) - counts)[:100].flatten().numpy()
    assert stats.kstest(place, "uniform").pvalue > 1e-3


def test_log_prob_of_many_maps() -> None:
    posterior, (theta, x) = toy(), toy_maps(2 * BATCH_SIZE + 3)
    many = torch.stack([theta, theta + 0.1])
    found = posterior.log_prob_batched(many, x)
    assert found.shape == (2, len(x)) and found.dtype == torch.float64
    for k in (0, BATCH_SIZE, len(x) - 1):
        alone = posterior.log_prob(many[:, k], x[k])
        assert alone.numpy() == pytest.approx(found[:, k].numpy(), rel=1e-12)
        assert float(posterior.potential(many[1, k], x[k : k + 1])) == float(alone[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.sample((2,)), "no map is given: pass it as x, or set it with set_default_x"),
        (
            lambda p: p.sample((2,), torch.zeros(3, 1, 1, 1)),
            "x has 3 maps where one is wanted; sample_batched and log_prob_batched take many",
        ),
        (
            lambda p: p.sample_batched((2,), torch.zeros(3, 2, 1, 1)),
            r"x has the shape \(3, 2, 1, 1\), the network takes \(1, 1, 1\) \(freq, dec, ra\)",
        ),
        (
            lambda p: p.set_default_x(torch.full((1, 1, 1), math.nan)),
            "1 of the 1 numbers of x are NaN or infinite",
        ),
        (
            lambda p: p.log_prob(torch.zeros(2), torch.zeros(1, 1, 1)),
            r"theta has the shape \(1, 1, 2\), not \(\.\.\., 1, 3\): 3 numbers for each of the 1 m",
        ),
        (
            lambda p: p.log_prob_batched(torch.zeros(2, 3), torch.zeros(4, 1, 1, 1)),
            r"theta has the shape \(2, 3\), not \(\.\.\., 4, 3\)",
        ),
        (lambda p: p.sample((3,), torch.ones(1, 1, 1) + 0j), "x must be numbers, not complex"),
        (lambda p: p.sample((3,), np.ma.masked_equal(np.ones((1, 1, 1)), 1)), "x: 1 are masked"),
        (lambda p: p.sample((3,), "map.fits"), "x must be numbers, not 'map.fits'"),
        (lambda p: p.log_prob(np.ma.masked_less(np.arange(3.0), 1), ONE), "theta: 1 are masked"),
        (lambda p: p.log_prob(torch.zeros(3) > 1, ONE), "theta must be numbers, not truth values"),
        (lambda p: p.sample(3, ONE), r"sample_shape must be like \(1000,\), not 3"),
        (lambda p: p.sample((2.5,), ONE), "sample_shape must be a whole number, not 2.5"),
        (lambda p: p.sample((-1,), ONE), r"sample_shape = \(-1,\) must be 0 or more"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(toy())


def test_arrays_of_every_kind_are_the_map() -> None:
    posterior, theta = toy(), np.array([2.3, 1.5, 0.2])
    expected = posterior.log_prob(torch.from_numpy(theta), ONE)
    for kind in (">f8", "<f8", object):
        x, given = np.ones((1, 1, 1)).astype(kind), np.flip(np.flip(theta).astype(kind))
        assert torch.equal(posterior.log_prob(given, x), expected)  # type: ignore[arg-type]
    units = pytest.importorskip("astropy.units")
    with pytest.raises(ValueError, match="x is in 'K' and is due without a unit"):
        posterior.sample((3,), np.ones((1, 1, 1)) * units.K)


def test_more_halos_than_a_number_holds_have_no_density() -> None:
    """10^400 is no number in float64."""
    theta = torch.tensor([[2.3, 1.5, 0.2], [400.0, 1.5, 0.2], [2.3, torch.inf, 0.2]])
    found = toy().log_prob(theta, ONE)
    assert torch.isfinite(found[0]) and (found[1:] == -torch.inf).all()


def test_simulations_are_samples() -> None:
    """Maps and counts of the generator; the same ones however they are asked for."""
    config = small.config(observe={"noise": {"sigma_uK": 2.0}})
    generator = Generator(config, "validation", lightcones=[small.lightcone()])
    number = BATCH_SIZE + 9
    theta, x = simulations(generator, number)
    batch = generator.generate(range(number))
    assert torch.equal(x, batch.cube) and theta.dtype == torch.float32
    assert torch.equal(counts_of(theta), batch.counts.double())
    later, maps = simulations(generator, 5, first=20)
    assert torch.equal(later, theta[20:]) and torch.equal(maps, x[20:])
    for k, (some, cubes) in enumerate(islice(stream(generator, 5, start=5), 4), 1):
        chosen = slice(5 * k, 5 * k + 5)
        assert torch.equal(some, theta[chosen]) and torch.equal(cubes, x[chosen])
    with pytest.raises(ValueError, match="simulations: number = 0 must be 1 or more"):
        simulations(generator, 0)
    with pytest.raises(ValueError, match=r"simulations: first must be a whole number, not 0\.5"):
        simulations(generator, 1, first=0.5)  # type: ignore[arg-type]
    place = torch.pow(10.0, theta.double()) - counts_of(theta)
    assert place.flatten().unique().numel() > 0.99 * place.numel()
    assert stats.kstest(place.flatten().numpy(), "uniform").pvalue > 1e-3
    generator.close()


JOINT = {"layers": 2, "filters": 4, "dense": 8, "head": "joint_counts"}


def test_posterior_of_a_run(tmp_path: Path) -> None:
    """Its samples and probabilities are those of the run's network and of `Run.infer`."""
    config = runs.make_run(tmp_path, network=JOINT)
    with Run(config) as run:
        posterior = run.sbi_posterior()
        theta, x = simulations(run.testing(), 3)
        known = run.infer(x[2], prepared=True, compare_with=0)
        with seeded(1):
            drawn = posterior.sample((2000,), x[2])
    with torch.inference_mode():
        expected = known.log_prob(counts_of(theta[2]).numpy())
    jacobian = np.log(10.0 ** theta[2].double().numpy() * np.log(10.0)).sum()
    assert float(posterior.log_prob(theta[2], x[2])) == pytest.approx(expected + jacobian, rel=1e-9)
    for one, other in zip(counts_of(drawn).T.numpy(), known.samples.T, strict=True):
        assert stats.ks_2samp(one, other).pvalue > 1e-4


def parameters_run(folder: Path, **line: Any) -> Config:
    """A run whose label is the parameters of a luminosity model."""
    network = JOINT | {"head": "flow"}
    return runs.make_run(
        folder, network=network, label={"quantity": "parameters"}, emit={"line": line}
    )


def test_posterior_of_parameters(tmp_path: Path) -> None:
    """Of one model they are theta as they are; without its weights the flow is the prior, and the
    density of scores that of a standard normal distribution."""
    with Run(parameters_run(tmp_path / "one", model="li16", prior="narrow")) as run:
        generator, posterior = run.testing(), run.sbi_posterior()
        theta, x = simulations(generator, BATCH_SIZE + 3)
        assert torch.equal(theta, generator.generate(range(BATCH_SIZE + 3)).label)
        network = run.network(generator)
    with torch.inference_mode():
        expected = network.head.log_prob(network(x), theta).numpy()
    again = torch.stack([theta, theta])
    assert posterior.log_prob_batched(again, x)[1].numpy() == pytest.approx(expected, rel=1e-4)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    prior = SbiPosterior(network, generator.input_shape)
    with seeded(1):
        drawn = prior.sample((5000,), x[0])
        assert prior.sample_batched((4, 2), x).shape == (4, 2, *theta.shape)
    assert (
        drawn.dtype == torch.float32
        and min(stats.kstest(column, "norm").pvalue for column in drawn.T.numpy()) > 1e-4
    )
    exact = stats.norm.logpdf(drawn.double().numpy()).sum(1)
    assert prior.log_prob(drawn, x[0]).numpy() == pytest.approx(exact, rel=1e-5)


def test_parameters_of_several_models(tmp_path: Path) -> None:
    mixture = {"li16": {"prior": "narrow"}, "breysse15": {}}
    config = parameters_run(tmp_path, mixture=mixture)
    with Run(config) as run:
        for call in (run.sbi_posterior, lambda: simulations(run.testing(), 2)):
            with pytest.raises(
                ValueError, match=r"several models \(li16, breysse15\) are no theta"
            ):
                call()


def test_a_head_without_a_posterior(tmp_path: Path) -> None:
    config = runs.make_run(tmp_path, network=JOINT | {"head": "mse"})
    with Run(config) as run, pytest.raises(ValueError, match="predicts no distribution of the num"):
        run.sbi_posterior()


@pytest.fixture(scope="module")
def sbi() -> Any:
    """Its diagnostics. They are imported outside of a test, as that sets environment variables."""
    return pytest.importorskip("sbi.diagnostics", reason="needs sbi (pip install sbi)")


def drawn_again(posterior: SbiPosterior, x: Tensor, seed: int) -> SimpleNamespace:
    """The samples of one seed, whoever asks for them, as a posterior."""
    with seeded(seed):
        samples = posterior.sample_batched((DRAWS,), x)
    return SimpleNamespace(samples=samples, sample_batched=lambda *_, **__: samples)


def test_sbc_of_sbi(sbi: Any) -> None:
    """The exact posterior passes; one whose widths are times 0.8 does not."""
    theta, x = toy_maps()
    with seeded(2):
        found = [
            sbi.run_sbc(theta, x, toy(width), DRAWS, show_progress_bar=False)[0]
            for width in (1.0, NARROW)
        ]
    assert found[0].shape == (MAPS, 3)
    right, wrong = (sbi.sbc.check_uniformity_frequentist(ranks, DRAWS) for ranks in found)
    assert right.min() > 1e-3 and wrong.min() < 1e-6


def test_all_checks_of_sbi(sbi: Any) -> None:
    """Its classifiers tell whole numbers from others, unless there are more draws than maps."""
    maps, draws = 200, 1000
    theta, x = toy_maps(maps)
    with seeded(10):
        ranks, averaged = sbi.run_sbc(theta, x, toy(), draws, show_progress_bar=False)
        found = sbi.check_sbc(ranks, theta, averaged, draws)
    assert found["ks_pvals"].min() > 1e-3
    for name in ("c2st_ranks", "c2st_dap"):
        assert (found[name] < 0.5 + 4 * 0.5 / math.sqrt(2 * maps)).all()


def test_expected_coverage_of_sbi(sbi: Any) -> None:
    """Ranks of the posterior's density, which need a density of theta that is right."""

    theta, x = toy_maps()
    found = []
    for width in (1.0, NARROW):
        posterior = toy(width)
        with seeded(3):
            ranks, _ = sbi.run_sbc(
                theta, x, posterior, DRAWS, posterior.log_prob, show_progress_bar=False
            )
        found.append(stats.kstest(ranks[:, 0].numpy() / DRAWS, "uniform").pvalue)
    assert found[0] > 1e-3 and found[1] < 1e-6


def test_tarp_of_sbi(sbi: Any) -> None:
    """The area to the curve of N maps, for levels f above 0.5, is the mean of 1 - max(f, 0.5) less
    3/8, which for uniform f has a variance of (1/6 - 9/64) / N."""

    theta, x = toy_maps(10 * MAPS)
    error = math.sqrt((1 / 6 - 9 / 64) / len(x))
    found = []
    for width in (1.0, NARROW):
        with seeded(4):
            curve = sbi.run_tarp(
                theta, x, toy(width), num_posterior_samples=DRAWS, show_progress_bar=False
            )
        found.append(sbi.check_tarp(*curve)[0])
    assert abs(found[0]) < 4 * error
    assert found[1] < -4 * error


@pytest.mark.parametrize("width", [1.0, NARROW])
def test_ours_and_sbi_agree(sbi: Any, width: float) -> None:
    """On the same samples. Ranks of bins differ by no more than the ties that counts have, and
    TARP with one distance by the place within a rank, which we draw."""

    theta, x = toy_maps(500)
    given = drawn_again(toy(width), x, 5)
    truth, samples = counts_of(theta).numpy(), counts_of(given.samples).numpy()
    references = counts_of(toy_maps(500, seed=6)[0]).numpy()
    scale = np.array([0.3, 0.3, 0.4])
    ours = RankedTruth({"all": np.ones(3)}, scale)
    ours.add(samples, truth, references)
    ranked = ours.ranks()
    below, ties = (samples < truth).sum(0), (samples == truth).sum(0)
    with seeded(7):
        ranks, _ = sbi.run_sbc(theta, x, given, DRAWS, show_progress_bar=False)
    for low, high, rank in (
        (below, below + ties, ranks.numpy()),
        (below, below + ties + 1, ranked.bins * (DRAWS + 1)),
    ):
        assert (low - 1e-9 <= rank).all() and (rank <= high + 1e-9).all()
    few = ties.mean(0) < 1
    assert few[0] and not few[2]
    found = np.abs(ranks.numpy() / DRAWS - ranked.bins)[:, few]
    assert found.max() < (ties[:, few].max() + 1) / DRAWS

    def distance(one: Tensor, other: Tensor) -> Tensor:
        values = (tell_apart(counts_of(v).numpy()) / scale for v in (one, other))
        return sbi.tarp.l2(*map(torch.from_numpy, values))

    with seeded(8):
        shares, levels = sbi.run_tarp(
            theta,
            x,
            given,
            theta_of(torch.from_numpy(references), torch.full((3,), 0.5)),
            DRAWS,
            show_progress_bar=False,
            distance=distance,
            z_score_theta=False,
        )
    level = np.sort(ranked.levels["distance"])
    step = 2.0 / (DRAWS + 1)
    ends = (np.searchsorted(level, levels.numpy() + d, side="right") / 500 for d in (-step, step))
    low, high = ends
    assert (low - 1e-6 <= shares.numpy())[1:].all() and (shares.numpy() <= high + 1e-6).all()
    assert (p_value(ranked) > 1e-3) == (width == 1.0)


def test_log_probability_of_the_truth_of_sbi(sbi: Any) -> None:
    """It takes every posterior but its own for one that is not normalised."""

    posterior, (theta, x) = toy(), toy_maps(20)
    with pytest.warns(UserWarning, match="not normalized"):
        found = sbi.get_nltp(theta, x, posterior)
    assert found.numpy() == pytest.approx(-posterior.log_prob_batched(theta, x).numpy(), rel=1e-6)


@pytest.mark.filterwarnings("ignore:Data has extreme outliers:UserWarning")
def test_simulations_train_sbi(sbi: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NPE accepts them as they are; it writes its logs into the current folder."""

    from sbi.inference import NPE

    monkeypatch.chdir(tmp_path)
    generator = Generator(small.config(), lightcones=[small.lightcone()])
    theta, x = simulations(generator, 20)
    generator.close()
    with seeded(9):
        inference = NPE(show_progress_bars=False).append_simulations(theta, x)
        kept = inference.get_simulations()
    assert torch.equal(kept[0], theta) and torch.equal(kept[1], x)


def test_the_example_of_the_docs(
    sbi: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With fewer maps and draws; the run's network was not trained, and is found out."""
    text = (ROOT / "docs" / "posterior.md").read_text(encoding="utf-8")
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "sbi" in b)
    config = runs.make_run(tmp_path, network=JOINT)
    block = block.replace("runs/mine", config.run).replace("300", "100").replace("1000", "100")
    names: dict[str, Any] = {}
    with seeded(11):
        exec(compile(block, "posterior.md", "exec"), names)
    names["run"].close()
    assert abs(names["area"]) > 0.1 and "area to the curve " in capsys.readouterr().out
    assert names["ranks"].shape == (100, 14) and names["coverage"].shape == (100, 1)
