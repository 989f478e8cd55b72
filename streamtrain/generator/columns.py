"""What a luminosity model reads of a halo besides its mass and redshift."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamtrain import portable
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.generator import abundance
from streamtrain.generator.sfr import log10_sfr as fitted_log10_sfr
from streamtrain.generator.sfr_table import SFRTable


def model_column(
    lightcone: Lightcone,
    name: str,
    form: str,
    sfr: str | SFRTable = "auto",
    used: NDArray[np.bool_] | None = None,
) -> NDArray[np.floating]:
    """A column of the lightcone's halos [n], as it is or as its base-2 logarithm.

    form: 'linear' or 'log2'. Some columns can be computed: `abundance_matched_L` [Lsun], and `sfr`
    [Msun/yr], where the argument `sfr` says from what: "auto" (the lightcone's own if it has one,
    else the fit), "fit", "column" (the lightcone's own), or a table.
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
    if name in lightcone.columns and not (name == "sfr" and sfr == "fit"):
        values = lightcone.columns[name][used].astype(np.float64)
        if values.size and values.min() < 0.0:
            raise ValueError(
                f"the column '{name}' of {lightcone.name} holds {values.min():g}: "
                "a luminosity model needs numbers that are not negative"
            )
        return _in_form(values, form)
    if name == "sfr" and sfr != "column":
        log10_sfr = fitted_log10_sfr(mass, z)
        return log10_sfr * portable.LOG2_10 if form == "log2" else portable.exp10(log10_sfr)
    if name == "abundance_matched_L":
        return _in_form(abundance.matched_luminosity(lightcone)[used], form)
    known = [*([] if sfr == "column" else ["sfr (from the fit)"]), *lightcone.columns]
    raise ValueError(
        f"the luminosity model needs the column '{name}', which {lightcone.name} does not have "
        f"(it has: {', '.join(known) or 'none'})"
    )


def _in_form(values: NDArray[np.float64], form: str) -> NDArray[np.float64]:
    return portable.log2(values) if form == "log2" else values
