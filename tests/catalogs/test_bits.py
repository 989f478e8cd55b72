"""A lightcone has the same bits on every x86-64 processor, whatever libraries make of it there."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import ROOT

from streamtrain.catalogs.synthesis import arrays
from streamtrain.catalogs.synthesis.arrays import NUMPY
from streamtrain.catalogs.synthesis.box import settled
from streamtrain.catalogs.synthesis.density import PowerTable, _smooth_basis
from streamtrain.catalogs.synthesis.synthesize import synthesize
from streamtrain.cosmology import Cosmology

SKIES: dict[str, dict[str, Any]] = {
    "b2d997e67cc9c315": {
        "footprint_deg": (0.3, 0.3), "z_range": (2.8, 2.9), "min_mass_Msun": 1e11,
    },
    "8bcd9ba9eccf6e52": {
        "footprint_deg": (0.5, 0.2), "z_range": (0.5, 1.0), "min_mass_Msun": 1e11,
        "mass_function": "watson13_fof", "infall": 0.3,
    },
    "1e7460b1bd9b3b77": {
        "footprint_deg": (0.3, 0.3), "z_range": (5.5, 6.5), "min_mass_Msun": 1e10,
        "abundance": 1.3, "abundance_tilt": 0.1, "bias_factor": 1.1,
    },
}  # fmt: skip
"""Options of lightcones of seed 7, by how their digests begin."""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere the last bits are others")
@pytest.mark.parametrize("digest", SKIES)
def test_digests_are_pinned(digest: str) -> None:
    """With NumPy 1.26 and 2.4, SciPy 1.11 and 1.17, on Intel with and without AVX and AVX-512. A
    change that moves them raises METHOD_REVISION or METHOD_VERSION, and the changelog says why."""
    assert synthesize(7, **SKIES[digest]).digest[:16] == digest


def test_the_matrix_library_decides_nothing() -> None:
    """Its kernels of an older processor, and two of its threads, in a process of their own."""
    code = (
        "import json, sys\n"
        "from streamtrain.catalogs.synthesis.synthesize import synthesize\n"
        "print(synthesize(7, **json.loads(sys.argv[1])).digest)\n"
    )
    options = next(iter(SKIES.values()))
    other = {"OPENBLAS_CORETYPE": "Nehalem", "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    other |= {"MKL_CBWR": "COMPATIBLE", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(options)],
        env=os.environ | other,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == synthesize(7, **options).digest


def one_by_one(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """The product of two matrices, added up from the first term to the last."""
    total = left[:, :1] * right[:1]
    for k in range(1, left.shape[1]):
        total = total + left[:, k : k + 1] * right[k : k + 1]
    return total


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_are_added_up_in_order(
    dtype: Any, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of wider matrices than are made at a time, of stacks of them, and where NumPy's own
    loops are not to be had."""
    if plain and not arrays._einsum_is_plain():
        pytest.skip("NumPy's loops fuse multiplications and additions here")
    monkeypatch.setattr(arrays, "_einsum_is_plain", lambda: plain)
    rng = np.random.default_rng(3)
    left, right = rng.normal(size=(9, 31)).astype(dtype), rng.normal(size=(31, 5001)).astype(dtype)
    out = np.empty((9, 5001), dtype)
    NUMPY.product(left, right, out)
    np.testing.assert_array_equal(out, one_by_one(left, right))
    stack = right.reshape(31, 3, 1667).transpose(1, 0, 2)
    out = np.empty((3, 9, 1667), dtype)
    NUMPY.product(left, stack, out)
    for each, matrix in zip(out, stack, strict=True):
        np.testing.assert_array_equal(each, one_by_one(left, matrix))
    wave, other = left[:, :9] + 1j * left[:, 9:18], right[:9] - 2j * right[9:18]
    out = np.empty((9, 5001), np.complex128)
    NUMPY.product(wave.astype(np.complex128), other.astype(np.complex128), out)
    np.testing.assert_allclose(out, wave @ other, atol=1e-4 if dtype == np.float32 else 1e-12)


def test_few_functions_make_all_waves() -> None:
    """Waves on an interval much shorter than their box: orthonormal functions that make each to
    1e-6, hardly more of them than singular vectors would be."""
    x, k = 2.5 * (np.arange(90) - 44.5), 2.0 * np.pi / 800.0 * np.arange(-22, 23)
    phases = np.outer(x, k)
    basis, weights = _smooth_basis(phases)
    assert basis.dtype == np.float32 and weights.dtype == np.complex128
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=2e-6)
    np.testing.assert_allclose(basis @ weights, np.exp(1j * phases), atol=3e-6)
    waves = np.exp(1j * phases)
    singular = np.linalg.svd(np.hstack([waves.real, waves.imag]), compute_uv=False)
    assert basis.shape[1] <= (singular > 1e-6 * singular[0]).sum() + 3 < len(k) - 10


def test_the_power_of_a_table() -> None:
    """Between its nodes, and constant beyond them."""
    k = np.geomspace(2e-3, 5.0, 3001)
    found = PowerTable(Cosmology(), 1e-3, 8.0)(k**2)
    np.testing.assert_allclose(found, Cosmology().linear_power(k), rtol=2e-6)
    ends = PowerTable(Cosmology(), 0.01, 0.1)(np.array([0.0, 5e-5, 0.02, 1.0]))
    assert ends[0] == ends[1] > ends[2] == ends[3]


def test_settled_numbers_have_no_last_bits() -> None:
    """A table and its neighbours in float64 become one."""
    table = np.random.default_rng(1).normal(size=1000) * 1e3
    for towards in (-np.inf, np.inf):
        np.testing.assert_array_equal(settled(np.nextafter(table, towards)), settled(table))
    np.testing.assert_allclose(settled(table), table, rtol=6e-8)
