"""The command line: what a user types and sees."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from support import ROOT, small

from streamtrain.check import GOLDEN, golden_matches
from streamtrain.cli.main import _parser, main
from streamtrain.config import load_config
from streamtrain.schema import warn

CONFIG = "configs/reference.yaml"


@pytest.mark.parametrize(
    ("words", "place", "number"),
    [
        ("infer RUN MAP", "evaluate.inference.infer.Options", 4000),
        ("infer RUN MAP", "evaluate.inference.infer.CheckOptions", 300),
        ("mcmc CONFIG", "mcmc.inference.Options", 6000),
        ("mcmc CONFIG", "mcmc.report.run", 4),
        ("export CONFIG --samples 1 --out OUT", "generator.export.export", "hdf5"),
        ("catalog compare FILE", "preview.compare_catalogs.View", 115.27),
    ],
)
def test_defaults_are_those_of_what_is_called(words: str, place: str, number: object) -> None:
    """Commands import what they call when they run, so that a default stands in two places; one of
    them, `number`, says that there are any."""
    given = vars(_parser().parse_args(words.split()))
    given |= {"number": given.get("painted"), "maps": given.get("check_maps", given.get("maps"))}
    module, _, name = place.rpartition(".")
    called = getattr(importlib.import_module(f"streamtrain.{module}"), name)
    defaults = {k: p.default for k, p in inspect.signature(called).parameters.items() if k in given}
    set_here = {
        name: value
        for name, value in defaults.items()
        if value and value is not inspect.Parameter.empty
    }
    assert number in set_here.values()
    assert set_here == {name: given[name] for name in set_here}


def test_golden_digests_on_the_cpu() -> None:
    """C2, C7: the shipped samples come out bit for bit."""
    assert golden_matches("cpu") == [True] * len(GOLDEN)


@pytest.mark.gpu
def test_golden_digests_on_a_gpu() -> None:
    assert golden_matches("cuda") == [True] * len(GOLDEN)


def test_check_says_bit_exact(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    assert "bit-exact on cpu: yes" in capsys.readouterr().out


def test_print_config_is_a_configuration(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["train", CONFIG, "--print-config", "observe.noise.sigma_uK=5"]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["observe"]["noise"]["sigma_uK"] == 5
    file = tmp_path / "printed.yaml"
    file.write_text(printed)
    assert load_config(file) == load_config(CONFIG, ["observe.noise.sigma_uK=5"])


@pytest.mark.filterwarnings("always::streamtrain.schema.OrderWarning")
def test_an_added_operator_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, once: the configuration on stdout stays one."""
    for settings in (["observe.beam.fwhm_arcmin=4.5"], ["observe={log_modulus: {}, noise: {}}"]):
        assert main(["train", CONFIG, "--print-config", *settings]) == 0
        printed = capsys.readouterr()
        told = printed.err.splitlines()
        if "beam" in settings[0]:
            assert list(yaml.safe_load(printed.out)["observe"])[:3] == ["pool", "beam", "noise"]
            assert told == [
                "streamtrain: warning: observe.beam is new and takes its place in the order of an "
                "instrument: pool, beam, noise, log_modulus"
            ]
        else:
            assert told == [
                "streamtrain: warning: observe.noise comes after observe.log_modulus, where the "
                "map has no unit"
            ]
    assert main(["train", "comap.yaml", "--print-config", "observe.beam_3="]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_testset_make_and_verify(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    settings = [f"run={tmp_path}", "test.samples=3"]
    assert main(["testset", "make", CONFIG, *settings]) == 0
    manifest = tmp_path / "testset.json"
    digests = json.loads(manifest.read_text())["samples"]
    assert digests[:2] == [GOLDEN[0], GOLDEN[1]]
    assert main(["testset", "verify", CONFIG, *settings]) == 0
    assert "the same bytes: yes" in capsys.readouterr().out
    manifest.write_text(manifest.read_text().replace(digests[2], "0" * 64))
    assert main(["testset", "verify", CONFIG, *settings]) == 1
    assert "Sample 2 is the first whose bytes differ" in capsys.readouterr().out


def test_settings_may_follow_options(tmp_path: Path) -> None:
    out = tmp_path / "manifest.json"
    status = main(["testset", "make", CONFIG, "--out", str(out), "test.samples=1", "seed=3"])
    assert status == 0 and json.loads(out.read_text())["count"] == 1


def test_bench_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    settings = ["data.train=[configs/reference_0000.h5]", "data.test=[]", "train.batch_size=4"]
    assert main(["bench", CONFIG, *settings, "--seconds", "0.1", "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    assert report["generate_samples_per_s"] > 0 and report["both_samples_per_s"] > 0


@pytest.mark.parametrize(
    ("rank", "size", "prefix"), [("0", "1", ""), ("0", "2", "rank 0: "), ("1", "2", "rank 1: ")]
)
def test_each_rank_says_what_went_wrong_in_it(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    rank: str,
    size: str,
    prefix: str,
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    assert main(["train", "nothing.yaml"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"streamtrain: {prefix}no configuration file or run 'nothing.yaml'")


@pytest.mark.filterwarnings("default::streamtrain.schema.ModelRangeWarning")
@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_a_model_outside_its_range_is_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    rank: str,
    lines: int,
) -> None:
    """Without file and line, and from one rank only."""
    monkeypatch.setenv("RANK", rank)
    settings = ["emit.line={model: padmanabhan18}", "test.samples=2", f"run={tmp_path}"]
    assert main(["testset", "make", CONFIG, *settings]) == 0
    said = capsys.readouterr().err
    assert said.count("\n") >= lines
    assert said.count("padmanabhan18") == lines
    if lines:
        assert (
            "streamtrain: warning: the model padmanabhan18 is published for z = 0..3, but the band "
            "holds z = 2.39..3.43: its luminosities are extrapolated\n"
        ) in said


@pytest.mark.filterwarnings("always::streamtrain.schema.AssumptionWarning")
def test_an_assumption_is_told_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`infer --check` makes several generators of one configuration."""
    monkeypatch.setattr("streamtrain.cli.main._check", lambda _: [warn("a"), warn("b"), warn("a")])
    main(["check"])
    assert capsys.readouterr().err == "streamtrain: warning: a\nstreamtrain: warning: b\n"


@pytest.mark.filterwarnings("default::RuntimeWarning")
@pytest.mark.parametrize(("rank", "prefix"), [("0", ""), ("1", "rank 1: ")])
def test_a_warning_of_a_library_is_one_line_too(
    rank: str, prefix: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its kind and place; as Python shows it with STREAMTRAIN_DEBUG."""
    shown: list[object] = []

    def work(arguments: object) -> int:
        return int(np.float64(1.0) / np.float64(0.0) > 0.0)

    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr("streamtrain.cli.main._check", work)
    monkeypatch.setattr("warnings.showwarning", lambda message, kind, *where: shown.append(kind))
    assert main(["check"]) == 1
    assert re.fullmatch(
        rf"streamtrain: {prefix}warning: divide by zero encountered in .*divide "
        r"\(RuntimeWarning, test_cli\.py, line \d+\)\n",
        capsys.readouterr().err,
    )
    monkeypatch.setenv("STREAMTRAIN_DEBUG", "1")
    assert main(["check"]) == 1
    assert shown == [RuntimeWarning] and capsys.readouterr().err == ""


def test_launch_script_is_the_command_train(tmp_path: Path) -> None:
    """Its messages and exit status too: here, for a compiler that is none."""
    script = ROOT / "launch" / "train.py"
    small.lightcone().save(tmp_path / "other.h5")
    settings = ["data.train=[configs/reference_0000.h5]", "data.test=[]", f"run={tmp_path / 'run'}"]
    settings.append(f"data.validation=[{tmp_path / 'other.h5'}]")
    result = subprocess.run(
        [sys.executable, str(script), CONFIG, "--device", "cpu", *settings],
        env={**os.environ, "CXX": "no-compiler"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == "streamtrain: CXX = 'no-compiler' is not a program on this machine\n"


def test_commands_start_without_importing_torch() -> None:
    """`streamtrain --help` must not take seconds."""
    code = (
        "import sys, streamtrain.cli.main as c\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'cupy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_make_is_resumable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["catalog", "make", "1", "--out", str(tmp_path), "--footprint-deg", "0.2"]
    arguments += ["--z-range", "2.9", "3.0", "--min-mass", "1e12", "--prefix", "small"]
    assert main(arguments) == 0
    file = tmp_path / "small_0000.h5"
    written = file.stat().st_mtime_ns
    assert main(arguments) == 0
    assert file.stat().st_mtime_ns == written
    assert "is there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["trian", CONFIG], "there is no command 'trian': did you mean 'train'?"),
        (["catalog", "imprt"], "there is no command 'imprt': did you mean 'import'?"),
        (["train", CONFIG, "--devise", "cpu"], "did you mean '--device'?"),
        (["catalog", "make", "1", "--footprnt=2"], "did you mean '--footprint-deg'?"),
        (["train", "quickstart.yml"], "'quickstart.yml': did you mean 'quickstart.yaml'?"),
        (["train", "configs/resnt.yaml"], "did you mean 'networks/resnet.yaml'?"),
        (
            ["train", "unlike_any.yaml"],
            "reference.yaml, small.yaml, time.yaml, and more in networks/",
        ),
        (["train", "runs/mien"], "no configuration file or run 'runs/mien': did you mean 'runs/m"),
        (["evaluate", "runs/other"], "the runs beside it are runs/mine"),
        (["infer", "runs/minne", "map.fits"], "no run 'runs/minne': did you mean 'runs/mine'?"),
        (["compare", "nowhere/mine"], "no run is in nowhere"),
    ],
)
def test_a_misspelt_name_gets_the_nearest(
    command: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.yaml").touch()
    try:
        status = main(command)
    except SystemExit as stop:
        assert isinstance(stop.code, int)
        status = stop.code
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 2 and said in error
    assert len(error) < 340


def test_the_old_name_of_an_option_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--no-predictions", "--no-answers"):
        assert _parser().parse_args(["compare", "runs/mine", option]).no_predictions
    assert not _parser().parse_args(["compare", "runs/mine"]).no_predictions
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    shown = capsys.readouterr().out
    assert "--no-predictions" in shown and "--no-answers" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1",
        "[/x/gloo/transport/tcp/pair.cc:525] Read error [127.0.0.1]:1: Connection reset by peer",
        "[/x/gloo/transport/tcp/pair.cc:220] write [127.0.0.1]:1: Broken pipe",
    ],
)
def test_gloo_says_in_several_ways_that_a_rank_has_ended(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(_: object) -> int:
        raise RuntimeError(text)

    monkeypatch.setattr("streamtrain.cli.runs.run_alarm", failing)
    assert main(["alarm", "runs/none"]) == 1
    assert "another rank has ended: RuntimeError" in capsys.readouterr().err
