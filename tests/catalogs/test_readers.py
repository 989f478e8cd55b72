"""The limlam_mocker reader; above all, that reading a pickled header executes nothing."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import SHARED
from support import reference as ref

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.readers import Options, read, read_npz, read_pickled_header

HEADER = {
    "Omega_M": 0.286,
    "Omega_B": 0.047,
    "Omega_L": 0.714,
    "h": 0.7,
    "ns": 0.96,
    "sigma8": 0.82,
    "cen_x_fov": 0.0,
    "cen_y_fov": 0,
}


def catalog(num: int = 200) -> dict[str, Any]:
    """The halo arrays of a limlam_mocker npz."""
    rng = np.random.default_rng(3)
    z = rng.uniform(2.4, 3.4, num)
    nodes = np.linspace(2.3, 3.5, 50)
    chi = np.interp(z, nodes, [ref.comoving_distance(a) for a in nodes])
    x, y, depth = ref.position(rng.uniform(-0.4, 0.4, num), rng.uniform(-0.4, 0.4, num), chi)
    velocity = rng.normal(0, 200, (3, num))
    arrays = dict(zip(("x", "y", "z", "vx", "vy", "vz"), (x, y, depth, *velocity), strict=True))
    arrays |= {"M": 10 ** rng.uniform(10.5, 13, num), "zhalo": z, "zform": z + 1.0}
    return {key: a.astype(np.float32) for key, a in arrays.items()}


def boxed(value: object) -> np.ndarray[Any, Any]:
    """What np.savez makes of an object: a 0-d object array."""
    array = np.empty((), object)
    array[()] = value
    return array


def pickled(value: object, protocol: int) -> bytes:
    """An npy file whose object array is pickled with a given protocol."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        out, {"descr": "|O", "fortran_order": False, "shape": np.shape(value)}
    )
    pickle.dump(value, out, protocol=protocol)
    return out.getvalue()


