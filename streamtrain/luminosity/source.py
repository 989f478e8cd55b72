"""Luminosity models as text: the source of a function, in the place of a model's name.

A function of a notebook lies in no file that another process could read. So its source goes into
the configuration, and with that into the folder of a run, its test set and exported files. Such a
text is executed when a run is opened, so it may do arithmetic and nothing else: its own names,
NumPy's functions of numbers, `math` and a few of Python's.
"""

from __future__ import annotations

import ast
import dis
import inspect
import linecache
import math
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from streamtrain.priors import Normal, Sometimes, Uniform
from streamtrain.schema import ConfigError

_PYTHON = (abs, bool, enumerate, float, int, len, max, min, pow, range, sum, tuple, zip)
KNOWN: dict[str, Any] = {
    **{known.__name__: known for known in _PYTHON},
    "np": np,
    "numpy": np,
    "math": math,
    **{kind.__name__: kind for kind in (Normal, Uniform, Sometimes)},
}
"""Names that the text of a model may use besides its own."""
_CONSTANTS = ("pi", "e", "inf", "euler_gamma")
_OF_SEVERAL = ("where", "clip")
_NOT_ARITHMETIC = (
    *(ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal, ast.ClassDef, ast.AsyncFunctionDef),
    *(ast.Yield, ast.YieldFrom, ast.Await, ast.With, ast.AsyncWith, ast.AsyncFor, ast.Try),
)
ATTRIBUTES = ("prior", "z_range", "mass_range_Msun")
"""What a user's function may say of itself besides `on_fraction`, see `registry.user_model`."""
_READS = ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_NAME")


def is_source(model: str) -> bool:
    """Whether the name of a model is the text of one."""
    return model.startswith("def ") or "\n" in model


def model_name(model: str) -> str:
    """What a model is called in tables and as a class: its name; of a function, the function's."""
    if not is_source(model):
        return model.rpartition(":")[2]
    return model.removeprefix("def ").partition("(")[0].strip()


def source_of(function: Callable[..., Any]) -> str:
    """The text of a function of (mass_Msun, z, ...), which `function_of` makes the same model of.

    What it says of itself (`prior`, `on_fraction`, `z_range`, `mass_range_Msun`) becomes lines of
    the text. Raises ConfigError, one sentence, where the source cannot be had, and for a function
    that uses what is not inside it.
    """
    name = getattr(function, "__name__", type(function).__name__)
    parts, said = [_text(function, name)], []
    for attribute in ATTRIBUTES:
        if (value := getattr(function, attribute, None)) is not None:
            said.append(f"{name}.{attribute} = {_literal(value, f'{name}.{attribute}')}")
    if (share := getattr(function, "on_fraction", None)) is not None:
        own = getattr(share, "__name__", type(share).__name__)
        if own == name:
            raise ConfigError(f"{name}.on_fraction must have another name than the model")
        parts.append(_text(share, own))
        said.append(f"{name}.on_fraction = {own}")
    return "\n\n".join([*parts, *["\n".join(said)][: len(said)]]) + "\n"


def function_of(text: str) -> Callable[..., Any]:
    """The function whose source a text is: the first that it defines, with what the lines after it
    say of it. Raises ConfigError, one sentence, for a text that is none, or is no arithmetic."""
    name = model_name(text)
    tree = _parsed(text, name)
    _check(tree, name)
    file = f"<the luminosity model {name}>"
    code = _compiled(tree, name, file)
    for used in _names(code):
        if used not in KNOWN and used not in _defined(tree):
            raise ConfigError(f"the model {name} uses '{used}', {_missing(used, name, None)}")
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    space: dict[str, Any] = {"__builtins__": {}, "__name__": "streamtrain_model", **KNOWN}
    try:
        exec(code, space)
    except Exception as error:
        raise ConfigError(
            f"the source of the model {name} cannot be used: {type(error).__name__}: {error}"
        ) from None
    made: Callable[..., Any] = space[name]
    return made


