"""Attempts on lightcone files, some hundred by rule: the same halos as before, or a sentence.

Every attempt damages a good file in one way. It must then be refused in one line that begins with
its name, or be what it was; nothing is written, nothing hangs (an alarm ends the test).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support.halo_files import at_most

from streamtrain.catalogs.headers import CatalogError, Header
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cli.main import main
from streamtrain.cosmology import Cosmology

DATASETS = ("halos/x_Mpc", "halos/y_Mpc", "halos/z_Mpc", "halos/mass_Msun", "halos/z_obs",
            "halos/velocities_kms", "columns/sfr",
            "tile_offsets", "provenance", "marks")  # fmt: skip
ATTRIBUTES = ("format", "format_version", "digest", "realisation", "footprint_deg", "z_range",
              "min_mass_Msun", "tile_deg", "tile_shape", "seal")  # fmt: skip
COLUMNS = ("x_Mpc=X", "y_Mpc=Y", "z_Mpc=Z", "mass_Msun=M")
FIELDS = ("footprint_deg", "z_range", "min_mass_Msun", "realisation", "provenance", "tile_shape",
          "tile_deg", "digest", "cosmology")  # fmt: skip
WRONG: list[Any] = [
    *(0, -1, 3, 2**63, np.nan, np.inf, -np.inf, 1e-300, 1e300, 1 + 2j, True),
    *("", "text", "two\nlines", "\x1b[2J", b"\xff\xfe", np.bytes_(b"x" * 300)),
    *([], [1.0], [1.0, 2.0], [2.0, 1.0], [np.nan, 1.0], [1.0, 2.0, 3.0, 4.0], [[1.0, 2.0]] * 2),
    *(h5py.Empty("f8"), np.array(["a", "b"], "S1"), np.array([(1, 2.0)], "i4,f8"), np.zeros(9000)),
]
"""Values that no attribute should have."""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 400 halos with velocities and a column."""
    rng = np.random.default_rng(1)
    z = rng.uniform(2.4, 3.4, 400)
    ra, dec = np.radians(rng.uniform(-0.3, 0.3, (2, 400)))
    towards = np.stack([-np.sin(ra) * np.cos(dec), np.sin(dec), np.cos(ra) * np.cos(dec)])
    lightcone = Lightcone.from_arrays(
        *(Cosmology().comoving_distance(z) * towards),
        10 ** rng.uniform(10.7, 13, 400),
        z,
        cosmology=Cosmology().to_dict(),
        velocities_kms=rng.normal(0, 200, (400, 3)),
        columns={"sfr": rng.uniform(0, 9, 400)},
        provenance="drawn by the tests",
        tile_deg=0.1,
    )
    path = tmp_path_factory.mktemp("good") / "good.h5"
    lightcone.save(path)
    return path


def outcome(path: Path, good: Lightcone, known: Header, old: bool = False) -> str:
    """ "refused" or "the same"; an AssertionError for everything else."""
    there = sorted(path.parent.iterdir())
    results = []
    for read in (Lightcone.open, Header.read):
        try:
            with at_most(5):
                found: Any = read(path)
        except CatalogError as error:
            text = str(error)
            assert text.startswith(str(path)) and text.isprintable() and len(text) < 1600, text
            results.append("refused")
            continue
        results.append("the same")
        assert found.digest == good.digest or not isinstance(found, Lightcone)
        if isinstance(found, Lightcone):
            same(found, good, old)
        elif not old:
            assert (found.digest, found.realisation) == (good.digest, good.realisation)
            np.testing.assert_array_equal(found.marks, known.marks)
            assert found.num_halos == len(good) and found.cosmology == good.cosmology
    assert sorted(path.parent.iterdir()) == there
    return results[0]


def same(found: Lightcone, good: Lightcone, old: bool) -> None:
    names = ("x_Mpc", "y_Mpc", "z_Mpc", "mass_Msun", "z_obs", "tile_offsets", "velocities_kms")
    for name in names:
        np.testing.assert_array_equal(getattr(found, name), getattr(good, name))
    assert list(found.columns) == ["sfr"]
    np.testing.assert_array_equal(found.columns["sfr"], good.columns["sfr"])
    if not old:
        assert [getattr(found, name) for name in FIELDS] == [getattr(good, name) for name in FIELDS]
        return
    # without a seal: what cannot be told from the rows is no matter for what is painted
    assert found.tile_deg == pytest.approx(good.tile_deg, rel=2e-2)
    assert found.tile_shape == good.tile_shape
    np.testing.assert_allclose(found.z_range, good.z_range, atol=0.05)
    assert found.min_mass_Msun > good.min_mass_Msun / 1.1


Change = Callable[[h5py.File], None]


