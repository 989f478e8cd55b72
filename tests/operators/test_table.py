"""A new operator is a class with its section and a line of the table: all else follows.

Two are added here as a contributor would do it: `gain`, random, and `root`, a transform. Everything
that asks about operators has to treat them right without having heard of them.
"""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml
from support import map_runs as runs
from support import small
from torch import Tensor

from streamtrain import observe
from streamtrain.config import Config, ConfigError, from_mapping, load_config
from streamtrain.evaluate.inference.prepare import prepare
from streamtrain.evaluate.interpret import probes as probes_module
from streamtrain.evaluate.interpret.layers import map_units
from streamtrain.evaluate.interpret.probes import run_probes
from streamtrain.evaluate.robustness.scenario_sets import load_scenarios
from streamtrain.generator.export import export, raw
from streamtrain.generator.generator import Generator
from streamtrain.maps.read import read_map
from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.rng import Draws
from streamtrain.numerics.workspace import DeviceArrays
from streamtrain.operators import OPERATORS, Drawn, MapState, Operator, Pointwise, Turn
from streamtrain.operators.noise import RadiometerConfig
from streamtrain.preview.sample import panels_of_steps, steps_of_sample
from streamtrain.schema import OrderWarning, operator_kind, setting

pytestmark = [small.EXTRAPOLATES, small.ASSUMES]


@dataclass(frozen=True)
class GainConfig:
    """An error of the calibration."""

    width: float = setting(0.2, "half the width of the distribution", low=0, high=1)
    table: str | None = setting(None, "a file")


@dataclass
class Gain(Operator):
    """The map times a factor, uniform in 1 - width..1 + width."""

    section = GainConfig
    words = "gain"
    turn = Turn.NOISE
    random = True
    files = ("table",)

    width: float

    @classmethod
    def from_config(cls, name: str, stage: int, config: GainConfig, state: MapState) -> Gain:
        return cls(name, stage, config.width)

    @classmethod
    def check(cls, section: GainConfig, where: str, state: MapState) -> None:
        if state.grid.units != "uK":
            raise ConfigError(f"{where} is of uK, not of {state.grid.units}")

    def draw(self, draws: Draws) -> Drawn:
        u = draws.uniform([0])[:, 0]
        return {"factor": (1.0 + self.width * (2.0 * u - 1.0)).astype(np.float32)}

    def apply(self, kernels: Kernels, cube: Tensor, keys: Tensor, drawn: DeviceArrays) -> Tensor:
        return cube * drawn["factor"][:, None, None, None]


@dataclass(frozen=True)
class RootConfig:
    """sign(T) sqrt(|T| / scale)."""

    scale: float = setting(1.0, "[map units]", above=0)


@dataclass
class Root(Pointwise):
    """sign(T) sqrt(|T| / scale)."""

    section = RootConfig
    words = "square root"

    scale: float

    def apply(self, kernels: Kernels, cube: Tensor, keys: Tensor, drawn: DeviceArrays) -> Tensor:
        return cube.sign() * (cube.abs() / self.scale).sqrt()

    def undo(self, values: Tensor) -> Tensor:
        return values.sign() * values.square() * self.scale

    def slope(self, values: Tensor) -> Tensor:
        return 0.5 / (self.scale * values.abs())


@pytest.fixture(autouse=True)
def _two_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, "gain", Gain)
    monkeypatch.setitem(OPERATORS, "root", Root)


NEW: dict[str, Any] = {"gain": {"width": 0.4}, "root": {"scale": 2.0}}


def rooted(cube: Any, scale: float = 2.0) -> Any:
    return np.sign(cube) * np.sqrt(np.abs(cube) / scale)


