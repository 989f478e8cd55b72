"""The command `streamtrain`: thin wrappers around the library, one function per command."""

from __future__ import annotations

import argparse
import ast
import contextlib
import errno
import json
import os
import select
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamtrain._version import __version__
from streamtrain.cli.bench import add_bench
from streamtrain.cli.catalog import add_compare, add_import, add_make, command_for, make_catalog
from streamtrain.cli.common import (
    Parser,
    config_of,
    resources_of,
    taken,
    with_config,
    with_device,
)
from streamtrain.cli.evaluate import add_evaluate, add_testset
from streamtrain.cli.maps import add_export, add_infer, add_map
from streamtrain.cli.runs import (
    add_alarm,
    add_calibrate,
    add_compare_runs,
    add_layers,
    add_mcmc,
    add_runs,
)
from streamtrain.machine.files import DEBUG, DISK_FULL, one_line, write_text
from streamtrain.machine.interrupt import PIPE_CLOSED
from streamtrain.schema import AssumptionWarning, nearest
from streamtrain.shipped import resource_dir
from streamtrain.tables import columns

DESCRIPTION = """Training data for line-intensity mapping, generated on the fly.

Commands that take CONFIG read a YAML file (or the name of one that ships with streamtrain) and
`dotted.key=value` settings after it; --print-config shows the resolved whole."""

MAX_MESSAGE = 4000
"""Characters of a sentence."""


def _check(arguments: argparse.Namespace) -> int:
    from streamtrain.check import check

    return check()


def _examples(arguments: argparse.Namespace) -> int:
    folder, rows, written = arguments.folder, [], 0
    for source in sorted(resource_dir("examples").glob("[!_]*.*")):
        text, target = source.read_text(encoding="utf-8"), folder / source.name
        there = target.exists()
        if not there:
            write_text(target, text)
            written += 1
        kept = there and target.read_bytes() != text.encode()
        rows.append([str(target), _title(source.name, text) + " (yours, kept)" * kept])
    print("\n".join(columns(["example", "what it shows"], rows, left=(0, 1))))
    print(f"wrote {written} of {len(rows)} into {folder}" if written else "all are there already")
    return 0


def _title(name: str, text: str) -> str:
    """What an example is for: the first sentence of a script, the heading of a notebook."""
    if name.endswith(".ipynb"):
        heading = "".join(json.loads(text)["cells"][0]["source"])
        return heading.partition("\n")[0].removeprefix("# ")
    return (ast.get_docstring(ast.parse(text)) or "").partition(".")[0]


def _train(arguments: argparse.Namespace) -> int:
    from streamtrain.api import train
    from streamtrain.machine.interrupt import Unfinished

    with contextlib.suppress(Unfinished):  # a launcher takes another status than 0 for a failure
        train(config_of(arguments), device=arguments.device)
    return 0


def _preview(arguments: argparse.Namespace) -> int:
    from streamtrain.preview.prior import preview_prior
    from streamtrain.preview.sample import NUM_SAMPLES, preview_sample

    prior, index, split, channel = taken(arguments, "prior", "index", "split", "channel").values()
    if prior and index is None and (split is not None or channel is not None):
        raise ValueError("--split and --channel are of a sample: name one with --index")
    config = config_of(arguments)
    options: dict[str, Any] = {"out": arguments.out, "resources": resources_of(arguments)}
    given = arguments.samples
    if index is not None or not prior:
        samples = NUM_SAMPLES if given is None else given
        more = {"split": split or "train", "channel": channel, "samples": samples}
        preview_sample(config, index or 0, **more, **options)
    if prior:
        samples = 1000 if given is None else given
        preview_prior(config, samples=samples, index=index or 0, **options)
    return 0


def _catalog_info(arguments: argparse.Namespace) -> int:
    from streamtrain.catalogs.readers import read

    for number, file in enumerate(arguments.files):
        print(("\n" if number else "") + read(file).describe())
    return 0


