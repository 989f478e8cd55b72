"""`Run.infer` and the joint posterior in what the command `infer` writes."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import ROOT, small
from support import map_runs as runs

from streamtrain import Generator, Posterior, Run, observe, write_fits
from streamtrain.cli import main
from streamtrain.config import Config
from streamtrain.evaluate import figures
from streamtrain.evaluate.alarm import watch
from streamtrain.evaluate.alarm.alarm import FEWEST_MAPS, Reference
from streamtrain.evaluate.evaluation import evaluate
from streamtrain.evaluate.inference.infer import Options, infer
from streamtrain.evaluate.inference.output import Function, prediction_figure
from streamtrain.evaluate.inference.training_field import FILE
from streamtrain.evaluate.posterior.functions import functionals
from streamtrain.generator.export import raw
from streamtrain.maps.read import read_map

pytestmark = small.EXTRAPOLATES
INDEX = 3
JOINT = {"layers": 2, "filters": 4, "dense": 8, "head": "joint_counts"}


def made(folder: Path, **sections: Any) -> Config:
    return runs.make_run(folder, **({"network": JOINT} | sections))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return made(tmp_path_factory.mktemp("joint"), cosmology={"Omega_m": 0.29})


@pytest.fixture(scope="module")
def cube(config: Config) -> torch.Tensor:
    """A test sample as the network takes it."""
    with Run(config) as run:
        return run.testing().generate([INDEX]).cube[0]


def test_a_map_has_one_posterior_however_it_is_given(
    config: Config, cube: torch.Tensor, tmp_path: Path
) -> None:
    """An array as the network takes it, a file, and what was read of it; to the last bit."""
    path = runs.write_fits(tmp_path / "m.fits", runs.map_of(config, INDEX))
    run = Run.open(config.run)
    first = run.infer(cube, prepared=True, functions=300, compare_with=0)
    assert first.samples.shape == (300, 14) and first.joint and first.warnings == ()
    assert first.applied == ()
    assert first.notes == (
        "an array, taken to have gone through pool, beam, noise, high_pass, log_modulus",
        watch.NO_ALARM,
    )
    with Run.open(config.run) as other:
        ask = partial(other.infer, functions=300, compare_with=0)
        found = [ask(cube.double().numpy(), prepared=True)]
        found += [ask(given) for given in (path, str(path), read_map(path))]
    for again in found:
        assert np.array_equal(again.samples, first.samples)
    assert found[-1].applied == ("high_pass", "log_modulus")
    assert found[-1].left_out == ("beam", "noise")
    assert "its channels run from low to high frequency and were reversed" in found[-1].notes
    assert not np.array_equal(
        run.infer(cube, prepared=True, functions=300, seed=1).samples, first.samples
    )


def test_an_array_of_a_map_gets_what_a_file_gets(
    config: Config, cube: torch.Tensor, tmp_path: Path
) -> None:
    """As painted, after the pool, in another unit, with gaps of a number: to the last bit."""
    pooled = runs.map_of(config, INDEX)
    ask = partial(Run.open(config.run).infer, functions=300, compare_with=0)
    wanted = ask(cube, prepared=True)
    found = ask(pooled, units="uK")
    assert np.array_equal(found.samples, wanted.samples) and found.warnings == ()
    assert found.applied == ("high_pass", "log_modulus") and found.left_out == ("beam", "noise")
    assert found.notes[0] == (
        "an array in uK without coordinates, which were taken to be those of the run: 34 to 26 "
        "GHz, 0.8 x 0.7 deg (ra, dec), its axes [freq, dec, ra], from high to low frequency and "
        "from low to high dec and ra"
    )
    fine = torch.from_numpy(np.repeat(pooled, 3, axis=0))
    assert np.array_equal(ask(fine, units="uK").samples, wanted.samples)
    kelvin = ask(1e-6 * pooled.astype(np.float64), units="K")
    assert np.abs(kelvin.samples - wanted.samples).max() <= 1e-3 * wanted.samples.max()
    assert "it was converted from K to uK" in kelvin.notes
    with pytest.raises(ValueError, match="the array: 3 of 1440 voxels are NaN or infinite"):
        ask(np.where(np.arange(24) == 5, np.where(np.arange(20) == 2, 7.0, 0.0)[:, None], 0.0)
            + np.zeros((3, 20, 24)), units="uK", no_value=7)  # fmt: skip
    path = runs.write_hdf5(tmp_path / "m.h5", pooled)
    with Run.open(config.run) as run:
        for given in (path, read_map(path)):
            assert torch.equal(run.network_input(given).cube, cube)
        assert torch.equal(run.network_input(pooled, units="uK").cube, cube)
        with pytest.raises(ValueError, match="network_input: prepared=True is of an array"):
            run.network_input(path, prepared=True)


def test_an_array_that_says_nothing_of_itself_has_a_warning(
    config: Config, cube: torch.Tensor, tmp_path: Path
) -> None:
    """A map in uK is taken for what comes after all operators: said where warnings are said."""
    ask = partial(Run.open(config.run).infer, functions=300, compare_with=0)
    (warning,) = (found := ask(runs.map_of(config, INDEX))).warnings
    assert warning == (
        "the array was taken for the network's input, after pool, beam, noise, high_pass, "
        "log_modulus, which nothing says: prepared=True says that it is, units='uK' that it is a "
        "map in that unit, to which is applied what is left of these"
    )
    assert "warning   the array was taken for the network's input" in str(found)
    assert not ask(cube, prepared=True).warnings
    with pytest.raises(ValueError, match=r"prepared=True is of an array .* a map with coo"):
        ask(read_map(runs.write_hdf5(tmp_path / "m.h5", runs.map_of(config, INDEX))), prepared=True)
    plain = made(tmp_path, observe={})
    painted = Run(plain).infer(np.ones((9, 20, 24)), functions=300, compare_with=0)
    assert painted.warnings == () and painted.notes[0] == "an array, taken as painted, in uK"


def test_units_of_an_array_of_a_map(config: Config) -> None:
    """Its own are used, and no others said of it."""
    units = pytest.importorskip("astropy.units")
    ask = partial(Run.open(config.run).infer, functions=200, compare_with=0)
    pooled = runs.map_of(config, INDEX)
    first = ask(pooled, units="uK")
    assert np.array_equal(ask(pooled * units.uK, units="uK").samples, first.samples)
    with pytest.raises(ValueError, match="the array is in 'mK', units says uK"):
        ask(pooled * units.mK, units="uK")
    with pytest.raises(ValueError, match="the array is in 'm', units says uK"):
        ask(pooled * units.m, units="uK")
    masked = np.ma.masked_greater(pooled, np.sort(pooled.ravel())[-3])
    with pytest.raises(ValueError, match="the array: 2 of 1440 voxels are NaN"):
        ask(masked, units="uK")


def test_the_posterior_is_that_of_the_head(config: Config, cube: torch.Tensor) -> None:
    """Its samples and probabilities, and integrals in the cosmology of the training lightcones."""
    with Run(config) as run:
        found = run.infer(cube, prepared=True, functions=200, seed=5, compare_with=0)
        generator = run.training()
        network = run.network(generator)
    with torch.inference_mode():
        prediction = network(cube[None])
        drawn = network.head.sample(prediction, 200, torch.Generator().manual_seed(5))[:, 0]
        expected = network.head.log_prob(prediction.expand(200, -1), drawn)
    assert np.array_equal(found.samples, drawn.numpy())
    assert found.log_prob(found.samples) == pytest.approx(expected.numpy(), rel=1e-12)
    own = functionals(generator.bins, config.grid, 0.29, 0.7)
    for ours, theirs in zip(found.functionals, own, strict=True):
        assert ours.name == theirs.name
        assert ours.weights == pytest.approx(theirs.weights, rel=1e-12)
    usual = functionals(generator.bins, config.grid)
    assert abs(own[-2].weights[0] / usual[-2].weights[0] - 1.0) > 0.003


def test_integrals_over_wide_bins_have_a_warning(tmp_path: Path) -> None:
    """Whose luminosities are not evenly spread within them."""
    wide = made(tmp_path, label={"edges": [3.5, 5.0, 6.0, 6.5, 7.0]})
    with Run(wide) as run:
        found = run.infer(run.testing().generate([INDEX]).cube[0], prepared=True, compare_with=0)
    [said] = [text for text in found.warnings if "dex wide" in text]
    assert said.startswith("the luminosity bins are up to 1.5 dex wide, and rho_L and mean")


def test_maps_of_the_prior_are_looked_at_once(
    config: Config, cube: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(config.run, tmp_path / "run"))
    (folder / watch.FILE).unlink(missing_ok=True)
    run = Run.open(folder)
    bright = runs.write_hdf5(tmp_path / "m.h5", 30.0 * runs.map_of(config, INDEX))
    first = run.infer(cube, prepared=True, functions=100, compare_with=FEWEST_MAPS)
    strange = run.infer(bright, functions=100, compare_with=FEWEST_MAPS)
    assert first.alarm is not None and not first.alarm.extrapolated
    assert not [text for text in first.warnings if "band" not in text]
    assert strange.alarm is not None and strange.warnings[0] == strange.alarm.warning
    strange.save(tmp_path / "p.npz")
    assert Posterior.load(tmp_path / "p.npz").alarm == strange.alarm
    opened = []
    samples_of = Run._samples_of
    monkeypatch.setattr(
        Run, "_samples_of", lambda run, split: opened.append(1) or samples_of(run, split)
    )
    again = Run.open(folder).infer(cube, prepared=True, functions=100)
    assert again.alarm == first.alarm and not opened
    other = Run.open(folder).infer(
        cube, prepared=True, functions=100, compare_with=FEWEST_MAPS + 20
    )
    assert other.alarm is not None and other.alarm.maps == 110 and len(opened) == 2
    fewer = Run.open(folder).infer(cube, prepared=True, functions=100, compare_with=FEWEST_MAPS)
    assert fewer.alarm == other.alarm and len(opened) == 2
    reference, about = Reference.load(folder / watch.FILE)
    reference.save(folder / watch.FILE, about | {"samples": "others"})
    Run.open(folder).infer(cube, prepared=True, functions=100, compare_with=FEWEST_MAPS)
    assert len(opened) == 4


def test_what_is_known_of_training_maps_is_kept(
    config: Config, cube: torch.Tensor, tmp_path: Path
) -> None:
    """By a look that needs none, and by one that fails."""
    folder = Path(shutil.copytree(Path(config.run).parent, tmp_path / "copy"))
    file = folder / "run" / "config.yaml"
    file.write_text(file.read_text().replace(str(Path(config.run).parent), str(folder)))
    (folder / "run" / watch.FILE).unlink(missing_ok=True)
    Run.open(folder / "run").infer(cube, prepared=True, functions=100, compare_with=FEWEST_MAPS)
    before = [(folder / "run" / name).read_bytes() for name in (FILE, watch.FILE)]
    Run.open(folder / "run").infer(cube, prepared=True, functions=100, compare_with=0)
    Run.open(folder / "run").sbi_posterior()
    for sky in folder.glob("*.h5"):
        sky.unlink()
    found = Run.open(folder / "run").infer(cube, prepared=True, functions=100, compare_with=300)
    assert found.warnings[0].startswith("the map was not compared with maps of the prior: ")
    assert found.alarm is None
    assert [(folder / "run" / name).read_bytes() for name in (FILE, watch.FILE)] == before


def test_old_notes_of_a_run_have_no_cosmology(
    config: Config, cube: torch.Tensor, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(config.run, tmp_path / "run"))
    first = Run.open(folder).infer(cube, prepared=True, compare_with=0)
    data = json.loads((folder / FILE).read_text())
    assert data["cosmology"] == {"Omega_m": 0.29, "h": 0.7}
    del data["cosmology"]
    (folder / FILE).write_text(json.dumps(data))
    assert (
        Run.open(folder).infer(cube, prepared=True, compare_with=0).estimates() == first.estimates()
    )
    assert json.loads((folder / FILE).read_text())["cosmology"]["Omega_m"] == 0.29


def test_without_lightcones_the_cosmology_is_assumed_and_told(
    config: Config, cube: torch.Tensor, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(Path(config.run).parent, tmp_path / "copy"))
    for file in folder.glob("*.h5"):
        file.unlink()
    file = folder / "run" / "config.yaml"
    file.write_text(file.read_text().replace(str(Path(config.run).parent), str(folder)))
    (folder / "run" / FILE).unlink(missing_ok=True)
    found = Run.open(folder / "run").infer(cube, prepared=True, compare_with=0)
    (problem,) = found.warnings
    assert problem.startswith("volume and distances are those of Omega_m = 0.286: ")


def test_the_example_of_the_docs(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    text = (ROOT / "docs" / "posterior.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    blocks = [block for block in blocks if "sbi" not in block]  # see test_for_sbi
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    shutil.copytree(config.run, "runs/mine")
    runs.write_fits(Path("map.fits"), runs.map_of(config, INDEX))
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "posterior.md", "exec"), names)
    posterior, low, high = names["posterior"], names["low"], names["high"]
    assert (low <= posterior.above.samples[:50].max(0)).all() and (high > 0).all()
    assert names["rho"].interval_68[0] < names["rho"].median < names["rho"].interval_68[1]
    share = posterior.functional(names["bright_share"])
    bright = posterior.samples[:, 10:] @ names["L"][10:]  # 14 bins of 3.5 to 7
    assert share.mean == pytest.approx((bright / (posterior.samples @ names["L"])).mean())
    assert "bright_share = 0." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (np.zeros((3, 20, 23)), {}, r"the array has the shape \(3, 20, 23\), the network takes "
         r"\(3, 20, 24\) \(freq, dec, ra\): one map after all operators"),
        (np.zeros((1, 3, 20, 24)), {}, r"has the shape \(1, 3, 20, 24\), the network takes"),
        (np.full((3, 20, 24), np.nan), {}, "the array: 1440 of 1440 voxels are NaN or infinite"),
        (np.full((3, 20, 24), 1e39), {}, "the array: 1440 of 1440 voxels are NaN or infinite"),
        (np.full((3, 20, 24), 1e30), {}, "prediction is not finite: .* or the map is far beyond"),
        (np.ma.masked_greater(np.eye(24)[:20] + np.zeros((3, 1, 1)), 0.5), {},
         "the array has 60 masked voxels"),
        (np.zeros((3, 20, 24), complex), {}, "the array must be numbers, not complex"),
        (None, {}, "the array must be numbers, not a NoneType"),
        ("gone.fits", {}, "there is no map gone.fits"),
        (np.zeros((3, 20, 24)), {"units": "uK", "prepared": True},
         "infer: prepared=True says that nothing is left to do to the array, so units has no pl"),
        (np.zeros((3, 20, 24)), {"prepared": 1}, "prepared must be True or False, not 1"),
        ("gone.fits", {"prepared": True},
         "infer: prepared=True is of an array that is the network's input; a file with coord"),
        (np.zeros((3, 20, 24)), {"regrid": True, "no_value": 0},
         "infer: no_value, regrid is for a map; an array is one where units, such as 'uK', says"),
        (np.zeros((3, 20, 24)), {"units": "uK", "index": 3},
         "infer: index is for the file of a map, not an array"),
        (np.zeros((3, 20, 24)), {"units": "Jy"}, "units: the units 'Jy' are none of uK, mK"),
        (np.zeros((3, 20, 24)), {"units": "Jy/sr"}, "the array is in Jy/sr, the network was train"),
        (np.zeros((3, 20, 24)), {"units": 3}, "units must be text, such as 'uK', not 3"),
        (np.zeros((3, 20, 23)), {"units": "uK"}, r"the array has 3 x 20 x 23 voxels \(freq, dec, "
         r"ra\), the network takes 9 x 20 x 24 or 3 x 20 x 24;"),
        (np.zeros((20, 24)), {"units": "uK"}, r"the array has the shape \(20, 24\), where a map"),
        (np.full((3, 20, 24), np.nan), {"units": "uK"}, "the array: 1440 of 1440 voxels are NaN"),
        (np.full((3, 20, 24), -999.0), {"units": "uK"}, "the array: 1440 voxels are exactly -999"),
        (np.ones((3, 20, 24)), {"units": "uK", "regrid": True, "centre_deg": (0, 0)},
         "the array has no coordinates that --centre could be one of"),
        (np.zeros((3, 20, 24)), {"functions": 20}, "functions = 20 must be 100 or more"),
        (np.zeros((3, 20, 24)), {"functions": 10**13}, "functions = 1.* must be 1000000 or less"),
        (np.zeros((3, 20, 24)), {"functions": 1e3}, "functions must be a whole number"),
        (np.zeros((3, 20, 24)), {"seed": -3}, "seed = -3 is outside"),
        (np.zeros((3, 20, 24)), {"compare_with": -3},
         "-3 maps of the prior are too few for an alarm: 200 or more, or 0"),
    ],
)  # fmt: skip
def test_bad_input(config: Config, given: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Run(config).infer(given, **({"compare_with": 0} | options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regrid": "no"}, "regrid must be True or False, not 'no'"),
        ({"rayleigh_jeans": 1}, "rayleigh_jeans must be True or False, not 1"),
        ({"anyway": "no"}, "anyway must be True or False, not 'no'"),
        ({"sum_feeds": "no"}, "sum_feeds must be True or False, not 'no'"),
        ({"regrid": True, "centre_deg": "0 0"}, "centre_deg must be numbers, not '0 0'"),
        ({"regrid": True, "centre_deg": 3.0}, r"centre_deg must be \(ra, dec\), not 3.0"),
        ({"regrid": True, "centre_deg": (0, 0, 0)}, r"centre_deg must be \(ra, dec\), not"),
        ({"regrid": True, "centre_deg": (0, np.nan)}, "centre_deg = nan is not a finite number"),
        ({"regrid": True, "centre_deg": (0, -95)}, "its dec lies beyond a pole"),
        ({"nu_rest_GHz": "115.27"}, "nu_rest_GHz must be numbers, not '115.27'"),
        ({"nu_rest_GHz": np.nan}, "nu_rest_GHz = nan is not a finite number"),
        ({"units": 3}, "units must be text, such as 'uK', not 3"),
        ({"index": "0"}, "index must be a whole number, not '0'"),
        ({"hdu": 0.5}, "hdu, which is no EXTNAME, must be a whole number, not 0.5"),
        ({"no_value": "-99"}, "no_value must be numbers, not '-99'"),
        ({"no_value": [1, 2]}, r"no_value must be one number, not \[1, 2\]"),
        ({"unit": "mK", "out": "here"}, "unit, out is no option of how a map is read, which are "
         "units, nu_rest_GHz, .*, regrid, "),
    ],
)  # fmt: skip
def test_options_of_wrong_types(
    config: Config, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    file = runs.write_fits(tmp_path / "map.fits", runs.map_of(config, INDEX))
    with pytest.raises(ValueError, match=message) as caught:
        Run(config).infer(file, **({"compare_with": 0, "functions": 100} | options))
    assert "\n" not in str(caught.value) and "cut short" not in str(caught.value)


def test_options_with_units_and_by_number(config: Config, tmp_path: Path) -> None:
    units = pytest.importorskip("astropy.units")
    file = runs.write_fits(tmp_path / "map.fits", runs.map_of(config, INDEX))
    ask = partial(Run(config).infer, compare_with=0, functions=100, regrid=True)
    first = ask(file, centre_deg=(150.0, 52.0))
    rest = (config.grid.nu_rest_GHz * units.GHz).to(units.MHz)
    second = ask(file, hdu=0, nu_rest_GHz=rest, centre_deg=(150.0, 52.0) * units.deg)
    assert np.array_equal(first.samples, second.samples)
    with pytest.raises(ValueError, match="infer: units is for the file of a map; read_map takes"):
        ask(read_map(file), units="mK")


def test_units_of_an_array(config: Config, cube: torch.Tensor, tmp_path: Path) -> None:
    """Those of the network's input: none after a transform."""
    units = pytest.importorskip("astropy.units")
    with pytest.raises(
        ValueError, match=r"the array is in 'K' and the network's input has no unit: units='uK', or"
    ):
        Run(config).infer(cube.numpy() * units.K, compare_with=0)
    plain = made(tmp_path, observe={"pool": {"factor": [3, 1, 1]}})
    painted = np.abs(cube.numpy().astype(np.float64))
    run = Run(plain)
    first = run.infer(painted, prepared=True, functions=200, compare_with=0)
    second = run.infer(1e-6 * painted * units.K, prepared=True, functions=200, compare_with=0)
    assert np.abs(second.samples - first.samples).max() <= 1e-3 * first.samples.max()
    assert first.notes == ("an array, taken to have gone through pool, in uK", watch.NO_ALARM)
    cube_of_observe = observe(
        Generator(raw(plain), "test").generate([0]).cube[0].new_ones(9, 20, 24), plain
    )
    assert run.infer(
        cube_of_observe, prepared=True, functions=100, compare_with=0
    ).samples.shape == (100, 14)


