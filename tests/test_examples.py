"""The scripts of examples/ run, in a short form, and what they say is right."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from support import ROOT, small

from streamtrain import load_config, paint
from streamtrain.cli.main import main
from streamtrain.evaluate import evaluation
from streamtrain.maps.read import read_map
from streamtrain.shipped import trained_networks
from streamtrain.train import monitor

EXAMPLES = ROOT / "examples"
MAX_LINES = 60

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="not a checkout")


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _random_state_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        yield


def test_they_are_short_and_say_what_they_are_for() -> None:
    files = sorted(EXAMPLES.glob("*.py"))
    assert len(files) == 6
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert len(text.splitlines()) < MAX_LINES, file.name
        assert text.startswith('"""') and 'if __name__ == "__main__":' in text


def test_the_command_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them, with what each shows; a file that was changed is kept."""
    assert main(["examples", "mine"]) == 0
    said = capsys.readouterr().out
    files = sorted(file for file in EXAMPLES.iterdir() if file.is_file())
    assert len(files) == 7 and "wrote 7 of 7 into mine\n" in said
    for file in files:
        written = tmp_path / "mine" / file.name
        assert written.read_bytes() == file.read_bytes()
        assert f"mine/{file.name} " in said
    assert re.search(
        r"^mine/sweep.py +Paint maps of one sky with a luminosity model, and", said, re.M
    )
    assert re.search(r"^mine/first_maps.ipynb +From halos to a training sample$", said, re.M)
    (tmp_path / "mine" / "sweep.py").write_text("print('mine')\n")
    (tmp_path / "mine" / "own_loop.py").unlink()
    assert main(["examples", "mine"]) == 0
    said = capsys.readouterr().out
    assert "one of its parameters (yours, kept)\nwrote 1 of 7 into mine\n" in said
    assert (tmp_path / "mine" / "sweep.py").read_text() == "print('mine')\n"


def test_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A shallower relation between infrared and CO luminosity makes faint maps of fewer bright
    halos."""
    example("sweep").main(tmp_path, number=3)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "<T>" in line]
    means, bright = ([float(line[k]) for line in lines] for k in (5, 7))
    assert means == sorted(means, reverse=True) and bright == sorted(bright, reverse=True)
    assert (tmp_path / "sweep.png").stat().st_size > 10_000


@pytest.mark.skipif("quickstart" not in trained_networks(), reason="it does not ship")
def test_ready_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The truth of a model that the network was not trained on lies within its bands; what is
    there stays."""
    module = example("ready_network")
    for file in ("map.fits", "ready_network_1/map.fits"):
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).write_text("mine")
    posterior = module.main()
    assert Path("map.fits").read_text() == Path("ready_network_1/map.fits").read_text() == "mine"
    tmp_path /= "ready_network_2"
    assert read_map(tmp_path / "map.fits").shape == (10, 32, 32)
    assert posterior.alarm is not None and not posterior.alarm.extrapolated
    true = module.write_map(tmp_path / "again.fits").numpy()
    low, high = posterior.above.band(0.95)
    above = true[::-1].cumsum()[::-1]
    assert ((low <= above) & (above <= high)).all()
    said = capsys.readouterr().out
    edges = posterior.bin_edges[:-1]
    for name, least in (("N(>10^5)", 5.0), ("N(>10^6)", 6.0)):
        bright = int(true[edges > least - 1e-6].sum())
        (line,) = [line for line in said.splitlines() if line.startswith(f"{name}: ")]
        assert line.endswith(f"in truth {bright:.4g} ")
    mean = 1.0 * true @ posterior.functionals[-1].weights
    assert f"in truth {mean:.4g} uK" in said
    assert (tmp_path / "posterior.png").stat().st_size > 10_000


def test_own_loop_learns(capsys: pytest.CaptureFixture[str]) -> None:
    losses = example("own_loop").main(steps=30, batch_size=16)
    assert np.mean(losses[-5:]) < 0.3 * losses[0]
    assert "'next_index': 480" in capsys.readouterr().out


def test_own_model_is_the_function() -> None:
    """Its luminosities by hand, and parameters that are those of its prior."""
    module = example("own_model")
    model, batch = module.double_power_law, module.main(number=4)
    assert float(model(1e12, 3.0)) == pytest.approx(3e5)
    slope = np.log10(model(1e10, 3.0) / model(1e9, 3.0))
    assert slope == pytest.approx(1.7, abs=1e-2)
    for draw in batch.draws:
        assert 11.7 <= draw["parameters"]["log10_knee"] <= 12.3
        assert draw["parameters"]["high"] == 0.3
    assert int(batch.counts.sum()) > 1000


@small.ASSUMES
def test_fits_to_posterior(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network of eight steps, with empty figures; its map comes back out of the FITS file."""
    for name in ("map_slices", "luminosity_function"):
        monkeypatch.setattr(monitor, name, lambda *_, **__: Figure(figsize=(1, 1)))
    monkeypatch.setattr(evaluation, "_function_figures", lambda *_: {})
    folder = tmp_path / "lightcones" / "small"
    folder.mkdir(parents=True)
    for number, name in enumerate(("train_0000", "validation_1000", "test_2000")):
        small.lightcone(number + 1).save(folder / f"{name}.h5")
    few = {"steps": 8, "validation_samples": 16, "validate_every": 8}
    module = example("fits_to_posterior")
    posterior = module.main((1, 1, 1), maps=0, train=few, test={"samples": 8})
    assert posterior.samples.shape == (4000, 49)
    shown = capsys.readouterr().out
    assert "N(>10^6.5 Lsun)" in shown and "8 test maps" in shown
    run = tmp_path / "runs/small"
    assert (run / "posterior.png").is_file() and (run / "evaluation.json").is_file()
    sky, grid = small.lightcone(3), load_config("small.yaml").grid
    cube, _ = paint(sky, grid, "li16", seed=1)
    noise = 2.0 * torch.randn(cube.shape, generator=torch.Generator().manual_seed(1))
    written = read_map(run / "map.fits")
    assert written.units == "uK" and written.centre_deg == pytest.approx((150.1, 2.2))
    np.testing.assert_allclose(written.cube, (cube + noise).numpy(), rtol=1e-6)


@pytest.fixture(scope="module")
def _sbi() -> None:
    """Imported before the test begins: it changes the environment."""
    for module in ("sbi.inference", "sbi.diagnostics"):
        pytest.importorskip(module, reason="needs sbi (pip install sbi)")


@pytest.mark.filterwarnings("ignore:Capping max_sampling_batch_size:UserWarning")
def test_into_sbi(_sbi: None) -> None:
    """An estimator of four steps; the ranks of 128 truths among 300 samples of each parameter."""
    ranks = example("into_sbi").main(steps=4, tests=128)
    assert ranks.shape == (128, 5)
    assert int(ranks.min()) >= 0 and int(ranks.max()) <= 300


def test_notebook_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    """The texts that are stored below its cells are those that it prints on this machine."""
    notebook = json.loads((EXAMPLES / "first_maps.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names: dict[str, object] = {}
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        exec(compile("".join(cell["source"]), "first_maps.ipynb", "exec"), names)
        shown = [line for output in cell["outputs"] for line in output.get("text", [])]
        assert capsys.readouterr().out == "".join(shown)


def test_small_configuration_is_one() -> None:
    config = load_config("small.yaml")
    assert config.observation.check() is None and config.grid.shape == (10, 16, 16)