def _options(parser: argparse.ArgumentParser, words: list[str]) -> list[str]:
    """Names of the options of the command that the words begin with."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for number, word in enumerate(words):
                if word in action.choices:
                    return _options(action.choices[word], words[number + 1 :])
    return [name for name in parser._option_string_actions if name.startswith("--")]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="streamtrain",
        description=DESCRIPTION,
    )
    parser.add_argument("--version", action="version", version=f"streamtrain {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    configured, device = with_config(), with_device()

    command = commands.add_parser(
        "check",
        help="what this machine has; a bit-exactness test",
        description="List what this machine has, and check that it makes the published bits.",
    )
    command.set_defaults(run=_check)
    command = commands.add_parser(
        "examples",
        help="write the example scripts into a folder",
        description="Write the example scripts and a notebook into a folder, to be run and changed "
        "into yours, and list what each shows. Files that are there are kept.",
    )
    command.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("examples"),
        metavar="FOLDER",
        help="where they are written [%(default)s]",
    )
    command.set_defaults(run=_examples)

    catalog = commands.add_parser(
        "catalog",
        help="make, import and inspect halo lightcones",
        description="Make, import, inspect and compare halo lightcones.",
    )
    kinds = catalog.add_subparsers(metavar="COMMAND", required=True)
    command = kinds.add_parser(
        "make",
        help="synthesise lightcones from seeds; resumable",
        description="Synthesise lightcones from seeds. Files that are there are kept.",
    )
    add_make(command)
    command.set_defaults(run=make_catalog, settings=[])
    add_import(kinds)
    command = kinds.add_parser(
        "info",
        help="what a lightcone holds, and whether its units fit",
        description="Print what a lightcone holds, and check that its units can be right.",
    )
    command.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="a lightcone, also of another program"
    )
    command.set_defaults(run=_catalog_info)
    add_compare(kinds)

    command = commands.add_parser(
        "preview",
        parents=[configured, device],
        help="figures of a prior, or of one sample",
        description="Draw what a configuration will generate, before any training.",
    )
    command.add_argument(
        "--prior",
        action="store_true",
        help="luminosity functions and mean temperatures of many samples: prior.png, and N, phi "
        "and phi L of the training sample --index (0): luminosity.png",
    )
    command.add_argument(
        "--index",
        type=int,
        help="what this sample is made of, step by step: sample_INDEX.png; without --prior: 0",
    )
    command.add_argument("--split", help="split of the sample: train, validation or test [train]")
    command.add_argument(
        "--channel", type=int, help="frequency slice of its maps; default: the middle one"
    )
    command.add_argument(
        "--samples", type=int, help="samples to paint for the prior [1000 with --prior, else 200]"
    )
    command.add_argument("--out", type=Path, help="folder; default: the run folder")
    command.set_defaults(run=_preview)
    command = commands.add_parser(
        "train",
        parents=[configured, device],
        help="train, or continue training",
        description="Train a network on generated samples. The same command continues an "
        "interrupted training with the next sample.",
    )
    command.set_defaults(run=_train)
    add_testset(commands, [configured, device])
    add_evaluate(commands, [configured, device])
    add_alarm(commands, device)
    add_calibrate(commands, [device])
    add_map(commands)
    add_infer(commands, device)
    add_export(commands, configured, device)
    add_compare_runs(commands, [device])
    add_runs(commands)
    add_layers(commands, [device])
    add_bench(commands, [configured, device])
    add_mcmc(commands, [configured, device])
    return parser


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; settings may stand before, between and after options."""
    parser = _parser()
    words = list(sys.argv[1:] if arguments is None else arguments)
    given, rest = parser.parse_known_args(words)
    settings = [text for text in rest if "=" in text and not text.startswith("-")]
    wrong = [text for text in rest if text not in settings]
    for option in (text for text in wrong if text.startswith("--")):
        hint = nearest(option.partition("=")[0], _options(parser, words))
        parser.error(f"there is no option '{option}': {hint}")
    if wrong or (settings and "settings" not in given):
        parser.error(f"unrecognized arguments: {' '.join(wrong or settings)}")
    for name, known in (("on", _is_setting), ("catalogs", _is_setting_not_maker)):
        if values := getattr(given, name, None):  # takes all words up to the next option
            settings += [text for text in values if known(text)]
            setattr(given, name, [text for text in values if not known(text)])
    if settings:
        given.settings = [*given.settings, *settings]
    return given


def _is_setting(text: str) -> bool:
    """Whether a word is key=value, and no file."""
    return "=" in text and not os.path.exists(text)


