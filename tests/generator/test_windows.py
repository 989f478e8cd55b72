"""More lightcones than are in use at a time: turns are a function of the index."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from support import small

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import ConfigError
from streamtrain.generator.generator import Generator
from streamtrain.generator.scenes import bytes_in_use
from streamtrain.generator.windows import Schedule

SKIES = [small.lightcone(seed, 2000) for seed in range(1, 9)]
DATA = {"active": 2, "active_samples": 8}


def generator(**data: Any) -> Generator:
    config = small.config(data={**DATA, **data}, observe={"noise": {"sigma_uK": 1.0}})
    return Generator(config, lightcones=SKIES)


def test_every_lightcone_has_its_turn() -> None:
    schedule = Schedule(3, "train", 8, 2, 100)
    for round_ in range(20):
        seen = [n for w in range(4 * round_, 4 * round_ + 4) for n in schedule.lightcones(w)]
        assert sorted(seen) == list(range(8))
    orders = {schedule.lightcones(4 * r) + schedule.lightcones(4 * r + 1) for r in range(20)}
    assert len(orders) > 15
    assert Schedule(4, "train", 8, 2, 100).lightcones(0) != schedule.lightcones(0)


def test_windows_of_indices() -> None:
    schedule = Schedule(3, "train", 8, 2, 100)
    runs = list(schedule.runs([98, 99, 100, 250, 99]))
    assert runs == [(0, 0, 2), (1, 2, 3), (2, 3, 4), (0, 4, 5)]
    assert list(Schedule(3, "train", 2, 2, 100).runs([5, 10**12])) == [(0, 0, 2)]
    assert list(schedule.runs([])) == [(0, 0, 0)]


def test_bytes_do_not_depend_on_what_is_loaded() -> None:
    """In order, batched across windows, backwards, and one at a time from a fresh generator."""
    indices = list(range(48))
    made = generator()
    one_by_one = [made.generate([k]).digests()[0] for k in indices]
    assert generator().generate(indices).digests() == one_by_one
    assert generator().generate(indices[::-1]).digests() == one_by_one[::-1]
    for k in (0, 13, 40):
        assert generator().generate([k]).digests() == [one_by_one[k]]
    used = [record["lightcone"] for record in generator().generate(indices).draws]
    windows = [Counter(used[k : k + 8]) for k in range(0, 48, 8)]
    assert all(len(window) <= 2 for window in windows)
    assert len(set(used[:32])) > 5


def test_tells_which_lightcones_a_sample_may_come_from() -> None:
    made, met = generator(), set[str]()
    for index, record in enumerate(made.generate(range(64)).draws):
        in_use = made.skies_of(index)
        assert len(in_use.names) == 2 and record["lightcone"] in in_use.names
        met.update(in_use.names)
        assert in_use.seen == len(met) == min(2 * (index // 8 + 1), 8)
    assert generator(active=8).skies_of(10**12).seen == 8


def test_tells_which_lightcones_have_had_no_turn() -> None:
    made = generator()
    records = made.generate(range(24)).draws
    assert {record["lightcone"] for record in records} <= {*made.skies_until(20)}
    assert len(made.skies_until(20)) == 6 and len(made.skies_until(10**4)) == 8
    assert made.skies_of(19).waiting("the 20 samples").startswith("the 20 samples are of 6 of 8 ")
    assert made.skies_of(24).waiting("") == generator(active=0).skies_of(0).waiting("") == ""


def test_all_at_once_is_as_without_turns() -> None:
    """Room for all: the samples of a configuration that does not mention turns."""
    plain = Generator(small.config(observe={"noise": {"sigma_uK": 1.0}}), lightcones=SKIES)
    assert generator(active=8).generate(range(6)).digests() == plain.generate(range(6)).digests()
    assert "2 of them in use for 8 samples each" in generator().describe()
    assert "in use" not in plain.describe()


def test_labels_follow_the_lightcone_in_use() -> None:
    """phi has the volume of the sample's own cosmology, whichever window it is in."""
    cosmology = SKIES[0].cosmology
    skies = [
        small.lightcone(k, 2000, cosmology={**cosmology, "Omega_m": 0.282 + 0.002 * k})
        for k in range(1, 5)
    ]
    config = small.config(data=DATA, label={"quantity": "phi", "scale": "linear", "bins": 5})
    batch = Generator(config, lightcones=skies).generate(range(32))
    for k in range(32):
        (sky,) = (s for s in skies if s.name == batch.draws[k]["lightcone"])
        volume = Generator(config, lightcones=skies).grid.volume_Mpc3(
            sky.cosmology["Omega_m"], sky.cosmology["h"]
        )
        widths = np.diff(10 ** np.linspace(3.5, 7, 6))
        expected = batch.counts[k].double().numpy() / (volume * widths)
        np.testing.assert_allclose(batch.label[k], expected, rtol=1e-5)


@small.EXTRAPOLATES
@pytest.mark.parametrize(("active", "used"), [(0, 4), (1, 4), (2, 4)])
def test_interlopers_own_lightcones_all_have_a_turn(
    files: list[Path], active: int, used: int
) -> None:
    """Four of an interloper beside two of the line; without turns all four at once."""
    interloper = {
        "model": "breysse15",
        "nu_rest_GHz": 115.5,
        "train": [str(path) for path in files],
    }
    emit = {"line": {"model": "li16"}, "interloper": interloper}
    config = small.config(data={"active": active, "active_samples": 8}, emit=emit)
    made = Generator(config, lightcones=SKIES[4:6])
    records = made.generate(range(64)).draws
    assert len({record["interloper"]["lightcone"] for record in records}) == used
    assert len({record["lightcone"] for record in records}) == 2
    made.close()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = []
    for number, sky in enumerate(SKIES[:4]):
        paths.append(tmp_path / f"sky_{number}.h5")
        sky.save(paths[-1])
    return paths


