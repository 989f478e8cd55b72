"""Halo lightcones from nothing but a seed: a peak-background-split sampler moved by 2LPT.

In Lagrangian space halos are a Poisson sample whose rate follows the filtered linear density
(see `halo_rates`); each is then displaced by second-order perturbation theory at the growth of its
own distance, and observed along the line of sight. No simulation was used for calibration, and
the mass function holds exactly in the mean.

Good: counts, mass function, bias and redshift-space distortion up to k ~ 0.4/Mpc (5 to 10 %).
Poor: pairs closer than 3 Mpc, where clustering is 20 to 50 % low near k ~ 1/Mpc; no halo
exclusion, satellites, assembly bias or formation history; above 2e13 Msun only the number is
right. Tinker08 is extrapolated beyond z = 2.5 and below 1e11 Msun.

References:
    The halo bias function in an excursion set model (Mo & White, 1996), arXiv:astro-ph/9512127
    Transients from initial conditions in 2LPT (Crocce, Pueblas & Scoccimarro, 2006),
    arXiv:astro-ph/0606505
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from streamtrain._version import __version__
from streamtrain.catalogs import sfr as fit
from streamtrain.catalogs.headers import MAKER, CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.synthesis.arrays import NUMPY, NumpyArrays
from streamtrain.catalogs.synthesis.box import (
    METHOD,
    METHOD_REVISION,
    METHOD_VERSION,
    FieldBox,
)
from streamtrain.catalogs.synthesis.massfunction import mass_function as find_mass_function
from streamtrain.catalogs.synthesis.options import SkyOptions
from streamtrain.catalogs.synthesis.sampler import HaloSampler
from streamtrain.machine.workers import num_cores

INSTEAD_OF_A_COLUMN = (
    "in a lightcone without the column sfr, data.sfr = fit_in_range leaves them dark"
)

SOME_SKIES = 16
"""So many are looked at for what drawn options are expected to make."""


class EmptySkyError(CatalogError):
    """A seed whose sky has no halo in the field, which can happen where few are expected."""


def synthesize(
    seed: int,
    options: SkyOptions | None = None,
    *,
    sfr: bool = False,
    threads: int | None = None,
    device: str = "cpu",
    progress: Callable[[float, str], None] | None = None,
    **changes: Any,
) -> Lightcone:
    """A lightcone of halos as a function of a seed and the options.

    Args:
        seed: 0..2^64-1; another seed is another, independent sky.
        options: what decides the halos; default: a field for COMAP. With `vary` the sky has what
            is drawn for its seed.
        sfr: adds the column "sfr" [Msun/yr], the mean of Behroozi et al. 2013 at mass and z_obs by
            the fit, also for halos for which they have no data: with a warning (ModelRangeWarning)
            where these have more than a hundredth of the squared rates.
        threads: how many work at it; the halos are the same for any number.
        device: "cpu", or "cuda", "cuda:1" ...: the same sky, made by torch on a GPU. Sums are
            rounded differently there, so a few halos in a million are others and positions differ
            by 1e-5 Mpc; the digest is another one, the realisation and the recipe are not.
        progress: called with the fraction done and what is being done.
        changes: options by name, as in `synthesize(7, footprint_deg=(1.0, 1.0))`; see `SkyOptions`.

    Raises ValueError for an option outside its range, a device that is not there, and a field
    that does not fit in memory, and EmptySkyError, a CatalogError, for a seed without any halo.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed {seed} must lie in 0..2^64-1")
    given = replace(options or SkyOptions(), **changes)
    options = given.of(seed)
    if sfr:
        fit.log10_sfr(options.min_mass_Msun, options.z_range)  # refuses what the fit does not cover
    report = progress if progress is not None else lambda fraction, what: None
    report(0.0, "planning")
    sampler = _sampler(options, device)
    with sampler.arrays.pool(threads or _num_threads()) as pool:
        halos = sampler.halos(sampler.key(int(seed)), pool, report)
    columns = None
    if sfr:
        columns = {"sfr": fit.sfr(halos["mass_Msun"], halos["z_obs"])}
        squares = fit.squared_rates(columns["sfr"], halos["mass_Msun"], halos["z_obs"])
        fit.warn_of_extrapolation(squares, options.z_range[1], INSTEAD_OF_A_COLUMN)
    report(0.9, "sort")
    width, height = options.footprint_deg
    if not len(halos["x_Mpc"]):
        raise EmptySkyError(
            f"seed {seed} has no halo above {options.min_mass_Msun:.3g} Msun in {width:g} x "
            f"{height:g} deg, z = {options.z_range[0]:g}..{options.z_range[1]:g} (about "
            f"{sampler.num_halos:.2g} are expected): lower the mass limit, or widen the field or "
            "the redshifts"
        )
    lightcone = Lightcone.from_arrays(
        halos["x_Mpc"],
        halos["y_Mpc"],
        halos["z_Mpc"],
        halos["mass_Msun"],
        halos["z_obs"],
        velocities_kms=halos["velocities_kms"],
        columns=columns,
        cosmology=options.cosmology.to_dict(),
        provenance=_provenance(seed, given, sampler),
        footprint_deg=(-width / 2, width / 2, -height / 2, height / 2),
        z_range=options.z_range,
        min_mass_Msun=options.min_mass_Msun,
        realisation=sampler.realisation(seed),
    )
    report(1.0, "done")
    return lightcone


