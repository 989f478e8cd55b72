"""limlam_mocker's runs (tests/data/README.md) in the terms of `reference`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support import SHARED, TESTS
from support import reference as ref

CARRIED = ["v2_padmanabhan_rect_intensity", "v3_breysse_offset", "v6_edge_ties"]
SHARED_ONLY = ["v1_li_square", "v4_li_rotated_subfield", "v5_li_co21_small"]


@dataclass
class Case:
    """One run of limlam_mocker."""

    name: str
    arrays: dict[str, NDArray[Any]]
    params: dict[str, Any]
    header: dict[str, float]

    def halos(self) -> tuple[NDArray[np.float64], ...]:
        """x, y, z, M, z_obs in float64, in limlam's frame of the field.

        Offsets are plain differences of ra and dec there, so the position is built again at the
        same distance; a rotated case is rolled before that.
        """
        x, y, z, mass, z_obs = (
            self.arrays[f"halo_{key}"].astype(np.float64) for key in ("x", "y", "z", "M", "zhalo")
        )
        x, y, z = ref.pose(x, y, z, roll_deg=self.params.get("theta", 0.0))
        centre = self.header.get("cen_x_fov", 0.0), self.header.get("cen_y_fov", 0.0)
        if centre != (0.0, 0.0):
            ra, dec, chi = ref.sky(x, y, z)
            x, y, z = ref.position(ra - centre[0], dec - centre[1], chi)
        return x, y, z, mass, z_obs

    def grid(self) -> dict[str, Any]:
        """Field, shape and band for `reference.paint`."""
        p = self.params
        return {
            "fov_deg": (p["fov_x"], p["fov_y"]),
            "shape": (p["nmaps"], p["npix_y"], p["npix_x"]),
            "nu_GHz": (p["nu_i"], p["nu_f"]),
        }

    def luminosity(self) -> NDArray[np.float64]:
        """L of every halo by our formula; zero where the oracle gives no star-formation rate."""
        _, _, _, mass, z_obs = self.halos()
        coeffs = self.params["coeffs"]
        if self.params["model"] == "Breysse":
            return ref.breysse15(mass, z_obs, A=coeffs[0], b=coeffs[1])
        if self.params["model"] == "Padmanabhan":
            return ref.padmanabhan18(mass, z_obs)
        sfr = np.zeros(len(mass))
        sfr[self.arrays["keep"]] = self.arrays["sfr"]
        delta, alpha, beta = coeffs[:3]
        # limlam keeps L = 4.9e-5 L' for every line: no nu_rest here.
        return ref.li16(mass, z_obs, sfr, log10_delta_mf=delta, alpha=alpha, beta=beta)

    def oracle_luminosity(self, key: str) -> NDArray[np.float64]:
        """limlam's own L, zero for the halos that it does not keep."""
        luminosity = np.zeros(len(self.arrays["keep"]))
        luminosity[self.arrays[key.replace("Lco", "keep")]] = self.arrays[key]
        return luminosity

    def paint(self, luminosity: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """`reference.paint` with limlam's constants."""
        intensity = self.params["units"] == "intensity"
        return ref.paint(
            *self.halos(),
            luminosity,
            **self.grid(),
            nu_rest_GHz=self.params["nu_rest"],
            min_mass_Msun=self.params["min_mass"],
            units="Jy/sr" if intensity else "uK",
            k_t=ref.K_T_LIMLAM,
            k_jy=ref.K_JY_LIMLAM,
        )

    def map(self, key: str) -> NDArray[np.float64]:
        """limlam's cube [ra, dec, freq] in our order [freq, dec, ra]."""
        return self.arrays[key].transpose(2, 1, 0)


def load(name: str) -> Case:
    if name in CARRIED:
        folder = TESTS / "data"
    else:
        folder = SHARED / "data" / "oracle"
        if not (folder / f"{name}.npz").is_file():
            pytest.skip(f"{name} samples a published table, so it is not carried; not in {folder}")
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    about = json.loads((folder / f"{name}.json").read_text())
    return Case(name, arrays, about["params"], about["cosmo_header"])
