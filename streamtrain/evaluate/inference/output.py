"""What `infer` writes and shows of a prediction: ECSV, JSON, a figure and the screen."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from streamtrain.evaluate.alarm.alarm import Alarm, about_lines, told_of_map
from streamtrain.evaluate.inference.parameter_posterior import ParameterPosterior
from streamtrain.evaluate.inference.prepare import Prepared
from streamtrain.evaluate.posterior.functions import Curve
from streamtrain.evaluate.posterior.posterior import Posterior
from streamtrain.figures import (
    GREY,
    LABEL_SIZE,
    NETWORK,
    SHADES,
    TICK_SIZE,
    TRUTH,
    as_name,
    legend_below,
    positions,
    style,
    write_png,
)
from streamtrain.labels import QUANTITIES
from streamtrain.machine.files import write_json, write_text
from streamtrain.maps.skymap import SkyMap
from streamtrain.schema import plain as plain_data
from streamtrain.tables import columns, labelled

Float = NDArray[np.float64]

COLUMNS = {"counts": "dN", "cumulative": "N_above", "phi": "phi", "phi_L": "phi_L"}
"""Name of the prediction in the table."""
ASTROPY_UNITS = {"counts": None, "cumulative": None, "phi": "Mpc-3 solLum-1", "phi_L": "Mpc-3"}
INTERVALS = ("low_95", "low_68", "high_68", "high_95")
ROWS = 10
"""Luminosities in the table on the screen."""


@dataclass(frozen=True)
class Function:
    """An inferred function of luminosity, in the label's quantity, not its logarithm."""

    quantity: str
    bin_edges: Float
    """log10(L/Lsun) [num_bins + 1]."""
    value: Float
    """[num_bins]; a bin of less than one halo counts as one."""
    interval: Float | None
    """Ends of the 95 % and 68 % intervals, in the order of `INTERVALS`, [4, num_bins]."""
    unit_label: Float
    """What one halo is worth [num_bins]."""
    uncertainty: str
    """Where the intervals come from."""
    posterior: Posterior | None = None
    """The functions that the network holds for possible, where it predicts numbers of halos."""


Prediction: TypeAlias = Function | dict[str, float] | ParameterPosterior
"""What is read off a map: a function of luminosity, probabilities of classes, or parameters."""


def plain(prediction: Prediction) -> dict[str, Any]:
    """A prediction as plain data, for the JSON file."""
    if isinstance(prediction, ParameterPosterior):
        return prediction.plain()
    if isinstance(prediction, dict):
        return {"label": "class", "classes": prediction}
    result: dict[str, Any] = {
        "label": prediction.quantity,
        "log10_L_edges": prediction.bin_edges.tolist(),
        "value": prediction.value.tolist(),
        "one_halo": prediction.unit_label.tolist(),
        "uncertainty": prediction.uncertainty,
    }
    if prediction.interval is not None:
        result |= dict(zip(INTERVALS, prediction.interval.tolist(), strict=True))
    posterior = prediction.posterior
    if posterior is not None:
        curves = {name: values.tolist() for name, values in _bands(prediction).items()}
        result["posterior"] = _about(posterior) | curves
        if posterior.joint:
            above = _errors(posterior.above, 0.0)
            result["posterior"]["N_above"] = {k: values.tolist() for k, values in above.items()}
    return result


def _about(posterior: Posterior) -> dict[str, Any]:
    """What a posterior rests on, and its integrals."""
    return {
        "functions": len(posterior.samples),
        "seed": posterior.seed,
        "joint": posterior.joint,
        "outside": posterior.outside,
        "integrals": {each.name: each.to_dict() for each in posterior.estimates()},
    }


def _bands(prediction: Function) -> dict[str, Float]:
    """Bands of the luminosity function; medians and intervals of its bins stand elsewhere."""
    assert prediction.posterior is not None
    found = _errors(prediction.posterior.function, prediction.unit_label)
    return {name: values for name, values in found.items() if name.startswith("band_")}


def _errors(curve: Curve, least: Float | float) -> dict[str, Float]:
    """Median, intervals of each value and simultaneous bands [num_bins] each; least: what smaller
    ones count as."""
    found = {"median": curve.quantiles([0.5])[0]}
    found |= dict(zip(INTERVALS, _nested(curve.interval), strict=True))
    with suppress(ValueError):  # of few functions, as a warning says
        found |= dict(zip((f"band_{end}" for end in INTERVALS), _nested(curve.band), strict=True))
    return {name: np.maximum(values, least) for name, values in found.items()}