def with_pickle(stream: bytes) -> io.BytesIO:
    """An npy file of one object that continues with any pickle stream."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "|O", "fortran_order": False, "shape": ()})
    out.write(stream)
    out.seek(0)
    return out


def write(path: Path, **changes: Any) -> Path:
    """A catalog with a JSON header; a change to None leaves a key out."""
    arrays = catalog() | {"cosmo_header_json": np.array(json.dumps(HEADER))} | changes
    np.savez(path, **{key: a for key, a in arrays.items() if a is not None})
    return path


def test_halos_arrive(tmp_path: Path) -> None:
    arrays = catalog()
    lightcone = read_npz(write(tmp_path / "a.npz"))
    order = np.argsort(lightcone.mass_Msun)
    expected = np.argsort(arrays["M"])
    ours = ("x_Mpc", "y_Mpc", "z_Mpc", "mass_Msun", "z_obs")
    for name, key in zip(ours, ("x", "y", "z", "M", "zhalo"), strict=True):
        np.testing.assert_array_equal(getattr(lightcone, name)[order], arrays[key][expected])
    for axis, key in enumerate(("vx", "vy", "vz")):
        assert lightcone.velocities_kms is not None
        column = lightcone.velocities_kms[order, axis]
        np.testing.assert_array_equal(column, arrays[key][expected])
    np.testing.assert_array_equal(lightcone.columns["zform"][order], arrays["zform"][expected])
    assert lightcone.cosmology == {
        "Omega_m": 0.286, "Omega_b": 0.047, "h": 0.7, "n_s": 0.96, "sigma8": 0.82
    }  # fmt: skip
    assert "limlam_mocker npz a.npz, sha256 " in lightcone.provenance


def test_velocities_and_columns_are_optional(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", vx=None, vy=None, vz=None, zform=None, sfr=np.ones(200))
    lightcone = read_npz(path)
    assert lightcone.velocities_kms is None
    assert list(lightcone.columns) == ["sfr"]


def test_without_zhalo_the_redshift_is_that_of_distance_and_velocity(tmp_path: Path) -> None:
    """As pksc3npz.py writes it: Nhalo and zform are numbers, xL, yL, zL further columns."""
    arrays = catalog()
    more = {"zhalo": None, "zform": 999, "Nhalo": 200, "xL": arrays["x"] + 1.0}
    still = {"vx": None, "vy": None, "vz": None}
    moving = read_npz(write(tmp_path / "a.npz", **more))
    resting = read_npz(write(tmp_path / "b.npz", **more, **still))
    assert list(moving.columns) == ["xL"]
    assert "without zhalo: z_obs from the distance and vx, vy, vz [km/s]" in moving.provenance
    assert "from the distance, without peculiar velocities" in resting.provenance
    x = np.stack([resting.x_Mpc, resting.y_Mpc, resting.z_Mpc], axis=-1).astype(float)
    chi = np.linalg.norm(x, axis=1)
    for row in range(0, 200, 20):
        distance = ref.comoving_distance(float(resting.z_obs[row]))
        assert distance == pytest.approx(chi[row], rel=1e-6)
    assert moving.velocities_kms is not None
    v_los = np.sum(x * moving.velocities_kms, axis=1) / chi
    z_obs = resting.z_obs + (1 + resting.z_obs.astype(float)) * v_los / ref.C_KMS
    np.testing.assert_allclose(moving.z_obs, z_obs, atol=1e-6)


def test_without_zhalo_pinocchio_says_the_same(shared: Path, tmp_path: Path) -> None:
    """Its own observed redshifts, from its own distances and velocities."""
    file = shared / "data/lightcones/pinocchio_A_m1e11.npz"
    if not file.is_file():
        pytest.skip(f"there is no {file}")
    with np.load(file) as content:
        arrays = {key: content[key] for key in content.files}
    arrays = {key: a if a.ndim == 0 else a[::20] for key, a in arrays.items()}
    np.savez(tmp_path / "a.npz", **arrays)
    del arrays["zhalo"]
    np.savez(tmp_path / "b.npz", **arrays)
    given, computed = (read_npz(tmp_path / name) for name in ("a.npz", "b.npz"))
    np.testing.assert_allclose(computed.z_obs, given.z_obs, atol=3e-6)  # six decimals


def test_compressed_file_is_the_same(tmp_path: Path) -> None:
    header = np.array(json.dumps(HEADER))
    np.savez_compressed(tmp_path / "b.npz", cosmo_header_json=header, **catalog())
    assert read(tmp_path / "b.npz").digest == read(write(tmp_path / "a.npz")).digest


def test_realisation(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz")
    assert read_npz(path).realisation == f"sha256-{read_npz(path).digest[:16]}"
    assert read_npz(path, realisation="sky 3").realisation == "sky 3"
    read_npz(path).save(tmp_path / "a.h5")
    assert read(tmp_path / "a.h5").realisation == read_npz(path).realisation
    assert read(tmp_path / "a.h5", realisation="sky 3").realisation == "sky 3"


def test_field_centre_is_noted(tmp_path: Path) -> None:
    header = np.array(json.dumps(HEADER | {"cen_x_fov": -2.1}))
    assert (
        "field centre -2.1, 0 deg"
        in read_npz(write(tmp_path / "a.npz", cosmo_header_json=header)).provenance
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"M": None, "zhalo": None}, "lacks M; a limlam_mocker catalog has"),
        ({"cosmo_header_json": None}, "neither cosmo_header nor cosmo_header_json"),
        ({"cosmo_header_json": np.array("{'h': 0.7}")}, "not JSON"),
        ({"cosmo_header_json": np.array("[1]")}, "not a dict of numbers"),
        ({"cosmo_header_json": np.array('{"h": "0.7"}')}, "not a dict of numbers .*'h'"),
        ({"cosmo_header_json": np.array('{"h": 0.7}')}, "cosmo_header lacks 'Omega_M'"),
        ({"cosmo_header_json": np.array('{"h": 1' + "0" * 400 + "}")}, "damaged"),
        (
            {"cosmo_header_json": np.array(json.dumps(HEADER | {"Omega_L": 0.6}))},
            "must be flat, but Omega_M . Omega_L = 0.886",
        ),
        ({"x": np.zeros(7)}, r"arrays of different shape: x has shape \(7,\), y has"),
        ({"x": np.array(["a"] * 200)}, "x holds no real numbers"),
        ({"x": boxed([1.0])}, "x holds no real numbers"),
        ({"vx": None}, "vx, vy, vz all or none"),
        ({"zhalo": None, "x": np.zeros(7)}, "arrays of different shape"),
        ({"zhalo": None, "x": np.full(200, np.nan)}, "position = nan at row 0"),
        ({"zhalo": None, "z": 1e3 * catalog()["z"]}, "comoving distance .* must lie in"),
        ({"zhalo": np.float32(3.0)}, r"z_obs has shape"),
        ({"M": -catalog()["M"]}, "mass_Msun = -.* positive"),
    ],
)
def test_bad_catalogs(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "a.npz", **changes)
    with pytest.raises(CatalogError, match=message) as caught:
        read_npz(path)
    assert str(path) in str(caught.value)


def test_logarithms_of_masses_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", M=np.log10(catalog()["M"]))
    with pytest.raises(CatalogError, match=r"a.npz: masses run .* looks like log10 of masses"):
        read(path)


@pytest.mark.parametrize("place", np.linspace(0.005, 0.995, 40).tolist())
def test_damaged_npz_is_noticed(tmp_path: Path, place: float) -> None:
    """zip carries a checksum: a flipped byte is an error or lies outside the data."""
    path = write(tmp_path / "a.npz")
    digest = read(path).digest
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0x04
    path.write_bytes(content)
    with contextlib.suppress(CatalogError):
        assert read(path).digest == digest


# The pickled header.


def test_pickled_header_gives_the_same_lightcone(tmp_path: Path) -> None:
    path = write(tmp_path / "old.npz", cosmo_header_json=None, cosmo_header=boxed(HEADER))
    assert read(path).digest == read(write(tmp_path / "new.npz")).digest


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_protocols_and_numpy_scalars(protocol: int) -> None:
    header: dict[str, Any] = HEADER | {
        "a": np.float64(1.5),
        "b": np.float32(0.25),
        "c": np.int64(-3),
        "d": np.float64(1.5),
        "e": True,
        "f": -(2**40),
    }
    assert read_pickled_header(io.BytesIO(pickled(boxed(header), protocol))) == header
    one = np.array([header], dtype=object)
    assert read_pickled_header(io.BytesIO(pickled(one, protocol))) == header


def test_pickle_of_python_2() -> None:
    """As np.savez wrote it in Python 2: protocol 2 with byte strings."""

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    number = b"G" + struct.pack(">d", 0.7)
    scalar = (
        b"cnumpy.core.multiarray\nscalar\nq\x07cnumpy\ndtype\nq\x08" + text("f8")
        + b"K\x00K\x01\x87Rq\x09(K\x03" + text("<")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + b"U\x08" + struct.pack("<d", 0.286) + b"\x86R"
    )  # fmt: skip
    stream = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85"
        + text("b") + b"\x87Rq\x03(K\x01)cnumpy\ndtype\nq\x04" + text("O8") + b"K\x00K\x01\x87R"
        + b"(K\x03" + text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb\x89]q\x05}q\x06("
        + text("h") + number + text("Omega_M") + scalar + b"uatb."
    )  # fmt: skip
    assert read_pickled_header(with_pickle(stream)) == {"h": 0.7, "Omega_M": 0.286}
    assert pickle.loads(stream, encoding="latin1")[()] == {"h": 0.7, "Omega_M": 0.286}


class Payload:
    """Calls a function when unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "wrap", [boxed, lambda p: boxed({"h": p}), lambda p: boxed({**HEADER, "x": [p]}), lambda p: p]
)
@pytest.mark.parametrize("call", ["mkdir", "exec"])
def test_nothing_is_executed(
    tmp_path: Path, protocol: int, wrap: Callable[[Any], Any], call: str
) -> None:
    trace = tmp_path / "executed"
    payload = Payload(os.mkdir, str(trace))
    if call == "exec":
        payload = Payload(exec, f"import os; os.mkdir({str(trace)!r})")
    content = pickle.dumps(wrap(payload), protocol=protocol)
    with pytest.raises(CatalogError, match="cosmo_header"):
        read_pickled_header(with_pickle(content))
    assert not trace.exists()
    pickle.loads(content)
    assert trace.exists()  # the payload is a live one


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b".",
        b"K\x01.",
        b"}.",
        b"\x80\x04\x95",
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x01x\x85R.",
        b"(\x8c\x02os\x8c\x06systemi.",
        b"\x82\x01.",
        b"\x80\x04P0\n.",
        b"cnumpy\nndarray\n)\x81.",
        b"cnumpy\ndtype\nq\x00h\x00h\x00R.",
        b"]q\x00h\x00a.",
        b"0000.",
        b"u.",
        b"h\x07.",
        b"\x80\x04Nq\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"}h\x00K\x01s.",
        b"N" + b"q\x00h\x00h\x00\x86q\x00" * 60 + b"h\x00\x93.",
        b"\x8a\xff" + b"\x7f" * 255 + b".",
        b"B\xff\xff\xff\xff.",
        b"(" * 5000 + b".",
    ],
    ids=lambda stream: repr(stream[:24]),
)  # fmt: skip
def test_odd_pickles_are_refused(stream: bytes) -> None:
    with pytest.raises(CatalogError, match="cosmo_header"):
        read_pickled_header(with_pickle(stream))