def test_samples_are_made_with_it(small_sky: Any) -> None:
    plain = Generator(small.config(), lightcones=[small_sky]).generate([3, 9])
    made = Generator(small.config(observe=NEW), lightcones=[small_sky])
    batch = made.generate([3, 9])
    factors = np.array([draw["gain"]["factor"] for draw in batch.draws], np.float32)
    assert (np.abs(factors - 1.0) <= 0.4).all() and factors[0] != factors[1]
    expected = rooted(plain.cube.numpy() * factors[:, None, None, None])
    np.testing.assert_allclose(batch.cube.numpy(), expected, rtol=1e-6)
    assert torch.equal(made.generate([9]).cube, batch.cube[1:])
    assert torch.equal(observe(plain.cube, small.config(observe=NEW), 11, [3, 9]), batch.cube)


def test_a_configuration_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "new.yaml"
    file.write_text(yaml.safe_dump({"observe": {"noise": {}, **NEW}}, sort_keys=False))
    config = load_config(file)
    assert config.observe["gain"] == GainConfig(0.4) and config.observe["root"] == RootConfig(2.0)
    assert from_mapping(yaml.safe_load(config.to_yaml())) == config
    other = load_config(file, ["observe.gain.width=0.3"])
    assert len({config.digest(), other.digest(), load_config(file, ["observe={}"]).digest()}) == 3
    assert config.sample_settings()["observe"]["gain"] == {"width": 0.4, "table": None}
    moved = [load_config(file, [f"observe.gain.table={name}"]) for name in ("a.npz", "b.npz")]
    assert moved[0].sample_settings() == moved[1].sample_settings() != config.sample_settings()
    with pytest.raises(ConfigError, match=r"'observe\.gain\.widht': did you mean 'width'"):
        load_config(file, ["observe.gain.widht=1"])
    with pytest.raises(ConfigError, match=r"'observe\.gane': did you mean 'gain'"):
        load_config(file, ["observe.gane={}"])
    with pytest.raises(ConfigError, match=r"observe\.gain is of uK, not of Jy/sr"):
        load_config(file, ["grid.units=Jy/sr", "observe={gain: {}}"])


@pytest.mark.parametrize(
    ("start", "added", "expected"),
    [
        ("beam log10", "gain", "beam gain log10"),
        ("noise gain log10", "mask", "noise gain mask log10"),
        ("beam noise", "root", "beam noise root"),
        ("gain root", "noise", "gain noise root"),
    ],
)
def test_it_has_a_place_among_others(tmp_path: Path, start: str, added: str, expected: str) -> None:
    given = {"beam": {"fwhm_pixels": 2}, "log10": {"epsilon": 1.0}}
    file = tmp_path / "order.yaml"
    observe = {name: given.get(name, {}) for name in start.split()}
    file.write_text(yaml.safe_dump({"observe": observe}, sort_keys=False))
    value = ".edge_pixels=1" if added == "mask" else "={}"
    moves = expected.split()[-1] != added
    with pytest.warns(OrderWarning) if moves else nullcontext():
        config = load_config(file, [f"observe.{added}{value}"])
    assert " ".join(config.observe) == expected


def test_units_are_lost_after_it(tmp_path: Path) -> None:
    file = tmp_path / "order.yaml"
    file.write_text("observe: {root: {}, noise: {}}\n")
    with pytest.warns(OrderWarning, match=r"noise comes after observe\.root, where the map"):
        load_config(file)


def map_config(**observe: Any) -> Config:
    grid = {"fov_deg": runs.FOV_DEG, "shape": list(runs.SHAPE)}
    return from_mapping({"grid": grid, "observe": observe})


def test_infer_leaves_the_random_one_out_of_a_map(tmp_path: Path) -> None:
    cube = np.random.default_rng(2).normal(5.0, 2.0, runs.SHAPE).astype(np.float32)
    sky = read_map(runs.write_hdf5(tmp_path / "m.h5", cube))
    found = prepare(sky, map_config(gain={"width": 0.4}, gain_2={}, root={"scale": 2.0}))
    assert found.left_out == ["gain", "gain_2"] and found.applied == ["root"]
    np.testing.assert_allclose(found.cube.numpy(), rooted(cube), rtol=1e-6)
    # random, it is left out after a transform too
    assert prepare(sky, map_config(root={}, gain={})).left_out == ["gain"]


