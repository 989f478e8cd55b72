"""Filters, activations and gradients, against networks whose answers are known."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import small
from support.made_runs import save_run
from support.network_tools import label_of, network_of
from torch import nn
from torch.nn.functional import gelu, leaky_relu, relu

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cli import main
from streamtrain.config import Config, from_mapping
from streamtrain.evaluate import testset
from streamtrain.evaluate.interpret import layers
from streamtrain.generator.generator import Generator
from streamtrain.labels import Label
from streamtrain.networks.layers import Body
from streamtrain.networks.network import Network, build_network

SHAPE = (4, 20, 20)
KINDS: dict[str, dict[str, Any]] = {
    "hybrid": {"layers": 3, "filters": 4, "dense": 8},
    "means": {"kind": "means", "layers": 3, "filters": 4, "dense": 8},
    "compact": {"kind": "compact", "layers": 3, "filters": 4, "dense": 8},
    "cnn": {"kind": "cnn", "layers": 3, "filters": 4, "dense": 8, "kernel": 3},
    "cnn, max": {"kind": "cnn", "layers": 2, "filters": 4, "dense": 8, "pooling": "max"},
    "cnn, 3-D": {"kind": "cnn", "dimensions": 3, "layers": 3, "filters": 4, "dense": 8},
    "cnn, 4 frequencies": {"kind": "cnn", "layers": 2, "filters": 4, "dense": 8, "dropout": 0},
    "resnet": {"kind": "resnet", "filters": 2, "dense": 8},
    "resnext": {"kind": "resnext", "filters": 4, "cardinality": 2, "dense": 8},
}


def network(kind: str = "means", label: Label | None = None) -> Network:
    """With random weights everywhere, also where it starts at zero, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made = network_of(SHAPE, label, **KINDS[kind])
        for name, values in made.named_parameters():
            if values.ndim > 1 or "bias" in name:
                nn.init.normal_(values, std=0.2)
    made.input_mean.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    made.input_std.copy_(torch.tensor([0.5, 1.0, 2.0, 4.0]))
    return made.eval()


class Linear(Body):
    """A body that is a matrix."""

    dimensions = 2

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.matrix = nn.Linear(int(np.prod(SHAPE)), outputs)

    def forward(self, cube: torch.Tensor) -> torch.Tensor:
        numbers: torch.Tensor = self.matrix(cube.flatten(1))
        return numbers


def cube(seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32))


def config(**observe: Any) -> Config:
    return from_mapping({"grid": {"shape": list(SHAPE)}, "observe": observe})


def halo(label: Label) -> torch.Tensor:
    return label.unit_label(np.zeros(1, np.int64))


# Activations.


def by_hand(made: Network, one: torch.Tensor) -> list[torch.Tensor]:
    """The layers' outputs, from the weights and the definitions of the networks."""
    body: Any = made.body
    if made.kind == "hybrid":
        x = body.weights @ one.flatten(1) - body.offset[:, None]
        x = nn.functional.avg_pool2d(x.view(4, 1, 20, 20), 2)
        x = x.sign() * x.abs().log1p()
        found = []
        for convolution in body.convolutions:
            x = gelu(convolution(nn.functional.avg_pool2d(x, 2) if found else x))
            found.append(x.transpose(0, 1)[None])
        return found
    x = (one - made.input_mean[:, None, None]) / made.input_std[:, None, None]
    x = x[None]
    found = []
    if made.kind == "means":
        for convolution in body.convolutions:
            x = nn.functional.avg_pool2d(gelu(convolution(x)), 2)
            found.append(x)
        return found
    if made.kind == "compact":
        x = gelu(body.stem(x))
        found.append(x)
        for widen, stage in zip(body.widen, body.stages, strict=True):
            x = stage(gelu(widen(nn.functional.avg_pool2d(x, 2))))
            found.append(x)
        return found
    if made.kind == "cnn":
        x = x if body.dimensions == 2 else x[:, None]
        halved = 0
        for module in body.layers:
            before, x = x, module(x)
            halved += x.shape[-1] < before.shape[-1]
            if halved > len(found):
                found.append(x)
            elif found and x.shape == found[-1].shape:  # the ReLU after a halving convolution
                found[-1] = x if isinstance(module, nn.ReLU) else found[-1]
        return found
    x = body.pool(leaky_relu(body.stem_norm(body.stem(x[:, None])), 0.3))
    found.append(x)
    for stage in body.stages:
        x = stage(x)
        found.append(x)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_activations_are_those_of_forward(kind: str) -> None:
    made, one = network(kind), cube()
    with torch.no_grad():
        expected = by_hand(made, one)
        before = made(one[None])
        found = layers.activations(made, one)
        after = made(one[None])
    assert len(found) == len(expected) == (5 if "res" in kind else KINDS[kind]["layers"])
    assert len({layer.name for layer in found}) == len(found)
    for layer, values in zip(found, expected, strict=True):
        np.testing.assert_allclose(layer.values, values[0].numpy(), rtol=1e-5, atol=1e-6)
        assert layer.values.std() > 0
    assert torch.equal(before, after)
    assert not any(module._forward_hooks for module in made.modules())


