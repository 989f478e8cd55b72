"""`streamtrain compare`: runs in one table and one figure, their predictions for the same maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from streamtrain.evaluate.alarm.alarm import share
from streamtrain.evaluate.compare.runs import RunRecord, how_to_evaluate, read_runs, test_sets
from streamtrain.evaluate.compare.runs_figures import comparable_runs, comparison, same_maps
from streamtrain.evaluate.evaluation import evaluate
from streamtrain.evaluate.predictions import Predictions, predictions_of
from streamtrain.evaluate.report import bootstrap_of
from streamtrain.evaluate.run import Run
from streamtrain.figures import write_png
from streamtrain.labels import NO_FUNCTION
from streamtrain.machine.progress import duration
from streamtrain.machine.workers import ALONE, Resources
from streamtrain.networks.network import short
from streamtrain.ranks import BINS
from streamtrain.schema import ABSENT, differences, number_text, to_dict
from streamtrain.tables import WIDTH, columns, prose, range_title, rounded


def compare_runs(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    make_evaluations: bool = False,
    predictions: bool = True,
    settings: Sequence[str] = (),
    resources: Resources = ALONE,
) -> str:
    """A table of runs, and figures in the folder `out`: runs.png (histories, bands, rms) and, of
    those that predict the same functions, maps.png. Returns the text to print.

    make_evaluations: of runs that have none. predictions: make those for the test maps again where
    they are not kept, for bands per bin, differences in pairs and maps.png; without it bands
    are per luminosity range. settings: of every run, see `run_config`. Raises ValueError for a
    folder that is none of a run.
    """
    runs = read_runs(folders, settings)
    if make_evaluations:
        for run in runs:
            if run.evaluation is None:
                print(evaluate(run.config, resources=resources))
        runs = read_runs(folders, settings)
    found: dict[str, Predictions] = {}
    for record in runs if predictions else []:
        moved = bool((record.evaluation or {}).get("recalibration"))
        with Run.using(resources, record.config, recalibrated=moved) as opened:
            _say_another_training(record, opened)
            _add_predictions(record, opened, found)
    lines = [table(runs, found)]
    figure = comparison(runs, found)
    written = []
    if figure is not None:
        write_png(figure, Path(out) / "runs.png")
        written.append("runs.png")
    same = comparable_runs(runs, found)
    if len(same) > 1:
        write_png(same_maps(same, found), Path(out) / "maps.png")
        written.append("maps.png")
        others = [name for name in found if name not in {run.name for run in same}]
        if others:
            lines.append(f"Not in maps.png, of other halos or functions: {', '.join(others)}.")
    resources.progress.close()
    if written:
        lines.append(f"Figures in {out}: {', '.join(written)}")
    return "\n".join(lines)


def _say_another_training(record: RunRecord, run: Run) -> None:
    """Where the evaluation is of a network that was trained before in the folder of the run."""
    weights = (record.evaluation or {}).get("weights_sha256")
    with suppress(ValueError, OSError):  # there is no checkpoint
        same_step = run.trained.step == (record.evaluation or {}).get("checkpoint_step")
        if weights and same_step and run.trained.weights_sha256 != weights:
            record.problems.append(
                f"{record.name}: its evaluation is of another training than its checkpoint of step "
                f"{run.trained.step}; '{how_to_evaluate(record.folder)}' makes it again."
            )


def _add_predictions(record: RunRecord, run: Run, found: dict[str, Predictions]) -> None:
    """The predictions of a run that has an evaluation of a function of luminosity."""
    if record.evaluation is None or record.manifest is None or record.function in NO_FUNCTION:
        return
    try:
        found[record.name] = predictions_of(run)
    except (ValueError, OSError) as error:
        record.problems.append(f"{record.name}: its test maps cannot be shown: {error}.")


SAME_PRIOR = 0.05
"""Densities of the prior that differ by less are the same but for rounding [nat]."""
PASSED_OVER = (
    "run",
    "data.memory_GB",
    "train.threads",
    "train.queue",
    "train.processes",
    "train.log_every",
    "train.validate_every",
    "train.checkpoint_every",
    "train.max_nonfinite",
)
"""Settings that change neither what is learned nor how it is evaluated."""
PredictionsByRun = Mapping[str, Predictions]
"""Predictions of the test maps, by the name of the run."""


def table(runs: Sequence[RunRecord], predictions: PredictionsByRun | None = None) -> str:
    """What differs between the runs' settings; their size and training; their errors, and what is
    to be minded when these are compared.

    predictions: of runs that have some, for the difference from the first run in pairs of maps.
    """
    names = [run.name for run in runs]
    lines = ["Settings that differ"]
    different = settings_that_differ([to_dict(run.config) for run in runs])
    if different:
        lines += blocks(names, different)
    else:
        lines.append("none" if len(runs) > 1 else "only one run")
    lines += ["", "Training", *_training(runs)]
    functions = [run for run in runs if run.evaluation and run.function not in NO_FUNCTION]
    if functions:
        lines += ["", *_errors(functions, predictions or {})]
    posteriors = [run for run in functions if run.calibration or _of(run).get("alarm")]
    if posteriors:
        lines += ["", *_posteriors(posteriors)]
    classes = [run for run in runs if run.evaluation and run.function == "class"]
    if classes:
        lines += ["", *_classes(classes)]
    parameters = [run for run in runs if run.evaluation and run.function == "parameters"]
    if parameters:
        lines += ["", *_parameters(parameters)]
    problems = [problem for run in runs for problem in run.problems]
    return "\n".join([*lines, *([""] if problems else []), *problems])


def settings_that_differ(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Dotted names of the settings in which configurations (nested plain data) differ, with the
    value of each as text; '-' where a configuration does not have it.

    A section that some do not have is one setting, and what in it is not off is its value.
    """
    found = differences(*configs, free=PASSED_OVER.__contains__)
    return {name: [setting_text(value) for value in values] for name, values in found}


