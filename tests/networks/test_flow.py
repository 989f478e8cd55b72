"""The flow and its head: exact posteriors, the prior before training, inverses, mixtures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from support.network_tools import REFUSED, Operations
from torch import Tensor, nn

from streamtrain.config import from_mapping
from streamtrain.labels import Label, LabelConfig, ModelParameters
from streamtrain.networks.flow import BINS, BOUND, CONTEXT, Flow, FlowHead, inverse_spline, spline
from streamtrain.networks.network import build_head, loss_name
from streamtrain.schema import ConfigError

ONE = torch.zeros(1, 1)


def label_of(*sizes: int, shares: tuple[float, ...] = ()) -> Label:
    """Of models with so many parameters each."""
    shares = shares or (1.0 / len(sizes),) * len(sizes)
    models = [
        ModelParameters(tuple(f"p{k}" for k in range(size)), share, np.eye(size))
        for size, share in zip(sizes, shares, strict=True)
    ]
    classes = [f"model{k}" for k in range(len(sizes))]
    return Label(LabelConfig(quantity="parameters"), classes=classes, parameters=models)


def head_of(*sizes: int, shares: tuple[float, ...] = (), trained: bool = True) -> FlowHead:
    """A head whose flows are anything but the identity, if it is `trained`."""
    head = build_head("auto", label_of(*sizes, shares=shares))
    assert isinstance(head, FlowHead)
    if trained:
        for parameter in head.parameters():
            nn.init.normal_(parameter, std=0.15)
    return head


def labels(head: FlowHead, number: int) -> Tensor:
    """Labels from the prior."""
    label = head.label
    drawn = head.sample(
        head(torch.zeros(1, head.num_numbers)), number, torch.Generator().manual_seed(3)
    )
    assert drawn.shape == (number, 1, label.num_outputs)
    return drawn[:, 0]


def test_a_spline_is_monotonic_and_its_inverse_and_slope_are_right() -> None:
    """In float64, whose rounding is small enough to see any mistake."""
    values = 1.5 * torch.randn(400, 3 * BINS - 1, dtype=torch.float64)
    x = (3.0 * torch.randn(400, dtype=torch.float64)).requires_grad_()
    y, ln_slope = spline(x, values)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert (slope > 0).all()
    torch.testing.assert_close(ln_slope, slope.log(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(inverse_spline(y, values), x, rtol=0, atol=1e-8)
    outside = x.abs() > BOUND
    assert outside.sum() > 10
    assert torch.equal(y[outside], x[outside])
    steps = torch.linspace(-BOUND, BOUND, 2001, dtype=torch.float64)
    line, _ = spline(steps, values[:1].expand(2001, -1))
    assert (line.diff() > 0).all()
    assert line[[0, -1]].tolist() == [-BOUND, BOUND]
    # the middle of a spline that is the same on both sides
    even = torch.cat([values[:1, :BINS] + values[:1, :BINS].flip(1)] * 2 + [values[:1, :7] * 0], 1)
    assert spline(torch.zeros(1, dtype=torch.float64), even)[0].item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_density_is_normalised_and_that_of_the_samples(size: int) -> None:
    """ln density by the change of variables: of x = inverse(z), ln N(z) - ln |dx/dz|."""
    flow = Flow(size, 3).double()
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.15)
    context = torch.randn(1, 3, dtype=torch.float64)
    z = torch.randn(size, dtype=torch.float64)

    def x_of(normal: Tensor) -> Tensor:
        return flow.inverse(normal[None], context)[0]

    x = x_of(z)
    step = 1e-6
    jacobian = torch.stack(
        [(x_of(z + step * one) - x_of(z - step * one)) / (2 * step) for one in torch.eye(size)]
    )
    expected = stats.norm.logpdf(z.numpy()).sum() - torch.linalg.slogdet(jacobian)[1].item()
    assert flow.log_prob(x[None], context).item() == pytest.approx(expected, abs=1e-5)
    if size == 1:
        grid = torch.linspace(-15.0, 15.0, 4001, dtype=torch.float64)
        density = flow.log_prob(grid[:, None], context.expand(len(grid), -1)).exp()
        assert torch.trapezoid(density, grid).item() == pytest.approx(1.0, abs=1e-4)


def test_an_untrained_head_predicts_the_prior() -> None:
    """Whatever the numbers of the network: their loss is 0, and draws are standard normal."""
    head = head_of(3, 2, 0, shares=(0.5, 0.3, 0.2), trained=False)
    true = labels(head, 4000)
    shares = true[:, :3].mean(0)
    for share, expected in zip(shares.tolist(), (0.5, 0.3, 0.2), strict=True):
        assert share == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 4000))
    for number, columns in enumerate(head.label.parameter_columns):
        made = true[:, number] == 1.0
        assert not true[~made, columns].any()
        for column in true[made, columns].T:
            assert stats.kstest(column.numpy(), "norm").pvalue > 1e-4
    numbers = torch.randn(4000, head.num_numbers)
    numbers[:, :3] = 0.0
    loss = head.loss(head(numbers), true, true, ONE)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    density = head.log_prob(head(numbers[:5]), true[:5]).tolist()
    for row, found in zip(true[:5], density, strict=True):
        model = int(row[:3].argmax())
        scores = row[head.label.parameter_columns[model]].numpy()
        exact = math.log((0.5, 0.3, 0.2)[model]) + stats.norm.logpdf(scores).sum()
        assert found == pytest.approx(exact, abs=1e-5)


def test_a_mixture_is_its_classes_times_their_flows() -> None:
    """The density of a label, and how often each model is drawn."""
    head = head_of(2, 1, 0)
    prediction = head(0.5 * torch.randn(1, head.num_numbers))
    chances = prediction[0, :3].softmax(0)
    drawn = head.sample(prediction, 20_000, torch.Generator().manual_seed(1))[:, 0]
    for share, chance in zip(drawn[:, :3].mean(0).tolist(), chances.tolist(), strict=True):
        assert share == pytest.approx(chance, abs=4 * math.sqrt(chance / 20_000))
    context = prediction[:, 3:]
    row = drawn[drawn[:, 1] == 1.0][:1]
    flow = head.flows["1"]
    assert isinstance(flow, Flow)
    exact = chances[1].log() + flow.log_prob(row[:, 5:6], context)
    torch.testing.assert_close(head.log_prob(prediction, row), exact)
    again = head.sample(prediction, 20_000, torch.Generator().manual_seed(1))[:, 0]
    assert torch.equal(drawn, again)
    # the middle of the drawn numbers is the point estimate, the first of a flow's exactly
    middle = drawn[drawn[:, 1] == 1.0, 5].median()
    spread = drawn[drawn[:, 1] == 1.0, 5].std()
    point = head.point(prediction, ONE)[0]
    assert abs(point[5] - middle) < 0.06 * spread
    torch.testing.assert_close(point[:3].exp(), chances)


def test_nothing_is_refused_where_a_gpu_has_to_be_deterministic() -> None:
    head = head_of(2, 1)
    prediction = torch.randn(4, head.num_numbers, requires_grad=True)
    with Operations() as made:
        head.loss(head(prediction), labels(head, 4), ONE, ONE).backward()
    assert "baddbmm" in made.names and not REFUSED & made.names


def test_samples_of_other_models_leave_a_flow_alone() -> None:
    """But every flow has a gradient, so that no rank waits for another's."""
    head = head_of(2, 1)
    prediction = head(torch.randn(6, head.num_numbers))
    true = torch.zeros(6, head.num_outputs)
    true[:, 0] = 1.0
    true[:, 2:4] = torch.randn(6, 2)
    head.loss(prediction, true, true, ONE).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()) == name.startswith("flows.0"), name


