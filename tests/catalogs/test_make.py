"""`streamtrain catalog make`: what it keeps, refuses, survives, and that nothing depends on how
the work is spread."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.settings import SynthesizeConfig
from streamtrain.catalogs.synthesis import options
from streamtrain.catalogs.synthesis.options import SkyOptions
from streamtrain.cli.main import main
from streamtrain.cosmology import Cosmology
from streamtrain.machine import workers
from streamtrain.schema import ConfigError, build

pytestmark = pytest.mark.usefixtures("usual_signals")

PATIENCE_S = 180.0
"""On a machine with much else to do [s]."""
SMALL = ["--footprint-deg", "0.2", "--z-range", "2.9", "3.0", "--min-mass", "1e12"]


def make(folder: Path, number: int, *more: str) -> int:
    return main(["catalog", "make", str(number), "--out", str(folder), *SMALL, *more])


def digests(folder: Path) -> dict[str, str]:
    return {path.name: Lightcone.open(path).digest for path in sorted(folder.glob("*.h5"))}


def test_processes_and_ranks_make_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make(tmp_path / "one", 3, "--processes", "1") == 0
    assert make(tmp_path / "two", 3, "--processes", "2") == 0
    assert "lightcone 3/3: " in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert make(tmp_path / "ranks", 3) == 0
    assert "rank 1: lightcone 2/2: " in capsys.readouterr().err
    one = digests(tmp_path / "one")
    assert sorted(one) == ["sky_0000.h5", "sky_0001.h5", "sky_0002.h5"]
    assert len(set(one.values())) == 3
    assert digests(tmp_path / "two") == one == digests(tmp_path / "ranks")


@pytest.mark.filterwarnings("default::streamtrain.schema.ModelRangeWarning")
def test_rates_beyond_their_data_are_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At z = 7.9 Behroozi et al. 2013 have no data above 10^11.2 Msun: the sentence that painting
    has, once for all lightcones of any number of processes; at z = 2.9 there is nothing to say."""
    early = ["--footprint-deg", "0.7", "--z-range", "7.7", "7.9", "--min-mass", "3e10", "--sfr"]
    for processes in ("1", "2"):
        folder = tmp_path / processes
        arguments = ["catalog", "make", "3", "--out", str(folder), *early]
        assert main([*arguments, "--processes", processes]) == 0
        said = capsys.readouterr().err
        assert said.count("streamtrain: warning: ") == 1
        for part in (
            "star-formation rates of Behroozi et al. 2013 end at z = 7.954, and at 10^11.20 Msun",
            "for z = 7.9: the fit extrapolates them for halos beyond, which have more than a",
            "of the shot noise; in a lightcone without the column sfr, data.sfr = fit_in_range",
        ):
            assert part in said
        for path in sorted(folder.glob("*.h5")):
            lightcone = Lightcone.open(path)
            squares = lightcone.columns["sfr"].astype(float) ** 2
            assert squares[lightcone.mass_Msun > 10**11.3].sum() > 0.01 * squares.sum()
    assert digests(tmp_path / "1") == digests(tmp_path / "2")
    assert make(tmp_path / "late", 1, "--sfr") == 0
    assert main([*arguments[:-1], "--out", str(tmp_path / "none"), "--processes", "1"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_ranks_share_the_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    for ranks in (1, 2, 3, 7):
        monkeypatch.setenv("WORLD_SIZE", str(ranks))
        seeds: list[int] = []
        for rank in range(ranks):
            monkeypatch.setenv("RANK", str(rank))
            seeds += workers.own_range(10, 5)
        assert seeds == [10, 11, 12, 13, 14]


def test_memory_limits_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "own_cores", lambda: 8)
    monkeypatch.setattr(workers, "free_memory", lambda: 10e9)
    assert workers.how_many(100, 1e9) == 8
    assert workers.how_many(3, 1e9) == 3
    assert workers.how_many(100, 2e9) == 4
    assert workers.how_many(100, 50e9) == 1


def test_what_is_there_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(tmp_path, 1) == 0
    file = tmp_path / "sky_0000.h5"
    assert make(tmp_path, 1, "--sigma8", "0.8") == 2
    assert "was made with cosmology = {'Omega_m': 0.286," in capsys.readouterr().err
    assert make(tmp_path, 1, "--no-velocities") == 2
    assert "was made with velocities = True, not False: remove it" in capsys.readouterr().err
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert make(tmp_path, 1) == 2
    assert "truncated or damaged lightcone file" in capsys.readouterr().err
    # In several processes the sentence is the same.
    assert make(tmp_path, 2, "--processes", "2") == 2
    assert "truncated or damaged lightcone file" in capsys.readouterr().err


def test_unfinished_file_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f".sky_0000.h5.{dead.pid}.tmp"
    alive = tmp_path / f".sky_0000.h5.{os.getppid()}.tmp"
    left.touch()
    alive.touch()
    assert make(tmp_path, 1) == 0
    assert not left.exists() and alive.exists()


def start_making(folder: Path) -> subprocess.Popen[str]:
    """500 lightcones in two processes, a process group of its own."""
    command = [sys.executable, "-m", "streamtrain.cli.main", "catalog", "make", "500"]
    command += ["--out", str(folder), *SMALL, "--processes", "2"]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=Path.cwd()
    )


