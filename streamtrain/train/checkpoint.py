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
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from streamtrain.config import Config
from streamtrain.schema import to_dict

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
"""Likewise, of emitters with lightcones of their own."""
_NAME = re.compile(r"step_(\d{9,})")


class CheckpointError(ValueError):
    """A checkpoint that cannot be continued from; the message is for the person who asked."""


def save_checkpoint(
    folder: Path, state: Mapping[str, Any], config: Config, generator_version: int
) -> Path:
    """Write `state` (with its 'step' and 'next_index') as a complete checkpoint, or not at all.

    folder: the run's folder of checkpoints, created if it is not there. Returns the checkpoint.
    Raises OSError (or what torch.save makes of it) where it cannot be written; what was there
    before is as it was then, and nothing half-written stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step_{state['step']:09d}"
    temporary = folder / f".{final.name}.tmp"
    remove_leftovers(folder)
    try:
        _write_all(temporary, state, config, generator_version)
        _remove(final)  # of this step, but it did not verify
        os.rename(temporary, final)
    except Exception:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _flush_folder(folder)
    with contextlib.suppress(OSError):  # the next one tidies up
        _prune(folder, state["step"])
    return final


def _write_all(
    temporary: Path, state: Mapping[str, Any], config: Config, generator_version: int
) -> None:
    temporary.mkdir()
    with open(temporary / "state.pt", "wb") as file, _no_checksums():
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    _write(temporary / "config.yaml", config.to_yaml())
    manifest = {
        "step": state["step"],
        "next_index": state["next_index"],
        "config_digest": config.digest(),
        "generator_version": generator_version,
        "files": {name: _describe(temporary / name) for name in ("state.pt", "config.yaml")},
    }
    _write(temporary / "manifest.json", _render(manifest | {"digest": _digest(manifest)}))
    _flush_folder(temporary)


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
    if path.exists():
        aside = path.parent / f".{path.name}.old.tmp"
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(path, aside)
        shutil.rmtree(aside, ignore_errors=True)


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
    found = newest(folder)
    if found is None:
        return None
    saved, current = found.config, to_dict(config)
    if sections is not None:
        saved, current = ({k: c[k] for k in sections} for c in (saved, current))
    refuse_other_run(found, saved, current, generator_version)
    return found.state


@dataclass(frozen=True)
class Checkpoint:
    """One that verifies."""

    path: Path
    manifest: dict[str, Any]
    config: dict[str, Any]
    """The configuration as plain data."""
    state: dict[str, Any]
    """On the CPU."""


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that verifies; None where there is none.

    A damaged one is named on stderr and passed over. Raises CheckpointError if all are damaged.
    """
    found = list(_checkpoints(folder))
    for step, path in found:
        try:
            manifest = _verify(path, step)
            saved = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
            state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises many kinds for a damaged file
            print(f"streamtrain: passing over {path}: {error}", file=sys.stderr)
            continue
        assert isinstance(state, dict)
        return Checkpoint(path, manifest, saved, state)
    if found != list(_checkpoints(folder)):  # a training has written others meanwhile
        return newest(folder)
    if found:
        raise CheckpointError(
            f"none of the {len(found)} checkpoints in {folder} is intact; remove that folder to "
            "start again"
        )
    return None


def first_difference(saved: Any, current: Any, where: str = "") -> str | None:
    """The first setting that differs, as 'train.steps = 100 there, 200 here', or None.

    saved, current: configurations as plain data. `FREE_SETTINGS` are passed over.
    """
    if where in FREE_SETTINGS or FREE_OF_INTERLOPERS.fullmatch(where):
        return None
    if not isinstance(saved, Mapping) or not isinstance(current, Mapping):
        same = saved == current
        return None if same else f"{where} = {_show(saved)} there, {_show(current)} here"
    for key in [*current, *(key for key in saved if key not in current)]:
        path = f"{where}.{key}" if where else str(key)
        difference = first_difference(saved.get(key), current.get(key), path)
        if difference:
            return difference
    ordered = where.partition(".")[0] in ("emit", "observe")
    if ordered and list(saved) != list(current):
        return f"the order of {where} is {', '.join(saved)} there, {', '.join(current)} here"
    return None


def remove_leftovers(folder: Path) -> None:
    """Delete what an interrupted `save_checkpoint` left; only for the one that owns the run."""
    for path in folder.glob(".step_*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def _checkpoints(folder: Path) -> Iterator[tuple[int, Path]]:
    """(step, path) of the finished checkpoints, newest first."""
    names = os.listdir(folder) if folder.is_dir() else []
    steps = [(int(m[1]), folder / m[0]) for m in map(_NAME.fullmatch, names) if m]
    yield from sorted(steps, reverse=True)


def _verify(path: Path, step: int) -> dict[str, Any]:
    """The manifest, after it and every file have been compared with what was written."""
    text = (path / "manifest.json").read_text(encoding="utf-8")
    manifest: dict[str, Any] = json.loads(text)
    written = {key: value for key, value in manifest.items() if key != "digest"}
    if _render(manifest) != text or manifest.get("digest") != _digest(written):
        raise CheckpointError("manifest.json is not what was written (its digest differs)")
    if manifest["step"] != step:
        raise CheckpointError(f"it is the checkpoint of step {manifest['step']}")
    for name, expected in manifest["files"].items():
        found = _describe(path / name)
        if found != expected:
            raise CheckpointError(
                f"{name} has {found['bytes']} bytes of the {expected['bytes']} written"
                if found["bytes"] != expected["bytes"]
                else f"{name} is not what was written (its sha256 differs)"
            )
    return manifest


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
        kept = "train" in saved and all(
            first_difference(saved.get(name), current.get(name), name) is None
            for name in ("network", "label")
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
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256") if sys.version_info >= (3, 11) else None
        if digest is None:
            digest = hashlib.sha256(file.read())
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


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


def _show(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
