"""YAML texts of configurations: read with care, changed by `dotted.key=value`, written."""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import Any

import yaml

from streamtrain.machine.files import DEBUG, one_line, reason_of
from streamtrain.schema import ConfigError, shown

MAX_VALUES = 1_000_000
"""So many values and no more may a YAML text stand for."""
MAX_WRITTEN = 30_000
"""So many of them may be written down, which takes about a second to read."""
MAX_DIGITS = 1000
"""Characters of a whole number."""
MAX_DEPTH = 100
"""Levels of lists and mappings in a YAML text."""


class _Twice(ConfigError):
    """A key that a mapping has twice."""

    def __init__(self, key: Hashable, line: int, may_be_operator: bool) -> None:
        super().__init__(f"'{key}' is given twice (line {line})")
        self.key, self.may_be_operator = key, may_be_operator


_TOO_DEEP = f"nested too deeply: more than {MAX_DEPTH} levels"


class _UniqueLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, and deep nesting before it takes long."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._written = 0

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        if self.flow_level >= MAX_DEPTH:  # the scanner looks back at all levels for each
            raise yaml.YAMLError(_TOO_DEEP)
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth += 1
        self._written += 1
        if self._depth > MAX_DEPTH:
            raise yaml.YAMLError(_TOO_DEEP)
        if self._written > MAX_WRITTEN:
            raise yaml.YAMLError(f"more than {MAX_WRITTEN} values: name many files by a glob")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _unique_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, Hashable):
            raise ConfigError(f"{shown(key)} cannot be the name of a setting (line {line})")
        if key in seen:
            named = isinstance(value_node, yaml.MappingNode) and key_node.start_mark.column > 0
            raise _Twice(key, line, named)
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


def _short_int(loader: _UniqueLoader, node: yaml.ScalarNode) -> int | str:
    text = str(loader.construct_scalar(node))
    if len(text) > MAX_DIGITS:  # Python shows none of 4300 digits, in hexadecimal or not
        problem = f"a whole number of {len(text)} characters"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    if ":" in text:  # 1:30 is 90 in YAML 1.1
        return text
    digits = text.replace("_", "")
    if digits.lstrip("+-").isdigit():  # and 010 is 8: no seed that a script has padded means that
        return int(digits)
    return int(loader.construct_yaml_int(node))


def _float(loader: _UniqueLoader, node: yaml.ScalarNode) -> float | str:
    text = str(loader.construct_scalar(node))
    return text if ":" in text else float(loader.construct_yaml_float(node))


_UniqueLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
_UniqueLoader.add_constructor("tag:yaml.org,2002:int", _short_int)
_UniqueLoader.add_constructor("tag:yaml.org,2002:float", _float)


def parse_yaml(text: str, name: str, *, suffixes: bool = False) -> Any:
    """YAML text to plain data; ConfigError with one sentence for a syntax error and for a key that
    is given twice. suffixes: tell of `noise_2`, which a configuration has for that."""
    try:
        loader = _UniqueLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_aliases(node)
        return loader.construct_document(node)
    except _Twice as error:
        if not suffixes or not error.may_be_operator:
            raise
        raise ConfigError(
            f"{error}; a second use of an operator takes a suffix, as in '{error.key}_2'"
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise ConfigError(f"{name} is not valid YAML{place}: {one_line(problem)}") from None
    except (ValueError, ArithmeticError, LookupError, RecursionError) as error:
        # dates, digits, a number without any, depth
        if isinstance(error, ConfigError) or os.environ.get(DEBUG):
            raise
        raise ConfigError(f"{name} is not valid YAML: {reason_of(error)}") from error


def _check_aliases(root: yaml.Node) -> None:
    """ConfigError for YAML whose aliases unfold to more than `MAX_VALUES` values, or to
    themselves."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if not isinstance(node, yaml.CollectionNode):
            return 1
        if id(node) not in sizes:
            sizes[id(node)] = MAX_VALUES + 1  # until it is known: what holds itself has no end
            parts = [
                a for part in node.value for a in (part if isinstance(part, tuple) else [part])
            ]
            sizes[id(node)] = 1 + sum(size(part) for part in parts)
        return sizes[id(node)]

    if size(root) > MAX_VALUES:
        raise ConfigError(f"its aliases unfold to more than {MAX_VALUES} values")


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set one `dotted.key=value` (the value is YAML) in a nested mapping."""
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"'{override}' is not of the form dotted.key=value")
    *parents, last = key.strip().split(".")
    node = data
    for depth, parent in enumerate(parents):
        child = node.get(parent)
        if child is None:
            child = node[parent] = {}
        if not isinstance(child, dict):
            raise ConfigError(
                f"'{key}': '{'.'.join(parents[: depth + 1])}' is a value, not a section"
            )
        node = child
    node[last] = parse_yaml(text, f"the value of {key}")


class _Dumper(yaml.SafeDumper):
    """Writes a text of several lines as it stands."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def yaml_text(data: Any) -> str:
    """Plain data as YAML that `parse_yaml` reads back, in the order that they have."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=100)
