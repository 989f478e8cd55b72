"""What a user has who installs streamtrain: wheel and source distribution, away from a checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from support import ROOT

BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""


def build(kind: str, source: Path, out: Path) -> Path:
    """A wheel or sdist as pip and build make it, without their isolated environment."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUILD, f"build_{kind}", str(out)],
        cwd=source,
        capture_output=True,
        text=True,
        check=True,
    )
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel of a copy of the checkout, and that of its source distribution."""
    folder = tmp_path_factory.mktemp("built")
    copy = folder / "checkout"
    for name in ("streamtrain", "kernels", "configs", "tests", "launch", "docs", "examples"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, copy)
    source = build("sdist", copy, folder)
    shutil.unpack_archive(source, folder / "unpacked")
    (unpacked,) = (folder / "unpacked").iterdir()
    direct, through = folder / "direct", folder / "through"
    direct.mkdir()
    through.mkdir()
    return build("wheel", copy, direct), build("wheel", unpacked, through)


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment that has the wheel of the source distribution,
    and sees the packages of this one, but not its streamtrain."""
    place = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    python = place / "bin" / "python"
    packages = next((place / "lib").glob("python*/site-packages"))
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = ["install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "--python", str(python), *install, str(built[1])]
    subprocess.run(command, check=True, capture_output=True)
    return place / "bin"


def run(command: list[str | Path], cwd: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def test_everything_that_is_read_is_in_the_wheel(built: tuple[Path, Path]) -> None:
    """Every file of the package but for its caches, from the checkout and from the sdist."""
    wanted = {
        str(Path(*folder) / file.relative_to(ROOT / folder[-1]))
        for folder in (
            ("streamtrain",),
            ("streamtrain", "kernels"),
            ("streamtrain", "configs"),
            ("streamtrain", "examples"),
        )
        for file in (ROOT / folder[-1]).rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    }
    assert len(wanted) > 250
    for wheel in built:
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
        assert {n for n in names if ".dist-info/" not in n} == wanted


def test_check_and_presets(installed: Path, tmp_path: Path) -> None:
    done = run([installed / "streamtrain", "check"], tmp_path)
    assert "bit-exact on cpu: yes" in done.stdout
    for name in ("quickstart.yaml", "configs/networks/resnet.yaml"):
        done = run([installed / "streamtrain", "train", name, "--print-config"], tmp_path)
        assert "run: runs/" in done.stdout
    assert not list(tmp_path.iterdir())


def test_python_of_the_readme(installed: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    show = "import streamtrain\nprint(streamtrain.__file__)\nprint(cube.shape, int(counts.sum()))"
    (tmp_path / "readme.py").write_text("\n".join([*blocks, show]))
    done = run([installed / "python", "readme.py"], tmp_path)
    place, result = done.stdout.splitlines()[-2:]
    assert Path(place).is_relative_to(installed.parent)
    assert re.fullmatch(r"torch\.Size\(\[20, 64, 64\]\) \d{4,}", result)


def test_examples_are_written_and_run(installed: Path, tmp_path: Path) -> None:
    """Those of the wheel, in a folder where nothing else is."""
    done = run([installed / "streamtrain", "examples"], tmp_path)
    assert done.stdout.endswith("wrote 7 of 7 into examples\n")
    for file in (ROOT / "examples").glob("[!_]*.*"):
        assert (tmp_path / "examples" / file.name).read_bytes() == file.read_bytes()
    run([installed / "python", "examples/sweep.py"], tmp_path)
    assert (tmp_path / "runs/examples/sweep.png").is_file()


def test_a_map_in_fits_needs_nothing_more() -> None:
    """FITS is the field's format: astropy comes with streamtrain."""
    text = (ROOT / "setup.cfg").read_text()
    needed = re.search(r"install_requires =\n((?:    .*\n)+)", text)
    assert needed is not None and "astropy" in needed[1]
