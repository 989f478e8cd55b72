"""Maps in the layouts of COMAP's pipeline: every number of the file, where it was observed."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from support.map_runs import Survey, write_comap, write_edges, write_hdf5

from streamtrain.maps.read import read_map
from streamtrain.maps.skymap import UNKNOWN_MODES, MapError, SkyMap

UP = ((26, 28), (28, 30), (30, 32), (32, 34))
BANDS = {
    "up": UP,
    "down": tuple((high, low) for low, high in reversed(UP)),
    "each down": tuple((high, low) for low, high in UP),
    "lower sidebands down": ((28, 26), (28, 30), (32, 30), (32, 34)),
    "one": ((26, 34),),
}


def same(found: NDArray[Any] | None, expected: NDArray[Any]) -> bool:
    """Whether all bits are the same, of NaN too."""
    return found is not None and np.array_equal(found, expected, equal_nan=True)


def check(found: SkyMap, survey: Survey) -> None:
    assert same(found.cube, survey.cube)
    assert same(found.sigma, survey.sigma) and same(found.hits, survey.hits)
    assert found.hits is not None and found.hits.dtype == np.int32
    assert found.nu_GHz == pytest.approx((34.0, 26.0), rel=1e-12)
    assert found.freq.even and found.shape == survey.cube.shape
    assert found.ra.edges == pytest.approx(np.linspace(-0.1, 0.1, 7), abs=1e-12)
    assert found.dec.edges == pytest.approx(np.linspace(-1, 1, 6) * 5 / 60, abs=1e-12)
    assert found.centre_deg == pytest.approx((170.0, 52.3))
    assert found.locate is not None
    east = found.locate(170.0 + 0.05 / np.cos(np.radians(52.3)), 52.25)
    assert east == pytest.approx((0.05, -0.05), abs=1e-9)
    assert (found.units, found.nu_rest_GHz, found.filtered) == ("K", None, True)


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8"])
def test_every_number_comes_back(tmp_path: Path, band: str, dtype: str) -> None:
    for number, (ra_falls, dec_falls) in enumerate(itertools.product((True, False), repeat=2)):
        num_channels = 12 if band == "one" else 3
        survey = Survey(BANDS[band], ra_falls, dec_falls, dtype, num_channels)
        found = read_map(survey.write(tmp_path / f"{number}.h5"))
        check(found, survey)
        assert found.axes == ("sideband", "channel", "dec", "ra")
        assert (found.ra.flipped, found.dec.flipped) == (ra_falls, dec_falls)
        assert ("were put in the order" in " ".join(found.notes)) == ("down" in band[1:])
        assert found.pca_modes == 0


def test_what_was_taken_and_not_observed_is_said(tmp_path: Path) -> None:
    survey = Survey()
    unseen = int((survey.hits == 0).sum())
    assert read_map(survey.write(tmp_path / "a.h5")).notes == (
        "its channels run from low to high frequency and were reversed",
        "it does not say its units, and was taken to be in K as the pipeline's maps are",
        f"{unseen} of its voxels have no hits or no sigma, and so no value",
    )


def test_ra_may_pass_0(tmp_path: Path) -> None:
    survey = Survey()
    ra = (survey.sides()[1] - 170.0) % 360.0
    moved = {"ra_centers": ((survey.sides()[1][1:] + survey.sides()[1][:-1]) / 2 - 170.0) % 360.0}
    found = read_map(survey.write(tmp_path / "a.h5", ra_edges=ra, **moved))
    assert same(found.cube, survey.cube)
    assert found.ra.edges == pytest.approx(np.linspace(-0.1, 0.1, 7), abs=1e-9)
    assert found.centre_deg == pytest.approx((0.0, 52.3), abs=1e-9)


@pytest.mark.parametrize(
    ("subtracted", "number", "modes"),
    [
        (True, 5, 5),
        (np.bool_(True), np.int64(5), 5),
        (1, [5], 5),
        (np.array([True]), np.array([5.0]), 5),
        (np.array([1], np.uint8), 0, 0),
        ("True", "5", 5),
        (np.bytes_("true"), 7, 7),
        (False, 5, 0),
        (0, None, 0),
        (True, None, UNKNOWN_MODES),
        (True, h5py.Empty("i8"), UNKNOWN_MODES),
        (None, None, None),
        (None, 5, None),
        (h5py.Empty("?"), 5, None),
    ],
)
def test_pca_modes(tmp_path: Path, subtracted: Any, number: Any, modes: int | None) -> None:
    path = Survey().write(tmp_path / "a.h5", is_pca_subtr=subtracted, n_pca=number)
    found = read_map(path)
    assert found.pca_modes == modes and found.filtered
    unknown = modes == UNKNOWN_MODES
    assert ("it does not say how many (n_pca)" in " ".join(found.notes)) == unknown


def test_what_else_was_done_is_said(tmp_path: Path) -> None:
    told = {"is_highpassed": True, "mpca_highpass_Nmodes": 3, "is_pca_recon": True, "is_sim": True}
    notes = " ".join(read_map(Survey().write(tmp_path / "a.h5", **told)).notes)
    assert "3 modes of a high-pass on the sky were subtracted" in notes
    assert "it holds the modes that PCA finds" in notes and "it is of a simulation" in notes
    found = read_map(Survey().write(tmp_path / "b.h5", is_simcube=1))
    assert not found.filtered and "without filters (is_simcube)" in " ".join(found.notes)


def test_units_and_line(tmp_path: Path) -> None:
    """K by the pipeline's definition, unless the file or its user says something else."""
    survey = Survey()
    path = survey.write(tmp_path / "a.h5")
    found = read_map(path, units="uK", nu_rest_GHz=115.27)
    assert (found.units, found.nu_rest_GHz) == ("uK", 115.27)
    assert "units" not in " ".join(found.notes)
    assert same(found.cube, survey.cube) and same(found.sigma, survey.sigma)
    with h5py.File(path, "a") as file:
        file["map_coadd"].attrs["units"] = "mK"
        file.attrs["nu_rest_GHz"] = 115.27
    found = read_map(path)
    assert (found.units, found.nu_rest_GHz) == ("mK", 115.27)
    assert "taken to be in K" not in " ".join(found.notes)


