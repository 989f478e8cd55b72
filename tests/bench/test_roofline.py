"""What a sample must cost: bytes enumerated by hand, instructions counted in known code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import small

from streamtrain.bench.roofline import (
    Instructions,
    Rates,
    Work,
    arithmetic_rate,
    bounds,
    bytes_of,
    columns_read,
    copy_rate,
    count,
    deposit_rate,
    work_of,
)
from streamtrain.config import Config
from streamtrain.cosmology import Cosmology
from streamtrain.generator.generator import Generator
from streamtrain.numerics.backend import assembly, kernels_for

CPU = torch.device("cpu")


def tiny(model: str, **sections: object) -> Generator:
    """Ten halos of one tile, all in the field and in the band."""
    ten = small.lightcone(num=10)
    z = np.linspace(2.7, 2.9, 10)
    sky = type(ten).from_arrays(
        np.linspace(-1, 1, 10), np.linspace(-1, 1, 10), Cosmology().comoving_distance(z),
        np.full(10, 1e12), z,
        cosmology=ten.cosmology, footprint_deg=(-0.6, 0.6, -0.6, 0.6), z_range=(2.3, 3.5),
        min_mass_Msun=2.5e10,
    )  # fmt: skip
    config: Config = small.config(emit={"line": {"model": model}}, label={"bins": 5}, **sections)
    return Generator(config, "train", "cpu", 1, lightcones=[sky])


def test_bytes_of_a_tiny_sample() -> None:
    """Ten rows: five float32 and an int16, and log SFR, the one column of Li+16. The painted cube
    has 9 x 21 x 21 voxels of 8 bytes, zeroed and read; the pooled map, 9 x 7 x 7, is made outside
    of the kernel, so the operators pool and mask both count. Counts: 5 bins, 3 more;
    written and read. Label: 5 float32."""
    generator = tiny("li16", observe={"mask": {"edge_pixels": 1}, "log_modulus": {}})
    voxels = 9 * 21 * 21
    halos = 10 * (5 * 4 + 2 + 4)
    cube = voxels * 8 + voxels * 8 + voxels * 4
    operators = 2 * (voxels * 4 + voxels * 4)
    work = work_of(generator, range(3))
    assert work.bytes == halos + cube + operators + 2 * 8 * 4 + 5 * 4
    assert (work.rows, work.painted) == (10, 10)


def test_a_pool_that_is_part_of_painting_makes_the_cube_smaller() -> None:
    generator = tiny("li16", observe={"pool": {"factor": [3, 3, 3]}})
    voxels = 3 * 7 * 7
    assert work_of(generator, range(2)).bytes == 10 * 26 + voxels * (16 + 4) + 64 + 20


def test_bytes_of_each_part() -> None:
    nothing = dict.fromkeys(("rows", "columns", "painted_voxels", "voxels", "operators"), 0)
    empty = bytes_of(**nothing, bins=0, outputs=0)
    assert empty == 2 * 4 * 3
    for changes, expected in (
        ({"rows": 7, "columns": 2}, 7 * 30),
        ({"painted_voxels": 11}, 11 * 16),
        ({"voxels": 11}, 44),
        ({"voxels": 11, "operators": 3}, 44 + 3 * 88),
    ):
        assert bytes_of(**(nothing | changes), bins=0, outputs=0) - empty == expected


@pytest.mark.parametrize(
    ("model", "columns"), [("li16", 1), ("chung22", 0), ("breysse15", 1), ("yang22_co10", 3)]
)
def test_columns_that_painting_reads(model: str, columns: int) -> None:
    """log SFR; nothing; the duty cycle, which is computed once, as is yang22's all."""
    [emission] = tiny(model).painter.compiled_models
    assert columns_read(emission) == columns


def test_bounds() -> None:
    work = Work(rows=100.0, painted=50.0, bytes=4000.0)
    rates = Rates(bytes=1000.0, deposits=25.0, float32=200.0, float64=50.0)
    counted = Instructions(bits32=10, bits64=5)
    on_cpu = bounds(work, rates, counted, on_gpu=False)
    assert on_cpu == {"bytes": 4.0, "deposits": 2.0, "instructions": 1000 / 200 + 500 / 50}
    on_gpu = bounds(work, rates, counted, on_gpu=True)
    assert on_gpu["instructions"] == max(750 / 200, 250 / 50)
    assert "instructions" not in bounds(work, rates, None, on_gpu=True)