@pytest.mark.parametrize("size", [30.0, 1e4])
def test_loss_and_gradient_are_finite_at_extremes(size: float) -> None:
    head = head_of(4)
    numbers = (size * torch.randn(8, head.num_numbers)).requires_grad_()
    true = 8.3 * torch.randn(8, 4).sign()
    loss = head.loss(head(numbers), true, true, ONE)
    loss.backward()
    assert torch.isfinite(loss)
    assert numbers.grad is not None and torch.isfinite(numbers.grad).all()
    drawn = head.sample(head(numbers.detach()), 50, torch.Generator().manual_seed(0))
    assert torch.isfinite(drawn).all()


def test_it_learns_an_exact_posterior() -> None:
    """x = A theta + noise: a normal posterior, correlated and five times as narrow as the prior.
    The mean of ln exact / found over the truth is the divergence of the two."""
    size, data = 3, 4
    matrix = 1.5 * torch.randn(data, size)
    sigma = torch.tensor([0.2, 0.3, 0.4, 0.5])
    covariance = torch.linalg.inv(torch.eye(size) + (matrix.T / sigma**2) @ matrix)
    width = covariance.diag().sqrt()
    correlation = covariance / width / width[:, None] - torch.eye(size)
    assert width.min() < 0.25 and correlation.abs().max() > 0.5
    head = head_of(size, trained=False)
    body = nn.Sequential(nn.Linear(data, 64), nn.GELU(), nn.Linear(64, head.num_numbers))
    every = [*body.parameters(), *head.parameters()]
    optimiser = torch.optim.Adam(every, 5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=700)

    def draw(number: int) -> tuple[Tensor, Tensor]:
        theta = torch.randn(number, size)
        return theta, theta @ matrix.T + sigma * torch.randn(number, data)

    for _ in range(700):
        theta, seen = draw(128)
        loss = head.loss(head(body(seen)), theta, theta, ONE)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(every, 1.0)
        optimiser.step()
        schedule.step()
    theta, seen = draw(20_000)
    mean = (seen / sigma**2) @ matrix @ covariance
    exact = torch.distributions.MultivariateNormal(torch.zeros(size), covariance)
    with torch.no_grad():
        prediction = head(body(seen))
        divergence = (exact.log_prob(theta - mean) - head.log_prob(prediction, theta)).mean()
        drawn = head.sample(prediction[:400], 200, torch.Generator().manual_seed(2))
    assert 0.0 < divergence.item() < 0.05
    away = (drawn - mean[:400]).flatten(0, 1)
    found = torch.cov(away.T)
    torch.testing.assert_close(found / width / width[:, None], correlation + torch.eye(size),
                               rtol=0, atol=0.15)  # fmt: skip


def test_it_fits_the_label_of_parameters_alone() -> None:
    assert build_head("flow", label_of(2)).num_numbers == CONTEXT
    assert loss_name("auto", False, True) == loss_name("flow", False)
    drawn = {"line": {"prior": "narrow"}}
    with pytest.raises(
        ConfigError, match=r"network\.head = flow is the posterior .* not of counts"
    ):
        from_mapping({"network": {"head": "flow"}})
    with pytest.raises(ConfigError, match=r"network\.head = gaussian: .* the head flow alone"):
        from_mapping(
            {"network": {"head": "gaussian"}, "label": {"quantity": "parameters"}, "emit": drawn}
        )
    with pytest.raises(ConfigError, match="a blank map has no parameters"):
        from_mapping({"label": {"quantity": "parameters"}, "emit": {**drawn, "blank": {}}})
