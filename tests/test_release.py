"""What a release says of itself is one thing: version, requirements, terms of data, metadata."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support import ROOT

from streamtrain import __version__

pytestmark = pytest.mark.skipif(not (ROOT / "setup.cfg").is_file(), reason="not a checkout")
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base", "astropy": "astropy-base"}
"""Names of packages of PyPI in conda-forge, where they differ."""


def setup() -> configparser.ConfigParser:
    read = configparser.ConfigParser()
    read.read(ROOT / "setup.cfg", encoding="utf-8")
    return read


def load(path: str) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
    return found


def test_versions_and_dates_agree() -> None:
    citation, recipe = load("CITATION.cff"), load("launch/conda/meta.yaml")
    assert citation["version"] == __version__
    assert recipe["package"] == {"name": "streamtrain", "version": __version__}
    heading = re.search(r"^## (\S+) \((.*)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heading is not None and heading[1] == __version__
    released = str(citation.get("date-released", "unreleased"))
    assert heading[2] == released, "CHANGELOG.md and CITATION.cff have other dates"


def test_citation_has_what_its_format_asks_for() -> None:
    citation = load("CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "license", "type"} <= set(citation)
    assert citation["authors"] == [{"name": setup()["metadata"]["author"]}]
    assert citation["license"] == setup()["metadata"]["license"]


def test_the_conda_recipe_has_the_same_requirements() -> None:
    requirements = load("launch/conda/meta.yaml")["requirements"]
    assert isinstance(requirements, dict)
    wanted = {f"python {setup()['options']['python_requires']}", "gxx_linux-64"}
    for line in setup()["options"]["install_requires"].split("\n"):
        name, _, version = line.partition(" ")
        wanted |= {f"{CONDA.get(name, name)} {version.replace(' ', '')}"} if line else set()
    assert set(requirements["run"]) == wanted


def test_every_shipped_file_of_data_has_its_terms() -> None:
    """Named itself, by its folder or by a pattern."""
    terms = (ROOT / "LICENSE-data.md").read_text(encoding="utf-8")
    patterns = re.findall(r"^\| (\S+) \|", terms, re.MULTILINE)
    shipped = {
        str(file.relative_to(ROOT))
        for folder in ("configs", "streamtrain", "docs", "tests/data")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in (".h5", ".json", ".npz", ".csv", ".png", ".pt", ".yaml")
    }
    for name in sorted(shipped):
        named = (
            name == p or (p.endswith("/") and name.startswith(p)) or Path(name).match(p)
            for p in patterns
        )
        deep = any(p == "configs/**/*.yaml" and name.startswith("configs/") for p in patterns)
        assert any(named) or (deep and name.endswith(".yaml")), f"LICENSE-data.md lacks {name}"


def test_workflows_call_the_two_commands_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    (bash launch/\S+\.sh) +#", readme, re.MULTILINE)
    assert len(commands) == 2
    jobs = load(".github/workflows/test.yml")["jobs"]
    assert isinstance(jobs, dict)
    called = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert sorted(called) == sorted(commands)
    inner = (ROOT / ".ci" / "run").read_text(encoding="utf-8").split("\n")
    assert "bash launch/test.sh" in inner


def test_metadata_is_valid_and_has_what_finds_it(tmp_path: Path) -> None:
    """As PyPI would read it."""
    metadata = pytest.importorskip("packaging.metadata", reason="no packaging")
    for name in (
        "setup.cfg",
        "setup.py",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "LICENSE-data.md",
    ):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    for folder in ("streamtrain", "kernels", "configs", "examples"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    make = "from setuptools import build_meta; build_meta.prepare_metadata_for_build_wheel('out')"
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-W", "error::DeprecationWarning", "-c", make]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "out").glob("*.dist-info/METADATA")
    found = metadata.Metadata.from_email(file.read_bytes(), validate=True)
    assert str(found.version) == __version__ and found.author == "The streamtrain developers"
    assert found.description_content_type == "text/markdown"
    description = str(found.description)
    assert description.startswith("# streamtrain\n\nTraining data for line-intensity mapping")
    assert "This page names files: docs/, examples/" in description
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for heading in re.findall(r"^## .*$", readme, re.MULTILINE):
        assert f"\n{heading}\n" in description
    targets = re.findall(r"\]\(([^)]*)\)", description)
    assert len(targets) >= 2 and all(target.startswith("https://") for target in targets)
    assert "[docs/" not in description and "docs/infer.md says on how" in description
    assert found.project_urls and found.keywords and len(found.classifiers) >= 5
    assert set(found.license_files or ["LICENSE", "LICENSE-data.md"]) == {
        "LICENSE", "LICENSE-data.md"
    }  # fmt: skip