def test_rates_are_those_of_a_computer() -> None:
    """Between a tenth of a slow core and more than any: not a timed test, but units are right."""
    kernels = kernels_for("cpu", "rates.cu")
    assert 1e8 < copy_rate(CPU, 4_000_000, 0.0) < 1e13
    assert 1e6 < deposit_rate(kernels, CPU, 4096, 1, 0.0) < 1e11
    assert 1e8 < arithmetic_rate(kernels, CPU, torch.float64, 0.0) < 1e13


def test_deposits_are_made() -> None:
    kernels, cubes = kernels_for("cpu", "rates.cu"), torch.zeros((2, 64), dtype=torch.int64)
    kernels.elementwise("rate_deposits", 2, 64_000, np.uint32(64), cubes)
    assert cubes.sum(1).tolist() == [64_000, 64_000]
    assert (cubes > 800).all() and (cubes < 1200).all()  # 1000 +- 32


def test_chains_compute_what_they_say() -> None:
    """Twelve chains from 0..11: after one turn the sum of 2 k + 1, after two that of 4 k + 3."""
    kernels, out = kernels_for("cpu", "rates.cu"), torch.zeros(3)
    for turns, expected in ((1, 144.0), (2, 300.0)):
        kernels.elementwise(
            "rate_float32", 1, 3, np.int32(turns), np.float32(2), np.float32(1), out
        )
        assert out.tolist() == [expected] * 3


PTX = """
.visible .entry paint(
	.param .u64 paint_param_0
)
{
	.reg .pred %p<2>;
	mov.u32 %r1, %tid.x;
$L__BB0_1:
	ld.global.f32 %f1, [%rd1];
	mul.rn.f64 %fd2, %fd1, %fd1;
	div.rn.f64 %fd3, %fd2, %fd1;
	mov.f32 %f3, %f2;
	@%p1 bra $L__BB0_2;
	add.rn.f32 %f2, %f1, %f1;
$L__BB0_2:
	sqrt.rn.f64 %fd4, %fd1;
	mul.rn.f64 %fd4, %fd4, %fd1;
	@%p2 bra $L__BB0_2;
	sub.rn.f32 %f4, %f1, %f2;
	atom.global.add.u64 %rd3, [%rd2], %rd4;
	@%p1 bra $L__BB0_1;
	ret;

}
"""
X86 = """
paint:
	movq	%rsi, %rax
	leaq	8(%rax), %rcx
.L3:
	vmovsd	(%rax), %xmm0
	vmulsd	%xmm0, %xmm0, %xmm1
	vdivsd	%xmm0, %xmm1, %xmm2
	vcvtsd2ss	%xmm2, %xmm2, %xmm2
	vaddss	%xmm2, %xmm2, %xmm3
	imulq	$5, %rdx, %rdx
	xorl	%edx, %esi
	addq	$4, %rax
	cmpq	%rax, %rcx
	jne	.L3
	ret
	.cfi_endproc
other:
	vaddsd	%xmm0, %xmm0, %xmm0
"""


@pytest.mark.parametrize(
    ("text", "expected"), [(PTX, Instructions(2, 5)), (X86, Instructions(3, 10))]
)
def test_instructions_of_known_code(text: str, expected: Instructions) -> None:
    """PTX, for two halos: load, addition, subtraction and atomic; multiplication, and a division
    for 8; not the inner loop with the root. x86-64, for one: conversion, addition and xor;
    multiplication, division and the multiplication of Philox."""
    assert count(text) == expected


def test_other_processors_have_no_count() -> None:
    assert count("paint:\n\tfmul d0, d1, d2\n\tret\n") is None


def test_instructions_of_the_kernel() -> None:
    """By hand at least: distance and deposit (9 and 5 of 64 bits); 3 x 3 rotation, a place of 40, a
    logarithm, a sine and an exponential (32 bits). What few halos need is not among them."""
    [emission] = tiny("li16").painter.compiled_models
    counted = count(assembly(CPU, "paint.cu", emission.source) or "")
    if counted is None:
        pytest.skip("not an x86-64 processor")
    assert 14 <= counted.bits64 <= 100 and 120 <= counted.bits32 <= 500
