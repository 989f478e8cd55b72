"""The section `network` and the optimiser's settings: what is chosen, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.network_tools import network_of

from streamtrain.config import ConfigError, TrainConfig, from_mapping, load_config
from streamtrain.networks.settings import CNNConfig, CompactConfig, HybridConfig, ResNeXtConfig
from streamtrain.train.optimiser import build_optimiser, learning_rate


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
    assert {name: weights[name] for name in settings} == settings
    assert all(p.ndim > 1 for p in weights["params"])


def test_constant_schedule() -> None:
    train = TrainConfig(steps=50, warmup_steps=10, learning_rate=0.5, schedule="constant")
    rates = [learning_rate(step, train) for step in range(50)]
    assert rates[:10] == pytest.approx([0.05 * k for k in range(1, 11)])
    assert rates[10:] == [0.5] * 40
