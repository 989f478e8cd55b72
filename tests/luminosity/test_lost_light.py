"""How much of a model's light a mass cut takes, and that it is said."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support import ROOT, small
from support import reference as ref

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.synthesis.massfunction import mass_function
from streamtrain.cli.main import main
from streamtrain.config import load_config
from streamtrain.cosmology import Cosmology
from streamtrain.generator.generator import Generator
from streamtrain.generator.paint import paint
from streamtrain.grid import Grid
from streamtrain.luminosity import abundance
from streamtrain.luminosity.lost_light import MOST_LOST, LostLightWarning, kept_light
from streamtrain.luminosity.mixture import Mixture
from streamtrain.luminosity.model import LuminosityModel
from streamtrain.luminosity.registry import MODELS, user_model
from streamtrain.luminosity.settings import InterloperConfig
from streamtrain.luminosity.trace import trace


def kept(model: LuminosityModel, z: float, cut: float) -> float | None:
    nu_rest = model.nu_rest_GHz or 115.27
    traced = trace(
        model.function,
        model.traced_parameters,
        {"nu_rest_GHz": nu_rest},
        sigma_dex=model.sigma_dex,
        on_fraction=model.on_fraction,
        z_range=(z - 0.5, z + 0.5),
    )
    return kept_light(model, traced, z, cut, Cosmology().to_dict())


@pytest.mark.parametrize(
    ("name", "z", "share"),
    [
        ("breysse15", 2.9, 0.54),
        ("pullen13", 2.9, 0.54),
        ("keating16", 2.9, 0.80),
        ("li16", 2.9, 0.92),
        ("lidz11", 7.0, 0.06),
    ],
)
def test_share_above_the_usual_cut(name: str, z: float, share: float) -> None:
    """At 2.5e10 Msun, against an independent recalculation with Tinker et al. 2008."""
    assert kept(MODELS[name], z, 2.5e10) == pytest.approx(share, abs=0.005)


def test_share_is_the_integral_over_the_mass_function() -> None:
    """With a duty cycle that depends on mass: [CII] of Yang et al. 2022 at z = 1.5."""
    mass = np.logspace(10, 15, 20_001)
    light = mass_function("tinker08").dn_dlog10M(mass, 1.5, Cosmology())
    with np.errstate(over="ignore"):
        light = light * ref.MODELS["yang22_cii"](mass, 1.5) * ref.yang22_on(mass, 1.5)
    expected = light[mass > 3e11].sum() / light.sum()
    assert kept(MODELS["yang22_cii"], 1.5, 3e11) == pytest.approx(expected, rel=2e-3)


def test_a_luminosity_function_of_more_sources_than_halos() -> None:
    """1609.01728 has 0.283 sources per Mpc^3, but 0.038 to 0.039 halos are above 2.5e10 Msun at
    z = 2.9: luminosities below 4.8e3 Lsun, 16 % of the light, are nobody's. The author's later
    parameters (the defaults of github.com/pcbreysse/lim) have 0.041 sources."""
    halos = float(mass_function("tinker08").number_density((2.5e10, 1e15), 2.9, Cosmology()))
    assert halos == pytest.approx(0.038, abs=5e-4)
    assert abundance.number_above()[1][0] == pytest.approx(0.283, abs=5e-4)
    assert abundance.number_above(abundance.LATER)[1][0] == pytest.approx(0.041, abs=5e-4)
    faintest, share = abundance.matched_share(0.039)
    assert faintest == pytest.approx(4.8e3, rel=0.01) and share == pytest.approx(0.84, abs=0.005)
    assert kept(MODELS["breysse17"], 2.9, 2.5e10) == pytest.approx(share, abs=0.01)
    later = kept(MODELS["breysse17_lim"], 2.9, 2.5e10)
    assert later is not None and later > 0.995


def test_ends() -> None:
    """No cut, one above all halos, and models that name no lightest halo or read other columns."""
    assert kept(MODELS["li16"], 2.9, 1e10) == 1.0
    assert kept(MODELS["li16"], 2.9, 1e16) == 0.0
    assert kept(MODELS["silva15_m1"], 6.0, 2.5e10) is None

    def mine(mass_Msun: Any, z: Any, *, age: Any) -> Any:
        return mass_Msun * age

    mine.mass_range_Msun = (1e9, 1e15)  # type: ignore[attr-defined]
    assert kept(user_model(mine), 2.9, 2.5e10) is None

    def tiny(mass_Msun: Any, z: Any) -> Any:
        return mass_Msun

    tiny.mass_range_Msun = (1.0, 1e15)  # type: ignore[attr-defined]
    assert kept(user_model(tiny), 2.9, 2.5e10) is None
    assert kept(MODELS["breysse17"], 2.9, 1.0) == pytest.approx(1.0)
    higher = kept(MODELS["li16"], 9.0, 2.5e10)  # beyond the rates, which are those of their end
    assert higher is not None and 0.3 < higher < kept(MODELS["li16"], 7.0, 2.5e10)


def test_it_is_said(small_sky: Lightcone) -> None:
    """By `paint` and by a generator, once; below a tenth in the line at the start alone."""
    grid, cut = Grid((0.8, 0.8), (4, 8, 8), (33.9, 27.0)), 2.5e10  # z = 2.40..3.27
    with pytest.warns(LostLightWarning) as caught:
        paint(small_sky, grid, "breysse15", min_mass_Msun=cut)
    assert [str(w.message) for w in caught] == [
        "the model breysse15 is published for halos above 1e+09 Msun, but those above the mass cut "
        "of 2.5e+10 Msun have only 55 % of its light at z = 2.8: the rest is missing from the map"
    ]
    match = "keating16 .* have only 81 % of its light"
    with pytest.warns(LostLightWarning, match=match) as of_generator:
        narrow = {**small.GRID, "nu_GHz": [33.9, 27.0]}
        config = small.config(grid=narrow, emit={"line": {"model": "keating16"}})
        Generator(config, lightcones=[small_sky])
    # at the user's line, though a generator opens its lightcones in a thread
    for one in (*caught, *of_generator):
        line = Path(one.filename).read_text(encoding="utf-8").splitlines()[one.lineno - 1]
        assert re.search(r"^ +(paint|Generator)\(", line), (one.filename, line)
    with pytest.warns(LostLightWarning, match="luminosities of more sources than there are halos"):
        paint(small_sky, grid, "breysse17")
    text = Generator(small.config(), lightcones=[small_sky]).describe()
    assert re.search(r", 8 % of its light is below the mass cut; \d", text)
    heavy = replace(small_sky, min_mass_Msun=5e10)
    with pytest.warns(LostLightWarning, match="li16 .* have only 8. % of its light"):
        paint(heavy, grid, "li16", min_mass_Msun=5e10)


PRESETS = [
    path
    for path in sorted((ROOT / "configs").rglob("*.yaml"))
    if path.relative_to(ROOT / "configs").parts[0] not in ("networks", "blind", "trained")
    and path.name != "skies.yaml"
]


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_presets_whose_commands_warn_say_why(path: Path) -> None:
    """Of light below the mass cut, and of redshifts that a model was not published for: the file,
    or one that it extends, tells of a warning; the others bring none."""
    config = load_config(path)
    lines = [(config.line, config.grid)]
    for section in config.emit.values():
        if isinstance(section, InterloperConfig):
            lines.append((section.line, replace(config.grid, nu_rest_GHz=section.nu_rest_GHz)))
    warns = False
    for line, grid in lines:
        for model in (component.model for component in Mixture(line).components):
            share = kept(model, 0.5 * sum(grid.z_range), config.data.min_mass_Msun)
            warns |= bool(model.extrapolated(grid.z_range))
            warns |= share is not None and share < 1.0 - MOST_LOST
    text = path.read_text(encoding="utf-8")
    while extended := yaml.safe_load(text.rpartition("\f")[2]).get("extends"):
        path = path.parent / extended
        text += "\f" + path.read_text(encoding="utf-8")
    assert ("warning" in text) is warns


@pytest.mark.filterwarnings("default::streamtrain.schema.AssumptionWarning")
def test_the_command_line_says_it_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a command makes several generators: a test set is made and verified."""
    settings = ["emit.line={model: breysse15}", "test.samples=1", f"run={tmp_path}"]
    assert main(["testset", "make", "configs/reference.yaml", *settings]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "of its light" in line]
    assert len(lines) == 1
    assert lines[0].startswith(
        "streamtrain: warning: the model breysse15 is published for halos above 1e+09 Msun, but "
    )
