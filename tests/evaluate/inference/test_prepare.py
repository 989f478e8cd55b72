"""From a map to the network's input: what must fit, regridding, operators."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import TESTS, limlam
from support import map_runs as runs

from streamtrain import observe
from streamtrain.config import Config, from_mapping
from streamtrain.evaluate.inference.prepare import prepare
from streamtrain.generator.export import raw
from streamtrain.maps.read import read_map
from streamtrain.maps.regrid import mean_over, overlap
from streamtrain.maps.skymap import MapError, SkyMap, rayleigh_jeans_uK

pytestmark = pytest.mark.filterwarnings("ignore::streamtrain.schema.AssumptionWarning")

RNG = np.random.default_rng(4)
CUBE = RNG.normal(5.0, 2.0, size=(9, 20, 24)).astype(np.float32)


def config(grid: dict[str, Any] | None = None, **operators: Any) -> Config:
    shape = {"fov_deg": runs.FOV_DEG, "shape": [9, 20, 24]}
    return from_mapping({"grid": shape | (grid or {}), "observe": operators})


def sky(tmp_path: Path, cube: Any = CUBE, name: str = "m.h5", **changes: Any) -> SkyMap:
    return read_map(runs.write_hdf5(tmp_path / name, cube, **changes))


def test_operators_are_those_of_observe(tmp_path: Path) -> None:
    """Without what a map has in it, the rest is `observe` to the bit."""
    left = {"pool": {"factor": [3, 2, 2]}, "mask": {"edge_pixels": 1}, "high_pass": {"modes": 1},
            "asinh": {"scale": 2.0}}  # fmt: skip
    full = {"beam": {"fwhm_arcmin": 4.0}, "radio_sources": {}, **left, "noise": {"sigma_uK": 9.0},
            "edge_noise": {}}  # fmt: skip
    found = prepare(sky(tmp_path), config(**full))
    assert torch.equal(found.cube, observe(CUBE, config(**left)))
    assert found.applied == ["pool", "mask", "high_pass", "asinh"]
    assert found.left_out == ["beam", "radio_sources", "noise", "edge_noise"]


def test_a_beam_after_the_logarithm_is_the_networks() -> None:
    published = {"log_modulus": {}, "beam": {"fwhm_pixels": 3}}

    def of_the_map(**observe: Any) -> list[bool]:
        return [step.of_the_map for step in config(**observe).observation.steps]

    assert of_the_map(**published) == [False, False]
    assert of_the_map(beam={"fwhm_pixels": 3}, log_modulus={}) == [True, False]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("pool noise log_modulus", "pool noise"),
        ("noise pool log_modulus", "noise pool"),
        ("noise high_pass asinh", "noise"),
        ("high_pass noise mask standardise", "high_pass noise mask"),
        ("log_modulus noise", ""),
        ("pool log_modulus beam", "pool"),
    ],
)
def test_raw_maps_are_those_before_transforms(names: str, expected: str) -> None:
    sections = {"beam": {"fwhm_pixels": 2}, "high_pass": {"modes": 1}, "asinh": {"scale": 1.0},
                "mask": {"edge_pixels": 1}}  # fmt: skip
    given = config(**{name: sections.get(name, {}) for name in names.split()})
    assert " ".join(raw(given).observe) == expected


def test_a_pooled_map_enters_after_the_pool(tmp_path: Path) -> None:
    settings = config(pool={"factor": [3, 1, 1], "reduce": "sum"}, log_modulus={})
    pooled = CUBE.reshape(3, 3, 20, 24).astype(np.float64).mean(1)
    found = prepare(sky(tmp_path, pooled), settings)
    assert found.applied == ["log_modulus"]
    assert "multiplied" in found.notes[-1] and "sums of 3" in found.notes[-1]
    torch.testing.assert_close(found.cube, observe(CUBE, settings), rtol=3e-7, atol=0)


def test_peers_map_pooled_and_transformed_as_the_peer_did() -> None:
    """Case v3: its 7 x 7 x 8 block sums and their log-modulus, from its own map."""
    case = limlam.load("v3_breysse_offset")
    grid = case.grid() | {"nu_rest_GHz": case.params["nu_rest"]}
    p, pz = case.params["pool"]
    pool = {"factor": [pz, p, p], "reduce": "sum"}
    settings = from_mapping({"grid": grid, "observe": {"pool": pool, "log_modulus": {}}})
    found = prepare(read_map(TESTS / "data" / "v3_breysse_offset.npz", units="uK"), settings)
    expected = case.map("logmod")
    assert np.allclose(found.cube.numpy(), expected, rtol=1e-6, atol=1e-6)
    assert expected.max() > 2.0


def test_units_are_converted(tmp_path: Path) -> None:
    in_kelvin = sky(tmp_path, CUBE * np.float32(1e-6), units="K")
    found = prepare(in_kelvin, config())
    assert np.allclose(found.cube, CUBE, rtol=1e-6)
    assert "it was converted from K to uK" in found.notes
    intensity = sky(tmp_path, name="i.h5", units="kJy/sr")
    with pytest.raises(MapError, match="is in kJy/sr, the network was trained on maps in uK; --ra"):
        prepare(intensity, config())
    found = prepare(intensity, config(), rayleigh_jeans=True)
    nu = 34.0 - (np.arange(9) + 0.5) * 8.0 / 9.0
    expected = 1e3 * CUBE * rayleigh_jeans_uK(nu)[:, None, None]
    assert np.allclose(found.cube, expected, rtol=1e-6)
    back = prepare(
        sky(tmp_path, expected, name="b.h5"), config({"units": "Jy/sr"}), rayleigh_jeans=True
    )
    assert np.allclose(back.cube, 1e3 * CUBE, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "grid", "sentence"),
    [
        ({}, {"fov_deg": [1.4, 1.4]},
         "is a field of 0.8 x 0.7 deg (ra, dec), the network was trained on 1.4 x 1.4 deg; --reg"),
        ({}, {"fov_deg": [1.4, 1.4]},
         "--regrid does not help, as the map covers -0.35 to 0.35 deg in dec from its middle, the "
         "network needs -0.7 to 0.7: the map is too small; the map covers -0.4 to 0.4 deg in ra "
         "from its middle, the network needs -0.7 to 0.7: the map is too small; train a network "
         "for such maps, on the grid that `streamtrain map info` prints"),
        ({}, {"fov_deg": [0.4, 0.35], "shape": [9, 10, 12]},
         "; --regrid brings a map to the network's voxels, at its middle or at --centre RA DEC"),
        ({}, {"fov_deg": [0.8, 0.7], "shape": [3, 10, 12]},
         "takes 3 x 10 x 12; --regrid brings a map to the network's voxels"),
        ({}, {"nu_GHz": [33.0, 26.0]}, "covers 34..26 GHz, the network was trained on 33..26 GHz"),
        ({}, {"shape": [9, 40, 24]},
         "has 9 x 20 x 24 voxels (freq, dec, ra), the network takes 9 x 40 x 24; --regrid does "
         "not help, as the map's voxels are 0.035 deg in dec wide, the network's 0.0175: a map"),
        ({"nu_rest_GHz": 230.538}, {},
         "is of a line at 230.538 GHz, the network was trained on that at 115.27 GHz"),
        ({"map": np.where(CUBE > 9.0, np.nan, CUBE)}, {}, "voxels are NaN or infinite; a network"),
    ],
)  # fmt: skip
def test_what_does_not_fit_has_its_sentence(
    tmp_path: Path, changes: dict[str, Any], grid: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(MapError) as error:
        prepare(sky(tmp_path, **changes), config(grid, log_modulus={}))
    assert sentence in str(error.value) and "\n" not in str(error.value)
    assert str(tmp_path / "m.h5") in str(error.value)


def test_shapes_before_and_after_the_pools_are_told(tmp_path: Path) -> None:
    settings = config({"shape": [18, 40, 48]}, pool={"factor": [3, 2, 2]}, log_modulus={})
    with pytest.raises(MapError, match="takes 18 x 40 x 48 or 6 x 20 x 24;"):
        prepare(sky(tmp_path), settings)


def test_a_small_misfit_is_none(tmp_path: Path) -> None:
    nu, _, ra = runs.edges(CUBE.shape)
    found = sky(tmp_path, ra_edges_deg=ra * 1.001, nu_edges_GHz=nu + 0.01, nu_rest_GHz=115.271202)
    assert np.array_equal(prepare(found, config()).cube, CUBE)


def test_gaps_are_the_masks(tmp_path: Path) -> None:
    gaps = CUBE.copy()
    gaps[:, 0] = np.nan
    masked = config(mask={"edge_pixels": 1}, log_modulus={})
    found = prepare(sky(tmp_path, gaps), masked).cube
    assert torch.equal(found, observe(CUBE, masked))


def test_a_refused_gap_is_not_to_be_filled_with_zeros(tmp_path: Path) -> None:
    gaps = np.tile(CUBE, (1, 1, 2))
    gaps[:, 0, 20] = np.nan
    nu, dec, ra = runs.edges((9, 20, 48), (1.6, 0.7))
    wide = {"nu_edges_GHz": nu, "dec_edges_deg": dec, "ra_edges_deg": ra}
    with pytest.raises(MapError, match="0 in their place is no way out, as this one reads it") as e:
        prepare(sky(tmp_path, gaps, **wide), config(), regrid=True)
    assert str(e.value).endswith("; --regrid --centre RA DEC may choose a part without gaps")
    found = prepare(sky(tmp_path, gaps, **wide), config(), regrid=True, centre_deg=(0.4, 0.0))
    assert np.isfinite(found.cube.numpy()).all()
    with pytest.raises(MapError, match=r"sky that was observed$"):
        prepare(sky(tmp_path, gaps[:, :, :24]), config())


@pytest.mark.parametrize(
    ("factor", "question"),
    [
        (1e-9, "GHz in a keyword of Hz?"),
        (1e-6, "MHz in a keyword of Hz?"),
        (1e3, "MHz where GHz are due?"),
        (1e9, "Hz where GHz are due?"),
        (2.0, None),
        (30.0, None),
    ],
)
def test_frequencies_in_another_unit_are_asked_for(
    tmp_path: Path, factor: float, question: str | None
) -> None:
    nu = factor * runs.edges(CUBE.shape)[0]
    for regrid, sentence in ((False, "GHz, the network was trained on"), (True, "GHz, the net")):
        with pytest.raises(MapError, match=sentence) as error:
            prepare(sky(tmp_path, nu_edges_GHz=nu), config(), regrid=regrid)
        if question is None:
            assert "?" not in str(error.value)
        else:
            assert str(error.value).count(f" ({question})") == 1
            assert "train a network" not in str(error.value)


def test_frequencies_in_GHz_that_a_header_calls_Hz(tmp_path: Path) -> None:
    header = {"CRVAL3": 26.0 + 4 / 9, "CDELT3": 8 / 9}
    found = read_map(runs.write_fits(tmp_path / "m.fits", CUBE, **header))
    with pytest.raises(MapError, match=r"trained on 34\.\.26 GHz \(GHz in a keyword of Hz\?\)"):
        prepare(found, config())


def test_pixels_without_hits_become_zero(tmp_path: Path) -> None:
    hits = np.ones((20, 24))
    hits[3, 4] = 0.0
    np.savez(tmp_path / "hits.npz", hits=hits)
    gaps = CUBE.copy()
    gaps[:, 3, 4] = np.nan
    settings = config(noise={"sigma_uK": 3.0, "hits": str(tmp_path / "hits.npz")})
    found = prepare(sky(tmp_path, gaps), settings)
    assert torch.equal(found.cube, torch.from_numpy(np.nan_to_num(gaps)))
    assert "pixels without hits in noise were set to 0" in found.notes


def test_regridding_is_the_mean_over_blocks(tmp_path: Path) -> None:
    settings = config({"shape": [3, 10, 12]})
    found = prepare(sky(tmp_path), settings, regrid=True)
    expected = CUBE.reshape(3, 3, 10, 2, 12, 2).astype(np.float64).mean((1, 3, 5))
    assert np.allclose(found.cube, expected, rtol=1e-6)
    assert "from 9 x 20 x 24 to 3 x 10 x 12 voxels" in found.notes[-1]


def test_regridding_conserves_what_voxels_share() -> None:
    """Voxels whose edges do not meet: the integral over the whole stays, a constant stays."""
    shares = tuple(
        overlap(np.linspace(0.0, 1.0, fine + 1), np.linspace(0.0, 1.0, coarse + 1), "deg")
        for fine, coarse in ((9, 4), (20, 7), (24, 11))
    )
    coarse = mean_over(CUBE, shares)
    assert coarse.mean() == pytest.approx(CUBE.mean(dtype=np.float64), rel=1e-12)
    assert np.allclose(mean_over(np.full(CUBE.shape, 3.0), shares), 3.0, rtol=1e-14)
    by_hand = np.tensordot(shares[0][1], CUBE[:, 0, 0].astype(float), 1)
    assert shares[0][1].sum() == pytest.approx(1.0)
    assert shares[0][1] @ CUBE[:, 0, 0].astype(float) == pytest.approx(by_hand)
    assert shares[0][0][:3] == pytest.approx([4 / 9, 4 / 9, 1 / 9])


def test_a_part_of_a_larger_map(tmp_path: Path) -> None:
    """--centre cuts the field out where it lies, in the file's coordinates."""
    wide = np.zeros((9, 40, 48), np.float32)
    wide[:, 5:25, 20:44] = CUBE
    dec = np.linspace(10.0, 11.4, 41)
    ra = np.linspace(3.0, 3.0 + 1.6 / np.cos(np.radians(10.7)), 49)
    found = sky(tmp_path, wide, nu_edges_GHz=np.linspace(34, 26, 10), dec_edges_deg=dec,
                ra_edges_deg=ra)  # fmt: skip
    with pytest.raises(MapError, match="it needs --regrid"):
        prepare(found, config(), centre_deg=(3.0, 10.0))
    centre = (ra[32], dec[15])
    assert np.allclose(prepare(found, config(), regrid=True, centre_deg=centre).cube, CUBE)
    middle = prepare(found, config(), regrid=True).cube
    assert np.allclose(middle, wide[:, 10:30, 12:36])
    with pytest.raises(
        MapError, match=r"deg in ra from its middle, the network needs 0\.4 to 1\.2"
    ) as error:
        prepare(found, config(), regrid=True, centre_deg=(ra[-1], dec[15]))
    assert " in dec" not in str(error.value)
    with pytest.raises(
        MapError,
        match=r"deg in dec from its middle, the network needs 0\.95 to 1\.65; the map covers .* "
        r"deg in ra from its middle, the network needs 8\.9\d* to 9\.7\d*: choose another --cent",
    ):
        prepare(found, config(), regrid=True, centre_deg=(ra[24] + 9.5, dec[20] + 1.3))


