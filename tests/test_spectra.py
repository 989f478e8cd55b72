"""P(k) and P(k_perp, k_par) against closed forms, limlam_mocker's own numbers and powerbox."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support import TESTS
from support.limlam import Case, load

from streamtrain.cosmology import Cosmology
from streamtrain.grid import Grid
from streamtrain.spectra import Box, Power, edge_voxels, rings, shells, slabs

BOX = Box((10, 24, 20), (60.0, 4.0, 5.0))
PEERS = ["v1_li_square", "v2_padmanabhan_rect_intensity", "v4_li_rotated_subfield"]


def all_modes(box: Box) -> tuple[NDArray[np.float64], ...]:
    """k of every mode of a box, conjugates included, along each axis [*box.shape]."""
    waves = [
        2.0 * np.pi * np.fft.fftfreq(n, cell)
        for n, cell in zip(box.shape, box.cells_Mpc, strict=True)
    ]
    return tuple(np.meshgrid(*waves, indexing="ij"))


def brute_force(cube: NDArray[np.float64], box: Box) -> NDArray[np.float64]:
    """P of every mode, conjugates included, with NumPy's complex transform."""
    volume = float(np.prod(box.sides_Mpc))
    return np.abs(np.fft.fftn(cube - cube.mean())) ** 2 * volume / cube.size**2


