"""The posterior for the first maps of a test set: JSON, table and figures of `streamtrain mcmc`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from streamtrain.config import Config
from streamtrain.evaluate.baselines import MEAN_LABEL_SAMPLES
from streamtrain.evaluate.bootstrap import ENOUGH_LIGHTCONES, TOLERANCE_DEX, Bootstrap
from streamtrain.evaluate.folder import output_folder
from streamtrain.evaluate.posterior.corner import corner
from streamtrain.evaluate.scores import score
from streamtrain.figures import (
    CHAIN,
    LABEL_SIZE,
    SERIES,
    TICK_SIZE,
    TRUTH,
    legend_below,
    positions,
    ratio_axis,
    style,
    write_png,
)
from streamtrain.labels import QUANTITIES
from streamtrain.machine.files import sha256_of, write_json
from streamtrain.machine.workers import ALONE, Resources
from streamtrain.mcmc.inference import METHOD, Inference, Options, Posterior
from streamtrain.mcmc.maps import Maps, make_maps, networks_of
from streamtrain.mcmc.sampling import import_emcee
from streamtrain.ranks import PERCENTILES
from streamtrain.tables import TEXT_WIDTH, columns, error_lines, range_title, rms_cell

Float = NDArray[np.float64]

LARGEST_OFFSET = 4.0
"""chi^2 of the emulator against simulations near the posterior beyond which a warning says so."""
FILE = "mcmc.json"
SHOWN = 3
"""Maps in a figure, at most."""


def run(
    config: Config,
    options: Options,
    *,
    maps: int = 4,
    beside: Sequence[Path] = (),
    out: Path | None = None,
    resources: Resources = ALONE,
) -> dict[str, Any]:
    """Sample the posterior for the first `maps` test maps; write mcmc.json and the figures into the
    run folder or `out`, print the table, return what the JSON file holds.

    A file of the same configuration and options is continued: its maps are not sampled again. One
    of others stays as it is, and is an error.
    beside: folders of further runs whose networks predict the same maps. Raises ValueError, one
    sentence, for what it is not for.
    """
    progress = resources.progress
    import_emcee()
    folder = output_folder(config, out)
    settings = _digest(config, options)
    _read(folder / FILE, "settings", settings)  # before minutes of simulations
    runs = networks_of(config, list(beside))
    inference = Inference(config, options, resources)
    test = make_maps(inference, maps, runs)
    identity = _digest(config, options, inference.generator.identity())
    kept = _read(folder / FILE, "identity", identity)
    of = {"identity": identity, "settings": settings}
    samples: Float | None = None
    for number in range(maps):
        if number < len(kept):
            continue
        posterior = inference.infer(test.vectors[number], test.levels[number], seed=number)
        if number == 0:
            samples = posterior.chain.samples
        kept.append(_plain(posterior, inference, test, number))
        for warning in kept[-1]["warnings"]:
            progress.note(f"warning: test map {number}: {warning}")
        progress.note(_line(kept[-1], number))
        write_json(folder / FILE, {**of, "maps": kept})
    kept = kept[:maps]
    result = {
        **of,
        "options": asdict(options),
        "training_skies": inference.generator.schedule.num,
        "label": config.label.quantity,
        "bin_edges_log10_L": inference.generator.bin_edges.tolist(),
        "percentiles": list(PERCENTILES),
        "maps": kept,
        "scores": _scores(kept, test, inference),
    }
    write_json(folder / FILE, result)
    _draw(kept, test, inference, samples, folder)
    inference.close()
    progress.close()
    print(table(result))
    return result


def _digest(config: Config, options: Options, *identity: dict[str, Any]) -> str:
    """sha256 of what decides the chains; identity: of the generator."""
    settings = [config.sample_settings(), asdict(config.test), asdict(options), METHOD, *identity]
    return sha256_of(settings)


def _read(path: Path, key: str, digest: str) -> list[dict[str, Any]]:
    """The maps that a file holds whose digest called `key` is this one; ValueError for another."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        maps, same = list(data["maps"]), data[key] == digest
    except (OSError, ValueError, KeyError, TypeError):
        return []
    if not same:
        raise ValueError(
            f"{path} is of other settings, options or lightcones, or of another version of the "
            "method, and stays as it is: --out writes elsewhere"
        )
    return maps


