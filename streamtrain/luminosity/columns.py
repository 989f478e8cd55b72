"""What a luminosity model reads of a halo besides its mass and redshift."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.sfr import SFRTable, in_table, squared_rates, warn_of_extrapolation
from streamtrain.catalogs.sfr import log10_sfr as fitted_log10_sfr
from streamtrain.luminosity import abundance
from streamtrain.numerics import portable


def warn_of_extrapolated_rates(
    lightcones: Sequence[Lightcone], painted: Sequence[NDArray[np.bool_]], sfr: str | SFRTable
) -> None:
    """Warn (ModelRangeWarning) where the rates of painted halos are the fit's without having been
    asked for (`sfr` = "auto"), and more than a hundredth of their squares are of halos for which
    the fitted table has no data. painted: of each lightcone's halos [n]."""
    if sfr != "auto":
        return
    whole, beyond, last = 0.0, 0.0, 0.0
    for lightcone, some in zip(lightcones, painted, strict=True):
        if "sfr" in lightcone.columns or not some.any():
            continue
        mass, z = (v[some].astype(np.float64) for v in (lightcone.mass_Msun, lightcone.z_obs))
        last = max(last, z.max())
        if not in_table(mass.max(), last):  # else no halo is beyond
            squares = squared_rates(portable.exp10(fitted_log10_sfr(mass, z)), mass, z)
            whole, beyond = whole + squares[0], beyond + squares[1]
    warn_of_extrapolation(
        (whole, beyond),
        last,
        "data.sfr = fit takes that without a word, fit_in_range leaves them dark",
    )


def model_column(
    lightcone: Lightcone,
    name: str,
    form: str,
    sfr: str | SFRTable = "auto",
    used: NDArray[np.bool_] | None = None,
) -> NDArray[np.floating]:
    """A column of the lightcone's halos [n], as it is or as its base-2 logarithm.

    form: 'linear' or 'log2'. Some columns can be computed: those of `abundance.FUNCTIONS` [Lsun],
    and `sfr` [Msun/yr], where the argument `sfr` says from what: "auto" (the lightcone's own if it
    has one, else the fit), "fit", "fit_in_range" (0 where the fitted table has no data), "column"
    (the lightcone's own), or a table.
    used: the halos that it is for [n], default: all; of the others nothing is asked, and the column
    has 0.
    Raises ValueError, one sentence, if the lightcone has no such column, if it holds negative
    numbers, or if the fit or the table does not cover the halos.
    """
    used = np.ones(len(lightcone), bool) if used is None else used
    column = np.zeros(len(lightcone))
    column[used] = _values(lightcone, name, form, sfr, used)
    return column


def _values(
    lightcone: Lightcone, name: str, form: str, sfr: str | SFRTable, used: NDArray[np.bool_]
) -> NDArray[np.floating]:
    """Of the halos that are used."""
    mass, z = lightcone.mass_Msun[used], lightcone.z_obs[used]
    if name == "sfr" and isinstance(sfr, SFRTable):
        return _in_form(sfr.sfr(mass, z), form)
    if name in lightcone.columns and not (name == "sfr" and sfr in ("fit", "fit_in_range")):
        values = lightcone.columns[name][used].astype(np.float64)
        if values.size and values.min() < 0.0:
            raise ValueError(
                f"the column '{name}' of {lightcone.name} holds {values.min():g}: "
                "a luminosity model needs numbers that are not negative"
            )
        return _in_form(values, form)
    if name == "sfr" and sfr != "column":
        log10_sfr = fitted_log10_sfr(mass, z)
        if sfr == "fit_in_range":
            known = in_table(mass, z)
            return _in_form(np.where(known, portable.exp10(log10_sfr), 0.0), form)
        return log10_sfr * portable.LOG2_10 if form == "log2" else portable.exp10(log10_sfr)
    if name in abundance.FUNCTIONS:
        luminosity = abundance.matched_luminosity(lightcone, abundance.FUNCTIONS[name])
        return _in_form(luminosity[used], form)
    there = [*([] if sfr == "column" else ["sfr (from the fit)"]), *lightcone.columns]
    raise ValueError(
        f"the luminosity model needs the column '{name}', which {lightcone.name} does not have "
        f"(it has: {', '.join(there) or 'none'})"
    )


def _in_form(values: NDArray[np.float64], form: str) -> NDArray[np.float64]:
    return portable.log2(values) if form == "log2" else values
