"""Configurations: every mistake gets one sentence, and the resolved whole reads back as itself."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from streamtrain.config import Config, from_mapping, load_config
from streamtrain.grid import Grid
from streamtrain.operators.noise import NoiseConfig, VoxelSize
from streamtrain.operators.pool import PoolConfig
from streamtrain.operators.transforms import LogModulusConfig
from streamtrain.schema import ABSENT, ConfigError, OrderWarning, differences, operator_kind
from streamtrain.shipped import resource_dir, shipped_configs
from streamtrain.yamltext import parse_yaml

EXAMPLE = """
seed: 3
grid: {fov_deg: [1.0, 0.8], shape: [10, 32, 64]}
data:
  train: [a.h5, "b*.h5"]
emit:
  line: {model: li16, prior: narrow, parameters: {alpha: 1.2}}
observe:
  noise: {sigma_uK: [0, 6.31], per: fine_voxel, absent: 0.1}
  pool: {factor: [1, 4, 4]}
  noise_2: {sigma_uK: 1e1, per: {arcmin: 4, MHz: 15.6}}
  log_modulus:
train: {learning_rate: 1e-4, steps: 2_000}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "example.yaml"
    path.write_text(EXAMPLE)
    return path


def refusal(text_or_mapping: Any, tmp_path: Path, *overrides: str) -> str:
    """The one sentence that a configuration is refused with."""
    with pytest.raises(ConfigError) as error:
        if isinstance(text_or_mapping, str):
            path = tmp_path / "bad.yaml"
            path.write_text(text_or_mapping)
            load_config(path, overrides)
        else:
            from_mapping(text_or_mapping)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_values_and_defaults(file: Path) -> None:
    config = load_config(file)
    assert config.seed == 3
    assert config.grid.shape == (10, 32, 64)
    assert config.grid.nu_GHz == (34.0, 26.0)
    assert config.data.train == ["a.h5", "b*.h5"]
    assert config.line.parameters == {"alpha": 1.2}
    assert config.line.scatter is True
    assert list(config.observe) == ["noise", "pool", "noise_2", "log_modulus"]
    assert config.observe["noise"] == NoiseConfig((0.0, 6.31), "fine_voxel", 0.1)
    assert config.observe["pool"] == PoolConfig((1, 4, 4), "mean")
    assert config.observe["noise_2"] == NoiseConfig(10.0, VoxelSize(4.0, 15.6), 0.0)
    assert config.observe["log_modulus"] == LogModulusConfig()
    assert from_mapping({}) == Config(emit=from_mapping({}).emit)


def test_numbers_that_yaml_reads_as_text(file: Path) -> None:
    """YAML takes 1e-4 for text; here it is a number."""
    config = load_config(file)
    assert config.train.learning_rate == 1e-4
    assert config.observe["noise_2"].sigma_uK == 10.0
    assert config.train.steps == 2000
    assert load_config(file, ["train.learning_rate=5e-4"]).train.learning_rate == 5e-4


@pytest.mark.parametrize(("text", "seed"), [("010", 10), ("008", 8), ("1_0", 10), ("0x10", 16)])
def test_a_padded_number_is_decimal(file: Path, text: str, seed: int) -> None:
    """In YAML 1.1 010 is 8, as 008 is: two seeds of a script's loop would be one."""
    assert load_config(file, [f"seed={text}"]).seed == seed


@pytest.mark.parametrize("setting", ["train.steps=1:30", "train.learning_rate=1:30.5"])
def test_no_number_counts_in_sixties(file: Path, setting: str) -> None:
    with pytest.raises(ConfigError, match=r"must be a number, not '1:30"):
        load_config(file, [setting])


def test_order_of_operations_is_the_order_of_the_keys(file: Path) -> None:
    swapped = {"observe": {"log_modulus": {}, "pool": {"factor": [1, 2, 2]}, "noise": {}}}
    assert list(from_mapping(swapped).observe) == ["log_modulus", "pool", "noise"]


