"""The page of the package index: README.md without what leads nowhere there. All else that a build
needs stands in setup.cfg."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import setup

PICTURE = re.compile(r"!\[[^\]]*\]\((?!https?:)[^)]*\)\n\n(\*.*?\*\n\n)?", re.DOTALL)
"""A picture of the repository, with the paragraph in italics below it."""
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)([^)#]*)(#[^)]*)?\)")
WHERE = """\
This page names files: docs/, examples/, launch/ and configs/ are in the source distribution, and
`pip install` brings the commands, the presets, the trained networks and the examples, which
`streamtrain examples` writes into the folder examples/."""


def page(readme: str) -> str:
    """README.md with its links to files as their names, without its pictures."""

    def name(link: re.Match[str]) -> str:
        text, file, _ = link.groups()
        return text if not file or text == file else f"{text} ({file})"

    head, about, rest = LINK.sub(name, PICTURE.sub("", readme)).split("\n\n", 2)
    return "\n\n".join([head, about, WHERE, rest])


if __name__ == "__main__":
    text = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    setup(long_description=page(text), long_description_content_type="text/markdown")
