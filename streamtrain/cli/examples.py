"""The command `examples`: the example scripts, written into a folder of the user's."""

from __future__ import annotations

import argparse
import ast
import json
from pathlib import Path
from typing import Any

from streamtrain.machine.files import write_text
from streamtrain.shipped import resource_dir
from streamtrain.tables import columns

DESCRIPTION = """Write the example scripts and a notebook into a folder, to be run and changed into
yours, and list what each shows. Files that are there are kept."""


def add_examples(commands: Any) -> None:
    """Add the command to those of `streamtrain`."""
    command = commands.add_parser(
        "examples", help="write the example scripts into a folder", description=DESCRIPTION
    )
    command.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("examples"),
        metavar="FOLDER",
        help="where they are written [%(default)s]",
    )
    command.set_defaults(run=run_examples)


def run_examples(arguments: argparse.Namespace) -> int:
    """Run the command; raises OSError for a folder that cannot be written."""
    folder, rows, written = arguments.folder, [], 0
    for source in sorted(resource_dir("examples").glob("[!_]*.*")):
        text, target = source.read_text(encoding="utf-8"), folder / source.name
        there = target.exists()
        if not there:
            write_text(target, text)
            written += 1
        kept = there and target.read_bytes() != text.encode()
        rows.append([str(target), title_of(source.name, text) + " (yours, kept)" * kept])
    print("\n".join(columns(["example", "what it shows"], rows, left=(0, 1))))
    print(f"wrote {written} of {len(rows)} into {folder}" if written else "all are there already")
    return 0


def title_of(name: str, text: str) -> str:
    """What an example is for: the first sentence of a script, the heading of a notebook."""
    if name.endswith(".ipynb"):
        heading = "".join(json.loads(text)["cells"][0]["source"])
        return heading.partition("\n")[0].removeprefix("# ")
    return (ast.get_docstring(ast.parse(text)) or "").partition(".")[0]
