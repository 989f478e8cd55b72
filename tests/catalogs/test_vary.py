"""Skies whose options are drawn from priors: distributions, closed forms, and what is recorded."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats
from scipy.integrate import trapezoid

from streamtrain.catalogs.info import density_check, describe, info
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.synthesis.box import Box
from streamtrain.catalogs.synthesis.density import INFALL_MPC, DensityField, DensityModes
from streamtrain.catalogs.synthesis.fresh import FreshSkies
from streamtrain.catalogs.synthesis.massfunction import mass_function
from streamtrain.catalogs.synthesis.options import LATER, SPANS, SkyOptions
from streamtrain.catalogs.synthesis.synthesize import (
    expected_halos,
    realisation_name,
    synthesize,
)
from streamtrain.cli.main import main
from streamtrain.config import from_mapping
from streamtrain.cosmology import Cosmology
from streamtrain.generator.export import LimlamFolder
from streamtrain.generator.generator import Generator
from streamtrain.shipped import resource_dir

SMALL: dict[str, Any] = {"footprint_deg": 0.2, "z_range": (2.7, 2.8), "min_mass_Msun": 2e11}
VARY: dict[str, Any] = {
    "mass_function": {"choice": ["tinker08", "watson13_fof"]},
    "abundance": {"normal": [1.0, 0.1], "low": 0.85},
    "abundance_tilt": {"uniform": [-0.1, 0.05]},
    "bias_factor": {"log_uniform": [0.8, 1.25]},
    "infall": {"normal": [0.3, 0.2]},
    "cosmology": {"Omega_m": {"uniform": [0.28, 0.34]}, "sigma8": {"normal": [0.81, 0.02]}},
}
BAND = {"fov_deg": [0.12, 0.12], "shape": [4, 6, 6], "nu_GHz": [31.1, 30.4]}


def varied(**vary: Any) -> SkyOptions:
    return SkyOptions(**SMALL, vary=vary or VARY)  # type: ignore[arg-type]


def test_what_is_drawn_has_the_distributions_that_were_asked_for() -> None:
    options = varied()
    drawn = [options.drawn(seed) for seed in range(1000)]
    number = sum(one["mass_function"] == "tinker08" for one in drawn)
    assert abs(number - 500) < 4.0 * np.sqrt(250.0)
    values = {name: [one[name] for one in drawn] for name in VARY if name != "cosmology"}
    values |= {k: [one["cosmology"][k] for one in drawn] for k in ("Omega_m", "sigma8")}
    laws = {
        "abundance": stats.truncnorm(-1.5, np.inf, 1.0, 0.1),
        "abundance_tilt": stats.uniform(-0.1, 0.15),
        "bias_factor": stats.loguniform(0.8, 1.25),
        "infall": stats.norm(0.3, 0.2),
        "Omega_m": stats.uniform(0.28, 0.06),
        "sigma8": stats.norm(0.81, 0.02),
    }
    for name, law in laws.items():
        assert stats.kstest(values[name], law.cdf).pvalue > 1e-3, name
    together = np.corrcoef([values[name] for name in laws])
    assert np.abs(together - np.eye(len(laws))).max() < 4.5 / np.sqrt(1000)


def test_an_option_is_drawn_whatever_else_is() -> None:
    alone = varied(cosmology={"sigma8": VARY["cosmology"]["sigma8"]})
    for seed in (0, 7, 2**64 - 1):
        drawn = varied().drawn(seed)
        assert alone.drawn(seed)["cosmology"]["sigma8"] == drawn["cosmology"]["sigma8"]
        assert drawn == varied().drawn(seed) != varied().drawn(seed // 2 + 1)
        found = varied().of(seed)
        assert found == SkyOptions(**SMALL, **drawn) and found.of(3) is found
    assert varied().of(7).cosmology.h == Cosmology().h  # what is not drawn stays


def test_number_and_mass_function_under_amplitude_and_tilt() -> None:
    """Skies of the same phases, so that their ratio has Poisson noise alone; the closed form is an
    integral of the mass function over the field."""
    given: dict[str, Any] = {"footprint_deg": 0.3, "z_range": (2.6, 3.2), "min_mass_Msun": 5e10}
    changed: dict[str, Any] = {"abundance": 1.6, "abundance_tilt": 0.25}
    plain, other = (synthesize(5, SkyOptions(**given, **more)) for more in ({}, changed))
    assert plain.realisation == other.realisation
    edges = np.geomspace(5e10, 3e12, 5)
    counts = [np.histogram(sky.mass_Msun, edges)[0] for sky in (plain, other)]
    z, mass = np.linspace(2.6, 3.2, 25), np.geomspace(5e10, 1e15, 4000)
    chi = Cosmology().comoving_distance(z)
    shells = mass_function("tinker08").dn_dlog10M(mass, z[:, None], Cosmology())
    density = trapezoid(shells * chi[:, None] ** 2, chi, axis=0)
    weighted = density * 1.6 * (mass / 1e12) ** 0.25
    for k, (low, high) in enumerate(pairwise(edges)):
        inside = (mass >= low) & (mass < high)
        expected = weighted[inside].sum() / density[inside].sum()
        error = np.sqrt(1.0 / counts[0][k] + 1.0 / counts[1][k])
        assert abs(counts[1][k] / counts[0][k] / expected - 1.0) < 4.0 * error
    area = np.radians(0.3) * 2.0 * np.sin(np.radians(0.15))
    number = area * trapezoid(weighted, np.log10(mass))
    assert expected_halos(SkyOptions(**given, **changed)) == pytest.approx(number, rel=5e-3)


def test_bias_factor_moves_the_large_scale_power_by_its_square() -> None:
    """Contrast in slices of 50 Mpc, real space, same phases: it is 1.4 times as large, 1.4^2 in
    power, up to Poisson noise (that of both, slice by slice)."""
    given: dict[str, Any] = {"footprint_deg": 0.5, "min_mass_Msun": 5e10}
    plain, other = (synthesize(3, SkyOptions(**given, bias_factor=f)) for f in (1.0, 1.4))
    edges = np.linspace(*Cosmology().comoving_distance([2.42, 3.40]), 20)
    middle = Cosmology().redshift(0.5 * (edges[1:] + edges[:-1]))
    contrast, noise = [], []
    for sky in (plain, other):
        place = np.stack([sky.x_Mpc, sky.y_Mpc, sky.z_Mpc]).astype(np.float64)
        counts = np.histogram(np.sqrt((place**2).sum(axis=0)), edges)[0]
        smooth = np.polyval(np.polyfit(middle, np.log(counts), 2), middle)
        contrast.append(counts / np.exp(smooth) - 1.0)
        noise.append(np.mean(1.0 / counts))
    power = [np.mean(one**2) - shot for one, shot in zip(contrast, noise, strict=True)]
    cross = np.mean(contrast[0] * contrast[1])  # has no Poisson noise in the mean
    error = np.sqrt((1.4**2 * noise[0] + noise[1]) / len(middle) / power[0])
    assert abs(cross / power[0] - 1.4) < 4.0 * error < 0.4
    assert abs(power[1] / cross - 1.4) < 4.0 * error
    assert abs(len(other) / len(plain) - 1.0) < 0.05


def test_infall_multiplies_the_displacement_of_a_mode() -> None:
    box = Box((16, 16, 16), 2.5, (0.0, 0.0, 3000.0))
    modes = DensityModes(box, Cosmology())
    short = np.zeros((16, 16, 9), np.complex64)
    short[3, 2, 1] = 1.0 + 0.5j
    field = DensityField(short, np.zeros(modes.long.variance.shape, complex))
    with ThreadPoolExecutor(1) as pool:
        plain, more = (modes.displacements(field, pool, infall=e)[..., :3] for e in (0.0, 0.7))
    x2 = INFALL_MPC**2 * (3**2 + 2**2 + 1) * (2.0 * np.pi / 40.0) ** 2
    np.testing.assert_allclose(more, plain * (1.0 + 0.7 * x2 / (1.0 + x2)), atol=1e-6)


def test_infall_changes_small_scales_and_no_numbers() -> None:
    """Pairs of halos in cells of 4 Mpc over those of a Poisson sample."""
    excess, numbers = [], []
    for infall in (-0.5, 0.0, 0.5):
        sky = synthesize(4, SkyOptions(0.4, (2.6, 2.9), 5e10, infall=infall))  # type: ignore[arg-type]
        place = np.stack([sky.x_Mpc, sky.y_Mpc, sky.z_Mpc], axis=1).astype(np.float64)
        inside = (np.abs(place[:, :2]) < 16.0).all(axis=1)
        edges = [np.arange(-16, 17, 4), np.arange(-16, 17, 4), np.arange(6100, 6340, 4)]
        cells = np.histogramdd(place[inside], edges)[0]
        excess.append((np.mean(cells * (cells - 1.0)) / np.mean(cells) ** 2) - 1.0)
        numbers.append(len(sky))
    assert excess[0] < 0.95 * excess[1] < 0.95 * 0.95 * excess[2]
    assert np.ptp(numbers) < 4.0 * np.sqrt(np.mean(numbers)) * 0.5  # the same halos, moved a little


def test_a_sky_can_be_made_again_from_its_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the prior and the seed, or from the drawn values given plainly; on any rank."""
    options = {**SMALL, "z_range": [2.7, 2.8], "vary": VARY}
    file = tmp_path / "skies.yaml"
    file.write_text(yaml.safe_dump(options))
    make = ["catalog", "make", "3", "--out", str(tmp_path / "a"), "--options", str(file)]
    with monkeypatch.context() as ranks:
        ranks.setenv("WORLD_SIZE", "2")
        for rank in ("1", "0"):
            ranks.setenv("RANK", rank)
            assert main([*make, "--processes", "1"]) == 0
    skies = [Lightcone.open(tmp_path / "a" / f"sky_{seed:04d}.h5") for seed in range(3)]
    assert main([*make, "--processes", "1"]) == 0 and "is there" in capsys.readouterr().err
    for seed, sky in enumerate(skies):
        assert sky.digest == synthesize(seed, varied()).digest
        record = json.loads(sky.provenance)
        assert record["prior"] == {
            "digest": varied().vary.digest,  # type: ignore[union-attr]
            "drawn": varied().drawn(seed),
        }
        assert record["cosmology"] == sky.cosmology
        assert record["cosmology"]["sigma8"] == record["prior"]["drawn"]["cosmology"]["sigma8"]
    plain = {**SMALL, "z_range": [2.7, 2.8], **record["prior"]["drawn"]}
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(plain))
    again = ["catalog", "make", "1", "--first-seed", "2", "--out", str(tmp_path / "b")]
    assert main([*again, "--options", str(tmp_path / "plain.yaml")]) == 0
    other = Lightcone.open(tmp_path / "b" / "sky_0002.h5")
    assert (other.digest, other.realisation) == (skies[2].digest, skies[2].realisation)
    assert info(other)["prior"] is None and info(skies[2])["prior"] == record["prior"]
    assert "drawn        {" in describe(skies[2]) and "drawn   " not in describe(other)
    dense = synthesize(0, SkyOptions(**SMALL | {"footprint_deg": 0.6}, abundance=3.0))
    assert density_check(dense)[1] and not info(dense)["warnings"]  # its units are known
    capsys.readouterr()
    file.write_text(yaml.safe_dump({**options, "vary": {**VARY, "infall": {"uniform": [0, 1]}}}))
    assert main([*make, "--processes", "1"]) == 2
    assert "was made with infall = " in capsys.readouterr().err


