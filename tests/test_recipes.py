"""The recipes of docs/architecture.md, followed: something new is added in its few places, and is
seen where it should be. The table of each kind is what a new entry is put into."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from support import small
from support.network_tools import mean_network
from torch import Tensor, nn

import streamtrain.config
from streamtrain.catalogs import readers
from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cli.main import _parser, main
from streamtrain.config import ConfigError
from streamtrain.generator.generator import Generator
from streamtrain.luminosity import modifiers, registry
from streamtrain.luminosity import settings as luminosity_settings
from streamtrain.luminosity.lines import LINES, line_name
from streamtrain.maps import read as maps_read
from streamtrain.maps.read import read_map
from streamtrain.networks import heads, network
from streamtrain.networks import settings as network_settings
from streamtrain.networks.layers import Body

pytestmark = small.ASSUMES


def test_a_luminosity_model(monkeypatch: pytest.MonkeyPatch, small_sky: Lightcone) -> None:
    def straight(mass_Msun: Any, z: Any, *, per_mass: float = 1e-6) -> Any:
        return per_mass * mass_Msun

    monkeypatch.setitem(registry.MODELS, "straight", registry.user_model(straight, "straight"))
    emit = {"line": {"model": "straight", "parameters": {"per_mass": {"uniform": [1e-7, 1e-5]}}}}
    batch = Generator(small.config(emit=emit), lightcones=[small_sky]).generate([0])
    [drawn] = batch.draws
    assert drawn["model"] == "straight"
    light = drawn["parameters"]["per_mass"] * np.asarray(small.MASS_RANGE)
    seen = np.flatnonzero(batch.counts[0].numpy())
    edges = np.linspace(3.5, 7.0, 50)
    assert edges[seen[-1]] <= np.log10(light[1])
    with pytest.raises(ConfigError, match="did you mean 'straight'"):
        Generator(small.config(emit={"line": {"model": "strait"}}), lightcones=[small_sky])


@dataclass(frozen=True)
class HalvedConfig(modifiers.ModifierConfig):
    """Every halo half as bright."""

    moves_light: ClassVar[bool] = True

    def adjustment(self, name: str, stage: int, bins: Any) -> modifiers.Adjustment:
        return modifiers.Brightness(name, stage, modifiers.BrightnessConfig(factor=0.5), 0.0)


def test_a_modifier(monkeypatch: pytest.MonkeyPatch, small_sky: Lightcone) -> None:
    monkeypatch.setitem(modifiers.MODIFIERS, "halved", HalvedConfig)
    monkeypatch.setitem(luminosity_settings.EMIT, "halved", HalvedConfig)
    config = small.config(emit={"line": {}, "halved": {}})
    half = Generator(config, lightcones=[small_sky]).generate([3])
    whole = Generator(small.config(), lightcones=[small_sky]).generate([3])
    assert torch.allclose(half.cube, 0.5 * whole.cube, rtol=1e-4, atol=1e-6)
    assert half.draws[0]["halved"]["factor"] == 0.5
    assert config.digest() != small.config().digest()
    assert "halved" in config.to_yaml()


class Flat(Body):
    """A dense layer on the whole map."""

    dimensions = 2

    def __init__(self, section: Any, input_shape: tuple[int, int, int], num_numbers: int) -> None:
        super().__init__()
        self.dense = nn.Linear(int(np.prod(input_shape)), num_numbers)

    def forward(self, cube_bfyx: Tensor) -> Tensor:
        found: Tensor = self.dense(cube_bfyx.flatten(1))
        return found


@dataclass(frozen=True)
class FlatConfig(network_settings.AnyNetworkConfig):
    """Nothing but a dense layer."""

    kind: Literal["flat"] = network_settings.setting("flat", "which network")


def test_a_network(monkeypatch: pytest.MonkeyPatch, small_sky: Lightcone) -> None:
    kinds = network_settings.NetworkConfig | FlatConfig
    monkeypatch.setattr(streamtrain.config, "NetworkConfig", kinds)
    monkeypatch.setitem(network.BODIES, FlatConfig, Flat)
    config = small.config(network={"kind": "flat"})
    assert isinstance(config.network, FlatConfig)
    generator = Generator(config, lightcones=[small_sky])
    built, batch = mean_network(generator, 4)
    assert built(batch.cube).shape == (4, generator.label.num_outputs)
    assert "network flat" in network.describe(built, generator.input_shape)


class Cauchy(heads.PointHead):
    """The label's error in a heavy-tailed loss."""

    losses: ClassVar[dict[str, str]] = {"cauchy": "mean ln(1 + error^2) of the label"}

    def loss(self, answer: Tensor, label_bn: Tensor, counts_bn: Tensor, unit: Tensor) -> Tensor:
        return torch.log1p((answer - label_bn) ** 2).mean()


