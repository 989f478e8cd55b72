"""The configuration of a run: sections, defaults, ranges.

`load_config` reads a YAML file, applies `dotted.key=value` overrides and returns a `Config`, whose
every field is checked. `emit` and `observe` are ordered mappings: the order of the keys is the
order of the operations, and a second use of one takes a suffix (`noise_2`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from streamtrain.config_data import SFR_CHOICES, DataConfig, check_data
from streamtrain.config_emit import EMIT, BlankConfig, check_emit, note_emitter
from streamtrain.config_line import LineConfig
from streamtrain.config_network import MeansConfig, NetworkConfig, check_network
from streamtrain.config_observe import (
    OBSERVE,
    NoiseConfig,
    check_observe,
    check_order,
    operator_kind,
    place_operator,
    without_paths,
)
from streamtrain.config_train import TrainConfig, check_training, said_of_training
from streamtrain.files import read_text, reading, why_not_a_file
from streamtrain.resources import find_config
from streamtrain.schema import (
    ConfigError,
    apply_override,
    build,
    nearest,
    parse_yaml,
    setting,
    to_dict,
)

__all__ = ["Config", "ConfigError", "TrainConfig", "load_config"]


@dataclass(frozen=True)
class GridConfig:
    """The cube that halos are painted into."""

    fov_deg: tuple[float, float] = setting((1.4, 1.4), "field (ra, dec) [deg]", above=0, high=20)
    shape: tuple[int, int, int] = setting((10, 64, 64), "voxels (freq, dec, ra)", low=1, high=4096)
    nu_GHz: tuple[float, float] = setting((34.0, 26.0), "band, high to low [GHz]", above=0)
    nu_rest_GHz: float = setting(115.27, "rest frequency of the line [GHz]", above=0)
    units: Literal["uK", "Jy/sr"] = setting("uK", "brightness temperature or intensity")


SMALLEST_BIN_DEX = 1e-5
"""Narrowest luminosity bin: log2 L is known to 2e-6."""


@dataclass(frozen=True)
class LabelConfig:
    """What the network predicts."""

    quantity: Literal["counts", "cumulative", "phi", "phi_L", "class"] = setting(
        "counts",
        "halos per luminosity bin, N(>L) at each bin's lower edge, dn/dL [Mpc^-3 Lsun^-1], dn/dlnL "
        "[Mpc^-3], or which of the luminosity models",
    )
    scale: Literal["log10", "linear"] = setting(
        "log10", "log10 (an empty bin counts as one halo) or linear"
    )
    log10_L: tuple[float, float] = setting(
        (3.5, 7.0), "first and last edge, log10(L/Lsun)", low=-40, high=40
    )
    bins: int = setting(49, "number of luminosity bins", low=1, high=1000)
    edges: tuple[float, ...] | None = setting(
        None, "edges of unequal bins, log10(L/Lsun), instead of log10_L and bins", low=-40, high=40
    )
    overflow: bool = setting(True, "cumulative: count halos above the last edge")


@dataclass(frozen=True)
class TestSetConfig:
    """The fixed test set."""

    samples: int = setting(512, "samples of the test set", low=1)
    seed: int | None = setting(
        None, "its seed; default: the seed of the run", low=0, high=2**64 - 1
    )


DATA_SETTINGS = ("roll", "mirror", "min_mass_Msun", "active", "active_samples", "sfr")
"""What of the section `data` decides samples."""


@dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    seed: int = setting(0, "64-bit seed of every sample", low=0, high=2**64 - 1)
    run: str = setting("runs/default", "folder of the run: checkpoints, TensorBoard, figures")
    grid: GridConfig = setting(GridConfig(), "")
    data: DataConfig = setting(DataConfig(), "")
    emit: dict[str, Any] = setting({"line": {}}, "emitters, in order")
    observe: dict[str, Any] = setting({}, "map operators, in order")
    label: LabelConfig = setting(LabelConfig(), "")
    network: NetworkConfig = setting(MeansConfig(), "")
    train: TrainConfig = setting(TrainConfig(), "")
    test: TestSetConfig = setting(TestSetConfig(), "")

    def to_yaml(self) -> str:
        """The resolved whole, as YAML that `load_config` reads back."""
        return yaml.safe_dump(to_dict(self), sort_keys=False, default_flow_style=None, width=100)

    def sample_settings(self) -> dict[str, Any]:
        """The part that decides samples: all but network, training, run folder and file paths
        (a table of star-formation rates or a file of a map operator counts by its numbers, see
        `Generator.identity`)."""
        whole = to_dict(self)
        keep = {k: whole[k] for k in ("seed", "grid", "emit", "observe", "label")}
        keep["data"] = {k: whole["data"][k] for k in DATA_SETTINGS}
        if self.data.sfr not in SFR_CHOICES:
            keep["data"]["sfr"] = "table"
        for emitter in keep["emit"].values():
            for split in ("train", "validation", "test"):
                emitter.pop(split, None)
        keep["observe"] = {name: without_paths(s) for name, s in keep["observe"].items()}
        return keep

    def digest(self) -> str:
        """sha256 of every setting that changes samples or training (not of the run's folder)."""
        whole = to_dict(self)
        whole.pop("run")
        whole["train"] = said_of_training(self.train)
        return hashlib.sha256(json.dumps(whole).encode()).hexdigest()

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


def _check_label(label: LabelConfig) -> None:
    if label.log10_L[0] >= label.log10_L[1]:
        raise ConfigError(f"label.log10_L = {list(label.log10_L)} must increase")
    if label.edges is None:
        return
    usual = LabelConfig()
    if (label.log10_L, label.bins) != (usual.log10_L, usual.bins):
        raise ConfigError(
            "label.edges replaces label.log10_L and label.bins: label.edges=null removes the one, "
            f"label.log10_L={list(usual.log10_L)} label.bins={usual.bins} the other"
        )
    if not 2 <= len(label.edges) <= 1001:
        raise ConfigError(f"label.edges must be 2 to 1001 numbers, not {len(label.edges)}")
    for low, high in zip(label.edges[:-1], label.edges[1:], strict=True):
        if high - low < SMALLEST_BIN_DEX:
            raise ConfigError(
                f"label.edges must increase by at least {SMALLEST_BIN_DEX:g} dex, but {high:.9g} "
                f"follows {low:.9g}"
            )


def _check(config: Config) -> None:
    grid = config.grid
    if grid.nu_GHz[0] <= grid.nu_GHz[1]:
        raise ConfigError(f"grid.nu_GHz = {list(grid.nu_GHz)} must run from high to low")
    if grid.nu_GHz[0] >= grid.nu_rest_GHz:
        raise ConfigError(
            f"grid.nu_GHz = {list(grid.nu_GHz)} must lie below nu_rest_GHz = {grid.nu_rest_GHz:g}"
        )
    check_data(config.data)
    _check_label(config.label)
    check_emit(config.emit, grid.nu_GHz)
    check_observe(config.observe, grid.shape)
    for name, operator in config.observe.items():
        unsaid = isinstance(operator, NoiseConfig) and operator.sigma_uK is None
        if unsaid and grid.units != "uK" and operator.radiometer is None:
            raise ConfigError(f"observe.{name} needs sigma_uK [map units] in {grid.units}")
    if config.label.quantity == "class":
        for name, section in config.emit.items():
            if isinstance(section, BlankConfig):
                raise ConfigError(f"emit.{name}: a blank map has no class, the label's quantity")
    check_network(config.network, config.label.quantity, config.label.scale)
    check_training(config.train)


def from_mapping(data: dict[str, Any]) -> Config:
    """A checked `Config` from nested plain data."""
    config = build(Config, data)
    config = replace(
        config,
        emit=_build_ordered(config.emit, EMIT, "emit"),
        observe=_build_ordered(config.observe, OBSERVE, "observe"),
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
    return "kind" in new and new["kind"] != old.get("kind", MeansConfig.kind)


def _merge(base: dict[str, Any], changes: dict[str, Any], top: bool = True) -> dict[str, Any]:
    """Settings with some of them changed, section by section."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        whole = (top and key in ("emit", "observe")) or _other_kind(old, value)
        deeper = isinstance(old, dict) and isinstance(value, dict) and not whole
        merged[key] = _merge(old, value, top=False) if deeper else value  # type: ignore[arg-type]
    return merged


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML configuration and apply `dotted.key=value` overrides.

    path: a file, the name of one that ships with streamtrain, or the folder of a run, wherever that
    lies now. A file may start from another: `extends: other.yaml`, beside it, and change some
    settings; `emit` and `observe`, whose order matters, are replaced as a whole. An operator that
    an override adds to `observe` takes its place in the order of an instrument, which is said
    (`place_operator`). Relative lightcone paths start from the current folder.
    Raises ConfigError (a ValueError) with one sentence for bad input.
    """
    if not isinstance(path, str | Path):
        hint = ": streamtrain.config.from_mapping takes one" if isinstance(path, Mapping) else ""
        raise ConfigError(
            f"load_config reads a YAML file or the folder of a run, not a {type(path).__name__}"
            + hint
        )
    if isinstance(overrides, str | Mapping) or not isinstance(overrides, Iterable):
        raise ConfigError(f"overrides must be a list like ['train.steps=200'], not {overrides!r}")
    data = _of_run(Path(path)) if Path(path).is_dir() else _read(path, ())
    for override in overrides:
        if not isinstance(override, str):
            raise ConfigError(f"an override must be text like 'train.steps=200', not {override!r}")
        before = {key: _names(data, key) for key in ("emit", "observe")}
        apply_override(data, override)
        if added := _added(data, override, before["observe"], "observe"):
            data["observe"] = place_operator(data["observe"], added)
        if added := _added(data, override, before["emit"], "emit"):
            note_emitter(data["emit"], added)
    config = from_mapping(data)
    check_order(config.observe)
    return config


def _names(data: Mapping[str, Any], key: str) -> list[str]:
    """Entries of an ordered section."""
    section = data.get(key)
    return list(section) if isinstance(section, Mapping) else []


def _added(data: Mapping[str, Any], override: str, before: list[str], key: str) -> str:
    """The entry of an ordered section that an override has added to it, if it is known."""
    section, _, rest = override.partition("=")[0].strip().partition(".")
    name = rest.partition(".")[0]
    kinds = OBSERVE if key == "observe" else EMIT
    added = section == key and name and name not in before and operator_kind(name) in kinds
    return name if added and before and all(isinstance(n, str) for n in before) else ""


def _of_run(folder: Path) -> dict[str, Any]:
    """The configuration that a run's folder holds, of the run in that folder."""
    file = folder / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"{folder} is not the folder of a run: it has no config.yaml")
    return {**_read(file, ()), "run": str(folder)}