def _nested(ends: Callable[[float], Float]) -> list[Float]:
    """What `ends` makes of 95 % and 68 %, in the order of `INTERVALS`."""
    (low95, high95), (low68, high68) = ends(0.95), ends(0.68)
    return [low95, low68, high68, high95]


def write(stem: Path, result: dict[str, Any], prediction: Prediction) -> list[Path]:
    """Write NAME.ecsv, NAME.json and NAME.png, and return which of them were.

    stem: path without the suffix; result: what the JSON file holds.
    """
    files = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("ecsv", "json", "png")]
    if isinstance(prediction, dict):
        files.pop()
    else:
        title = f"of the map {as_name(Path(result['map']['file']).name)}"
        alarm = None if result["alarm"] is None else Alarm.from_dict(result["alarm"])
        about = about_lines(f"{result['run']}, step {result['checkpoint_step']}", alarm)
        if isinstance(prediction, ParameterPosterior):
            figure = prediction.figure(f"parameters {title}", about)
        else:
            figure = prediction_figure(prediction, f"luminosity function {title}", about=about)
        write_png(figure, files[2])
    write_json(files[1], result)
    text = _ecsv(result, prediction)
    if text is None:
        result["warnings"].append(
            "no ECSV: it needs `pip install astropy`; the JSON file has it all"
        )
        return files[1:]
    write_text(files[0], text)
    return files


def _ecsv(result: dict[str, Any], prediction: Prediction) -> str | None:
    """The prediction as an ECSV table; None without astropy."""
    try:
        from astropy.table import Table
    except ImportError:
        return None
    about = {  # lists for tuples, which YAML knows in Python alone
        key: plain_data(result[key])
        for key in (
            "map",
            "run",
            "training",
            "checkpoint_step",
            "streamtrain",
            "applied",
            "notes",
            "warnings",
            "alarm",
        )
    }
    if isinstance(prediction, ParameterPosterior):
        table = Table(prediction.table(), meta=about)
    elif isinstance(prediction, dict):
        table = Table(
            {"class": list(prediction), "probability": list(prediction.values())}, meta=about
        )
    else:
        name = COLUMNS[prediction.quantity]
        unit = ASTROPY_UNITS[prediction.quantity]
        columns: dict[str, Any] = {
            "log10_L_low": prediction.bin_edges[:-1],
            "log10_L_high": prediction.bin_edges[1:],
            name: prediction.value,
        }
        if prediction.interval is not None:
            rows = zip(INTERVALS, prediction.interval, strict=True)
            columns |= {f"{name}_{end}": values for end, values in rows}
        about["uncertainty"] = prediction.uncertainty
        if prediction.posterior is not None:
            columns |= {f"{name}_{end}": values for end, values in _bands(prediction).items()}
            if prediction.posterior.joint:
                above = _errors(prediction.posterior.above, 0.0)
                columns |= {f"N_above_{end}": values for end, values in above.items()}
            about["posterior"] = _about(prediction.posterior)
        table = Table(columns, meta=about)
        for column in table.columns.values():
            if column.name.startswith("log10_L"):
                column.description = "log10 of the luminosity in solar luminosities"
            elif column.name.startswith(f"{name}_") or column.name == name:
                column.unit = unit
                column.description = "less than one halo counts as one"
            else:
                column.description = "halos above log10_L_low, below the last edge"
    stream = io.StringIO()
    table.write(stream, format="ascii.ecsv")
    return stream.getvalue()