def _text(function: Callable[..., Any], name: str) -> str:
    """The source of one function, if it is all that the function is."""
    if not isinstance(function, FunctionType) or name == "<lambda>":
        what = "a lambda" if name == "<lambda>" else f"a {type(function).__name__}"
        raise ConfigError(
            f"a run keeps the source of its luminosity model, and cannot keep {what}: write it as "
            "def NAME(mass_Msun, z, *, parameter=1.0)"
        )
    try:
        lines = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        if function.__code__.co_filename == "<stdin>":
            raise ConfigError(
                f"a run keeps the source of its luminosity model, and Python forgets that of {name}"
                ", which was typed at its prompt: write it into a file and name it as "
                f"'file.py:{name}', or define it in a notebook"
            ) from None
        raise ConfigError(
            f"a run keeps the source of its luminosity model, and that of {name} cannot be found: "
            f"put it into a file, and name it as 'file.py:{name}'"
        ) from None
    text = "\n".join(line.rstrip() for line in lines.strip().splitlines())
    if text.startswith("@"):
        raise ConfigError(f"the model {name} is decorated, which a run cannot keep: leave that out")
    tree = _parsed(text, name)
    _check(tree, name)
    code = _compiled(tree, name, name)
    for used in _names(code):
        there = function.__globals__.get(used, KNOWN.get(used))
        if used not in KNOWN or there is not KNOWN[used]:
            raise ConfigError(f"the model {name} uses '{used}', {_missing(used, name, function)}")
    if not _same(function_of(text), function):
        raise ConfigError(
            f"the source of the model {name} is another than the function that was defined from "
            f"it: define {name} again"
        )
    return text


def _parsed(text: str, name: str) -> ast.Module:
    """The text as a tree, without its type hints, which name what is not there."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"the source of the model {name} is no Python: {error}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
    return tree


def _compiled(tree: ast.Module, name: str, file: str) -> CodeType:
    try:
        code: CodeType = compile(tree, file, "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"the source of the model {name} is no Python: {error}") from None
    return code


def _defined(tree: ast.Module) -> list[str]:
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def _check(tree: ast.Module, name: str) -> None:
    """ConfigError for a text that does anything but define functions and say something of them, and
    for functions that do anything but arithmetic."""
    names = _defined(tree)
    if not names or names[0] != name or len(set(names)) < len(names):
        raise ConfigError(
            f"the source of a luminosity model must begin with def, not with '{name[:40]}', and "
            "define no name twice"
        )
    for statement in tree.body:
        if not isinstance(statement, ast.FunctionDef) and not _says(statement, names):
            known = ", ".join(f"{name}.{attribute}" for attribute in (*ATTRIBUTES, "on_fraction"))
            raise ConfigError(
                f"line {statement.lineno} of the source of the model {name} is neither a function "
                f"nor one of {known}"
            )
    for node in ast.walk(tree):
        if problem := _problem(node, names):
            place = f"line {getattr(node, 'lineno', 1)} of the source of the model {name}"
            raise ConfigError(f"{place} {problem}")


def _says(node: ast.stmt, names: list[str]) -> bool:
    """Whether a statement says something of a function: `model.prior = ...`."""
    if not isinstance(node, ast.Assign) or len(node.targets) != 1:
        return False
    target = node.targets[0]
    return (
        isinstance(target, ast.Attribute)
        and isinstance(target.value, ast.Name)
        and target.value.id in names
        and target.attr in (*ATTRIBUTES, "on_fraction")
    )


def _problem(node: ast.AST, names: list[str]) -> str:
    """Why a part of a text is no arithmetic; '' where it is."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return "imports something: np and math are there without that"
    if isinstance(node, _NOT_ARITHMETIC):
        return f"holds {type(node).__name__.lower()}, which a luminosity model does not need"
    if isinstance(node, ast.FunctionDef) and node.decorator_list:
        return "decorates a function, which a run cannot keep"
    if isinstance(node, ast.Name) and node.id.startswith("__"):
        return f"uses {node.id}"
    if isinstance(node, ast.Attribute):
        base = node.value.id if isinstance(node.value, ast.Name) else ""
        if base in ("np", "numpy"):
            known = isinstance(getattr(np, node.attr, None), np.ufunc)
            known = known or node.attr in (*_CONSTANTS, *_OF_SEVERAL)
            return "" if known else f"uses {base}.{node.attr}, which is no function of numbers"
        if base == "math":
            return "" if hasattr(math, node.attr) and node.attr[0] != "_" else "uses " + node.attr
        if base in names and isinstance(node.ctx, ast.Store):
            return ""
        return f"uses the attribute .{node.attr}: write it with np"
    return ""


