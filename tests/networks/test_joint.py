"""The head joint_counts: its likelihood and its draws against closed forms and exact posteriors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import gammaln
from support.fake_generator import SPLITS, FakeGenerator, FakeTrainer, tiny_config
from support.network_tools import (
    REFUSED,
    Operations,
    check_draws,
    head_of_counts,
    label_of,
    labels_from,
)
from torch import nn

from streamtrain.generator.generator import Batch
from streamtrain.networks import joint
from streamtrain.networks.intervals import interval_log_prob, normal_log_interval
from streamtrain.networks.joint import BLOCK, JointCountsHead, tree
from streamtrain.networks.network import build_head
from streamtrain.train.checkpoint import CheckpointError, load_weights

STEPS = 500
F, F64 = torch.float64, np.ndarray[Any, np.dtype[np.float64]]


def made(bins: int, mean: float = 1.0, **settings: Any) -> JointCountsHead:
    """A head that was normalised with correlated counts."""
    head = head_of_counts("joint_counts", bins, mean, **settings)
    assert isinstance(head, JointCountsHead)
    return head


def stirred(head: JointCountsHead, size: float = 0.5) -> JointCountsHead:
    """With weights of its own, none of them zero."""
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(size * 0.3 * torch.randn_like(parameter))
    return head


def test_interval_of_a_normal_distribution_is_scipys() -> None:
    low = torch.tensor([-30.0, -3, -1, 0.5, 4, 20, -200], dtype=torch.float64)
    for width in (1e-9, 1e-6, 0.9e-5, 1.1e-5, 1e-3, 0.5, 30.0):
        high = low + width
        ours = normal_log_interval(low, high, torch.full_like(low, width))
        a, b = low.numpy(), high.numpy()
        middle = stats.norm.logpdf(0.5 * (a + b)) + np.log(width)
        near, far = np.where(a + b > 0, -a, b), np.where(a + b > 0, -b, a)
        tails = stats.norm.logcdf(near), stats.norm.logcdf(far)
        exact = tails[0] + np.log(-np.expm1(np.minimum(tails[1] - tails[0], -1e-300)))
        exact = middle if width < 2e-5 else exact
        np.testing.assert_allclose(ours, exact, rtol=1e-9, atol=2e-9)


def test_all_counts_of_a_node_have_probability_one() -> None:
    """Of a block of any number of halos, and of the brighter half of 3 and of 10^5 of them."""
    mean = torch.tensor([[0.0, 3.0, 11.0]], dtype=F)
    ln_std = torch.tensor([[-0.5, 0.0, -5.0]], dtype=F)
    ln_weight = torch.tensor([[0.2, 0.3, 0.5]], dtype=F).log()
    head = made(2)
    block, half = (head._block.tolist().index(found) for found in (True, False))
    counts = torch.arange(200_000, dtype=F)[:, None].expand(-1, 2)
    low, high, width = (values[:, block] for values in head._ends(counts, counts))
    chance = interval_log_prob(ln_weight, mean, ln_std, low, high, width).exp()
    assert chance.sum().item() == pytest.approx(1.0, abs=1e-9)
    below = ln_weight.exp() * torch.special.ndtr(-mean * torch.exp(-ln_std))
    assert chance[0].item() == pytest.approx(below.sum().item(), rel=1e-12)
    for whole in (0, 3, 10**5):
        n = torch.arange(whole + 1, dtype=F)[:, None].expand(-1, 2)
        rows = (values[:, half] for values in head._ends(n, torch.full_like(n, whole)))
        assert interval_log_prob(ln_weight, mean, ln_std, *rows).exp().sum().item() == (
            pytest.approx(1.0, abs=1e-9)
        )


def test_gradient_of_the_likelihood_is_that_of_differences() -> None:
    head = made(2)
    counts = torch.tensor([0, 1, 2, 7, 300, 10**5, 10**8], dtype=F)[:, None].expand(-1, 2)
    for whole in (counts, counts + 5, 3 * counts):
        low, high, width = (values.flatten()[None] for values in head._ends(counts, whole))
        for size in (0.3, 3.0):
            weight, off, ln_std = size * torch.randn(3, 1, 14, 3, dtype=F)
            middle = 0.5 * (low.clamp(min=-1.0) + high.clamp(max=20.0))
            mean = middle[..., None] + off * torch.exp(ln_std)
            given = [values.detach().requires_grad_() for values in (weight, mean, ln_std)]
            assert torch.autograd.gradcheck(
                lambda *v, ends=(low, high, width): interval_log_prob(*v, *ends), given, atol=1e-4
            )


@pytest.mark.parametrize("size", [0.0, 30.0, 1e4])
def test_loss_and_gradient_are_finite_at_extremes(size: float) -> None:
    """Empty bins and 10^5 halos and more, whatever the network says."""
    head = made(5)
    counts = torch.tensor([[0] * 5, [10**5] * 5, [2**31 - 1] * 5, [0, 10**9, 0, 1, 0]])
    for sign in (-1.0, 1.0):
        given = sign * size * torch.randn(4, head.num_numbers).sign()
        given.requires_grad_()
        answer = head(given)
        loss = head.loss(answer, labels_from(head.label, counts), counts, torch.zeros(1, 5))
        loss.backward()
        assert torch.isfinite(loss) and loss.dtype == torch.float32
        for gradient in [given.grad, *(p.grad for p in head.parameters())]:
            assert gradient is not None and torch.isfinite(gradient).all()
        drawn = head.sample(answer.detach(), 20, torch.Generator().manual_seed(1))
        assert torch.isfinite(drawn).all() and (drawn >= 0).all()


@pytest.mark.parametrize("block", [BLOCK, 2])
def test_probabilities_of_all_functions_are_one_and_draws_have_them(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three bins of a few halos, in one block and in two, whose dependence is not the one that it
    started with."""
    monkeypatch.setattr(joint, "BLOCK", block)
    drawn = check_draws(stirred(made(3, mean=0.3)), 60, 400_000)
    pairs = torch.corrcoef(drawn.T).triu(1)
    assert pairs.abs().max() > 0.1  # the bins depend on one another