def test_not_observed(tmp_path: Path) -> None:
    """No hits, or a sigma that is no positive number, is no value; 0 alone says nothing."""
    survey = Survey()
    survey.cube[np.isnan(survey.cube)] = 0.0
    sigma = survey.sigma.copy()
    sigma[survey.hits == 0] = 0.0
    sigma[3, 1, :4] = (np.inf, -1e-5, np.nan, 1e30)
    lost = (survey.hits == 0) | ~((sigma > 0) & (sigma < 1e20))
    hits = survey.stored(survey.hits)
    for number, given in enumerate((hits, hits.astype(">f4"), np.where(hits == 0, -1, hits))):
        told = {"sigma_wn_coadd": survey.stored(sigma), "nhit_coadd": given}
        found = read_map(survey.write(tmp_path / f"{number}.h5", **told))
        assert same(found.cube, np.where(lost, np.nan, survey.cube).astype(np.float32))
        assert same(found.sigma, np.where(lost, np.nan, sigma).astype(np.float32))
        assert same(found.hits, survey.hits)
    alone = survey.write(tmp_path / "alone.h5", sigma_wn_coadd=None, nhit_coadd=None)
    found = read_map(alone)
    assert found.sigma is None and found.hits is None and same(found.cube, survey.cube)
    zeros = int((survey.cube == 0).sum())
    assert f"{zeros} of its voxels are exactly 0" in found.notes[-1]
    found = read_map(alone, no_value=0.0)
    assert int(np.isnan(found.cube).sum()) == zeros
    assert "hold 0 and have no value" in found.notes[-1]


def test_a_map_of_which_nothing_was_observed(tmp_path: Path) -> None:
    survey = Survey()
    nothing = np.zeros_like(survey.stored(survey.hits))
    found = read_map(survey.write(tmp_path / "a.h5", nhit_coadd=nothing))
    assert found.sigma is not None and np.isnan(found.sigma).all() and np.isnan(found.cube).all()
    assert "360 of its voxels have no hits" in found.notes[-1]