@pytest.mark.parametrize("head", ["mse", "gaussian"])
def test_a_network_without_a_posterior(tmp_path: Path, head: str) -> None:
    config = runs.make_run(tmp_path, network=JOINT | {"head": head})
    message = rf"\(network\.head = {head}\) predicts no distribution of the numbers of halos: train"
    with pytest.raises(ValueError, match=message):
        Run(config).infer(np.zeros((3, 20, 24)))
    path = runs.write_hdf5(tmp_path / "m.h5", runs.map_of(config, INDEX))
    with pytest.raises(ValueError, match=message):
        infer(config, path, Options(functions_out=tmp_path / "f.npz"))
    assert not (Path(config.run) / FILE).exists() and not (tmp_path / "f.npz").exists()


def test_a_class_has_no_luminosity_function(tmp_path: Path) -> None:
    line = {"mixture": {"breysse15": {}, "padmanabhan18": {}}}
    network = {"layers": 2, "filters": 4, "dense": 8}
    config = runs.make_run(
        tmp_path, emit={"line": line}, label={"quantity": "class"}, network=network
    )
    with pytest.raises(ValueError, match=r"label\.quantity = class has no luminosity function"):
        Run(config).infer(np.zeros((3, 20, 24)))


def test_functions_that_cannot_be_written_leave_nothing(config: Config, tmp_path: Path) -> None:
    path = runs.write_hdf5(tmp_path / "m.h5", runs.map_of(config, INDEX))
    (tmp_path / "file").write_text("no folder")
    out = tmp_path / "out"
    options = Options(samples=0, out=out, functions_out=tmp_path / "file" / "f.npz")
    with pytest.raises(OSError):
        infer(config, path, options)
    assert not out.exists()


