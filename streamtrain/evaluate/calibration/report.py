"""The calibration of a posterior as plain data, and as text.

Maps are also looked at in groups. The brightest are chosen by the number of halos that the
posterior expects, not by the true one: an exact posterior is calibrated among maps that look
alike, and is not among maps whose truth is alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.evaluate.bootstrap import Bootstrap
from streamtrain.ranks import (
    BANDS,
    BINS,
    POINTS,
    Ranks,
    named,
    p_value,
    p_values,
    rank_band,
    rank_curve,
    uniformity,
    usual_deviation,
)
from streamtrain.tables import columns, plus_minus, prose, without_lines

Float = NDArray[np.float64]

PRIOR_MAPS = 2048
"""Training samples whose halos the prior's density is fitted to."""
FEWEST_MAPS = 16
"""Maps of a group, at least."""
NUM_GROUPS = 4
"""Groups of maps by their brightness, or by their noise."""
DEPENDENT = (
    "p-values take the maps for independent; maps of one sky share halos, so that small ones come "
    "too often"
)
CURVE_LEVELS = np.linspace(0.05, 0.95, 19)
"""Levels of the coverage curves."""
TITLES = {
    BINS: "bins",
    "density": "highest density",
    "curve": "whole curve",
    "distance": "distance (TARP)",
}

CONVENTIONS = {
    "rank": "of the truth among the drawn functions, ties and the place within a rank at random: "
    "uniform between 0 and 1 for an exact posterior",
    "coverage": "share of truths within the central interval of 68 % or 95 %; for 'density', "
    "'curve' and 'distance' within that region of the whole posterior: of highest density, the "
    "simultaneous band, and the one nearest to a point (TARP)",
    "bins": "coverage of single bins, mean over bins and maps",
    "bias_sigma": "mean of (truth - posterior mean) / posterior deviation of log10 of the sum, a "
    "positive one if the posterior is too low",
    "spread_sigma": "root mean square of the same, 1 for an exact posterior, less where there are "
    "maps whose functions all have the same number, such as none, which count as 0 in both",
    "width": "distance of the ends of an interval of log10 of the sum [dex]",
    "p": "p-values of ranks that ought to be uniform: of their mean (shift), of their width, of "
    "their largest deviation (shape), and the three as one; they take the maps for independent: "
    "maps of one sky share halos, and so have small ones too often",
    "deviation": "largest deviation of the distribution of ranks from the uniform one; "
    "'usual_deviation' is what 95 % of exact posteriors stay below",
    "p_all": "one p-value for all statistics (Cauchy combination); below 0.05 for 5 to 6 % of test "
    "sets of exact posteriors",
    "information": "mean ln of the probability of the true counts, and the same minus that under a "
    f"prior that knows no map, the head joint_counts fitted to the halos of {PRIOR_MAPS} training "
    "samples; a better density of the prior would leave less, and differences between networks on "
    "the same test maps do not depend on it; 'surprise' is how much less probable the true counts "
    "are than the functions that the posterior draws: 0 for an exact posterior, more for one that "
    "is too sure, less for one that is too wide",
    "groups": "maps by the number of bright halos that the posterior expects, by their noise, and "
    "by luminosity model; the latter two are known to the maker of the maps alone, so that even an "
    "exact posterior need not be calibrated in each",
}


@dataclass(frozen=True)
class Ranked:
    """Ranks of the truths of a test set, and what is known of its N maps besides."""

    ranks: Ranks
    draws: int
    """Functions that were drawn for each map."""
    log_prior: Float
    """ln of the probability of the true counts without the map [N]."""
    skies: list[str]
    """The sky of each map."""
    bright: Float | None
    """Number of bright halos that the posterior expects [N]; None where no bin is bright."""
    noise: Float | None
    """Noise of each map, as it is quoted in the configuration [N]; None where there is none."""
    models: list[str]
    """Luminosity model of each map."""
    units: str = "uK"
    """Units of the noise."""
    alarm: Float | None = None
    """p-value of each map's alarm [N]; None where the run has no reference for one."""