def test_marks_are_without_sigma(tmp_path: Path) -> None:
    """What stands for no value in the cube has no sigma; the noise has marks of its own."""
    survey = Survey()
    path = survey.write(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["map_coadd"][0, 0, 0, 0], file["sigma_wn_coadd"][0, 0, 0, 1] = -9999.0, 123.0
        file["nhit_coadd"][...] = 1
        file["map_coadd"].attrs["_FillValue"] = -9999.0
        file["sigma_wn_coadd"].attrs["_FillValue"] = np.float32(123.0)
    found = read_map(path)
    assert found.sigma is not None and np.isnan(found.cube[-1, 0, -2:]).all()
    assert np.isnan(found.sigma[-1, 0, -2:]).all()


def test_packed_noise(tmp_path: Path) -> None:
    """Each dataset is unpacked by its own attributes."""
    survey = Survey()
    counts = np.arange(1, 361, dtype=np.int16).reshape(12, 5, 6)
    path = survey.write(
        tmp_path / "a.h5",
        map_coadd=survey.stored(counts),
        sigma_wn_coadd=survey.stored(counts),
        nhit_coadd=None,
    )
    with h5py.File(path, "a") as file:
        file["map_coadd"].attrs["scale_factor"] = 0.5
        file["sigma_wn_coadd"].attrs["scale_factor"] = 0.25
    found = read_map(path)
    assert same(found.cube, 0.5 * counts) and same(found.sigma, 0.25 * counts)


def feeds_of(num_feeds: int = 4) -> tuple[Survey, dict[str, NDArray[Any]]]:
    """Maps of feeds, of which one observed nothing, and some voxels that no feed did."""
    random = np.random.default_rng(2)
    survey = Survey()
    shape = (num_feeds, *survey.stored(survey.hits).shape)
    hits = random.integers(0, 3, shape).astype(np.int32)
    hits[1] = 0
    sigma = random.uniform(1e-4, 3e-4, shape).astype(np.float32)
    cube = random.normal(0.0, 2e-4, shape).astype(np.float32)
    cube[hits == 0], sigma[hits == 0] = np.nan, np.nan
    return survey, {"map": cube, "sigma_wn": sigma, "nhit": hits}


def test_a_map_per_feed(tmp_path: Path) -> None:
    """Weights 1/sigma^2, in exact fractions; the map of all feeds is the file's unless asked."""
    survey, feeds = feeds_of()
    both = survey.write(tmp_path / "both.h5", **feeds)
    check(read_map(both), survey)
    coadded = ("map_coadd", "sigma_wn_coadd", "nhit_coadd")
    alone = survey.write(tmp_path / "feeds.h5", **dict.fromkeys(coadded), **feeds)
    with pytest.raises(MapError, match="a map per feed and none of all together: --sum-feeds adds"):
        read_map(alone)
    shape = feeds["map"].shape[1:]
    expected = {name: np.full(shape, np.nan) for name in feeds} | {"nhit": np.zeros(shape, int)}
    for voxel in np.ndindex(shape):
        seen = [k for k in range(4) if feeds["nhit"][(k, *voxel)] > 0]
        if seen:
            m, s, n = ([float(v[(k, *voxel)]) for k in seen] for v in feeds.values())
            weight = [1.0 / x**2 for x in s]
            mean = sum(w * x for w, x in zip(weight, m, strict=True)) / sum(weight)
            expected["map"][voxel], expected["sigma_wn"][voxel] = mean, sum(weight) ** -0.5
            expected["nhit"][voxel] = sum(n)
    for path in (both, alone):
        found = read_map(path, sum_feeds=True)
        summed = {"map": found.cube, "sigma_wn": found.sigma, "nhit": found.hits}
        for name, values in summed.items():
            assert values is not None
            np.testing.assert_allclose(survey.stored(values), expected[name], rtol=1e-12)
        assert "3 of its 4 feeds were summed with weights 1/sigma^2" in found.notes
        assert found.units == "K" and found.pca_modes == 0


def test_feeds_of_the_older_layout(tmp_path: Path) -> None:
    cube = np.random.default_rng(1).normal(size=(3, 20, 24))
    feeds = {"map": np.stack([cube[:, None]] * 2), "rms": np.full((2, 3, 1, 20, 24), 3.0)}
    path = write_comap(tmp_path / "a.h5", cube, map_coadd=None, **feeds)
    with pytest.raises(MapError, match="--sum-feeds adds"):
        read_map(path, units="uK")
    found = read_map(path, units="uK", sum_feeds=True)
    assert found.sigma is not None and found.hits is None
    assert np.allclose(found.sigma, 3.0 / np.sqrt(2.0), rtol=1e-15)


def test_feeds_that_cannot_be_summed(tmp_path: Path) -> None:
    survey, feeds = feeds_of()
    sentences = {
        "holds a map per feed without their noise (sigma_wn or rms)": {"sigma_wn": None},
        "sigma_wn has shape (3, 4, 3, 5, 6), but": {"sigma_wn": feeds["sigma_wn"][1:]},
        "map has shape (4, 4, 3, 5), but its axes [feed, ": {"map": feeds["map"][..., 0]},
        "nhit has shape (4, 4, 3, 5, 5), but": {"nhit": feeds["nhit"][..., 1:]},
        "sigma_wn holds |S1, not numbers": {"sigma_wn": feeds["map"].astype("S1")},
        "holds no map per feed: --sum-feeds is of": dict.fromkeys(feeds),
    }
    for number, (sentence, changes) in enumerate(sentences.items()):
        path = survey.write(tmp_path / f"{number}.h5", **(feeds | changes))
        with pytest.raises(MapError) as error:
            read_map(path, sum_feeds=True)
        assert sentence in str(error.value)
    cube = np.ones((3, 20, 24))
    for path in (write_hdf5(tmp_path / "own.h5", cube), write_edges(tmp_path / "own.npz", cube)):
        with pytest.raises(MapError, match=r"own.* holds no map per feed"):
            read_map(path, units="uK", sum_feeds=True)


@pytest.mark.parametrize(
    ("bands", "sentence"),
    [
        (((26, 28), (28, 30), (30.5, 32.5), (32.5, 34.5)),
         "its channels leave a gap: those at 29.66667 and 30.83333 GHz (freq_centers) are 1166.67 "
         "MHz apart, the others 666.667"),
        (((26, 28), (27.9, 29.9), (29.9, 31.9), (31.9, 33.9)),
         "its channels overlap: those at 27.66667 and 28.23333 GHz (freq_centers) are 566.667 MHz "
         "apart, the others 666.667"),
        (((26, 28), (26, 28), (30, 32), (32, 34)), "GHz (freq_centers) are 2666.67 MHz apart"),
        (((26, 28), (28, 30), (30, 32), (32, 35)), "its channels leave a gap: those at"),
        (((-26, -28), (28, 30), (30, 32), (32, 34)), "freq_centers must be frequencies [GHz]"),
    ],
)  # fmt: skip
def test_gaps_and_overlaps_of_sidebands(tmp_path: Path, bands: Any, sentence: str) -> None:
    path = Survey(bands).write(tmp_path / "a.h5")
    with pytest.raises(MapError) as error:
        read_map(path)
    assert sentence in str(error.value)


def test_frequencies_in_single_precision(tmp_path: Path) -> None:
    """Rounding is no gap, where it is a larger part of a channel than steps may differ by."""
    survey = Survey(num_channels=1000)
    nu = survey.nu.astype(np.float32)
    assert np.ptp(np.diff(nu.ravel())) > 1e-3 * 8.0 / 4000
    found = read_map(survey.write(tmp_path / "a.h5", freq_centers=nu))
    assert same(found.cube, survey.cube)
    assert found.nu_GHz == pytest.approx((34.0, 26.0), abs=4e-6)


def test_one_channel_has_the_width_of_its_edges(tmp_path: Path) -> None:
    survey = Survey(((26, 28),), num_channels=1)
    found = read_map(survey.write(tmp_path / "a.h5"))
    assert found.nu_GHz == (28.0, 26.0) and same(found.cube, survey.cube)
    with pytest.raises(MapError, match="freq_centers is one channel, and no freq_edges say its"):
        read_map(survey.write(tmp_path / "b.h5", freq_edges=None))


@pytest.mark.parametrize(("high", "note"), [(86.0, "50 % narrower in ra at one end"), (54.0, "")])
def test_pixels_that_narrow_towards_a_pole(tmp_path: Path, high: float, note: str) -> None:
    """Equal steps in ra are half as wide at 86 deg as at 82 deg; COMAP's own fields lose 9 %."""
    edges = np.linspace(high - 4.0, high, 6)
    dec = {"dec_edges": edges, "dec_centers": 0.5 * (edges[1:] + edges[:-1])}
    said = " ".join(read_map(Survey().write(tmp_path / "a.h5", **dec)).notes)
    assert note in said and ("narrower" in said) == bool(note)
    beyond = {"dec_edges": edges + 5 - high + 86, "dec_centers": dec["dec_centers"] + 91 - high}
    with pytest.raises(MapError, match=r"b.h5: its dec, 87 to 91 deg, lies beyond a pole"):
        read_map(Survey().write(tmp_path / "b.h5", **beyond))


def test_edges_of_one_sideband(tmp_path: Path) -> None:
    """Edges [1, n + 1] lie about centres [1, n]."""
    survey = Survey(((26, 34),), num_channels=5)
    assert "freq_edges" not in " ".join(read_map(survey.write(tmp_path / "a.h5")).notes)


def test_edges_that_do_not_lie_about_centres(tmp_path: Path) -> None:
    """The pipeline's last edge is wrong where dec falls; the centres count."""
    survey = Survey(dec_falls=True)
    dec, _ = survey.sides()
    wrong = np.append(dec[:-1], dec[-2])
    found = read_map(survey.write(tmp_path / "a.h5", dec_edges=wrong))
    check(found, survey)
    assert "its dec_edges do not lie about its dec_centers, which were used" in found.notes
    nu = survey.nu[:, [0, 0, 1, 2]]
    found = read_map(survey.write(tmp_path / "b.h5", freq_edges=nu, ra_edges=np.arange(3.0)))
    check(found, survey)
    for name in ("freq", "ra"):
        assert (
            f"its {name}_edges do not lie about its {name}_centers, which were used" in found.notes
        )


CUBE = np.random.default_rng(4).normal(size=(3, 20, 24)).astype(np.float32)
SIGMA = np.random.default_rng(5).uniform(1.0, 2.0, CUBE.shape).astype(np.float32)
COUNTS = np.random.default_rng(6).integers(1, 9, CUBE.shape).astype(np.int32)


@pytest.mark.parametrize("names", [("map_coadd", "rms_coadd", "nhit_coadd"),
                                   ("map_beam", "rms_beam", "nhit_beam")])  # fmt: skip
def test_the_older_layout(tmp_path: Path, names: tuple[str, str, str]) -> None:
    given = dict(zip(names, (CUBE, SIGMA, COUNTS), strict=True))
    path = write_comap(tmp_path / "a.h5", CUBE, **({"map_coadd": None, "is_simcube": None} | given))
    with pytest.raises(MapError, match=r"\(COMAP map file of the older layout\) does not say its"):
        read_map(path)
    found = read_map(path, units="K")
    assert same(found.cube, CUBE) and same(found.sigma, SIGMA) and same(found.hits, COUNTS)
    assert found.filtered and found.pca_modes is None


def test_noise_and_hits_beside_our_own_layouts(tmp_path: Path) -> None:
    """In every direction of the axes, of the cube's shape or an image for all channels."""
    image, looks = SIGMA[0], COUNTS[0]
    steps = itertools.product((1, -1), repeat=3)
    for number, (nu_step, dec_step, ra_step) in enumerate(steps):
        turn = (slice(None, None, nu_step), slice(None, None, dec_step), slice(None, None, ra_step))
        nu = np.linspace(34.0, 26.0, 4)[turn[0]]
        dec, ra = np.linspace(-0.35, 0.35, 21)[turn[1]], np.linspace(-0.4, 0.4, 25)[turn[2]]
        plain = {"nu_edges_GHz": nu, "dec_edges_deg": dec, "ra_edges_deg": ra}
        axes = {"nu_binedges": nu, "pix_binedges_y": dec, "pix_binedges_x": ra, "units": "uK"}
        for name, sigma, hits in (("sigma", SIGMA, COUNTS), ("rms", image, looks)):
            sky = turn if sigma.ndim == 3 else turn[1:]
            beside = {name: sigma[sky], "hits": hits[sky]}
            h5 = write_hdf5(tmp_path / f"{number}{name}.h5", CUBE[turn].copy(), **plain, **beside)
            turned = {key: value.transpose() for key, value in beside.items()}
            npz = write_edges(tmp_path / f"{number}{name}.npz", CUBE[turn], **axes, **turned)
            for found in (read_map(h5), read_map(npz)):
                assert same(found.cube, CUBE)
                assert same(found.sigma, np.broadcast_to(sigma, CUBE.shape))
                assert same(found.hits, np.broadcast_to(hits, CUBE.shape))
                assert not found.filtered and found.pca_modes is None


def test_a_map_of_ours_without_edges_is_none_of_feeds(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "a.h5", CUBE, nu_edges_GHz=None, freq=np.linspace(34, 26, 3))
    with pytest.raises(MapError, match=r"has no dataset nu_edges_GHz \(it holds .*freq, map"):
        read_map(path)


def test_noise_of_samples(tmp_path: Path) -> None:
    several = {"map": None, "cube": np.stack([CUBE, 2 * CUBE]), "sigma": np.stack([SIGMA, COUNTS])}
    path = write_hdf5(tmp_path / "a.h5", CUBE, **several)
    assert same(read_map(path, index=1).sigma, COUNTS)
    path = write_hdf5(tmp_path / "b.h5", CUBE, **(several | {"sigma": SIGMA[None]}))
    assert same(read_map(path, index=0).sigma, SIGMA)
    with pytest.raises(MapError, match="sigma has 1 samples, but cube has more"):
        read_map(path, index=1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sigma_wn_coadd": np.ones((4, 3, 5, 5))}, "sigma_wn_coadd has shape (4, 3, 5, 5), but"),
        ({"nhit_coadd": np.ones((4, 3, 6, 5))}, "nhit_coadd has shape (4, 3, 6, 5), but its axes"),
        ({"map_coadd": np.ones((4, 3, 6, 5))}, "[sideband, channel, dec, ra] have (4, 3, 5, 6)"),
        ({"map_coadd": np.ones((4, 3, 5, 6), "S1")}, "map_coadd holds |S1, not numbers"),
        ({"map_coadd": h5py.Empty("f4")}, "has no dataset map_coadd that holds anything"),
        ({"sigma_wn_coadd": h5py.Empty("f4")}, "has no dataset sigma_wn_coadd that holds anything"),
        ({"ra_centers": None}, "has no dataset ra_centers"),
        ({"freq_centers": None}, "has no dataset freq"),
        ({"freq_centers": np.full((4, 3), np.nan)}, "freq_centers must be frequencies [GHz], all"),
        ({"freq_centers": np.zeros((2, 2, 3))}, "freq_centers must be frequencies"),
        ({"freq_centers": np.zeros((0, 3))}, "freq_centers must be frequencies"),
        ({"ra_centers": np.arange(6.0) ** 2}, "ra_centers must have equal steps, but they are"),
        ({"dec_centers": np.ones(5)}, "dec_centers must rise or fall from each number to the next"),
        ({"is_pca_subtr": 2}, "is_pca_subtr must be true or false, not 2"),
        ({"is_simcube": "maybe"}, "is_simcube must be true or false, not maybe"),
        ({"is_pca_subtr": np.zeros(2, bool)}, "is_pca_subtr must be true or false, not [False"),
        ({"is_pca_subtr": True, "n_pca": -1}, "n_pca = -1 must be a whole number"),
        ({"is_pca_subtr": True, "n_pca": 2.5}, "n_pca = 2.5 must be a whole number"),
        ({"is_pca_subtr": True, "n_pca": "many"}, "n_pca must be one number, not many"),
        ({"map_coadd": None}, "holds none of map, cube and map_coadd, but dec_centers,"),
    ],
)  # fmt: skip
def test_hostile_files_get_their_sentence(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    path = Survey().write(tmp_path / "a.h5", **changes)
    with pytest.raises(MapError) as error:
        read_map(path)
    text = str(error.value)
    assert sentence in text and str(path) in text and "\n" not in text


NONSENSE: tuple[Any, ...] = (
    np.array([]), np.array(np.nan), "x", np.array(["a", "bb"], "S"), -1.0, b"\xff\xfe",
    np.zeros((2, 2)), np.full(3, np.nan), np.array([1, 2], "c16"), np.zeros(3, bool),
    h5py.Empty("f"), np.zeros((0, 3, 3)), np.zeros(3, [("a", "f4")]), np.full((4, 3, 5, 6), 1e30),
    np.zeros((4, 3, 5, 6)), np.zeros((4, 3, 5, 6), "i8"), np.full((4, 3), np.inf),
)  # fmt: skip
NAMES = ("map_coadd", "sigma_wn_coadd", "nhit_coadd", "freq_centers", "freq_edges", "ra_centers",
         "ra_edges", "dec_centers", "is_pca_subtr", "n_pca", "is_simcube", "map", "sigma_wn",
         "nhit", "cube", "freq", "x")  # fmt: skip


def test_nonsense_gets_a_sentence(tmp_path: Path) -> None:
    """Each name as a dataset of all kinds, or a group: a map with finite edges, or a sentence."""
    refused = 0
    survey, feeds = feeds_of()
    for name, value in itertools.product(NAMES, (*NONSENSE, None)):
        given = {"is_pca_subtr": True, **(feeds if name in feeds else {}), name: None}
        path = survey.write(tmp_path / "a.h5", **given)
        with h5py.File(path, "a") as file:
            if value is None:
                file.create_group(name)
            else:
                file[name] = value
        try:
            found = read_map(path, sum_feeds=name in feeds)
            assert np.isfinite(found.freq.edges).all() and found.cube.shape == found.shape
        except MapError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 300 + len(str(path))
    assert refused > 200
