"""The joint posterior of a map's luminosity function, and what is quoted of it.

A `Posterior` holds samples of whole luminosity functions, halos per luminosity bin. Whatever is
made of one function, a bin, N(>L) or an integral, is made of each sample, and the scatter of the
results is its error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from streamtrain.arguments import all_numbers, given_numbers, whole_number
from streamtrain.bins import cumulative
from streamtrain.config import Config
from streamtrain.evaluate.alarm.alarm import Alarm, about_lines, told_of_map
from streamtrain.evaluate.alarm.watch import Watch
from streamtrain.evaluate.calibration.recalibration import Applied
from streamtrain.evaluate.inference.prepare import Prepared
from streamtrain.evaluate.inference.training_field import TrainingField
from streamtrain.evaluate.posterior.figures import (
    Shown,
    draw_function,
    posterior_figure,
    with_errors,
)
from streamtrain.evaluate.posterior.functions import (
    LITTLE,
    Curve,
    Estimate,
    Functional,
    Interval,
    badly_known,
    coarse,
    functionals,
    has_mean,
    uneven,
    whole_quantiles,
)
from streamtrain.figures import TICK_SIZE, positions, write_png
from streamtrain.grid import Grid
from streamtrain.labels import NO_FUNCTION, QUANTITIES
from streamtrain.machine.files import npz_arrays, reading, writing
from streamtrain.networks.heads import Head
from streamtrain.networks.network import Network, head_class, point_of
from streamtrain.ranks import BAND
from streamtrain.tables import columns, labelled

Float = NDArray[np.float64]

NUM_FUNCTIONS = 4000
"""Luminosity functions that are drawn for a map."""
FEWEST_FUNCTIONS = 100
"""Below this a 95 % interval rests on two samples."""
MOST_FUNCTIONS = 10**6
"""Functions that are drawn at once, at most: a million of 49 bins take several GB."""
LARGEST_SEED = 2**63 - 1
MOST_HALOS = 2.0**53
"""float64 holds every whole number up to here."""


@dataclass(frozen=True)
class Source:
    """What a network says of one map: more samples and probabilities come from here."""

    head: Head
    """On the CPU, so that a seed means the same on every device."""
    prediction: torch.Tensor
    """float32 [1, num_numbers]."""

    def draw(self, number: int, seed: int) -> Float:
        """Luminosity functions, halos per bin, float64 [number, num_bins]."""
        generator = torch.Generator().manual_seed(seed)
        with torch.inference_mode():
            drawn = self.head.sample(self.prediction, number, generator)
        return np.array(drawn[:, 0].numpy(), np.float64)

    def log_prob(self, counts: Float) -> Float:
        """Log probability [nat] [n] of halos per bin [n, num_bins]."""
        given = torch.from_numpy(np.ascontiguousarray(counts))
        with torch.inference_mode():
            found = self.head.log_prob(self.prediction.expand(len(given), -1), given)
        return np.array(found.double().numpy())


@dataclass(frozen=True, eq=False, repr=False)
class Posterior:
    """The posterior of one map's luminosity function: samples of whole functions.

    `Run.infer` makes it. It knows halos within the luminosity bins of the label alone: N(>L) ends
    at the last edge, and integrals leave out what is fainter or brighter. It can be pickled, and
    written with `save`.

    >>> from streamtrain import Posterior, Run
    >>> with Run.open("runs/example") as run:
    ...     cube = run.testing().generate([3]).cube[0]
    ...     posterior = run.infer(cube, prepared=True, functions=1000, compare_with=0)
    >>> posterior.samples.shape, posterior.bin_edges.shape
    ((1000, 49), (50,))
    >>> low, high = posterior.above.band(0.95)  # of N(>L) as a whole
    >>> posterior.functional("rho_L").interval_68
    (..., ...)
    >>> posterior.save("posterior.npz")
    >>> Posterior.load("posterior.npz")
    Posterior(1000 functions, 49 bins of log10 L/Lsun = 3.5..7, counts, joint...)
    """

    samples: Float
    """Halos per luminosity bin [num_samples, num_bins]."""
    bin_edges: Float
    """log10(L/Lsun) [num_bins + 1]."""
    quantity: str
    """The label's: 'counts', 'phi' or 'phi_L'."""
    unit: Float
    """What one halo is worth in that quantity [num_bins]."""
    functionals: tuple[Functional, ...]
    """Integrals that are quoted by name: N(>L), rho_L and the mean brightness."""
    joint: bool
    """Whether the bins of a sample belong together; if not, each is drawn by itself."""
    seed: int
    """The samples are those of this seed."""
    applied: tuple[str, ...] = ()
    """Operators that were applied to the map."""
    left_out: tuple[str, ...] = ()
    """Operators that the map has in it already."""
    notes: tuple[str, ...] = ()
    """What was found and assumed of the map, and done to it."""
    warnings: tuple[str, ...] = ()
    """What speaks against this posterior, a sentence each."""
    alarm: Alarm | None = None
    """How unlikely the map is among those that the training could have made; None where it was not
    asked for, or could not be found."""
    recalibration: str = ""
    """How it was shifted and widened after the training, a sentence; '' where it was not."""
    source: Source | None = None
    """The network's part; None where the posterior was read from a file."""
    network: str = ""
    """Run and step of the network, in words; '' where they are not known."""

    def __repr__(self) -> str:
        num, bins = self.samples.shape
        how = "joint" if self.joint else "bins independent"
        told = f", {len(self.warnings)} warning{'s'[: len(self.warnings) > 1]}"
        return (
            f"Posterior({num} functions, {bins} bins of log10 L/Lsun = {self.bin_edges[0]:g}.."
            f"{self.bin_edges[-1]:g}, {self.quantity}, {how}{told if self.warnings else ''})"
        )

    def __str__(self) -> str:
        said = labelled("network", self.network) if self.network else []
        notes = [*self.notes, *([self.recalibration] if self.recalibration else [])]
        said += told_of_map(self.alarm, notes, self.warnings)
        return "\n".join([*said, *self.lines()])

    @cached_property
    def function(self) -> Curve:
        """The luminosity function in the label's quantity."""
        return Curve(self.samples * self.unit, positions(self.bin_edges, "counts"), self.quantity)

    @cached_property
    def above(self) -> Curve:
        """N(>L), halos above the lower edge of each bin and below the last edge.

        Raises ValueError where the bins are independent: its errors would be too small.
        """
        self._check_joint("N(>L) has")
        return self._above()

    def quantiles(self, levels: ArrayLike) -> Float:
        """Quantiles of each bin, in the label's quantity; see `Curve.quantiles`."""
        return self.function.quantiles(levels)

    def interval(self, level: float) -> Float:
        """Central interval of each bin by itself, in the label's quantity; see `Curve.interval`."""
        return self.function.interval(level)

    def band(self, level: float) -> Float:
        """Simultaneous band of the whole function, in the label's quantity; see `Curve.band`."""
        return self.function.band(level)

    def functional(self, which: str | Functional | Callable[[Float], ArrayLike]) -> Estimate:
        """An integral of the luminosity function, or any other number that follows from it.

        which: a name of `functionals`, such as "rho_L"; or a function of halos per bin
        [num_samples, num_bins], which are its own to change, that returns [num_samples]: numbers,
        also with a unit of astropy, or truth values, whose mean is a probability. Raises
        ValueError, one sentence, for a name that is none, or what is no number for every sample.
        """
        name, unit, meaning, values = self._values(which)
        mean = float(values.mean()) if has_mean(values) or not self.joint else None
        prior: dict[str, Interval] = {}
        quoted = isinstance(which, str) or any(which is each for each in self.functionals)
        if quoted and self.alarm is not None and name in self.alarm.prior:
            low95, low68, _, high68, high95 = self.alarm.prior[name]
            prior = {"prior_68": (low68, high68), "prior_95": (low95, high95)}
        if not self.joint:
            return Estimate(name, unit, meaning, mean, None, None, None, **prior)
        median, *ends = whole_quantiles(values, (0.5, 0.16, 0.84, 0.025, 0.975)).tolist()
        intervals = (ends[0], ends[1]), (ends[2], ends[3])
        return Estimate(name, unit, meaning, mean, median, *intervals, **prior)

    def estimates(self) -> list[Estimate]:
        """All of `functionals`."""
        return [self.functional(each) for each in self.functionals]

    def values(self, which: str | Functional | Callable[[Float], ArrayLike]) -> Float:
        """What `functional` quotes, of every sample [num_samples]: for histograms and corner plots.

        Raises ValueError also where the bins are independent.
        """
        name, _, _, values = self._values(which)
        self._check_joint(f"{name} has")
        return values

    def sample(self, number: int, seed: int) -> Float:
        """More luminosity functions, halos per bin, float64 [number, num_bins].

        The same seed gives the same functions (of the same version of torch). Raises ValueError
        for a posterior that was read from a file, and for more than 10^6 at a time.
        """
        number, seed = whole_number(number, "sample: number"), check_seed(seed)
        if number < 1:
            raise ValueError(f"sample: number = {number} must be 1 or more")
        if number > MOST_FUNCTIONS:
            raise ValueError(f"sample: number = {number} must be {MOST_FUNCTIONS} or less")
        return self._source.draw(number, seed)

    def log_prob(self, counts: ArrayLike) -> Float:
        """Log probability [nat] of halos per bin [num_bins], or of several [n, num_bins]; all bins
        of one together. Returns float64 [] or [n].

        Raises ValueError for another shape, for what is no number of halos, and for a posterior
        that was read from a file.
        """
        given = all_numbers(counts, "log_prob: counts")
        num = self.samples.shape[1]
        if given.ndim not in (1, 2) or given.shape[-1] != num:
            raise ValueError(
                f"log_prob: counts has the shape {given.shape}, not ({num},) or (n, {num})"
            )
        whole = (given >= 0.0) & (given <= MOST_HALOS) & (given == np.rint(given))
        if not whole.all():
            raise ValueError(
                "log_prob: counts must be halos per bin, whole numbers up to 2^53, not "
                f"{given[~whole][0]:g}"
            )
        found = self._source.log_prob(given.reshape(-1, num))
        return found.reshape(given.shape[:-1])

    def plot(
        self, target: str | Path | Axes | None = None, *, title: str = "", true: Any = None
    ) -> Figure:
        """Draw the luminosity function, and N(>L) with the integrals beside it.

        target: a PNG file to write; or axes, for the luminosity function alone. title: above it,
        where the figure also names the network and says what the alarm is; true: halos per bin
        where they are known [num_bins]. Returns the figure.
        """
        known = None if true is None else all_numbers(true, "plot: true")
        if known is not None and known.shape != self.samples.shape[1:]:
            raise ValueError(
                f"plot: true has the shape {known.shape}, not {self.samples.shape[1:]}"
            )
        if not (target is None or isinstance(target, str | Path | Axes)):
            raise ValueError(f"plot: target is the name of a PNG file or axes, not {target!r:.80}")
        if isinstance(target, Axes):
            draw_function(target, self._shown(), known)
            target.legend(fontsize=TICK_SIZE - 1, loc="lower left", framealpha=1.0)
            target.set_title(title, fontsize=TICK_SIZE)
            drawn = target.get_figure(root=True)
            assert drawn is not None
            return drawn
        figure = posterior_figure(
            self._shown(), title, known, about_lines(self.network, self.alarm)
        )
        if target is not None:
            write_png(figure, Path(target))
        return figure

    def lines(self) -> list[str]:
        """A table of `functionals` as text, beside what the prior alone says where that is known,
        which of them the map hardly tells, and what they leave out."""
        found, rows = self.estimates(), []
        prior = any(each.prior_68 for each in found)
        for each in found:
            spans = [
                "-" if ends is None else f"{ends[0]:.4g} .. {ends[1]:.4g}"
                for ends in (each.interval_68, each.interval_95, each.prior_68)[: 2 + prior]
            ]
            rows.append([each.name, f"{each.value:.4g}", *spans, each.unit])
        head = ["of the whole", "median" if self.joint else "mean", "68 %", "95 %"]
        head += ["prior's 68 %"] * prior
        table = columns([*head, ""], rows, left=(0, len(head)))
        if little := badly_known(found):
            table += labelled(
                "note",
                f"this map tells little of {little}: their 68 % are more than {LITTLE:g} times as "
                "wide as the prior's, in the logarithm; quote the prior beside them, or a limit",
            )
        return [*table, self.outside]

    @property
    def outside(self) -> str:
        """What no number here knows of, a sentence."""
        low, high = self.bin_edges[0], self.bin_edges[-1]
        return f"halos below 10^{low:g} or above 10^{high:g} Lsun, outside the bins, are left out"

    def to_dict(self) -> dict[str, Any]:
        """The posterior as arrays and texts, for np.savez and other tools: all but the network's
        part, without which there are no new samples and no log probability."""
        return {
            "samples": self.samples,
            "log10_L_edges": self.bin_edges,
            "quantity": self.quantity,
            "one_halo": self.unit,
            "joint": self.joint,
            "seed": self.seed,
            "recalibration": self.recalibration,
            "functionals": np.array([f.name for f in self.functionals], str),
            "functional_units": np.array([f.unit for f in self.functionals], str),
            "functional_meanings": np.array([f.meaning for f in self.functionals], str),
            "functional_weights": np.array([f.weights for f in self.functionals]),
            "alarm": "" if self.alarm is None else json.dumps(self.alarm.to_dict()),
            "network": self.network,
            **{name: np.array(getattr(self, name), str) for name in _TEXTS},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Posterior:
        """The posterior that `to_dict` wrote. Raises ValueError for other data."""
        try:
            functionals = tuple(
                Functional(str(name), str(unit), str(meaning), np.asarray(weights, np.float64))
                for name, unit, meaning, weights in zip(
                    *(data[f"functional{part}"] for part in ("s", "_units", "_meanings")),
                    data["functional_weights"],
                    strict=True,
                )
            )
            found = cls(
                np.asarray(data["samples"], np.float64),
                np.asarray(data["log10_L_edges"], np.float64),
                str(data["quantity"]),
                np.asarray(data["one_halo"], np.float64),
                functionals,
                bool(data["joint"]),
                int(data["seed"]),
                **{name: tuple(map(str, data[name])) for name in _TEXTS},  # type: ignore[arg-type]
                alarm=_alarm(data),
                recalibration=_text(data, "recalibration"),
                network=_text(data, "network"),
            )
            num = len(found.bin_edges) - 1
            rows = (found.samples[0], found.unit, *(each.weights for each in functionals))
            if found.samples.ndim != 2 or {row.shape for row in rows} != {(num,)}:
                raise ValueError(f"its arrays are not all of {num} bins")
            _check_meaning(found)
            return found
        except KeyError as error:
            raise ValueError(f"this is no posterior: it has no {error}") from None
        except (IndexError, TypeError, ValueError) as error:
            raise ValueError(f"this is no posterior: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write `to_dict` into an npz file, whole or not at all."""
        if not isinstance(path, str | Path):
            raise ValueError(f"a posterior is saved by the name of a file, not {path!r:.80}")
        with writing(Path(path)) as part, part.open("wb") as stream:
            np.savez_compressed(stream, **self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Posterior:
        """The posterior of a file that `save` wrote. Raises ValueError, one sentence, for a file
        that is none."""
        if not isinstance(path, str | Path):
            raise ValueError(f"a posterior is loaded by the name of its file, not {path!r:.80}")
        file = Path(path)
        with reading(file, ValueError, "is no file of a posterior"):
            return cls.from_dict(npz_arrays(file))

    @property
    def _source(self) -> Source:
        if self.source is None:
            raise ValueError(
                "this posterior was read from a file, without the network: Run.infer makes one "
                "that has new samples and log probabilities"
            )
        return self.source

    def _above(self) -> Curve:
        at = positions(self.bin_edges, "cumulative")
        return Curve(cumulative(self.samples), at, "cumulative")

    def _shown(self) -> Shown:
        found = self.estimates()
        texts = [with_errors(each.name, each.unit, each.value, each.interval_68) for each in found]
        if little := badly_known(found):
            texts.append(f"(nearly the prior's: {little})")
        if not self.joint:
            texts.append("(means; no errors, as the bins are independent)")
        if self.recalibration:
            texts.append("(recalibrated)")
        above = self.above if self.joint else self._above()
        return Shown(self.function, above, self.bin_edges, self.unit, self.joint, tuple(texts))

    def _check_joint(self, what: str) -> None:
        if not self.joint:
            raise ValueError(f"{what} no interval here: {INDEPENDENT}")

    def _values(
        self, which: str | Functional | Callable[[Float], ArrayLike]
    ) -> tuple[str, str, str, Float]:
        """Name, unit and meaning of a functional, and its values of every sample."""
        if isinstance(which, str):
            known = {each.name: each for each in self.functionals}
            if which not in known:
                raise ValueError(f"functional '{which}' is none of {', '.join(known)}")
            which = known[which]
        if isinstance(which, Functional):
            return which.name, which.unit, which.meaning, which.of(self.samples)
        if not callable(which):
            raise ValueError(f"a functional is a name or a function, not {which!r:.80}")
        name = getattr(which, "__name__", "the function")
        found = which(self.samples.copy())  # which it may sort in place
        if str(getattr(found, "dtype", "")).endswith("bool"):
            found = 1.0 * found  # type: ignore[operator]
        given = given_numbers(found, name)
        if given.num_masked:
            raise ValueError(
                f"{name} is masked for {given.num_masked} of {given.values.size} samples"
            )
        values, unit = np.asarray(given.values, np.float64), given.unit
        if values.shape != self.samples.shape[:1]:
            raise ValueError(
                f"{name} must return one number per sample, shape ({len(self.samples)},), not "
                f"{values.shape}"
            )
        if not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).sum())
            raise ValueError(f"{name} is NaN or infinite for {bad} of {len(values)} samples")
        return name, "" if unit is None else str(unit), "", values


def _check_meaning(found: Posterior) -> None:
    """Raise ValueError for arrays that fit one another and are no samples of halos in bins."""
    if not ((found.samples >= 0.0) & (found.samples < np.inf)).all():
        raise ValueError("its samples are not all numbers of halos")
    if not (np.diff(found.bin_edges) > 0.0).all():
        raise ValueError("its log10_L_edges do not rise")
    if not ((found.unit > 0.0) & (found.unit < np.inf)).all():
        raise ValueError("its one_halo is not positive in every bin")
    if found.quantity not in QUANTITIES:
        raise ValueError(f"its quantity is none of {', '.join(QUANTITIES)}")


def _alarm(data: Mapping[str, Any]) -> Alarm | None:
    """What `to_dict` wrote of the alarm; files of before have none."""
    text = str(data["alarm"]) if "alarm" in data else ""
    return Alarm.from_dict(json.loads(text)) if text else None


def _text(data: Mapping[str, Any], name: str) -> str:
    """A sentence that files of before may lack."""
    return str(data[name]) if name in data else ""


_TEXTS = ("applied", "left_out", "notes", "warnings")
INDEPENDENT = (
    "this network predicts the bins independently of each other, so errors of N(>L) and of "
    "integrals would be too small; train with network.head=joint_counts for them"
)
"""What is said of a posterior that is not joint."""


def posterior_of(
    network: Network,
    prepared: Prepared,
    grid: Grid,
    training: TrainingField,
    *,
    watch: Watch | None = None,
    functions: int = NUM_FUNCTIONS,
    seed: int = 0,
    problems: Sequence[str] = (),
    applied: Applied | None = None,
    network_name: str = "",
) -> Posterior:
    """The posterior that a network gives for a map.

    prepared: the map; grid: of the field that it shows; training: the cosmology of volume and
    distances; watch: what says whether the map is one of the prior's; functions: how many are
    drawn; seed: which ones; problems: what speaks against the map already; applied: the
    recalibration that the network has; network_name: its run and step, in words. Raises ValueError,
    one sentence, if the prediction is not finite, or the head predicts no numbers of halos
    (`check_posterior`).
    """
    functions, seed = check_functions(functions), check_seed(seed)
    label = network.head.label
    unit_label = label.unit_label(np.zeros(1, np.int64))
    prediction, _ = point_of(network, prepared.cube[None], unit_label)
    source = Source(deepcopy(network.head).cpu(), prediction.detach().cpu().clone())
    samples = source.draw(functions, seed)
    unit = label.unit_of(unit_label)
    told = [*problems]
    alarm = None if watch is None else watch.judge(prepared.cube[None])[0]
    if alarm is not None and alarm.extrapolated:
        told.append(alarm.warning)
    if applied and applied.problem:
        told.append(applied.problem)
    if not network.head.joint:
        told.append(INDEPENDENT)
    if wide := coarse(label.bins.edges, np.median(samples, axis=0)):
        told.append(wide)
    if deep := uneven(grid, training.Omega_m, training.h):
        told.append(deep)
    found = Posterior(
        samples,
        label.bins.edges,
        label.config.quantity,
        np.ones(samples.shape[1]) if unit is None else unit[0],
        tuple(functionals(label.bins, grid, training.Omega_m, training.h)),
        network.head.joint,
        seed,
        tuple(prepared.applied),
        tuple(prepared.left_out),
        tuple(prepared.notes),
        tuple(told),
        alarm,
        applied.recalibration.said() if applied and applied.recalibration else "",
        source,
        network_name,
    )
    try:
        found.band(BAND)
    except ValueError as few:
        return replace(found, warnings=(*found.warnings, str(few)))
    return found


def has_posterior(config: Config) -> bool:
    """Whether the network of a configuration predicts a distribution of the numbers of halos."""
    head = head_class(config.network.head)
    return config.label.quantity not in NO_FUNCTION and head.sample is not Head.sample


def check_posterior(config: Config) -> None:
    """Raise ValueError, one sentence, for a network without a posterior of halos."""
    if config.label.quantity == "class":
        raise ValueError(
            "label.quantity = class has no luminosity function, but a probability of each class: "
            "`streamtrain infer` gives it"
        )
    if config.label.quantity == "parameters":
        raise ValueError(
            "label.quantity = parameters has no luminosity function, but a posterior of the "
            "model's parameters: `streamtrain infer` gives it"
        )
    if not has_posterior(config):
        raise ValueError(
            f"the network of {config.run} (network.head = {config.network.head}) predicts no "
            "distribution of the numbers of halos: train one with network.head=joint_counts; "
            "`streamtrain infer` gives the prediction of this one, with the errors it has"
        )


def check_functions(number: int) -> int:
    """How many luminosity functions are drawn. Raises ValueError, one sentence, for too few or too
    many."""
    found = whole_number(number, "functions")
    if found < FEWEST_FUNCTIONS:
        raise ValueError(f"functions = {found} must be {FEWEST_FUNCTIONS} or more")
    if found > MOST_FUNCTIONS:
        raise ValueError(f"functions = {found} must be {MOST_FUNCTIONS} or less")
    return found


def check_seed(seed: int) -> int:
    """The seed of a posterior's samples. Raises ValueError, one sentence, for what is none."""
    found = whole_number(seed, "seed")
    if not 0 <= found <= LARGEST_SEED:
        raise ValueError(f"seed = {found} is outside 0..2^63 - 1")
    return found