def numbers(ranked: Ranked, bootstrap: Bootstrap, bright_log10_L: float) -> dict[str, Any]:
    """Coverage, biases, widths, p-values and information of some maps, as plain data for a JSON
    file. bright_log10_L: above it halos are bright."""
    ranks = ranked.ranks
    chances = p_values(ranks)
    inside = {level: ranks.inside(level) for level in BANDS}
    statistics = []
    for name, p in chances.items():
        entry: dict[str, Any] = {"name": name, "kind": _kind(name, ranks)}
        for level, of in inside.items():
            entry |= _mean(f"coverage_{100 * level:g}", of[name], bootstrap)
        if name in ranks.pulls:
            pull = ranks.pulls[name]
            entry |= _mean("bias_sigma", pull, bootstrap)
            entry["spread_sigma"] = float(np.sqrt((pull**2).mean()))
            entry["spread_sigma_error"] = bootstrap.ratio(pull**2, np.ones(len(pull)), root=True)
            entry |= _mean("width_68_dex", ranks.width_68[name], bootstrap)
            entry |= _mean("width_95_dex", ranks.width_95[name], bootstrap)
        statistics.append(entry | {"p": p})
    for name, rank in named(ranks):
        entry = next(row for row in statistics if row["name"] == name)
        test = asdict(uniformity(rank))
        entry |= {f"p_{key}": test[key] for key in ("shift", "width", "shape")}
        entry["deviation"] = test["deviation"]
    return {
        "maps": len(ranks),
        "draws": ranked.draws,
        "conventions": CONVENTIONS,
        "bootstrap": bootstrap.describe(),
        "statistics": statistics,
        "p": p_value(ranks),
        "usual_deviation": usual_deviation(len(ranks)),
        "information": _information(ranked, bootstrap),
        "bright_log10_L": bright_log10_L,
        "groups": _groups(ranked, bootstrap),
        "bins": {
            f"coverage_{100 * level:g}": (np.abs(2 * ranks.bins - 1) <= level).mean(0).tolist()
            for level in BANDS
        },
        "coverage_curves": _curves(ranks, bootstrap),
        "rank_curves": _rank_curves(ranks),
    }


def _kind(name: str, ranks: Ranks) -> str:
    if name == BINS:
        return BINS
    return "sum" if name in ranks.sums else "region"


def _mean(name: str, values: Float, bootstrap: Bootstrap) -> dict[str, float | None]:
    """The mean of one value per map and its error."""
    return {name: float(values.mean()), f"{name}_error": bootstrap.mean(values)}


def _information(ranked: Ranked, bootstrap: Bootstrap) -> dict[str, float | None]:
    """Mean log probability of the truth, and what the map has added to the prior [nat]."""
    log_q, surprise = ranked.ranks.log_q, ranked.ranks.surprise
    assert log_q is not None and surprise is not None
    return {
        **_mean("log_probability_nat", log_q, bootstrap),
        **_mean("log_prior_nat", ranked.log_prior, bootstrap),
        **_mean("information_nat", log_q - ranked.log_prior, bootstrap),
        **_mean("surprise_nat", surprise, bootstrap),
    }


