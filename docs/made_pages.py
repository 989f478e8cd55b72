"""What the site shows of the code: commands, settings, public names, examples.

A page says where with a comment, `<!-- made: settings -->`, which GitHub does not show. The text is
made when the page is read, so that it cannot be older than the code.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import re
import types
import typing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import streamtrain
from streamtrain.cli.main import _parser
from streamtrain.config import Config
from streamtrain.luminosity.settings import EMIT
from streamtrain.operators.table import OPERATORS
from streamtrain.schema import number_text

ROOT = Path(__file__).parents[1]
MARKER = re.compile(r"<!-- made: (\w+) ?(.*?) -->")
MERMAID = re.compile(r"```mermaid\nflowchart LR\n(.*?)```", re.DOTALL)
EDGE = re.compile(r"^ +(\S+) -->\|(\d+) (\w+)\| (\S+)$", re.MULTILINE)
MADE_BY_OTHERS = ("Batch", "Config", "Evaluation", "Lightcone", "Painted", "Posterior")
"""Classes whose constructors nobody calls."""
UNITS = ("deg", "deg^2", "arcmin", "pixels", "GHz", "MHz", "K", "mJy", "Lsun", "Msun", "1/Mpc")
UNITS = (*UNITS, "h", "GB", "map units")
"""Units that the help of a setting gives in brackets."""
SUFFIXES = {
    unit: unit for unit in ("uK", "K", "mJy", "GHz", "MHz", "deg", "arcmin", "GB", "pixels")
}
SUFFIXES = {"per_GHz": "1/GHz"} | SUFFIXES  # before GHz, which is its end too
SUFFIXES |= {"Lsun": "Lsun", "Msun": "Msun", "hours": "h", "log10_L": "log10 L/Lsun"}
"""Units that are part of a setting's name."""
ORDERED: dict[str, dict[str, Any]] = {
    "emit": EMIT,
    "observe": {name: operator.section for name, operator in OPERATORS.items()},
}
"""Sections by the name of what stands in these, in an order of the user's."""
VALUES = {int: "whole number", float: "number", bool: "true or false", str: "text", Any: "any"}


