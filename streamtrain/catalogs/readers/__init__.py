"""Halo catalogs of other programs: which reader a file needs, and which options it takes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.readers.groups import is_group_file, read_groups
from streamtrain.catalogs.readers.halos import (
    Halos,
    chunks_of,
    files_of,
    lightcone_of,
    reading,
)
from streamtrain.catalogs.readers.limlam import read_npz, read_pickled_header
from streamtrain.catalogs.readers.pinocchio import read_plc, read_snapshot
from streamtrain.catalogs.readers.pksc import read_pksc
from streamtrain.catalogs.readers.rockstar import read_hlist, read_rockstar
from streamtrain.catalogs.readers.table import read_table
from streamtrain.catalogs.readers.view import FORWARD, View, check_direction, check_no_cube
from streamtrain.machine.files import sha256
from streamtrain.schema import nearest

__all__ = [
    "FORMATS", "Options", "first_of_chunks", "format_of", "read", "read_halos", "read_npz",
    "read_pickled_header",
]  # fmt: skip

_CUTS = {
    "footprint_deg": "--footprint-deg",
    "z_range": "--z-range",
    "min_mass_Msun": "--min-mass",
    "redshift": "--redshifts",
}


@dataclass(frozen=True)
class Options:
    """What the user says about a file beyond the file."""

    columns: Path | Mapping[str, Any] | None = None
    """The column map of a table, or a YAML file that holds it."""
    cosmology: Mapping[str, float] | None = None
    """Omega_m, Omega_b, h, n_s, sigma8: those that the file lacks."""
    h_units: bool | None = None
    """Whether a file that does not say has Mpc/h and Msun/h."""
    axis: Sequence[float] | None = None
    """Direction of a PINOCCHIO light cone; default: from the run's files."""
    redshift: float | None = None
    """The redshift of a snapshot that does not state it."""
    mass: str | None = None
    """The mass column of a list of Rockstar or consistent-trees (default Mvir) or of groups."""
    length: str | None = None
    """Unit of the lengths of groups, Mpc/h or kpc/h, where the file does not state it."""
    view: View = FORWARD
    """Observer and line of sight of an npz, .pksc or table."""


@dataclass(frozen=True)
class Format:
    """A format of halo catalogues."""

    title: str
    """What kind of catalog this is, in words."""
    takes: tuple[str, ...]
    """Options of `streamtrain catalog import` that say something to it."""
    read: Callable[[Path, Options], Halos] | None = None
    """None for a format of lightcones."""
    endings: tuple[str, ...] = ()
    """Endings of the names of its files; tables have theirs in `TABLE_ENDINGS`."""


_VIEW = ("--observer", "--line-of-sight")


def _read_table(path: Path, options: Options) -> Halos:
    if options.columns is None:
        raise CatalogError(
            f"{path}: a table needs a column map: add --columns map.yaml, or like x_Mpc=X y_Mpc=Y "
            "z_Mpc=Z mass_Msun=M z_obs=ZOBS"
        )
    return read_table(
        path,
        options.columns,
        cosmology=options.cosmology,
        redshift=options.redshift,
        view=options.view,
    )


FORMATS = {
    "npz": Format("limlam_mocker and Peak Patch npz", ("--cosmology", *_VIEW), endings=(".npz",)),
    "streamtrain": Format("streamtrain's own HDF5", (), endings=(".h5", ".hdf5")),
    "pinocchio-plc": Format(
        "PINOCCHIO past light cone, ASCII or binary",
        ("--cosmology", "--units", "--axis"),
        lambda path, o: read_plc(path, cosmology=o.cosmology, axis=o.axis, h_units=o.h_units),
        (".plc.out",),
    ),
    "pinocchio-snapshot": Format(
        "PINOCCHIO snapshot catalog, ASCII or binary",
        ("--cosmology", "--units"),
        lambda path, o: read_snapshot(
            path, cosmology=o.cosmology, redshift=o.redshift, h_units=o.h_units
        ),
        (".catalog.out",),
    ),
    "rockstar": Format(
        "Rockstar out_N.list",
        ("--cosmology", "--mass-column"),
        lambda path, o: read_rockstar(path, cosmology=o.cosmology, mass=o.mass or "Mvir"),
        (".list",),
    ),
    "hlist": Format(
        "consistent-trees hlist_SCALE.list",
        ("--cosmology", "--mass-column"),
        lambda path, o: read_hlist(path, cosmology=o.cosmology, mass=o.mass or "Mvir"),
    ),
    "pksc": Format(
        "Peak Patch .pksc",
        ("--cosmology", *_VIEW),
        lambda path, o: read_pksc(path, cosmology=o.cosmology, view=o.view),
        (".pksc",),
    ),
    "groups": Format(
        "FoF groups of Gadget-4, Arepo or SWIFT in HDF5, one file or chunks",
        ("--cosmology", "--units", "--mass-column"),
        lambda path, o: read_groups(path, cosmology=o.cosmology, mass=o.mass, length=o.length),
    ),
    "table": Format(
        "named columns in CSV, ECSV, FITS, HDF5, Parquet, npz, .dat or .txt, with a column map",
        ("--columns", "--cosmology", *_VIEW),
        _read_table,
    ),
}
"""Every format by its name."""
TABLE_ENDINGS = (".csv", ".ecsv", ".fits", ".fit", ".fits.gz", ".parquet", ".dat", ".txt")