def test_comparison_has_the_band_that_infer_has(
    config: Config, cube: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bands: list[Any] = []
    drawn = figures.comparison

    def caught(*arrays: Any, **options: Any) -> Any:
        bands.append(options["band"])
        return drawn(*arrays, **options)

    monkeypatch.setattr(figures, "comparison", caught)
    evaluate(config, samples=8, out=tmp_path / "evaluated")
    expected = Run(config).infer(cube, prepared=True, compare_with=0).band(0.95)
    np.testing.assert_allclose(10 ** bands[0]([INDEX])[:, 0], np.maximum(expected, 1.0), rtol=1e-12)


def test_files_of_the_command(config: Config, tmp_path: Path, capsys: Any) -> None:
    """ECSV, JSON and the functions themselves hold the numbers of the posterior."""
    folder = tmp_path / "$_$"  # no mathematics
    path = runs.write_hdf5(tmp_path / "m$_$.h5", runs.map_of(config, INDEX))
    shutil.copytree(config.run, folder)
    arguments = ["infer", str(folder), str(path), "--device", "cpu", "--out", str(tmp_path / "out"),
                 "--samples", "0", "--functions", "3000", "--seed", "4",
                 "--functions-out", str(tmp_path / "functions.npz")]  # fmt: skip
    assert main.main(arguments) == 0
    said = capsys.readouterr().out
    found = Run.open(folder, device="cpu").infer(path, functions=3000, seed=4, compare_with=0)
    assert np.array_equal(Posterior.load(tmp_path / "functions.npz").samples, found.samples)
    assert "functions.npz" in said.splitlines()[-1]
    for line in str(found).splitlines():
        assert line in said
    kept = json.loads((tmp_path / "out" / "m$_$.json").read_text())
    told = kept["posterior"]
    assert (told["functions"], told["seed"], told["joint"]) == (3000, 4, True)
    assert told["outside"] == found.outside
    assert kept["uncertainty"] == (
        "3000 luminosity functions drawn from the network's joint posterior, seed 4"
    )
    table = pytest.importorskip("astropy.table").Table.read(tmp_path / "out" / "m$_$.ecsv")
    ends = {"low_95": (0.95, 0), "low_68": (0.68, 0), "high_68": (0.68, 1), "high_95": (0.95, 1)}
    for name, (level, side) in ends.items():
        # where the table has less than one halo, it has one
        for key, values in (
            (name, found.interval(level)),
            (f"band_{name}", found.band(level)),
        ):
            expected = np.maximum(values[side], 1.0)
            assert table[f"dN_{key}"] == pytest.approx(expected)
            assert (kept | told)[key] == pytest.approx(expected)
        for key, values in (
            (name, found.above.interval(level)),
            (f"band_{name}", found.above.band(level)),
        ):
            assert table[f"N_above_{key}"] == pytest.approx(values[side])
            assert told["N_above"][key] == pytest.approx(values[side])
    median = np.maximum(found.quantiles([0.5])[0], 1.0)
    assert table["dN"] == pytest.approx(median) and kept["value"] == pytest.approx(median)
    assert told["integrals"] == {each.name: each.to_dict() for each in found.estimates()}
    assert table.meta["posterior"]["integrals"]["rho_L"] == told["integrals"]["rho_L"]
    assert (table["dN_band_low_95"] <= table["dN_low_95"]).all()
    assert "95 % of whole curves" in said and kept["warnings"] == []
    figure = tmp_path / "out" / "m$_$.png"
    assert figure.stat().st_size > 30_000
    assert main.main([*arguments, "--functions", "9"]) == 2
    assert "functions = 9 must be 100 or more" in capsys.readouterr().err


def test_independent_bins_are_told(tmp_path: Path, capsys: Any) -> None:
    label = {"bins": 14, "quantity": "phi_L"}
    config = made(tmp_path, network=JOINT | {"head": "negative_binomial"}, label=label)
    path = runs.write_hdf5(tmp_path / "m.h5", runs.map_of(config, INDEX))
    result = infer(config, path, Options(out=tmp_path, samples=0))
    (problem,) = result["warnings"]
    assert "bins independently of each other" in problem
    assert problem in " ".join(capsys.readouterr().out.split())
    told = result["posterior"]
    assert not told["joint"] and "N_above" not in told
    assert set(told["integrals"]["rho_L"]) == {"unit", "meaning", "mean"}
    table = pytest.importorskip("astropy.table").Table.read(tmp_path / "m.ecsv")
    assert str(table["phi_L_band_low_95"].unit) == "1 / Mpc3"
    assert not [name for name in table.colnames if name.startswith("N_above")]
    one = np.array(result["one_halo"])
    found = Run(config).infer(path, compare_with=0)
    assert told["band_high_95"] == pytest.approx(np.maximum(found.band(0.95)[1], one))
    assert np.array(result["high_95"]) == pytest.approx(
        found.interval(0.95)[1], rel=0.1, abs=one[0]
    )


def test_few_functions_have_no_band(config: Config, cube: torch.Tensor, tmp_path: Path) -> None:
    path = runs.write_hdf5(tmp_path / "m.h5", runs.map_of(config, INDEX))
    result = infer(config, path, Options(out=tmp_path, samples=0, functions=100))
    (problem,) = result["warnings"]
    assert problem.startswith("a simultaneous 95 % band needs more than 100 functions")
    assert "N_above" in result["posterior"] and "band_low_95" not in result["posterior"]


def test_the_truth_in_the_figure(config: Config, cube: torch.Tensor) -> None:
    """In the label's quantity, as for a network without a posterior."""
    posterior = Run(config).infer(cube, prepared=True, compare_with=0)
    unit = np.full(14, 0.5)
    true = unit * np.arange(14.0)
    shown = Function("phi", posterior.bin_edges, true, None, unit, "",
                     replace(posterior, quantity="phi", unit=unit))  # fmt: skip
    left, right = prediction_figure(shown, "a map", true).axes
    assert left.lines[1].get_ydata() == pytest.approx(true[1:])
    assert right.lines[1].get_ydata() == pytest.approx(np.arange(14.0)[::-1].cumsum()[::-1])


def test_coordinates_that_an_object_brings_are_not_left_aside(
    config: Config, tmp_path: Path
) -> None:
    """The header of an HDU, the WCS of an NDData: frequencies may rise there, ra fall."""
    fits = pytest.importorskip("astropy.io.fits")
    nddata, wcs = pytest.importorskip("astropy.nddata"), pytest.importorskip("astropy.wcs")
    run, pooled = Run.open(config.run), runs.map_of(config, INDEX)
    ask = partial(run.infer, functions=300, compare_with=0, units="uK")
    hdu = fits.PrimaryHDU(pooled[::-1])
    hdu.header["CTYPE3"] = "FREQ"
    for given in (
        hdu,
        fits.ImageHDU(pooled),
        nddata.CCDData(pooled, unit="uK", wcs=wcs.WCS(naxis=3)),
        nddata.CCDData(pooled, unit="uK", header=hdu.header),
    ):
        for take in (
            ask,
            lambda cube: run.infer(cube, prepared=True),
            lambda cube: observe(cube, config),
            lambda cube: write_fits(tmp_path / "map.fits", cube, config.grid),
        ):
            with pytest.raises(ValueError, match="with a header or coordinates of its own"):
                take(given)
    assert not list(tmp_path.glob("map.fits"))
    plain = ask(nddata.CCDData(pooled, unit="uK"))
    assert np.array_equal(plain.samples, ask(pooled).samples)


def test_the_axes_of_an_array_in_another_order(config: Config) -> None:
    """No advice to train another network, but the order that fits."""
    painted = np.ones(config.grid.shape)
    with Run.open(config.run) as run:
        for order in ((2, 1, 0), (1, 2, 0)):
            turned = painted.transpose(order)
            with pytest.raises(ValueError, match=r"in the order \(.*\) it would fit") as error:
                run.infer(turned, units="uK", compare_with=0)
            (found,) = re.findall(r"in the order \((\d), (\d), (\d)\)", str(error.value))
            assert turned.transpose([int(axis) for axis in found]).shape == config.grid.shape


def test_a_map_taken_for_the_input_may_be_too_much(config: Config) -> None:
    """The sentence says how a map is handed over."""
    with pytest.raises(ValueError, match=r"not finite: .* units=\.\.\. of Run.infer says"):
        Run.open(config.run).infer(np.full(runs.map_of(config, INDEX).shape, 3e38), compare_with=0)
