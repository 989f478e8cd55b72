"""Experiments of the seed notes: each changes what docs/experiments.md says, fits, and runs."""

from __future__ import annotations

import configparser
import re
from dataclasses import replace

import pytest
import torch
from support import ROOT, small
from support.network_tools import network_for

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import Config, from_mapping, load_config
from streamtrain.generator.generator import Generator
from streamtrain.schema import to_dict
from streamtrain.shipped import resource_dir
from streamtrain.train.optimiser import build_optimiser

FOLDER = resource_dir("configs") / "pfeffer2019" / "experiments"
PAGE = ROOT / "docs" / "experiments.md"
ROW = re.compile(r"^\| (\w+) \|(.*)\| (\w+)(?: \(.*\))? \| (.*) \|$", re.MULTILINE)
ROWS = {row[0]: row for row in ROW.findall(PAGE.read_text(encoding="utf-8"))}
FIELD = ("grid.fov_deg=[0.8,0.8]", "grid.shape=[100,128,128]")


def experiment(name: str, *settings: str) -> Config:
    return load_config(FOLDER / f"{name}.yaml", settings)


def changed(baseline: str, what: str) -> Config:
    """The baseline with what a row of the table says: settings, or a section less."""
    if what.startswith("without"):
        (section,) = re.findall(r"`observe\.(\w+)`", what)
        whole = to_dict(experiment(baseline))
        del whole["observe"][section]
        return from_mapping(whole)
    return experiment(baseline, *re.findall(r"`([\w.]+=[^`]+)`", what))


def test_the_table_lists_all_experiments() -> None:
    assert {*ROWS, "baseline"} == {path.stem for path in FOLDER.glob("*.yaml")}
    runs = {name: experiment(name).run for name in ROWS}
    assert runs == {name: f"runs/experiments/{name}" for name in ROWS}


@pytest.mark.parametrize("name", ROWS)
def test_an_experiment_changes_what_it_says(name: str) -> None:
    """Nothing else, and its first lines say what to compare it with."""
    _, _, baseline, what = ROWS[name]
    config, expected = experiment(name), changed(baseline, what)
    assert config != experiment(baseline)
    assert replace(config, run="") == replace(expected, run="")
    first, second = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[:2]
    assert first.startswith("# ") and "?" in first
    assert second == f"# Compare with {baseline}."


def test_configurations_are_part_of_the_package() -> None:
    settings = configparser.ConfigParser()
    settings.read(PAGE.parent.parent / "setup.cfg")
    patterns = settings["options.package_data"]["streamtrain.configs"].replace(",", " ").split()
    folder = resource_dir("configs")
    packed = {path for pattern in patterns for path in folder.glob(pattern)}
    every = {path for path in folder.rglob("*") if path.is_file() and path.suffix[:3] != ".py"}
    assert every <= packed


def test_frequency_bins_divide_the_band() -> None:
    shapes = {}
    for factor in (1, 2, 5, 20, 50):
        config = experiment(f"frequency_{factor}")
        shapes[factor] = Generator(config, lightcones=[wide_sky()]).input_shape
    assert shapes == {n: (100 // n, 64, 64) for n in shapes}


@pytest.mark.parametrize("name", ["baseline", *ROWS])
def test_the_network_fits_the_map(name: str) -> None:
    """At its full size, without its weights: an answer per luminosity bin."""
    config = experiment(name)
    generator = Generator(config, lightcones=[wide_sky()])
    with torch.device("meta"):
        answer = network_for(generator).eval()(torch.zeros(2, *generator.input_shape))
    assert answer.shape == (2, 49)


@small.EXTRAPOLATES
@pytest.mark.parametrize(
    "name",
    [
        "baseline",
        "dimensions_3",
        "optimiser_sgd",
        "input_linear",
        "label_linear",
        "label_cumulative",
        "frequency_1",
        "pooling_max",
    ],
)
def test_a_step_goes_downhill(name: str, small_sky: Lightcone) -> None:
    """One step on four tiny maps lowers their loss; one per kind of change."""
    before, after = losses(name, small_sky)
    assert after < before


@small.EXTRAPOLATES
@pytest.mark.parametrize("scale", ["log10", "linear"])
def test_a_density_is_learned_as_its_count(scale: str, small_sky: Lightcone) -> None:
    """phi and phi L are dN times constants, by which labels are scaled: as the page says."""
    expected = losses("baseline", small_sky, f"label.scale={scale}")
    for name in ("label_phi", "label_phi_L"):
        found = losses(name, small_sky, f"label.scale={scale}")
        assert found == pytest.approx(expected, rel=1e-3)


def losses(name: str, sky: Lightcone, *settings: str) -> tuple[float, float]:
    """Of four tiny maps, before and after a step on them."""
    config = experiment(name, *FIELD, "network.dropout=0", "network.filters=8", *settings)
    generator = Generator(config, lightcones=[sky])
    batch = generator.generate(range(4))
    network = network_for(generator)
    inputs = batch.cube.transpose(0, 1).flatten(1)
    network.set_normalisation(
        inputs.mean(1), inputs.std(1), batch.label, batch.counts, batch.unit_label.expand(4, -1)
    )
    optimiser = build_optimiser(network, config.train)

    def loss() -> torch.Tensor:
        return network.head.loss(network(batch.cube), batch.label, batch.counts, batch.unit_label)

    before = loss()
    before.backward()
    optimiser.step()
    return float(before.detach()), float(loss().detach())


def wide_sky() -> Lightcone:
    """Of 2.2 deg, with a few halos."""
    half = 1.1
    return small.lightcone(num=10, footprint_deg=(-half, half, -half, half))