def test_files_from_before_these_options_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lightcone that has none of them says of itself what it said before there were any."""
    make = ["catalog", "make", "1", "--out", str(tmp_path), "--footprint-deg", "0.2"]
    make += ["--z-range", "2.7", "2.8", "--min-mass", "2e11"]
    assert main(make) == 0
    record = json.loads(Lightcone.open(tmp_path / "sky_0000.h5").provenance)
    assert not {*LATER, "prior"} & record.keys()
    assert main(make) == 0
    file = tmp_path / "more.yaml"
    file.write_text("abundance: 1.1\n")
    capsys.readouterr()
    assert main([*make, "--options", str(file)]) == 2
    assert "was made with abundance = 1.0, not 1.1" in capsys.readouterr().err


def test_one_seed_under_two_priors_is_one_sky() -> None:
    one, two = varied(bias_factor={"uniform": [0.8, 1.2]}), varied(infall={"uniform": [0, 1]})
    assert realisation_name(5, one) == realisation_name(5, two)
    assert synthesize(5, one).header.same_sky(synthesize(5, two).header)


def fresh(**label: Any) -> Generator:
    synthesized = {"reuse": 4, "vary": VARY}
    data = {"train": {"synthesize": synthesized}, "min_mass_Msun": 2e11, "active": 2}
    return Generator(from_mapping({"seed": 5, "grid": BAND, "data": data, "label": label}))


def test_fresh_skies_are_drawn_and_written_down() -> None:
    made, again = fresh(), fresh()
    digests = made.generate(range(8)).digests()
    assert again.generate(range(7, -1, -1)).digests() == digests[::-1]
    skies = made.skies
    assert isinstance(skies, FreshSkies)
    records = {record["number"]: record for record in map(asdict, made.take_made())}
    for number in (0, 1):
        record = json.loads(json.dumps(records[number]))
        assert record["drawn"] == skies.options.drawn(record["seed"])
        assert record["prior"] == skies.options.vary.digest  # type: ignore[union-attr]
        assert synthesize(record["seed"], skies.options).digest == record["digest"]
        assert synthesize(record["seed"], **record["options"]).digest == record["digest"]
    assert skies.identity()["vary"]["infall"] == {"normal": [0.3, 0.2]}
    assert len({cosmology["sigma8"] for cosmology in skies.cosmologies}) > 8
    made.close()
    again.close()


def test_labels_of_densities_have_the_volume_of_their_sky(tmp_path: Path) -> None:
    made = fresh(quantity="phi", scale="linear")
    batch = made.generate([*range(8), *range(200, 208)])  # skies 0, 1, 50 and 51
    counts = batch.counts.double().numpy()
    for k, record in enumerate(batch.draws):
        cosmology = made.skies.cosmology_of(record["lightcone"])
        volume = made.grid.volume_Mpc3(cosmology["Omega_m"], cosmology["h"])
        expected = counts[k] / volume / made.bins.width_Lsun
        np.testing.assert_allclose(batch.label[k].numpy(), expected, rtol=1e-5)
    assert len({row.numpy().tobytes() for row in batch.unit_label}) == 4
    with LimlamFolder(tmp_path / "out", made).open() as write:
        write(batch)
    for index, record in ((7, batch.draws[7]), (200, batch.draws[8])):
        with np.load(tmp_path / "out" / f"sample_{index:06d}.npz") as file:
            cosmology = made.skies.cosmology_of(record["lightcone"])
            assert {name: float(file[f"cosmo_{name}"]) for name in cosmology} == cosmology
    made.close()


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ({}, "vary draws nothing: it takes mass_function, bias, abundance"),
        ({"sigma8": {"uniform": [0.7, 0.9]}}, "unknown setting 'vary.sigma8'"),
        ({"abundance": 1.1}, "vary.abundance must be a mapping"),
        ({"abundance": {"choice": [1]}}, "unknown setting 'vary.abundance.choice'"),
        ({"abundance": {}}, "vary.abundance must be a number, or one of normal, uniform"),
        ({"abundance": {"uniform": [0.05, 1]}}, "0.05 is outside what it may be, 0.1..10"),
        ({"infall": {"normal": [0, 1], "high": 3}}, "vary.infall: 3 is outside what it may be"),
        ({"infall": {"normal": [5, 1]}}, "lies within -1..2 in 0.13 % of its draws only"),
        ({"infall": {"normal": [3, 0]}}, "lies within -1..2 in 0 % of its draws only"),
        ({"bias": {"choice": []}}, "vary.bias.choice must list different names"),
        ({"bias": {"choice": ["tinker10", "tinker08"]}}, "unknown bias 'tinker08'"),
        ({"mass_function": {"choice": ["press74"]}}, "unknown mass function 'press74'"),
        (
            {"cosmology": {"Omega_b": {"uniform": [0.2, 0.4]}}},
            "Omega_b, up to 0.4, could exceed Omega_m, from 0.286",
        ),
        ({"cosmology": {"w": {"uniform": [-1, 0]}}}, "unknown setting 'vary.cosmology.w'"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(vary: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        SkyOptions(**SMALL, vary=vary)
    assert message in str(error.value)
    with pytest.raises(ValueError) as error:
        data = {"train": {"synthesize": {"vary": vary}}, "min_mass_Msun": 2e11}
        Generator(from_mapping({"grid": BAND, "data": data}))
    assert message.replace("'vary", "'data.train.synthesize.vary") in str(error.value)


def test_what_is_given_is_not_drawn_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"bias_factor = 1.2 is given, and drawn by vary.bias_fac"):
        SkyOptions(**SMALL, bias_factor=1.2, vary=VARY)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"cosmology.sigma8 = 0.8 is given, and drawn"):
        SkyOptions(**SMALL, cosmology={"sigma8": 0.8}, vary=VARY)  # type: ignore[arg-type]
    monkeypatch.setitem(__import__("sys").modules, "colossus.lss.mass_function", None)
    with pytest.raises(ValueError, match=r"need the package colossus \(pip install colossus\)"):
        varied(mass_function={"choice": ["tinker08", "colossus:despali16"]})


@pytest.mark.parametrize("words", [["--mass-function", "tinker08"], ["--sigma8", "0.82"]])
def test_a_flag_is_no_match_for_a_prior(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even one that gives the default."""
    command = ["catalog", "make", "1", "--options", "skies.yaml", "--out", str(tmp_path), *words]
    assert main(command) == 2
    name = words[0].strip("-").replace("-", "_")
    assert f"{name} is given, and drawn by vary of skies.yaml" in capsys.readouterr().err


