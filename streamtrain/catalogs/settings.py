"""The section `data` of a configuration: which skies samples are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from streamtrain.numerics.rng import Split
from streamtrain.schema import ConfigError, setting

SFR_CHOICES = ("auto", "fit", "fit_in_range", "column")
"""Where star-formation rates come from if not from a table: the lightcone's column `sfr` if it has
one and else the fit; the fit; the fit, but none where the table it was fitted to has no data; the
column."""
DEFAULT_FRESH_ACTIVE = 2
"""Lightcones in use at a time where they are made during training."""


@dataclass(frozen=True)
class SynthesizeConfig:
    """Lightcones that are made while the network trains; options as of `catalog make`."""

    reuse: int = setting(
        8192, "samples painted out of each lightcone, before others take its place", low=1
    )
    footprint_deg: float | tuple[float, float] | None = setting(
        None, "side, or width in ra and dec [deg]; default: 1.2 times the field's diagonal"
    )
    z_range: tuple[float, float] | None = setting(
        None, "observed redshifts; default: those of the band"
    )
    min_mass_Msun: float | None = setting(
        None, "halos above this mass [Msun]; default: data.min_mass_Msun", above=0
    )
    mass_function: str = setting(
        "tinker08", "tinker08, watson13_fof or colossus:MODEL[:DEFINITION]"
    )
    bias: str = setting("tinker10", "tinker10 or colossus:MODEL[:DEFINITION]")
    cosmology: dict[str, float] = setting({}, "Omega_m, Omega_b, h, n_s, sigma8; default: COMAP's")


@dataclass(frozen=True)
class FreshConfig:
    """Lightcones that are synthesised while the network trains, in place of files."""

    synthesize: SynthesizeConfig = setting(help="how lightcones are made")


@dataclass(frozen=True)
class DataConfig:
    """Lightcones per split, and how fields are cut from them."""

    train: list[str] | FreshConfig = setting(
        [], "lightcone files or globs, or synthesize: {...}, made while the network trains"
    )
    validation: list[str] = setting([], "lightcone files or globs; other realisations than train")
    test: list[str] = setting([], "lightcone files or globs; other realisations than train")
    roll: Literal["any", "quarter", "none"] = setting("any", "angles a field is rolled by")
    mirror: bool = setting(True, "mirror half of the fields")
    min_mass_Msun: float = setting(2.5e10, "halos above this mass only [Msun]", above=0)
    active: int = setting(
        0,
        "lightcones in use at a time, the others take turns; 0: all of them, or two of those that "
        "are made during training",
        low=0,
    )
    active_samples: int = setting(65536, "samples after which other files are in use", low=1)
    memory_GB: float | None = setting(
        None, "largest size of the lightcones in use; default: half of what is free", above=0
    )
    sfr: str = setting(
        "auto",
        "star-formation rates: auto (column if any, else fit), fit, fit_in_range (none beyond the "
        "fitted table), column, or a table file",
    )

    @property
    def fresh(self) -> SynthesizeConfig | None:
        """How lightcones for training are made, if they do not come from files."""
        return self.train.synthesize if isinstance(self.train, FreshConfig) else None

    def files(self, split: Split) -> list[str]:
        """Files or globs of a split."""
        return [] if split == "train" and self.fresh else getattr(self, split)


def check_data(data: DataConfig) -> None:
    """Raise ConfigError for settings that contradict one another."""
    if data.fresh and data.active_samples != DataConfig().active_samples:
        raise ConfigError(
            f"data.active_samples = {data.active_samples} is for lightcone files; fresh ones are "
            "used for data.train.synthesize.reuse samples each"
        )