def format_of(path: Path, options: Options | None = None) -> str:
    """The format that a file's name implies; CatalogError if none does."""
    name = re.sub(r"\.out\.\d+$", ".out", path.name.lower())  # PINOCCHIO's parts
    if options is not None and options.columns is not None:
        return "table"
    if name.endswith(TABLE_ENDINGS):
        return "table"
    if name.startswith("hlist") and name.endswith(".list"):
        return "hlist"
    for known, format in FORMATS.items():
        if name.endswith(format.endings) and not (known == "streamtrain" and _holds_groups(path)):
            return known
    if _holds_groups(path):
        return "groups"
    raise CatalogError(
        f"{path}: no reader for '{path.suffix}' files; supported are .npz (limlam_mocker, Peak "
        "Patch), .h5 or .hdf5 (streamtrain), .pksc, .list (Rockstar, consistent-trees), .plc.out "
        "and .catalog.out (PINOCCHIO), tables with --columns; or say --format: "
        f"{', '.join(FORMATS)}"
    )


def _holds_groups(path: Path) -> bool:
    """Whether an HDF5 file is one of groups, or one in a folder or of a pattern."""
    if path.is_file():
        return is_group_file(path)
    inside = path.iterdir() if path.is_dir() else path.parent.glob(path.name)
    return any(is_group_file(a) for a in sorted(inside) if a.suffix in (".hdf5", ".h5"))


def first_of_chunks(
    files: Sequence[Path], format: str | None = None, options: Options | None = None
) -> list[Path]:
    """The files, but of groups in chunks only the first of every set. Raises CatalogError."""
    found: list[Path] = []
    for file in files:
        kind = _checked_format(format) if format else format_of(file, options)
        first = chunks_of(file)[0] if kind == "groups" else file
        if kind != "groups" or first not in found:
            found.append(first)
    return found


def read(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    options: Options | None = None,
    realisation: str | None = None,
    footprint_deg: Sequence[float] | None = None,
    z_range: Sequence[float] | None = None,
    min_mass_Msun: float | None = None,
) -> Lightcone:
    """A lightcone from a file of any of `FORMATS`; the default format follows from its name.

    `footprint_deg` (ra_min, ra_max, dec_min, dec_max), `z_range` and `min_mass_Msun` cut;
    `realisation` overrides the name of the simulated sky, which all cuts of one file share (of
    npz files the content gives it). Raises `CatalogError`.
    """
    path, options = Path(path), options or Options()
    kind = _checked_format(format) if format else format_of(path, options)
    path = chunks_of(path)[0] if kind == "groups" else path
    first = files_of(path)[0]
    cuts: dict[str, Any] = {
        "footprint_deg": footprint_deg, "z_range": z_range, "min_mass_Msun": min_mass_Msun
    }  # fmt: skip
    if FORMATS[kind].read is None:
        _check_options(path, kind, options, cuts | {"redshift": options.redshift})
        if kind == "npz":
            return read_npz(
                path, realisation=realisation, cosmology=options.cosmology, view=options.view
            )
        lightcone = Lightcone.open(path)
        return lightcone if realisation is None else replace(lightcone, realisation=realisation)
    halos = read_halos(path, format=kind, options=options)
    if halos.redshift is not None or kind == "pinocchio-snapshot":
        raise CatalogError(f"{path}: a snapshot of a box, no lightcone: add --box to tile it")
    with reading(first, "a halo catalog"):
        alike = halos.z_obs is None or (len(halos) and not np.ptp(halos.z_obs))
        if alike and not halos.by_angles and options.view.observer_Mpc is None:
            check_no_cube(halos.position_Mpc)
        check_direction(halos.position_Mpc, footprint_deg, by_angles=halos.by_angles)
        name = realisation or f"file-{sha256(first)[:16]}"
        return lightcone_of(halos, cosmology=options.cosmology, realisation=name, **cuts)


def read_halos(path: Path, *, format: str | None = None, options: Options | None = None) -> Halos:
    """The halos of a file in Mpc, Msun and km/s, of a lightcone or a snapshot.

    Raises CatalogError for a file of streamtrain or limlam_mocker, which are lightcones only.
    """
    options = options or Options()
    kind = _checked_format(format) if format else format_of(path, options)
    _check_options(path, kind, options, {})
    if (reader := FORMATS[kind].read) is not None:
        return reader(path, options)
    raise CatalogError(f"{path}: files of the format {kind} are lightcones already")


def _check_options(path: Path, kind: str, options: Options, cuts: Mapping[str, Any]) -> None:
    """CatalogError that names the options, cuts among them, which the format has no use for."""
    given = {
        "--columns": options.columns,
        "--cosmology": options.cosmology,
        "--units": options.length or options.h_units,
        "--axis": options.axis,
        "--mass-column": options.mass,
        "--observer": options.view.observer_Mpc,
        "--line-of-sight": options.view.line_of_sight,
        **{_CUTS[name]: value for name, value in cuts.items()},
    }
    stray = [o for o, value in given.items() if value is not None and o not in FORMATS[kind].takes]
    if options.length == "kpc/h" and kind.startswith("pinocchio"):
        stray.append("--units kpc/h")
    if stray:
        takes = ", ".join(FORMATS[kind].takes) or "none of them"
        raise CatalogError(
            f"{path}: {', '.join(stray)} {'is' if len(stray) == 1 else 'are'} not of the format "
            f"{kind}, which takes {takes}"
            + {
                "pinocchio-plc": "; --axis says where its cone points",
                "streamtrain": "; another HDF5 file is a table, with --columns",
            }.get(kind, "")
        )


def _checked_format(name: str) -> str:
    if name not in FORMATS:
        raise CatalogError(f"there is no format '{name}': {nearest(name, FORMATS)}")
    return name