def children(process: subprocess.Popen[str]) -> list[int]:
    """The processes that make lightcones, once both have started."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until, found = time.monotonic() + PATIENCE_S, []
    while len(found) < 2 and time.monotonic() < until:
        every = [int(text) for text in path.read_text().split()]
        with suppress(OSError):  # one of imports that has ended meanwhile
            found = [n for n in every if b"spawn_main" in Path(f"/proc/{n}/cmdline").read_bytes()]
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_leaves_complete_files_and_no_process(tmp_path: Path, number: int) -> None:
    """Ctrl-C goes to the whole process group, SIGTERM to the command alone."""
    process = start_making(tmp_path)
    until = time.monotonic() + PATIENCE_S
    while len(list(tmp_path.glob("*.h5"))) < 3 and time.monotonic() < until:
        time.sleep(0.05)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + number and "streamtrain: interrupted" in errors
    assert "Traceback" not in errors
    made = digests(tmp_path)
    assert 3 <= len(made) < 500
    time.sleep(0.7)  # two more would be there if a process had gone on
    assert digests(tmp_path) == made


def test_ctrl_c_while_the_processes_start(tmp_path: Path) -> None:
    """They import their libraries, and have not run a line of ours."""
    process = start_making(tmp_path)
    assert len(children(process)) == 2
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "streamtrain: interrupted" and "Traceback" not in errors


def test_processes_end_with_the_command(tmp_path: Path) -> None:
    """kill -9: they notice at their next report, and say nothing."""
    process = start_making(tmp_path)
    left = children(process)
    until = time.monotonic() + PATIENCE_S
    while not list(tmp_path.glob("*.h5")) and time.monotonic() < until:
        time.sleep(0.05)
    process.kill()
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in errors and len(left) == 2
    while any(Path(f"/proc/{number}").exists() for number in left):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_killed_child_is_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"ended with exit code -9 \(out of memory\?\)"):
        workers.run(_die, range(4), 2)


def _die(seed: int, threads: int, report: object) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


def test_options_from_yaml_and_command_line_are_recorded(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(
        "footprint_deg: [0.3, 0.2]\nz_range: [0.2, 0.3]\nmin_mass_Msun: 2e11\nsfr: true\n"
        "mass_function: watson13_fof\ncosmology: {Omega_m: 0.31, sigma8: 0.8}\n"
    )
    arguments = ["catalog", "make", "1", "--out", str(tmp_path), "--options", str(file)]
    assert main([*arguments, "--h", "0.68", "--sigma8", "0.81", "--min-mass", "1e11"]) == 0
    lightcone = Lightcone.open(tmp_path / "sky_0000.h5")
    cosmology = Cosmology(Omega_m=0.31, h=0.68, sigma8=0.81).to_dict()
    assert lightcone.cosmology == cosmology
    assert list(lightcone.columns) == ["sfr"] and lightcone.velocities_kms is not None
    record = json.loads(lightcone.provenance)
    assert record["cosmology"] == cosmology
    assert record["footprint_deg"] == [0.3, 0.2] and record["z_range"] == [0.2, 0.3]
    assert record["min_mass_Msun"] == 1e11 == lightcone.min_mass_Msun
    assert record["mass_function"] == "watson13_fof"
    assert record["mass_definition"].startswith("FoF")
    assert record["bias"] == "tinker10"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "fotprint_deg: 2",
            "unknown option 'fotprint_deg': did you mean 'footprint_deg'?",
        ),
        ("- 1", "options must be a mapping of names to values"),
        ("cosmology: 3", "cosmology must be a mapping of Omega_m, Omega_b"),
        ("cosmology: {Omega_M: 0.3}", "unknown ['Omega_M']"),
        ("sfr: maybe", "sfr must be true or false, not 'maybe'"),
        ("z_range: [a, 3]", "z_range[0] must be a number, not 'a'"),
        ("z_range: 3", "z_range must be a list, not 3"),
        ("footprint_deg: [1, 2, 3]", "footprint_deg [1, 2, 3] must be one number or two"),
        ("num_slabs: two", "num_slabs must be a number, not 'two'"),
        ("mass_function: [1]", "mass_function must be text, not [1]"),
        ("cell_Mpc: 9", "cell_Mpc 9 Mpc must lie in 1..8 Mpc"),
        ("a: [", "not valid YAML"),
        ("sfr: true\nsfr: false", "'sfr' is given twice"),
    ],
)
def test_bad_option_files_get_one_sentence(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(text)
    assert main(["catalog", "make", "1", "--out", str(tmp_path), "--options", str(file)]) == 2
    error = capsys.readouterr().err
    assert message in error and str(file) in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["0"], "the number of lightcones, 0, must be at least 1"),
        (["1", "--processes", "0"], "the number of processes, 0, must be at least 1"),
        (["1", "--first-seed", "-1"], "the seeds -1.. must lie in 0..2^64-1"),
        (["1", "--Omega-m", "3"], "cosmology: Omega_m = 3.0 must be a number in 0.05..1.0"),
        (["1", "--footprint-deg", "1", "2", "3"], "footprint_deg [1.0, 2.0, 3.0] must be one"),
    ],
)
def test_bad_arguments_get_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["catalog", "make", *arguments, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_every_option_is_said_once() -> None:
    """Flags, file, section and `synthesize` take their defaults, units and ranges from one table,
    and what they are given by whichever way becomes the same options."""
    parser = argparse.ArgumentParser()
    options.add_flags(parser)
    text = " ".join(parser.format_help().split())
    for flag, shown in {
        "--footprint-deg DEG [DEG ...]": "[2.4 2.4]",
        "--z-range LOW HIGH": "[2.38 3.45]",
        "--min-mass MSUN": "[2.5e+10]",
        "--mass-function NAME": "[tinker08]",
        "--bias NAME": "[tinker10]",
        "--Omega-m VALUE": "[0.286]",
        "--sigma8 VALUE": "[0.82]",
    }.items():
        assert shown in text.partition("options: ")[2].partition(f" {flag} ")[2].partition(" --")[0]
    section = build(SynthesizeConfig, {"footprint_deg": 3, "cosmology": {"h": 0.68}})
    plain = SkyOptions(footprint_deg=np.array([3.0]), cosmology={"h": "0.68"})  # type: ignore[arg-type]
    assert (
        SkyOptions(**{"z_range": (2.38, 3.45), "min_mass_Msun": 2.5e10} | section.said()) == plain
    )
    assert plain.footprint_deg == (3.0, 3.0) and plain.cosmology == Cosmology(h=0.68)
    with pytest.raises(ConfigError, match=r"footprint_deg = 20 is outside its range 0\.05\.\.10"):
        build(SynthesizeConfig, {"footprint_deg": 20})


def test_the_documentation_has_every_option() -> None:
    text = (Path(__file__).parents[2] / "docs" / "lightcones.md").read_text()
    table = text.partition("| | default | |")[2].partition("\n\n")[0]
    rows = [[cell.strip(" `") for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]
    said = {name: (default, more) for name, default, more in rows}
    every = [*fields(SkyOptions), *fields(options.FileOptions)]
    assert said.keys() == {one.name for one in every}
    for one in every:
        default, more = said[one.name]
        if (span := one.metadata["span"]) is not None:
            assert "{:g} to {:g}".format(*span).replace("e+", "e").replace("e0", "e") in more
        if isinstance(one.default, bool):
            assert default == ("yes" if one.default else "no")
        elif one.name not in ("cosmology", "num_slabs", "vary"):
            values = one.default if isinstance(one.default, tuple) else (one.default,)
            shown = [type(values[0])(word) for word in default.split()]
            assert set(shown) == set(values)


def imported(*arguments: str) -> set[str]:
    """The packages that `streamtrain catalog make` imports."""
    command = [sys.executable, "-X", "importtime", "-m", "streamtrain", "catalog", "make"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
    return {line.split()[-1] for line in done.stderr.splitlines() if "import time:" in line}


def test_nothing_is_imported_that_is_not_used(tmp_path: Path) -> None:
    """Torch takes every process of a command longer than the lightcones of these tests."""
    said = imported("--help")
    assert "numpy" in said and not {"scipy", "torch", "h5py"} & said
    made = imported("1", "--out", str(tmp_path), *SMALL)
    assert {"scipy.fft", "h5py"} <= made and "torch" not in made
