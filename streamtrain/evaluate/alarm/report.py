"""How often the alarm of a run is false: `streamtrain alarm`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from streamtrain.config import Config
from streamtrain.evaluate import testset
from streamtrain.evaluate.alarm.alarm import LEVELS, alarm_lines, alarm_scores
from streamtrain.evaluate.folder import check_writable
from streamtrain.evaluate.predictions import predict
from streamtrain.evaluate.report import bootstrap_of
from streamtrain.evaluate.run import Run
from streamtrain.figures import GREY, LABEL_SIZE, NETWORK, TICK_SIZE, legend_below, write_png
from streamtrain.machine.files import write_json
from streamtrain.machine.workers import ALONE, Resources
from streamtrain.ranks import POINTS, deviation_p, rank_band, rank_curve, uniformity
from streamtrain.tables import prose

Float = NDArray[np.float64]


def make_alarm(
    config: Config,
    *,
    maps: int,
    beside: Sequence[str | Path] = (),
    resources: Resources = ALONE,
) -> dict[str, Any]:
    """Look at maps of a run's prior, so that every later prediction says whether a map is one of
    them, and see how often that raises a false alarm on the run's test maps: print that, write
    alarm.npz, alarm.json and alarm.png into the run folder, and the shares and the distribution of
    p into its TensorBoard, return what the JSON file holds.

    maps: of the prior, half of them on the training's skies, and the others decide the p-values:
    of 10 000 these are known to 3e-3 where they are 0.05; beside: folders of other runs whose
    disagreement counts. Raises ValueError, one sentence, where maps cannot be made, and for another
    run that does not fit.
    """
    with Run.using(resources, config) as run:
        check_writable(run.folder)
        # the shorter work first: a test set that does not fit is refused before maps are made
        with testset.kept(testset.default_path(config), "give its settings to this command, too"):
            manifest, generator = run.test_set()
        watch, problems = run.watch(maps, again=True, beside=beside)
        if watch is None:
            raise ValueError(problems[0] if problems else "--maps 0 makes no alarm")
        predictions = predict(run.network(generator), manifest, generator, run.progress, watch)
        assert predictions.alarm is not None
        p, bootstrap = predictions.alarm, bootstrap_of(predictions)
        notes = testset.not_compared(manifest, generator)
        run.progress.close()
        result = {
            "checkpoint_step": run.trained.step,
            "maps_of_the_prior": 2 * len(watch.reference),
            "beside": [other.folder for other in watch.others],
            "test_maps": len(p),
            "bootstrap": bootstrap.describe(),
            **alarm_scores(p, watch.reference, bootstrap),
            "p_uniform": deviation_p(uniformity(p).deviation, worth(p, watch.reference)),
            **({"notes": notes} if notes else {}),
        }
        write_json(run.folder / "alarm.json", result)
        figure = alarm_figure(p, worth(p, watch.reference))
        write_png(figure, run.folder / "alarm.png")
        _to_tensorboard(run.folder, p, result)
    print(
        "\n".join(
            [
                f"{len(p)} test maps, checkpoint of step {result['checkpoint_step']}; errors: "
                f"bootstrap over {result['bootstrap']['resampled']}",
                *prose(notes),
                *alarm_lines(result),
                f"wrote {run.folder}: alarm.npz, alarm.json, alarm.png",
            ]
        )
    )
    return result


def _to_tensorboard(folder: Path, p: Float, result: Mapping[str, Any]) -> None:
    """Shares below `LEVELS` and a histogram of p, at the step of the checkpoint."""
    from torch.utils.tensorboard import SummaryWriter

    with contextlib.closing(SummaryWriter(str(folder))) as writer:
        step = result["checkpoint_step"]
        for level in LEVELS:
            writer.add_scalar(f"alarm/p_below_{level:g}", result[f"below_{level:g}"], step)
        writer.add_histogram("alarm/p", p, step)


def worth(p: Float, among: Sized) -> int:
    """How many independent uniform numbers p-values [num] are worth that are ranks among the same
    maps: these scatter, too, and a distribution differs from theirs as two samples do."""
    return max(1, round(len(p) * len(among) / (len(p) + len(among))))


def alarm_figure(p: Float, number: int) -> Figure:
    """How the p-values of test maps are distributed, beside what maps of the prior have; number:
    of independent ones that they are worth."""
    figure = Figure(figsize=(5.6, 4.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    low, high = rank_band(number)
    axes.fill_between(POINTS, low, high, color=GREY, alpha=0.3, lw=0, label="95 % of exact ones")
    axes.plot(POINTS, rank_curve(p), color=NETWORK, lw=1.8, label=f"{len(p)} test maps")
    axes.axhline(0.0, color=GREY, lw=0.8)
    axes.set_xlabel("p-value of the alarm", fontsize=LABEL_SIZE)
    axes.set_ylabel("share of maps below, minus p", fontsize=LABEL_SIZE)
    axes.tick_params(labelsize=TICK_SIZE)
    legend_below(figure, axes, 2)
    axes.set_title("how often the alarm is false: p-values of test maps", fontsize=LABEL_SIZE)
    return figure
