"""Evaluate a trained network in many scenarios: one table, one JSON file, figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from streamtrain.config import Config
from streamtrain.evaluate import figures
from streamtrain.evaluate.alarm.alarm import alarm_scores
from streamtrain.evaluate.baselines import (
    MeanLabelBaseline,
    comparable,
    ihle2019,
    mean_label,
    published,
    same_maps,
)
from streamtrain.evaluate.bootstrap import Bootstrap
from streamtrain.evaluate.evaluation import save
from streamtrain.evaluate.folder import run_config
from streamtrain.evaluate.predictions import Predictions, predict_batches
from streamtrain.evaluate.report import bootstrap_of, errors_of, scores_of
from streamtrain.evaluate.robustness.matrix import matrix_figure, matrix_table
from streamtrain.evaluate.robustness.other_skies import folder_for, open_maps
from streamtrain.evaluate.robustness.parameter_oracle import (
    FIELDS,
    OtherFields,
    few_skies,
    repaint_all,
    score_floor,
)
from streamtrain.evaluate.robustness.scenario_sets import Scenario, load_scenarios
from streamtrain.evaluate.run import Run
from streamtrain.generator.generator import Generator
from streamtrain.labels import NO_FUNCTION
from streamtrain.machine.files import sha256, write_json
from streamtrain.machine.workers import ALONE, Resources
from streamtrain.networks.network import Network
from streamtrain.schema import to_dict

FOLDER = "scenarios"
"""In the run folder: a manifest and a figure for each."""
PFEFFER2019 = "pfeffer2019"


def evaluate_scenarios(
    run: Config | str | Path,
    where: str | Path,
    *,
    out: str | Path | None = None,
    bootstrap: str = "auto",
    recalibrated: bool = True,
    resources: Resources = ALONE,
) -> dict[str, Any]:
    """Evaluate the newest intact checkpoint of a run in every scenario of a set: print the table,
    write scenarios.json and the figures into the run folder, return what the JSON file holds.

    run: a configuration, or the folder of a run; where: see `load_scenarios`; out, bootstrap,
    recalibrated: as in `evaluate`. Test sets are made from the run's test seed and lightcones;
    their manifests lie in the folder `scenarios` of the run, and every sample is compared with one
    that is there. Raises ValueError with one sentence for what cannot be evaluated.
    """
    config = run if isinstance(run, Config) else run_config(run)
    if config.label.quantity in NO_FUNCTION:
        label = NO_FUNCTION[config.label.quantity]
        raise ValueError(f"scenarios are of luminosity functions, and this run's label is {label}")
    with (
        Run.using(resources, config, recalibrated=recalibrated) as opened,
        folder_for(opened, out) as folder,
    ):
        return _evaluate(opened, where, folder, bootstrap)


def _evaluate(run: Run, where: str | Path, folder: Path, bootstrap: str) -> dict[str, Any]:
    """The scenarios, written into `folder`."""
    trained, config = run.trained, run.config
    scenarios = load_scenarios(where, config)
    bench = _Bench(run, folder)
    rows = []
    for number, scenario in enumerate(scenarios, 1):
        bench.doing = f"scenario {number}/{len(scenarios)} {scenario.name}"
        rows.append(bench.scores_of(scenario, bootstrap, str(where) == PFEFFER2019))
    first = rows[0]
    result: dict[str, Any] = {
        "checkpoint_step": trained.step,
        "recalibration": trained.applied.record(),
        "notes": [*bench.notes, *run.said()],
        "set": str(where),
        "label": config.label.quantity,
        "samples": first["samples"],
        "conventions": first.pop("conventions")
        | {
            "scenario_mean": "mean log10 dN of the scenario's own test maps",
            "floor": f"an oracle that knows all parameters of a map and predicts the mean of other "
            f"fields: Poisson noise and field-to-field scatter; up to {FIELDS} fields per map, "
            "each of another sky, corrected to infinitely many (but for the deviance); errors over "
            "skies: of the test set and of the oracle",
        },
        "floor_skies": {
            "oracle": first["floor"]["skies"],
            "test": bench.num_test_skies,
            "few": few_skies(first["floor"]["skies"], bench.num_test_skies),
        },
        "bootstrap": first["bootstrap"],
        "trained_models": bench.trained_models,
        "scenarios": rows,
    }
    for row in rows[1:]:
        del row["conventions"]
    result["figures"] = [
        *(f"{FOLDER}/{row['name']}.png" for row in rows),
        *save({"scenarios.png": matrix_figure(result)}, folder),
    ]
    write_json(folder / "scenarios.json", result)
    run.progress.close()
    print(matrix_table(result))
    return result


class _Bench:
    """What all scenarios of a run are evaluated with: the network, the skies of test and training,
    and what has been painted for the floor."""

    def __init__(self, run: Run, folder: Path) -> None:
        self.doing, self.num_test_skies = "", 0
        self.notes: list[str] = []
        """What should be known of the test sets, a sentence each."""
        self._run, self._folder = run, folder
        self._train = run.training()
        self._test: Generator | None = None
        self._network: Network | None = None
        self._watch = run.kept_watch()
        self._fields: dict[str, OtherFields] = {}
        self._reference = mean_label(self._train, run.progress)
        line, classes = run.config.line, run.trained.classes
        here = {component.model for component in line.components.values()}
        self.trained_models = sorted(here if classes == list(line.class_names) else set(classes))

    def scores_of(self, scenario: Scenario, bootstrap: str, shipped: bool) -> dict[str, Any]:
        """The row of a scenario. shipped: its name is that of a published one."""
        path = self._folder / FOLDER / f"{scenario.name}.testset.json"
        shared: dict[str, Any] = {} if self._test is None else {"lightcones": self._test.skies}
        generator, batches, notes = open_maps(
            self._run, scenario.config, path, scenario.name, **shared
        )
        self._test, self.notes = self._test or generator, notes or self.notes
        count = generator.config.test.samples
        if self._network is None:
            self._network = self._run.network(generator)
        predictions = predict_batches(
            self._network, generator, batches, count, self.doing, self._run.progress, self._watch
        )
        assert isinstance(predictions, Predictions)
        fields = self._floor_fields(scenario, generator, count)
        generator.scenes.close()
        resampled = bootstrap_of(predictions, bootstrap)
        skies = predictions.skies or []
        _, sky = np.unique(skies, return_inverse=True)
        self.num_test_skies = int(sky.max()) + 1
        over_skies = Bootstrap(sky, "lightcones", num_skies=self.num_test_skies)
        quantity = self._run.config.label.quantity
        own = MeanLabelBaseline.of(predictions.true, predictions.count, skies)
        beside = shipped and comparable(quantity, predictions.bin_edges)
        theirs = published(scenario.name) if beside else None
        found = scores_of(predictions, self._reference, quantity, resampled)
        alarm = None
        if self._watch is not None and predictions.alarm is not None:
            alarm = alarm_scores(predictions.alarm, self._watch.reference, resampled)
        figure = figures.residual_bands(
            predictions.predicted, predictions.true, predictions.occupied, predictions.bin_edges,
            quantity=quantity, published=theirs, limits=ihle2019() if beside else None,
            other_maps=not same_maps(scenario.config, "grid"), title=scenario.name,
        )  # fmt: skip
        save({f"{scenario.name}.png": figure}, path.parent)
        return {
            "name": scenario.name,
            "about": scenario.about,
            "models": scenario.models,
            "models_trained": set(scenario.models) <= set(self.trained_models),
            "extrapolated": scenario.extrapolated,
            "differs_from_training": scenario.differs,
            "samples": count,
            "seed": generator.seed,
            "manifest_sha256": sha256(path),
            **found,
            "scenario_mean": errors_of(own.mean, own.rate, predictions, resampled),
            "floor": score_floor(
                predictions.true,
                predictions.count,
                predictions.occupied,
                fields,
                predictions.bin_edges,
                over_skies,
            ),
            "published": None if theirs is None else theirs.as_data(),
            "alarm": alarm,
        }

    def _floor_fields(self, scenario: Scenario, generator: Generator, count: int) -> OtherFields:
        """Of the oracle; scenarios that emit the same share them."""
        key = json.dumps([to_dict(scenario.config.emit), generator.seed, count])
        if key not in self._fields:
            other = self._run.training(scenario.config, lightcones=self._train.skies)

            def report(done: int) -> None:
                self._run.progress.count(f"{self.doing}, floor", done, count, "samples")

            self._fields[key] = repaint_all(
                generator, other, count, threads=self._run.threads, report=report
            )
            other.scenes.close()
        return self._fields[key]
