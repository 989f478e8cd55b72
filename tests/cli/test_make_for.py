"""`streamtrain catalog make --for`: the lightcones that a configuration needs."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support import small

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.synthesis.options import SkyOptions
from streamtrain.catalogs.synthesis.synthesize import synthesize
from streamtrain.cli.main import main
from streamtrain.config import from_mapping, load_config
from streamtrain.generator import needed as neededskies
from streamtrain.generator.generator import Generator
from streamtrain.generator.needed import NUMBERS, Needed, needed_skies
from streamtrain.shipped import find_config

PRESETS = (
    "comap.yaml", "comap_co21.yaml", "cii.yaml", "quickstart.yaml", "pfeffer2019/published.yaml",
    "pfeffer2019/experiments/frequency_1.yaml", "freeform.yaml", "freeform_cii.yaml",
    "comap_pathfinder.yaml", "time.yaml",
)  # fmt: skip
CONFIG: dict[str, Any] = {
    "seed": 3,
    "grid": {"fov_deg": [0.12, 0.1], "shape": [4, 8, 8], "nu_GHz": [29.55, 28.9]},
    "data": {
        "train": ["skies/train_*.h5"],
        "validation": ["skies/validation_*.h5"],
        "test": ["skies/the_test.h5"],
        "min_mass_Msun": 1e12,
    },
    "train": {"threads": 1},
}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write(tmp_path / "my.yaml", CONFIG)


def write(file: Path, settings: dict[str, Any]) -> Path:
    file.write_text(yaml.safe_dump(settings, sort_keys=False))
    return file


def changed(**data: Any) -> dict[str, Any]:
    return {**CONFIG, "data": {**CONFIG["data"], **data}}


def make(*words: str) -> int:
    return main(["catalog", "make", "--for", *words])


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(list(words)) == 2
    *progress, text = capsys.readouterr().err.strip().splitlines()
    assert text.startswith("streamtrain: ") and all("lightcone 1/" in line for line in progress)
    return text


def names(needed: list[Needed]) -> list[str]:
    return [str(path) for one in needed for path in one.missing]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_get_what_they_need(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the rules that generators refuse lightcones by; no seed is in two splits of a setting."""
    monkeypatch.chdir(tmp_path)
    config = load_config(find_config(preset))
    needed = needed_skies(config)
    assert [len(one.missing) for one in needed] == [64, 8, 8] * (len(needed) // 3)
    for one in needed:
        options = one.recipe.options
        diagonal = float(np.hypot(*config.grid.fov_deg))
        assert diagonal < options.footprint_deg[0] == options.footprint_deg[1] < 1.25 * diagonal
        assert options.min_mass_Msun == config.data.min_mass_Msun
        lows, highs = zip(*(grid.z_range for grid in one.grids), strict=True)
        assert min(lows) - 0.001 < options.z_range[0] <= min(lows)
        assert max(highs) <= options.z_range[1] < max(highs) + 0.001
    seeds = [{one.split: set(one.seeds) for one in needed[k : k + 3]} for k in (0, len(needed) - 3)]
    for each in seeds:
        assert len(set.union(*each.values())) == 80
    wheres = {one.where.rpartition(".")[0] for one in needed}
    assert wheres == {"data", "emit.interloper"} if len(needed) == 6 else {"data"}


def test_what_is_not_made_says_which_setting_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    """And the setting that is named has them made."""
    assert main(["catalog", "make", "--for", "reference.yaml", "--plan"]) == 0
    said = capsys.readouterr().out
    missing = re.findall(
        r"data\.\w+ names no files, .*: '(\S+)' after reference.yaml names s", said
    )
    assert len(missing) == 2
    assert main(["catalog", "make", "--for", "reference.yaml", *missing, "--plan"]) == 0
    said = capsys.readouterr().out
    assert "data.train: 64 files to make, lightcones/train_0000.h5 to" in said
    assert "names no files" not in said


def test_lightcones_for_a_configuration(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the message says is pasted makes what it asks for; doing it twice changes nothing."""
    text = refusal(capsys, "train", str(file), "train.steps=3", "data.mirror=false")
    assert "data.train: no file matches 'skies/train_*.h5'; lightcones for this" in text
    pasted = shlex.split(text.partition("configuration: ")[2])
    assert pasted == ["streamtrain", "catalog", "make", "--for", str(file), "train.steps=3",
                      "data.mirror=false"]  # fmt: skip
    assert main([*pasted[1:], "--number", "2", "1", "1", "--plan"]) == 0
    plan = capsys.readouterr().out
    assert "data.train: 2 files to make, skies/train_0000.h5 to train_0001.h5, each 0.188" in plan
    assert "data.test: 1 file to make, skies/the_test.h5, each 0.188 x 0.188 deg, z = 2.9" in plan
    assert not Path("skies").exists()

    assert main([*pasted[1:], "--number", "2", "1", "1", "--processes", "1"]) == 0
    made = sorted(Path("skies").iterdir())
    assert [path.name for path in made] == [
        "the_test.h5", "train_0000.h5", "train_0001.h5", "validation_1000.h5",
    ]  # fmt: skip
    config = load_config(file)
    for split in ("train", "validation", "test"):
        generator = Generator(config, split)
        assert len(generator.generate([0, 1]).cube) == 2
        generator.close()
    assert len({Lightcone.open(path).realisation for path in made}) == 4
    before = [(path.stat().st_mtime_ns, path.read_bytes()) for path in made]
    capsys.readouterr()
    assert make(str(file), "--number", "2", "1", "1") == 0
    assert "nothing is to be made" in capsys.readouterr().out
    made[1].unlink()
    assert make(str(file), "--number", "2", "1", "1") == 0
    after = [path.read_bytes() for path in made]
    assert after == [content for _, content in before]
    assert [path.stat().st_mtime_ns for path in made][2:] == [time for time, _ in before][2:]

    text = refusal(capsys, "catalog", "make", "--for", str(file), "data.min_mass_Msun=5e11")
    assert "skies/train_0000.h5, a file of data.train, does not fit: train_0000.h5 holds" in text
    assert "remove it, or give data.train another name" in text
    text = refusal(capsys, "catalog", "make", "--for", str(file), "grid.nu_GHz=[29.55, 28]")
    assert "holds halos at z = 2.9" in text and "28 GHz needs z =" in text


FEW = ("data.min_mass_Msun=3e12", "--number", "4", "1", "1")
"""Of which two halos are expected, so that many seeds have none."""


def test_splits_that_need_none(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As of a network that is evaluated alone."""
    assert make("my.yaml", "--number", "0", "2", "0") == 0
    assert sorted(path.name for path in Path("skies").iterdir()) == [
        "validation_1000.h5",
        "validation_1001.h5",
    ]
    assert "in all 2 files to make" in capsys.readouterr().out
    assert make("my.yaml", "--number", "0", "0", "3") == 0
    assert Path("skies/the_test.h5").exists() and len(list(Path("skies").iterdir())) == 3


def test_the_next_seed_takes_the_place_of_one_without_halos(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the split's own, the same on any number of ranks, and a second call keeps it."""
    assert make(str(file), *FEW, "--processes", "1") == 0
    told = capsys.readouterr().err
    assert "train_0004.h5, 1 halos, of seed 4 in place of seed 0, which has no halo" in told
    assert "the_test.h5, 1 halos, of seed 2001 in place of seed 2000, which has no halo" in told
    made = {path.name: path.read_bytes() for path in Path("skies").iterdir()}
    assert sorted(made) == [
        "the_test.h5", "train_0001.h5", "train_0002.h5", "train_0003.h5", "train_0004.h5",
        "validation_1002.h5",
    ]  # fmt: skip
    opened = {name: Lightcone.open(Path("skies") / name) for name in made}
    seeds = {name: json.loads(sky.provenance)["seed"] for name, sky in opened.items()}
    assert seeds.pop("the_test.h5") == 2001
    assert all(name.endswith(f"_{seed:04d}.h5") for name, seed in seeds.items())
    assert len({sky.realisation for sky in opened.values()}) == 6
    assert all(sky.realisation.split("-")[-2] in ("2001", str(seeds.get(name)))
               for name, sky in opened.items())  # fmt: skip
    Generator(load_config(file, FEW[:1]), "train").close()

    assert make(str(file), *FEW) == 0
    assert "nothing is to be made" in capsys.readouterr().out
    shutil.rmtree("skies")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        assert make(str(file), *FEW, "--processes", "1") == 0
    assert {path.name: path.read_bytes() for path in Path("skies").iterdir()} == made


def test_a_seed_never_takes_a_sky_or_name_of_another_split(file: Path) -> None:
    config = load_config(file, FEW[:1])
    numbers: dict[Any, int] = {"train": 4, "validation": 1, "test": 1}
    free = needed_skies(config, numbers)[0].recipe
    assert free.candidates(0)[:3] == [0, 4, 8] and free.candidates(3)[-1] == 999
    Path("skies").mkdir()
    options = {field.name: getattr(free.options, field.name) for field in fields(SkyOptions)}
    for seed, name in ((4, "the_test"), (1001, "x_0008")):
        synthesize(seed, **{**options, "min_mass_Msun": 1e12}).save(Path("skies") / f"{name}.h5")
    settings = changed(validation=["skies/*_0008.h5"], min_mass_Msun=3e12)
    recipe = needed_skies(from_mapping(settings), numbers)[0].recipe
    assert recipe.candidates(0)[:3] == [0, 12, 16]


def test_no_seed_of_a_split_has_a_halo(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(neededskies, "MOST", 10)
    text = refusal(capsys, "catalog", "make", "--for", str(file), "data.min_mass_Msun=5e13",
                   "--number", "4", "1", "1", "--processes", "1")  # fmt: skip
    assert "skies/train_0000.h5: 2 seeds before have no halo either, and seed 8 has no halo" in text
    assert "above 5e+13 Msun in 0.188 x 0.188 deg, z = 2.9..2.989 (about 0.0" in text
    assert text.endswith("lower the mass limit, or widen the field or the redshifts")
    text = refusal(capsys, "catalog", "make", "1", "--min-mass", "5e13", "--footprint-deg", "0.2",
                   "--z-range", "2.9", "3")  # fmt: skip
    assert "lightcones/sky_0000.h5: seed 0 has no halo above 5e+13 Msun in 0.2 x 0.2 deg" in text
    assert [path.name for path in Path().rglob("*") if path.is_file()] == ["my.yaml"]


def test_help_says_how_many_are_made(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["catalog", "make", "--help"])
    numbers = " ".join(str(NUMBERS[split]) for split in ("train", "validation", "test"))
    assert f"how many of each [{numbers}]" in " ".join(capsys.readouterr().out.split())


def test_other_peoples_lightcones_are_what_a_name_stands_for(file: Path) -> None:
    """They are kept, and none is made beside them unless somebody asks for a number."""
    Path("skies").mkdir()
    for name, seed in (("train_pinocchio", 1), ("train_peakpatch", 2)):
        small.lightcone(seed).save(Path("skies") / f"{name}.h5")
    config = load_config(file)
    needed = needed_skies(config)
    assert [path.name for path in needed[0].there] == ["train_peakpatch.h5", "train_pinocchio.h5"]
    assert [len(one.missing) for one in needed] == [0, 8, 1]
    assert len(needed_skies(config, {"train": 3, "validation": 1, "test": 1})[0].missing) == 3
    named = from_mapping(changed(train=["skies/*_p*.h5"]))  # of which no new name follows
    assert [len(one.missing) for one in needed_skies(named)] == [0, 8, 1]
    small.lightcone(2).save(Path("skies") / "the_test.h5")
    with pytest.raises(
        ValueError, match=r"'small-2' would be in two splits: data\.train .*the_test"
    ):
        needed_skies(config)


@pytest.mark.parametrize(
    ("roll", "fov", "footprint"),
    [
        ("any", [0.3, 0.4], (0.6, 0.6)),
        ("quarter", [0.3, 0.4], (0.401, 0.4)),
        ("none", [0.3, 0.4], (0.301, 0.4)),
        ("none", [4.0, 4.0], (4.003, 4.0)),
    ],
)
def test_the_footprint_is_that_of_the_roll(
    roll: str, fov: list[float], footprint: tuple[float, float]
) -> None:
    settings = {**changed(roll=roll), "grid": {**CONFIG["grid"], "fov_deg": fov}}
    options = needed_skies(from_mapping(settings))[0].recipe.options
    assert options.footprint_deg == footprint


def test_lines_that_share_lightcones_need_the_redshifts_of_both() -> None:
    line = {"model": "li16"}
    other = {"model": "breysse15", "nu_rest_GHz": 230.538}
    needed = needed_skies(from_mapping({**CONFIG, "emit": {"line": line, "interloper": other}}))
    assert len(needed) == 3
    assert needed[0].recipe.options.z_range == (2.9, 6.978)
    own = other | {"train": ["skies/train_*.h5"], "validation": ["b_*.h5"], "test": ["c_*.h5"]}
    needed = needed_skies(from_mapping({**CONFIG, "emit": {"line": line, "interloper": own}}))
    ranges = {one.where: one.recipe.options.z_range for one in needed}
    assert ranges["data.train"] == (2.9, 6.978)
    assert ranges["emit.interloper.test"] == (6.801, 6.978)
    assert "emit.interloper.train" not in ranges


def test_a_column_of_rates_is_made_where_it_is_read() -> None:
    for sfr, model, made in (
        ("column", "li16", True),
        ("column", "breysse15", False),
        ("auto", "li16", False),
    ):
        settings = changed(sfr=sfr) | {"emit": {"line": {"model": model}}}
        assert needed_skies(from_mapping(settings))[0].recipe.sfr is made


def test_training_lightcones_that_are_made_while_it_trains_are_no_files(file: Path) -> None:
    needed = needed_skies(from_mapping(changed(train={"synthesize": {}})))
    assert [one.where for one in needed] == ["data.validation", "data.test"]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"train": ["a?.h5"]}, "no name of a new file follows from 'a?.h5'"),
        ({"train": ["[ab]_*.h5"]}, "no name of a new file follows from '[ab]_*.h5'"),
        ({"train": ["*_train.h5"]}, "no name of a new file follows from '*_train.h5'"),
        ({"train": ["s*/a_*.h5"]}, "no name of a new file follows from 's*/a_*.h5'"),
        ({"validation": ["skies/train_*.h5"]}, "is named by"),
        ({"train": ["skies/"]}, "data.train: 'skies/' is no name of a lightcone file: name one"),
        ({"train": ["skies"]}, "ends in .h5, or a glob such as lightcones/train_*.h5"),
        ({"test": [""]}, "data.test: '' is no name of a lightcone file"),
        ({"train": ["a_*.hdf5"]}, "no name of a new file follows from 'a_*.hdf5'"),
        ({"train": [], "validation": [], "test": []}, "names no lightcone files: name some"),
    ],
)
def test_names_that_no_file_follows_from(data: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        needed_skies(from_mapping(changed(**data)))
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--for", "my.yaml", "16"], "'16' is no key=value setting: how many lightcones is --numb"),
        (["--for", "my.yaml", "--z-range", "1", "2"], "--z-range has no place beside --for"),
        (["--for", "my.yaml", "--prefix", "a"], "--prefix has no place beside --for"),
        (
            ["--for", "my.yaml", "--number", "1", "-1", "1"],
            "--number 1 -1 1: each must be at least 0",
        ),
        (
            ["--for", "my.yaml", "--number", "0", "0", "0"],
            "0 0 0: each must be at least 0, and one",
        ),
        (["--for", "my.yaml", "--number", "1001", "1", "1"], "more than the 1000 of a split"),
        (["--for", "my.yaml", "--footprint-deg", "0.1"], "needs 0.156 x 0.156 deg, but the footp"),
        (["--for", "nowhere.yaml"], "nowhere.yaml"),
        (
            ["--for", "my.yaml", "grid.nu_GHz=[9, 8]", "--plan"],
            "z_range 13.409 must lie in 0.1..12: CO(1-0) is there at 104.8 to 8.867 GHz, and the "
            "band is 9 to 8 GHz",
        ),
        (
            ["--for", "my.yaml", "grid.nu_GHz=[106, 100]", "--plan"],
            "z_range 0.087 must lie in 0.1..12: CO(1-0) is there at 104.8 to 8.867 GHz",
        ),
        (["a=b"], "needs the number of lightcones, not 'a=b'"),
        (["2", "3"], "needs the number of lightcones, not '2 3'"),
        ([], "needs the number of lightcones, not ''"),
        (["2", "--plan"], "--plan belongs to --for CONFIG"),
    ],
)
def test_command_lines_that_are_refused(
    file: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert sentence in refusal(capsys, "catalog", "make", *words)
    assert sorted(path.name for path in Path().iterdir()) == ["my.yaml"]
