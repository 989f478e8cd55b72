"""From a file in the survey's layout, painted by NumPy, to a luminosity function: docs/comap.md."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml
from support import ROOT, small

from streamtrain import Grid, Run, observe, paint
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cli.main import main
from streamtrain.config import from_mapping, load_config
from streamtrain.cosmology import Cosmology
from streamtrain.evaluate.inference.prepare import prepare
from streamtrain.maps.read import read_map
from streamtrain.maps.skymap import MapError

pytestmark = [
    pytest.mark.filterwarnings("ignore::streamtrain.schema.AssumptionWarning"),
    small.EXTRAPOLATES,
]
PAGE = (ROOT / "docs" / "comap.md").read_text(encoding="utf-8")


def block(name: str) -> str:
    """The block of the page that a comment names."""
    found = re.search(rf"<!-- {re.escape(name)} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def halos(seed: int, number: int = 60_000) -> dict[str, np.ndarray[Any, Any]]:
    """Random halos in a cone of 1.2 deg, brighter and fewer than real ones."""
    random = np.random.default_rng(seed)
    z = random.uniform(2.38, 3.45, number)
    steps = np.linspace(0.0, 3.6, 4000)
    rate = 2997.92458 / 0.7 / np.sqrt(0.286 * (1 + steps) ** 3 + 0.714)
    distance = np.concatenate([[0.0], np.cumsum(0.5 * (rate[1:] + rate[:-1]) * np.diff(steps))])
    chi = np.interp(z, steps, distance)
    ra, dec = np.radians(random.uniform(-0.6, 0.6, (2, number)))
    return {
        "x": -chi * np.cos(dec) * np.sin(ra),
        "y": chi * np.sin(dec),
        "z": chi * np.cos(dec) * np.cos(ra),
        "M": 2.6e10 * random.pareto(1.5, number) + 2.6e10,
        "zhalo": z,
    }


def lightcone(of: dict[str, np.ndarray[Any, Any]], name: str) -> Lightcone:
    return Lightcone.from_arrays(
        of["x"], of["y"], of["z"], of["M"], of["zhalo"],
        cosmology=Cosmology().to_dict(), min_mass_Msun=2.5e10, z_range=(2.38, 3.45),
        footprint_deg=(-0.6, 0.6, -0.6, 0.6), provenance=name,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files: halos, a beam, a transfer function."""
    made = tmp_path_factory.mktemp("survey")
    np.savez(made / "halos.npz", **halos(1))
    radius = np.linspace(0.0, 0.12, 61)
    response = np.exp(-4 * np.log(2) * (radius / 0.08) ** 2) + 0.01 * np.exp(-radius / 0.03)
    np.savetxt(made / "beam.txt", np.stack([radius, response - response[-1]], axis=1))
    perp, par = np.geomspace(0.01, 3.0, 13), np.geomspace(0.005, 1.5, 12)
    share = 1 / (1 + (0.05 / perp[1:, None]) ** 2.7) / (1 + (0.02 / par[1:]) ** 3.6)
    with h5py.File(made / "transfer.h5", "w") as file:
        group = file.create_group("cylindrically_averaged")
        group["transfer_function"] = share
        group["k_bin_edges_perp"], group["k_bin_edges_par"] = perp, par
    (made / "survey.yaml").write_text(block("survey.yaml"))
    return made


def numpy_map(
    folder: Path, monkeypatch: pytest.MonkeyPatch, out: str = "field.h5", **constants: str
) -> None:
    """Run the page's program; constants: lines of it, by the names on their left, by the values."""
    code = block("survey_map.py")
    for names, values in constants.items():
        left = names.replace("__", ", ")
        code, number = re.subn(rf"^{left} = .*$", f"{left} = {values}", code, flags=re.MULTILINE)
        assert number == 1
    monkeypatch.chdir(folder)
    given = ["halos.npz", "beam.txt", "transfer.h5", out]
    monkeypatch.setattr(sys, "argv", ["survey_map.py", *given])
    exec(compile(code, "docs/comap.md", "exec"), {})


def test_numpy_and_the_generator_make_the_same_sky(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halos, beam and filters, which share no line of code: to half a per cent of the scatter, most
    of it from the beam, which NumPy samples in pixels."""
    numpy_map(folder, monkeypatch, "quiet.h5", scatter_dex__modes="0, 0")
    theirs = 1e6 * np.load(folder / "quiet.h5.npz")["sky"][::-1]
    grid = Grid((0.7, 0.7), (64, 21, 21), (34.0, 26.0), 115.271)
    painted, _ = paint(
        lightcone(halos(1), "a"), grid, "chung22", {"sigma": 0.0}, scatter=False,
        min_mass_Msun=2.5e10, allow_empty=True,
    )  # fmt: skip
    steps = yaml.safe_load(block("survey.yaml"))["observe"]
    first = {name: steps[name] for name in ("beam", "transfer_function")}
    first["beam"] = first["beam"] | {"edge": "zero"}
    given_grid = {"fov_deg": [0.7, 0.7], "shape": [64, 21, 21], "nu_rest_GHz": 115.271}
    ours = observe(painted, from_mapping({"grid": given_grid, "observe": first})).numpy()
    assert theirs.std() > 0.05
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.9999
    assert (ours - theirs).std() < 0.01 * theirs.std()


def test_the_files_own_words_decide(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's configuration takes the map; without its lines the map is refused with them."""
    numpy_map(folder, monkeypatch)
    sky = read_map("field.h5")
    config = load_config("survey.yaml")
    made = prepare(sky, config)
    assert made.left_out == ["beam", "transfer_function", "noise", "pca"]
    assert made.applied == ["asinh"]
    micro = np.nan_to_num(sky.cube.astype(np.float64) * 1e6)
    np.testing.assert_allclose(made.cube, np.arcsinh(micro / 10.0), rtol=0, atol=2e-5)
    assert float(torch.count_nonzero(made.cube)) == sky.hits.astype(bool).sum()
    plain = load_config("survey.yaml", ["observe={noise: {sigma_uK: 8.0}, asinh: {scale: 10.0}}"])
    with pytest.raises(MapError, match=r"transfer_function: .* and with pca: \{modes: 5\}"):
        prepare(sky, plain)


@pytest.mark.slow
def test_a_map_in_the_surveys_layout_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network of a few steps: from the file to intervals, an alarm and repainted maps."""
    numpy_map(folder, monkeypatch)
    for seed, split in ((2, "train"), (3, "validation"), (4, "test")):
        lightcone(halos(seed), split).save(folder / f"{split}.h5")
    skies = [f"data.{split}=[{split}.h5]" for split in ("train", "validation", "test")]
    few = ["train.steps=60", "train.batch_size=8", "train.validation_samples=32",
           "test.samples=64", "network.dense=32", "data.roll=quarter"]  # fmt: skip
    assert main(["train", "survey.yaml", *skies, *few]) == 0
    assert main(["infer", "runs/survey", "field.h5", "--samples", "200", "--check",
                 "--painted", "32", "--check-maps", "30"]) == 0  # fmt: skip
    said = capsys.readouterr().out
    assert "beam, transfer_function, noise, pca" in said and "alarm" in said
    with Run.open("runs/survey") as run:
        posterior = run.infer("field.h5", compare_with=200)
    assert np.isfinite(posterior.samples).all() and posterior.alarm is not None