def from_files(paths: list[Path], **data: Any) -> Generator:
    names = [str(path) for path in paths]
    return Generator(small.config(data={**DATA, "active": 1, **data, "train": names}))


def test_a_lightcone_that_vanishes_or_changes(files: list[Path]) -> None:
    """One sentence when its turn comes, not before."""
    made = from_files(files)
    turns = [made.schedule.lightcones(w)[0] for w in range(4)]
    made.generate(range(8))
    files[turns[2]].unlink()
    SKIES[5].save(files[turns[3]])
    made.generate(range(8, 16))
    with pytest.raises(CatalogError, match=r"was there when the run began, now it is not"):
        made.generate(range(16, 24))
    with pytest.raises(CatalogError, match=r"is not the one it was when the run began"):
        made.generate(range(24, 32))
    made.close()


def test_lightcones_are_let_go(files: list[Path]) -> None:
    """Of four lightcones at most two are in memory after their turns."""
    made = from_files(files)
    for k in range(32):
        made.generate([k])
    made.close()
    assert len(made.skies._alive) <= 2


def test_too_many_for_the_memory(files: list[Path]) -> None:
    with pytest.raises(ConfigError, match=r"more than the 0.0001 GB .* set data.active, as in"):
        from_files(files, active=0, memory_GB=1e-4)
    with pytest.raises(ConfigError, match=r"set data.active below 2 to use fewer"):
        from_files(files, active=2, memory_GB=1e-4)
    from_files(files, active=1, memory_GB=1e-3).close()


OTHER = {"model": "breysse15", "nu_rest_GHz": 117.0}
WIDTH = {"line_width": {"factor": 1.0}}
TWICE = {"one": {"model": "li16"}, "other": {"model": "li16", "prior": "narrow"}}


def held_bytes(made: Generator) -> int:
    """Of all arrays with a number per halo that the scene in use holds, each once."""
    scene = made.scenes.latest
    lines = [scene.line, *scene.interlopers.values()]
    tensors = [t for line in lines for t in line.painter.halos.arrays]
    tensors += [c.columns for line in lines for c in line.painter.compiled_models]
    memory = {t.data_ptr(): t.nbytes for t in tensors}
    for c in {id(c): c for line in lines for c in line.lightcones}.values():
        rows = [c.x_Mpc, c.y_Mpc, c.z_Mpc, c.mass_Msun, c.z_obs, *c.columns.values()]
        rows += [c.tile_offsets] if c.velocities_kms is None else [c.tile_offsets, c.velocities_kms]
        memory |= {a.ctypes.data: a.nbytes for a in rows}
    return sum(memory.values())


@small.EXTRAPOLATES
@pytest.mark.parametrize(
    ("emit", "banks"),
    [
        ({}, 1),
        (WIDTH, 1),
        ({"interloper": OTHER}, 1),
        ({"interloper": {**OTHER, "own": 1}}, 2),
        ({"interloper": {**OTHER, "own": 1}, "interloper_2": {**OTHER, "own": 1}}, 2),
        ({"interloper": {**OTHER, "own": 0}, "interloper_2": OTHER, **WIDTH}, 1),
        ({"line": {"mixture": TWICE}}, 1),
    ],
)
def test_the_memory_that_is_counted_is_that_which_is_held(
    emit: dict[str, Any], banks: int, tmp_path: Path
) -> None:
    """Lines of the same lightcones hold their positions, masses and redshifts once, and a model's
    columns are there once, with however many priors it is mixed."""
    names = [str(tmp_path / f"{name}.h5") for name in "abcd"]
    SKIES[0].save(names[0])
    with_more = small.lightcone(2, 3000, columns={"sfr": np.ones(3000)})
    with_more.save(names[1])
    for name, sky in zip(names[2:], SKIES[6:], strict=True):
        sky.save(name)
    sections = {"line": {"model": "li16"}}
    for name, section in emit.items():
        section = dict(section)
        if (own := section.pop("own", None)) is not None:
            section |= {"train": [names[own]], "validation": [names[2]], "test": [names[3]]}
        sections[name] = section
    made = Generator(small.config(emit=sections, data={"train": [names[0]]}))
    lines = made._builder.lines
    assert bytes_in_use(lines, torch.device("cpu")) == held_bytes(made)
    scene = made.scenes.latest
    used = {id(line.bank): line.bank for line in (scene.line, *scene.interlopers.values())}
    assert len(used) == banks
    rows = sum(c.header.nbytes for bank in used.values() for c in bank.lightcones)
    assert bytes_in_use(lines, torch.device("cuda")) == held_bytes(made) - rows
    made.close()


def test_a_lightcone_file_is_opened_once_before_its_turn(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for all that is asked of its header, of all splits, and once for its halos."""
    times = Counter[str]()

    class Opened(h5py.File):
        def __init__(self, name: Path, *more: Any, **how: Any) -> None:
            times[Path(name).name] += 1
            super().__init__(name, *more, **how)

    monkeypatch.setattr(h5py, "File", Opened)
    names = [str(path) for path in files]
    data = {**DATA, "active": 1, "train": names[:3], "validation": [names[3]]}
    made = [Generator(small.config(data=data), split) for split in ("train", "validation")]
    first = made[0].schedule.lightcones(0)[0]
    assert times == {f"sky_{k}.h5": 2 if k in (first, 3) else 1 for k in range(4)}
    for one in made:
        one.close()


def test_identity_holds_every_lightcone(small_sky: Lightcone) -> None:
    assert generator().identity()["lightcones"] == [sky.digest for sky in SKIES]