def limlam_chi(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """limlam_mocker's comoving distance [Mpc]: a sum of rectangles, 5e-5 below the integral."""
    steps = np.linspace(0, 4, 10_000)
    total = np.cumsum(299792.458 / (70.0 * np.sqrt(0.286 * (1 + steps) ** 3 + 0.714)) * steps[1])
    return np.interp(z, steps, total - total[0])


def limlam_box(case: Case) -> tuple[Box, NDArray[np.float64]]:
    """Of its cube [ra, dec, freq], and the edges of its shells."""
    chi = limlam_chi(case.params["nu_rest"] / case.arrays["nu_binedges"] - 1.0)
    sky = [case.arrays[f"pix_binedges_{axis}"] / 180 * np.pi * chi.mean() for axis in "xy"]
    edges = [*sky, chi]
    shape = tuple(len(e) - 1 for e in edges)
    cells = tuple(float(np.abs(np.mean(np.diff(e)))) for e in edges)
    box = Box(shape, cells)  # type: ignore[arg-type]
    # the waves along an axis lie on edges, so these are rounded as it rounds them
    step = max(wave[1] - wave[0] for wave in box.waves())
    number = int(np.ceil(max(wave.max() for wave in box.waves()) / step))
    edges = np.linspace(0, number * step, number + 1)
    edges[-1] = np.nextafter(edges[-1], np.inf)  # of numpy.histogram, whose last bin is closed
    return box, edges


def peer_spectrum(case: Case) -> dict[str, NDArray[np.float64]]:
    """Its ps_k, ps_Pk, ps_nmodes."""
    if "ps_k" in case.arrays:
        return case.arrays
    with np.load(TESTS / "data" / "v2_pspec.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize("name", PEERS)
def test_equal_to_limlam_mocker(name: str) -> None:
    """Its map_to_pspec on its own maps: the same shells, modes and power. It counts the modes of
    the half space, of which those with k_par = 0 are there with their conjugates."""
    case = load(name)
    peer = peer_spectrum(case)
    box, edges = limlam_box(case)
    np.testing.assert_allclose(0.5 * (edges[1:] + edges[:-1]), peer["ps_k"], rtol=1e-9)
    power = Power.spherical(box, list(itertools.pairwise(edges)), conjugates=False)
    found = power(torch.from_numpy(case.arrays["map"])[None])[0].numpy()
    np.testing.assert_array_equal(power.modes, peer["ps_nmodes"])
    np.testing.assert_allclose(found, peer["ps_Pk"], rtol=1e-9)
    single = power(torch.from_numpy(case.arrays["map"]).float()[None])[0].numpy()
    np.testing.assert_allclose(single, peer["ps_Pk"], rtol=1e-5)


@pytest.mark.parametrize("name", ["v1_li_square", "v2_padmanabhan_rect_intensity"])
def test_equal_to_powerbox(name: str) -> None:
    """In the same shells on limlam_mocker's maps, with every mode and its conjugate."""
    tools = pytest.importorskip("powerbox.tools")
    case = load(name)
    box, edges = limlam_box(case)
    cube = case.arrays["map"]
    edges = edges[1:] * 1.0001  # beyond the waves along an axis, which roundings put on either side
    result = tools.get_power(
        cube - cube.mean(),
        boxlength=box.sides_Mpc,
        bins=edges,
        ignore_zero_mode=True,
        bins_upto_boxlen=True,
    )
    power = Power.spherical(box, list(itertools.pairwise(edges)))
    np.testing.assert_array_equal(power.modes, result.nsamples)
    np.testing.assert_allclose(power.k, result.bin_avg, rtol=1e-9)
    found = power(torch.from_numpy(cube)[None])[0].numpy()
    np.testing.assert_allclose(found, result.power, rtol=1e-9)


def test_every_mode_of_a_batch_by_brute_force() -> None:
    cubes = np.random.default_rng(0).normal(size=(3, *BOX.shape)) + 5.0
    k0, k1, k2 = all_modes(BOX)
    length, across = np.sqrt(k0**2 + k1**2 + k2**2), np.hypot(k1, k2)
    spans, perp, par = shells(BOX, 100), rings(BOX, 6), slabs(BOX, 4)
    spherical = Power.spherical(BOX, spans)
    cylindrical = Power.cylindrical(BOX, perp, par)
    inside = [(length >= low) & (length < high) & (length > 0) for low, high in spans]
    inside_rings = [
        (across >= a) & (across < b) & (np.abs(k0) >= c) & (np.abs(k0) < d) & (length > 0)
        for a, b in perp
        for c, d in par
    ]
    for power, masks in ((spherical, inside), (cylindrical, inside_rings)):
        found = power(torch.from_numpy(cubes)).numpy()
        assert found.shape == (3, len(masks))
        np.testing.assert_array_equal(power.modes, [mask.sum() for mask in masks])
        np.testing.assert_allclose(power.k, [length[mask].mean() for mask in masks])
        for row, cube in zip(found, cubes, strict=True):
            whole = brute_force(cube, BOX)
            np.testing.assert_allclose(row, [whole[mask].mean() for mask in masks])


@pytest.mark.parametrize("shape", [(1, 8, 8), (10, 32, 32), (7, 9, 13), (5, 16, 8)])
@pytest.mark.parametrize("num", [5, 12, 200])
def test_bins_follow_one_another_and_hold_every_mode_once(
    shape: tuple[int, int, int], num: int
) -> None:
    box = Box.of_grid(Grid((0.7, 0.5), shape))
    every = shells(box, num)
    assert len(every) <= num
    assert len(rings(box, num)) <= num
    assert len(slabs(box, num)) <= num
    assert all(high == low for (_, high), (low, _) in itertools.pairwise(every))
    k0, k1, k2 = all_modes(box)
    length, across = np.sqrt(k0**2 + k1**2 + k2**2), np.hypot(k1, k2)
    top = max(float(k.max()) for k in map(np.abs, (k0, k1, k2)))
    assert Power.spherical(box, every).modes.sum() >= np.count_nonzero(length <= top) - 1
    found = Power.cylindrical(box, rings(box, num), slabs(box, num)).modes.sum()
    widest = max(float(np.abs(k).max()) for k in (k1, k2))
    assert found >= np.count_nonzero(across <= widest) - 1


@pytest.mark.parametrize("num", [1, 2, 24])
@pytest.mark.parametrize(
    "box", [Box((1, 16, 16), (9.0, 2.0, 2.0)), Box((8, 8, 8), (1.0, 1.0, 1.0)), BOX]
)
def test_axes_of_one_fundamental_and_a_single_bin(box: Box, num: int) -> None:
    """A square map of one channel and a cube have no wave below the first multiple; one bin holds
    what many do."""
    every = shells(box, num)
    assert 1 <= len(every) <= num
    k0, k1, k2 = all_modes(box)
    length, across = np.sqrt(k0**2 + k1**2 + k2**2), np.hypot(k1, k2)
    top = max(float(np.abs(k).max()) for k in (k0, k1, k2))
    assert Power.spherical(box, every).modes.sum() >= np.count_nonzero(length <= top) - 1
    widest = max(float(np.abs(k).max()) for k in (k1, k2))
    perp, par = rings(box, num), slabs(box, num)
    found = Power.cylindrical(box, perp, par).modes.sum()
    assert found >= np.count_nonzero(across <= widest) - 1


def test_one_wave_lies_in_its_ring() -> None:
    """a cos(k x): P = V a^2/4 in the two modes k and -k."""
    wave = (3, -4, 2)
    turns = sum(
        n * (np.arange(size) + 0.5).reshape([-1 if a == axis else 1 for a in range(3)]) / size
        for axis, (n, size) in enumerate(zip(wave, BOX.shape, strict=True))
    )
    cube = torch.from_numpy(3.0 + 0.7 * np.cos(2.0 * np.pi * turns))[None]
    k = [2.0 * np.pi * n / side for n, side in zip(wave, BOX.sides_Mpc, strict=True)]
    across, along = float(np.hypot(k[1], k[2])), abs(k[0])
    total = BOX.volume_Mpc3 * 0.7**2 / 2.0
    perp, par = rings(BOX, 8), slabs(BOX, 8)
    power = Power.cylindrical(BOX, perp, par)
    found = power(cube)[0].numpy() * power.modes
    (place,) = np.flatnonzero(found > 1e-9 * total)
    assert found[place] == pytest.approx(total)
    (low, high), (bottom, top) = perp[place // len(par)], par[place % len(par)]
    assert low <= across < high
    assert bottom <= along < top


def test_white_noise() -> None:
    """P = sigma^2 V_vox with variance 2 P^2 / modes, conjugates counted: 600 boxes."""
    number, sigma = 600, 2.5
    noise = np.random.default_rng(3).normal(0.0, sigma, (number, *BOX.shape))
    power = Power.spherical(BOX, shells(BOX, 6))
    found = power(torch.from_numpy(noise)).numpy()
    truth = sigma**2 * float(np.prod(BOX.cells_Mpc))
    expected = np.sqrt(2.0 / power.modes) * truth
    assert (np.abs(found.mean(0) - truth) < 4.0 * expected / np.sqrt(number)).all()
    # a standard deviation of Gaussian values is known to 1 / sqrt(2 n) of itself; chi^2 values of
    # few modes scatter more, by their kurtosis 12 / modes
    spread = np.sqrt((2.0 + 12.0 / power.modes) / number) / 2.0
    assert (np.abs(found.std(0, ddof=1) / expected - 1.0) < 4.0 * spread).all()


def test_grid_as_a_box() -> None:
    """Sides of a COMAP field: the depth of the band, the width at its middle."""
    grid = Grid((1.4, 0.7), (100, 128, 256))
    box = Box.of_grid(grid, (10, 3, 4))
    assert box.shape == (10, 42, 64)
    chi = Cosmology().comoving_distance(np.array([115.27 / 34 - 1, 115.27 / 26 - 1]))
    assert box.sides_Mpc[0] == pytest.approx(chi[1] - chi[0], rel=1e-5)
    assert box.sides_Mpc[2] == pytest.approx(np.radians(1.4) * chi.mean(), rel=1e-5)
    # two rows of pixels are left over when 128 are joined by threes
    assert box.sides_Mpc[1] == pytest.approx(np.radians(0.7) * chi.mean() * 126 / 128, rel=1e-5)


@pytest.mark.parametrize(
    "shape", [(64, 64, 64), (16, 128, 256), (5, 7, 9), (64, 60, 60), (9, 1, 1)]
)
def test_bins_of_t_are_those_of_all_columns_and_rows(shape: tuple[int, int, int]) -> None:
    """A step of 64 voxels would take one column in 64 columns: that of a masked edge."""
    places = torch.arange(float(np.prod(shape)), dtype=torch.float64).view(1, *shape)
    found = torch.from_numpy(edge_voxels(places))[0].long()
    assert len(found) <= 1 << 14
    assert len(found) >= min(places.numel(), 9000)
    assert {*(found % shape[2]).tolist()} == {*range(shape[2])}
    assert {*(found // shape[2] % shape[1]).tolist()} == {*range(shape[1])}
    assert {*(found // (shape[1] * shape[2])).tolist()} == {*range(shape[0])}


def test_what_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match=r"no mode of a box of 600 x 96 x 100 Mpc lies in the sh"):
        Power.spherical(BOX, [(0.001, 0.002)])
    with pytest.raises(ValueError, match=r"lies in k_perp = 0\.\.0\.01, k_par = 0\.\.0\.001 /Mpc"):
        Power.cylindrical(BOX, [(0.0, 0.01)], [(0.0, 0.001)])
    with pytest.raises(ValueError, match=r"cube shape mismatch: \(10, 20, 24\) != \(10, 24, 20\)"):
        Power.spherical(BOX, shells(BOX, 3))(torch.zeros(1, 10, 20, 24))
