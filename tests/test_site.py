"""The site of docs/: it builds without a warning, and what it shows of the code is complete."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

import streamtrain
from streamtrain.cli.main import main
from streamtrain.config import Config, load_config
from streamtrain.luminosity.settings import EMIT
from streamtrain.operators.table import OPERATORS
from streamtrain.schema import to_dict

made_pages = pytest.importorskip("made_pages", reason="not a checkout")
DOCS = ROOT / "docs"
SECTIONS = (Config, *EMIT.values(), *(operator.section for operator in OPERATORS.values()))
NO_UNITS = ("lo, hi", "1: mean", "COMAP: 5", "n_dec, n_ra", "Mpc^-3 Lsun^-1", "Mpc^-3")
"""What else stands in brackets in the help of settings."""


def found_in(hint: Any) -> Iterator[type]:
    """Every section of the configuration that a type names, and those in it."""
    if dataclasses.is_dataclass(hint):
        yield typing.cast(type, hint)
        for inner in typing.get_type_hints(hint).values():
            yield from found_in(inner)
    for part in typing.get_args(hint):
        yield from found_in(part)


EVERY = {kind for section in SECTIONS for kind in found_in(section)}


def rows(page: str) -> dict[str, list[str]]:
    """Cells of the tables' rows by the name in the first of them."""
    lines = re.findall(r"^\| \[?`([^`]+)`\S* \| (.*) \|$", page, re.MULTILINE)
    return {name: re.split(r"(?<!\\) ?\| ?", cells) for name, cells in lines}


def dotted(settings: dict[str, Any], path: str = "") -> Iterator[str]:
    for key, value in settings.items():
        name = f"{path}.{key}".lstrip(".")
        yield from dotted(value, name) if isinstance(value, dict) and value else [name]


def test_index_has_every_setting_of_every_section() -> None:
    page = made_pages.settings()
    shown = {
        tuple(name.rpartition(".")[2] for name in rows(part)) for part in re.split(r"\n#+ ", page)
    }
    assert len(EVERY) > 40
    for kind in EVERY:
        assert tuple(field.name for field in dataclasses.fields(kind)) in shown, kind.__name__


def test_every_setting_has_an_anchor_of_its_own() -> None:
    page = made_pages.settings()
    anchors = re.findall(r"\(#([\w-]+)\)\{#\1\} \|", page)
    assert len(anchors) == len(set(anchors)) > 250
    assert {"setting-train-clip-norm", "setting-network-hybrid-layers"} <= set(anchors)


@pytest.mark.parametrize("preset", ["reference", "comap"])
def test_index_has_the_settings_of_a_preset(preset: str) -> None:
    page = made_pages.settings()
    names = {*rows(page), *re.findall(r"^#+ `([\w.]+)`$", page, re.MULTILINE)}
    open_ended = tuple(name for name in names if name.endswith((".parameters", ".density")))
    settings = list(dotted(to_dict(load_config(f"configs/{preset}.yaml"))))
    assert len(settings) > 60
    for name in settings:
        general = re.sub(r"(?<=\.mixture\.)\w+", "NAME", name)
        assert general in names or general.startswith(open_ended), name


