"""The code in the README and in docs/ runs as it stands there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from support import ROOT, TESTS, small

from streamtrain import Generator
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cli.main import _options, _parse, _parser
from streamtrain.config import from_mapping, load_config
from streamtrain.luminosity.registry import MODELS
from streamtrain.shipped import find_shipped

README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_python_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(README.parent)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert tuple(names["cube"].shape) == (20, 64, 64)  # type: ignore[attr-defined]
    assert int(names["counts"].sum()) > 1000  # type: ignore[attr-defined]


@small.EXTRAPOLATES
def test_configuration(tmp_path: Path, small_sky: Lightcone) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "mine.yaml").write_text(block)
    config = load_config(tmp_path / "mine.yaml", ["grid.fov_deg=[0.8, 0.8]"])
    batch = Generator(config, lightcones=[small_sky]).generate(range(6))
    assert {record["model"] for record in batch.draws} <= {"li16", "chung22"}
    assert batch.cube.shape == (6, 10, 64, 64)


@small.ASSUMES
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_a_page_can_be_given(page: Path) -> None:
    """Every line `streamtrain ...` parses, and its settings are valid: of the configuration that
    it names, if that ships. What a sentence says of a command are options that it has."""
    text = re.sub(r" \\\n +", " ", page.read_text(encoding="utf-8"))
    for line in re.findall(r"^    (?:torchrun .* )?(streamtrain .+)$", text, re.MULTILINE):
        given = _parse(shlex.split(line, comments=True)[1:])
        ships = find_shipped(getattr(given, "config", None) or "")
        load_config(ships if ships.is_file() else "reference.yaml", getattr(given, "settings", []))
    parser = _parser()
    commands = "|".join(parser._subparsers._group_actions[0].choices)  # type: ignore
    for words in re.findall(rf"`(?:streamtrain )?((?:{commands}) [^`]+)`", text):
        said = re.findall(r"(?<!\S)--[\w-]+", words)
        assert {*said} <= {*_options(parser, words.split())}, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_of_the_checkout_that_a_page_names_exist(page: Path) -> None:
    folders = "configs|docs|examples|kernels|launch|streamtrain|tests"
    text = page.read_text(encoding="utf-8")
    for name in re.findall(rf"(?<![\w/.-])(?:{folders})/[\w./-]*\w", text):
        assert (ROOT / name).exists(), name


@small.EXTRAPOLATES
def test_models_page(tmp_path: Path) -> None:
    """The user's model and the YAML of docs/models.md make samples."""
    text = (README.parent / "docs" / "models.md").read_text(encoding="utf-8")
    (python,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 4
    file = tmp_path / "my_models.py"
    file.write_text(python)
    own = [f"emit.line.model={file}:my_line", "emit.line.prior=own"]
    settings = [
        [f"{key}={json.dumps(value)}" for key, value in yaml.safe_load(block).items()]
        for block in blocks
    ]
    for overrides in (own, *settings):
        config = load_config("configs/reference.yaml", overrides)
        batch = Generator(config, "test").generate(range(8))
        assert batch.counts.sum(1).median() > 100
        assert batch.draws[0]["parameters"] != batch.draws[1]["parameters"]
    mean = {
        model: Generator(load_config("configs/reference.yaml", [*line, "observe={}"]), "test")
        .generate(range(8))
        .cube.mean()
        for model, line in (("own", own), ("li16", ["emit.line.model=li16"]))
    }
    assert 0.3 < mean["own"] / mean["li16"] < 3.0  # as bright as what is published


@small.ASSUMES
def test_observe_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every YAML block of docs/observe.md is a configuration whose operators can be built, from
    files of the names that they say."""
    monkeypatch.chdir(TESTS / "data")
    text = (README.parent / "docs" / "observe.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 3
    grid = {"shape": [100, 256, 256]}
    for block in blocks:
        config = from_mapping({"grid": grid, **yaml.safe_load(block)})
        assert config.observation.operators()


@pytest.mark.parametrize("page", ["emit", "labels"])
def test_settings_of_the_other_pages_are_valid(page: str) -> None:
    """Each `key: value` line of a block is a section by itself in labels.md."""
    text = (README.parent / "docs" / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    if page == "labels":
        blocks = blocks[0].splitlines()
    assert blocks
    for block in blocks:
        from_mapping(yaml.safe_load(block))


def test_models_page_names_every_model() -> None:
    text = (README.parent / "docs" / "models.md").read_text(encoding="utf-8")
    for name, model in MODELS.items():
        stem = re.sub(r"\d+$|_m\d$", "", name) if "kamenetzky" in name or "silva" in name else name
        assert stem in text
        row = next(line for line in text.splitlines() if line.startswith(f"| {stem}"))
        assert all(parameter in row or stem == "keating20" for parameter in model.defaults)
        assert all(prior in row for prior in model.priors)
        assert model.z_range is not None and model.mass_range_Msun is not None
        low, high = (f"{end:g}".replace("e+", "e") for end in model.mass_range_Msun)
        masses = f"{low}..{high}" if high != "inf" else "any" if low == "0" else f"> {low}"
        low, high = (f"{end:g}" for end in model.z_range)
        assert row.endswith(f"| {low}..{high} | {masses.replace('e0', 'e')} |")
