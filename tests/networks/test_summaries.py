"""The network on power spectrum and voxel intensity distribution: what it sees, what it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import small
from support.network_tools import label_of, network_for

from streamtrain.config import Config
from streamtrain.evaluate.trained import Trained
from streamtrain.generator.generator import Generator
from streamtrain.networks.network import Network, build_network
from streamtrain.networks.settings import SummariesConfig
from streamtrain.networks.summaries import Hybrid, Summaries
from streamtrain.train.normalisation import set_normalisation

SHAPE = (9, 21, 21)
TRANSFORMS: list[tuple[dict[str, Any], Any]] = [
    ({}, lambda t: t),
    ({"log_modulus": {}}, lambda t: np.sign(t) * np.log10(np.abs(t) + 1)),
    ({"asinh": {"scale": 2.0}}, lambda t: np.arcsinh(t / 2.0)),
    ({"log10": {"epsilon": 9.0}}, lambda t: np.log10(t + 9.0)),
    (
        {"asinh": {"scale": 0.5}, "log_modulus": {}},
        lambda t: np.sign(t) * np.log10(np.abs(np.arcsinh(t / 0.5)) + 1),
    ),
]


def config_of(observe: dict[str, Any] | None = None, **network: Any) -> Config:
    return small.config(observe=observe or {}, network={"kind": "summaries", "dense": 32} | network)


def network_of(config: Config, shape: tuple[int, int, int] = SHAPE) -> Network:
    return build_network(config.network, shape, label_of(), config.observation.input_map)


def body_of(config: Config) -> Summaries:
    body = network_of(config).body
    assert isinstance(body, Summaries)
    return body


def cubes(number: int, sigma: float = 1.0) -> torch.Tensor:
    return sigma * torch.randn(number, *SHAPE)


@pytest.mark.parametrize(("observe", "transform"), TRANSFORMS)
def test_sees_the_map_before_its_transform(observe: dict[str, Any], transform: Any) -> None:
    maps = cubes(6).double().clamp(-8.0, 8.0)
    inputs = torch.from_numpy(transform(maps.numpy())).float()
    plain, body = body_of(config_of()), body_of(config_of(observe))
    plain.set_edges(maps.float())
    body.set_edges(inputs)
    torch.testing.assert_close(body.voxel_edges, plain.voxel_edges, rtol=1e-4, atol=1e-5)
    body.voxel_edges.copy_(plain.voxel_edges)
    body.mean_power.copy_(plain.mean_power)
    found, expected = body.features(inputs), plain.features(maps.float())
    number = len(plain.mean_power)
    torch.testing.assert_close(found[:, :number], expected[:, :number], rtol=1e-4, atol=1e-4)
    moved = (found[:, number:].expm1() - expected[:, number:].expm1()).abs().sum(1)
    assert moved.max() <= 4  # voxels that roundings of the transform take across an edge


def test_a_transform_that_is_not_the_last_step_stays() -> None:
    config = config_of({"log_modulus": {}, "noise": {"sigma_uK": 1.0, "per": "map_voxel"}})
    assert config.observation.input_map.undone == ()
    undone = config_of({"log_modulus": {}}).observation.input_map.undone
    assert [transform.name for transform in undone] == ["log_modulus"]


def test_box_of_pooled_maps() -> None:
    config = config_of({"pool": {"factor": [9, 3, 7]}})
    box, fine = config.observation.input_map.box, config_of().observation.input_map.box
    assert box.shape == (1, 7, 3)
    assert box.sides_Mpc == pytest.approx(fine.sides_Mpc)
    with pytest.raises(ValueError, match=r"have the shape \(1, 7, 3\), not \(9, 21, 21\)"):
        network_of(config)


def test_features_are_the_power_and_the_voxels() -> None:
    """Of white noise: P = sigma^2 V_vox; twice the amplitude, four times the power."""
    body = body_of(config_of(voxel_bins=8, power_bins=5))
    body.set_edges(cubes(32))
    body.mean_power.fill_(float(np.prod(config_of().observation.input_map.box.cells_Mpc)))
    first, second = body.features(cubes(64)), body.features(cubes(64, 2.0))
    power = first[:, :5].exp()
    assert (power.mean(0) - 1.0).abs().max() < 0.1
    assert (second[:, :5].exp().mean(0) / power.mean(0) - 4.0).abs().max() < 0.5
    voxels = first[:, 5:].expm1()
    np.testing.assert_allclose(voxels.sum(1), np.prod(SHAPE), rtol=1e-5)


@pytest.mark.parametrize("power", ["spherical", "cylindrical", "none"])
def test_shifted_and_mirrored_maps_are_the_same(power: str) -> None:
    network = network_of(config_of(power=power)).eval()
    torch.nn.init.normal_(network.body.output.weight)
    cube = cubes(2)
    network.body.set_edges(cube)
    network.body.set_moments(network.body.features(cube))
    moved = cube.roll((3, 5), (2, 3)).flip(2)
    torch.testing.assert_close(network(cube), network(moved), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(network(cube)[0], network(cube)[1], atol=1e-2)


@pytest.mark.parametrize("power", ["spherical", "cylindrical"])
def test_learns_the_amplitude_of_noise(power: str) -> None:
    network = network_of(config_of(power=power))
    body = network.body
    amplitudes = [torch.rand(64, 1, 1, 1) * 2 - 1 for _ in range(2)]
    some = torch.cat([torch.exp(a) * cubes(64) for a in amplitudes])
    body.set_edges(some)
    body.set_moments(body.features(some))
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(100):
        amplitude = torch.rand(32, 1, 1, 1) * 2 - 1
        label = amplitude.view(32, 1).expand(-1, 5)
        answer = network(torch.exp(amplitude) * cubes(32))
        loss = network.head.loss(answer, label, label.int(), torch.ones(1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    still = [name for name, p in network.named_parameters() if not p.grad.abs().sum() > 0]
    assert still == []
    assert loss.item() < (1 / 3) / 100  # the variance of the amplitude is 1/3


def test_a_blank_map_does_no_harm() -> None:
    network = network_of(config_of()).eval()
    network.body.set_edges(cubes(4))
    torch.nn.init.normal_(network.body.output.weight)
    assert torch.isfinite(network(torch.zeros(2, *SHAPE))).all()


def test_bfloat16_leaves_the_summaries_alone() -> None:
    body = body_of(config_of())
    cube = cubes(4)
    body.set_edges(cube)
    with torch.autocast("cpu", torch.bfloat16):
        found = body.features(cube)
    assert torch.equal(found, body.features(cube))


def test_maps_without_anything_leave_finite_features() -> None:
    """P of nothing over the mean P of nothing."""
    for body in (body_of(config_of()), hybrid_of()):
        blank = torch.zeros(4, *SHAPE)
        body.set_edges(blank)
        assert torch.isfinite(body.features(blank)).all()


def test_bins_of_large_maps_are_chosen_from_all_columns() -> None:
    """A stride that the number of columns divides would see the first column alone."""
    shape = (16, 128, 128)  # 2^18 voxels, 16 for each that is looked at
    config = small.config(
        grid={"fov_deg": [0.8, 0.8], "shape": list(shape)},
        network={"kind": "summaries", "power": "none", "voxel_bins": 2},
    )
    body = network_of(config, shape).body
    assert isinstance(body, Summaries)
    columns = torch.arange(128.0).expand(2, *shape)
    body.set_edges(columns)
    assert float(body.voxel_edges) == pytest.approx(63.5, abs=1.0)  # the median
    rows = columns.transpose(2, 3)
    body.set_edges(rows)
    assert float(body.voxel_edges) == pytest.approx(63.5, abs=1.0)


@small.EXTRAPOLATES
def test_calibration_sets_bins_and_moments_whatever_the_chunk(tmp_path: Path) -> None:
    """Of the first training samples; and what is set travels with the weights."""
    config = config_of({"noise": {"sigma_uK": 0.5, "per": "map_voxel"}, "log_modulus": {}})
    generator = Generator(config, "train", lightcones=[small.lightcone()])
    states = []
    for chunk in (16, 128):
        network = network_for(generator)
        set_normalisation(network, generator, chunk=chunk, report=lambda *_: None)
        body = network.body
        features = body.features(generator.generate(range(128)).cube)
        normal = (features - body.feature_mean) / body.feature_std
        assert normal.mean(0).abs().max() < 1e-3
        assert normal.std(0, correction=0).max() < 1.001
        states.append({k: v for k, v in network.state_dict().items() if "body" in k and v.ndim < 2})
    names = {"body.voxel_edges", "body.mean_power", "body.feature_mean", "body.feature_std"}
    assert names <= states[0].keys()
    for name in names:
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-5, atol=1e-5)
    other = network_for(generator)
    other.load_state_dict(network.state_dict())
    cube = generator.generate([500]).cube
    assert torch.equal(other.eval()(cube), network.eval()(cube))
    generator.close()


@small.EXTRAPOLATES
def test_trains_and_is_opened_again(tmp_path: Path) -> None:
    """A run as a user makes it; the checkpoint answers as the network did."""
    from streamtrain.train.trainer import Trainer

    for seed, split in enumerate(("train", "validation")):
        small.lightcone(seed).save(tmp_path / f"{split}.h5")
    config = small.config(
        run=str(tmp_path / "run"),
        data={s: [str(tmp_path / f"{s}.h5")] for s in ("train", "validation")},
        emit={"line": {"prior": "narrow"}},
        observe={"log_modulus": {}},
        network={"kind": "summaries", "dense": 32, "head": "negative_binomial"},
        train={"steps": 20, "warmup_steps": 5, "batch_size": 16, "validate_every": 10,
               "validation_samples": 32, "threads": 1},
    )  # fmt: skip
    assert isinstance(config.network, SummariesConfig)
    trainer = Trainer(config, "cpu")
    trainer.run()
    assert len((tmp_path / "run" / "history.jsonl").read_text().splitlines()) > 2
    network = Trained.load(config).network(trainer.generator.label)
    cube = cubes(2)
    assert torch.equal(network(cube), trainer.network.eval()(cube))


# The hybrid network: weights of the channels.


def hybrid_of(observe: dict[str, Any] | None = None) -> Hybrid:
    body = network_of(config_of(observe, kind="hybrid", layers=2, scales=2)).body
    assert isinstance(body, Hybrid)
    return body


SPECTRUM = torch.linspace(1.2, 0.8, SHAPE[0])


def with_continuum(number: int, amplitude: float) -> torch.Tensor:
    """White noise in every channel, and sources that all channels share."""
    sources = torch.randn(number, 1, *SHAPE[1:])
    return cubes(number) + amplitude * SPECTRUM[:, None, None] * sources


def test_channels_are_weighted_by_their_inverse_covariance() -> None:
    """Of noise and one spectrum, C = 1 + a^2 s s^T, whose inverse is in closed form (Sherman and
    Morrison 1950); the weighted map has unit scatter and hardly any sources."""
    body, amplitude = hybrid_of(), 30.0
    body.set_weights([with_continuum(64, amplitude) for _ in range(2)])
    power = amplitude**2 * SPECTRUM @ SPECTRUM
    inverse = torch.eye(SHAPE[0]) - amplitude**2 / (1 + power) * SPECTRUM[:, None] * SPECTRUM
    expected = inverse / inverse.diag().sqrt()[:, None]
    ratio = body.weights / expected
    assert abs(ratio.diag() - 1).max() < 0.02
    torch.testing.assert_close(body.weights, expected, rtol=0, atol=0.02)
    seen = body.restore(with_continuum(64, amplitude))
    assert abs(seen.std((0, 2, 3)) - 1).max() < 0.03
    assert (body.weights @ (amplitude * SPECTRUM)).abs().max() < 0.1


def test_channels_with_little_in_common_are_left_as_they_are() -> None:
    """Up to the unit; estimated weights would spill bright voxels of one into another."""
    body = hybrid_of()
    maps = cubes(64, 7.0) + 3.0
    body.offset.fill_(5.0)  # of samples of before
    body.set_weights([maps])
    torch.testing.assert_close(body.weights, torch.eye(SHAPE[0]) / 7.0, rtol=0.02, atol=0.0)
    assert torch.equal(body.offset, torch.zeros(SHAPE[0]))


def test_bins_of_T_are_of_the_first_samples_however_they_are_batched() -> None:
    maps = cubes(128)
    maps[32:] *= 100.0
    edges = []
    for size in (10, 32, 128):
        body = body_of(config_of())
        body.set_normalisation(lambda size=size: maps.split(size))
        edges.append(body.voxel_edges)
    assert torch.equal(edges[0], edges[1]) and torch.equal(edges[0], edges[2])
    assert edges[0].abs().max() < 5.0


def test_a_bright_sample_does_not_decide_the_weights() -> None:
    faint, bright = with_continuum(63, 30.0), 1e3 * cubes(1)
    first, second = hybrid_of(), hybrid_of()
    first.set_weights([faint])
    second.set_weights([torch.cat([faint, bright])])
    torch.testing.assert_close(first.weights, second.weights, rtol=0.0, atol=0.02)


def test_what_a_filter_removed_is_left_out() -> None:
    """Maps without a mean along frequency have a covariance without an inverse."""
    body = hybrid_of()
    maps = with_continuum(64, 30.0)
    body.set_weights([maps - maps.mean(1, keepdim=True)])
    assert body.weights.abs().max() < 2.0
    assert (body.weights @ torch.ones(SHAPE[0])).abs().max() < 1e-4


def test_a_flagged_channel_stays_blank() -> None:
    """It is zero in every map; the rounding of its covariance is no weight of the others."""
    body, flagged = hybrid_of(), 4
    maps = with_continuum(128, 30.0)
    maps[:, flagged] = 0.0
    body.set_weights([maps])
    assert (body.weights[flagged] == 0).all() and (body.weights[:, flagged] == 0).all()
    seen = body.restore(maps).std((0, 2, 3))
    others = torch.arange(SHAPE[0]) != flagged
    assert seen[flagged] == 0
    assert abs(seen[others] - 1).max() < 0.03


def test_more_channels_than_twice_the_pixels() -> None:
    """A sky of n pixels has n - 1 modes at most, so most eigenvalues of its covariance are the
    rounding of zero, and are no measure of its scatter."""
    shape = (100, 6, 6)
    config = small.config(
        grid={"fov_deg": [0.8, 0.8], "shape": list(shape)},
        network={"kind": "hybrid", "layers": 1, "scales": 1, "power_bins": 2},
    )
    body = network_of(config, shape).body
    assert isinstance(body, Hybrid)
    maps = 7.0 * torch.randn(128, *shape)
    body.set_weights(maps.split(32))
    assert 0.3 < body.restore(maps).std() < 3.0


def test_blank_maps_have_no_weights() -> None:
    body = hybrid_of()
    body.set_weights([torch.zeros(4, *SHAPE)])
    assert torch.equal(body.weights, torch.eye(SHAPE[0]))
    body.set_weights([torch.zeros(4, *SHAPE), cubes(60, 5.0)])
    assert body.weights.diag().mean() == pytest.approx(0.2, rel=0.02)


def test_weights_are_those_of_the_map_before_its_transform() -> None:
    maps = with_continuum(64, 30.0)
    plain, body = hybrid_of(), hybrid_of({"log_modulus": {}})
    plain.set_weights([maps])
    inputs = maps.sign() * (maps.abs() + 1).log10()
    body.set_weights([inputs])
    torch.testing.assert_close(body.weights, plain.weights, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(body.restore(inputs), plain.restore(maps), rtol=1e-3, atol=1e-3)


def test_a_line_is_found_behind_sources_that_hide_it() -> None:
    """Sources of changing brightness, 30 times the line in one voxel: the error of the line's
    amplitude is a hundredth of its variance, where `summaries` are left with most of it."""

    def maps(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        amplitude = torch.rand(number, 1, 1, 1) * 2 - 1
        brightness = 30.0 * torch.exp(torch.randn(number, 1, 1, 1))
        sources = torch.randn(number, 1, *SHAPE[1:]) * SPECTRUM[:, None, None]
        return amplitude.exp() * cubes(number) + brightness * sources, amplitude.view(-1, 1)

    errors = {}
    for kind in ("hybrid", "summaries"):
        network = network_of(config_of(kind=kind))
        network.body.set_normalisation(lambda: [maps(128)[0]])
        optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
        for _ in range(150):
            seen, amplitude = maps(32)
            loss = (network(seen) - amplitude).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        seen, amplitude = maps(256)
        with torch.no_grad():
            errors[kind] = float((network(seen) - amplitude).square().mean()) / (1 / 3)
    assert errors["hybrid"] < 0.02
    assert errors["summaries"] > 0.5
