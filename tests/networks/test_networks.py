"""Every kind of network: where it starts, what it can learn, what it keeps, what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.network_tools import network_of
from torch.utils.flop_counter import FlopCounterMode

from streamtrain.networks.network import Network, describe, multiply_adds

SHAPE = (3, 16, 16)
NUM_BINS = 5
KINDS: dict[str, dict[str, Any]] = {
    "hybrid": {"layers": 2, "filters": 4, "dense": 16, "scales": 2},
    "means": {"layers": 3, "filters": 8, "dense": 16},
    "cnn": {"layers": 2, "filters": 4, "dense": 16, "dropout": 0.0, "kernel": 3},
    "compact": {"layers": 3, "filters": 8, "dense": 16},
    "resnet": {"filters": 2, "dense": 16, "dropout": 0.0},
    "resnext": {"filters": 4, "dense": 16, "dropout": 0.0, "cardinality": 2},
}
DEEP = (3, 18, 18)


def of_kind(kind: str, **settings: Any) -> Network:
    shape = DEEP if kind.startswith("res") else SHAPE
    return network_of(shape, kind=kind, **(KINDS[kind] | settings))


def cubes(network: Network, number: int) -> torch.Tensor:
    return torch.randn(number, *(DEEP if network.kind.startswith("res") else SHAPE))


def set_normalisation(network: Network, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Labels of this mean and scatter; input as it is."""
    channels = network.input_mean.shape
    labels = torch.stack([mean - std, mean + std])
    network.set_normalisation(
        torch.zeros(channels), torch.ones(channels), labels, torch.ones(2, 5).int(), torch.ones(1)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_untrained_network_predicts_the_mean_label_of_the_calibration(kind: str) -> None:
    network = of_kind(kind).eval()
    mean = torch.arange(1.0, 6.0)
    set_normalisation(network, mean, torch.full((5,), 0.3))
    torch.testing.assert_close(network(cubes(network, 4)), mean.expand(4, -1))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "hybrid"])
