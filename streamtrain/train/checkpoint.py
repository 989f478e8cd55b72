"""Checkpoints: the whole state of a training, written so that no interruption can damage it.

A checkpoint is a folder `checkpoints/step_000001200` of

    state.pt         network, optimiser, average of the weights, step, next_index, skipped steps
                     (torch.save, read with weights_only)
    config.yaml      the configuration of the run, resolved
    manifest.json    size and sha256 of both, config digest, generator_version, and a digest of
                     itself; written last

made under a temporary name, flushed to disk, then renamed. The two newest are kept; loading takes
the newest that verifies. The learning rate, the seed of dropout and the place in TensorBoard are
functions of the step.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import sys
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import torch
import yaml
from torch import Tensor, nn

from streamtrain.config import Config
from streamtrain.machine.files import (
    MAX_YAML_BYTES,
    discard,
    one_line,
    open_plain,
    read_plain,
    sha256,
)
from streamtrain.schema import differences, to_dict

KEEP = 2
"""Complete checkpoints kept: the newest, and the one before it."""

FREE_SETTINGS = (
    "run",
    "test",
    "data.validation",
    "data.test",
    "data.memory_GB",
    "train.threads",
    "train.queue",
    "train.processes",
    "train.log_every",
    "train.validate_every",
    "train.validation_samples",
    "train.checkpoint_every",
    "train.max_nonfinite",
    "train.deterministic",
    "train.compile",
    "train.channels_last",
)
"""Settings that change neither training samples nor what is computed of them: a run may continue
with others."""

FREE_OF_INTERLOPERS = re.compile(r"emit\.\w+\.(validation|test)")
"""Interlopers' own lightcones of validation and test, which a run may also continue with others
of."""
OTHER_NETWORK = (
    "the checkpoint is of another network, or of an earlier version of this one, which has to be "
    "trained anew"
)
_NAME = re.compile(r"step_([0-9]{9,18})")
_FILES = ("state.pt", "config.yaml")
_LARGEST_TEXT = 200_000
"""Bytes of a manifest; more is none."""
_DEEPEST = 50
"""Levels of a configuration."""
_KINDS: dict[str, type] = {
    "step": int,
    "next_index": int,
    "network": dict,
    "optimiser": dict,
    "average": dict,
    "skipped_in_a_row": int,
    "input_shape": list,
    "num_bins": int,
    "classes": list,
    "samples": dict,
}
"""Types of the entries of a state."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be continued from; the message is for the person who asked."""


class State(dict[str, Any]):
    """What a checkpoint holds; CheckpointError, not KeyError, for what it lacks."""

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        super().__init__(values)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise CheckpointError(f"{self._path} has no '{key}': it is not of this program")


def save_checkpoint(
    folder: Path, state: Mapping[str, Any], config: Config, generator_version: int
) -> Path:
    """Write `state` (with its 'step' and 'next_index') as a complete checkpoint, or not at all.

    folder: the run's folder of checkpoints, created if it is not there. Returns the checkpoint.
    Raises OSError where it cannot be written; what was there before is as it was then, and nothing
    half-written stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step_{state['step']:09d}"
    remove_leftovers(folder)
    temporary = _free_name(folder, final.name)
    try:
        _write_all(temporary, state, config, generator_version)
        _remove(final)  # of this step, but it did not verify
        os.rename(temporary, final)
    except Exception:
        discard(temporary)
        raise
    _flush_folder(folder)
    with contextlib.suppress(OSError):  # the next one tidies up
        _prune(folder, state["step"])
    return final


def _free_name(folder: Path, name: str) -> Path:
    """A temporary name that `remove_leftovers` knows; what it cannot remove is passed by."""
    names = (folder / f".{name}{k}.tmp" for k in ("", *(f".{n}" for n in range(1, 100))))
    return next((path for path in names if not os.path.lexists(path)), folder / f".{name}.tmp")


def _write_all(
    temporary: Path, state: Mapping[str, Any], config: Config, generator_version: int
) -> None:
    temporary.mkdir()
    with open(temporary / "state.pt", "wb") as file, _no_checksums():
        remembering = _Remembering(file)
        try:
            torch.save(dict(state), cast(IO[bytes], remembering))
        except RuntimeError:  # torch tells neither errno nor file
            if remembering.error is None:
                raise
            raise remembering.error from None
        file.flush()
        os.fsync(file.fileno())
    _write(temporary / "config.yaml", config.to_yaml())
    manifest = {
        "step": state["step"],
        "next_index": state["next_index"],
        "config_digest": config.digest(),
        "generator_version": generator_version,
        "files": {name: _describe(temporary / name) for name in _FILES},
    }
    _write(temporary / "manifest.json", _render(manifest | {"digest": _digest(manifest)}))
    _flush_folder(temporary)


class _Remembering:
    """A file to write to that knows the first error of the system."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self._file.flush()


