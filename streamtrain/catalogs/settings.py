"""The section `data` of a configuration: which skies samples are made from."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from streamtrain.catalogs.synthesis.options import section_of
from streamtrain.catalogs.synthesis.vary import SkyPrior
from streamtrain.numerics.rng import Split
from streamtrain.schema import ConfigError, setting

Roll = Literal["any", "quarter", "none"]
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
    footprint_deg: float | tuple[float, float] | None = section_of(
        "footprint_deg", "1.2 times the field's diagonal"
    )
    z_range: tuple[float, float] | None = section_of("z_range", "those of the band")
    min_mass_Msun: float | None = section_of("min_mass_Msun", "data.min_mass_Msun")
    mass_function: str = section_of("mass_function")
    bias: str = section_of("bias")
    abundance: float | None = section_of("abundance")
    abundance_tilt: float | None = section_of("abundance_tilt")
    bias_factor: float | None = section_of("bias_factor")
    infall: float | None = section_of("infall")
    vary: SkyPrior | None = section_of("vary")
    cosmology: dict[str, float] = setting({}, "Omega_m, Omega_b, h, n_s, sigma8; default: COMAP's")

    def said(self) -> dict[str, Any]:
        """The options that it gives, by their names in `SkyOptions`."""
        given = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "reuse"}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class FreshConfig:
    """The training split where its lightcones are made, not read."""

    synthesize: SynthesizeConfig = setting(help="how lightcones are made")


@dataclass(frozen=True)
class DataConfig:
    """Lightcones per split, and how fields are cut from them."""

    train: list[str] | FreshConfig = setting(
        [], "lightcone files or globs, or synthesize: {...}, made while the network trains"
    )
    validation: list[str] = setting([], "lightcone files or globs; other realisations than train")
    test: list[str] = setting([], "lightcone files or globs; other realisations than train")
    roll: Roll = setting("any", "angles a field is rolled by")
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
        """The files or globs that a split names; none where its lightcones are made."""
        return [] if split == "train" and self.fresh else getattr(self, split)


def check_data(data: DataConfig) -> None:
    """Raise ConfigError for settings that contradict one another."""
    if data.fresh and data.active_samples != DataConfig().active_samples:
        raise ConfigError(
            f"data.active_samples = {data.active_samples} is for lightcone files; fresh ones are "
            "used for data.train.synthesize.reuse samples each"
        )