def _is_setting_not_maker(text: str) -> bool:
    """Whether a word is key=value of the configuration, and no NAME=FILES."""
    from streamtrain.config import Config

    return "=" in text and text.partition("=")[0].partition(".")[0] in Config.__dataclass_fields__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Exit status: 0 done (of `train` also: stopped, with a checkpoint), 1 failed,
    2 bad input (one sentence on stderr), 130 interrupted, 128 + n ended by the signal n, 141 nobody
    reads its output."""
    given = _parse(arguments)
    from streamtrain.machine.interrupt import Interrupted, interruptible
    from streamtrain.schema import ModelRangeWarning

    usual, came, told = warnings.showwarning, list[int](), set[str]()

    def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
        ours = issubclass(category, AssumptionWarning | ModelRangeWarning)
        if os.environ.get(DEBUG) and not ours:
            return usual(message, category, *where, **more)
        if ours and str(message) in told:  # of a generator before, of the same configuration
            return None
        told.add(str(message))
        rank, prefix = os.environ.get("RANK", "0"), ""
        if not ours:  # of a library
            message = f"{message} ({category.__name__}, {Path(where[0]).name}, line {where[1]})"
            prefix = f"rank {one_line(rank)}: " if rank != "0" else ""
        if prefix or rank == "0":
            with contextlib.suppress(OSError):
                said = f"streamtrain: {prefix}warning: {one_line(message, MAX_MESSAGE)}"
                print(said, file=sys.stderr)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            if getattr(given, "print_config", False):
                print(config_of(given).to_yaml(), end="")
                return 0
            with contextlib.nullcontext() if given.run is _train else interruptible(came):
                status: int = given.run(given)
        return status
    except Interrupted as error:
        return _fail(f"interrupted by {error}", 128 + error.number, in_all_ranks=True)
    except KeyboardInterrupt:
        return _fail("interrupted", 130, in_all_ranks=True)
    except Exception as error:
        if came:  # a library made another error of it
            return _fail("interrupted", 128 + came[0], in_all_ranks=True)
        of_training = _is_of(error, "streamtrain.train.trainer", "TrainingError")
        of_ours = of_training or _is_of(error, "streamtrain.numerics.backend", "BackendError")
        distributed: Any = sys.modules.get("streamtrain.train.distributed")
        everywhere = of_training or (distributed is not None and distributed.from_main(error))
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return PIPE_CLOSED
        known = of_ours or isinstance(error, ValueError | OSError)
        if os.environ.get(DEBUG) and not of_ours:
            raise
        if _of_an_import(error):
            text = f"a library that it needs cannot be imported: {type(error).__name__}: {error}"
            return _fail(text, 1, in_all_ranks=False)
        status = 2 if isinstance(error, ValueError | OSError) else 1
        text = _told(error) + command_for(error, given) if known else _unexpected(error)
        return _fail(text or type(error).__name__, status, in_all_ranks=everywhere)


def _is_of(error: Exception, module: str, name: str) -> bool:
    """Whether an error is of a class of a module, which is not imported for that: these import
    torch, which takes longer than many a command."""
    return isinstance(error, getattr(sys.modules.get(module), name, ()))


def _of_an_import(error: Exception) -> bool:
    """Whether an error is of a library while it was imported, by a line of ours."""
    names = [
        "" if f"{os.sep}streamtrain{os.sep}" in frame.filename else frame.name
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    beyond = len(names) - names[::-1].index("") if "" in names else 0
    return isinstance(error, ImportError) or names[beyond : beyond + 1] == ["<module>"]


def _nobody_reads() -> bool:
    """Whether the reader of what is printed has gone (`| head`)."""
    poll = select.poll()
    poll.register(1, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _unexpected(error: BaseException) -> str:
    """An error that nobody has thought of, with the last place of ours."""
    places = [
        f"{frame.name} ({Path(frame.filename).name}, line {frame.lineno})"
        for frame in traceback.extract_tb(error.__traceback__)
        if f"{os.sep}streamtrain{os.sep}" in frame.filename
    ]
    where = places[-1] if places else "the command"
    what = type(error).__name__ + (f": {str(error)[:500]}" if str(error) else "")
    if type(error).__name__.startswith("Dist") or any(
        sign in str(error)
        for sign in ("Connection closed by peer", "gloo/transport/tcp/pair", "remote worker")
    ):  # of torch.distributed; gloo has no class of its own
        return f"another rank has ended: {what[:80]}"
    said = str(error).lower()  # of CUDA; of torch on a CPU
    if isinstance(error, MemoryError) or "out of memory" in said or "allocate memory" in said:
        return f"not enough memory in {where}: {what}"
    return (
        f"internal error in {where}: {what}; please report it (STREAMTRAIN_DEBUG=1 shows all of it)"
    )


def _told(error: Exception) -> str:
    """A sentence of this package as it is; one for the system's error about a file."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    where = error.filename2 if error.filename2 is not None else error.filename
    if error.errno in DISK_FULL:
        return f"{where} cannot be written: the disk is full" if where else "the disk is full"
    if where is None or error.errno not in errno.errorcode:
        return str(error)
    return f"{os.fsdecode(where)} cannot be used: {os.strerror(error.errno)}"


def _fail(message: str, status: int, *, in_all_ranks: bool) -> int:
    """Say what happened: once if it happened in all ranks, else with the number of this one."""
    rank, alone = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1") == "1"
    prefix = "" if alone or in_all_ranks else f"rank {one_line(rank)}: "
    if prefix or alone or rank == "0":
        with contextlib.suppress(OSError):  # nobody is there to be told
            text = f"streamtrain: {prefix}{one_line(message, MAX_MESSAGE)}"
            print(text, file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