@pytest.mark.parametrize(
    ("grid", "sentence"),
    [
        ({"shape": [18, 20, 24]}, "voxels are 0.8889 GHz wide, the network's 0.4444"),
        ({"nu_GHz": [36.0, 26.0]}, "covers 34 to 26 GHz, the network needs 36 to 26"),
        ({"fov_deg": [0.8, 0.9]}, "covers -0.35 to 0.35 deg in dec from its middle"),
    ],
)
def test_what_cannot_be_regridded(tmp_path: Path, grid: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MapError, match="cannot be regridded") as error:
        prepare(sky(tmp_path), config(grid), regrid=True)
    assert sentence in str(error.value)


def test_voxels_without_a_value_do_not_count_in_means() -> None:
    cube = np.array([[[1.0, 3.0, np.nan, 5.0, np.nan, np.nan]]])
    one = np.ones((1, 1))
    pairs = overlap(np.arange(7.0), np.arange(0.0, 7.0, 2.0), "deg")
    found = mean_over(cube, (one, one, pairs))[0, 0]
    assert found[:2].tolist() == [2.0, 5.0] and np.isnan(found[2])
    threes = overlap(np.arange(7.0), np.arange(0.0, 7.0, 3.0), "deg")
    found = mean_over(cube, (one, one, threes))[0, 0]
    assert found[0] == 2.0 and np.isnan(found[1])  # a third has a value