@contextlib.contextmanager
def _no_checksums() -> Iterator[None]:
    """The manifest has digests; the zip format's checksums would cost more than all the rest."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


def _prune(folder: Path, step: int) -> None:
    """Remove all but the checkpoint of `step` and the one before it.

    Those of later steps are damaged, or the run would have gone on from them.
    """
    kept = 0
    for number, path in list(_checkpoints(folder)):
        kept += number <= step
        if number > step or kept > KEEP:
            _remove(path)


def _remove(path: Path) -> None:
    """Remove a checkpoint; it is gone as a whole, whatever interrupts this."""
    if os.path.lexists(path):
        aside = path.parent / f".{path.name}.old.tmp"
        discard(aside)
        os.rename(path, aside)
        discard(aside)


def load_checkpoint(
    folder: Path,
    config: Config,
    generator_version: int,
    sections: Collection[str] | None = None,
) -> dict[str, Any] | None:
    """The state of the newest checkpoint that verifies, on the CPU; None where there is none.

    sections: compare these sections of the configuration only, for a network that is used rather
    than trained on; default: every setting that decides samples or weights.
    A damaged checkpoint is named on stderr and passed over. Raises CheckpointError if it belongs
    to another configuration or generator version, or if all are damaged.
    """
    found = newest(folder, sections or ())
    if found is None:
        return None
    saved, current = found.config, to_dict(config)
    if sections is not None:
        saved, current = ({k: c[k] for k in sections} for c in (saved, current))
    refuse_other_run(found, saved, current, generator_version)
    return found.state


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been read and verified."""

    path: Path
    manifest: dict[str, Any]
    config: dict[str, Any]
    """The configuration as plain data."""
    state: dict[str, Any]
    """The state of the training, its tensors on the CPU."""


def last_step(folder: Path) -> int | None:
    """The step of the last checkpoint by its name, which may be damaged; None where there is
    none."""
    return next((step for step, _ in _checkpoints(folder)), None)


def newest(folder: Path, sections: Collection[str] = ()) -> Checkpoint | None:
    """The newest checkpoint that verifies; None where there is none.

    sections: which its configuration must have. A damaged one is named on stderr and passed over.
    Raises CheckpointError if all are damaged, or for one that this user may not read.
    """
    found = list(_checkpoints(folder))
    for step, path in found:
        try:
            manifest = _verify(path, step)
            saved = _read_config(path / "config.yaml", sections)
            state = _read_state(path / "state.pt", manifest)
        except PermissionError as error:  # it may be whole, and would be removed as damaged
            reason = os.strerror(error.errno or errno.EACCES)
            raise CheckpointError(
                f"{error.filename or path} cannot be read ({reason}): let this user read it, or "
                "remove it"
            ) from None
        except Exception as error:  # torch.load raises many kinds for a damaged file
            print(f"streamtrain: passing over {path}: {one_line(error)}", file=sys.stderr)
            continue
        return Checkpoint(path, manifest, saved, State(state, path))
    if found != list(_checkpoints(folder)):  # a training has written others meanwhile
        return newest(folder, sections)
    if found:
        raise CheckpointError(
            f"none of the {len(found)} checkpoints in {folder} is intact; remove that folder to "
            "start again"
        )
    return None


def load_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a network the weights of a checkpoint. Raises CheckpointError if they do not fit."""
    wanted = network.state_dict()
    for name in [*wanted, *weights]:
        if name not in wanted or name not in weights:
            where = "the checkpoint" if name in weights else "the network"
            raise CheckpointError(f"{name} is in {where} alone: {OTHER_NETWORK}")
        there, here = weights[name], wanted[name]
        if there.shape != here.shape or there.dtype != here.dtype:
            raise CheckpointError(
                f"{name} is {_kind(there)} in the checkpoint, {_kind(here)} in the network: "
                f"{OTHER_NETWORK}"
            )
    network.load_state_dict(dict(weights))


def _kind(values: Tensor) -> str:
    return f"{str(values.dtype).removeprefix('torch.')} {tuple(values.shape)}"


def is_free(name: str) -> bool:
    """Whether a run may continue with another value of the setting of this dotted name."""
    return name in FREE_SETTINGS or bool(FREE_OF_INTERLOPERS.fullmatch(name))


def first_difference(saved: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """The first setting that differs and may not, as 'train.steps = 100 there, 200 here', or ''.

    saved, current: configurations as plain data.
    """
    found = next(differences(saved, current, free=is_free), None)
    return "" if found is None else found.text("there", "here")


def remove_leftovers(folder: Path) -> None:
    """Delete what an interrupted `save_checkpoint` left; only for the one that owns the run."""
    for path in folder.glob(".step_*.tmp"):
        discard(path)


def _checkpoints(folder: Path) -> Iterator[tuple[int, Path]]:
    """(step, path) of the finished checkpoints, newest first."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder: remove it, or use another (run=...)")
    names = os.listdir(folder) if folder.is_dir() else []
    steps = [(int(m[1]), folder / m[0]) for m in map(_NAME.fullmatch, names) if m]
    yield from sorted(steps, reverse=True)