def test_a_head(monkeypatch: pytest.MonkeyPatch, small_sky: Lightcone) -> None:
    names = Literal["auto", "mse", "cauchy"]
    monkeypatch.setattr(network_settings, "HeadName", names)
    monkeypatch.setitem(network.HEADS, "cauchy", Cauchy)
    config = small.config(network={"head": "cauchy"})
    generator = Generator(config, lightcones=[small_sky])
    built, batch = mean_network(generator, 4)
    answer = built(batch.cube)
    loss = built.head.loss(answer, batch.label, batch.counts, batch.unit_label)
    expected = torch.log1p((batch.label.mean(0) - batch.label) ** 2).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert network.loss_name("cauchy", False) == "mean ln(1 + error^2) of the label"


def test_a_reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small_sky: Lightcone) -> None:
    def read_plain(path: Path, options: readers.Options) -> readers.Halos:
        x, y, z, mass, z_obs = np.loadtxt(path).T
        place = np.stack([x, y, z], axis=1)
        return readers.Halos(
            position_Mpc=place,
            mass_Msun=mass,
            z_obs=z_obs,
            cosmology=dict(options.cosmology or {}),
            notes=["plain numbers"],
        )

    known = readers.Format("plain numbers", ("--cosmology",), read_plain, (".plain",))
    monkeypatch.setitem(readers.FORMATS, "plain", known)
    file = tmp_path / "halos.plain"
    columns = ("x_Mpc", "y_Mpc", "z_Mpc", "mass_Msun", "z_obs")
    np.savetxt(file, np.stack([getattr(small_sky, name)[:50] for name in columns], axis=1))
    options = readers.Options(cosmology=small_sky.cosmology)
    found = readers.read(file, options=options)
    assert sorted(found.mass_Msun) == sorted(small_sky.mass_Msun[:50])
    with pytest.raises(CatalogError, match=r"--axis .* not of the format plain"):
        readers.read(file, options=readers.Options(axis=(0, 0, 1)))


def test_a_map_format(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    npz = maps_read.FORMATS["npz"]

    def holds(path: Path) -> bool:
        return path.read_bytes()[:4] == b"MAPS"

    def read(path: Path, said: maps_read.Said) -> Any:
        inside = path.with_suffix(".npz")
        inside.write_bytes(path.read_bytes()[:3:-1])
        return npz.read(inside, said)

    monkeypatch.setitem(
        maps_read.FORMATS, "maps", maps_read.Format("MAPS", (".maps",), holds, read)
    )
    arrays = {
        "map": np.arange(60.0).reshape(4, 5, 3),
        "nu_binedges": np.linspace(34.0, 28.0, 4),
        "pix_binedges_x": np.linspace(-0.2, 0.2, 5),
        "pix_binedges_y": np.linspace(-0.25, 0.25, 6),
    }
    np.savez(tmp_path / "a.npz", units="uK", nu_rest=115.27, **arrays)
    (tmp_path / "b.maps").write_bytes(b"MAPS" + (tmp_path / "a.npz").read_bytes()[::-1])
    theirs, ours = read_map(tmp_path / "a.npz"), read_map(tmp_path / "b.maps")
    assert np.array_equal(theirs.cube, ours.cube)
    (tmp_path / "c.txt").write_text("nothing")
    with pytest.raises(ValueError, match="no map in FITS, npz, HDF5 or MAPS"):
        read_map(tmp_path / "c.txt")


def test_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LINES, 88.632, "HCN(1-0)")
    assert line_name(88.6) == "HCN(1-0)"
    assert line_name(230.5) == "CO(2-1)"
    # in air and in vacuum
    assert line_name(299792.458 / 0.65628) == line_name(299792.458 / 0.656461) == "H-alpha"
    assert line_name(1.4204) == "HI 21 cm" and line_name(806.652) == "CO(7-6)"
    assert line_name(809.34) == "[CI](2-1)"


def test_every_command_says_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Also those of `catalog` and `testset`; none begins its work."""
    [commands] = [a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction)]
    described = {action.dest for action in commands._choices_actions if action.help}
    assert described == set(commands.choices)
    for name in commands.choices:
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0
        assert f"streamtrain {name}" in capsys.readouterr().out
        assert commands.choices[name].description
