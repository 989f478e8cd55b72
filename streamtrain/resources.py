"""Where the files that ship with the package lie: kernel sources and configurations."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource_dir(name: str) -> Path:
    """Folder `name` ("kernels" or "configs"): inside the installed package, or at the top of a
    checkout that is used through PYTHONPATH or an editable install."""
    for folder in (_PACKAGE / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"the folder '{name}' is neither in {_PACKAGE} nor beside it: "
        "install streamtrain with pip, or run from a complete checkout"
    )


def find_config(path: str | Path) -> Path:
    """A configuration file: `path` itself, or the one of that name that ships with streamtrain
    (`configs/comap.yaml` and `comap.yaml` both find it)."""
    given = Path(path)
    if given.is_file():
        return given
    parts = given.parts[1:] if given.parts[:1] == ("configs",) else given.parts
    shipped = resource_dir("configs").joinpath(*parts)
    if not given.is_absolute() and parts and shipped.is_file():
        return shipped
    known = sorted(
        str(p.relative_to(resource_dir("configs"))) for p in resource_dir("configs").rglob("*.yaml")
    )
    raise FileNotFoundError(f"no configuration file '{path}'; shipped ones: {', '.join(known)}")