def screen(
    sky: SkyMap,
    prepared: Prepared,
    result: dict[str, Any],
    prediction: Prediction,
    age: str,
    network: Sequence[str] = (),
) -> str:
    """What the user sees of a prediction; age: of the errors; network: what it was trained for, a
    line each."""
    shape = " x ".join(str(n) for n in sky.shape)
    lines = [
        f"map       {sky.source} ({sky.layout}): {shape} voxels (freq, dec, ra), "
        f"{sky.ra.width:.4g} x {sky.dec.width:.4g} deg, {sky.nu_GHz[0]:g}..{sky.nu_GHz[1]:g} GHz"
        + (f", {sky.units}" if sky.units else ""),
        *labelled("network", f"{result['run']}, step {result['checkpoint_step']}"),
        *(part for line in network for part in labelled("", line)),
        *labelled("applied", ", ".join(prepared.applied) or "no operator"),
    ]
    if age:
        lines += labelled("errors", age)
    if prepared.left_out:
        lines += labelled("left out", f"{', '.join(prepared.left_out)}: a map has them in it")
    alarm = None if result["alarm"] is None else Alarm.from_dict(result["alarm"])
    lines += told_of_map(alarm, result["notes"], result["warnings"])
    if isinstance(prediction, ParameterPosterior):
        return "\n".join([*lines, *prediction.lines()])
    if isinstance(prediction, dict):
        rows = [[name, f"{chance:.3f}"] for name, chance in prediction.items()]
        return "\n".join([*lines, *columns(["class", "probability"], rows)])
    lines.append(f"68 % and 95 %: {prediction.uncertainty}")
    lines += _rows(prediction)
    some = f"{ROWS} of {len(prediction.value)} bins, " if len(prediction.value) > ROWS else ""
    files = "; the files have them all" if some else ""
    lines.append(f"{some}less than one halo counts as one{files}")
    if age and (outside := int(_outside(prediction).sum())):
        lines.append(
            f"* in {outside} bins the value lies outside its 68 %: the intervals are corrected for "
            "the network's mean error on its test maps, the value is not, so quote the interval"
        )
    if prediction.posterior is not None:
        lines += ["", *prediction.posterior.lines()]
    return "\n".join(lines)


def _outside(prediction: Function) -> NDArray[np.bool_]:
    """Whether the value of each bin lies outside its 68 % [num_bins]."""
    if prediction.interval is None:
        return np.zeros(len(prediction.value), bool)
    _, low68, high68, _ = prediction.interval
    return np.asarray((prediction.value < low68) | (prediction.value > high68))


def _rows(prediction: Function) -> list[str]:
    """The table of some bins; a value that lies outside its 68 % has a star."""
    ends: list[tuple[str, Float, Float]] = []
    if prediction.interval is not None:
        low95, low68, high68, high95 = prediction.interval
        ends = [("68 %", low68, high68), ("95 %", low95, high95)]
    if prediction.posterior is not None:
        bands = _bands(prediction)
        if "band_low_95" in bands:
            ends.append(("95 % of whole curves", bands["band_low_95"], bands["band_high_95"]))
    num, rows, outside = len(prediction.value), [], _outside(prediction)
    for k in np.unique(np.linspace(0, num - 1, min(ROWS, num)).round().astype(int)):
        bin_ = f"{prediction.bin_edges[k]:.2f}..{prediction.bin_edges[k + 1]:.2f}"
        spans = [f"{low[k]:.4g} .. {high[k]:.4g}" for _, low, high in ends]
        star = " *" if outside[k] else ("  " if outside.any() else "")
        rows.append([bin_, f"{prediction.value[k]:.4g}{star}", *spans])
    symbol = QUANTITIES[prediction.quantity].symbol
    return columns(["log10 L", symbol, *(name for name, _, _ in ends)], rows)


def prediction_figure(
    prediction: Function,
    title: str = "luminosity function of a map",
    true: Float | None = None,
    about: Sequence[str] = (),
) -> Figure:
    """An inferred function with its 68 % and 95 %; true: the truth where it is known, in the same
    quantity [num_bins], not drawn where it is 0; about: lines below the title, which a posterior
    knows by itself."""
    if prediction.posterior is not None:
        known = None if true is None else true / prediction.unit_label
        return prediction.posterior.plot(title=title, true=known)
    title = "\n".join([title, *about])
    figure = Figure(figsize=(6.4, 5.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    at = positions(prediction.bin_edges, prediction.quantity)
    if prediction.interval is not None:
        low95, low68, high68, high95 = prediction.interval
        axes.fill_between(at, low95, high95, color=SHADES[0], lw=0, label="95 %")
        axes.fill_between(at, low68, high68, color=SHADES[1], lw=0, label="68 %")
    axes.plot(at, prediction.value, color=NETWORK, lw=1.8, label="network")
    axes.plot(
        at,
        prediction.unit_label,
        ":",
        color=GREY,
        lw=1.2,
        zorder=1,
        label="one halo, as which less counts",
    )
    if true is not None:
        some = true > 0
        axes.plot(at[some], true[some], "o", color=TRUTH, ms=2.8, zorder=4, label="true")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7 * float(prediction.unit_label.min()))
    style(axes, prediction.bin_edges)
    axes.set_xlabel(r"$L$ [$L_\odot$]", fontsize=LABEL_SIZE)
    axes.set_ylabel(QUANTITIES[prediction.quantity].axis, fontsize=LABEL_SIZE)
    axes.set_title(title, fontsize=TICK_SIZE if about else LABEL_SIZE)
    legend_below(figure, axes, 5)
    return figure
