"""The CUDA form of every kernel, compiled by NVRTC (which needs no GPU): only .rn arithmetic."""

from __future__ import annotations

import re

import pytest
from support.nvrtc import compile_ptx
from support.user_models import everything

from streamtrain.bench.roofline import count
from streamtrain.bench.variants import VARIANTS
from streamtrain.bins import LuminosityBins
from streamtrain.generator import kernel_draws
from streamtrain.luminosity.registry import MODELS, user_model
from streamtrain.luminosity.trace import trace
from streamtrain.numerics.backend import kernel_source
from streamtrain.numerics.gpu_code import CUDA_FLAGS

ARCHITECTURES = [
    ("sm_80", "sm_90"),
    pytest.param(("sm_100", "sm_120"), marks=pytest.mark.slow),
]
"""For those of a row, NVRTC emits the same instructions: Blackwell's come from a newer compiler."""
SOURCES = [
    ("observe.cu", ""),
    ("label.cu", ""),
    ("rates.cu", ""),
    ("draw.cu", ""),
    *(("paint.cu", n) for n in MODELS),
]
SOURCES += [("paint.cu", name) for name in ("everything", "unequal bins", "emitters")]
UNEQUAL = LuminosityBins.between([3.0, 4.0, 4.2, 5.5, 5.5001, 7.0])


def source_of(file: str, model: str, bins: LuminosityBins | None = None) -> str:
    if not model:
        return kernel_source(file, kernel_draws.source() if file == "draw.cu" else "")
    if model == "emitters":
        return (
            "#define NUM_ADJUSTMENTS 3\n#define LINE_WIDTH 1\n#define LINE_INCLINED\n"
            + source_of(file, "li16")
        )
    if model == "unequal bins":
        return source_of(file, "li16", UNEQUAL)
    entry = MODELS.get(model) or user_model(everything)
    traced = trace(entry.function, entry.traced_parameters, {"nu_rest_GHz": 115.27})
    return kernel_source(file, traced.source + (bins.source() if bins else ""))


def loose_instructions(ptx: str) -> list[str]:
    """Floating-point instructions whose result is not one IEEE operation rounded to nearest."""
    opcodes = re.findall(r"^\s*(?:@!?%p\d+\s+)?([a-z][a-z0-9_.]+)[ \t].*;$", ptx, re.MULTILINE)
    floating = [o for o in opcodes if re.search(r"\.[bf]?f(16|32|64)", o)]
    free = ("mov", "ld", "st", "setp", "selp", "neg", "abs", "min", "max", "testp", "copysign")
    bad = []
    for opcode in floating:
        stem, *modifiers = opcode.split(".")
        exact = stem in free or (
            stem in ("add", "sub", "mul", "div", "rcp", "sqrt") and "rn" in modifiers
        )
        if stem == "cvt":  # int <-> float: to nearest or, in C's (int), towards zero; f32 -> f64
            exact = bool({"rn", "rzi", "rni"} & set(modifiers)) or modifiers[-2:] == ["f64", "f32"]
        if not exact or {"ftz", "approx", "full"} & set(modifiers):
            bad.append(opcode)
    return bad


@pytest.mark.parametrize(("file", "model"), SOURCES, ids=["-".join(s) for s in SOURCES])
@pytest.mark.parametrize("architectures", ARCHITECTURES, ids="-".join)
def test_ptx_is_plain_ieee_arithmetic(
    file: str, model: str, architectures: tuple[str, ...]
) -> None:
    """The same for all of them: test_ptx.py executes that of one."""
    source = source_of(file, model)
    found = {a: compile_ptx(source, [*CUDA_FLAGS, f"-arch={a}"]) for a in architectures}
    assert len({ptx.replace(f".target {a}", "") for a, ptx in found.items()}) == 1
    ptx = found[architectures[-1]]
    entries = re.findall(r"\.entry (\w+)\(", ptx)
    assert entries and not any(name.startswith("_Z") for name in entries), "not named as in C"
    assert f".target {architectures[-1]}" in ptx
    assert re.search(r"\bmul\.rn\.f(32|64)\b", ptx) or file == "label.cu"
    assert loose_instructions(ptx) == []
    assert not re.search(r"\bfma|\bmad\.[^;]*f(32|64)|\.ftz|\.approx", ptx)
    in_memory = ("observe.cu", "draw.cu")  # rows of a matrix, and a machine's registers
    assert "local" not in ptx or file in in_memory, "a halo's numbers are not in registers"


def test_instructions_of_a_halo_are_counted() -> None:
    """By hand, of float64: a halo's place takes 12 multiplications, 8 additions and 7 conversions,
    its deposit 6 more. In the rest, Philox's 10 rounds of two products, four xors and two additions
    for two halos are most. A model that computes more costs more."""
    few, many = (
        count(compile_ptx(source_of("paint.cu", name), [*CUDA_FLAGS, "-arch=sm_90"]))
        for name in ("breysse15", "chung22")
    )
    assert few is not None and many is not None
    assert 27 <= few.bits64 <= 40
    assert 150 <= few.bits32 <= 400
    assert many.bits32 > few.bits32 and many.bits64 == few.bits64


def test_the_check_sees_contraction() -> None:
    """Without --fmad=false the compiler fuses, and `loose_instructions` says so."""
    flags = [f for f in CUDA_FLAGS if not f.startswith("--fmad")]
    ptx = compile_ptx(source_of("paint.cu", "li16"), [*flags, "-arch=sm_80"])
    assert any(opcode.startswith("fma") for opcode in loose_instructions(ptx))
    ptx = compile_ptx(source_of("paint.cu", "li16"), [*CUDA_FLAGS, "-arch=sm_80", "-use_fast_math"])
    assert any("approx" in opcode or "ftz" in opcode for opcode in loose_instructions(ptx))


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_compiled_as_they_say(name: str) -> None:
    """Bounds of threads and blocks, or none, and the same plain arithmetic."""
    variant = VARIANTS[name]
    options = [*CUDA_FLAGS, *variant.flags, "-arch=sm_90"]
    ptx = compile_ptx(variant.prologue + source_of("paint.cu", "li16"), options)
    threads = re.findall(r"\.maxntid (\d+)", ptx)
    blocks = re.findall(r"\.minnctapersm (\d+)", ptx)
    bounded = variant.resident is not None
    assert threads == ([str(variant.threads)] if bounded else [])
    assert blocks == ([str(variant.resident)] if bounded else [])
    assert loose_instructions(ptx) == []