def test_large_numbers_and_large_headers() -> None:
    with pytest.raises(CatalogError, match="not a pickled dict"):
        read_pickled_header(io.BytesIO(pickled(boxed({"h": 10**400}), 4)))
    with pytest.raises(CatalogError, match="larger than"):
        read_pickled_header(io.BytesIO(pickled(boxed({"h" * 70_000: 1.0}), 4)))
    with pytest.raises(CatalogError, match="entry 'name'"):
        read_pickled_header(io.BytesIO(pickled(boxed({"name": "peak patch"}), 4)))
    with pytest.raises(CatalogError, match="must be one dict"):
        read_pickled_header(io.BytesIO(pickled(np.array([HEADER, HEADER], object), 4)))


@pytest.mark.parametrize("protocol", [2, 4])
def test_mutated_pickles_never_surprise(protocol: int) -> None:
    """Every truncation and 4000 random mutations: a dict of numbers or a CatalogError."""
    content = pickled(boxed(HEADER | {"n": np.float64(1.0)}), protocol)
    start = content.index(b"\n") + 1
    rng = np.random.default_rng(0)
    mutants = [content[:end] for end in range(start, len(content))]
    for _ in range(4000):
        mutant = bytearray(content)
        for place in rng.integers(start, len(content), rng.integers(1, 4)):
            mutant[place] = rng.integers(0, 256)
        mutants.append(bytes(mutant))
    accepted = 0
    for mutant in mutants:
        try:
            header = read_pickled_header(io.BytesIO(mutant))
        except CatalogError:
            continue
        assert all(type(k) is str and type(v) is float for k, v in header.items())
        accepted += 1
    assert accepted < len(mutants)