def test_the_shipped_prior_holds_what_it_names(tmp_path: Path) -> None:
    given = yaml.safe_load((resource_dir("configs") / "skies.yaml").read_text())
    options = SkyOptions(**SMALL, **given)
    drawn = [options.drawn(seed) for seed in range(300)]
    for name in ("Omega_m", "Omega_b", "h", "n_s", "sigma8"):
        values = [one["cosmology"][name] for one in drawn]
        planck = {"Omega_m": 0.315, "Omega_b": 0.0493, "h": 0.674, "n_s": 0.965, "sigma8": 0.811}
        for value in (getattr(Cosmology(), name), planck[name]):
            assert min(values) < value < max(values)
    # 1.45 (M / 1e12 Msun)^0.066 at z = 2.9, as it says
    mass = np.geomspace(2.5e10, 1e13, 27)
    ratio = np.log(
        mass_function("watson13_fof").dn_dlog10M(mass, 2.9, Cosmology())
        / mass_function("tinker08").dn_dlog10M(mass, 2.9, Cosmology())
    )
    tilt, amplitude = np.polyfit(np.log(mass / 1e12), ratio, 1)
    assert abs(np.exp(amplitude) - 1.45) < 0.01 and abs(tilt - 0.066) < 1e-3
    command = ["catalog", "make", "1", "--options", "skies.yaml", "--footprint-deg", "0.2"]
    command += ["--z-range", "2.7", "2.8", "--min-mass", "2e11", "--out", str(tmp_path)]
    assert main(command) == 0
    record = json.loads(Lightcone.open(tmp_path / "sky_0000.h5").provenance)
    assert record["prior"]["drawn"] == drawn[0]
    assert all(SPANS[name][0] <= record[name] <= SPANS[name][1] for name in ("infall", "abundance"))