def test_input_moments_undo_a_change_of_units_per_channel(kind: str) -> None:
    network = of_kind(kind).eval()
    torch.nn.init.normal_(network.body.output.weight)
    cube = cubes(network, 4)
    expected = network(cube)
    offset, factor = torch.tensor([1.0, -4.0, 0.0]), torch.tensor([2.0, 10.0, 0.5])
    network.input_mean.copy_(offset)
    network.input_std.copy_(factor)
    shifted = cube * factor.view(1, -1, 1, 1) + offset.view(1, -1, 1, 1)
    torch.testing.assert_close(network(shifted), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_network_is_travels_with_its_weights(kind: str) -> None:
    """Moments of input and label, and the running ones of batch normalisation."""
    network, other = of_kind(kind), of_kind(kind)
    set_normalisation(network, torch.rand(5), torch.rand(5) + 1)
    network.input_std.copy_(torch.rand(3) + 1)
    torch.nn.init.normal_(network.body.output.weight)
    network.train()
    network(cubes(network, 6))
    other.load_state_dict(network.state_dict())
    cube = cubes(network, 2)
    assert torch.equal(network.eval()(cube), other.eval()(cube))
    assert not torch.equal(network(cube), of_kind(kind).eval()(cube))


@pytest.mark.parametrize("kind", KINDS)
def test_constant_channel_does_no_harm(kind: str) -> None:
    network = of_kind(kind)
    ones, labels = torch.ones(1), torch.zeros(2, 5)
    network.set_normalisation(torch.tensor([5.0, 0, 0]), torch.zeros(3), labels, labels.int(), ones)
    network.body.output.weight.data.normal_()
    assert torch.isfinite(network(torch.full_like(cubes(network, 2), 5.0))).all()


@pytest.mark.parametrize("kind", KINDS)
def test_all_parameters_learn_after_the_first_step(kind: str) -> None:
    network = of_kind(kind)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(2):
        optimiser.zero_grad()
        label = torch.randn(8, NUM_BINS)
        answer = network(cubes(network, 8))
        network.head.loss(answer, label, label.int(), torch.ones(1)).backward()
        optimiser.step()
    still = [name for name, p in network.named_parameters() if not p.grad.abs().sum() > 0]
    assert still == []


@pytest.mark.parametrize("kind", ["hybrid", "means", "compact"])
def test_learns_the_amplitude_of_noise(kind: str) -> None:
    """A label that is a total over the field, invisible in the mean of the map: the error falls
    below a quarter of the mean label's within 150 small steps."""
    network = of_kind(kind)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(150):
        amplitude = torch.rand(32, 1, 1, 1) * 2 - 1
        cube = torch.exp(amplitude) * torch.randn(32, *SHAPE)
        label = amplitude.view(32, 1).expand(-1, 5)
        loss = network.head.loss(network(cube), label, label.int(), torch.ones(1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < (1 / 3) / 16  # the variance of the amplitude is 1/3


@pytest.mark.parametrize("kind", ["means", "compact"])
def test_a_shifted_field_is_the_same_but_for_its_edges(kind: str) -> None:
    """Only means over the sky reach the dense layer: a source far from every edge may lie
    anywhere, in steps of the coarsest pixel."""
    network = network_of((3, 64, 64), kind=kind, **KINDS[kind]).eval()
    network.body.output.weight.data.normal_()
    cube = torch.zeros(2, 3, 64, 64)
    cube[0, :, 24:28, 24:28] = cube[1, :, 32:36, 24:28] = 3.0
    first, second = network(cube)
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(first, network(0 * cube)[0], atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_output_layer_is_exact_under_bfloat16(kind: str) -> None:
    network = of_kind(kind).eval()
    mean = torch.linspace(3.0, 4.0, 5) + 1e-3
    set_normalisation(network, mean, torch.ones(5))
    network.body.output.bias.data.fill_(1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        prediction = network(cubes(network, 2))
    assert prediction.dtype == torch.float32
    torch.testing.assert_close(prediction, (mean + 1e-3).expand(2, -1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("means", {}), ("cnn", {}), ("cnn", {"dimensions": 3}), ("resnet", {}), ("compact", {})],
)
def test_gradients_under_bfloat16_point_as_in_float32(kind: str, settings: Any) -> None:
    """Roundings of 2^-8 switch some ReLUs; a wrong convolution has a cosine below 0.7."""
    network = of_kind(kind, **settings)
    network.body.output.weight.data.normal_()
    cube, gradients = cubes(network, 8), []
    for enabled in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            answer = network(cube)
        network.head.loss(answer, torch.ones(8, 5), torch.ones(8, 5), torch.ones(1)).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.95


def test_filters_double_up_to_the_limit() -> None:
    network = network_of(SHAPE, kind="means", layers=4, filters=8, max_filters=20)
    assert [c.out_channels for c in network.body.convolutions] == [8, 16, 20, 20]
    network = network_of(SHAPE, kind="compact", layers=4, filters=8, max_filters=20)
    assert [c.out_channels for c in network.body.widen] == [16, 20, 20]


@pytest.mark.parametrize(
    ("shape", "settings", "refusal"),
    [
        ((3, 16, 64), {"kind": "means", "layers": 4}, None),
        (
            (3, 16, 64),
            {"kind": "means", "layers": 5},
            "network.layers = 5 halve the map 5 times, but a map of 16 x 64 pixels becomes 8 x 32, "
            "4 x 16, 2 x 8, 1 x 4, and a side of one pixel cannot be halved: at most 4 layers fit",
        ),
        ((3, 12, 64), {"kind": "means", "layers": 3}, None),
        ((3, 12, 64), {"kind": "means", "layers": 4}, "becomes 6 x 32, 3 x 16, 1 x 8, and a side"),
        ((3, 8, 64), {"scales": 4}, None),
        ((3, 8, 64), {"scales": 5}, "network.scales = 5 halve the map 4 times, but"),
        ((3, 12, 64), {"kind": "cnn", "layers": 4}, None),
        ((3, 12, 64), {"kind": "cnn", "layers": 5}, "6 x 32, 3 x 16, 2 x 8, 1 x 4, and a side"),
        ((1, 8, 8), {"kind": "cnn", "layers": 3, "dimensions": 3}, None),
        ((3, 8, 8), {"kind": "compact", "layers": 4}, None),
        (
            (3, 8, 8),
            {"kind": "compact", "layers": 5},
            "network.layers = 5, of which all but the first halve the map 4 times, but",
        ),
        ((1, 17, 17), {"kind": "resnet", "filters": 1}, None),
        (
            (10, 16, 16),
            {"kind": "resnet"},
            "the stages of network.kind = resnet halve the map 5 times, but a map of 16 x 16 "
            "pixels becomes 8 x 8, 4 x 4, 2 x 2, 1 x 1, and a side of one pixel cannot be halved: "
            "it takes maps of at least 17 pixels a side",
        ),
        (
            (10, 1, 1),
            {"kind": "means"},
            "network.layers = 4 halve the map 4 times, but a map of 1 x 1 pixels",
        ),
    ],
)
def test_poolings_must_fit_the_map(
    shape: tuple[int, int, int], settings: dict[str, Any], refusal: str | None
) -> None:
    if refusal is None:
        network = network_of(shape, **({"filters": 2} | settings)).eval()
        assert network(torch.randn(2, *shape)).shape == (2, NUM_BINS)
    else:
        with pytest.raises(ValueError, match="cannot be halved") as error:
            network_of(shape, **settings)
        assert refusal in str(error.value)


def test_description_counts_parameters_and_multiply_adds() -> None:
    """By hand: 2 convolutions of 3 x 3 on 16 x 16 and 8 x 8 pixels, two dense layers."""
    network = network_of(SHAPE, kind="means", layers=2, filters=4, dense=6, dropout=0.5)
    parameters = (27 * 4 + 4) + (36 * 8 + 8) + (12 * 6 + 6) + (6 * 5 + 5)
    multiply_adds = 27 * 4 * 256 + 36 * 8 * 64 + 12 * 6 + 6 * 5
    before = torch.get_rng_state()
    assert describe(network, SHAPE) == (
        f"network means: {parameters} parameters, {multiply_adds / 1000:.3g} thousand "
        "multiply-adds per sample"
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert network.training


@pytest.mark.parametrize("kind", KINDS)
def test_multiply_adds_are_those_that_torch_counts(kind: str) -> None:
    network = of_kind(kind).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(cubes(network, 1))
    weighting = 3 * 3 * 16 * 16 if kind == "hybrid" else 0  # of the channels: no layer
    assert multiply_adds(network, tuple(cubes(network, 1).shape[1:])) == (
        counter.get_total_flops() // 2 - weighting
    )


def test_description_leaves_the_running_moments_alone() -> None:
    network = of_kind("resnet")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    describe(network, DEEP)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