def test_settings_that_pages_name_exist() -> None:
    names = re.findall(r"^(?:#+|\|) \[?`([\w.]+)`", made_pages.settings(), re.MULTILINE)
    known = {*names, *(name.rpartition(".")[0] for name in names)}
    sections = "|".join(field.name for field in dataclasses.fields(Config))
    for page in (ROOT / "README.md", *DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for name in re.findall(rf"`((?:{sections})\.(?!py`)[\w.]*\w)(?=[`=: ])", text):
            assert re.sub(r"_\d+\b", "", name) in known, f"{page.name}: {name}"


def test_index_says_default_range_and_unit() -> None:
    index = rows(made_pages.settings())
    assert index["grid.shape"][1:] == [
        "`[10, 64, 64]`",
        "3 whole numbers, at least 1, at most 4096",
        "",
    ]
    assert index["label"][0] == "what the network predicts"
    assert index["grid.units"][2] == "`uK` or `Jy/sr`"
    assert index["emit.dim.above_log10_L"][1:] == [
        "must be given",
        "number, at least -20, at most 30",
        "log10 L/Lsun",
    ]
    assert index["observe.noise.radiometer.hours"][3] == "h"
    assert index["observe.correlated_noise.knee_per_GHz"][3] == "1/GHz"
    assert index["observe.beam.profile"][3] == "" and "deg" in index["observe.beam.profile"][0]


def test_units_in_the_help_of_settings_are_known() -> None:
    for kind in EVERY:
        for field in dataclasses.fields(kind):
            for text in re.findall(r"\[([^\]:]*)\]", field.metadata.get("help", "")):
                assert text in (*made_pages.UNITS, *NO_UNITS), (kind.__name__, field.name)


def test_every_command_has_a_section(capsys: pytest.CaptureFixture[str]) -> None:
    page = made_pages.commands()
    with pytest.raises(SystemExit):
        main(["--help"])
    names = re.findall(r"^    (\w+)\b", capsys.readouterr().out, re.MULTILINE)
    assert len(names) >= 15
    for name in names:
        assert re.search(rf"^## streamtrain {name}\b", page, re.MULTILINE), name
    options = rows(page.partition("## streamtrain evaluate")[2].partition("\n## ")[0])
    assert options["--samples SAMPLES"] == ["test maps; default: test.samples"]
    assert "](evaluation.md)" in page
    assert "SUPPRESS" not in page  # options that `--help` hides


def test_all_public_names_are_shown() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    shown = [
        name for names in re.findall(r"<!-- made: api (.*) -->", page) for name in names.split()
    ]
    assert sorted(shown) == [name for name in dir(streamtrain) if name != "__version__"]


def test_all_examples_are_shown() -> None:
    page = (DOCS / "examples.md").read_text(encoding="utf-8")
    shown = re.findall(r"<!-- made: examples (.*) -->", page)[0].split()
    there = sorted(file.stem for file in (ROOT / "examples").glob("*.py"))
    assert sorted(shown) == there == sorted(re.findall(r"^\| \[(\w+)\.py\]", page, re.M))
    code = (ROOT / "examples" / "sweep.py").read_text(encoding="utf-8")
    assert code in made_pages.examples("sweep own_loop")


def test_pictures_of_steps_become_tables() -> None:
    """Every step of docs/architecture.md is a row, and none is left in the language of Mermaid."""
    source = [(DOCS / "architecture.md").read_text(encoding="utf-8")]
    steps = re.findall(r"-->\|(\d+) ", source[0])
    made_pages.fill(None, "architecture", source)
    assert "mermaid" not in source[0]
    assert re.findall(r"^\| (\d+) \| `", source[0], re.MULTILINE) == steps and len(steps) > 10


def test_numbers_of_the_first_page_are_measured() -> None:
    """Each number in bold stands in the section of docs/benchmarks.md that follows it as a link."""
    page = (DOCS / "index.md").read_text(encoding="utf-8")
    sections = (DOCS / "benchmarks.md").read_text(encoding="utf-8").split("\n## ")[1:]
    text = {section.partition("\n")[0].lower().replace(" ", "-"): section for section in sections}
    items = re.findall(r"(?s)^- (.*?)benchmarks\.md#([\w-]+)\)", page, re.MULTILINE)
    assert len(items) == 3
    for item, anchor in items:
        for number in re.findall(r"\*\*([\d.e-]+)", item):
            assert re.search(rf"(?<![\d.]){re.escape(number)}", text[anchor]), number


class Links(HTMLParser):
    """Targets of a page's links, and the names that links may go to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.names = {""}
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attributes}
        self.names.add(given.get("id", ""))
        target = given.get("href" if tag == "a" else "src", "")
        if target and ":" not in target:
            self.targets.append(target)


def test_it_builds_without_a_warning(tmp_path: Path) -> None:
    for package in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(package, reason=f"no {package}: pip install '.[docs]'")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(DOCS)]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {file.name: Links(file.read_text(encoding="utf-8")) for file in tmp_path.glob("*.html")}
    assert {f"{file.stem}.html" for file in DOCS.glob("*.md")} <= set(pages)
    assert "TypeAliasForwardRef" not in (tmp_path / "api.html").read_text(encoding="utf-8")
    for name, page in pages.items():
        for target in page.targets:
            file, _, anchor = target.partition("#")
            assert (tmp_path / file.partition("?")[0]).exists(), f"{name}: {target}"
            if anchor and (file or name) in pages:
                assert anchor in pages[file or name].names, f"{name}: {target}"