def test_overrides(file: Path) -> None:
    given = [
        "observe.noise.sigma_uK=11",
        "data.train=[c.h5]",
        "observe.noise_3={absent: 0.5, sigma_uK: 3}",
    ]
    with pytest.warns(OrderWarning, match="noise, pool, noise_2, noise_3, log_modulus"):
        config = load_config(file, [*given, "emit.line.scatter=false", "grid.units=Jy/sr"])
    assert config.observe["noise"].sigma_uK == 11.0
    assert config.observe["noise"].absent == 0.1
    assert list(config.observe)[-2] == "noise_3"
    assert config.data.train == ["c.h5"]
    assert config.line.scatter is False
    assert config.grid.units == "Jy/sr"


MIXED = ["noise", "beam", "log10"]  # a smoothed noise
LATE = ["beam", "pool", "noise", "log10"]


@pytest.mark.parametrize(
    ("start", "added", "expected"),
    [
        ("comap.yaml", "noise_2", "radio_sources, beam, noise, noise_2, log_modulus"),
        ("comap.yaml", "beam_2", "radio_sources, beam, beam_2, noise, log_modulus"),
        ("comap.yaml", "edge_noise", "radio_sources, beam, noise, edge_noise, log_modulus"),
        ("comap.yaml", "mask", "radio_sources, beam, noise, mask, log_modulus"),
        ("comap.yaml", "high_pass", "radio_sources, beam, noise, high_pass, log_modulus"),
        ("comap.yaml", "pool", "pool, radio_sources, beam, noise, log_modulus"),
        ("comap.yaml", "asinh", "radio_sources, beam, noise, log_modulus, asinh"),
        ("comap.yaml", "standardise", "radio_sources, beam, noise, log_modulus, standardise"),
        ("quickstart.yaml", "beam", "pool, beam, noise, log_modulus"),
        ("quickstart.yaml", "radio_sources", "pool, radio_sources, noise, log_modulus"),
        ("quickstart.yaml", "pool_2", "pool, pool_2, noise, log_modulus"),
        ("pfeffer2019/published.yaml", "beam_2",
         "pool, radio_sources, beam_2, noise, log_modulus, beam"),
        ("pfeffer2019/published.yaml", "edge_noise",
         "pool, radio_sources, noise, edge_noise, log_modulus, beam"),
        (MIXED, "noise_2", "noise, beam, noise_2, log10"),
        (MIXED, "mask", "noise, beam, mask, log10"),
        (LATE, "edge_noise", "beam, pool, noise, edge_noise, log10"),
        (["log10"], "noise", "noise, log10"),
        ([], "noise", "noise"),
    ],
)  # fmt: skip
def test_an_added_operator_takes_its_place(
    tmp_path: Path, start: str | list[str], added: str, expected: str
) -> None:
    """What presets have, in the order of an instrument; the rest keeps its order and settings."""
    file = _configured(tmp_path, start)
    settings = {"beam": "fwhm_arcmin=4.5", "mask": "edge_pixels=2", "high_pass": "modes=2",
                "asinh": "scale=3", "pool": "factor=[1, 2, 2]"}  # fmt: skip
    kind = operator_kind(added)
    override = f"observe.{added}" + ("." + settings[kind] if kind in settings else "={}")
    before = load_config(file)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        config = load_config(file, [override])
    assert ", ".join(config.observe) == expected
    assert {n: s for n, s in config.observe.items() if n != added} == before.observe
    ends = expected.rpartition(", ")[2] == added
    assert [str(w.message) for w in said if expected in str(w.message)] == [
        f"observe.{added} is new and takes its place in the order of an instrument: {expected}"
    ][: not ends]
    # what is written in a file stays as it is written
    again = from_mapping(yaml.safe_load(config.to_yaml()))
    assert list(again.observe) == list(config.observe) and again.digest() == config.digest()


