"""Attempts on catalogues, maps and settings, some hundred by rule: numbers, or a sentence.

These files carry no digest, so a changed number can be another number; everything else is refused
in one line that names the file, and nothing is written.
"""

from __future__ import annotations

import gzip
import io
import resource
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support import map_runs as runs
from support.halo_files import at_most, csv, hdf5, map_file, npz, pksc, plc, plc_text

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cli.main import main
from streamtrain.config import ConfigError, load_config
from streamtrain.cosmology import Cosmology
from streamtrain.figures import write_png
from streamtrain.machine import files
from streamtrain.machine.files import MAX_YAML_BYTES, write_text
from streamtrain.maps.read import read_map
from streamtrain.maps.skymap import MapError

GB = 2**30
MAKERS: dict[str, Callable[[Path], list[str]]] = {
    "npz": npz,
    "csv": csv,
    "hdf5": hdf5,
    "pinocchio": plc,
    "pinocchio text": plc_text,
    "pksc": pksc,
}


def attempt(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """The exit status of an import; an AssertionError where it is not clean."""
    out = folder / "out"
    capsys.readouterr()
    with at_most(20):
        status = main(["catalog", "import", *arguments, "--out", str(out)])
    shown = capsys.readouterr()
    if status == 0:
        (made,) = out.iterdir()
        Lightcone.open(made)
        made.unlink()
        out.rmdir()
    else:
        assert status == 2 and shown.out == ""
        assert shown.err.count("\n") == 1 and Path(arguments[0]).name in shown.err, shown.err
        assert "Traceback" not in shown.err and not out.exists()
    return status


def damaged(content: bytes, rng: np.random.Generator, number: int) -> Iterator[bytes]:
    """Bits changed, most of them near the start; bytes put in and left out; lengths."""
    size = len(content)
    places = np.concatenate(
        [rng.integers(0, min(size, 700), number), rng.integers(0, size, number)]
    )
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << rng.integers(0, 8)
        yield bytes(changed)
    for place in rng.integers(0, size, number // 2 + 1):
        yield content[:place] + bytes(rng.integers(0, 256, 4, np.uint8)) + content[place:]
        yield content[:place] + content[place + 3 :]
        yield content[: int(place)]
    yield b""
    yield content * 2
    yield content + b"\0" * 5000


def sweep(kind: str, folder: Path, capsys: pytest.CaptureFixture[str], number: int) -> list[int]:
    arguments = MAKERS[kind](folder)
    path = Path(arguments[0])
    content = path.read_bytes()
    assert attempt(arguments, folder, capsys) == 0
    statuses = []
    for bad in damaged(content, np.random.default_rng(7), number):
        path.write_bytes(bad)
        statuses.append(attempt(arguments, folder, capsys))
    return statuses


@pytest.mark.parametrize("kind", MAKERS)
def test_damaged_catalogs(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    statuses = sweep(kind, tmp_path, capsys, 8)
    assert len(statuses) > 25 and statuses.count(2) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", MAKERS)
def test_very_damaged_catalogs(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(kind, tmp_path, capsys, 100).count(2) > 50


def map_sweep(name: str, folder: Path, number: int) -> list[bool]:
    """Whether each damaged map was refused; an AssertionError where that is not clean."""
    write, told = runs.WRITERS[name]
    path = folder / name
    cube = np.random.default_rng(3).normal(size=runs.SHAPE).astype(np.float32)
    content = write(path, cube).read_bytes()
    assert read_map(path, **told).cube.shape == runs.SHAPE
    refused = []
    for bad in damaged(content, np.random.default_rng(8), number):
        path.write_bytes(bad)
        try:
            with at_most(20):
                read_map(path, **told)
            refused.append(False)
        except MapError as error:
            assert str(error).startswith(str(path)) and str(error).isprintable()
            refused.append(True)
        assert list(folder.iterdir()) == [path]
    return refused


@pytest.mark.parametrize("name", runs.WRITERS)
def test_damaged_maps(name: str, tmp_path: Path) -> None:
    assert sum(map_sweep(name, tmp_path, 8)) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("name", runs.WRITERS)
def test_very_damaged_maps(name: str, tmp_path: Path) -> None:
    assert sum(map_sweep(name, tmp_path, 200)) > 50


def zip_bomb(path: Path) -> None:
    """80 GB of zeros claimed by every array of a file that is small."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("x", "y", "z", "M", "zhalo", "cosmo_header_json"):
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                header, {"descr": "<f8", "fortran_order": False, "shape": (10**10,)}
            )
            archive.writestr(f"{name}.npy", header.getvalue() + b"\0" * 1000)


def true_bomb(path: Path) -> None:
    """Arrays that are as long as they say."""
    zeros = np.zeros(10_000_000)
    np.savez_compressed(path, x=zeros, y=zeros[:3], z=zeros[:3], M=zeros[:3])


def fits_card(key: str, value: object) -> bytes:
    return f"{key:8s}= {value!s:>20s}".ljust(80).encode()


def fits_header(*cards: bytes, end: bool = True) -> bytes:
    text = b"".join(cards) + (b"END".ljust(80) if end else b"")
    return text.ljust(-(-len(text) // 2880) * 2880)


PRIMARY = fits_header(fits_card("SIMPLE", "T"), fits_card("BITPIX", 8), fits_card("NAXIS", 0))


def table_of(**cards: object) -> bytes:
    right = {"BITPIX": 8, "NAXIS": 2, "NAXIS1": 8, "NAXIS2": 1, "PCOUNT": 0, "GCOUNT": 1,
             "TFIELDS": 1, "TFORM1": "'D       '", "TTYPE1": "'X       '"}  # fmt: skip
    first = fits_card("XTENSION", "'BINTABLE'")
    lines = [fits_card(key, value) for key, value in (right | cards).items()]
    return PRIMARY + fits_header(first, *lines) + b"\0" * 2880


def image_of(*cards: bytes) -> bytes:
    return fits_header(fits_card("SIMPLE", "T"), *cards)


FITS = {
    "a billion columns": (table_of(TFIELDS=10**9), "TFIELDS = 1000000000"),
    "a billion axes": (table_of(NAXIS=10**9), "NAXIS = 1000000000"),
    "an exabyte": (table_of(NAXIS2=2**57), "GB of memory are free"),
    "fewer than no rows": (table_of(NAXIS2=-5), "negative number of bytes"),
    "a header without end": (
        PRIMARY + fits_header(b"COMMENT".ljust(80) * 60000, end=False),
        "more",
    ),
    "a compressed header without end": (gzip.compress(PRIMARY + b" " * 10**7), "header of more"),
}


@pytest.mark.parametrize("case", FITS)
def test_fits_that_claims_too_much(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("astropy")
    content, said = FITS[case]
    (tmp_path / "a.fits").write_bytes(content)
    arguments = [str(tmp_path / "a.fits"), *map_file(tmp_path)]
    with at_most(10), pytest.raises(MapError, match=r"a\.fits"):
        read_map(tmp_path / "a.fits")
    status = main(["catalog", "import", *arguments, "--out", str(tmp_path / "out")])
    told = capsys.readouterr().err
    assert status == 2 and said in told and "a.fits" in told and told.count("\n") == 1


@pytest.mark.parametrize("bomb", [zip_bomb, true_bomb])
def test_npz_that_unpacks_to_too_much(
    bomb: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(files, "free_memory", lambda: 70_000_000)
    path = tmp_path / "a.npz"
    bomb(path)
    assert path.stat().st_size < 10**6
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert attempt([str(path)], tmp_path, capsys) == 2
    with pytest.raises(MapError, match=r"a.npz: .*(of memory are free|are stored)"):
        read_map(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # [kB]


def test_text_without_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table of one endless line (a file with a hole costs nothing)."""
    for name, more in (("a.csv", map_file(tmp_path)), ("a.dat", map_file(tmp_path)),
                       ("a.list", []), ("hlist_1.0.list", [])):  # fmt: skip
        path = tmp_path / name
        with path.open("wb") as file:
            file.truncate(400 * GB)
        with at_most(10):
            assert main(["catalog", "import", str(path), *more]) == 2
        assert "no line end" in capsys.readouterr().err


def test_settings_without_end(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    laughs = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    laughs += "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 12))
    for text, said in (
        (laughs, "unfold to more than"),
        ("a: &a [*a]\n", "unfold to more than"),
        ("[" * 3000, "nested too deeply|not valid YAML"),
        ("seed: 2020-99-99\n", "not valid YAML: month must be"),
        ("seed: " + "9" * 5000, "not valid YAML"),
        ("seed: 0x" + "f" * 9000, "not valid YAML at line 1: a whole number of 9002 characters"),
        ("a: [3, 0" + "7" * 9000 + "]", "not valid YAML at line 1: a whole number of 9001 char"),
        ("run: 1" + ":1" * 3000, "not valid YAML at line 1: a whole number of 6001 characters"),
        ("seed: !!int [1]", "not valid YAML"),
        ("seed: !!float [1]", "not valid YAML"),
        ("seed: !!int ''", "not valid YAML"),
        ("seed: !!float ''", "not valid YAML"),
        ("seed: !!binary 'x'\n", "not valid YAML"),
        ("a: 'x\\\n" * 3, "not valid YAML"),
        ("a: 1\0", "not valid YAML"),
    ):
        path.write_text(text)
        with at_most(10), pytest.raises(ConfigError, match=said) as caught:
            load_config(path)
        assert str(caught.value).isprintable()
    path.write_bytes(b"#" * (MAX_YAML_BYTES + 1))
    with pytest.raises(ConfigError, match="too many for a file of settings"):
        load_config(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not a text file"):
        load_config(path)
    assert main(["catalog", "make", "1", "--options", str(path)]) == 2


def test_the_largest_settings_take_no_time(tmp_path: Path) -> None:
    """Measured in time of the processor: up to 2 s."""
    path = tmp_path / "a.yaml"
    number = MAX_YAML_BYTES
    for text, said in (
        ("label: [" + "1," * (number // 2 - 5) + "1]", "more than 30000 values"),
        ("x: &x 1\nlabel:\n" + "- *x\n" * (number // 5 - 4), "more than 30000 values"),
        ("".join(f"a{k:08d}: {{b: [1, x]}}\n" for k in range(number // 23)), "than 30000 values"),
        ("seed: " + "1:" * (number // 2 - 4) + "1", "a whole number of 499993 characters"),
        ("- " * (number // 2), "nested too deeply"),
        ("%A\n" * (number // 3), "not valid YAML"),
        ("a: 'x" + "x\n\n" * (number // 3 - 3) + "'", "unknown setting 'a'"),
        ("a:" + "\n" * (number - 2), "unknown setting 'a'"),
    ):
        assert 0.9 * number < len(text) <= number
        path.write_text(text)
        begin = time.process_time()
        with pytest.raises(ConfigError, match=said) as caught:
            load_config(path)
        assert time.process_time() - begin < 6.0
        assert len(str(caught.value)) < 1000


def test_settings_too_long_to_be_read_again(tmp_path: Path) -> None:
    """Those of a file that extends others are as long as all of them."""
    for name, split in (("a", "train"), ("b", "test")):
        files = [f"{'sky' * 20}_{split}_{k}.h5" for k in range(3700)]
        base = "extends: a.yaml\n" if name == "b" else ""
        (tmp_path / f"{name}.yaml").write_text(f"{base}data: {{{split}: {files}}}\n")
    assert len(load_config(tmp_path / "a.yaml").to_yaml()) < MAX_YAML_BYTES
    with pytest.raises(ConfigError, match="name many lightcones by a glob"):
        load_config(tmp_path / "b.yaml").to_yaml()


def test_an_import_writes_all_files_or_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Path(npz(tmp_path)[0])
    bad = tmp_path / "b.npz"
    bad.write_bytes(good.read_bytes()[:500])
    out = tmp_path / "made" / "out"
    assert main(["catalog", "import", str(good), str(bad), "--out", str(out)]) == 2
    assert not (tmp_path / "made").exists() and capsys.readouterr().out == ""

    def refuse(self: Lightcone) -> str:
        raise ValueError("nothing to be said of it")

    with monkeypatch.context() as patch:
        patch.setattr(Lightcone, "describe", refuse)
        assert main(["catalog", "import", str(good), "--out", str(out)]) == 2
    assert not (tmp_path / "made").exists()
    bad.write_bytes(good.read_bytes())
    assert main(["catalog", "import", str(good), str(bad), "--out", str(out)]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["a.h5", "b.h5"]


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 20 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


def lightcone() -> Lightcone:
    rng = np.random.default_rng(0)
    z = rng.uniform(2.4, 3.4, 5000)
    chi = Cosmology().comoving_distance(z)
    return Lightcone.from_arrays(
        0.001 * chi, 0.001 * chi * rng.uniform(-1, 1, 5000), chi, rng.uniform(1e11, 1e13, 5000), z,
        cosmology=Cosmology().to_dict(),
    )  # fmt: skip


def figure() -> Any:
    from matplotlib.figure import Figure

    made = Figure()
    made.subplots().imshow(np.random.default_rng(0).random((300, 300)))
    return made


WRITERS: dict[str, Callable[[Path], None]] = {
    "lightcone.h5": lambda path: lightcone().save(path),
    "figure.png": lambda path: write_png(figure(), path),
    "manifest.json": lambda path: write_text(path, "1" * 100_000),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_cannot_be_written(name: str, tmp_path: Path, small_files: None) -> None:
    """A limit that is reached while writing: one sentence, the old file is there, no other."""
    path = tmp_path / name
    path.write_text("old")
    with pytest.raises((CatalogError, OSError)) as caught:
        WRITERS[name](path)
    assert str(caught.value) == f"{path} cannot be written: File too large"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[Errno 28] Can't synchronously write data (file write failed: errno = 28)", "is full"),
        ("Can't decrement id ref count (unable to extend file properly, errno = 122)", "is full"),
        ("Can't synchronously write data (errno = 5, error message = 'x')", "Input/output error"),
    ],
)
def test_libraries_that_hide_the_number_of_an_error(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Lightcone, file: h5py.File) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(Lightcone, "_to_file", failing)
    with pytest.raises(CatalogError, match=said):
        lightcone().save(tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken(tmp_path: Path) -> None:
    """A link where the temporary file would be is not followed, a folder is no obstacle."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for put in (lambda path: path.symlink_to(victim), lambda path: path.mkdir()):
        with files.writing(tmp_path / "new") as temporary:
            pass_to = temporary
            temporary.write_text("text")
        put(pass_to)
        write_text(tmp_path / "new", "again")
        assert (tmp_path / "new").read_text() == "again" and victim.read_text() == "mine"
        assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "victim"]
