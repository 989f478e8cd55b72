"""Lightcones that are made during training: functions of (seed, number), used for fixed indices."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.synthesis.fresh import ATTEMPTS, FreshSkies
from streamtrain.catalogs.synthesis.options import SkyOptions
from streamtrain.catalogs.synthesis.synthesize import EmptySkyError, synthesize
from streamtrain.config import Config, ConfigError, from_mapping, load_config
from streamtrain.cosmology import Cosmology
from streamtrain.generator.generator import Generator

BAND = {"fov_deg": [0.2, 0.2], "shape": [4, 6, 6], "nu_GHz": [33.9, 33.0]}
OPTIONS = {
    "footprint_deg": (0.339, 0.339),
    "z_range": (115.27 / 33.9 - 1.0, 115.27 / 33.0 - 1.0),
    "min_mass_Msun": 2e11,
}
REUSE = 5


def fresh(active: int = 2, **changes: Any) -> Config:
    data = {
        "train": {"synthesize": {"reuse": REUSE, **changes}},
        "active": active,
        "min_mass_Msun": 2e11,
    }
    return from_mapping({"seed": 11, "grid": BAND, "data": data})


def generator(*arguments: Any, **changes: Any) -> Generator:
    return Generator(fresh(*arguments, **changes))


def test_samples_are_those_of_lightcones_made_beforehand() -> None:
    """Number k is synthesize(seed of k); window w of 2 x 5 indices has numbers 2w and 2w + 1."""
    made = generator()
    for window in (0, 3):
        seeds = [made.skies.seed_of(number) for number in (2 * window, 2 * window + 1)]
        skies = [synthesize(seed, **OPTIONS) for seed in seeds]
        plain = from_mapping({"seed": 11, "grid": BAND, "data": {"min_mass_Msun": 2e11}})
        expected = Generator(plain, lightcones=skies)
        indices = range(10 * window, 10 * window + 10)
        batch = made.generate(indices)
        assert batch.digests() == expected.generate(indices).digests()
        assert len({record["lightcone"] for record in batch.draws}) == 2
    made.close()


def test_order_and_batches_change_nothing() -> None:
    first = generator()
    digests = first.generate(range(25)).digests()
    first.close()
    other = generator()
    assert other.generate([*range(24, -1, -1)]).digests() == digests[::-1]
    other.close()
    assert len(set(digests)) == 25


def test_every_number_of_every_run_is_another_sky() -> None:
    seeds = {
        Generator(from_mapping({**small(), "seed": seed})).skies.seed_of(number)
        for seed in (0, 1, 2**63)
        for number in (0, 1, 10**9)
    }
    assert len(seeds) == 9
    assert max(seeds) > 2**62


def test_a_seed_without_halos_is_followed_by_another() -> None:
    few = SkyOptions((0.2, 0.2), (2.9, 2.99), 5e12)
    skies = FreshSkies(7, few, threads=1)
    options = {field.name: getattr(few, field.name) for field in fields(SkyOptions)}
    attempts = []
    for number in range(4):
        sky = skies.load(number)
        (made,) = skies.take_made()
        assert len(sky) == made.halos >= 1
        tried = [skies.seed_of(number, attempt) for attempt in range(ATTEMPTS)]
        attempts.append(tried.index(made.seed))
        for seed in tried[: attempts[-1]]:
            with pytest.raises(EmptySkyError, match=f"seed {seed} has no halo above 5e.12 Msun"):
                synthesize(seed, **options)
    assert max(attempts) > 0
    none = FreshSkies(7, SkyOptions((0.06, 0.06), (2.9, 2.91), 1e14), threads=1)
    with pytest.raises(CatalogError, match="lightcone 3: 29 seeds before have no halo either"):
        none.load(3)


def small() -> dict[str, Any]:
    data = {"train": {"synthesize": {}}, "active": 1, "min_mass_Msun": 2e11}
    return {"grid": BAND, "data": data}


def test_what_is_made_is_written_down() -> None:
    made = generator()
    made.generate([0])
    made.generate([25])
    deadline = time.monotonic() + 120.0
    records: list[dict[str, Any]] = []
    while len(records) < 6 and time.monotonic() < deadline:
        records += [asdict(record) for record in made.skies.take_made()]
        time.sleep(0.02)
    made.close()
    by_number = {record["number"]: record for record in records}
    assert {0, 1, 4, 5} <= set(by_number)
    again = synthesize(by_number[4]["seed"], **OPTIONS)
    assert (again.digest, len(again)) == (by_number[4]["digest"], by_number[4]["halos"])
    assert again.cosmology == Cosmology().to_dict()


def test_the_next_ones_are_made_in_the_background() -> None:
    made, names = generator(), []
    made.skies.report = lambda done, what: names.append(threading.current_thread().name)
    made.generate([0])
    deadline = time.monotonic() + 120.0
    while len(made.skies._made) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert {record.number for record in made.skies._made} == {0, 1, 2, 3}
    assert set(names) == {"streamtrain-skies_0"}
    made.close()


def test_closing_gives_up_a_lightcone_in_the_making() -> None:
    made, reached = generator(), threading.Event()

    def hold(done: float, what: str) -> None:
        reached.set()
        time.sleep(0.2)

    made.skies.report = hold
    made.generate([0])
    assert reached.wait(20.0)
    start = time.monotonic()
    made.close()
    assert time.monotonic() - start < 2.0  # a whole one would take over twenty reports
    assert len(made.skies._made) < 4


def test_options_reach_the_lightcones() -> None:
    cosmology = {"Omega_m": 0.31, "sigma8": 0.8}
    made = generator(1, cosmology=cosmology, mass_function="watson13_fof", footprint_deg=0.4)
    [sky] = made.lightcones
    assert sky.cosmology == {**Cosmology().to_dict(), **cosmology}
    assert sky.footprint_deg == (-0.2, 0.2, -0.2, 0.2)
    assert "watson13_fof" in sky.provenance
    identity = made.identity()["lightcones"]
    assert identity["mass_function"] == "watson13_fof"
    assert identity != generator(1).identity()["lightcones"]
    made.close()


def test_describe_tells_of_fresh_lightcones() -> None:
    made = generator()
    assert "fresh lightcones, 2 of them in use for 10 samples" in made.describe()
    assert made.skies.expected_halos == pytest.approx(len(made.lightcones[0]), rel=0.3)


def test_a_sky_of_another_split_is_refused(tmp_path: Path) -> None:
    made = generator(1)
    made.lightcones[0].save(tmp_path / "validation.h5")
    config = fresh(1)
    data = {"validation": [str(tmp_path / "validation.h5")]}
    whole = {"seed": 11, "grid": BAND, "data": {**small()["data"], **data}}
    with pytest.raises(CatalogError, match=r"lightcone 0 .* of data.validation or data.test"):
        Generator(from_mapping(whole))
    Generator(from_mapping({**whole, "seed": 12})).close()
    assert config.data.fresh is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reuse": 0}, r"data.train.synthesize.reuse = 0 is outside"),
        ({"footprint": 2.0}, r"unknown setting 'data.train.synthesize.footprint'"),
        ({"mass_function": "press74"}, r"data.train.synthesize: unknown mass function 'press74'"),
        ({"cosmology": {"Omega_x": 1.0}}, r"data.train.synthesize: .*Omega_x"),
        ({"footprint_deg": 0.2}, r"needs 0.283 x 0.283 deg, but the footprint"),
        ({"z_range": (2.5, 2.6)}, r"holds halos at z = 2.500..2.600, but the band"),
        ({"min_mass_Msun": 1e12}, r"holds halos above 1e\+12 Msun only"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Generator(fresh(**changes))


def test_settings_for_files_do_not_pass_silently() -> None:
    with pytest.raises(ConfigError, match=r"data.active_samples = 100 is for lightcone files"):
        from_mapping({"data": {"train": {"synthesize": {}}, "active_samples": 100}})
    with pytest.raises(ConfigError, match=r"'data.train.synthesize' is missing"):
        from_mapping({"data": {"train": {}}})
    config = fresh()
    with pytest.raises(ConfigError, match=r"data.validation names no lightcone"):
        Generator(config, "validation")


def test_memory_is_asked_for_before(monkeypatch: pytest.MonkeyPatch) -> None:
    data = {**small()["data"], "active": 100_000, "memory_GB": 0.1}
    with pytest.raises(ConfigError, match=r"need .* GB, more than the 0.1 GB"):
        Generator(from_mapping({**small(), "data": data}))


def test_a_configuration_file_may_ask_for_fresh_lightcones(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(fresh().to_yaml())
    assert load_config(file) == fresh()
    changed = load_config(file, ["data.train.synthesize.reuse=7"])
    assert changed.data.fresh is not None
    assert changed.data.fresh.reuse == 7
    assert np.isclose(Generator(changed).schedule.samples, 14)


def test_progress_is_told_at_the_start_alone() -> None:
    told: list[tuple[float, str]] = []
    made = Generator(fresh(), report=lambda done, what: told.append((done, what)))
    assert {what.split(":")[0] for _, what in told} == {"lightcone 0", "lightcone 1"}
    number = len(told)
    made.generate([0, 10, 20])
    assert len(told) == number
    made.close()