def realisation_name(seed: int, options: SkyOptions) -> str:
    """The name of the sky that a seed and options make."""
    return FieldBox(options.of(seed)).realisation(seed)


def is_sky_of(seed: int, options: SkyOptions, names: Iterable[str]) -> bool:
    """Whether one of the names is that of the sky that a seed and options make."""
    ours = {name for name in names if name.startswith(f"{METHOD}-{seed}-")}
    return bool(ours) and realisation_name(seed, options) in ours


def memory_needed(options: SkyOptions) -> float:
    """About what making a lightcone of these options takes on a CPU [bytes]; where they are drawn,
    the most of some skies."""
    return max(_sampler(one, "cpu").memory for one in _some(options))


def expected_halos(options: SkyOptions) -> float:
    """About how many halos a lightcone of these options has; where they are drawn, the mean of
    some skies."""
    numbers = [_sampler(one, "cpu").num_halos for one in _some(options)]
    return sum(numbers) / len(numbers)


def _some(options: SkyOptions) -> list[SkyOptions]:
    """The options of some skies, all of them where none is drawn."""
    return [options.of(seed) for seed in range(SOME_SKIES if options.vary else 1)]


def _provenance(seed: int, given: SkyOptions, sampler: HaloSampler) -> str:
    options = sampler.options
    chosen = find_mass_function(options.mass_function)
    record = {
        "program": MAKER,
        "version": __version__,
        "method": METHOD,
        "method_version": METHOD_VERSION,
        "method_revision": METHOD_REVISION,
        "seed": int(seed),
        **options.to_dict(),
        "mass_definition": chosen.mass_definition,
        "mass_function_reference": chosen.reference,
        "box_cells": list(sampler.box.shape),
        "num_slabs": len(sampler.slabs),
    }
    if given.vary is not None:
        record["prior"] = {"digest": given.vary.digest, "drawn": given.drawn(seed)}
    if sampler.arrays is not NUMPY:
        record["device"] = sampler.arrays.name
    return json.dumps(record)


@lru_cache(maxsize=1)
def _sampler(options: SkyOptions, device: str) -> HaloSampler:
    return HaloSampler(options, arrays_for(device))


def _num_threads() -> int:
    return min(4, num_cores())


def arrays_for(device: str) -> NumpyArrays:
    """The operations of "cpu", "cuda" (under torchrun the GPU of the local rank) or "cuda:N".

    Raises ValueError for another device, and for a GPU that torch cannot use.
    """
    if device == "cpu":
        return NUMPY
    kind, _, number = device.partition(":")
    if kind != "cuda" or (":" in device and not number.isdigit()):
        raise ValueError(f"device {device!r} is none of cpu, cuda, cuda:0, cuda:1 ...")
    import torch

    from streamtrain.catalogs.synthesis.torch_arrays import TorchArrays

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    chosen = int(number) if number else int(os.environ.get("LOCAL_RANK", "0")) % max(1, found)
    if chosen >= found:
        raise ValueError(
            f"device {device!r}: torch can use {found} NVIDIA GPU(s) here; use device 'cpu'"
        )
    return TorchArrays(torch.device("cuda", chosen))