def test_an_exported_map_goes_on_where_it_left(tmp_path: Path) -> None:
    full = {"pool": {"factor": [1, 2, 2]}, "noise": {"sigma_uK": 2.0}, "mask": {"edge_pixels": 1},
            "log_modulus": {}}  # fmt: skip
    settings = config(**full)
    pooled = np.ascontiguousarray(CUBE[:, ::2, ::2])
    done = "pool: {factor: [1, 2, 2], reduce: mean}\nnoise: {sigma_uK: 50.0}\n"
    exported = sky(tmp_path, pooled, observe_done=done)
    found = prepare(exported, settings)
    assert found.applied == ["mask", "log_modulus"]
    done += "mask: {file: null, edge_pixels: 1}\nlog_modulus: {}\n"
    exported = sky(tmp_path, pooled, name="all.h5", observe_done=done, units="")
    found = prepare(exported, settings)
    assert found.applied == [] and np.array_equal(found.cube, pooled)
    other = config(**(full | {"mask": {"edge_pixels": 2}}))
    with pytest.raises(MapError, match="has gone through pool, noise, mask, log_modulus, the netw"):
        prepare(exported, other)
    with pytest.raises(MapError, match="holds numbers without a unit, which cannot be regridded"):
        prepare(replace(exported, cube=exported.cube[1:]), settings, regrid=True)
    summed = config(pool={"factor": [1, 2, 2], "reduce": "sum"})
    done = "pool: {factor: [1, 2, 2], reduce: sum}\n"
    exported = sky(tmp_path, pooled, name="sum.h5", observe_done=done)
    assert np.array_equal(prepare(exported, summed).cube, pooled)
    with pytest.raises(MapError, match="holds sums of voxels, which cannot be regridded"):
        prepare(exported, summed, regrid=True, centre_deg=(0.0, 0.0))


def test_a_map_is_not_made_finer_where_its_channels_are_the_widest() -> None:
    """Channels of 1, 1 and 4 GHz are 2 GHz wide in the mean."""
    uneven = np.array([26.0, 27.0, 28.0, 32.0])
    overlap(uneven, np.array([26.0, 30.0]), "GHz")
    with pytest.raises(MapError, match=r"voxels are 4 GHz wide, the network's 3: .* made finer"):
        overlap(uneven, np.array([26.0, 29.0, 32.0]), "GHz")
