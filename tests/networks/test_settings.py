"""The section `network` and the optimiser's settings: what is chosen, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.network_tools import network_of

from streamtrain.config import ConfigError, TrainConfig, from_mapping, load_config
from streamtrain.networks.settings import CNNConfig, CompactConfig, HybridConfig, ResNeXtConfig
from streamtrain.train.optimiser import MuonWithAdamW, build_optimiser, learning_rate
from streamtrain.train.trainer import Trainer


def test_kinds_have_their_own_defaults() -> None:
    assert from_mapping({}).network == from_mapping({"network": None}).network == HybridConfig()
    assert from_mapping({"network": {"filters": 8}}).network == HybridConfig(filters=8)
    cnn = from_mapping({"network": {"kind": "cnn", "dimensions": 3}}).network
    assert cnn == CNNConfig(dimensions=3)
    assert (cnn.dense, cnn.dropout) == (1000, 0.2)
    assert from_mapping({"network": {"kind": "resnext"}}).network == ResNeXtConfig()


def test_another_kind_drops_the_settings_of_the_old_one(tmp_path: Path) -> None:
    """In a file that extends another, as emit and observe are replaced."""
    (tmp_path / "base.yaml").write_text("network: {layers: 2, scales: 4}\n")
    child = tmp_path / "child.yaml"
    child.write_text("extends: base.yaml\nnetwork: {kind: cnn, filters: 8}\n")
    assert load_config(child).network == CNNConfig(filters=8)
    child.write_text("extends: base.yaml\nnetwork: {filters: 8}\n")
    assert load_config(child).network == HybridConfig(filters=8, layers=2, scales=4)
    changed = load_config(child, ["network={kind: compact}", "network.blocks=2"])
    assert changed.network == CompactConfig(blocks=2)


def test_examples_are_what_their_names_say() -> None:
    names = ("cnn_2d", "cnn_3d", "resnet", "resnext", "compact", "counts", "monotonic")
    configs = {name: load_config(f"configs/networks/{name}.yaml") for name in names}
    assert {n: c.network.kind for n, c in configs.items()} == {
        "cnn_2d": "cnn",
        "cnn_3d": "cnn",
        "resnet": "resnet",
        "resnext": "resnext",
        "compact": "compact",
        "counts": "compact",
        "monotonic": "compact",
    }
    assert configs["cnn_3d"].network.dimensions == 3
    assert configs["counts"].network.head == "negative_binomial"
    assert configs["monotonic"].network.monotonic
    assert len({c.run for c in configs.values()}) == len(names)


CLASS = {"quantity": "class"}
CUMULATIVE = {"quantity": "cumulative"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"network": {"kind": "resnets"}},
            "network.kind = 'resnets' is none of hybrid, means, cnn, resnet, resnext, compact",
        ),
        (
            {"network": {"kind": "resnet", "cardinality": 4}},
            "network.cardinality belongs to network.kind = resnext, not to resnet, which has: kind",
        ),
        (
            {"network": {"pooling": "max"}},
            "network.pooling belongs to network.kind = cnn, not to hybrid",
        ),
        (
            {"network": {"kind": "resnet", "layers": 3}},
            "network.layers belongs to network.kind = hybrid or means or cnn or compact or "
            "summaries, not to resnet, which has: kind, head, monotonic, dense, dropout, filters; "
            "'network={kind: resnet}' starts from its defaults",
        ),
        (
            {"network": {"kind": "cnn", "filtres": 3}},
            "unknown setting 'network.filtres': did you mean 'filters'? valid: batch_norm, dense",
        ),
        ({"network": 3}, "network must be a mapping of settings, not 3"),
        ({"network": {"kind": "cnn", "dimensions": 4}}, "network.dimensions = 4 is none of 2, 3"),
        (
            {"network": {"kind": "cnn", "kernel_freq": 3}},
            "network.kernel_freq = 3 belongs to network.dimensions = 3; in 2 dimensions",
        ),
        (
            {"network": {"kind": "resnext", "filters": 10}},
            "network.cardinality = 32 does not divide the 20 channels that network.filters = 10",
        ),
        (
            {"network": {"monotonic": True}},
            "network.monotonic is for label.quantity = cumulative, not for counts",
        ),
        (
            {"network": {"head": "poisson"}, "label": CUMULATIVE},
            "network.head = poisson is for the halos of separate bins, label.quantity = counts, "
            "phi, phi_L, not for cumulative",
        ),
        (
            {"network": {"head": "negative_binomial"}, "label": CLASS},
            "network.head = negative_binomial: a class has cross-entropy alone: network.head=auto",
        ),
        ({"network": {"head": "mse"}, "label": CLASS}, "network.head = mse: a class has"),
        (
            {"network": {"head": "msle"}},
            "network.head = msle takes the logarithm of a label in label.scale = linear; this one",
        ),
        (
            {"network": {"kind": "summaries", "slabs": 4}},
            "network.slabs = 4 belongs to network.power = cylindrical, not to spherical",
        ),
        (
            {"network": {"kind": "summaries", "power": "none", "voxel_bins": 0}},
            "network.power = none and network.voxel_bins = 0 leave nothing to see",
        ),
        (
            {"network": {"kind": "summaries", "voxel_bins": 1}},
            "network.voxel_bins = 1 tells nothing apart",
        ),
        ({"network": {"head": "rmse"}}, "network.head = 'rmse' is none of auto, mse, log_cosh"),
        (
            {"train": {"momentum": 0.5}},
            "train.momentum belongs to train.optimiser = sgd, not to adamw",
        ),
        (
            {"train": {"optimiser": "adam", "nesterov": True}},
            "train.nesterov belongs to train.optimiser = sgd, not to adam",
        ),
        (
            {"train": {"optimiser": "sgd", "nesterov": True, "momentum": 0}},
            "train.nesterov needs train.momentum above 0",
        ),
        ({"train": {"optimiser": "lbfgs"}}, "train.optimiser = 'lbfgs' is none of adamw, adam"),
        ({"train": {"schedule": "steps"}}, "train.schedule = 'steps' is none of cosine, constant"),
    ],
)
def test_bad_settings(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_mapping(data)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("train", "kind", "settings"),
    [
        ({}, torch.optim.AdamW, {}),
        ({"optimiser": "adam"}, torch.optim.Adam, {"decoupled_weight_decay": False}),
        ({"optimiser": "sgd"}, torch.optim.SGD, {"momentum": 0.9, "nesterov": False}),
        (
            {"optimiser": "sgd", "momentum": 0.7, "nesterov": True},
            torch.optim.SGD,
            {"momentum": 0.7, "nesterov": True},
        ),
    ],
)
def test_optimisers(train: dict[str, Any], kind: type, settings: dict[str, Any]) -> None:
    with torch.random.fork_rng(devices=[]):
        network = network_of((2, 16, 16), filters=2)
    section = from_mapping({"train": {"weight_decay": 0.1, **train}}).train
    optimiser = build_optimiser(network, section)
    assert type(optimiser) is kind
    weights, biases = optimiser.param_groups
    assert (weights["weight_decay"], biases["weight_decay"]) == (0.1, 0.0)
    assert {name: weights.get(name, False) for name in settings} == settings
    assert all(p.ndim > 1 for p in weights["params"])


def test_muon_is_for_hidden_dense_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for convolutions, the last layer, or what a head has; and one sentence without any, or
    without Muon."""
    train = from_mapping({"train": {"weight_decay": 0.1, "optimiser": "muon"}}).train
    with torch.random.fork_rng(devices=[]):
        network = network_of((2, 16, 16), filters=2)
    if hasattr(torch.optim, "Muon"):
        optimiser = build_optimiser(network, train)
        matrices, weights, biases = (group["params"] for group in optimiser.param_groups)
        assert [id(p) for p in matrices] == [id(layer.weight) for layer in network.body.layers]
        assert len(matrices) + len(weights) + len(biases) == len(list(network.parameters()))
        assert any(p is network.body.output.weight for p in weights)
        assert [g["weight_decay"] for g in optimiser.param_groups] == [0.1, 0.1, 0.0]
        with pytest.raises(ValueError, match="of which this network has none: adamw is for all"):
            build_optimiser(torch.nn.Conv1d(1, 1, 3), train)
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(ValueError, match=r"muon needs torch 2\.9 or newer, this is"):
        build_optimiser(network, train)
    with pytest.raises(ValueError, match=r"muon needs torch 2\.9 or newer, this is"):
        Trainer(from_mapping({"data": {"train": ["none_*.h5"]}, "train": {"optimiser": "muon"}}))