def setting_text(value: Any) -> str:
    """A setting in a word or a few."""
    if value is ABSENT:
        return "-"
    if isinstance(value, Mapping):
        given = {k: v for k, v in value.items() if v is not None and v != {} and v != []}
        return ", ".join(f"{key} {setting_text(v)}" for key, v in given.items()) or "yes"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(setting_text, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    return number_text(value) if isinstance(value, float) else str(value)


def blocks(names: Sequence[str], values: Mapping[str, Sequence[str]]) -> list[str]:
    """Rows of names and columns of values, in blocks that are not too wide."""
    rows = [list(row) for row in zip(names, *values.values(), strict=True)]
    return columns(["", *values], rows, widest=WIDTH)


def _training(runs: Sequence[RunRecord]) -> list[str]:
    kinds = list(dict.fromkeys(run.loss for run in runs))
    several = len(kinds) > 1

    def loss(run: RunRecord, value: float | None) -> str:
        mark = f" ({_mark(kinds.index(run.loss))})" if several else ""
        return "-" if value is None else f"{value:.4g}{mark}"

    def rate(run: RunRecord) -> str:
        return f"{run.samples / run.seconds:.0f}" if run.seconds else "-"

    values = {
        "parameters": [short(run.size.parameters) if run.size else "-" for run in runs],
        "multiply-adds": [short(run.size.multiply_adds) if run.size else "-" for run in runs],
        "steps": [f"{run.steps}/{run.config.train.steps}" for run in runs],
        "samples": [str(run.samples) for run in runs],
        "time": [duration(run.seconds) if run.seconds else "-" for run in runs],
        "samples/s": [rate(run) for run in runs],
        "training loss": [loss(run, run.training_loss) for run in runs],
        "validation loss": [loss(run, run.validation_loss) for run in runs],
    }
    lines = blocks([run.name for run in runs], values)
    lines.append("time: of the training steps; training loss: of the last tenth of the steps")
    if not several:
        return [*lines, f"loss: {kinds[0]}"]
    lines.append("losses of different letters are numbers of different kinds:")
    return lines + [f"({_mark(k)}) {kind}" for k, kind in enumerate(kinds)]


def _mark(number: int) -> str:
    return chr(ord("a") + number)


def _errors(runs: Sequence[RunRecord], predictions: PredictionsByRun) -> list[str]:
    """Rows of runs, below them of the mean labels, columns of errors."""
    sets, functions = test_sets(runs), {run.function for run in runs}
    rows = [(run.name, run, _of(run)["network"]) for run in runs]
    seen = set()
    for run in runs:
        if (run.halos, run.function) not in seen:
            seen.add((run.halos, run.function))
            name = "always the mean label"
            rows.append((name, run, _of(run)["mean_label"]))
    ranges = sorted({tuple(part["log10_L"]) for _, _, e in rows for part in e["ranges"]})
    values = {
        "test set": [sets[run.name] for _, run, _ in rows],
        "of": [run.function for _, run, _ in rows],
        "mse": [rounded(e["mse"], e["mse_error"]) for _, _, e in rows],
    }
    if len(functions) == 1:
        del values["of"]
    pairs = _pairs(runs, predictions)
    if pairs:
        blank = ["-"] * (len(rows) - len(runs))
        values[f"mse - {runs[0].name}'s"] = [*(pairs.get(r.name, "-") for r in runs), *blank]
    for low, high in ranges:
        found = [_range(errors, low, high) for _, _, errors in rows]
        values[range_title((low, high))] = [_rms(part) for part in found]
    values["all"] = [_rms(errors["whole"]) for _, _, errors in rows]
    lines = [
        "Test maps: mean squared error of the log10 over all bins [dex^2], rms by log10 L [dex]"
    ]
    lines += blocks([name for name, _, _ in rows], values)
    return lines + _remarks(runs, sets, functions, bool(pairs))


def _posteriors(runs: Sequence[RunRecord]) -> list[str]:
    """Rows of runs, columns of what `evaluate --calibration` and the alarm found."""
    sets, found = test_sets(runs), [run.calibration for run in runs]
    values = {"test set": [sets[run.name] for run in runs]}
    for name, level, title in (
        (BINS, "68", "bins in 68 %"),
        (BINS, "95", "bins in 95 %"),
        ("rho_L", "68", "rho_L in 68 %"),
        ("curve", "95", "curve in 95 %"),
    ):
        values[title] = [_coverage(one, name, f"coverage_{level}") for one in found]
    information = [one["information"] if one else None for one in found]
    values["information [nat]"] = [
        rounded(of["information_nat"], of["information_nat_error"]) if of else "-"
        for of in information
    ]
    alarms = [_of(run).get("alarm") for run in runs]
    values["alarm p < 0.05"] = [share(of, 0.05) if of else "-" for of in alarms]
    return [
        "Posteriors (evaluate --calibration): share of truths inside, information of the maps "
        "above the prior",
        *blocks([run.name for run in runs], values),
        *_other_priors(runs, sets),
    ]


def _other_priors(runs: Sequence[RunRecord], sets: Mapping[str, str]) -> list[str]:
    """A sentence where information of the same test maps is above different densities of the prior,
    as those of two versions are."""
    priors: dict[str, list[float]] = {}
    for run in runs:
        if run.calibration and run.maps is not None:
            prior = run.calibration["information"]["log_prior_nat"]
            priors.setdefault(sets[run.name], []).append(prior)
    apart = max((max(some) - min(some) for some in priors.values()), default=0.0)
    if apart < SAME_PRIOR:
        return []
    text = (
        f"information is above densities of the prior that differ by up to {apart:.1f} nat on the "
        "same maps, of other versions or training skies: evaluate --calibration makes it anew, and "
        "the log probabilities in calibration.json compare"
    )
    return prose([text])


def _coverage(calibration: Mapping[str, Any] | None, name: str, level: str) -> str:
    """A coverage of a calibration; a sum may share its entry, and so its name, with others."""
    for entry in calibration["statistics"] if calibration else []:
        if name in entry["name"].split(", "):
            return rounded(entry[level], entry[f"{level}_error"])
    return "-"


def _remarks(
    runs: Sequence[RunRecord], sets: Mapping[str, str], functions: set[str], pairs: bool
) -> list[str]:
    """What is to be minded when numbers of these runs are compared."""
    units = {(_of(run).get("bootstrap") or {}).get("resampled", "maps") for run in runs}
    lines = [
        f"+-: standard errors, bootstrap over {' or '.join(sorted(units))}; a training from "
        "another seed may differ by more"
    ]
    lines += prose(dict.fromkeys(run.errors_without for run in runs))
    if any(run.config.label.quantity in ("phi", "phi_L") for run in runs):
        lines.append("phi and phi L in dex of their count, so as dN")
    if len(functions) > 1:
        lines.append("errors of N(>L) and of dN are of different functions: not to be compared")
    if pairs:
        lines.append("mse - ...'s: difference and its standard error from the same fields in pairs")
    if any(name[-1].isdigit() for name in sets.values()):
        lines.append("test sets of one letter: the same fields and halos, other maps of them")
    if len({name[0] for name in sets.values() if name != "-"}) > 1:
        lines.append("test sets of different letters: different halos or bins, not to be compared")
    return lines


def _pairs(runs: Sequence[RunRecord], predictions: PredictionsByRun) -> dict[str, str]:
    """Mean squared error minus the first run's, of runs that predict the same functions."""
    first = predictions.get(runs[0].name)
    if first is None:
        return {}
    found = {}
    for run in runs[1:]:
        other = predictions.get(run.name)
        if other is None or (run.halos, run.function) != (runs[0].halos, runs[0].function):
            continue
        ours, theirs = (((a.predicted - a.true) ** 2).mean(axis=1) for a in (other, first))
        change = ours - theirs
        unit = (_of(run).get("bootstrap") or {}).get("resampled", "auto")
        error = bootstrap_of(other, unit).mean(change)
        found[run.name] = rounded(float(change.mean()), error, "+")
    return found


def _classes(runs: Sequence[RunRecord]) -> list[str]:
    sets = test_sets(runs)
    rows = [(run.name, run, _of(run)["network"]) for run in runs]
    rows.append(("always the most frequent", runs[0], _of(runs[0])["most_frequent"]))
    values: dict[str, Any] = {"test set": [sets[run.name] for _, run, _ in rows]}
    for key, title in (("accuracy", "accuracy"), ("cross_entropy", "cross-entropy [nat]")):
        values[title] = [rounded(e[key], e[f"{key}_error"]) for _, _, e in rows]
    return ["Test maps: classes", *blocks([name for name, _, _ in rows], values)]


def _parameters(runs: Sequence[RunRecord]) -> list[str]:
    sets, names = test_sets(runs), [run.name for run in runs]
    networks = [_of(run)["network"] for run in runs]
    values: dict[str, Any] = {
        "test set": [sets[name] for name in names],
        "information [nat]": [rounded(n["information"], n["information_error"]) for n in networks],
    }
    for name in dict.fromkeys(name for of in networks for name in of["parameters"]):
        found = [of["parameters"].get(name) for of in networks]
        values[f"width of {name}"] = [
            rounded(of["width"], of["width_error"]) if of else "-" for of in found
        ]
    return ["Test maps: parameters, widths in those of the prior", *blocks(names, values)]


def _of(run: RunRecord) -> dict[str, Any]:
    assert run.evaluation is not None
    return run.evaluation


def _range(errors: dict[str, Any], low: float, high: float) -> dict[str, Any] | None:
    """The errors of one luminosity range."""
    return next((part for part in errors["ranges"] if part["log10_L"] == [low, high]), None)


def _rms(part: Mapping[str, Any] | None) -> str:
    if part is None or part["rms_dex"] is None:
        return "-"
    return rounded(part["rms_dex"], part["rms_dex_error"])
