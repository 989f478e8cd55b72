"""`streamtrain compare`: runs in one table and one figure, and their answers to the same maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamtrain.evaluate.answers import Answers
from streamtrain.evaluate.evaluation import evaluate
from streamtrain.evaluate.kept_answers import answers_of
from streamtrain.evaluate.png import write_png
from streamtrain.evaluate.runs import Run, read_runs
from streamtrain.evaluate.runs_figure import comparison
from streamtrain.evaluate.runs_maps import asked_the_same, same_maps
from streamtrain.evaluate.runs_table import table
from streamtrain.progress import Progress


def compare_runs(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    make_evaluations: bool = False,
    answers: bool = True,
    settings: Sequence[str] = (),
    device: str = "cpu",
    threads: int = 1,
    progress: Progress | None = None,
) -> str:
    """A table of runs, and figures in the folder `out`: runs.png (histories, bands, rms) and, of
    those that were asked for the same functions, maps.png. Returns the text to print.

    make_evaluations: of runs that have none. answers: ask the networks for their test maps again
    where that is not kept, for bands per bin, differences in pairs and maps.png; without it bands
    are per luminosity range. settings: of every run, see `run_config`. Raises ValueError for a
    folder that is none of a run.
    """
    runs = read_runs(folders, settings)
    if make_evaluations:
        for run in runs:
            if run.evaluation is None:
                options: dict[str, Any] = {
                    "device": device,
                    "threads": run.config.train.threads or threads,
                }
                evaluate(run.config, **options, progress=progress)
        runs = read_runs(folders, settings)
    found: dict[str, Answers] = {}
    for run in runs if answers else []:
        _add_answers(run, found, device, threads, progress)
    lines = [table(runs, found)]
    figure = comparison(runs, found)
    written = []
    if figure is not None:
        write_png(figure, Path(out) / "runs.png")
        written.append("runs.png")
    same = asked_the_same(runs, found)
    if len(same) > 1:
        write_png(same_maps(same, found), Path(out) / "maps.png")
        written.append("maps.png")
        others = [name for name in found if name not in {run.name for run in same}]
        if others:
            lines.append(f"Not in maps.png, of other halos or functions: {', '.join(others)}.")
    if progress is not None:
        progress.close()
    if written:
        lines.append(f"Figures in {out}: {', '.join(written)}")
    return "\n".join(lines)


def _add_answers(
    run: Run, found: dict[str, Answers], device: str, threads: int, progress: Progress | None
) -> None:
    """The answers of a run that has an evaluation of a function of luminosity."""
    if run.evaluation is None or run.manifest is None or run.function == "class":
        return
    try:
        found[run.name] = answers_of(
            run, device=device, threads=run.config.train.threads or threads, progress=progress
        )
    except (ValueError, OSError) as error:
        run.problems.append(f"{run.name}: its test maps cannot be shown: {error}.")