def flipped(value: Any, bit: int) -> Any:
    """An attribute's value with one bit of it changed."""
    if isinstance(value, str):
        content = bytearray(value.encode())
        content[bit // 8 % len(content)] ^= 1 << bit % 8
        return np.bytes_(bytes(content)) if bit % 2 else content.decode("latin1").replace("\0", "?")
    array = np.array(value)
    content = array.reshape(-1).view(np.uint8)
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    return array


def set_attribute(name: str, value: Callable[[Any], Any], group: str = "/") -> Change:
    def change(file: h5py.File) -> None:
        attributes = file[group].attrs
        attributes[name] = value(attributes[name])

    return change


def flips(rng: np.random.Generator, each: int) -> Iterator[Change]:
    """One bit of an attribute, of a cosmological parameter or of a dataset."""
    places = [("/", name) for name in ATTRIBUTES]
    places += [("cosmology", name) for name in Cosmology().to_dict()]
    for group, name in places:
        for bit in rng.integers(0, 64, each):
            yield set_attribute(name, lambda value, bit=bit: flipped(value, int(bit)), group)
    for name in DATASETS:
        if name != "provenance":
            for place in rng.integers(0, 1 << 30, each):
                yield lambda file, name=name, place=place: flip_row(file, name, int(place))


def flip_row(file: h5py.File, name: str, place: int) -> None:
    rows = file[name][()]
    content = rows.reshape(-1).view(np.uint8)
    content[place % len(content)] ^= 1 << place % 7
    file[name][...] = rows


def wrong_types() -> Iterator[Change]:
    for name in ATTRIBUTES:
        for value in WRONG:
            yield set_attribute(name, lambda _, value=value: value)
    for name in Cosmology().to_dict():
        for value in WRONG:
            yield set_attribute(name, lambda _, value=value: value, "cosmology")


def replaced(name: str, put: Callable[[h5py.File], Any]) -> Change:
    def change(file: h5py.File) -> None:
        if name in file:
            del file[name]
        put(file)

    return change


def other_objects(folder: Path) -> Iterator[Change]:
    """Something else where a dataset or group should be."""
    fifo = folder.parent / "fifo"
    if not fifo.exists():
        os.mkfifo(fifo)
    huge = {"shape": (10**15,), "dtype": "f4", "chunks": (1024,)}
    for name in (*DATASETS, "halos", "columns", "cosmology"):
        yield replaced(name, lambda file: None)
        yield replaced(name, lambda file, n=name: file.create_group(n))
        for values in (1.0, "text", np.zeros(3), np.zeros(400, complex), np.zeros((400, 2), "f4"),
                       np.zeros(0, "f4"), np.array([b"a"] * 400), np.zeros(400, bool),
                       np.zeros(400, "i4,f4"), h5py.Empty("f4"), np.full(400, np.nan)):  # fmt: skip
            yield replaced(name, lambda file, n=name, v=values: file.create_dataset(n, data=v))
        yield replaced(name, lambda file, n=name: file.create_dataset(n, **huge))
        yield replaced(name, lambda file, n=name: link(file, n, h5py.SoftLink(f"/{n}")))
        yield replaced(name, lambda file, n=name: link(file, n, h5py.SoftLink("/nowhere")))
        for target in ("/dev/zero", str(fifo), "nowhere.h5", str(folder / "a.h5")):
            yield replaced(
                name, lambda file, n=name, t=target: link(file, n, h5py.ExternalLink(t, f"/{n}"))
            )
        for target in ("/dev/zero", str(fifo), "/etc/passwd"):
            outside = [(target, 0, h5py.h5f.UNLIMITED)]
            yield replaced(name, lambda file, n=name, o=outside: file.create_dataset(
                n, (400,), "f4", external=o))  # fmt: skip


def link(file: h5py.File, name: str, target: Any) -> None:
    file[name] = target


def changed(good: Path, folder: Path, changes: Iterator[Change], old: bool = False) -> list[str]:
    """The outcomes of changes to copies of a file, of which an old one has no seal."""
    lightcone, known = Lightcone.open(good), Header.read(good)
    outcomes = []
    path = folder / "a.h5"
    for change in changes:
        path.write_bytes(good.read_bytes())
        with h5py.File(path, "r+") as file:
            if old:
                del file.attrs["seal"], file["marks"]
            try:
                change(file)
            except (TypeError, ValueError, RuntimeError, OSError, KeyError):
                continue  # HDF5 does not write that
        outcomes.append(outcome(path, lightcone, known, old))
    return outcomes


def test_one_bit_of_whatever_is_stored(good: Path, tmp_path: Path) -> None:
    """Sealed files: every bit that changes a value is found."""
    outcomes = changed(good, tmp_path, flips(np.random.default_rng(2), 3))
    assert len(outcomes) > 60
    assert outcomes.count("the same") <= 2  # a bit beyond the text of an attribute


def test_one_bit_of_an_old_file(good: Path, tmp_path: Path) -> None:
    """Without a seal the rows tell; what they cannot tell changes no map."""
    rng = np.random.default_rng(3)
    assert changed(good, tmp_path, flips(rng, 2), old=True).count("refused") > 25


def test_a_tile_that_is_larger_than_its_rows(good: Path, tmp_path: Path) -> None:
    """The flip that painted 8539 halos instead of 10316."""
    path = tmp_path / "a.h5"
    path.write_bytes(good.read_bytes())
    with h5py.File(path, "r+") as file:
        del file.attrs["seal"], file["marks"]
    assert Lightcone.open(path).tile_deg == 0.1
    for value, message in ((0.1156, "tile_deg = 0.1156 does not fit its rows|tiles of 0.1156"),
                           (0.1015, "tile_deg = 0.1015 does not fit its rows")):  # fmt: skip
        with h5py.File(path, "r+") as file:
            file.attrs["tile_deg"] = value
        with pytest.raises(CatalogError, match=message):
            Lightcone.open(path)


def test_wrong_types_of_every_attribute(good: Path, tmp_path: Path) -> None:
    outcomes = changed(good, tmp_path, islice(wrong_types(), 0, None, 7))
    assert len(outcomes) > 50 and outcomes.count("the same") == 0


def test_other_objects_in_place_of_every_dataset(good: Path, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    outcomes = changed(good, folder, islice(other_objects(folder), 0, None, 5))
    assert len(outcomes) > 50 and outcomes.count("the same") == 0


def bytes_changed(good: Path, folder: Path, flips: int, cuts: int) -> list[str]:
    lightcone, known = Lightcone.open(good), Header.read(good)
    content, rng = good.read_bytes(), np.random.default_rng(4)
    path, outcomes = folder / "a.h5", []
    places = np.concatenate([np.arange(0, 800, 800 // min(flips, 800)),  # the superblock and more
                             rng.integers(0, len(content), flips)])  # fmt: skip
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.integers(0, 8)
        path.write_bytes(damaged)
        outcomes.append(outcome(path, lightcone, known))
    for length in np.linspace(0, len(content) - 1, cuts).astype(int):
        path.write_bytes(content[:length])
        outcomes.append(outcome(path, lightcone, known))
        assert outcomes[-1] == "refused"
    return outcomes


def test_any_byte_and_any_length(good: Path, tmp_path: Path) -> None:
    assert bytes_changed(good, tmp_path, 50, 20).count("refused") > 50


@pytest.mark.slow
def test_very_many_attempts(good: Path, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    for changes in (wrong_types(), other_objects(folder)):
        outcomes = changed(good, folder, changes)
        assert len(outcomes) > 280 and outcomes.count("the same") == 0
    assert bytes_changed(good, tmp_path, 1500, 200).count("refused") > 800
    outcomes = changed(good, tmp_path, flips(np.random.default_rng(5), 20))
    assert len(outcomes) > 400
    assert len(changed(good, tmp_path, flips(np.random.default_rng(6), 20), old=True)) > 300


def special(kind: str, path: Path) -> None:
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    else:
        path.symlink_to(path)  # to itself


@pytest.mark.filterwarnings("ignore::streamtrain.schema.OrderWarning")
@pytest.mark.parametrize("kind", ["a named pipe", "a folder", "a device", "a socket", "a loop"])
def test_what_is_no_file(
    good: Path,
    tmp_path: Path,
    kind: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As lightcone, catalogue, column map, configuration, mask, table and map, of every name."""
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    said = {"a loop": "symbolic links"}.get(kind, f"{kind}, not a file")
    lightcone, known = Lightcone.open(good), Header.read(good)
    for ending in (".h5", ".npz", ".csv", ".fits", ".yaml", ".pksc"):
        path = Path(f"a{ending}")
        special(kind, path)
        assert outcome(path, lightcone, known) == "refused"
        commands = [
            ["catalog", "info", str(path)],
            ["catalog", "import", str(path), "--columns", *COLUMNS, "--out", "out"],
            ["catalog", "import", str(good), "--columns", str(path), "--out", "out"],
            ["testset", "make", str(path), "run=run", "--device", "cpu"],
            ["testset", "make", "reference.yaml", "run=run", f"data.test=[{path}]"],
            ["testset", "make", "reference.yaml", "run=run", f"data.sfr={path}"],
            ["testset", "make", "reference.yaml", "run=run", f"observe.mask.file={path}"],
        ]
        for command in commands:
            if kind == "a folder" and command[:2] == ["testset", "make"]:
                continue  # a run's, or a glob's
            capsys.readouterr()
            with at_most(5):
                assert main(command) == 2, command
            shown = capsys.readouterr().err
            told = [line for line in shown.splitlines() if "warning" not in line]
            assert len(told) == 1 and "a." in told[0], shown
    with pytest.raises(CatalogError, match=said):
        Lightcone.open("a.h5")
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [
        ".csv", ".fits", ".h5", ".npz", ".pksc", ".yaml"
    ]  # fmt: skip


def test_debug_shows_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """STREAMTRAIN_DEBUG lets errors through that a sentence would hide from a developer."""

    def broken(file: h5py.File, path: Path) -> None:
        raise ZeroDivisionError("a fault of the program")

    monkeypatch.setattr("streamtrain.catalogs.lightcone.read_header", broken)
    h5py.File(tmp_path / "a.h5", "w").close()
    with pytest.raises(CatalogError, match=r"damaged lightcone file \(a fault of") as caught:
        Lightcone.open(tmp_path / "a.h5")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    monkeypatch.setenv("STREAMTRAIN_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        Lightcone.open(tmp_path / "a.h5")