def test_draws_are_those_of_the_seed_and_of_each_map() -> None:
    head = stirred(made(6))
    answer = torch.randn(2, head.num_numbers)
    first, again, other = (
        head.sample(answer, 50, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (50, 2, 6) and first.dtype == torch.float64
    assert torch.equal(first, first.floor())


def test_no_drawn_block_has_far_more_halos_than_any_sample() -> None:
    """However wide its mixtures are."""
    head = made(9)
    with torch.no_grad():
        head.mixtures[..., 2 * joint.COMPONENTS :] += 8.0
    drawn = head.sample(torch.zeros(1, head.num_numbers), 500, torch.Generator().manual_seed(1))
    blocks = [node for node in tree(9) if node[0] == node[1]]
    for k, (low, _, high) in enumerate(blocks):
        largest = drawn[..., low:high].sum(-1).max()
        assert largest == head.largest[k].floor()  # which many of them reach


def test_a_point_estimate_is_no_more_than_a_drawn_block_may_have() -> None:
    """Nor less than one halo, however far a map is from the training; in between it stays."""
    head = made(14)
    numbers = torch.zeros(3, head.num_numbers)
    numbers[0], numbers[1], numbers[2, :14] = 1e4, -1e4, torch.linspace(-1, 1, 14)
    points = head.point(numbers, torch.zeros(1, 14))
    blocks = [(low, high) for low, middle, high in tree(14) if low == middle]
    assert len(blocks) > 1
    for k, (low, high) in enumerate(blocks):
        most = head.largest[[node[0] == node[1] for node in tree(14)]][k].log10().float()
        assert torch.equal(points[0, low:high], most.expand(high - low))
    assert (points[1] == 0).all()
    expected = head.label_mean + head.label_std * numbers[2, :14]
    assert torch.equal(points[2], expected.clamp(min=0)) and (points[2] > 0).any()
    numbers.requires_grad_()  # what a map does to the answer is seen at the ends, too
    head.point(numbers, torch.zeros(1, 14)).sum().backward()
    assert numbers.grad is not None
    assert torch.equal(numbers.grad[:, :14], head.label_std.expand(3, 14))


def test_sums_lack_nothing_but_the_network_s_error_when_all_bins_are_known() -> None:
    """And the scatter of nodes that are left falls from node to node, to none."""
    head = made(9)
    known = head._known(0.5 * torch.randn(2, head.num_numbers))
    counts = torch.randint(0, 30, (4, 2, 9)).double()
    n, P = head._nodes(counts)
    more = head._more(known, n, P, slice(None))
    left = (head._lacking(known, n, P) - more)[..., -1]
    L = torch.from_numpy(head.label.bins.mean_Lsun)
    exact = torch.stack([counts @ (L / L.max()) ** power for power in joint.POWERS], -1)
    torch.testing.assert_close(left, known.sum.exp() - exact, rtol=1e-9, atol=1e-9)
    assert (known.later[..., -1] == 0).all() and (known.later.diff(dim=-1) <= 0).all()
    assert (known.later[..., 0] > 0).all()


def test_maps_are_told_apart_by_points_and_context() -> None:
    head = made(3)
    prediction = torch.randn(2, head.num_numbers)
    seen = head.tells_apart(prediction)
    assert seen.shape == (2, 3 + joint.CONTEXT)
    prediction[:, 3 : -joint.CONTEXT] += 1.0  # means and widths
    assert torch.equal(head.tells_apart(prediction), seen)
    prediction[:, [0, -1]] += 1.0
    assert (head.tells_apart(prediction) != seen).sum() == 4


@pytest.mark.parametrize("scale", ["log10", "linear"])
@pytest.mark.parametrize("quantity", ["counts", "phi", "phi_L"])
def test_untrained_head_answers_the_mean_of_the_logarithm(scale: str, quantity: str) -> None:
    label = label_of(5, quantity=quantity, scale=scale)
    head = build_head("joint_counts", label)
    counts = torch.poisson(torch.exp(torch.linspace(6, -1, 5) + 0.3 * torch.randn(4000, 1))).int()
    unit_label = label.unit_label(np.zeros(4000, np.int64))
    head.set_normalisation(labels_from(label, counts), counts, unit_label.expand(4000, -1))
    answer = head(torch.zeros(2, head.num_numbers))
    mean = counts.double().clamp(min=1).log10().mean(0)
    found = label.log10_counts(head.point(answer, unit_label), unit_label)
    torch.testing.assert_close(found, mean.expand(2, -1), rtol=1e-4, atol=1e-5)
    # and draws the functions that it was normalised with
    drawn = head.sample(answer[:1], 4000, torch.Generator().manual_seed(1))[:, 0]
    ours, theirs = ((values.double() + 0.5).log() for values in (drawn, counts))
    torch.testing.assert_close(ours.mean(0), theirs.mean(0), rtol=0, atol=0.2)
    torch.testing.assert_close(ours.std(0), theirs.std(0), rtol=0.3, atol=0.05)
    torch.testing.assert_close(
        torch.corrcoef(ours.T)[0, :3], torch.corrcoef(theirs.T)[0, :3], rtol=0, atol=0.25
    )


def test_training_may_be_deterministic_on_a_gpu() -> None:
    """Steps and validations: of loss, gradient and draws no operation is refused there."""
    head = stirred(made(6))
    counts = torch.full((4, 6), 3)
    prediction = torch.randn(4, head.num_numbers, requires_grad=True)
    with Operations() as made_meanwhile:
        head.loss(prediction, counts.float(), counts, torch.zeros(1, 6)).backward()
        drawn = head.sample(prediction.detach(), 20, torch.Generator().manual_seed(0))
        head.log_prob(prediction, drawn)
    assert {"softmax", "_softmax"} & made_meanwhile.names
    assert not REFUSED & made_meanwhile.names


def test_tree_is_from_blocks_to_bins() -> None:
    assert tree(1) == [(0, 0, 1)]
    assert tree(2) == [(0, 0, 2), (0, 1, 2)]
    assert tree(9) == [
        (4, 4, 9), (0, 0, 4), (4, 6, 9), (0, 2, 4), (4, 5, 6), (6, 7, 9), (0, 1, 2), (2, 3, 4),
        (7, 8, 9),
    ]  # fmt: skip
    for bins in (3, 7, 8, 49, 200):
        nodes, wholes = tree(bins), set[tuple[int, int]]()
        assert len(nodes) == bins
        for low, middle, high in nodes:
            if low == middle:
                assert 0 < high - low <= BLOCK
                wholes.add((low, high))
            else:  # what is halved is known
                wholes.remove((low, high))
                wholes |= {(low, middle), (middle, high)}
        assert sorted(wholes) == [(k, k + 1) for k in range(bins)]


class ToyGenerator(FakeGenerator):
    """Samples whose posterior is known: both channels of a map show what was observed."""

    def generate(self, indices: Sequence[int]) -> Batch:
        seen, counts = zip(*map(self._sample, indices), strict=True)
        batch = super().generate(indices[:1])
        unit_label = batch.unit_label
        whole = torch.tensor(np.array(counts))
        cube = torch.tensor(np.array(seen), dtype=torch.float32)[:, :, None, None]
        return replace(
            batch,
            cube=cube.expand(-1, *self.input_shape).contiguous(),
            label=whole.double().clamp(min=1).log10().float() + unit_label,
            counts=whole.int(),
            draws=batch.draws * len(indices),
            indices=list(indices),
            saturated=torch.zeros(len(indices), dtype=torch.int32),
        )

    def _sample(self, index: int) -> tuple[F64, F64]:
        rng = np.random.default_rng([self.config.seed, SPLITS.index(self.split), index])
        return self.draw(rng)

    def draw(self, rng: np.random.Generator) -> tuple[F64, F64]:
        raise NotImplementedError

    def exact(self, seen: F64, counts: F64) -> F64:
        """ln p(counts | what was observed) [n]."""
        raise NotImplementedError


class LinearGaussian(ToyGenerator):
    """ln N is normal, and two of its linear combinations are seen with noise."""

    mean = np.linspace(9.0, 5.0, 7)
    mixing = 0.5 * np.tril(np.ones((7, 7))) / np.sqrt(np.arange(1, 8))[:, None] + 0.2 * np.eye(7)
    looks = np.stack([np.full(7, 1 / 7), np.linspace(-1, 1, 7) / 3])
    noise = 0.3

    def draw(self, rng: np.random.Generator) -> tuple[F64, F64]:
        x = self.mean + self.mixing @ rng.standard_normal(7)
        seen = self.looks @ (x - self.mean) + self.noise * rng.standard_normal(2)
        return seen, np.floor(np.exp(x))

    def exact(self, seen: F64, counts: F64) -> F64:
        prior = self.mixing @ self.mixing.T
        cross = prior @ self.looks.T
        gain = cross @ np.linalg.inv(self.looks @ cross + self.noise**2 * np.eye(2))
        left = stats.multivariate_normal(np.zeros(7), prior - gain @ cross.T)
        x = np.log(counts + 0.5)
        return left.logpdf(x - self.mean - seen @ gain.T) - x.sum(1)


class GammaPoisson(ToyGenerator):
    """Poisson counts of one rate of gamma distribution, which is seen as another count."""

    shape, seen_rate = 3.0, 20.0
    weights = np.array([300.0, 100, 30, 10, 3, 1, 0.1])

    def draw(self, rng: np.random.Generator) -> tuple[F64, F64]:
        rate = rng.gamma(self.shape)
        seen = np.log1p(rng.poisson(self.seen_rate * rate))
        return np.array([seen, seen]), rng.poisson(rate * self.weights).astype(np.float64)

    def exact(self, seen: F64, counts: F64) -> F64:
        shape = self.shape + np.rint(np.expm1(seen[:, 0]))
        inverse, total = 1.0 + self.seen_rate, counts.sum(1)
        return (
            gammaln(shape + total)
            - gammaln(shape)
            + shape * np.log(inverse)
            - (shape + total) * np.log(inverse + self.weights.sum())
            + (counts * np.log(self.weights) - gammaln(counts + 1)).sum(1)
        )


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("toy", [LinearGaussian, GammaPoisson])
def test_training_finds_the_exact_posterior(tmp_path: Path, toy: type[ToyGenerator]) -> None:
    """To 0.05 nat of the divergence of the exact posterior, seven bins together."""
    config = tiny_config(
        tmp_path, network={"kind": "means", "layers": 1, "filters": 8, "dense": 64,
        "head": "joint_counts"}, steps=STEPS, batch_size=128, learning_rate=5e-3,
        warmup_steps=100, log_every=500, validate_every=STEPS, checkpoint_every=STEPS,
    )  # fmt: skip
    trainer = FakeTrainer(config, generator=toy)
    trainer.run()
    test = toy(config, "test")
    batch = test.generate(range(4000))
    network = trainer.network.eval()
    with torch.inference_mode():
        ours = network.head.log_prob(network(batch.cube), batch.counts).numpy()
    seen = batch.cube[:, :, 0, 0].double().numpy()
    difference = test.exact(seen, batch.counts.double().numpy()) - ours
    error = difference.std() / np.sqrt(len(difference))
    assert -3 * error < difference.mean() < 0.05


def test_weights_of_an_earlier_version_are_refused_in_a_sentence() -> None:
    network = nn.Module()
    network.head = made(3)
    weights = network.state_dict()
    weights["head.counted"] = weights.pop("head.seen")
    with pytest.raises(CheckpointError, match=r"head\.seen is in the network alone: .*anew$"):
        load_weights(network, weights)
