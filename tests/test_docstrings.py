"""Docstrings of public names stand alone, as an editor shows them: without the file around them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from test_layers import PACKAGE

FEWEST_WORDS = 3
LEANING = re.compile(
    r"The same|Likewise|Also|Of |Those |That |Its |Their |They |It |Theirs|See `|From `|By |"
    r"As (in|they|it|astropy|written)\b"
)
"""How a text begins that says nothing without the one before it."""

FILES = sorted(PACKAGE.rglob("*.py"))


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def classes() -> dict[str, list[ast.ClassDef]]:
    """Those of the package by name."""
    found: dict[str, list[ast.ClassDef]] = {}
    for node in (node for file in FILES for node in ast.walk(tree(file))):
        if isinstance(node, ast.ClassDef):
            found.setdefault(node.name, []).append(node)
    return found


def bases(cls: ast.ClassDef) -> Iterator[tuple[str, ast.ClassDef | None]]:
    """Names of all bases of a class; with the class where it is one of the package."""
    for base in cls.bases:
        base = base.value if isinstance(base, ast.Subscript) else base
        name = ast.unparse(base).rpartition(".")[2]
        if name not in classes():
            yield name, None
        for found in classes().get(name, []):
            if found is not cls:
                yield name, found
                yield from bases(found)


def overrides(cls: ast.ClassDef, method: str) -> bool:
    """Whether a method is documented in a base class, or may be: in one of another package."""
    return any(
        (found is None and name not in ("Protocol", "Generic", "NamedTuple", "object"))
        or (
            found is not None
            and any(
                isinstance(node, ast.FunctionDef)
                and node.name == method
                and ast.get_docstring(node)
                for node in found.body
            )
        )
        for name, found in bases(cls)
    )


def texts(body: list[ast.stmt], cls: ast.ClassDef | None = None) -> Iterator[tuple[str, str]]:
    """(name, docstring) of public functions, classes, methods, and of attributes that have one."""
    before = None
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, ast.get_docstring(node) or ""
            yield from ((f"{node.name}.{name}", text) for name, text in texts(node.body, node))
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            text = ast.get_docstring(node)
            setter = any(ast.unparse(d).endswith(".setter") for d in node.decorator_list)
            if not setter and (text or cls is None or not overrides(cls, node.name)):
                yield node.name, text or ""
        elif (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
            and isinstance(before, ast.Assign | ast.AnnAssign)
        ):
            target = before.target if isinstance(before, ast.AnnAssign) else before.targets[0]
            if not ast.unparse(target).startswith("_"):
                yield ast.unparse(target), node.value.value
        before = node


def fault(text: str) -> str:
    """What is wrong with a docstring, or ''."""
    if len(text.split()) < FEWEST_WORDS:
        return "is missing or too short"
    return "leans on the one before it" if LEANING.match(text) else ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(Path(file).relative_to(PACKAGE)))
def test_docstrings_stand_alone(file: Path) -> None:
    found = [
        f"{name}: {text.splitlines()[:1]} {fault(text)}"
        for name, text in texts(tree(file).body)
        if fault(text)
    ]
    assert not found, f"{file.relative_to(PACKAGE)}: " + "; ".join(found)


@pytest.mark.parametrize("text", ["", "Close it.", "Of the line.", "The same on the device."])
def test_faults_are_found(text: str) -> None:
    ((name, found),) = texts(ast.parse(f'def public():\n    """{text}"""\n').body)
    assert name == "public" and fault(found)


def test_overrides_and_private_names_may_go_without() -> None:
    body = ast.parse(
        'def _private(): pass\nclass Layer(Module):\n    "A layer of a network."\n'
        "    def forward(self, x): pass\n"
    ).body
    assert [name for name, text in texts(body) if fault(text)] == []
