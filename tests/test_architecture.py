"""docs/architecture.md: its pictures and tables are those of the code, its recipes can be followed.

`python tests/test_architecture.py` writes the parts of the page that are made from the code anew.
"""

from __future__ import annotations

import ast
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from support import small
from test_layers import PACKAGE, ROOMS, imports, modules, room

from streamtrain.generator.generator import Generator

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
NOT_DRAWN = ("numerics", "arguments", "catalogs", "schema", "machine")
"""Rooms that everything calls: they would hide the flow."""
CALLED_BY_PYTHON = re.compile(r"^_|\.__|<")
"""Functions without a name of their own in the flow."""
PARTS = ("flow", "rooms", "order")
"""Parts of the page that are made here, between `<!-- NAME -->` and `<!-- end -->`."""

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="not a checkout")


def calls() -> dict[tuple[str, str], str]:
    """(caller, called) of the modules that two samples go through, in order, and the first function
    that is called by its name."""
    config = small.config(
        emit={"line": {"model": "li16", "prior": "narrow"}, "brightness": {"factor": 1.1}},
        observe={"pool": {"factor": [3, 1, 1]}, "noise": {"sigma_uK": [1, 5]}, "log_modulus": {}},
    )
    found: dict[tuple[str, str], str] = {}

    def module_of(frame: FrameType) -> str:
        name = str(frame.f_globals.get("__name__", ""))
        return name.removeprefix("streamtrain.") if name.startswith("streamtrain.") else ""

    def follow(frame: FrameType, event: str, _: object) -> None:
        called, back = module_of(frame), frame.f_back
        if event != "call" or not called or called.split(".")[0] in NOT_DRAWN:
            return
        while back is not None and not module_of(back):
            back = back.f_back
        caller = module_of(back) if back is not None else ""
        name = frame.f_code.co_name
        if caller and caller != called and not CALLED_BY_PYTHON.search(name):
            found.setdefault((caller, called), name)

    generator = Generator(config, lightcones=[small.lightcone()], threads=1)
    generator.generate([0])
    threading.setprofile(follow)
    sys.setprofile(follow)
    try:
        generator.generate([1, 2])
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
        generator.close()
    return {edge: name for edge, name in found.items() if edge[0].split(".")[0] not in NOT_DRAWN}


def flow() -> str:
    """A picture of `calls`, in the language of Mermaid."""
    lines = ["```mermaid", "flowchart LR"]
    for number, ((caller, called), name) in enumerate(calls().items(), 1):
        lines.append(f"  {caller} -->|{number} {name}| {called}")
    return "\n".join([*lines, "```"])


def rooms() -> str:
    """The first sentence of every room, and its files."""
    lines = ["| room | what is in it | files |", "|---|---|---|"]
    for file in sorted(PACKAGE.rglob("__init__.py")):
        if file.parent == PACKAGE:
            continue
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        first = " ".join(text.split("\n\n")[0].split()).rstrip(".")
        files = sorted(f.stem for f in file.parent.glob("*.py") if f.stem != "__init__")
        name = ".".join(file.parent.relative_to(PACKAGE).parts)
        lines.append(f"| {name} | {first} | {', '.join(files)} |")
    return "\n".join(lines)


def order() -> str:
    """The rooms from the top down, and which of those below each imports."""
    used: dict[str, set[str]] = {}
    for name in modules():
        used.setdefault(room(name), set()).update(map(room, imports(name)))
    lines = ["| from the top down | imports |", "|---|---|"]
    every = [name for line in ROOMS for name in line.split()]
    for name in every:
        if name != "_version":
            below = [other for other in every if other in used.get(name, ()) and other != name]
            shown = [other for other in below if other != "_version"]
            lines.append(f"| {name} | {', '.join(shown) or 'nothing'} |")
    return "\n".join(lines)


def part(text: str, name: str) -> re.Match[str]:
    found = re.search(rf"(?s)<!-- {name} -->\n(.*?)<!-- end -->", text)
    assert found, f"docs/architecture.md has no part {name}"
    return found


@pytest.mark.parametrize("name", PARTS)
def test_page_shows_what_the_code_does(name: str) -> None:
    assert part(PAGE.read_text(encoding="utf-8"), name)[1] == globals()[name]() + "\n", (
        "the code has changed: python tests/test_architecture.py"
    )


NAMED = re.compile(r"(\w+)?,?\s+\(?`([\w./]+)`")
"""A name in back quotes in the text of a room, and the word in front of it."""
NO_FILE = ("command", "section")
"""Words in front of a name that is that of no file."""


def not_there(folder: Path) -> list[str]:
    """What the text of a room names as files that are not there: of the room, and with a dot or a
    slash those of the package."""
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    found = []
    for word, name in NAMED.findall(" " + text):
        inner = name.removeprefix("streamtrain.").replace(".", "/")
        place = ROOT / name if "/" in name else PACKAGE / inner if "." in name else folder / name
        file = place.with_name(f"{place.name}.py")
        if word not in NO_FILE and name != "streamtrain" and not (place.exists() or file.exists()):
            found.append(name)
    return found


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.glob("*/**/__init__.py")), ids=lambda f: f.parent.name
)
def test_rooms_name_files_that_are_there(file: Path) -> None:
    """A file that gets another name is named so in the text of its room, by which it is found."""
    assert not_there(file.parent) == []


def test_files_that_are_not_there_are_found(tmp_path: Path) -> None:
    text = "Start with `here`, the command `infer`; `gone`, `streamtrain.bins`, `a.b`."
    (tmp_path / "__init__.py").write_text(f'"""{text}"""', encoding="utf-8")
    (tmp_path / "here.py").touch()
    assert not_there(tmp_path) == ["gone", "a.b"]


def recipes() -> Iterator[tuple[str, list[tuple[str, list[str]]], list[str]]]:
    """(title, [(file, names in it)], tests) of every recipe."""
    text = PAGE.read_text(encoding="utf-8").partition("## Recipes")[2].partition("\n## ")[0]
    for recipe in text.split("\n### ")[1:]:
        title, _, body = recipe.partition("\n")
        steps = []
        for line in re.findall(r"^\d+\. (?:.*\n(?:   .*\n)*)", body + "\n", re.M):
            first, *names = re.findall(r"`([^`]+)`", line)
            steps.append((first, names))
        yield title, steps, re.findall(r"`(tests/[\w/]+\.py::\w+)`", body)


RECIPES = list(recipes()) if PAGE.is_file() else []


def test_there_are_twelve_recipes() -> None:
    assert len(RECIPES) == 12
    assert all(steps for _, steps, _ in RECIPES)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe[0])
def test_recipe_names_what_is_there(recipe: tuple[str, list[tuple[str, list[str]]], list[str]]):
    _, steps, followed = recipe
    assert followed, "no test follows it"
    for file, names in steps:
        text = (ROOT / file).read_text(encoding="utf-8")
        for name in names:
            known = re.search(rf"\b{re.escape(name)}\b", text)
            assert (ROOT / name).is_file() if "/" in name else known, (file, name)
    for test in followed:
        file, name = test.split("::")
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.M), test


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    for name in PARTS:
        start, end = part(page, name).span(1)
        page = f"{page[:start]}{globals()[name]()}\n{page[end:]}"
    PAGE.write_text(page, encoding="utf-8")
