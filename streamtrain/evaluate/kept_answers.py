"""The answers of a run's network to its test set, kept beside its evaluation.

run/answers.npz holds what `answers.predict` returns: log10 of the predicted and true counts,
which bins are occupied, the sky of each map, and which checkpoint and manifest they belong to. It
is made again where that is not the evaluation's.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from pathlib import Path

import numpy as np

from streamtrain.evaluate import answers, testset
from streamtrain.evaluate.answers import Answers
from streamtrain.evaluate.runs import Run
from streamtrain.evaluate.trained import Trained
from streamtrain.files import writing
from streamtrain.progress import Progress

FILE = "answers.npz"


def answers_of(
    run: Run, *, device: str = "cpu", threads: int = 1, progress: Progress | None = None
) -> Answers:
    """The answers that the evaluation of a run judged.

    run: with an evaluation and a manifest, of a function of luminosity. Raises ValueError, one
    sentence, if they cannot be made here (lightcones or checkpoint missing, or another one).
    """
    assert run.evaluation is not None and run.manifest is not None
    key = json.dumps(
        [run.evaluation["checkpoint_step"], run.evaluation["test_set"]["manifest_sha256"]]
    )
    file = run.folder / FILE
    found = _load(file, key)
    if found is not None:
        return found
    trained = Trained.load(run.config)
    if trained.step != run.evaluation["checkpoint_step"]:
        raise ValueError(
            f"its newest checkpoint is of step {trained.step}, its evaluation of step "
            f"{run.evaluation['checkpoint_step']}"
        )
    generator = testset.open_generator(
        testset.recipe(run.manifest, run.config), device=device, threads=threads
    )
    try:
        problems = testset.mismatches(run.manifest, generator)
        if problems:
            raise ValueError(problems[0].rstrip("."))
        network = trained.network(generator.label, generator.device)
        made = answers.predict(network, run.manifest, generator, progress)
    finally:
        generator.close()
    assert isinstance(made, Answers)
    with contextlib.suppress(OSError):  # it only saves time
        _save(file, key, made)
    return made


def _save(file: Path, key: str, answers: Answers) -> None:
    unit = np.ones(0) if answers.unit is None else answers.unit
    with writing(file) as part, part.open("wb") as stream:
        np.savez_compressed(
            stream,
            key=np.array(key),
            predicted=answers.predicted,
            true=answers.true,
            occupied=answers.occupied,
            bin_edges=answers.bin_edges,
            unit=unit,
            skies=np.array(answers.skies or [], str),
        )


def _load(file: Path, key: str) -> Answers | None:
    try:
        with np.load(file) as data:
            if str(data["key"]) != key:
                return None
            unit = data["unit"]
            return Answers(
                data["predicted"],
                data["true"],
                data["occupied"],
                data["bin_edges"],
                unit if unit.size else None,
                skies=data["skies"].tolist() or None,
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