def _plain(posterior: Posterior, inference: Inference, test: Maps, number: int) -> dict[str, Any]:
    """What is kept of a posterior, with the truth."""
    chain, names = posterior.chain, inference.density.names
    warnings = [chain.warning()] if chain.warning() else []
    if posterior.noise.offset > LARGEST_OFFSET:
        warnings.append(
            f"the mean model missed simulations near the posterior by chi^2 = "
            f"{posterior.noise.offset:.1f} before it was moved onto them: raise --simulations"
        )
    columns = (posterior.theta.T.tolist(), test.theta[number].tolist())
    return {
        "noise_level": test.levels[number].tolist(),
        "parameters": {
            name: {
                "percentiles": spread,
                "true": true,
                "networks": {
                    network: np.percentile(samples[number][:, k], PERCENTILES).tolist()
                    for network, samples in test.posteriors.items()
                },
            }
            for k, (name, spread, true) in enumerate(zip(names, *columns, strict=True))
        },
        "log10_count": {
            "true": test.true[number].tolist(),
            "mean": posterior.mean.tolist(),
            "field": posterior.field.tolist(),
            **{name: values[number].tolist() for name, values in test.networks.items()},
        },
        "steps": chain.steps,
        "burn_in": chain.burn_in,
        "acceptance": chain.acceptance,
        "tau": chain.tau if np.isfinite(chain.tau) else None,
        "chi2": posterior.chi2,
        "numbers": int(posterior.noise.used.sum()),
        "mean_model_chi2": posterior.noise.offset,
        "warnings": warnings,
    }


def _line(entry: dict[str, Any], number: int) -> str:
    tau = "unknown" if entry["tau"] is None else f"{entry['tau']:.0f} steps"
    return (
        f"test map {number}: chi^2 = {entry['chi2']:.1f} of {entry['numbers']} numbers, acceptance "
        f"{entry['acceptance']:.2f}, autocorrelation time {tau} of {entry['steps']}"
    )


def _scores(kept: list[dict[str, Any]], test: Maps, inference: Inference) -> dict[str, Any]:
    """Errors of every predictor on these maps, and how often the bands hold the truth."""
    edges = inference.generator.bin_edges
    bootstrap = Bootstrap.choose(test.skies)
    medians = np.array([entry["log10_count"]["mean"][2] for entry in kept])
    mean = inference.simulations.log10_counts[:MEAN_LABEL_SAMPLES].mean(axis=0)
    predictors = {**test.networks, "mcmc": medians, "mean label": mean}
    bands = np.array([entry["log10_count"]["field"] for entry in kept])
    lower, upper = bands - TOLERANCE_DEX, bands + TOLERANCE_DEX
    inside = {
        name: float(
            ((lower[:, low] <= test.true) & (test.true <= upper[:, high]))[test.occupied].mean()
        )
        for name, low, high in (("68 %", 1, 3), ("95 %", 0, 4))
    }
    return {
        "predictors": {
            name: asdict(score(values, test.true, test.occupied, edges, bootstrap))
            for name, values in predictors.items()
        },
        "bootstrap": bootstrap.describe(),
        "coverage": inside,
    }


def table(result: dict[str, Any]) -> str:
    """rms of log10 of the count per luminosity range, a column per predictor."""
    scores, symbol = result["scores"], QUANTITIES[result["label"]].symbol
    predictors = scores["predictors"]
    every = [[*of["ranges"], of["whole"]] for of in predictors.values()]
    rows = [
        [range_title(row[0]["log10_L"]), *map(rms_cell, row)] for row in zip(*every, strict=True)
    ]
    rows.append(["mse", *(f"{of['mse']:.4f}" for of in predictors.values())])
    lines = [
        f"{len(result['maps'])} test maps; rms error of log10 {symbol} [dex] where it is not 0",
        "",
        *columns(["log10 L", *predictors], rows),
    ]
    shares = ", ".join(f"{name}: {100 * v:.0f} %" for name, v in scores["coverage"].items())
    lines += [
        *error_lines(scores["bootstrap"]),
        *_few_training_skies(result["training_skies"]),
        "",
        f"bins inside the posterior's bands of the field's own counts: {shares}",
    ]
    return "\n".join(lines)