def test_muon_moves_a_matrix_in_all_directions_alike() -> None:
    """Its first step is an orthogonal matrix to a third, as large as a step of AdamW: 0.2 sqrt(n)
    of a matrix n x n. The bias moves as AdamW alone moves it, and halves of a training are one."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    generator = torch.Generator().manual_seed(5)
    gradient = torch.randn(24, 24, generator=generator)
    matrix, bias, alone = (torch.nn.Parameter(torch.zeros(n)) for n in ((24, 24), (24,), (24,)))
    made = MuonWithAdamW([matrix], [{"params": [bias]}], 0.01, 0.0)
    adamw = torch.optim.AdamW([alone], lr=0.01, weight_decay=0.0, fused=True)
    matrix.grad, bias.grad, alone.grad = gradient, gradient[0].clone(), gradient[0].clone()
    made.step()
    adamw.step()
    assert torch.equal(bias, alone)
    sizes = torch.linalg.svdvals(matrix.detach()) / (0.01 * 0.2 * 24**0.5)
    assert float(sizes.min()) > 0.6 and float(sizes.max()) < 1.3
    assert float((matrix.detach() * gradient).sum()) < 0.0


def test_constant_schedule() -> None:
    train = TrainConfig(steps=50, warmup_steps=10, learning_rate=0.5, schedule="constant")
    rates = [learning_rate(step, train) for step in range(50)]
    assert rates[:10] == pytest.approx([0.05 * k for k in range(1, 11)])
    assert rates[10:] == [0.5] * 40
