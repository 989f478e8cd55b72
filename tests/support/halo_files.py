"""Small catalogues of every format, right but for what a test changes, and an alarm."""

from __future__ import annotations

import json
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from streamtrain.catalogs.readers.pinocchio import PLC
from streamtrain.cosmology import Cosmology

COSMOLOGY = ["--cosmology", "Omega_m=0.286", "Omega_b=0.047", "h=0.7", "n_s=0.96", "sigma8=0.82"]
NUM = 40


def columns(**changes: Any) -> dict[str, Any]:
    """Ten columns that are right, but for the changes."""
    z = np.linspace(2.5, 3.2, NUM)
    chi = Cosmology().comoving_distance(z)
    good = {"X": 0.001 * chi, "Y": np.linspace(-9, 9, NUM), "Z": chi, "M": np.full(NUM, 1e12)}
    return {name: a for name, a in (good | {"ZOBS": z} | changes).items() if a is not None}


def npz(path: Path, **changes: Any) -> list[str]:
    right = columns()
    keys = {"x": "X", "y": "Y", "z": "Z", "M": "M", "zhalo": "ZOBS"}
    header = {"Omega_M": 0.286, "Omega_B": 0.047, "h": 0.7, "ns": 0.96, "sigma8": 0.82}
    arrays: dict[str, Any] = {key: right[name] for key, name in keys.items()}
    arrays |= {"cosmo_header_json": np.array(json.dumps(header))} | changes
    np.savez(path / "a.npz", **{key: a for key, a in arrays.items() if a is not None})
    return [str(path / "a.npz")]


def map_file(path: Path, **changes: Any) -> list[str]:
    entries: dict[str, Any] = {a.lower(): {"column": a, "unit": "Mpc"} for a in "XYZ"}
    entries |= {"mass": {"column": "M", "unit": "Msun"}, "z_obs": "ZOBS"}
    entries |= {"cosmology": Cosmology().to_dict()} | changes
    (path / "map.yaml").write_text(yaml.dump(entries))
    return ["--columns", str(path / "map.yaml")]


def csv(path: Path, head: str | None = None, map_changes: Any = None, **changes: Any) -> list[str]:
    table = columns(**changes)
    lines = [head or ",".join(table)]
    lines += [",".join(str(a) for a in row) for row in zip(*table.values(), strict=True)]
    (path / "a.csv").write_text("\n".join(lines) + "\n")
    return [str(path / "a.csv"), *map_file(path, **(map_changes or {}))]


def hdf5(path: Path, **changes: Any) -> list[str]:
    with h5py.File(path / "a.hdf5", "w") as file:
        for name, a in columns(**changes).items():
            file[name] = a
    return [str(path / "a.hdf5"), *map_file(path)]


def raw(path: Path, name: str, content: bytes, *arguments: str) -> list[str]:
    (path / name).write_bytes(content)
    return [str(path / name), *arguments]


def truncated(made: list[str], share: float) -> list[str]:
    path = Path(made[0])
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return made


def plc(path: Path, **changes: Any) -> list[str]:
    """A binary PINOCCHIO light cone around +z."""
    right = columns()
    rows = np.zeros(NUM, PLC)
    rows["position"] = np.stack([right["X"], right["Y"], right["Z"]], axis=-1)
    chi = np.sqrt(np.sum(rows["position"].astype(float) ** 2, axis=1))
    rows["z_cos"] = rows["z_obs"] = Cosmology().redshift(chi)
    rows["mass"] = 1e12
    rows["theta"] = np.degrees(np.arcsin(rows["position"][:, 2] / chi))
    for name, value in changes.items():
        rows[name][3] = value
    content = struct.pack("<7i", 4, 56, 4, 4, NUM, 4, rows.nbytes) + rows.tobytes()
    content += struct.pack("<i", rows.nbytes)
    return raw(path, "pinocchio.a.plc.out", content, "--axis", "0", "0", "1", *COSMOLOGY)


def plc_text(path: Path, head: str = "", row: str = "") -> list[str]:
    text = (
        "# Group catalog on the Past Light Cone\n#    1) group ID\n#    2) true redshift\n"
        "#  3-5) comoving position (Mpc)\n#  6-8) velocity (km/s)\n#    9) group mass (Msun)\n"
        "#   10) theta (degree)\n#   11) phi (degree)\n"
        "#   12) peculiar velocity along the line-of-sight (km/s)\n#   13) observed redshift\n#\n"
    )
    text = head or text
    for number, z in enumerate((2.9, 3.0, 3.1)):
        x, y = np.array([[-20.0, 5.0], [20.0, 5.0], [0.0, -10.0]])[number]
        depth = np.sqrt(Cosmology().comoving_distance(z) ** 2 - x**2 - y**2)
        theta = np.degrees(np.arccos(np.hypot(x, y) / Cosmology().comoving_distance(z)))
        text += f"{number} {z} {x} {y} {depth:.6f} 0 0 0 1e12 {theta:.6f} 0 0 {z}\n"
    return raw(path, "pinocchio.a.plc.out", (text + row).encode(), *COSMOLOGY)


def pksc(path: Path, num: int = NUM, radius: float = 2.0, extra: bytes = b"") -> list[str]:
    rows = np.ones((NUM, 11), "<f4")
    rows[:, 2] = columns()["Z"]
    rows[:, 6] = radius
    content = struct.pack("<iff", num, abs(radius), 3.0) + rows.tobytes() + extra
    return raw(path, "a.pksc", content, *COSMOLOGY)


class Hangs(BaseException):
    """Past every `except Exception`."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    def late(*_: Any) -> None:
        raise Hangs(f"{seconds} s are over")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
