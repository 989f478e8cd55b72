"""A function of a notebook as a luminosity model: its source is the model."""

from __future__ import annotations

import functools
import linecache
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy import exp
from support import small

from streamtrain import Generator, load_config, priors
from streamtrain.config import Config
from streamtrain.luminosity.registry import find_model, user_model
from streamtrain.luminosity.source import function_of, is_source, model_name, source_of
from streamtrain.priors import Normal, Sometimes, Uniform
from streamtrain.schema import ConfigError

SCALE = 3.0


def shining(mass_Msun, z, *, duty=0.4):
    return duty * (1 + z) / 4


def bright(mass_Msun: np.ndarray, z: Any, *, amplitude=1e-6, knee=3e11, sigma_dex=0.3) -> Any:
    """L [Lsun] with a bend,

    and a docstring of two paragraphs.
    """
    # what a comment says stays
    bend = np.where(mass_Msun > knee, (mass_Msun / knee) ** -0.5, 1.0)

    return amplitude * mass_Msun * bend * (1 + z) ** math.sqrt(0.25)


bright.prior = {  # type: ignore[attr-defined]
    "amplitude": (1e-6, 2e-7),
    "knee": Uniform(1e11, np.float64(1e12), log=True),
    "sigma_dex": Sometimes(0.2, 0.0, Normal(0.3, 0.1, low=0.0)),
}
bright.on_fraction = shining  # type: ignore[attr-defined]
bright.z_range = (2, math.inf)  # type: ignore[attr-defined]


def config(model: Any, **changes: Any) -> Config:
    return load_config("reference.yaml", emit={"line": {"model": model, "prior": "own"}}, **changes)


def test_the_text_is_the_same_model() -> None:
    text = source_of(bright)
    assert is_source(text) and model_name(text) == "bright"
    assert "# what a comment says stays" in text and "two paragraphs" in text
    found, expected = find_model(text), user_model(bright)
    assert found.defaults == expected.defaults and found.z_range == expected.z_range
    assert found.priors == expected.priors
    mass, z = np.logspace(10, 13, 20), np.linspace(2, 3, 20)
    assert np.array_equal(found.function(mass, z), bright(mass, z))
    assert found.on_fraction is not None
    assert np.array_equal(found.on_fraction(mass, z), shining(mass, z))


def test_samples_are_those_of_the_function_in_a_file(tmp_path: Path) -> None:
    """And those of the configuration that is read back from its own YAML."""
    kept = config(bright)
    assert kept.line.class_names == ["bright"]
    (tmp_path / "kept.yaml").write_text(kept.to_yaml())
    again = load_config(tmp_path / "kept.yaml")
    assert again == kept and again.digest() == kept.digest()
    assert "      bend = np.where(mass_Msun > knee" in kept.to_yaml(), "it can be read there"
    (tmp_path / "model.py").write_text(
        "import math\nfrom typing import Any\nimport numpy as np\n"
        "from streamtrain.priors import *\n" + source_of(bright)
    )
    named = config(f"{tmp_path / 'model.py'}:bright")
    digests, identities = set(), set()
    for each in (kept, again, named):
        with_samples = Generator(each, "test")
        batch = with_samples.generate(range(4))
        digests.add(tuple(batch.digests()))
        identities.add(str(with_samples.identity()))
        assert batch.draws[0]["model"] == "bright"
    assert len(digests) == len(identities) == 1
    assert config(shifted := _copy(bright, "1e-6", "2e-6")).digest() != kept.digest(), shifted


def _copy(function: Any, old: str, new: str) -> Any:
    """A function of a cell of a notebook, whose source IPython puts into linecache."""
    text = source_of(function).replace(old, new)
    file = "<ipython-input-7-test>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    names: dict[str, Any] = {"np": np, "math": math, "Any": Any, **vars(priors)}
    exec(compile(text, file, "exec"), names)
    return names[function.__name__]


def test_a_cell_of_a_notebook() -> None:
    cell = _copy(bright, "1e-6", "5e-6")
    assert find_model(source_of(cell)).defaults["amplitude"] == 5e-6


def test_a_mixture_and_an_interloper() -> None:
    emit = {
        "line": {"mixture": {"mine": {"model": bright}, "li16": {}}},
        "interloper": {"model": shining, "nu_rest_GHz": 230.54},
    }
    found = load_config("reference.yaml", emit=emit)
    assert found.line.class_names == ["mine", "li16"]
    assert found.line.components["mine"].model == source_of(bright)
    assert model_name(found.emit["interloper"].model) == "shining"


def outside(mass_Msun, z):
    return SCALE * mass_Msun


def imports(mass_Msun, z):
    import os

    return mass_Msun * len(os.sep)


def helped(mass_Msun, z):
    return outside(mass_Msun, z)


def bare(mass_Msun, z):
    return exp(-z) * mass_Msun


def reads(mass_Msun, z):
    return np.load("table.npy") * mass_Msun


def reaches(mass_Msun, z):
    return ().__class__.__mro__


def method(mass_Msun, z):
    return mass_Msun.clip(0, 1)


def looks(mass_Msun, z):
    return __import__("os")


@functools.lru_cache
def cached(mass_Msun, z):
    return mass_Msun


def closure(factor: float) -> Any:
    def inner(mass_Msun, z):
        return factor * mass_Msun

    return inner


def badly_said(mass_Msun, z):
    return mass_Msun