def test_pinocchio_layouts_agree() -> None:
    """The same halos with a JSON and with a pickled header, and the deeper cut of that sky."""
    folder = SHARED / "data" / "lightcones"
    if not folder.is_dir():
        pytest.skip(f"the PINOCCHIO lightcones are not in {folder}")
    first = read(folder / "pinocchio_A_m1e11.npz", realisation="pinocchio A")
    assert isinstance(first, Lightcone)
    assert len(first) == 366876
    assert first.digest == read(folder / "pinocchio_A_m1e11_limlam.npz").digest
    deep = read(folder / "pinocchio_A_m2.5e10.npz", realisation="pinocchio A")
    assert len(deep) == 1645264
    assert deep.realisation == first.realisation
    assert deep.velocities_kms is None
    assert np.count_nonzero(deep.mass_Msun > 1e11) == len(first)
    np.testing.assert_array_equal(np.sort(deep.x_Mpc[deep.mass_Msun > 1e11]), np.sort(first.x_Mpc))


def test_an_npz_without_a_cosmology(tmp_path: Path) -> None:
    """`cosmology` adds what its header lacks and contradicts nothing."""
    plain = read_npz(write(tmp_path / "a.npz"))
    given = plain.cosmology
    bare = write(tmp_path / "b.npz", cosmo_header_json=None)
    with pytest.raises(
        CatalogError, match=r"cosmo_header_json: add --cosmology Omega_m=\S+ Omega_b="
    ):
        read(bare)
    found = read(bare, options=Options(cosmology=given))
    assert found.digest == plain.digest
    assert "Omega_m, Omega_b, h, n_s, sigma8 as given, not in the file" in found.provenance
    part = write(tmp_path / "c.npz", cosmo_header_json=np.array(json.dumps({"h": given["h"]})))
    rest = {name: value for name, value in given.items() if name != "h"}
    assert read(part, options=Options(cosmology=rest)).digest == plain.digest
    with pytest.raises(CatalogError, match=r"h is .* in the file, but 0\.5 in the given cosmology"):
        read(tmp_path / "a.npz", options=Options(cosmology=given | {"h": 0.5}))


@pytest.mark.parametrize(
    ("format", "option", "name"),
    [
        ("npz", {"axis": (0, 0, 1)}, "--axis"),
        ("npz", {"columns": {"x": "X"}}, "--columns"),
        ("npz", {"min_mass_Msun": 1e11}, "--min-mass"),
        (
            "npz",
            {"z_range": (2, 3), "footprint_deg": (0, 1, 0, 1)},
            "--footprint-deg, --z-range are",
        ),
        ("streamtrain", {"cosmology": {"h": 0.7}}, "--cosmology"),
        ("table", {"mass": "M"}, "--mass-column"),
        ("table", {"h_units": False}, "--units"),
        ("pksc", {"axis": (0, 0, 1)}, "--axis"),
        ("rockstar", {"length": "Mpc/h", "h_units": True}, "--units"),
        ("pinocchio-plc", {"mass": "M"}, "--mass-column"),
        ("groups", {"axis": (0, 0, 1)}, "--axis"),
    ],
)
def test_options_of_other_formats(
    tmp_path: Path, format: str, option: dict[str, Any], name: str
) -> None:
    (tmp_path / "a.0.hdf5").write_bytes(b"")
    cuts = {k: v for k, v in option.items() if k in ("min_mass_Msun", "z_range", "footprint_deg")}
    options = Options(**{k: v for k, v in option.items() if k not in cuts})
    with pytest.raises(CatalogError, match=f"a.0.hdf5: {name}.* not of the format {format}, which"):
        read(tmp_path / "a.0.hdf5", format=format, options=options, **cuts)
