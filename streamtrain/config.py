"""The configuration of a run: sections, defaults, ranges.

`load_config` reads a YAML file, applies `dotted.key=value` overrides and returns a `Config`, whose
every field is checked. `emit` and `observe` are ordered mappings: the order of the keys is the
order of the operations, and a second use of one takes a suffix (`noise_2`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from streamtrain.catalogs.settings import SFR_CHOICES, DataConfig, check_data
from streamtrain.grid import Grid
from streamtrain.labels import LabelConfig, check_label
from streamtrain.luminosity.modifiers import BlankConfig, note_modifier
from streamtrain.luminosity.settings import EMIT, LineConfig, check_emit
from streamtrain.luminosity.source import source_of
from streamtrain.machine.files import MAX_YAML_BYTES, read_text, reading, sha256_of, why_not_a_file
from streamtrain.networks.settings import HybridConfig, NetworkConfig, check_network
from streamtrain.numerics.rng import SPLITS
from streamtrain.operators.plan import ObservationPlan, place_operator
from streamtrain.operators.table import OPERATORS, without_paths
from streamtrain.schema import ConfigError, build, nearest, operator_kind, plain, setting, to_dict
from streamtrain.shipped import find_config, find_run
from streamtrain.train.settings import TrainConfig, check_training, said_of_training
from streamtrain.yamltext import apply_override, parse_yaml, yaml_text

__all__ = ["Config", "ConfigError", "TrainConfig", "load_config"]


@dataclass(frozen=True)
class TestSetConfig:
    """The fixed test set."""

    samples: int = setting(512, "samples of the test set", low=1)
    seed: int | None = setting(
        None, "its seed; default: the seed of the run", low=0, high=2**64 - 1
    )


DATA_SETTINGS = ("roll", "mirror", "min_mass_Msun", "active", "active_samples", "sfr")
"""What of the section `data` decides samples."""


@dataclass(frozen=True, repr=False)
class Config:
    """Everything that decides a run: the settings of its YAML file, checked, with their defaults.

    `load_config` makes it. Its sections are attributes; none can be changed, `load_config` makes
    another.

    >>> from streamtrain import load_config
    >>> config = load_config("reference.yaml", seed=3)
    >>> config
    Config('runs/reference': line(li16) > pool > noise > log_modulus, cube [20, 64, 64] of ...
    >>> config.grid.fov_deg
    (0.35, 0.35)
    >>> config.to_yaml().splitlines()[0]
    'seed: 3'
    """

    seed: int = setting(0, "64-bit seed of every sample", low=0, high=2**64 - 1)
    run: str = setting("runs/default", "folder of the run: checkpoints, TensorBoard, figures")
    grid: Grid = setting(Grid(shape=(10, 64, 64)), "")
    data: DataConfig = setting(DataConfig(), "")
    emit: dict[str, Any] = setting({"line": {}}, "sources and modifiers of light, in order")
    observe: dict[str, Any] = setting({}, "map operators, in order")
    label: LabelConfig = setting(LabelConfig(), "")
    network: NetworkConfig = setting(HybridConfig(), "")
    train: TrainConfig = setting(TrainConfig(), "")
    test: TestSetConfig = setting(TestSetConfig(), "")

    def __repr__(self) -> str:
        emit, grid = dict(self.emit), self.grid
        line = emit.pop("line", None)
        models = ", ".join(line.class_names) if isinstance(line, LineConfig) else ""
        steps = " > ".join([f"line({models})", *emit, *self.observe])
        cube = f"{list(grid.shape)} of {grid.fov_deg[0]:g} x {grid.fov_deg[1]:g} deg at "
        cube += f"{grid.nu_GHz[0]:g}..{grid.nu_GHz[1]:g} GHz"
        label = f"{self.label.quantity}, {self.network.kind}"
        return f"Config({self.run!r}: {steps}, cube {cube}, {label})"

    def to_yaml(self) -> str:
        """The resolved whole, as YAML that `load_config` reads back. Raises ConfigError where
        it is too long for that."""
        text = yaml_text(to_dict(self))
        if len(text) > MAX_YAML_BYTES:
            raise ConfigError(
                f"the resolved configuration has {len(text)} bytes, more than can be read again "
                f"({MAX_YAML_BYTES}): name many lightcones by a glob"
            )
        return text

    def sample_settings(self) -> dict[str, Any]:
        """The part that decides samples: all but network, training, run folder and file paths
        (a table of star-formation rates or a file of a map operator counts by its numbers, see
        `Generator.identity`)."""
        whole = to_dict(self)
        keep = {k: whole[k] for k in ("seed", "grid", "emit", "observe", "label")}
        keep["data"] = {k: whole["data"][k] for k in DATA_SETTINGS}
        if self.data.sfr not in SFR_CHOICES:
            keep["data"]["sfr"] = "table"
        for section in keep["emit"].values():
            for split in SPLITS:
                section.pop(split, None)
        keep["observe"] = {n: without_paths(n, s) for n, s in keep["observe"].items()}
        return keep

    def digest(self) -> str:
        """sha256 of every setting that changes samples or training (not of the run's folder)."""
        whole = to_dict(self)
        whole.pop("run")
        whole["train"] = said_of_training(self.train)
        return sha256_of(whole)

    @property
    def observation(self) -> ObservationPlan:
        """The map operators, step by step, and all that is known of them."""
        return ObservationPlan(self.observe, self.grid)

    @property
    def line(self) -> LineConfig:
        """The luminosity model's section."""
        section: LineConfig = self.emit["line"]
        return section


def _build_ordered(sections: dict[str, Any], kinds: dict[str, Any], where: str) -> dict[str, Any]:
    built = {}
    for name, data in sections.items():
        kind = operator_kind(name)
        if kind not in kinds:
            raise ConfigError(f"unknown setting '{where}.{name}': {nearest(kind, kinds)}")
        is_built = isinstance(data, kinds[kind])
        built[name] = data if is_built else build(kinds[kind], data, f"{where}.{name}")
    return built


def _check(config: Config) -> None:
    grid = config.grid
    check_data(config.data)
    check_label(config.label)
    check_emit(config.emit, grid.nu_GHz)
    config.observation.check()
    quantity = config.label.quantity
    if quantity in ("class", "parameters"):
        for name, section in config.emit.items():
            if isinstance(section, BlankConfig):
                raise ConfigError(
                    f"emit.{name}: a blank map has no {quantity}, the label's quantity"
                )
    check_network(config.network, config.label.quantity, config.label.scale)
    check_training(config.train)


def from_mapping(data: dict[str, Any]) -> Config:
    """A checked `Config` from nested plain data."""
    config = build(Config, data)
    sections = {name: operator.section for name, operator in OPERATORS.items()}
    config = replace(
        config,
        emit=_build_ordered(config.emit, EMIT, "emit"),
        observe=_build_ordered(config.observe, sections, "observe"),
    )
    _check(config)
    return config


def _read(path: str | Path, readers: tuple[Path, ...]) -> dict[str, Any]:
    """The settings of a file and of those it extends. readers: the files that led to it."""
    try:
        file = find_config(path)
    except FileNotFoundError as error:
        problem = why_not_a_file(path) if Path(path).exists() else None
        raise ConfigError(f"{path}: {problem}" if problem else str(error)) from None
    with reading(file, ConfigError, "it cannot be read"):
        try:
            data = parse_yaml(read_text(file), str(path), suffixes=True)
        except UnicodeDecodeError:
            raise ConfigError(f"{path} is not a text file") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, not {type(data).__name__}")
    if file.resolve() in readers:
        raise ConfigError(f"{path} extends itself")
    base = data.pop("extends", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise ConfigError(f"{path}: extends must name a configuration file, not {base!r}")
    beside = file.parent / base
    return _merge(_read(beside if beside.is_file() else base, (*readers, file.resolve())), data)


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings of a configuration file and of those it extends, unchecked. Raises ConfigError
    for a file that cannot be read."""
    return _read(path, ())


def _other_kind(old: Any, new: Any) -> bool:
    """Whether a section chooses another kind, to which the old settings do not belong."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return False
    return "kind" in new and new["kind"] != old.get("kind", HybridConfig.kind)


def _merge(base: dict[str, Any], changes: dict[str, Any], top: bool = True) -> dict[str, Any]:
    """Settings with some of them changed, section by section."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        whole = (top and key in ("emit", "observe")) or _other_kind(old, value)
        deeper = isinstance(old, dict) and isinstance(value, dict) and not whole
        merged[key] = _merge(old, value, top=False) if deeper else value  # type: ignore[arg-type]
    return merged


def load_config(
    config: str | Path | Mapping[str, Any] | Config,
    overrides: Iterable[str] = (),
    **changes: Any,
) -> Config:
    """Read a configuration, and change settings of it.

    config: a YAML file, the name of one that ships with streamtrain, the folder of a run, wherever
    that lies now, the name of a trained network that ships (`streamtrain runs list`), a mapping of
    settings as such a file has them, or a `Config`. A file or mapping may start from another:
    `extends: other.yaml`, beside it, and change some settings; `emit` and `observe`, whose order
    matters, are replaced as a whole. changes: sections or settings of the top in the same way,
    `seed=3`, `train={"steps": 200}`. overrides: texts `dotted.key=value` as on the command line,
    last. An operator that one adds to `observe` takes its place in the order of an instrument,
    which is said (`place_operator`). In Python a luminosity model may be a function of (mass_Msun,
    z, *, parameters=defaults), whose source takes its place (see `source_of`).
    Relative lightcone paths start from the current folder.
    Raises ConfigError (a ValueError) with one sentence for bad input.

    >>> from streamtrain import load_config
    >>> load_config("reference.yaml", ["train.steps=200"], seed=3).train.steps
    200
    >>> config = load_config({"extends": "reference.yaml", "observe": {"noise": {"sigma_uK": 2}}})
    >>> list(config.observe), config.observe["noise"].sigma_uK
    (['noise'], 2.0)
    """
    if isinstance(overrides, str | Mapping) or not isinstance(overrides, Iterable):
        raise ConfigError(f"overrides must be a list like ['train.steps=200'], not {overrides!r}")
    texts = list(overrides)
    if isinstance(config, Config) and not texts and not changes:
        return config
    _refuse_unknown(changes)
    try:
        data = _merge(_given(config), _with_sources(plain(changes)))
    except ConfigError as error:
        raise error.with_traceback(None) from None  # one sentence: where it was found says nothing
    for override in texts:
        if not isinstance(override, str):
            raise ConfigError(f"an override must be text like 'train.steps=200', not {override!r}")
        before = {key: _names(data, key) for key in ("emit", "observe")}
        apply_override(data, override)
        if added := _added(override, before["observe"], "observe"):
            data["observe"] = place_operator(data["observe"], added)
        if added := _added(override, before["emit"], "emit"):
            note_modifier(data["emit"], added)
    built = from_mapping(data)
    built.observation.check_order()
    return built


def _refuse_unknown(changes: Mapping[str, Any]) -> None:
    """ConfigError for keywords that are no sections, with the section that has such a setting."""
    sections = {field.name: field for field in fields(Config)}
    for name in changes:
        first, _, rest = name.partition(".")
        where = [key for key, of in sections.items() if hasattr(of.default, "__dataclass_fields__")]
        inside = [key for key in where if hasattr(sections[key].default, name)]
        if rest and first in sections:
            raise ConfigError(
                f"'{name}' is no keyword: use the text '{name}=...', or {first}={{...}}"
            )
        if name not in sections and inside:
            raise ConfigError(
                f"'{name}' is a setting of {inside[0]}: {inside[0]}={{'{name}': ...}}"
            )
        if name not in sections:
            raise ConfigError(f"unknown setting '{name}': {nearest(name, sections)}")


def _given(config: Any) -> dict[str, Any]:
    """The settings of what is given to `load_config`."""
    if isinstance(config, Config):
        return dict(to_dict(config))
    if isinstance(config, str | Path):
        folder = find_run(config)
        data = _of_run(folder) if folder.is_dir() else _read(config, ())
        if {"generator_version", "samples"} <= set(data):
            raise ConfigError(
                f"{config} is the manifest of a test set, not a configuration: name the run or the "
                "configuration that it is of (`streamtrain testset verify CONFIG --manifest FILE`)"
            )
        return data
    if not isinstance(config, Mapping):
        raise ConfigError(
            "load_config reads a YAML file, the folder of a run, a mapping of settings or a "
            f"Config, not a {type(config).__name__}"
        )
    data = _with_sources(plain(config))
    base = data.pop("extends", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise ConfigError(f"extends must name a configuration file, not {base!r}")
    return _merge(_read(base, ()), data)


def _with_sources(data: Any) -> Any:
    """Plain data in which luminosity models that are functions are texts."""
    if isinstance(data, list):
        return [_with_sources(value) for value in data]
    if not isinstance(data, dict):
        return data
    return {
        key: source_of(value) if key == "model" and callable(value) else _with_sources(value)
        for key, value in data.items()
    }


def _names(data: Mapping[str, Any], key: str) -> list[str]:
    """Entries of an ordered section."""
    section = data.get(key)
    return list(section) if isinstance(section, Mapping) else []


def _added(override: str, before: list[str], key: str) -> str:
    """The entry of an ordered section that an override has added to it, if it is known."""
    section, _, rest = override.partition("=")[0].strip().partition(".")
    name = rest.partition(".")[0]
    kinds = OPERATORS if key == "observe" else EMIT
    added = section == key and name and name not in before and operator_kind(name) in kinds
    return name if added and before and all(isinstance(n, str) for n in before) else ""


def _of_run(folder: Path) -> dict[str, Any]:
    """The configuration that a run's folder holds, of the run in that folder."""
    file = folder / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"{folder} is not the folder of a run: it has no config.yaml")
    return {**_read(file, ()), "run": str(folder)}