@pytest.fixture
def run(tmp_path: Path) -> Config:
    return runs.make_run(tmp_path, observe={"pool": {"factor": [3, 1, 1]}, **NEW})


def test_exports_say_it(run: Config, tmp_path: Path) -> None:
    whole = export(run, tmp_path / "whole.h5", samples=2)
    units = export(run, tmp_path / "units.h5", samples=2, before_transforms=True)
    assert list(raw(run).observe) == ["pool", "gain"]
    names = ["pool", "gain", "root"]
    for path, done, unit in ((whole, names, ""), (units, names[:2], "uK")):
        with h5py.File(path) as file:
            said = yaml.safe_load(file.attrs["observe_done"])
            assert list(said) == done and file.attrs["units"] == unit
            assert said["gain"] == {"width": 0.4, "table": None}
            assert len(set(file["draws/gain.factor"][:])) == 2
    generator = Generator(run)
    with h5py.File(units) as file:
        np.testing.assert_allclose(
            rooted(file["cube"][:]), generator.generate(range(2)).cube.numpy(), rtol=1e-6
        )


def test_an_exported_map_goes_on_after_it(run: Config, tmp_path: Path) -> None:
    """A map with another gain in it goes on where its transform is left; one that has been through
    it is done."""
    samples = export(run, tmp_path / "whole.h5", samples=1)
    sky = read_map(samples)
    found = prepare(sky, run)
    assert found.applied == [] and np.array_equal(found.cube.numpy(), sky.cube)
    units = export(run, tmp_path / "units.h5", samples=1, before_transforms=True)
    found = prepare(read_map(units), run)
    assert found.applied == ["root"]
    np.testing.assert_allclose(found.cube.numpy(), sky.cube, rtol=1e-6)


def test_preview_and_layers_name_it(small_sky: Any) -> None:
    observe = {**NEW, "gain_2": {}}
    made = Generator(small.config(observe=observe), lightcones=[small_sky])
    steps = steps_of_sample(made, 4)
    assert [step.title for step in steps[1:]] == ["gain", "square root", "gain 2"]
    assert [step.unit for step in steps] == ["uK", "uK", "", ""]
    assert all(step.added is None for step in steps)  # it multiplies
    assert [panel.title for panel in panels_of_steps(steps, 0)][1:3] == ["gain", "square root"]
    temperature = np.array([[[-3.0, 0.5, 40.0]]])
    values, slope, unit = map_units(small.config(observe=NEW), rooted(temperature))
    assert unit == "uK"
    np.testing.assert_allclose(values, temperature, rtol=1e-12)
    step = 1e-6
    numeric = (rooted(temperature + step) - rooted(temperature - step)) / (2 * step)
    np.testing.assert_allclose(slope, numeric, rtol=1e-8)
    assert map_units(made.config, rooted(temperature))[2] == "network input"


def test_networks_see_the_map_before_it() -> None:
    shown = small.config(observe=NEW).observation.input_map
    cube = torch.linspace(-9.0, 9.0, 40)
    torch.testing.assert_close(shown.restore(torch.from_numpy(rooted(cube.numpy()))), cube)