def _names(code: CodeType) -> Iterator[str]:
    """Names that a text looks up outside its functions, each once."""
    found = dict.fromkeys(
        str(step.argval) for step in dis.get_instructions(code) if step.opname in _READS
    )
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= dict.fromkeys(_names(constant))
    yield from found


def _missing(used: str, name: str, function: FunctionType | None) -> str:
    """Half a sentence about a name that is not in the text of a model."""
    value = None if function is None else function.__globals__.get(used)
    if function is not None and function.__closure__ is not None:
        cells = zip(function.__code__.co_freevars, function.__closure__, strict=True)
        value = dict(cells)[used].cell_contents if used in function.__code__.co_freevars else value
    where = f"which is not inside it, and a run keeps the source of {name} alone"
    if isinstance(value, int | float):
        return f"{where}: make it a parameter, {used}={float(value):g}, or write the number"
    if used in ("np", "numpy", "math"):
        return f"which is not the module of that name here: import {used} before it"
    if isinstance(getattr(np, used, None), np.ufunc) or used in (*_CONSTANTS, *_OF_SEVERAL):
        return f"{where}: write np.{used}"
    return f"{where}: put it inside, or both into a file and name it as 'file.py:{name}'"


def _same(made: Callable[..., Any], given: FunctionType) -> bool:
    """Whether a function that was made from its source is the given one."""
    assert isinstance(made, FunctionType)
    kept, own = (
        str([argument.default for argument in inspect.signature(each).parameters.values()])
        for each in (made, given)
    )
    return kept == own and _content(made.__code__) == _content(given.__code__)


def _content(code: CodeType) -> tuple[Any, ...]:
    """What tells a function from one that was edited: names, numbers and operators in their order.
    How Python looks a name up depends on the file around it."""
    constants = [_content(c) if isinstance(c, CodeType) else c for c in code.co_consts]
    operators = [
        step.argrepr
        for step in dis.get_instructions(code)
        if step.opname in ("BINARY_OP", "COMPARE_OP", "LOAD_SMALL_INT")
    ]
    numbers = repr([constant for constant in constants if not isinstance(constant, str)])
    return code.co_varnames, code.co_names, numbers, operators


def _literal(value: Any, where: str) -> str:
    """A prior or a range as text."""
    if isinstance(value, dict):
        items = (f"{str(key)!r}: {_literal(one, where)}" for key, one in value.items())
        return f"{{{', '.join(items)}}}"
    if isinstance(value, list | tuple | np.ndarray):
        return f"[{', '.join(_literal(one, where) for one in value)}]"
    if is_dataclass(value) and type(value).__name__ in KNOWN:
        said = [
            f"{field.name}={_literal(getattr(value, field.name), where)}"
            for field in fields(value)
            if field.default is MISSING or getattr(value, field.name) != field.default
        ]
        return f"{type(value).__name__}({', '.join(said)})"
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, int | float | np.number) and not np.isnan(value):
        number = float(value)
        return repr(number) if math.isfinite(number) else ("np.inf" if number > 0 else "-np.inf")
    raise ConfigError(f"{where} = {value!r} cannot be kept with a run: use numbers")
