"""The README's Python runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamtrain.cli import main
from streamtrain.config import load_config
from streamtrain.resources import resource_dir

README = Path(__file__).resolve().parent.parent / "README.md"


def test_python_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(README.parent)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert tuple(names["cube"].shape) == (20, 64, 64)  # type: ignore[attr-defined]
    assert int(names["counts"].sum()) > 1000  # type: ignore[attr-defined]


@pytest.mark.parametrize("file", sorted(resource_dir("configs").rglob("*.yaml")), ids=str)
def test_shipped_configurations_are_valid(file: Path) -> None:
    load_config(file)


def test_readme_commands_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """Every `streamtrain ...` line of the README parses."""
    text = README.read_text(encoding="utf-8")
    lines = re.findall(r"^    streamtrain (.*?)(?:\s+#.*)?$", text, re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        command = [word for word in line.split() if not word.startswith("-")][:2]
        with pytest.raises(SystemExit) as stop:
            main([*command[: 2 if command[0] in ("catalog", "testset") else 1], "--help"])
        assert stop.value.code == 0
    capsys.readouterr()
