"""The order of the rooms: imports run down only, and no two modules import one another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import streamtrain

PACKAGE = Path(streamtrain.__file__).parent
ROOMS = (
    "__main__",
    "cli",
    "api check",
    "bench",
    "mcmc preview",
    "evaluate",
    "train",
    "networks stream",
    "generator",
    "config",
    "operators",
    "luminosity maps",
    "catalogs",
    "tables figures spectra ranks",
    "labels priors",
    "bins grid",
    "cosmology",
    "numerics",
    "arguments yamltext",
    "schema",
    "shipped",
    "machine",
    "_version",
)
"""From the top down; rooms of one line do not import one another."""
RANK = {room: -number for number, line in enumerate(ROOMS) for room in line.split()}


def modules() -> dict[str, Path]:
    found = {}
    for file in PACKAGE.rglob("*.py"):
        parts = ["streamtrain", *file.relative_to(PACKAGE).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """Every module that a module imports anywhere, in functions and for types too."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in MODULES:
                    yield full
                elif node.module in MODULES:
                    yield str(node.module)


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def upward(name: str, imported: str) -> bool:
    """Whether an import runs up, or between rooms of one line.

    The configuration composes the sections of all rooms, which are in their files `settings`.
    """
    above, below = room(name), room(imported)
    if above == below or not below or not above:
        return False
    if above == "config" and imported.endswith(".settings"):
        return False
    return RANK[below] >= RANK[above]


def test_rooms_are_known() -> None:
    assert {room(name) for name in MODULES} - {""} == set(RANK)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_run_down(name: str) -> None:
    wrong = sorted({imported for imported in imports(name) if upward(name, imported)})
    assert not wrong


def passed_on(name: str) -> set[str]:
    """Names that a module has from others of the package."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    froms = (node for node in tree.body if isinstance(node, ast.ImportFrom))
    ours = (node for node in froms if (node.module or "").partition(".")[0] == "streamtrain")
    return {alias.asname or alias.name for node in ours for alias in node.names}


PASSED_ON = {name: passed_on(name) for name in MODULES}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_names_are_imported_from_their_own_files(name: str) -> None:
    """Who follows an import finds what is meant, not another import."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    froms = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    wrong = [
        f"{alias.name} from {node.module}"
        for node in froms
        for alias in node.names
        if f"{node.module}.{alias.name}" not in MODULES
        and alias.name in PASSED_ON.get(str(node.module), ())
    ]
    assert not wrong


def test_no_modules_import_one_another() -> None:
    graph = {name: {other for other in imports(name) if other != name} for name in MODULES}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_every_room_says_what_is_in_it() -> None:
    for name, file in MODULES.items():
        if file.name == "__init__.py":
            text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
            assert len(text) > 60, name
