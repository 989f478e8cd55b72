"""Skies are told by their halos: what a file or a realisation is called does not matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from streamtrain.catalogs.headers import SAME_SKY, CatalogError, Header, marks_of, num_shared
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.skies import LightconeFiles, check_disjoint, check_once
from streamtrain.cosmology import Cosmology


def sky(seed: int, number: int = 3000, name: str | None = None) -> Lightcone:
    """Random halos over 1.2 deg, z = 2.4..3.4."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(2.4, 3.4, number)
    chi, x, y = Cosmology().comoving_distance(z), *rng.uniform(-0.6, 0.6, (2, number))
    towards = np.stack([-np.radians(x), np.radians(y), np.ones(number)])
    place = chi * towards / np.sqrt(np.sum(towards**2, axis=0))
    mass = 5e10 * (1.0 + rng.pareto(0.9, number)).clip(max=3e4)
    cosmology = Cosmology().to_dict()
    return Lightcone.from_arrays(
        *place, mass, z, cosmology=cosmology, realisation=name or f"s{seed}"
    )


def part(whole: Lightcone, kept: np.ndarray, name: str = "another") -> Lightcone:
    """Some halos, mirrored and rolled by a quarter turn."""
    c = whole
    arrays = (a[kept] for a in (-c.y_Mpc, c.x_Mpc, c.z_Mpc, c.mass_Msun, c.z_obs))
    return Lightcone.from_arrays(*arrays, cosmology=c.cosmology, realisation=name)


def saved(folder: Path, name: str, lightcone: Lightcone, sealed: bool = True) -> Path:
    path = folder / name
    lightcone.save(path)
    if not sealed:
        with h5py.File(path, "r+") as file:
            del file.attrs["seal"], file["marks"]
    return path


CUTS: dict[str, Callable[[Lightcone], Lightcone]] = {
    "renamed": lambda c: replace(c, realisation="another"),
    "a copy": lambda c: c,
    "rolled": lambda c: part(c, np.ones(len(c), bool)),
    "a corner of it": lambda c: part(c, c.y_Mpc > 40.0),
    "far halos": lambda c: part(c, c.z_obs > 3.2),
    "heavy halos": lambda c: part(c, c.mass_Msun > 1e12),
}


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("cut", CUTS)
def test_one_sky_in_two_splits(tmp_path: Path, cut: str, sealed: bool) -> None:
    whole = sky(1)
    one = saved(tmp_path, "one.h5", whole, sealed)
    other = saved(tmp_path, "other.h5", CUTS[cut](whole), not sealed)
    third = saved(tmp_path, "third.h5", sky(2))
    with pytest.raises(CatalogError, match="in two splits") as caught:
        check_disjoint({"train": [third, one], "validation": [], "test": [other]})
    assert str(one) in str(caught.value) and str(other) in str(caught.value)
    assert str(third) not in str(caught.value)
    check_disjoint({"train": [one, other], "test": [third]})  # two cuts in one split are no leak


def test_other_skies_are_other_skies() -> None:
    """Of 20 skies no two share as many of their heaviest halos as two cuts of one sky may."""
    marks = [marks_of(c.mass_Msun, c.z_obs) for c in (sky(seed, 20_000) for seed in range(20))]
    shared = [num_shared(a, b) for k, a in enumerate(marks) for b in marks[:k]]
    assert max(shared) < SAME_SKY


def test_marks_are_of_the_heaviest_in_any_order() -> None:
    rng = np.random.default_rng(0)
    mass = np.repeat(np.float32(1e12) * (1 + rng.permutation(2500)), 4).astype(np.float32)
    z = rng.uniform(2, 3, 10_000).astype(np.float32)
    order = rng.permutation(10_000)
    marks = marks_of(mass, z)
    np.testing.assert_array_equal(marks, marks_of(mass[order], z[order]))
    least = np.sort(mass)[-4096]
    assert (marks >> np.uint64(32)).astype(np.uint32).view(np.float32).min() == least


@pytest.mark.parametrize("how", ["link", "hard link", "copy", "another path", "renamed copy"])
def test_a_lightcone_counts_once(tmp_path: Path, how: str) -> None:
    one = saved(tmp_path, "one.h5", sky(1))
    two = tmp_path / "two.h5"
    if how == "link":
        two.symlink_to(one)
    elif how == "hard link":
        two.hardlink_to(one)
    elif how == "copy":
        two.write_bytes(one.read_bytes())
    elif how == "another path":
        two = tmp_path / ".." / tmp_path.name / "one.h5"
    else:
        replace(sky(1), realisation="another").save(two)
    with pytest.raises(CatalogError, match=r"data.train has one lightcone twice, .* name it once"):
        check_once({"data.train": [one, two], "data.test": []})
    check_once({"data.train": [one], "data.test": [two]})  # that is for check_disjoint


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.h5", sky(1))
    before = Header.read(path)
    sky(2).save(path)
    assert Header.read(path).digest != before.digest


@pytest.mark.parametrize("sealed", [True, False])
def test_what_a_file_says_is_that_of_its_halos(tmp_path: Path, sealed: bool) -> None:
    """The marks in a file are those that an old file without them is given."""
    path = saved(tmp_path, "a.h5", sky(3), sealed)
    found, made = Header.read(path), sky(3).header
    np.testing.assert_array_equal(found.marks, made.marks)
    assert (found.sealed, found.nbytes, found.num_halos) == (sealed, made.nbytes, len(sky(3)))


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """By as many of their folders as it takes; their names are what samples are told apart by."""
    places = ["a/x/sky.h5", "b/x/sky.h5", "b/y/sky.h5", "b/other.h5"]
    paths = []
    for seed, place in enumerate(places):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        paths.append(saved(tmp_path, place, sky(seed)))
    for sources in (paths, [Lightcone.open(path) for path in paths]):
        skies = LightconeFiles(sources)
        names = ["a/x/sky.h5", "b/x/sky.h5", "b/y/sky.h5", "other.h5"]
        assert [skies.name(number) for number in range(4)] == names
        assert [skies.load(number).name for number in range(4)] == names
        assert skies.realisations == dict(zip(names, ("s0", "s1", "s2", "s3"), strict=True))
        assert [skies.digest_of(name) for name in names] == skies.identity()
    assert [Header.read(path).name for path in paths] == ["sky.h5"] * 3 + ["other.h5"]