def _groups(ranked: Ranked, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """Coverage in groups of maps, with all bins and the whole curve."""
    kinds = []
    if ranked.bright is not None:
        kinds.append(("bright halos", *_quarters(ranked.bright)))
    if ranked.noise is not None and np.ptp(ranked.noise) > 0:
        kinds.append((f"noise [{ranked.units}]", *_quarters(ranked.noise)))
    if ranked.alarm is not None:
        raised = (ranked.alarm < 0.05).astype(np.int64)
        kinds.append(("alarm", raised, ["no alarm, p >= 0.05", "alarm, p < 0.05"]))
    names, model = np.unique(ranked.models, return_inverse=True)
    if len(names) > 1:
        kinds.append(("model", model, names.tolist()))
    found = []
    for kind, group, titles in kinds:
        for k, title in enumerate(titles):
            chosen = group == k
            if chosen.sum() < FEWEST_MAPS:
                continue
            ranks, some = ranked.ranks.among(chosen), bootstrap.among(chosen)
            entry: dict[str, Any] = {"by": kind, "group": title, "maps": int(chosen.sum())}
            for level in BANDS:
                inside = ranks.inside(level)
                for name in (BINS, "curve"):
                    key = f"{name}_coverage_{100 * level:g}"
                    entry |= _mean(key, inside[name], some)
            found.append(entry | {"p": p_value(ranks)})
    return found


def _quarters(values: Float) -> tuple[NDArray[np.int64], list[str]]:
    """The group of each map, and the groups' names; maps with equal values stay together."""
    ends = np.unique(np.quantile(values, np.linspace(0, 1, NUM_GROUPS + 1)))
    # between two quantiles there may be no map
    numbers_of, group = np.unique(np.digitize(values, ends[1:-1]), return_inverse=True)
    every = [values[group == k] for k in range(len(numbers_of))]
    return group, [f"{_short(some.min())} to {_short(some.max())}" for some in every]


def _short(value: float) -> str:
    return f"{value:.0f}" if 100 <= value < 1e6 else f"{value:.3g}"


def _curves(ranks: Ranks, bootstrap: Bootstrap) -> dict[str, Any]:
    """Share of truths inside at many levels, with errors."""
    at = [ranks.inside(float(level)) for level in CURVE_LEVELS]
    return {"levels": CURVE_LEVELS.tolist()} | {
        name: {
            "share": [float(inside[name].mean()) for inside in at],
            "error": [bootstrap.mean(inside[name]) for inside in at],
        }
        for name in at[0]
    }


def _rank_curves(ranks: Ranks) -> dict[str, Any]:
    """Distributions of the ranks minus the uniform one, with the simultaneous band."""
    low, high = rank_band(len(ranks))
    curves = {name: rank_curve(rank).tolist() for name, rank in named(ranks)}
    return {"at": POINTS.tolist(), "band_95": [low.tolist(), high.tolist()]} | curves


def table(result: Mapping[str, Any]) -> str:
    """The result of `calibrate` as text."""
    test = result["test_set"]
    notes = prose(test.get("notes", []))
    rows = [
        [
            TITLES.get(row["name"], row["name"]),
            *(plus_minus(row[key], row[f"{key}_error"], ".3f") for key in _COVERAGES),
            plus_minus(row.get("bias_sigma"), row.get("bias_sigma_error"), ".3f"),
            plus_minus(row.get("width_68_dex"), row.get("width_68_dex_error")),
            f"{row['p']:.2g}",
        ]
        for row in result["statistics"]
    ]
    information = result["information"]
    distance = next(row for row in result["statistics"] if row["name"] == "distance")
    groups = [
        [
            row["group"],
            str(row["maps"]),
            *(
                plus_minus(row[f"{name}_{key}"], row[f"{name}_{key}_error"], ".3f")
                for name in (BINS, "curve")
                for key in _COVERAGES
            ),
            f"{row['p']:.2g}",
        ]
        for row in result["groups"]
    ]
    kinds = [row["by"] for row in result["groups"]]
    lines: list[str] = []
    for kind in dict.fromkeys(kinds):
        title = kind
        if kind == "bright halos":
            title = f"expected halos above 10^{result['bright_log10_L']:g} Lsun"
        head = [title, "maps", "bins 68 %", "bins 95 %", "curve 68 %", "curve 95 %", "p"]
        chosen = [row for row, by in zip(groups, kinds, strict=True) if by == kind]
        lines += ["", *columns(head, chosen)]
    independent = (
        ["the head takes bins as independent: sums, density and curve show what that costs"]
        if result["bins_are_independent"]
        else []
    )
    return "\n".join(
        [
            f"{test['samples']} test maps (seed {test['seed']}), checkpoint of step "
            f"{result['checkpoint_step']}, {result['draws']} functions drawn for each",
            *notes,
            "share of truths within the posterior's 68 % and 95 %, bias in standard deviations,",
            "positive if it is too low, width of its 68 %; +-: standard errors, bootstrap over "
            + result["bootstrap"]["resampled"],
            *without_lines(result["bootstrap"]),
            *independent,
            "",
            *columns(["log10 L", "68 %", "95 %", "bias", "width [dex]", "p"], rows),
            "",
            f"p-value of all together: {result['p']:.2g}; largest TARP deviation: "
            f"{distance['deviation']:.3f}, below {result['usual_deviation']:.3f} for 95 % of exact "
            "posteriors",
            *prose([DEPENDENT]),
            "ln of the probability of the true counts: "
            + plus_minus(*_pair(information, "log_probability_nat"), ".2f")
            + " nat, above the prior's: "
            + plus_minus(*_pair(information, "information_nat"), ".2f"),
            "below that of the functions that the posterior draws: "
            + plus_minus(*_pair(information, "surprise_nat"), ".2f")
            + " nat, 0 for an exact one, more for one too sure",
            *lines,
        ]
    )


_COVERAGES = tuple(f"coverage_{100 * level:g}" for level in BANDS)


def _pair(of: Mapping[str, Any], name: str) -> tuple[float | None, float | None]:
    return of[name], of[f"{name}_error"]