@pytest.mark.parametrize(
    ("start", "override"),
    [
        (["beam", "pool", "log10"], "observe.noise.sigma_uK=3"),
        (["noise", "pool", "log10"], "observe.noise_2.sigma_uK=3"),
        (["noise", "mask", "radio_sources"], "observe.beam.fwhm_arcmin=4.5"),
        (["log10", "mask"], "observe.high_pass.modes=1"),
    ],
)
def test_an_added_operator_without_a_certain_place(
    tmp_path: Path, start: list[str], override: str
) -> None:
    name = override.split(".")[1]
    with pytest.raises(ConfigError) as caught:
        load_config(_configured(tmp_path, start), [override])
    assert str(caught.value).startswith(
        f"observe.{name} is new, and has no certain place among {', '.join(start)}: write"
    )


def _configured(folder: Path, start: str | list[str]) -> str:
    """A preset's name, or a file with these operators."""
    if isinstance(start, str):
        return start
    full = {"beam": {"fwhm_pixels": 2}, "log10": {"epsilon": 1.0}, "mask": {"edge_pixels": 1},
            "pool": {"factor": [1, 2, 2]}}  # fmt: skip
    file = folder / "operators.yaml"
    observe = {name: full.get(name, {}) for name in start}
    file.write_text(yaml.safe_dump({"observe": observe}, sort_keys=False))
    return str(file)


def test_an_order_that_is_given_whole_stays(file: Path) -> None:
    whole = ["observe={log10: {epsilon: 1}, mask: {edge_pixels: 1}}", "observe.mask.edge_pixels=2"]
    config = load_config(file, whole)
    assert list(config.observe) == ["log10", "mask"]
    smoothed = load_config(file, ["observe={log10: {epsilon: 1}, beam: {fwhm_pixels: 3}}"])
    assert list(smoothed.observe) == ["log10", "beam"]
    for late in ("noise: {}", "radio_sources: {}", "edge_noise: {}", "beam: {fwhm_arcmin: 9}"):
        with pytest.warns(OrderWarning, match="comes after observe.log10, where the map has no"):
            load_config(file, [f"observe={{log10: {{epsilon: 1}}, {late}}}"])


def test_changes_in_python_are_those_of_a_file(file: Path, tmp_path: Path) -> None:
    """A mapping, keywords and texts; what Python has besides plain data becomes that."""
    start = {"extends": str(file), "observe": {"noise": {"sigma_uK": np.float32(2.0)}}}
    child = tmp_path / "child.yaml"
    child.write_text(f"extends: {file}\nobserve: {{noise: {{sigma_uK: 2.0}}}}\nrun: runs/a\n")
    expected = load_config(child, ["grid.shape=[4, 8, 8]", "train.steps=7"])
    grid = Grid(fov_deg=expected.grid.fov_deg, shape=(np.int64(4), 8, 8))
    found = load_config(
        start, ["train.steps=7"], run=Path("runs/a"), grid=grid, train={"steps": np.int64(9)}
    )
    assert found == expected and found.digest() == expected.digest()
    assert load_config(found) is found
    again = load_config(found, train={"steps": 9})
    assert again.train.steps == 9 and again.train.batch_size == found.train.batch_size
    assert load_config(found, observe={}).observe == {}, "emit and observe are replaced as a whole"


def test_an_added_modifier_says_where_it_acts(file: Path) -> None:
    first = "emit.dim.above_log10_L=6"
    assert list(load_config(file, [first]).emit) == ["line", "dim"]
    with pytest.warns(OrderWarning, match="emit.brightness is new and acts last: line, dim, br"):
        load_config(file, [first, "emit.brightness.factor=2"])


