"""The 2-D network: where it starts, what it can learn, what it refuses."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from streamtrain.config import NetworkConfig
from streamtrain.models import CNN2d, build_network, label_loss

SHAPE = (3, 16, 16)
NUM_BINS = 5


@pytest.fixture(autouse=True)
def _private_torch() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


def small(**settings: object) -> CNN2d:
    return build_network(
        NetworkConfig(**{"layers": 3, "filters": 8, "dense": 16, **settings}), SHAPE, NUM_BINS
    )


def test_untrained_network_predicts_the_mean_label_of_the_calibration() -> None:
    network = small()
    mean = torch.arange(1.0, 6.0)
    network.calibrate(torch.zeros(3), torch.ones(3), mean, torch.full((5,), 0.3))
    assert torch.equal(network(torch.randn(4, *SHAPE)), mean.expand(4, -1))


def test_input_moments_undo_a_change_of_units_per_channel() -> None:
    network = small()
    torch.nn.init.normal_(network.output.weight)
    cube = torch.randn(4, *SHAPE)
    expected = network(cube)
    offset, factor = torch.tensor([1.0, -4.0, 0.0]), torch.tensor([2.0, 10.0, 0.5])
    network.calibrate(offset, factor, torch.zeros(5), torch.ones(5))
    shifted = cube * factor.view(1, -1, 1, 1) + offset.view(1, -1, 1, 1)
    torch.testing.assert_close(network(shifted), expected)


def test_calibration_travels_with_the_weights() -> None:
    network, other = small(), small()
    moments = [torch.rand(3), torch.rand(3) + 1, torch.rand(5), torch.rand(5) + 1]
    network.calibrate(*moments)
    other.load_state_dict(network.state_dict())
    cube = torch.randn(2, *SHAPE)
    assert torch.equal(network(cube), other(cube))


def test_constant_channel_gives_finite_output() -> None:
    network = small()
    network.calibrate(torch.tensor([5.0, 0, 0]), torch.zeros(3), torch.zeros(5), torch.ones(5))
    assert torch.isfinite(network(torch.full((2, *SHAPE), 5.0))).all()


def test_all_parameters_learn_after_the_first_step() -> None:
    network = small()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(2):
        optimiser.zero_grad()
        cube, label = torch.randn(8, *SHAPE), torch.randn(8, NUM_BINS)
        label_loss(network(cube), label, network.label_std).backward()
        optimiser.step()
    still = [name for name, p in network.named_parameters() if not p.grad.abs().sum() > 0]
    assert still == []


def test_learns_the_amplitude_of_noise() -> None:
    """A label that is a total over the field, invisible in the mean of the map: the error falls
    below a quarter of the mean label's within 150 small steps."""
    network = small()
    network.calibrate(torch.zeros(3), torch.ones(3), torch.zeros(5), torch.ones(5))
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(150):
        amplitude = torch.rand(32, 1, 1, 1) * 2 - 1
        cube = torch.exp(amplitude) * torch.randn(32, *SHAPE)
        loss = label_loss(network(cube), amplitude.view(32, 1).expand(-1, 5), network.label_std)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < (1 / 3) / 16  # the variance of the amplitude is 1/3


@pytest.mark.parametrize(("side", "layers", "fits"), [(16, 4, True), (16, 5, False), (12, 3, True)])
def test_poolings_must_fit_the_map(side: int, layers: int, fits: bool) -> None:
    def make() -> CNN2d:
        return build_network(NetworkConfig(layers=layers, filters=2), (3, side, 64), NUM_BINS)

    if fits:
        assert make()(torch.randn(1, 3, side, 64)).shape == (1, NUM_BINS)
    else:
        with pytest.raises(ValueError, match=r"network\.layers = 5 .* 16 x 64 .* at most 4 times"):
            make()


def test_filters_double_up_to_the_limit() -> None:
    network = small(layers=4, filters=8, max_filters=20)
    assert [c.out_channels for c in network.convolutions] == [8, 16, 20, 20]


def test_output_layer_is_exact_under_bfloat16() -> None:
    network = small()
    mean = torch.linspace(3.0, 4.0, 5) + 1e-3
    network.calibrate(torch.zeros(3), torch.ones(3), mean, torch.ones(5))
    with torch.autocast("cpu", torch.bfloat16):
        prediction = network(torch.randn(2, *SHAPE))
    assert prediction.dtype == torch.float32
    assert torch.equal(prediction, mean.expand(2, -1))


def test_loss_is_in_dex_or_in_standard_deviations() -> None:
    truth, prediction = torch.zeros(2, 2), torch.tensor([[1.0, 10.0], [1.0, 10.0]])
    std = torch.tensor([1.0, 10.0])
    assert label_loss(prediction, truth, std, "log10") == pytest.approx(50.5)
    assert label_loss(prediction, truth, std, "linear") == pytest.approx(1.0)


def test_loss_of_a_class_is_minus_the_log_of_its_probability() -> None:
    chances = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]])
    one_hot = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])
    logits = chances.log() + torch.tensor([[5.0], [-3.0]])  # only their differences count
    loss = label_loss(logits, one_hot, torch.ones(3), "class")
    assert loss == pytest.approx(-(math.log(0.7) + math.log(0.25)) / 2)
