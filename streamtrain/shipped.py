"""What ships with streamtrain, found by its name: kernels, configurations, trained networks,
examples.

Also which of the files and runs that are there has the name nearest to a misspelt one.
"""

from __future__ import annotations

import difflib
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
TRAINED = "trained"
"""The folder of `configs/` with trained networks."""
OPTION_FILES = ("skies.yaml", "maps.yaml")
"""Names of files of `configs/` that are no configurations: options of `catalog make`, and the maps
of `evaluate --blind`."""


def resource_dir(name: str) -> Path:
    """Folder `name` ("kernels", "configs", "examples"): inside the installed package, or at the top
    of a checkout that is used through PYTHONPATH or an editable install."""
    for folder in (_PACKAGE / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"the folder '{name}' is neither in {_PACKAGE} nor beside it: "
        "install streamtrain with pip, or run from a complete checkout"
    )


def shipped(path: str | Path) -> Path:
    """Where `path` lies among the files of `configs/`, whether or not there is one: `comap.yaml`
    and `configs/comap.yaml` are the same file there."""
    parts = Path(path).parts
    return resource_dir("configs").joinpath(*(parts[1:] if parts[:1] == ("configs",) else parts))


def find_shipped(path: str | Path) -> Path:
    """`path` if it is a file, else the file of that name that ships with streamtrain, else
    `path`."""
    given = Path(path)
    found = given if given.is_absolute() or given.is_file() else shipped(given)
    return found if found.is_file() else given


def find_config(path: str | Path) -> Path:
    """A configuration file: `path` itself, or the one of that name that ships with streamtrain
    (`configs/comap.yaml` and `comap.yaml` both find it). Raises FileNotFoundError with the nearest
    name of a file that ships, lies beside `path`, or is a run beside it."""
    found = find_shipped(path)
    if found.is_file():
        return found
    if "=" in str(path):
        raise FileNotFoundError(
            f"no configuration file or run '{path}': settings stand after the configuration, as "
            f"in quickstart.yaml {path}"
        )
    presets = shipped_configs()
    files = [other for other in _beside(path) if other.suffix in (".yaml", ".yml")]
    hint = _nearest(path, [*presets, *files, *_runs(path)])
    if not hint and Path(path).suffix:
        top = [str(preset) for preset in presets if len(preset.parts) == 1]
        folders = {f"{preset.parts[0]}/" for preset in presets if len(preset.parts) > 1}
        hint = f"streamtrain ships {', '.join(top)}, and more in {' and '.join(sorted(folders))}"
    raise FileNotFoundError(f"no configuration file or run '{path}': {hint or near_run(path)}")


def shipped_configs() -> list[Path]:
    """The configurations that ship with streamtrain, relative to `configs/`."""
    folder = resource_dir("configs")
    every = sorted(file.relative_to(folder) for file in folder.rglob("*.yaml"))
    return [f for f in every if f.name not in OPTION_FILES and f.parts[0] != TRAINED]


def find_run(path: str | Path) -> Path:
    """The folder of a run: `path` itself, or the trained network of that name that ships with
    streamtrain, else `path`."""
    given = Path(path)
    ours = trained_networks().get(str(given))
    return given if ours is None or given.is_dir() else ours


def trained_networks() -> dict[str, Path]:
    """The folders of the trained networks that ship with streamtrain, by their names."""
    every = sorted(resource_dir("configs").glob(f"{TRAINED}/*/config.yaml"))
    return {file.parent.name: file.parent for file in every}


def is_shipped(folder: Path) -> bool:
    """Whether a folder ships with streamtrain, and stays as it is."""
    return (resource_dir("configs") / TRAINED).resolve() in folder.resolve().parents


def run_name(folder: Path) -> str:
    """What commands call a run: the name of a network that ships, else its folder."""
    return folder.name if is_shipped(folder) else str(folder)


def near_run(path: str | Path) -> str:
    """Half a sentence with the name nearest to that of a missing run, or the runs beside it."""
    runs = _runs(path)
    names = ", ".join(str(run) for run in runs[:8]) + (", ..." if len(runs) > 8 else "")
    beside = f"the runs beside it are {names}" if runs else f"no run is in {Path(path).parent}"
    ours = [Path(name) for name in trained_networks()]
    ships = f"; networks that ship: {', '.join(map(str, ours))}" if ours else ""
    return _nearest(path, [*runs, *ours]) or beside + ships


def _beside(path: str | Path) -> list[Path]:
    try:
        return sorted(Path(path).parent.iterdir())
    except OSError:
        return []


def _runs(path: str | Path) -> list[Path]:
    return [other for other in _beside(path) if (other / "config.yaml").is_file()]


def _nearest(path: str | Path, known: list[Path]) -> str:
    """A question with the known file or folder whose name is nearest."""
    names = {file.stem: file for file in reversed(known)}
    close = difflib.get_close_matches(Path(path).stem, names, n=1, cutoff=0.6)
    return f"did you mean '{names[close[0]]}'?" if close else ""