def _verify(path: Path, step: int) -> dict[str, Any]:
    """The manifest, after it and every file have been compared with what was written."""
    text = read_plain(path / "manifest.json", _LARGEST_TEXT).decode()
    manifest: dict[str, Any] = json.loads(text)
    if not isinstance(manifest, dict):
        raise CheckpointError("manifest.json is no table of names and values")
    written = {key: value for key, value in manifest.items() if key != "digest"}
    if _render(manifest) != text or manifest.get("digest") != _digest(written):
        raise CheckpointError("manifest.json is not what was written (its digest differs)")
    files, version = manifest.get("files"), manifest.get("generator_version")
    if not isinstance(files, dict) or sorted(files) != sorted(_FILES) or type(version) is not int:
        raise CheckpointError(f"manifest.json is not that of {' and '.join(_FILES)}")
    if manifest.get("step") != step:
        raise CheckpointError(f"it is the checkpoint of step {manifest.get('step')}")
    for name, expected in files.items():
        found = _describe(path / name)
        if found != expected:
            size = expected.get("bytes") if isinstance(expected, dict) else expected
            raise CheckpointError(
                f"{name} has {found['bytes']} bytes of the {size} written"
                if found["bytes"] != size
                else f"{name} is not what was written (its sha256 differs)"
            )
    return manifest


class _PlainLoader(yaml.SafeLoader):
    """Of what `Config.to_yaml` writes: references may blow up, and nesting takes long."""

    def __init__(self, text: bytes) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth += 1
        if self._depth > _DEEPEST or self.check_event(yaml.AliasEvent):
            raise CheckpointError("config.yaml is nested, or refers to itself, as none written is")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _read_config(path: Path, sections: Collection[str]) -> dict[str, Any]:
    """The configuration of a checkpoint as plain data."""
    saved = yaml.load(read_plain(path, MAX_YAML_BYTES), _PlainLoader)
    if not isinstance(saved, dict) or any(key not in saved for key in sections):
        raise CheckpointError("config.yaml is no configuration")
    return saved


def _read_state(path: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a checkpoint, of the kinds that a training writes."""
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if sum(part.file_size for part in zipfile.ZipFile(file).infolist()) > size:
            raise CheckpointError(f"{path.name} holds more than its {size} bytes")
        file.seek(0)
        state = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise CheckpointError(f"{path.name} is no table of names and values")
    for name, kind in _KINDS.items():
        if name in state and (not isinstance(state[name], kind) or type(state[name]) is bool):
            found = type(state[name]).__name__
            raise CheckpointError(f"{name} in {path.name} is {found}, not {kind.__name__}")
    for name in ("step", "next_index"):
        if state.get(name) != manifest.get(name):
            raise CheckpointError(f"{name} is {state.get(name)}, {manifest.get(name)} in manifest")
    for part in ("network", "average"):
        for name, values in state.get(part, {}).items():
            if not isinstance(name, str) or not isinstance(values, Tensor):
                raise CheckpointError(f"{part}.{name} in {path.name} is no tensor")
            if values.numel() * values.element_size() > values.untyped_storage().nbytes():
                raise CheckpointError(f"{part}.{name} in {path.name} has more numbers than bytes")
            if values.is_floating_point() and not torch.isfinite(values).all():
                raise CheckpointError(f"{part}.{name} in {path.name} is not finite")
    return state


def _render(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=1) + "\n"


def _digest(manifest: Mapping[str, Any]) -> str:
    """Of a manifest without its digest."""
    return hashlib.sha256(_render(manifest).encode()).hexdigest()


def refuse_other_run(checkpoint: Checkpoint, saved: Any, current: Any, version: int) -> None:
    """Raise CheckpointError if a checkpoint cannot be used with another configuration or generator.

    saved, current: what is compared of the two configurations, as plain data.
    """
    path, saved_version = checkpoint.path, checkpoint.manifest["generator_version"]
    difference = first_difference(saved, current)
    if difference:
        kept = "train" in saved and not first_difference(
            *(
                {name: whole.get(name) for name in ("network", "label")}
                for whole in (saved, current)
            )
        )
        start = (
            f" and begin with these weights (train.start_from={path.parents[1]})" if kept else ""
        )
        raise CheckpointError(
            f"{path} is of another configuration: {difference}; give this run another folder "
            f"(run=...){start}, or remove that one"
        )
    if saved_version != version:
        raise CheckpointError(
            f"{path} was trained on samples of generator version {saved_version}, this is version "
            f"{version} and its samples differ; give this run another folder (run=...)"
        )


def _describe(path: Path) -> dict[str, Any]:
    with open_plain(path) as file:
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": sha256(file)}


def _write(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