@pytest.mark.parametrize("kind", ["cnn", "cnn, 3-D", "resnet"])
def test_the_last_activation_is_what_the_dense_layer_takes(kind: str) -> None:
    """So no layer is left out at the end."""
    made, one = network(kind), cube()
    body: Any = made.body
    last = torch.from_numpy(layers.activations(made, one)[-1].values)
    taken = last.mean(dim=(1, 2, 3)) if kind == "resnet" else last.flatten()
    with torch.no_grad():
        features = body.dense(taken[None])
        if kind == "resnet":
            features = body.dense_norm(features)
        answer = made.head(body.output(relu(features)))
        torch.testing.assert_close(answer, made(one[None]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_first_filters_are_applied_to_the_map(kind: str) -> None:
    """The response to one bright voxel is a filter, mirrored."""
    made = network(kind)
    weights = layers.first_filters(made)
    first = next(m for m in made.body.modules() if isinstance(m, nn.Conv2d | nn.Conv3d))
    middle = [k // 2 for k in weights.shape[2:]]
    sides = [21] * (first.weight.ndim - 2)
    point = torch.zeros(1, first.weight.shape[1] if first.weight.ndim == 4 else 1, *sides)
    point[:, 0, ..., 10, 10] = 1.0
    pads = [k // 2 for k in first.weight.shape[2:]]
    apply = nn.functional.conv2d if first.weight.ndim == 4 else nn.functional.conv3d
    with torch.no_grad():
        seen = apply(point, first.weight, padding=pads)[0].numpy()
    seen = seen if seen.ndim == 3 else seen[:, 10]
    frequency = 0 if first.weight.ndim == 4 else slice(None)
    expected = weights[:, frequency, ::-1, ::-1]
    if first.weight.ndim == 5:
        expected = expected.sum(axis=1)  # the point is bright at all frequencies
    span = [slice(10 - m, 11 + m) for m in middle]
    np.testing.assert_allclose(seen[:, span[0], span[1]], expected, rtol=1e-4, atol=1e-5)


def test_filters_are_as_wide_as_the_pixels_they_act_on() -> None:
    """Those of a hybrid act on the map joined by two pixels."""
    assert layers.filtered_shape(network("means"), SHAPE) == SHAPE
    made, one = network("hybrid"), cube()
    assert layers.filtered_shape(made, SHAPE) == (4, 10, 10)
    first = layers.activations(made, one)[0].values
    assert first.shape[1:] == (4, 10, 10)


# Gradients.


def test_the_gradient_of_a_linear_network_is_its_weights() -> None:
    label = label_of(5)
    made = network(label=label)
    with torch.random.fork_rng(devices=[]):
        made.body = Linear(5)  # type: ignore[assignment]
    made.head.function.scale.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))  # type: ignore[union-attr]
    target = layers.target_of(label, (4.2, 5.6))  # of the bins at 3.85, 4.55, 5.25, 5.95, 6.65
    found = layers.gradient(made, cube(), halo(label), target, config())
    weights = made.body.matrix.weight.detach().numpy().reshape(5, *SHAPE)  # type: ignore[union-attr]
    std = made.input_std.numpy()[:, None, None]
    expected = 0.5 * (2.0 * weights[1] + 3.0 * weights[2]) / std
    # float32: two weights may nearly cancel
    np.testing.assert_allclose(found.gradient, expected, rtol=1e-5, atol=1e-8)
    assert (found.unit, target.unit) == ("uK", "dex")


def test_a_network_that_ignores_its_input_has_no_gradient() -> None:
    label = label_of(5)
    with torch.random.fork_rng(devices=[]):
        untrained = network_of(SHAPE, label, **KINDS["cnn"]).eval()
    found = layers.gradient(untrained, cube(), halo(label), layers.target_of(label), config())
    assert not found.gradient.any()


OBSERVE: dict[str, dict[str, Any]] = {
    "none": {},
    "log modulus": {"log_modulus": {}},
    "log10": {"log10": {"epsilon": 2.0}},
    "asinh": {"asinh": {"scale": 0.7}},
    "two": {"asinh": {"scale": 3.0}, "log_modulus": {}},
}
TRANSFORMS = {
    "none": lambda t: t,
    "log modulus": lambda t: np.sign(t) * np.log10(np.abs(t) + 1.0),
    "log10": lambda t: np.log10(np.maximum(t + 2.0, 2e-3)),
    "asinh": lambda t: np.arcsinh(t / 0.7),
    "two": lambda t: np.sign(t) * np.log10(np.abs(np.arcsinh(t / 3.0)) + 1.0),
}


@pytest.mark.parametrize(
    "kind", ["hybrid", "means", "compact", "cnn", "cnn, 3-D", "resnet", "resnext"]
)
@pytest.mark.parametrize("transform", OBSERVE)
def test_the_gradient_is_by_the_map(kind: str, transform: str) -> None:
    """Against a difference of the answers to maps that differ by a little [uK] in some voxels."""
    if kind not in ("means", "cnn, 3-D") and transform != "log modulus":
        return
    label = label_of(5)
    made = network(kind, label)
    exact = deepcopy(made).double()
    last = exact.body.output  # which would be in float32
    with torch.random.fork_rng(devices=[]):
        exact.body.output = nn.Linear(1, 1)
    exact.body.output.weight, exact.body.output.bias = last.weight, last.bias
    rng = np.random.default_rng(5)
    temperature = rng.normal(size=SHAPE) * 2.0 + 0.5
    change = rng.normal(size=SHAPE)
    transformed = TRANSFORMS[transform]
    target, one = layers.target_of(label), halo(label)

    def answer(of: np.ndarray) -> float:
        with torch.no_grad():
            maps = torch.from_numpy(transformed(of))
            x = (maps - exact.input_mean[:, None, None]) / exact.input_std[:, None, None]
            x = maps if kind == "hybrid" else x
            point = exact.head.point(exact.head(exact.body(x[None])), one)
            return float(target.of(point, one))

    seen = torch.from_numpy(transformed(temperature)).float()
    found = layers.gradient(made, seen, one, target, config(**OBSERVE[transform]))
    step = 1e-6
    slope = (answer(temperature + step * change) - answer(temperature - step * change)) / (2 * step)
    assert (found.gradient * change).sum() == pytest.approx(slope, rel=2e-3)
    assert found.unit == "uK"
    clipped = transform == "log10"
    shown = np.maximum(temperature, -2.0 + 2e-3) if clipped else temperature
    np.testing.assert_allclose(found.values, shown, rtol=1e-5, atol=1e-5)
    assert found.output == pytest.approx(answer(temperature), rel=1e-4)


@pytest.mark.parametrize(
    "observe",
    [
        {"log_modulus": {}, "beam": {"fwhm_pixels": 3}},
        {"standardise": {}},
        {"standardise": {}, "log_modulus": {}},
    ],
)
def test_a_transform_that_mixes_voxels_is_not_undone(observe: dict[str, Any]) -> None:
    values, factor, unit = layers.map_units(config(**observe), cube().double().numpy())
    assert unit == "network input"
    np.testing.assert_array_equal(values, cube().double().numpy())
    assert (factor == 1).all()


def test_summed_voxels_are_told() -> None:
    assert layers.summed_voxels(config(pool={"factor": [2, 4, 4], "reduce": "sum"})) == 32
    assert layers.summed_voxels(config(pool={"factor": [2, 4, 4]})) == 1


@pytest.mark.parametrize("quantity", ["counts", "phi", "phi_L", "cumulative"])
@pytest.mark.parametrize("scale", ["log10", "linear"])
def test_a_target_is_told_in_halos(quantity: str, scale: str) -> None:
    """Whatever the unit of the label."""
    label = label_of(5, quantity=quantity, scale=scale)
    one = halo(label)
    counts = torch.tensor([[1000.0, 300.0, 100.0, 10.0, 1.0]])
    point = counts * one if scale == "linear" else counts.log10() + one
    target = layers.target_of(label, (4.2, 5.6))
    dex = (np.log10(300) + 2) / 2
    halos = 200 if quantity == "cumulative" else 400
    expected = dex if scale == "log10" else halos
    assert float(target.of(point, one)) == pytest.approx(expected, rel=1e-5)
    assert target.unit == ("dex" if scale == "log10" else "halos")


def test_a_class_is_told_by_its_probability() -> None:
    label = label_of(5, quantity="class")
    target = layers.target_of(label, name="odd")
    point = torch.tensor([[0.0, 0.0, np.log(2.0)]])
    assert float(target.of(point, halo(label))) == pytest.approx(np.log(0.5))


def test_what_is_not_there_is_refused() -> None:
    label = label_of(5)
    with pytest.raises(ValueError, match=r"no luminosity bin .* 7\.5 to 8; the label's are 3\.5"):
        layers.target_of(label, (7.5, 8.0))
    with pytest.raises(ValueError, match="class 'odd' is asked for, but"):
        layers.target_of(label, name="odd")
    classes = label_of(5, quantity="class")
    with pytest.raises(ValueError, match="class 'dim' is none of faint, bright, odd"):
        layers.target_of(classes, name="dim")
    with pytest.raises(ValueError, match="no luminosity range"):
        layers.target_of(classes, (4.0, 5.0), "odd")


# The command.


@pytest.fixture
def run(tmp_path: Path, small_sky: Lightcone, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of a 3-D network on small maps."""
    made = small.config(
        run=str(tmp_path / "run"),
        observe={"pool": {"factor": [1, 1, 1]}, "log_modulus": {}},
        label={"bins": 7},
        network={"kind": "cnn", "dimensions": 3, "layers": 3, "filters": 3, "dense": 8},
    )
    generator = Generator(made, "test", lightcones=[small_sky])
    monkeypatch.setattr(testset, "open_generator", lambda *_, **__: generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        untrained = build_network(
            made.network, generator.input_shape, generator.label, made.observation.input_map
        )
        nn.init.normal_(untrained.body.output.weight, std=0.1)
    save_run(made, untrained, generator, step=9)
    return tmp_path / "run"


@small.EXTRAPOLATES
def test_the_command_draws_three_figures(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main.main(["layers", str(run), "--index", "3", "--log10-L", "5", "6.2"])
    assert status == 0
    said = capsys.readouterr().out
    assert said.startswith("mean log10 dN, log10 L = 5 to 6.2: the network predicts ")
    for name in ("filters.png", "activations.png", "gradient.png"):
        assert (run / name).stat().st_size > 20_000
        assert name in said
    assert not list(run.glob("*.part"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--log10-L", "8", "9"], "no luminosity bin has its centre in log10 L = 8 to 9"),
        (["--index", "-1"], "--index -1 is outside 0..2^64 - 1"),
        (["--class", "li16"], "class 'li16' is asked for, but the label is a function"),
    ],
)
def test_bad_input_gets_one_sentence(
    run: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["layers", str(run), *options]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and len(said.splitlines()) == 1