@pytest.mark.parametrize(
    ("path", "overrides", "message"),
    [
        ([("seed", 1)], [], "load_config reads a YAML file, .* or a Config, not a list"),
        (None, [], "load_config reads a YAML file, .* a mapping of settings or a Config, not a No"),
        ({"sed": 1}, [], "unknown setting 'sed': did you mean 'seed'"),
        ({"extends": 3}, [], "extends must name a configuration file, not 3"),
        ({"extends": "nowhere.yaml"}, [], "no configuration file or run 'nowhere.yaml'"),
        (3, [], "not a int"),
        ("comap.yaml", "seed=3", "overrides must be a list like .* not 'seed=3'"),
        ("comap.yaml", {"seed": 3}, "overrides must be a list like"),
        ("comap.yaml", None, "overrides must be a list like"),
        ("comap.yaml", [3], "an override must be text like 'train.steps=200', not 3"),
        ("comap.yaml", ["observe=3"], "observe must be a mapping, not 3"),
        ("comap.yaml", ["observe.noise"], "is not of the form dotted.key=value"),
        ("comap.yaml", ["observe.nois.sigma_uK=3"], "did you mean 'noise'"),
        ("no\0name", [], "no configuration file"),
    ],
)
def test_what_is_no_configuration(path: Any, overrides: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path, overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps", "'train.steps' is not of the form dotted.key=value"),
        ("=3", "'=3' is not of the form dotted.key=value"),
        ("seed.x=3", "'seed.x': 'seed' is a value, not a section"),
        ("train.stepz=3", "unknown setting 'train.stepz': did you mean 'steps'?"),
        ("train.steps=.inf", "train.steps = inf is not a finite number"),
        ("train.steps=.nan", "train.steps = nan is not a finite number"),
        ("observe={[1]: 2}", "[1] cannot be the name of a setting (line 1)"),
        ("train.steps=[", "the value of train.steps is not valid YAML"),
    ],
)
def test_bad_overrides(override: str, message: str, tmp_path: Path) -> None:
    assert refusal(EXAMPLE, tmp_path, override).startswith(message)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"tain": {}}, "unknown setting 'tain': did you mean 'train'? valid: data, emit, grid"),
        (
            {"grid": {"fov": 1}},
            "unknown setting 'grid.fov': did you mean 'fov_deg'? valid: brightest_Lsun, fov_deg",
        ),
        ({"observe": {"nois": {}}}, "unknown setting 'observe.nois': did you mean 'noise'? valid"),
        ({"observe": {"noise_x": {}}}, "unknown setting 'observe.noise_x': did you mean 'noise'?"),
        (
            {"observe": {"noise": {"sigma": 1}}},
            "unknown setting 'observe.noise.sigma': did you mean",
        ),
        ({"emit": {"lines": {}}}, "unknown setting 'emit.lines': did you mean 'line'?"),
        ({"emit": {}}, "emit needs one entry 'line', the luminosity model"),
        ({"seed": -1}, "seed = -1 is outside its range 0..18446744073709551615"),
        (
            {"seed": 2**64},
            "seed = 18446744073709551616 is outside its range 0..18446744073709551615",
        ),
        ({"train": {"steps": float("inf")}}, "train.steps = inf is not a finite number"),
        ({"train": {"steps": "nan"}}, "train.steps = nan is not a finite number"),
        ({"train": {"learning_rate": 10**400}}, "train.learning_rate = 1000"),
        (
            {"train": {"learning_rate": 10.0000001}},
            "train.learning_rate = 10.0000001 is outside its range (at most 10)",
        ),
        ({"seed": 1.5}, "seed must be a whole number, not 1.5"),
        ({"seed": True}, "seed must be a whole number, not True"),
        ({"seed": "many"}, "seed must be a number, not 'many'"),
        ({"run": 3}, "run must be text, not 3"),
        ({"data": {"mirror": 1}}, "data.mirror must be true or false, not 1"),
        ({"data": {"train": "a.h5"}}, "data.train must be a list, not 'a.h5'"),
        ({"data": {"train": [3]}}, "data.train[0] must be text, not 3"),
        ({"data": {"roll": "some"}}, "data.roll = 'some' is none of any, quarter, none"),
        ({"data": {"sfr": 3}}, "data.sfr must be text, not 3"),
        ({"data": {"min_mass_Msun": 0}}, "data.min_mass_Msun = 0 must be above 0"),
        ({"data": 3}, "data must be a mapping of settings, not 3"),
        ({"grid": {"shape": [1, 2]}}, "grid.shape must have 3 entries, not 2: [1, 2]"),
        ({"grid": {"shape": 4}}, "grid.shape must be a list, not 4"),
        (
            {"grid": {"fov_deg": [1e-6, 1e-6]}},
            "grid.fov_deg = (1e-06, 1e-06) in 64 x 64 pixels: one is 1.56e-08 deg, less than 1e-07",
        ),
        ({"grid": {"shape": [0, 2, 2]}}, "grid.shape[0] = 0 is outside its range 1..4096"),
        ({"grid": {"fov_deg": [1, 30]}}, "grid.fov_deg[1] = 30 is outside its range (at most 20)"),
        ({"grid": {"nu_GHz": [26, 34]}}, "grid.nu_GHz = [26.0, 34.0] must run from high to low"),
        (
            {"grid": {"nu_rest_GHz": 30}},
            "grid.nu_GHz = [34.0, 26.0] must lie below nu_rest_GHz = 30",
        ),
        ({"grid": {"nu_rest_GHz": float("nan")}}, "grid.nu_rest_GHz = nan is not a finite number"),
        ({"emit": {"line": {"parameters": {"A": "x"}}}}, "emit.line.parameters.A must be a number"),
        (
            {"emit": {"line": {"parameters": {"A": [0.5, 1.5]}}}},
            "emit.line.parameters.A must be a number, not [0.5, 1.5] (to draw it: "
            "{uniform: [0.5, 1.5]})",
        ),
        (
            {"emit": {"line": {"prior": {"A": [0.5, 1.5], "B": {"normal": [1, 2]}, "C": 3}}}},
            "emit.line.prior must be text, not {'A': [0.5, 1.5], 'B': {'normal': [1, 2]}, 'C': 3}: "
            "it names one of the model's priors; a parameter gets a prior of its own with "
            "emit.line.parameters={A: {uniform: [0.5, 1.5]}, B: {normal: [1, 2]}, C: 3}",
        ),
        (
            {"emit": {"line": {"mixture": {"li16": {"prior": {"alpha": [1, 2]}}}}}},
            "emit.line.mixture.li16.prior must be text, not {'alpha': [1, 2]}: it names one of the "
            "model's priors; a parameter gets a prior of its own with "
            "emit.line.mixture.li16.parameters={alpha: {uniform: [1, 2]}}",
        ),
        (
            {"emit": {"line": {}, "interloper": {"prior": {"alpha": "wide"}}}},
            "emit.interloper.prior must be text, not {'alpha': 'wide'}: it names one of the model's"
            " priors; a parameter gets a prior of its own with "
            "emit.interloper.parameters={alpha: {uniform: [LOW, HIGH]}}",
        ),
        (
            {"emit": {"line": {"alpha": 1.3}}},
            "unknown setting 'emit.line.alpha': valid: constraints, mixture, model, multivariate, "
            "parameters, prior, prior_scale, require, scatter; a parameter of the model is set "
            "with emit.line.parameters={alpha: 1.3}",
        ),
        (
            {"emit": {"line": "li16"}},
            "emit.line must be a mapping of settings, such as {model: li16}, not 'li16'",
        ),
        (
            {"emit": {"line": {"mixture": {"li16": "wide"}}}},
            "emit.line.mixture.li16 must be a mapping of settings, such as {prior: narrow}, not "
            "'wide'",
        ),
        ({"label": {"log10_L": [7, 3]}}, "label.log10_L = [7.0, 3.0] must increase"),
        (
            {"label": {"edges": [4, 5, 6], "bins": 2}},
            "label.edges replaces label.log10_L and label.bins: label.edges=null removes the one",
        ),
        (
            {"label": {"edges": [4, 6, 5.5]}},
            "label.edges must increase by at least 1e-05 dex, but 5.5 follows 6",
        ),
        ({"label": {"edges": [4]}}, "label.edges must be 2 to 1001 numbers, not 1"),
        ({"label": {"edges": "4, 5"}}, "label.edges must be a list, not '4, 5'"),
        ({"label": {"quantity": "psi"}}, "label.quantity = 'psi' is none of counts, cumulative"),
        ({"network": {"kernel": 4}}, "network.kernel = 4 is none of 1, 3, 5, 7"),
        (
            {"train": {"steps": 50, "warmup_steps": 100}},
            "train.warmup_steps = 100 must be below train.steps = 50",
        ),
        ({"test": {"samples": None}}, "test.samples must be a whole number, not None"),
        (
            {"observe": {"pool": {"factor": [3, 4, 4]}}},
            "observe.pool.factor = [3, 4, 4] does not divide the cube's shape [10, 64, 64]",
        ),
        (
            {"observe": {"pool": {"factor": [5, 4, 4]}, "pool_2": {"factor": [1, 32, 1]}}},
            "observe.pool_2.factor = [1, 32, 1] does not divide the cube's shape [2, 16, 16]",
        ),
        (
            {"observe": {"noise": {"sigma_uK": [5, 2]}}},
            "observe.noise.sigma_uK = [5, 2] must increase",
        ),
        (
            {"observe": {"noise": {"sigma_uK": -1}}},
            "observe.noise.sigma_uK = -1 is outside its range",
        ),
        (
            {"observe": {"noise": {"absent": 2}}},
            "observe.noise.absent = 2 is outside its range 0..1",
        ),
        (
            {"observe": {"noise": {"per": {"arcmin": 4}}}},
            "'observe.noise.per.MHz' is missing",
        ),
    ],
)
def test_bad_settings(data: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert refusal(data, tmp_path).startswith(message)


def test_a_key_given_twice(tmp_path: Path) -> None:
    text = "observe:\n  noise: {sigma_uK: 1}\n  pool: {}\n  noise: {sigma_uK: 2}\n"
    assert refusal(text, tmp_path).endswith(
        ": 'noise' is given twice (line 4); a second use of an operator takes a suffix, as in "
        "'noise_2'"
    )
    for other in (
        "grid:\n  shape: [9, 9, 9]\n  shape: [8, 9, 9]\n",
        "grid: {}\nseed: 1\ngrid: {}\n",
    ):
        assert refusal(other, tmp_path).endswith("' is given twice (line 3)")


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    assert "is not valid YAML at line 2" in refusal("seed: 1\ngrid: }\n", tmp_path)
    assert refusal("- 1\n- 2\n", tmp_path).endswith("must hold a mapping of settings, not list")
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match="is not a text file"):
        load_config(tmp_path / "binary.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert load_config(tmp_path / "empty.yaml") == from_mapping({})
    text = "seed: !!python/object/apply:os.getcwd []\n"
    assert "is not valid YAML" in refusal(text, tmp_path)


def test_resolved_yaml_reads_back(file: Path, tmp_path: Path) -> None:
    config = load_config(file)
    again = tmp_path / "resolved.yaml"
    again.write_text(config.to_yaml())
    assert load_config(again) == config
    assert load_config(again).digest() == config.digest()
    assert list(load_config(again).observe) == list(config.observe)


def test_digest_sees_what_matters(file: Path) -> None:
    """Everything but the folder of the run, and the order of the operators too."""
    digest = load_config(file).digest()
    for same in ("run=elsewhere", "train.warmup_steps=100"):  # which is the default
        assert load_config(file, [same]).digest() == digest
    changes = ["seed=4", "train.steps=2001", "observe.noise.absent=0.2", "network.filters=16"]
    assert len({load_config(file, [c]).digest() for c in changes} | {digest}) == 5
    pool, noise = {"pool": {}}, {"noise": {}}
    ahead = from_mapping({"observe": pool | noise}).digest()
    assert ahead != from_mapping({"observe": noise | pool}).digest()


def test_sample_settings_are_those_that_decide_samples(file: Path) -> None:
    settings = load_config(file).sample_settings()
    same = ["run=x", "train.steps=500", "network.layers=2", "data.train=[z.h5]"]
    for change in same:
        assert load_config(file, [change]).sample_settings() == settings
    other = ["seed=4", "grid.units=Jy/sr", "data.roll=none", "label.bins=7", "emit.line.scatter=no"]
    other += ["data.sfr=fit", "data.sfr=column", "data.sfr=behroozi.dat"]
    for change in other:
        assert load_config(file, [change]).sample_settings() != settings


def test_where_a_table_lies_decides_no_sample(file: Path) -> None:
    """Its numbers do: they are part of the generator's identity."""
    here, there = (load_config(file, [f"data.sfr={path}"]) for path in ("a.dat", "b/c.dat"))
    assert here.sample_settings() == there.sample_settings()
    assert here.sample_settings()["data"]["sfr"] == "table"
    assert here.data.sfr == "a.dat"


def test_sections_are_frozen(file: Path) -> None:
    config = load_config(file)
    with pytest.raises(AttributeError):
        config.seed = 4  # type: ignore[misc]


def test_a_file_may_extend_another(tmp_path: Path) -> None:
    """Sections are merged setting by setting; emit and observe are replaced as a whole."""
    (tmp_path / "base.yaml").write_text(
        "seed: 3\ntrain: {steps: 7, warmup_steps: 1}\n"
        "emit: {line: {model: chung22, prior: wide}}\nobserve: {noise: {}, log_modulus: {}}\n"
    )
    (tmp_path / "middle.yaml").write_text("extends: base.yaml\ntrain: {steps: 8}\n")
    (tmp_path / "top.yaml").write_text(
        "extends: middle.yaml\nseed: 4\nemit: {line: {model: li16}}\nobserve: {log_modulus: {}}\n"
    )
    config = load_config(tmp_path / "top.yaml", ["train.batch_size=5"])
    assert (config.seed, config.train.steps, config.train.warmup_steps) == (4, 8, 1)
    assert (config.line.model, config.line.prior) == ("li16", "fiducial")
    assert list(config.observe) == ["log_modulus"]
    assert config.train.batch_size == 5
    assert load_config(tmp_path / "middle.yaml").line.prior == "wide"


def test_extends_finds_shipped_files_and_refuses_nonsense(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: comap.yaml\nrun: runs/mine\n")
    comap = load_config("configs/comap.yaml")
    assert load_config(file) == replace(comap, run="runs/mine")
    for text, expected in (
        ("extends: mine.yaml\n", "extends itself"),
        ("extends: [comap.yaml]\n", "extends must name a configuration file"),
        ("extends: no.yaml\n", "no configuration file"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=expected):
            load_config(file)


PRESETS = [resource_dir("configs") / path for path in shipped_configs()]


@pytest.mark.parametrize("path", PRESETS, ids=str)
def test_shipped_configurations_are_valid(path: Path) -> None:
    """And say something of themselves at the top."""
    config = load_config(path)
    assert from_mapping(parse_yaml(config.to_yaml(), "the resolved whole")) == config
    assert path.read_text().startswith("# ")


def test_scenarios_of_the_seed_project() -> None:
    """Four sets of luminosity models, each without and with noise; each has a run of its own."""
    names = [
        f"{kind}{noise}"
        for kind in ("base", "random", "combined_base", "combined_random")
        for noise in ("", "_noise")
    ]
    configs = {name: load_config(f"configs/pfeffer2019/{name}.yaml") for name in names}
    assert len({config.run for config in configs.values()}) == len(names)
    for name, config in configs.items():
        expected = ["pool", "noise", "log_modulus"] if "noise" in name else ["pool", "log_modulus"]
        assert list(config.observe) == expected
        assert len(config.line.components) == (3 if "combined" in name else 1)
        priors = {component.prior for component in config.line.components.values()}
        assert ("fiducial" in priors) == ("base" in name) and len(priors) <= 2
    classifier = load_config("configs/pfeffer2019/classifier.yaml")
    assert classifier.label.quantity == "class"
    assert classifier.line == configs["combined_random"].line


def test_the_folder_of_a_run_is_a_configuration(tmp_path: Path) -> None:
    """Wherever it lies now; settings after it count."""
    folder = tmp_path / "moved"
    folder.mkdir()
    with pytest.raises(ConfigError, match="moved is not the folder of a run: it has no config"):
        load_config(folder)
    given = load_config("configs/comap.yaml", ["train.steps=700", "run=elsewhere"])
    (folder / "config.yaml").write_text(given.to_yaml(), encoding="utf-8")
    assert load_config(folder) == replace(given, run=str(folder))
    assert load_config(folder, ["run=other", "train.steps=800"]).run == "other"


SOURCES = "observe.radio_sources"


@pytest.mark.filterwarnings("ignore::streamtrain.schema.AssumptionWarning")
@pytest.mark.parametrize(
    ("settings", "ways"),
    [
        (
            "observe.beam.fwhm_arcmin=4.5",
            ["observe.beam.fwhm_pixels=null", "observe.beam.fwhm_arcmin=null"],
        ),
        (
            "observe.noise.radiometer={T_sys_K: 40, n_feeds: 19, hours: 100}",
            [
                "observe.noise.sigma_uK=null, observe.noise.per=map_voxel",
                "observe.noise.radiometer=null",
            ],
        ),
        (
            f"{SOURCES}.density={{normal: [27, 1], uniform: [1, 9]}}",
            [f"{SOURCES}.density.normal=null", f"{SOURCES}.density.uniform=null"],
        ),
        ("label.edges=[4, 5, 6]; label.bins=2", ["label.edges=null", "label.bins=49"]),
        (
            "emit.brightness={factor: 2, poisson_bins: 5}",
            ["emit.brightness.poisson_bins=null", "emit.brightness.factor=1"],
        ),
        ("emit.line.mixture={li16: {}}; emit.line.model=chung22", ["emit.line.mixture={}"]),
    ],
)
def test_either_or_says_how_to_remove_the_other(settings: str, ways: list[str]) -> None:
    """What the sentence says to add, added, makes a configuration."""
    given = settings.split("; ")
    with pytest.raises(ConfigError) as caught:
        load_config("pfeffer2019/published.yaml", given)
    for way in ways:
        assert way in str(caught.value)
        assert load_config("pfeffer2019/published.yaml", [*given, *way.split(", ")])


def test_the_grid_of_a_configuration_is_a_grid() -> None:
    """Its own defaults where the section says nothing, and every check of a grid."""
    assert from_mapping({}).grid == Grid(shape=(10, 64, 64)) != Grid()
    assert from_mapping({"grid": {"fov_deg": [1, 1]}}).grid == Grid((1.0, 1.0), (10, 64, 64))
    assert from_mapping({"grid": {"shape": [100, 256, 256]}}).grid == Grid()
    with pytest.raises(ConfigError, match=r"^grid\.fov_deg = .* 4096 x 64 pixels: one is"):
        from_mapping({"grid": {"fov_deg": [1e-4, 1e-4], "shape": [1, 64, 4096]}})


# What differs.


def test_differences_of_two_configurations() -> None:
    """Values, a section that one does not have, order; null is as good as absent."""
    one = {
        "seed": 1,
        "emit": {"line": {"prior": None, "mixture": {"a": {}, "b": {}}}},
        "observe": {"noise": {"sigma": 2.0}},
        "train": {"steps": 100},
    }
    other = {
        "seed": 1,
        "emit": {"line": {"mixture": {"b": {}, "a": {}}}},
        "observe": {"noise": {"sigma": 2}, "pool": {}},
        "train": {"steps": "x" * 99},
    }
    found = list(differences(one, other))
    assert [difference.name for difference in found] == [
        "the order of emit.line.mixture",
        "observe.pool",
        "train.steps",
    ]
    assert found[1].values == (ABSENT, {})
    assert found[1].text("there", "here") == "observe.pool = absent there, {} here"
    assert found[2].text("in it", "here") == f'train.steps = 100 in it, "{"x" * 56}... here'
    free = {"emit", "observe.pool"}
    assert [d.name for d in differences(one, other, free=free.__contains__)] == ["train.steps"]
    assert not list(differences(one, one, one))


def test_differences_of_three_configurations() -> None:
    """Where one has no section, or a value in its place, the section is the setting."""
    noise = [{"observe": {"noise": given}} for given in ({"sigma": 2}, {"sigma": 3}, 7)]
    (difference,) = differences(*noise)
    assert difference == ("observe.noise", ({"sigma": 2}, {"sigma": 3}, 7))
    (difference,) = differences(*noise[:2], noise[0])
    assert difference == ("observe.noise.sigma", (2, 3, 2))
