"""What one would write without streamtrain on a GPU: the same sample with torch and with CuPy.

The sample is that of `alternatives.numpy_user`: rolled, projected, Li+16 with drawn parameters and
scatter, painted into the coarse cube, noise, log-modulus. All that does not change between samples
is on the device beforehand.

`torch_batches`: torch tensors of any device, `index_add_`, several samples side by side.
`array_user`: NumPy's interface, so NumPy or CuPy, with an addition at indices (`numpy.add.at`,
`cupyx.scatter_add`: float32 atomics on a GPU).
`array_pipeline`: likewise, but in limlam_mocker's order, with `histogramdd` into the cube of
256 x 256 x 100 voxels, which is pooled afterwards; star-formation rates are computed beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streamtrain.bench.alternatives import DRAWS, Alternative, kept
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.sfr import log10_sfr
from streamtrain.grid import K_UK, Grid

EDGES = np.linspace(3.5, 7.0, 50)
"""log10(L/Lsun) of the bins."""
LCO_UNIT = float(np.log10(4.9e-5))
SCATTER_DEX, SCATTER_MEAN_DEX = 0.37, -0.13
POOLING = (4, 4, 10)
"""Fine voxels (ra, dec, freq) in one of the coarse cube."""
SMOOTHING_PIXELS = 3 / 2.355


@dataclass(frozen=True)
class Drawn:
    """What differs between B samples of N halos: angle, delta, alpha, beta [B, 1], scatter [B, N]
    and noise [B, n_freq, n_dec, n_ra], both of standard normal numbers."""

    angle: Tensor
    delta: Tensor
    alpha: Tensor
    beta: Tensor
    scatter: Tensor
    noise: Tensor


class TorchField:
    """The halos of a lightcone that lie in a grid's band, on a device, float32 [N] each."""

    def __init__(
        self, lightcone: Lightcone, grid: Grid, min_mass_Msun: float, device: torch.device
    ) -> None:
        positions, log_sfr, channel = kept(lightcone, grid, min_mass_Msun)
        self.grid, self.device = grid, device
        self.x, self.y, self.z = (torch.from_numpy(p).to(device) for p in positions)
        self.log_sfr = torch.from_numpy(log_sfr).to(device)
        self.channel = torch.from_numpy(channel).to(device, torch.int64)
        chi2 = self.x.square() + self.y.square() + self.z.square()
        self.inverse_chi = chi2.rsqrt()
        self.factor = grid.intensity_factor / chi2
        self.half_ra, self.half_dec = (float(np.radians(side) / 2) for side in grid.fov_deg)

    def __len__(self) -> int:
        return len(self.x)

    def draw(self, number: int, batch: int) -> Drawn:
        """Random numbers of the device's own generator."""
        own = torch.Generator(self.device).manual_seed(number)
        host = np.random.default_rng(number)
        priors = [host.normal(*p, size=(batch, 1)) for p in DRAWS.values()]
        columns = np.stack([host.uniform(0, 2 * np.pi, (batch, 1)), *priors]).astype(np.float32)
        angle, delta, alpha, beta = torch.from_numpy(columns).to(self.device)
        sizes = ((batch, len(self)), (batch, *self.grid.shape))
        scatter, noise = (torch.randn(s, generator=own, device=self.device) for s in sizes)
        return Drawn(angle, delta, alpha, beta, scatter, noise)

    def paint(self, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Cubes float32 [B, n_freq, n_dec, n_ra] and counts [B, 49]. What lies outside goes into
        one more voxel and one more bin, so that no step waits for the GPU."""
        num_freq, num_dec, num_ra = self.grid.shape
        cosine, sine = drawn.angle.cos(), drawn.angle.sin()
        ra = torch.atan2(-(cosine * self.x - sine * self.y), self.z)
        dec = torch.asin((sine * self.x + cosine * self.y) * self.inverse_chi)
        inside = (ra.abs() < self.half_ra) & (dec.abs() < self.half_dec)
        log_l = (self.log_sfr + (10 - drawn.delta) - drawn.beta) / drawn.alpha + LCO_UNIT
        log_l = log_l + (drawn.scatter * SCATTER_DEX + SCATTER_MEAN_DEX)
        column = ((ra + self.half_ra) * (num_ra / (2 * self.half_ra))).long().clamp(0, num_ra - 1)
        row = ((dec + self.half_dec) * (num_dec / (2 * self.half_dec))).long()
        row = row.clamp(0, num_dec - 1)
        voxels, bins = num_freq * num_dec * num_ra, len(EDGES) - 1
        sample = torch.arange(len(drawn.scatter), device=self.device)[:, None]
        voxel = (self.channel * num_dec + row) * num_ra + column
        voxel = torch.where(inside, voxel, voxels) + sample * (voxels + 1)
        weight = self.factor * torch.exp2(log_l * float(np.log2(10.0)))
        bin_ = ((log_l - EDGES[0]) * (bins / (EDGES[-1] - EDGES[0]))).long().clamp(0, bins - 1)
        good = inside & (log_l >= EDGES[0]) & (log_l < EDGES[-1])
        bin_ = torch.where(good, bin_, bins) + sample * (bins + 1)
        cube = weight.new_zeros(len(sample) * (voxels + 1))
        cube.index_add_(0, voxel.view(-1), weight.view(-1))
        counts = torch.zeros(len(sample) * (bins + 1), dtype=torch.int32, device=self.device)
        counts.index_add_(0, bin_.view(-1), torch.ones_like(bin_, dtype=torch.int32).view(-1))
        cube = cube.view(-1, voxels + 1)[:, :-1].reshape(drawn.noise.shape) + drawn.noise
        cube = cube.sign() * torch.log10(cube.abs() + 1)
        return cube, counts.view(-1, bins + 1)[:, :-1]


def torch_batches(
    lightcone: Lightcone,
    grid: Grid,
    min_mass_Msun: float,
    device: torch.device,
    batch: int = 1,
    compiled: bool = False,
) -> Alternative:
    """torch's `index_add_`, `batch` samples side by side; compiled: by torch.compile, which makes
    one kernel of the arithmetic."""
    field = TorchField(lightcone, grid, min_mass_Msun, device)
    paint = torch.compile(field.paint, dynamic=False) if compiled else field.paint

    @torch.no_grad()
    def make(number: int) -> tuple[Tensor, Tensor]:
        cube, counts = paint(field.draw(number, batch))
        return cube, counts

    name = f"torch index_add_, {batch} at a time" + (", compiled" if compiled else "")
    return Alternative(name, make, batch)


def array_user(
    xp: Any, add_at: Callable[..., Any], lightcone: Lightcone, grid: Grid, min_mass_Msun: float
) -> Alternative:
    """Float32 arrays of the module `xp` (numpy or cupy), `add_at(cube, voxels, weights)`."""
    positions, rates, channels = kept(lightcone, grid, min_mass_Msun)
    x, y, z, log_sfr = (xp.asarray(a) for a in (*positions, rates))
    channel = xp.asarray(channels)
    chi2 = x * x + y * y + z * z
    inverse_chi = (1 / xp.sqrt(chi2)).astype(np.float32)
    factor = (grid.intensity_factor / chi2).astype(np.float32)
    num_freq, num_dec, num_ra = grid.shape
    half_ra, half_dec = (np.float32(np.radians(side) / 2) for side in grid.fov_deg)
    scales = (np.float32(num_ra / (2 * half_ra)), np.float32(num_dec / (2 * half_dec)))
    bins = len(EDGES) - 1

    def make(number: int) -> tuple[Any, Any]:
        host, own = np.random.default_rng(number), xp.random.default_rng(number)
        angle = host.uniform(0, 2 * np.pi)
        cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        delta, alpha, beta = (np.float32(host.normal(*d)) for d in DRAWS.values())
        ra = xp.arctan2(-(cosine * x - sine * y), z)
        dec = xp.arcsin((sine * x + cosine * y) * inverse_chi)
        inside = (xp.abs(ra) < half_ra) & (xp.abs(dec) < half_dec)
        ra, dec = ra[inside], dec[inside]
        log_l = (log_sfr[inside] + (np.float32(10) - delta) - beta) / alpha + np.float32(LCO_UNIT)
        scatter = own.standard_normal(len(log_l), dtype=np.float32)
        log_l = log_l + (scatter * np.float32(SCATTER_DEX) + np.float32(SCATTER_MEAN_DEX))
        column = xp.minimum(((ra + half_ra) * scales[0]).astype(np.int32), num_ra - 1)
        row = xp.minimum(((dec + half_dec) * scales[1]).astype(np.int32), num_dec - 1)
        voxel = (channel[inside] * num_dec + row) * num_ra + column
        painted = xp.zeros(num_freq * num_dec * num_ra, np.float32)
        add_at(painted, voxel, factor[inside] * xp.exp2(log_l * np.float32(np.log2(10))))
        good = (log_l >= np.float32(EDGES[0])) & (log_l < np.float32(EDGES[-1]))
        bin_ = ((log_l - np.float32(3.5)) * np.float32(bins / 3.5)).astype(np.int32)
        counts = xp.bincount(bin_[good], minlength=bins)[:bins]
        noise = own.standard_normal(grid.shape, dtype=np.float32)
        cube = painted.reshape(grid.shape) + noise
        return xp.sign(cube) * xp.log10(xp.abs(cube) + 1), counts

    return Alternative(f"{_name(xp)} addition at indices, float32", make)


def array_pipeline(
    xp: Any,
    gaussian_filter: Callable[..., Any],
    lightcone: Lightcone,
    grid: Grid,
    min_mass_Msun: float,
) -> Alternative:
    """limlam_mocker's order of work with `histogramdd` of the module `xp` (numpy or cupy), float64;
    the cube is [ra, dec, freq]."""
    num_freq, num_dec, num_ra = (n * p for n, p in zip(grid.shape, reversed(POOLING), strict=True))
    positions = [xp.asarray(getattr(lightcone, f"{a}_Mpc").astype(np.float64)) for a in "xyz"]
    masses, redshifts = (
        xp.asarray(a.astype(np.float64)) for a in (lightcone.mass_Msun, lightcone.z_obs)
    )
    rates = xp.asarray(10 ** log10_sfr(lightcone.mass_Msun, lightcone.z_obs).astype(np.float64))
    low, high = grid.z_range
    half_ra, half_dec = (side / 2 for side in grid.fov_deg)
    edges = (
        xp.linspace(-half_ra, half_ra, num_ra + 1),
        xp.linspace(-half_dec, half_dec, num_dec + 1),
        xp.linspace(grid.nu_GHz[1], grid.nu_GHz[0], num_freq + 1),
    )
    luminosities = xp.asarray(10**EDGES)
    sigma = 2.302585 * 0.3
    pixel, dnu = grid.pixel_sr / (POOLING[0] * POOLING[1]), grid.dnu_GHz / POOLING[2]

    def make(number: int) -> tuple[Any, Any]:
        host, own = np.random.default_rng(number), xp.random.default_rng(number)
        angle = host.uniform(0, 2 * np.pi)
        x = np.cos(angle) * positions[0] - np.sin(angle) * positions[1]
        y = np.sin(angle) * positions[0] + np.cos(angle) * positions[1]
        z = positions[2]
        chi = xp.sqrt(x**2 + y**2 + z**2)
        ra, dec = xp.degrees(xp.arctan2(-x, z)), xp.degrees(xp.arcsin(y / chi))
        keep = (masses > min_mass_Msun) & (redshifts >= low) & (redshifts <= high)
        keep &= (xp.abs(ra) <= half_ra) & (xp.abs(dec) <= half_dec)
        ra, dec, chi, z_obs = ra[keep], dec[keep], chi[keep], redshifts[keep]
        delta, alpha, beta = (host.normal(*d) for d in DRAWS.values())
        scatter = own.standard_normal((2, len(ra)))
        sfr = rates[keep] * xp.exp(sigma * scatter[0] - 0.5 * sigma**2)
        luminosity = 4.9e-5 * (sfr * 1e10 / 10**delta * 10**-beta) ** (1 / alpha)
        luminosity = luminosity * xp.exp(sigma * scatter[1] - 0.5 * sigma**2)
        counts, _ = xp.histogram(luminosity, luminosities)
        nu = grid.nu_rest_GHz / (1 + z_obs)
        weight = K_UK / 2 / nu**2 * luminosity
        weight = weight / (4 * np.pi * chi**2 * (1 + z_obs) ** 2 * dnu * pixel)
        cube, _ = xp.histogramdd(xp.stack((ra, dec, nu), axis=-1), edges, weights=weight)
        sizes = [n for size, p in zip(cube.shape, POOLING, strict=True) for n in (size // p, p)]
        pooled = cube.reshape(sizes).sum((1, 3, 5))
        pooled = pooled + np.sqrt(160) * 3.47 * own.standard_normal(pooled.shape)
        pooled = xp.sign(pooled) * xp.log10(xp.abs(pooled) + 1)
        return gaussian_filter(pooled, (SMOOTHING_PIXELS, SMOOTHING_PIXELS, 0)), counts

    return Alternative(f"{_name(xp)} histogramdd, limlam_mocker's order", make)


def _name(xp: Any) -> str:
    return {"numpy": "NumPy", "cupy": "CuPy"}[xp.__name__]