def test_scenarios_and_probes_know_it_for_random(
    run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = "pool: {factor: [3, 1, 1]}"
    folder = tmp_path / "set"
    folder.mkdir()
    calm = f"emit: {{line: {{}}}}\nobserve: {{{pool}, root: {{scale: 2}}}}\n"
    (folder / "calm.yaml").write_text(calm)
    (scenario,) = load_scenarios(folder, run)
    assert "observe.gain" in scenario.differs and "observe.root" not in scenario.differs
    (folder / "calm.yaml").write_text(calm.replace("root: {scale: 2}", "gain: {}"))
    with pytest.raises(ConfigError, match=r"network reads maps written by .*root \(scale 2.0\)"):
        load_scenarios(folder, run)
    monkeypatch.setattr(probes_module, "write_png", lambda figure, path: None)
    monkeypatch.setattr(probes_module, "NUM_SAMPLES", 4)
    found = run_probes(run)
    assert found["skipped"] == {}
    assert "change by less than its error (gain)" in {p["should"] for p in found["probes"]}


def test_what_a_class_must_say() -> None:
    def apply(self: Operator, kernels: Any, cube: Any, keys: Any, drawn: Any) -> Any:
        return cube

    said = {
        "section": RootConfig,
        "words": "w",
        "turn": Turn.FILTER,
        "random": False,
        "apply": apply,
    }
    assert type("Whole", (Operator,), said).words == "w"  # type: ignore[attr-defined]
    for name in ("section", "words", "turn", "random"):
        with pytest.raises(TypeError, match=f"the operator Partial does not say `{name}`"):
            type("Partial", (Operator,), {k: v for k, v in said.items() if k != name})
    with pytest.raises(TypeError, match="the operator Drawing draws: it is random"):
        type("Drawing", (Operator,), {**said, "draw": lambda self, draws: {}})
    for kind, operator in OPERATORS.items():
        reshapes = operator.state_after.__func__ is not Operator.state_after.__func__  # type: ignore[attr-defined]
        assert operator.reshapes == reshapes, kind
        assert set(operator.files) <= set(operator.section.__dataclass_fields__)


MASK: dict[str, Any] = {"edge_pixels": 2}
NOISE: dict[str, Any] = {"sigma_uK": 1.0}
HITS: dict[str, Any] = {"sigma_uK": 1.0, "hits": {"fwhm_deg": 0.5, "radius_deg": 0.3}}


@pytest.mark.parametrize(
    ("observe", "filled"),
    [
        ({"mask": MASK, "noise": NOISE}, "observe.noise fills voxels that observe.mask has set"),
        ({"noise": HITS, "noise_2": NOISE}, "observe.noise_2 fills voxels that observe.noise has"),
        ({"noise": HITS, "pool": {"factor": [1, 2, 2]}, "radio_sources": {}},
         "observe.radio_sources fills voxels that observe.noise has set"),
        ({"noise": HITS, "beam": {"fwhm_arcmin": 4.0}}, "observe.beam fills voxels that"),
        ({"mask": MASK, "noise": NOISE, "mask_2": MASK}, ""),
        ({"noise": HITS, "noise_2": NOISE, "pool": {"factor": [1, 2, 2]}, "noise_3": HITS}, ""),
        ({"noise": HITS, "noise_2": HITS}, ""),
        ({"noise": NOISE, "mask": MASK, "pca": {"modes": 2}, "log_modulus": {}}, ""),
        ({"noise": HITS, "correlated_noise": {"sigma_uK": 1.0, "knee_per_GHz": 1.0}}, ""),
        ({"noise": {"sigma_uK": 1.0, "hits": {"fwhm_deg": 0.5}}, "noise_2": NOISE}, ""),
    ],
)  # fmt: skip
def test_voxels_that_are_filled_again(observe: dict[str, Any], filled: str) -> None:
    """What was set to 0 and is filled by what a user's map has already stays 0 there."""
    grid = {"fov_deg": [0.8, 0.8], "shape": [6, 20, 20]}
    plan = from_mapping({"grid": grid, "observe": observe}).observation
    with pytest.warns(OrderWarning, match=filled) if filled else nullcontext():
        plan.check_filled(plan.operators())


@pytest.mark.parametrize(
    ("names", "late"),
    [
        ("subtract_mean noise", ["noise comes after observe.subtract_mean"]),
        ("high_pass pool edge_noise pca radio_sources log_modulus",
         ["edge_noise comes after observe.high_pass", "radio_sources comes after observe.pca"]),
        ("beam pca correlated_noise mask", ["correlated_noise comes after observe.pca"]),
        ("subtract_mean transfer_function", ["transfer_function comes after observe.subtract_m"]),
        ("pool beam transfer_function noise pool_2 mask high_pass pca subtract_mean asinh", []),
        ("mask pool_2 noise mask_2 standardise beam", []),
        ("pool log_modulus noise", ["noise comes after observe.log_modulus"]),  # of units, once
    ],
)  # fmt: skip
def test_a_filter_before_what_a_map_has_already(names: str, late: list[str]) -> None:
    """In training it acts on a map without that, for infer on one with it."""
    given: dict[str, Any] = {
        "high_pass": {"modes": 1}, "pca": {"modes": 1}, "mask": MASK, "asinh": {"scale": 1.0},
        "beam": {"fwhm_pixels": 2}, "pool": {"factor": [1, 2, 2]},
        "transfer_function": {"k_half": [0.05, 0.02]},
        "correlated_noise": {"sigma_uK": 1.0, "knee_per_GHz": 1.0},
    }  # fmt: skip
    observe = {name: given.get(operator_kind(name), {}) for name in names.split()}
    grid = {"fov_deg": [0.8, 0.8], "shape": [6, 20, 20]}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        from_mapping({"grid": grid, "observe": observe}).observation.check_order()
    assert len(said) == len(late), said
    for warned, start in zip(said, late, strict=True):
        assert str(warned.message).startswith(f"observe.{start}")


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("beam", {"fwhm_arcmin": 4.0}, {"fwhm_arcmin = 4.0": ("fwhm_arcmin", 5.0)}),
        ("beam", {"fwhm_pixels": 2.0}, {"fwhm_pixels = 2.0": ("fwhm_pixels", 2.5)}),
        ("beam", {"profile": "{folder}/beam.txt"}, {}),
        ("noise", {"sigma_uK": 8.0}, {"sigma_uK = 8.0": ("sigma_uK", 10.0)}),
        ("noise", {}, {"sigma_uK = 11.0": ("sigma_uK", 13.75)}),
        ("noise", {"sigma_uK": [1.0, 2.0]}, {}),
        ("noise", {"sigma_uK": 0.0}, {}),
        (
            "noise",
            {"radiometer": {"T_sys_K": 40.0, "n_feeds": 19, "hours": 100.0}},
            {"radiometer.T_sys_K = 40.0": ("radiometer", RadiometerConfig(50.0, 19, 100.0))},
        ),
        ("edge_noise", {"sigma_uK": 4.0}, {"sigma_uK = 4.0": ("sigma_uK", 5.0)}),
        (
            "correlated_noise",
            {"sigma_uK": 1.0, "knee_per_GHz": 2.0},
            {"knee_per_GHz = 2.0": ("knee_per_GHz", 2.5)},
        ),
        (
            "channel_response",
            {"resolving_power": 100},
            {"resolving_power = 100.0": ("resolving_power", 125.0)},
        ),
        (
            "transfer_function",
            {"k_half": [0.04, 0.08]},
            {"k_half = (0.04, 0.08)": ("k_half", (0.05, 0.1))},
        ),
        ("pca", {"modes": 2}, {}),
    ],
)
def test_measured_numbers_can_be_turned(
    kind: str,
    settings: dict[str, Any],
    expected: dict[str, tuple[str, Any]],
    tmp_path: Path,
) -> None:
    (tmp_path / "beam.txt").write_text("0 1\n0.05 0.5\n0.1 0\n")
    settings = {
        name: value.format(folder=tmp_path) if isinstance(value, str) else value
        for name, value in settings.items()
    }
    config = load_config({"extends": "reference.yaml", "observe": {kind: settings}})
    (step,) = config.observation.steps
    turned = step.build().turned(step.section, 1.25)
    others = {said: replace(step.section, **{to[0]: to[1]}) for said, to in expected.items()}
    assert turned == others