def text(words: str) -> str:
    """Markdown that shows these words; what they have in backticks is code, and a page of docs/
    that they name a link."""
    parts = words.split("`")
    parts[::2] = [re.sub(r"([\\*_<>\[\]|~])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [part.replace("|", "\\|") for part in parts[1::2]]
    return re.sub(r"\bdocs/(\w+)\.md\b", r"[docs/\1.md](\1.md)", "`".join(parts))


def table(head: str, rows: list[list[str]]) -> str:
    """A table of Markdown; head: its columns, with bars between them."""
    lines = [head, "|".join("---" for _ in head.split("|")), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)


# Commands


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of commands that have no commands of their own."""
    kinds = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not kinds:
        yield parser
    for kind in kinds:
        for command in kind.choices.values():
            yield from leaves(command)


def commands() -> str:
    """A section for each command: what it does, how it is called, what its arguments mean."""
    return "\n\n".join(map(command_section, leaves(_parser())))


def command_section(parser: argparse.ArgumentParser) -> str:
    parser.formatter_class = partial(argparse.RawDescriptionHelpFormatter, width=88)  # type: ignore
    formatter = parser._get_formatter()
    rows = [
        [f"`{formatter._format_action_invocation(action)}`", text(formatter._expand_help(action))]
        for action in parser._actions
        if action.help not in (None, argparse.SUPPRESS) and action.dest != "help"
    ]
    usage = re.sub(r"\n +", "\n    ", parser.format_usage().removeprefix("usage: "))
    parts = [f"## {parser.prog}", text(parser.description or ""), f"```text\n{usage}```"]
    return "\n\n".join([*parts, table("argument | meaning", rows)] if rows else parts)


# Settings


class Section(NamedTuple):
    """A part of the configuration."""

    path: str
    """Its dotted name; NAME stands for one that a user chooses."""
    kind: type
    depth: int
    default: Any
    """The section that holds where nothing is said; None where there is none."""
    one_of: bool = False
    """Whether it is one of several kinds that may stand there."""

    @property
    def title(self) -> str:
        if self.one_of:
            return f"`{self.path}`: {self.kind.kind}"  # type: ignore[attr-defined]
        return f"`{self.path}`" if self.path else "The whole"


Titles = dict[type, str]
"""Headings by the section that stands below them."""


def within(hint: Any) -> list[type]:
    """Sections that a type hint names."""
    if dataclasses.is_dataclass(hint):
        return [typing.cast(type, hint)]
    return [section for part in typing.get_args(hint) for section in within(part)]


def fields_of(kind: type) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()


def sections(path: str, kind: type, depth: int = 1, default: Any = None) -> Iterator[Section]:
    """What is in a section, and in that, also where it was met before."""
    hints = typing.get_type_hints(kind)
    for field in fields_of(kind):
        inner = f"{path}.{field.name}".lstrip(".")
        if kind is Config and field.name in ORDERED:
            yield Section(inner, dict, depth, None)
            for name, section in ORDERED[field.name].items():
                yield Section(f"{inner}.{name}", section, depth + 1, None)
                yield from sections(f"{inner}.{name}", section, depth + 2)
            continue
        hint, found = hints[field.name], within(hints[field.name])
        place = f"{inner}.NAME" if typing.get_origin(hint) is dict else inner
        for section in found:
            held = getattr(default, field.name, field.default)
            held = held if isinstance(held, section) else None
            is_kind = any(other.name == "kind" for other in fields_of(section))
            yield Section(place, section, depth, held, is_kind and len(found) > 1)
            yield from sections(place, section, depth + 1, held)


def settings() -> str:
    """Tables of all settings, one for each section of the configuration. Sections that stand in
    several places come last, once."""
    every = [Section("", Config, 1, None), *sections("", Config)]
    places = Counter(section.kind for section in every if section.kind is not dict)
    shared = {s.kind: s._replace(path="", depth=2) for s in every if places[s.kind] > 1}
    titles = {s.kind: name_of(s.kind) if s.kind in shared else s.title for s in every}
    parts = [settings_section(s, titles) for s in every if s.kind not in shared]
    parts.append("## Sections that several settings take")
    return "\n\n".join([*parts, *(settings_section(s, titles) for s in shared.values())])


def settings_section(section: Section, titles: Titles) -> str:
    kind, path = section.kind, section.path
    title = section.title if kind is dict else titles[kind]
    heading = f"{'#' * min(section.depth + 1, 6)} {title}"
    if kind is dict:
        return f"{heading}\n\n{text(Config.__dataclass_fields__[path].metadata['help'])}:"
    hints = typing.get_type_hints(kind)
    rows = [
        setting_row(f"{path}.{field.name}".lstrip("."), field, section, hints[field.name], titles)
        for field in fields_of(kind)
    ]
    said = text((kind.__doc__ or "").split("\n\n")[0])
    head = "setting | meaning | default | values | unit"
    return "\n\n".join([heading, said, table(head, rows) if rows else "It has no settings."])


def name_of(kind: type) -> str:
    """The name of a section that stands in several places: 'distribution'."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__.removesuffix("Config")).lower()


def anchor_of(section: Section, name: str) -> str:
    """Where a setting has its row: settings.html#setting-train-clip-norm. One of several kinds of a
    section has its kind in it, a section that stands in several places its own name."""
    where = section.path or ("" if section.kind is Config else name_of(section.kind))
    kind = section.kind.kind if section.one_of else ""  # type: ignore[attr-defined]
    return re.sub(r"[^a-z0-9]+", "-", f"setting {where} {kind} {name}".lower()).strip("-")


def link_to(title: str) -> str:
    """A link to a heading of the page; anchors are made as GitHub makes them."""
    return f"[{title}](#{re.sub(r'[^a-z0-9_ -]', '', title.lower()).replace(' ', '-')})"


def setting_row(
    name: str, field: dataclasses.Field[Any], section: Section, hint: Any, titles: Titles
) -> list[str]:
    said = values_of(hint)
    meaning, unit = field.metadata.get("help", ""), unit_of(field) if "number" in said else ""
    meaning = text(meaning.replace(f" [{unit}]", "") or about(within(hint)))
    values = ", ".join(filter(None, [text(said), range_of(field.metadata)]))
    if name in ORDERED:
        values = link_to(f"`{name}`")
    links = [link_to(titles[kind]) for kind in within(hint)]
    values = " or ".join(filter(None, [values, *links]))
    anchor = anchor_of(section, field.name)
    shown = f"[`{name}`](#{anchor}){{#{anchor}}}"
    return [shown, meaning, default_of(field, section.default), values, unit]


def about(kinds: list[type]) -> str:
    """What a section is for whose setting has no help: the first sentence of its docstring."""
    first = " ".join((kinds[0].__doc__ or "").split("\n\n")[0].split()).rstrip(".")
    return "one of several kinds" if len(kinds) > 1 else first[:1].lower() + first[1:]


def default_of(field: dataclasses.Field[Any], section: Any) -> str:
    """What holds where nothing is said, as YAML has it; '' for a section, and for none."""
    value = getattr(section, field.name, field.default)
    if value is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING:
        return "must be given"
    return "" if value is None or dataclasses.is_dataclass(value) else f"`{yaml_of(value)}`"


def yaml_of(value: Any) -> str:
    """A default as YAML has it, in a line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {yaml_of(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(yaml_of, value))}]"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number_text(value)
    return str(value).lower() if isinstance(value, bool) else value or "''"


def values_of(hint: Any) -> str:
    """What a setting of this type may hold, in words; '' for a section."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(filter(None, (values_of(a) for a in args if a is not types.NoneType)))
    if origin is typing.Literal:
        return " or ".join(f"`{choice}`" for choice in args)
    if origin is dict:
        inner = values_of(args[1])
        return f"{{NAME: {inner}}}" if inner else ""
    if origin in (list, tuple):
        inner = several(values_of(args[0]))
        number = len(args) if origin is tuple and Ellipsis not in args else "list of"
        return f"{number} {inner}" if inner else ""
    return "" if dataclasses.is_dataclass(hint) else VALUES[hint]


def several(words: str) -> str:
    """The plural of what `values_of` says."""
    return re.sub(r"^(list|number|whole number|text)\b", r"\1s", words)


def range_of(metadata: Mapping[str, Any]) -> str:
    if metadata.get("choices"):
        return " or ".join(f"`{choice}`" for choice in metadata["choices"])
    limits = {"at least": "low", "above": "above", "at most": "high"}
    given = {words: metadata.get(key) for words, key in limits.items()}
    return ", ".join(f"{words} {number_text(v)}" for words, v in given.items() if v is not None)


def unit_of(field: dataclasses.Field[Any]) -> str:
    """The unit that a setting's help gives, or else its name."""
    given = re.findall(r"\[([^\]]*)\]", field.metadata.get("help", ""))
    units = [unit for unit in given if unit in UNITS]
    units += [unit for end, unit in SUFFIXES.items() if f"_{field.name}".endswith(f"_{end}")]
    return units[0] if units else ""


# Public names


def api(names: str) -> str:
    """Public names with their docstrings."""
    return "\n\n".join(map(api_section, names.split()))


def api_section(name: str) -> str:
    is_class = isinstance(getattr(streamtrain, name), type)  # rooms that are called are functions
    lines = [f".. auto{'class' if is_class else 'function'}:: streamtrain.{name}"]
    lines += ["   :members:"] if is_class else []
    return "\n".join(["```{eval-rst}", *lines, "```"])


def signature(
    app: Any, what: str, name: str, of: Any, options: Any, arguments: str | None, result: str | None
) -> tuple[str | None, str | None]:
    """Arguments with types as the code names them; none for classes that functions make."""
    if name.rpartition(".")[2] in MADE_BY_OTHERS:
        return "", None
    return arguments and re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", arguments), result


def as_plain_text(app: Any, what: str, name: str, of: Any, options: Any, lines: list[str]) -> None:
    """Docstrings have code in backticks, which is a link where it is a public name, and no other
    markup: stars and bars are what they are. `observe` is the section, not the function. An example
    at the end stays."""
    examples = [k for k, line in enumerate(lines) if line.startswith(">>> ")]
    prose = lines[: min(examples, default=len(lines))]
    parts = "\n".join(prose).split("`")
    parts[::2] = [re.sub(r"([*|])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"`{part}`" if part in ORDERED else part for part in parts[1::2]]
    lines[: len(prose)] = "`".join(parts).split("\n")


# Examples and pictures


def examples(names: str) -> str:
    """Scripts of examples/, each after the first sentence of its docstring."""
    return "\n\n".join(map(example_section, names.split()))


def example_section(name: str) -> str:
    code = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    title = (ast.get_docstring(ast.parse(code)) or "").partition(".")[0]
    return f"## {title}\n\n`examples/{name}.py`\n\n```python\n{code}```"


def as_table(mermaid: re.Match[str]) -> str:
    """The steps of a flow chart of docs/architecture.md, which GitHub draws."""
    rows = [
        [number, f"`{caller}`", f"`{call}`", f"`{called}`"]
        for caller, number, call, called in EDGE.findall(mermaid[1])
    ]
    return table("step | module | calls | in module", rows) + "\n"


MADE: dict[str, Callable[..., str]] = {
    "commands": commands,
    "settings": settings,
    "api": api,
    "examples": examples,
}


def fill(app: Any, page: str, source: list[str]) -> None:
    """Put what is made into a page that is being read."""
    page_text = MERMAID.sub(as_table, source[0])
    source[0] = MARKER.sub(lambda m: MADE[m[1]](*[m[2]] if m[2] else []), page_text)


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", fill)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-process-docstring", as_plain_text)
    return {"parallel_read_safe": True}
