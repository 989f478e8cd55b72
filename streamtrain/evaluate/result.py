"""What an evaluation found, for Python: scores with their errors, and where the files are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from streamtrain.evaluate.report import table
from streamtrain.tables import plus_minus, range_title


class Score(NamedTuple):
    """One number that says how well a network does, and that of the plainest predictor."""

    value: float
    error: float | None
    """Standard error of the value; None for a single map."""
    baseline: float | None
    """What the mean label of the training (for classes: their frequencies) reaches; None where the
    label has no such predictor."""
    baseline_error: float | None
    unit: str
    """dex, nat, or '' for a share."""
    meaning: str
    """What the number is, half a sentence."""

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        beside = "" if self.baseline is None else f" (plainest predictor {self.baseline:.4f}{unit})"
        return f"{plus_minus(self.value, self.error)}{unit}{beside}"


class Evaluation(Mapping[str, Any]):
    """What `evaluate` found of a network on a test set: scores with errors, figures, all numbers.

    It is a mapping of what evaluation.json holds; `print` shows the table of the command.

    >>> from pathlib import Path
    >>> import streamtrain
    >>> found = streamtrain.evaluate("runs/example", samples=16, out=Path("runs/sixteen"))
    >>> found
    Evaluation('runs/sixteen', 16 maps: rms ... dex over 3.5-7)
    >>> score = found.scores["5.5-6"]  # the error at log10 L/Lsun = 5.5 to 6
    >>> score.unit, score.error > 0.0, found["test_set"]["samples"]
    ('dex', True, 16)
    """

    def __init__(self, result: Mapping[str, Any], folder: Path) -> None:
        self._result, self.folder = dict(result), folder

    def __getitem__(self, name: str) -> Any:
        return self._result[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._result)

    def __len__(self) -> int:
        return len(self._result)

    @cached_property
    def scores(self) -> dict[str, Score]:
        """The scores by name. Of a function of luminosity: the error in every range that holds
        halos, by the ends of the range in log10(L/Lsun), and last over all bins; of classes:
        accuracy and cross_entropy; of parameters: information, and the error of each."""
        network, label = self["network"], self["label"]
        if label == "parameters":
            known = _score(network, "information", {}, "nat", "known of the parameters of a map")
            errors = {
                name: _score(of, "rms", {}, "", "rms error in standard deviations of the prior")
                for name, of in network["parameters"].items()
            }
            return {"information": known, **errors}
        if label == "class":
            plain = self["most_frequent"]
            share = _score(network, "accuracy", plain, "", "share of maps whose class is right")
            surprise = "mean of -ln(probability of the true class)"
            return {
                "accuracy": share,
                "cross_entropy": _score(network, "cross_entropy", plain, "nat", surprise),
            }
        both = (self["network"], self["mean_label"])
        parts = zip(*([*one["ranges"], one["whole"]] for one in both), strict=True)
        meaning = "rms of log10 predicted over true, bins that hold a halo"
        return {
            range_title(ours["log10_L"]): _score(ours, "rms_dex", plain, "dex", meaning)
            for ours, plain in parts
            if ours["rms_dex"] is not None
        }

    @property
    def figures(self) -> list[Path]:
        """The figures that were drawn, as files."""
        return [self.folder / name for name in self["figures"]]

    def __repr__(self) -> str:
        of_function = "mean_label" in self
        name, score = list(self.scores.items())[-1 if of_function else 0]
        found = plus_minus(score.value, score.error) + (f" {score.unit}" if score.unit else "")
        what = f"rms {found} over {name}" if of_function else f"{name} {found}"
        return f"Evaluation({str(self.folder)!r}, {self['test_set']['samples']} maps: {what})"

    def __str__(self) -> str:
        files = ", ".join(["evaluation.json", "testset.json", *self["figures"]])
        return f"{table(self)}\nwrote {self.folder}: {files}"


def _score(
    found: Mapping[str, Any], key: str, plain: Mapping[str, Any], unit: str, meaning: str
) -> Score:
    """A score of the network beside that of the plainest predictor, which may have none."""
    error = f"{key}_error"
    return Score(found[key], found[error], plain.get(key), plain.get(error), unit, meaning)