def _few_training_skies(number: int | None) -> list[str]:
    """What the posteriors do not know of where the training has few skies; None: it has no end of
    them."""
    if number is None or number >= ENOUGH_LIGHTCONES:
        return []
    of = "one sky" if number == 1 else f"{number} skies"
    return wrap(
        f"warning: the simulations are of {of}: how far so few are from the mean of many is not in "
        f"the covariance, and the scatter between skies hardly; make {ENOUGH_LIGHTCONES} or more",
        TEXT_WIDTH,
    )


def _draw(
    kept: list[dict[str, Any]],
    test: Maps,
    inference: Inference,
    samples: Float | None,
    folder: Path,
) -> None:
    """mcmc.png, and mcmc_parameters.png of the first map where it was sampled now."""
    drawn = {
        "mcmc.png": luminosity_bands(
            np.array([entry["log10_count"]["field"] for entry in kept]),
            test.true,
            test.occupied,
            inference.generator.bin_edges,
            test.networks,
            quantity=inference.config.label.quantity,
            unit=test.unit,
        )
    }
    if samples is not None:
        drawn["mcmc_parameters.png"] = corner(
            samples,
            inference.density.names,
            test.theta[0],
            inference.simulations.theta,
            title="parameters of the luminosity model, from test map 0",
            name="Markov chain",
            beside={f"network {name}": of[0] for name, of in test.posteriors.items()},
        )
    for name, figure in drawn.items():
        write_png(figure, folder / name)


def luminosity_bands(
    bands: Float,
    true: Float,
    occupied: NDArray[np.bool_],
    bin_edges: Float,
    networks: Mapping[str, Float],
    *,
    quantity: str = "counts",
    unit: Float | None = None,
) -> Figure:
    """68 % and 95 % of the posterior of each map's own counts, truth, networks; ratios below.

    bands: percentiles 2.5, 16, 50, 84, 97.5 of log10 of the count [num_maps, 5, num_bins]; true,
    occupied, networks: [num_maps, num_bins]; the first `SHOWN` maps are drawn. bin_edges:
    log10(L/Lsun) [num_bins + 1]. quantity, unit: as in `figures.luminosity_function`.
    """
    num = min(len(true), SHOWN)
    figure = Figure(figsize=(1.2 + 3.6 * num, 5.8), dpi=150, layout="constrained")
    panels = figure.subplots(
        2, num, sharex=True, sharey="row", squeeze=False, height_ratios=(2, 1.2)
    )
    at = positions(bin_edges, quantity)
    worth = np.broadcast_to(1.0 if unit is None else unit, true.shape)
    colours = [own for own in SERIES if own != CHAIN]
    for k in range(num):
        upper, lower = panels[:, k]
        shown = occupied[k]
        for axes, below in ((upper, 0.0), (lower, true[k])):
            scale = worth[k] if axes is upper else 1.0
            low95, low68, middle, high68, high95 = scale * 10.0 ** (bands[k] - below)
            hide = np.where(shown | (axes is upper), 1.0, np.nan)
            axes.fill_between(at, low95 * hide, high95, color=CHAIN, alpha=0.2, lw=0, label="95 %")
            axes.fill_between(at, low68 * hide, high68, color=CHAIN, alpha=0.45, lw=0, label="68 %")
            axes.plot(at, middle * hide, color=CHAIN, lw=1.6, label="Markov chain, median")
            for (name, values), colour in zip(networks.items(), colours, strict=False):
                curve = scale * 10.0 ** (values[k] - below) * hide
                axes.plot(at, curve, "--", color=colour, lw=1.5, label=f"network {name}")
        count = (worth[k] * 10.0 ** true[k])[shown]
        upper.plot(at[shown], count, "o", color=TRUTH, ms=2.6, label="true", zorder=4)
        upper.set_yscale("log")
        upper.set_title(f"test map {k}", fontsize=TICK_SIZE)
        style(upper, bin_edges)
        style(lower, bin_edges)
        ratio_axis(lower, (0.4, 2.5))
        lower.set_xlabel(r"$L$ [$L_\odot$]", fontsize=LABEL_SIZE)
    panels[0, 0].set_ylabel(QUANTITIES[quantity].axis, fontsize=LABEL_SIZE)
    panels[1, 0].set_ylabel("posterior / true", fontsize=LABEL_SIZE)
    legend_below(figure, panels[0, 0], 4)
    figure.suptitle(
        "luminosity functions of test maps, by Markov chain from P(k) and voxel intensities",
        fontsize=LABEL_SIZE,
    )
    return figure
