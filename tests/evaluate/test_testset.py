"""Manifests: made, read, compared, tampered with."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import ConfigError, from_mapping, load_config
from streamtrain.cosmology import Cosmology
from streamtrain.evaluate import testset
from streamtrain.generator.generator import Generator
from streamtrain.generator.windows import SkiesInUse
from streamtrain.machine import files
from streamtrain.machine.workers import Resources
from streamtrain.schema import AssumptionWarning, to_dict


def tamper(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change(config, **sections):
    """The configuration with other sections."""
    return from_mapping(to_dict(config) | sections)


def test_manifest_says_how_to_make_the_samples(config):
    path = testset.make(config)
    assert path == Path(config.run) / "testset.json"
    manifest = testset.load(path)
    assert (manifest.seed, manifest.count, manifest.generator_version) == (5, 40, 3)
    assert [cone["name"] for cone in manifest.lightcones] == ["north.h5", "south.h5"]
    assert manifest.lightcones[0]["realisation"] == "north"
    assert len(set(manifest.samples)) == 40
    assert testset.recipe(manifest).sample_settings() == config.sample_settings()
    assert sorted(p.name for p in path.parent.iterdir()) == ["testset.json"]


def test_a_manifest_is_no_configuration(config):
    """Which the command would take it for, and miss settings in it."""
    path = testset.make(config)
    with pytest.raises(
        ConfigError, match=r"testset\.json is the manifest of a test set, not a con"
    ):
        load_config(path)


def test_verify_gets_the_same_bytes(config):
    report = testset.verify(testset.make(config))
    assert report.ok and report.samples_compared == 40


def test_lightcones_without_a_turn_are_said(config, monkeypatch):
    monkeypatch.setattr(testset.Generator, "skies_of", lambda *_: SkiesInUse(["north.h5"], 1, 2))
    with pytest.warns(AssumptionWarning, match="the 40 samples of the test set are of 1 of 2 ligh"):
        testset.make(config)


def test_a_manifest_from_before_a_setting_existed(config):
    """Without data.sfr it is that of the default; another choice would make other samples."""
    path = testset.make(config)
    recorded = json.loads(path.read_text())["config"]
    assert recorded["data"].pop("sfr") == "auto"
    tamper(path, config=recorded)
    assert testset.verify(path, config).ok
    data = to_dict(config)["data"] | {"sfr": "fit"}
    with pytest.raises(ValueError, match=r"data\.sfr = \"auto\" there, \"fit\" here"):
        testset.recipe(testset.load(path), change(config, data=data))


def test_seed_of_the_test_set(config, tmp_path):
    seeded = change(config, test={"samples": 4, "seed": 77})
    own = testset.load(testset.make(seeded, tmp_path / "own.json"))
    assert own.seed == 77
    run = change(config, seed=77, test={"samples": 4})
    run = testset.load(testset.make(run, tmp_path / "run.json"))
    assert run.samples == own.samples
    assert run.samples != testset.load(testset.make(config)).samples[:4]


def test_a_manifest_is_never_overwritten(config, tmp_path, monkeypatch):
    path = testset.make(config)
    before = path.read_bytes()
    with monkeypatch.context() as patch:  # the same one is not made again
        patch.setattr(testset, "made", None)
        assert testset.make(config) == path
        assert testset.make(change(config, train={"threads": 2})) == path
    for sections, said in (
        ({"test": {"samples": 41}}, r"test.samples = 40 there, 41 here; --out"),
        ({"observe": {"log_modulus": {}}}, "observe.noise = .* there, absent here; --out"),
        ({"data": {"test": [str(tmp_path / "north.h5")]}}, "another test set.*south.h5.* --out"),
    ):
        with pytest.raises(ValueError, match=said):
            testset.make(change(config, **sections))
    other = testset.make(change(config, test={"samples": 41}), tmp_path / "other.json")
    assert testset.load(other).count == 41
    path.write_text("mine")
    with pytest.raises(ValueError, match="is not a test-set manifest"):
        testset.make(config)
    path.write_bytes(before)
    assert testset.verify(path, config).ok


def test_lightcones_that_moved_are_found_through_the_config(config, tmp_path):
    path = testset.make(config)
    (tmp_path / "moved").mkdir()
    moved = []
    for name in ("north.h5", "south.h5"):
        moved.append(str((tmp_path / name).rename(tmp_path / "moved" / name)))
    report = testset.verify(path)
    assert not report.ok and len(report.problems) == 1
    assert "north.h5, south.h5" in report.problems[0] and "no lightcone" in report.problems[0]
    here = replace(config, data=replace(config.data, test=moved))
    assert testset.verify(path, here).ok


def test_a_changed_lightcone_is_named(config, tmp_path):
    path = testset.make(config)
    (tmp_path / "south.h5").write_text("other halos")
    report = testset.verify(path)
    assert report.samples_compared == 0
    assert len(report.problems) == 1
    assert report.problems[0].startswith("Lightcone south.h5 differs: its sha256 begins ")


def test_a_missing_and_a_surplus_lightcone_are_named(config, tmp_path):
    path = testset.make(config)
    data = replace(config.data, test=[str(tmp_path / "north.h5"), str(tmp_path / "train.h5")])
    assert testset.verify(path, replace(config, data=data)).problems == [
        "Lightcone south.h5 of the manifest is missing here.",
        "Lightcone train.h5 is not in the manifest.",
    ]


def test_another_order_of_the_lightcones_is_noticed(config):
    path = testset.make(config)
    data = replace(config.data, test=config.data.test[::-1])
    problems = testset.verify(path, replace(config, data=data)).problems
    assert problems == ["The lightcones are not in the manifest's order: north.h5, south.h5."]


def test_another_generator_version_is_told_and_the_samples_still_compared(config):
    path = testset.make(config)
    tamper(path, generator_version=2)
    report = testset.verify(path)
    assert report.problems == ["The manifest was made by generator version 2, this is version 3."]
    assert report.samples_compared == 40


def test_the_first_differing_sample_is_named(config):
    path = testset.make(config)
    samples = testset.load(path).samples
    samples[17] = samples[33] = "0" * 64
    tamper(path, samples=samples)
    assert testset.verify(path).problems == [
        "Sample 17 is the first whose bytes differ, 2 of 40 differ in all."
    ]


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"observe": {"noise": {"sigma_uK": 3.0}, "log_modulus": {}}},
            r"observe.noise.sigma_uK = 2.0 there, 3.0 here",
        ),
        (
            {"observe": {"log_modulus": {}, "noise": {"sigma_uK": 2.0}}},
            r'the order of observe = \["noise", "log_modulus"\] there, '
            r'\["log_modulus", "noise"\] here',
        ),
        ({"test": {"samples": 41}}, r"test.samples = 40 there, 41 here"),
        ({"test": {"samples": 40, "seed": 6}}, r"test.seed = 5 there, 6 here"),
        (
            {"observe": {"noise": {"sigma_uK": 2.0}}},
            r"observe.log_modulus = \{\} there, absent here",
        ),
    ],
)
def test_a_config_of_other_samples_is_refused(config, sections, said):
    manifest = testset.load(testset.make(config))
    other = change(config, **sections)
    with pytest.raises(ValueError, match=said):
        testset.recipe(manifest, other)
    assert not testset.verify(testset.default_path(config), other).ok


def test_network_and_training_do_not_matter(config):
    path = testset.make(config)
    other = change(config, network={"layers": 1}, train={"steps": 7, "warmup_steps": 0})
    assert testset.verify(path, other).ok


def test_a_mask_is_found_from_another_folder(config, tmp_path):
    at_home = change(config, observe={"mask": {"file": "mask.npz"}})
    manifest = testset.load(testset.make(at_home))
    away = change(config, observe={"mask": {"file": f"{tmp_path}/mask.npz"}})
    assert testset.recipe(manifest, away).observe["mask"].file == f"{tmp_path}/mask.npz"
    other = change(config, observe={"mask": {"file": "mask.npz", "edge_pixels": 1}})
    with pytest.raises(ValueError, match=r"observe.mask.edge_pixels = 0 there, 1 here"):
        testset.recipe(manifest, other)


def test_a_model_file_is_found_from_another_folder(config, tmp_path):
    at_home = change(config, emit={"line": {"model": "lines.py:ok"}})
    manifest = testset.load(testset.make(at_home))
    away = change(config, emit={"line": {"model": f"{tmp_path}/lines.py:ok"}})
    assert testset.recipe(manifest, away).line.model == f"{tmp_path}/lines.py:ok"
    several = {"one": {"model": "lines.py:ok"}, "two": {"model": "li16"}}
    mixture = change(config, emit={"line": {"mixture": several}})
    mixed = testset.load(testset.make(mixture, tmp_path / "mixed.json"))
    several["one"] = {"model": f"{tmp_path}/lines.py:ok"}
    testset.recipe(mixed, change(config, emit={"line": {"mixture": several}}))
    other = change(config, emit={"line": {"model": f"{tmp_path}/lines.py:other"}})
    with pytest.raises(ValueError, match=r'model = "lines.py:ok" there, "lines.py:other" here'):
        testset.recipe(manifest, other)


@pytest.mark.parametrize(
    ("change_text", "said"),
    [
        (lambda text: text[: len(text) // 2], "cut short: no valid JSON at line"),
        (lambda text: "", "no valid JSON at line 1"),
        (lambda text: "[1, 2]", "holds no mapping"),
        (lambda text: text.replace('"samples": [', '"sample": [', 1), "'samples' is missing"),
        (lambda text: text.replace('"count": 40', '"count": 39', 1), "'count' is 39, but 40"),
        (lambda text: text.replace('"count": 40', '"count": "many"', 1), "must be a whole number"),
        (lambda text: text.replace('"digest"', '"sha"', 1), r"lightcones\[0\] must have a name"),
        (lambda text: text.replace('"sigma_uK"', '"sigma"', 1), "configuration cannot be used"),
    ],
)
def test_bad_manifests_get_one_sentence(config, change_text, said):
    path = testset.make(config)
    changed = change_text(path.read_text().replace('"samples": 40', '"samples":40', 1))
    path.write_text(changed)
    with pytest.raises(ValueError, match=said) as caught:
        testset.recipe(testset.load(path))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_manifest(tmp_path):
    with pytest.raises(ValueError, match=r"no test-set manifest .*none.json"):
        testset.load(tmp_path / "none.json")
    with pytest.raises(ValueError, match="cannot be read"):
        testset.load(tmp_path)
    (tmp_path / "cube.npy").write_bytes(b"\x93NUMPY\xff\xfe")
    with pytest.raises(ValueError, match="not a text file"):
        testset.load(tmp_path / "cube.npy")


def test_an_interrupted_make_leaves_nothing(config, monkeypatch):
    def interrupt(self, indices):
        raise KeyboardInterrupt

    monkeypatch.setattr(testset.Generator, "generate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        testset.make(config)
    assert not Path(config.run).exists() or not list(Path(config.run).iterdir())


def test_a_failed_write_keeps_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "testset.json"
    files.write_text(path, "before")

    def fail(descriptor):
        raise OSError("the disk is full")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="full"):
        files.write_text(path, "after")
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["testset.json"]


def test_samples_come_in_order_whatever_the_batch(config):
    path = testset.make(config)
    manifest = testset.load(path)
    generator = testset.open_generator(testset.recipe(manifest))
    seen = []
    for indices, batch in testset.batches(generator, manifest.count, size=7):
        assert testset.differing_samples(manifest, indices, batch) == []
        seen += indices
    assert seen == list(range(40))


def save_sky(path: Path, seed: int) -> str:
    """A lightcone file of 5000 halos at random places."""
    rng = np.random.default_rng(seed)
    ra, dec = np.radians(rng.uniform(-0.3, 0.3, (2, 5000)))
    redshift = rng.uniform(2.38, 3.45, 5000)
    distance = Cosmology().comoving_distance(redshift)
    Lightcone.from_arrays(
        -distance * np.cos(dec) * np.sin(ra),
        distance * np.sin(dec),
        distance * np.cos(dec) * np.cos(ra),
        10 ** rng.uniform(11.0, 13.0, 5000),
        redshift,
        cosmology=Cosmology().to_dict(),
        footprint_deg=(-0.3, 0.3, -0.3, 0.3),
        z_range=(2.38, 3.45),
        min_mass_Msun=1e11,
    ).save(path)
    return str(path)


def test_real_maps_come_out_the_same(tmp_path):
    # the one test here with the real generator
    config = from_mapping(
        {
            "run": str(tmp_path / "run"),
            "grid": {"fov_deg": [0.4, 0.4], "shape": [4, 8, 8]},
            "data": {"test": [save_sky(tmp_path / "sky.h5", 1)], "min_mass_Msun": 1e11},
            "observe": {"noise": {"sigma_uK": 1.0}},
            "test": {"samples": 20, "seed": 9},
        }
    )
    path = testset.make(config)
    report = testset.verify(path, resources=Resources(threads=2))
    assert report.ok and report.samples_compared == 20
    direct = Generator(config, split="test").generate([19, 3])
    samples = testset.load(path).samples
    assert direct.digests() == [samples[19], samples[3]]
    assert (direct.counts.sum(dim=1) > 0).all()
    save_sky(tmp_path / "sky.h5", 2)
    assert "Lightcone sky.h5 differs" in testset.verify(path).problems[0]
    (tmp_path / "sky.h5").unlink()
    (problem,) = testset.verify(path).problems
    assert "sky.h5" in problem and "no file matches" in problem