badly_said.prior = {"x": "wide"}  # type: ignore[attr-defined]
typed: dict[str, Any] = {}
exec("def typed_in(mass_Msun, z):\n    return mass_Msun", typed)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (outside, r"uses 'SCALE', which is not inside it.* make it a parameter, SCALE=3, or write"),
        (closure(2.5), "uses 'factor', .* make it a parameter, factor=2.5"),
        (helped, "uses 'outside', .* or both into a file and name it as 'file.py:helped'"),
        (imports, "line 2 of the source of the model imports imports something: np and math are"),
        (bare, "uses 'exp', .* write np.exp"),
        (reads, "uses np.load, which is no function of numbers"),
        (reaches, "uses the attribute .__"),
        (method, "uses the attribute .clip: write it with np"),
        (looks, "uses __import__"),
        (lambda mass_Msun, z: mass_Msun, "cannot keep a lambda: write it as def"),
        (cached, "cannot keep a _lru_cache_wrapper"),
        (functools.partial(outside, z=2), "cannot keep a partial"),
        (typed["typed_in"], "that of typed_in cannot be found: put it into a file"),
        (badly_said, "badly_said.prior = 'wide' cannot be kept with a run: use numbers"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_kept_is_a_sentence(function: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        config(function)
    assert "\n" not in str(caught.value)


def test_a_function_that_was_typed_at_the_prompt() -> None:
    """One sentence with the way out, below two frames: the user's, and `load_config`."""
    space: dict[str, Any] = {}
    text = "def at_prompt(mass_Msun, z):\n    return 1e-6 * mass_Msun\n"
    exec(compile(text, "<stdin>", "single"), space)
    sentence = "was typed at its prompt: write it into a file .* 'file.py:at_prompt', or define it"
    with pytest.raises(ConfigError, match=sentence) as caught:
        load_config({}, emit={"line": {"model": space["at_prompt"]}})
    assert [frame.name for frame in caught.traceback] == [
        "test_a_function_that_was_typed_at_the_prompt",
        "load_config",
    ]


def test_a_function_whose_file_was_edited_since(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = _copy(bright, "1e-6", "5e-6")
    size, _, lines, file = linecache.cache["<ipython-input-7-test>"]  # type: ignore[misc]
    other = [line.replace("-0.5", "-0.6") for line in lines]
    monkeypatch.setitem(linecache.cache, file, (size, None, other, file))
    with pytest.raises(ConfigError, match=r"another than the function .*: define bright again"):
        source_of(cell)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(mass_Msun, z):\n    return open('x')\n", "the model f uses 'open'"),
        ("def f(mass_Msun, z):\n    return eval('1')\n", "the model f uses 'eval'"),
        ("def f(mass_Msun, z):\n    return np.lib.npyio\n", "uses the attribute .npyio"),
        ("def f(mass_Msun, z):\n    return np.add.reduce(z)\n", "uses the attribute .reduce"),
        ("def f(mass_Msun, z, *, a=open('x')):\n    return z\n", "the model f uses 'open'"),
        ("def f(mass_Msun, z: open('x')):\n    return z\nprint(1)\n", "line 3 .* is neither a fu"),
        ("def f(mass_Msun, z):\n    return z\nf.prior = open('x')\n", "the model f uses 'open'"),
        ("def f(mass_Msun, z):\n    return z\nf.__code__ = 3\n", "line 3 .* is neither a function"),
        ("def f(mass_Msun, z):\n    return (\n", "is no Python"),
        ("def f(mass_Msun, z):\n    z = 1\n    global z\n    return z\n", "line 3 .* holds global"),
        ("def f(mass_Msun, z):\n    break\n", "is no Python: 'break' outside loop"),
        ("import os\ndef f(mass_Msun, z):\n    return z\n", "must begin with def"),
        ("def f(z):\n    return z\n", "must start with the arguments mass_Msun, z"),
        ("def f(mass_Msun, z):\n    return z\nf.prior = {'a': 1 / 0}\n", "division by zero"),
    ],
)
def test_a_text_does_arithmetic_and_nothing_else(text: str, message: str) -> None:
    """Whoever opens another's run executes the text that is in it."""
    with pytest.raises(ConfigError, match=message):
        find_model(text)


def test_type_hints_are_not_executed() -> None:
    made = function_of("def f(mass_Msun: open('x'), z) -> exit():\n    return 2 * z\n")
    assert made(1.0, 2.0) == 4.0 and not made.__annotations__


@small.EXTRAPOLATES
def test_a_wrong_line_is_shown_with_the_function() -> None:
    """The tracer's message names the function, and its line in the text."""
    text = "def f(mass_Msun, z):\n    if z > 2:\n        return z\n    return mass_Msun\n"
    with pytest.raises(ValueError, match=r"in f \(<the luminosity model f>, line 2\) cannot be co"):
        Generator(load_config("reference.yaml", emit={"line": {"model": text}}), "test")


def test_a_model_without_priors_is_told_how_its_parameters_get_one() -> None:
    """And what it is told draws them."""

    def plain(mass_Msun, z, *, slope=-3.0):
        return 1e-6 * mass_Msun * (1 + z) ** slope

    with pytest.raises(ConfigError, match="has no prior 'own': valid: fiducial; its par") as caught:
        own = load_config(small.config(), emit={"line": {"model": plain, "prior": "own"}})
        Generator(own, lightcones=[small.lightcone(num=50)])
    told = yaml.safe_load(str(caught.value).partition("of their own by ")[2])
    line = {"model": plain, **told}
    config = load_config(small.config(label={"bins": 7}), emit={"line": line})
    generator = Generator(config, lightcones=[small.lightcone(num=50)])
    drawn = [draw["parameters"]["slope"] for draw in generator.generate(range(200)).draws]
    assert np.mean(drawn) == pytest.approx(-3.0, abs=0.15)
    assert np.std(drawn) == pytest.approx(0.6, abs=0.1)
