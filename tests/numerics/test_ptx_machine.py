"""What executes PTX does as the PTX ISA says, and sees what no kernel may do."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support import ptx
from support.both_kernels import PATTERNS
from support.nvrtc import compile_ptx
from support.ptx import Program, PtxError

from streamtrain.numerics.gpu_code import CUDA_FLAGS

FORMATS: dict[str, tuple[str, str, Any]] = {
    "f32": ("f32", "%f", np.float32),
    "f64": ("f64", "%fd", np.float64),
    "s32": ("b32", "%r", np.int32),
    "u32": ("b32", "%r", np.uint32),
    "s64": ("b64", "%rd", np.int64),
    "u64": ("b64", "%rd", np.uint64),
    "s16": ("b16", "%rs", np.int16),
    "u16": ("b16", "%rs", np.uint16),
    "pred": ("b32", "%p", np.uint32),
}
"""How a type is loaded, the name of its registers, and what NumPy calls it."""
WORDS = [0, 1, 2, 3, 7, 31, 32, 33, 63, 64, 65, 1000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
LONG_WORDS = [
    *WORDS,
    0x7FFFFFFFFFFFFFFF,
    0x8000000000000000,
    0xFFFFFFFFFFFFFFFF,
    0x123456789ABCDEF0,
]
FLOATS = [1.5, -2.5, 3.0, 1e-3, 0.1, 1e10, -1e10, 2147483648.0, -2147483648.0, 4294967295.5, 1e19]
FLOATS += [-1e19, 1.8446744073709552e19, 0.99999, -0.5, 1e-20, 1e20, 2147483520.0]


def inputs(kind: str) -> list[Any]:
    """Numbers of a type that an instruction may stumble over."""
    dtype = FORMATS[kind][2]
    if kind == "pred":
        return [0, 1]
    if kind in ("f32", "f64"):
        return [*PATTERNS[torch.float32 if kind == "f32" else torch.float64], *map(dtype, FLOATS)]
    words = np.array(LONG_WORDS, np.uint64)
    return list(dict.fromkeys(words.astype(f"u{np.dtype(dtype).itemsize}").view(dtype).tolist()))


def run(name: str, kinds: list[str], result: str, values: list[tuple[Any, ...]]) -> np.ndarray:
    """What an instruction makes of operands of these types, one thread for each."""
    lines: list[str] = []
    operands: list[str] = []
    for k, kind in enumerate(kinds):
        load, register, dtype = FORMATS[kind]
        lines += [f"ld.param.u64 %rd{k + 1}, [k_param_{k}];"]
        lines += [f"mad.wide.u32 %rd{k + 11}, %r100, {np.dtype(dtype).itemsize}, %rd{k + 1};"]
        where = f"%r{k + 1}" if kind == "pred" else f"{register}{k + 21}"
        lines += [f"ld.global.{load} {where}, [%rd{k + 11}];"]
        if kind == "pred":
            lines += [f"setp.ne.s32 %p{k + 21}, %r{k + 1}, 0;"]
        operands.append(f"{register}{k + 21}")
    store, register, dtype = FORMATS[result]
    target = f"{register}50"
    text = f"{name} {target}, {', '.join(operands)};"
    if name == "high.half":
        text = f"{{ .reg .b32 tmp; mov.b64 {{tmp, {target}}}, {operands[0]}; }}"
    lines.append(text)
    if result == "pred":
        lines += ["selp.u32 %r51, 1, 0, %p50;"]
        target = "%r51"
    wide = dtype
    if np.dtype(dtype).itemsize == 2:  # two of them would share four bytes
        lines += [f"cvt.u32.u16 %r51, {target};"]
        store, target, wide = "b32", "%r51", np.uint32
    n = len(kinds)
    lines += [f"ld.param.u64 %rd{n + 1}, [k_param_{n}];"]
    lines += [f"mad.wide.u32 %rd{n + 11}, %r100, {np.dtype(wide).itemsize}, %rd{n + 1};"]
    lines += [f"st.global.{store} [%rd{n + 11}], {target};", "ret;"]
    parameters = ",\n".join(f"\t.param .u64 k_param_{k}" for k in range(n + 1))
    body = "\n".join(["mov.u32 %r100, %tid.x;", *lines])
    program = Program(f".visible .entry k(\n{parameters}\n)\n{{\n{body}\n}}\n")
    columns = [
        np.array(column, FORMATS[kind][2])
        for kind, column in zip(kinds, zip(*values, strict=True), strict=True)
    ]
    out = np.zeros(len(values), wide)
    arrays = [*columns, out]
    tensors = [torch.from_numpy(a.view(f"i{a.itemsize}")) for a in arrays]
    ptx.launch(program, "k", (1, 1), len(values), 0, tuple(tensors))
    return out if wide is dtype else out.astype(np.uint16).view(dtype)


def whole(value: int, kind: str) -> int:
    """A number as the type holds it."""
    bits = 8 * np.dtype(FORMATS[kind][2]).itemsize
    value &= (1 << bits) - 1
    return value - (1 << bits) if kind[0] == "s" and value >> (bits - 1) else value


def flushed(x: np.floating) -> np.floating:
    return np.copysign(np.float32(0), x) if abs(x) < np.float32(2.0**-126) else x


def least(a: Any, b: Any) -> Any:
    if np.isnan(a) or np.isnan(b):
        return b if np.isnan(a) else a
    return (a if np.signbit(a) else b) if a == b else min(a, b)


def most(a: Any, b: Any) -> Any:
    return -least(-a, -b)


def towards_zero(kind: str, of_nan: int) -> Callable[[Any], int]:
    bits = 8 * np.dtype(FORMATS[kind][2]).itemsize
    low, high = (0, 2**bits - 1) if kind[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)

    def convert(x: Any) -> int:
        if np.isnan(x):
            return of_nan
        return (high if x > 0 else low) if np.isinf(x) else max(low, min(high, int(x)))

    return convert


def inserted(a: int, b: int, position: int, length: int, width: int) -> int:
    position, length = position & 0xFF, length & 0xFF
    mask = ((1 << length) - 1) << position & ((1 << width) - 1)
    return (b & ~mask) | (a << position & mask)


Spec = tuple[list[str], str, Callable[..., Any]]


def of_integers() -> dict[str, Spec]:
    made: dict[str, Spec] = {}
    for t in ("s16", "u16", "s32", "u32", "s64", "u64"):
        bits = int(t[1:])
        made |= {
            f"add.{t}": ([t, t], t, lambda a, b: a + b),
            f"sub.{t}": ([t, t], t, lambda a, b: a - b),
            f"mul.lo.{t}": ([t, t], t, lambda a, b: a * b),
            f"mad.lo.{t}": ([t, t, t], t, lambda a, b, c: a * b + c),
            f"min.{t}": ([t, t], t, min),
            f"max.{t}": ([t, t], t, max),
            f"shr.{t}": ([t, "u32"], t, lambda a, b: a >> b),
            f"setp.lt.{t}": ([t, t], "pred", lambda a, b: a < b),
            f"setp.le.{t}": ([t, t], "pred", lambda a, b: a <= b),
            f"setp.gt.{t}": ([t, t], "pred", lambda a, b: a > b),
            f"setp.ge.{t}": ([t, t], "pred", lambda a, b: a >= b),
            f"setp.eq.{t}": ([t, t], "pred", lambda a, b: a == b),
            f"setp.ne.{t}": ([t, t], "pred", lambda a, b: a != b),
        }
        if bits > 16:
            made |= {
                f"mul.hi.{t}": ([t, t], t, lambda a, b, n=bits: a * b >> n),
                f"div.{t}": ([t, t], t, lambda a, b: abs(a) // abs(b) * (-1 if a * b < 0 else 1)),
                f"rem.{t}": ([t, t], t, lambda a, b: abs(a) % abs(b) * (-1 if a < 0 else 1)),
            }
    for bits in (16, 32, 64):
        t, s, b = f"u{bits}", f"s{bits}", f"b{bits}"
        made |= {
            f"setp.eq.{b}": ([t, t], "pred", lambda a, b: a == b),
            f"setp.ne.{b}": ([t, t], "pred", lambda a, b: a != b),
            f"neg.{s}": ([s], s, lambda a: -a),
            f"not.{b}": ([t], t, lambda a: ~a),
            f"and.{b}": ([t, t], t, lambda a, b: a & b),
            f"or.{b}": ([t, t], t, lambda a, b: a | b),
            f"xor.{b}": ([t, t], t, lambda a, b: a ^ b),
            f"shl.{b}": ([t, "u32"], t, lambda a, b, n=bits: a << min(b, n)),
            f"mov.{b}": ([t], t, lambda a: a),
            f"selp.{b}": ([t, t, "pred"], t, lambda a, b, p: a if p else b),
        }
    made |= {
        "bfi.b32": (["u32"] * 4, "u32", lambda *v: inserted(*v, 32)),
        "bfi.b64": (["u64", "u64", "u32", "u32"], "u64", lambda *v: inserted(*v, 64)),
        "mul.wide.s32": (["s32", "s32"], "s64", lambda a, b: a * b),
        "mul.wide.u32": (["u32", "u32"], "u64", lambda a, b: a * b),
        "mad.wide.s32": (["s32", "s32", "s64"], "s64", lambda a, b, c: a * b + c),
        "mad.wide.u32": (["u32", "u32", "u64"], "u64", lambda a, b, c: a * b + c),
        "shf.l.wrap.b32": (["u32"] * 3, "u32", lambda a, b, c: (b << 32 | a) << (c & 31) >> 32),
        "shf.r.wrap.b32": (["u32"] * 3, "u32", lambda a, b, c: (b << 32 | a) >> (c & 31)),
        "and.pred": (["pred", "pred"], "pred", lambda a, b: a & b),
        "or.pred": (["pred", "pred"], "pred", lambda a, b: a | b),
        "xor.pred": (["pred", "pred"], "pred", lambda a, b: a ^ b),
        "not.pred": (["pred"], "pred", lambda a: 1 - a),
        "mov.pred": (["pred"], "pred", lambda a: a),
        "cvt.s64.s32": (["s32"], "s64", lambda a: a),
        "cvt.u64.u32": (["u32"], "u64", lambda a: a),
        "cvt.u32.u64": (["u64"], "u32", lambda a: a),
        "high.half": (["u64"], "u32", lambda a: a >> 32),
        "cvt.s32.s16": (["s16"], "s32", lambda a: a),
        "cvt.s64.s16": (["s16"], "s64", lambda a: a),
        "cvt.u32.u16": (["u16"], "u32", lambda a: a),
        "cvt.u64.u16": (["u16"], "u64", lambda a: a),
        "cvt.u16.u32": (["u32"], "u16", lambda a: a),
        "cvt.u16.u64": (["u64"], "u16", lambda a: a),
    }
    for name in ("cvta.to.global", "cvta.to.local", "cvta.to.shared"):
        made[f"{name}.u64"] = made[f"{name.replace('.to', '')}.u64"] = made["mov.b64"]
    return made


def of_floats() -> dict[str, Spec]:
    made: dict[str, Spec] = {}
    for suffix in ("f32", "f64", "ftz.f32"):
        t = suffix[-3:]
        z = flushed if "ftz" in suffix else lambda x: x
        values: dict[str, Callable[..., Any]] = {
            "add.rn": lambda a, b: a + b,
            "sub.rn": lambda a, b: a - b,
            "mul.rn": lambda a, b: a * b,
            "div.rn": lambda a, b: a / b,
            "rcp.rn": lambda a: type(a)(1) / a,
            "sqrt.rn": lambda a: np.sqrt(a),
            "neg": lambda a: -a,
            "abs": lambda a: abs(a),
            "min": least,
            "max": most,
        }
        truths: dict[str, Callable[..., bool]] = {
            "eq": lambda a, b: a == b,
            "ne": lambda a, b: a == a and b == b and a != b,
            "lt": lambda a, b: a < b,
            "le": lambda a, b: a <= b,
            "gt": lambda a, b: a > b,
            "ge": lambda a, b: a >= b,
        }
        for name, f in dict(truths).items():
            truths[f"{name}u"] = lambda a, b, f=f: bool(f(a, b)) or a != a or b != b
        truths["num"] = lambda a, b: a == a and b == b
        truths["nan"] = lambda a, b: a != a or b != b
        for name, f in values.items():
            kinds = [t] * f.__code__.co_argcount
            made[f"{name}.{suffix}"] = kinds, t, lambda *v, f=f, z=z: z(f(*map(z, v)))
        for name, f in truths.items():
            made[f"setp.{name}.{suffix}"] = [t, t], "pred", lambda *v, f=f, z=z: f(*map(z, v))
    for kind in ("s32", "u32", "s64", "u64"):
        made[f"cvt.rn.f64.{kind}"] = [kind], "f64", float
        lowest = whole(1 << (int(kind[1:]) - 1), kind)
        made[f"cvt.rzi.{kind}.f64"] = ["f64"], kind, towards_zero(kind, lowest)
    made |= {
        "cvt.rn.f32.s32": (["s32"], "f32", lambda a: np.float32(float(a))),
        "cvt.rn.f32.u32": (["u32"], "f32", lambda a: np.float32(float(a))),
        "cvt.rzi.s32.f32": (["f32"], "s32", towards_zero("s32", 0)),
        "cvt.rzi.ftz.s32.f32": (["f32"], "s32", towards_zero("s32", 0)),
        "cvt.f64.f32": (["f32"], "f64", np.float64),
        "cvt.ftz.f64.f32": (["f32"], "f64", lambda a: np.float64(flushed(a))),
        "cvt.rn.f32.f64": (["f64"], "f32", np.float32),
        "cvt.rn.ftz.f32.f64": (["f64"], "f32", lambda a: flushed(np.float32(a))),
    }
    return made


SPECS = of_integers() | of_floats()
ELSEWHERE = r"(ld|st|atom)\..*|bra|bar\.sync|ret"
"""Instructions that the programs below are made of."""


def test_every_instruction_has_an_answer() -> None:
    assert {n for n in ptx._operations() if not re.fullmatch(ELSEWHERE, n)} == set(SPECS)


@pytest.mark.parametrize("name", SPECS)
def test_instruction(name: str) -> None:
    kinds, result, expected = SPECS[name]
    grid = np.meshgrid(*(np.arange(len(inputs(kind))) for kind in kinds))
    places = np.stack([g.reshape(-1) for g in grid], axis=1)
    places = np.random.default_rng(len(name)).permutation(places)[:500]
    values = [tuple(inputs(k)[p] for k, p in zip(kinds, row, strict=True)) for row in places]
    if name.startswith(("div.s", "div.u", "rem")):
        lowest = -(2 ** (int(kinds[0][1:]) - 1))
        values = [v for v in values if v[1] != 0 and v != (lowest, -1)]
    found = run(name, kinds, result, values)
    with np.errstate(all="ignore"):
        answers = [expected(*v) for v in values]
    if result[0] in "su":
        answers = [whole(a, result) for a in answers]
    right = np.array(answers, FORMATS[result][2])
    same = (found.view(f"u{found.itemsize}") == right.view(f"u{found.itemsize}")) | (
        np.isnan(found) & np.isnan(right)
    )
    wrong = int((~same).argmax())
    assert same.all(), (values[wrong], found[wrong], right[wrong])


def cuda(body: str, options: tuple[str, ...] = CUDA_FLAGS) -> Program:
    """A kernel of 64 threads a block, its arguments float in[8], float out[64]."""
    head = 'extern "C" __global__ void k(const float* __restrict__ in, float* out) {'
    shared = "extern __shared__ unsigned int number[]; const unsigned t = threadIdx.x;"
    return Program(compile_ptx(f"{head} {shared} {body} }}", [*options, "-arch=sm_90"]))


def launched(program: Program, blocks: int = 1, seed: int = 0) -> torch.Tensor:
    out = torch.zeros(64)
    ptx.launch(program, "k", (blocks, 1), 64, 64, (torch.arange(8.0), out), seed)
    return out


FAULTY = {
    "beyond the end": ("out[t + (t == 63)] = in[0];", "st.global.*outside of the arrays"),
    "before the beginning": ("out[(int)t - 1] = in[0];", "st.global.*outside of the arrays"),
    "shared memory": ("number[t] = 1u;", "st.shared.*outside of the arrays"),
    "half a number": ("out[0] = *(const float*)((const char*)in + 2);", "not aligned"),
    "two threads": ("out[t / 2] = in[t % 8];", "thread .* uses address"),
    "read and written": ("out[t] = out[63 - t] + 1.0f;", "thread .* uses address"),
    "added to": ("out[0] += in[0];", "thread .* uses address"),
    "shared by two": ("number[t / 8] = t; out[t] = (float)number[0];", "thread .* uses address"),
    "no barrier": (
        "if (t == 0) number[0] = 5u; out[t] = (float)number[0];",
        "thread .* uses address",
    ),
    "half a block": ("if (t < 32) __syncthreads(); out[t] = in[0];", "same barrier"),
    "two barriers": (
        "if (t < 32) __syncthreads(); else { out[t] = in[1]; __syncthreads(); } out[t] = in[0];",
        "same barrier",
    ),
    "division": ("out[t] = (float)(17 / (int)in[0]);", "divided by zero"),
    "a constant": ("out[t] = __ldg(out + t) + 1.0f;", "read as a constant and written"),
}


@pytest.mark.parametrize("name", FAULTY)
def test_what_no_kernel_may_do(name: str) -> None:
    body, sentence = FAULTY[name]
    with pytest.raises(PtxError, match=sentence):
        launched(cuda(body))


def test_a_launch_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptx, "MOST", 10_000)
    with pytest.raises(PtxError, match="does not end"):
        launched(cuda("for (unsigned k = 0; k < 1u << 30; ++k) out[t] = out[t] * 1.5f + (float)k;"))


def test_blocks_share_no_number() -> None:
    with pytest.raises(PtxError, match=r"thread .* uses address"):
        launched(cuda("out[t] = in[0];"), blocks=2)


@pytest.mark.parametrize(
    ("options", "instruction"),
    [
        ((*CUDA_FLAGS[:1], "--fmad=true"), "fma.rn.f32"),
        ((*CUDA_FLAGS[:1], "-use_fast_math"), "(div|fma).*"),
    ],
)
def test_what_is_not_covered_is_refused_by_name(options: tuple[str, ...], instruction: str) -> None:
    with pytest.raises(PtxError, match=f"instruction {instruction} is not covered"):
        launched(cuda("out[t] = in[1] * in[2] + in[t % 8] / in[3];", options))


def test_threads_meet_at_barriers() -> None:
    """A sum over a block, by halves, and one over the grid by atomic additions."""
    body = """
        number[t] = t;
        for (unsigned half = 32; half; half /= 2) {
            __syncthreads();
            if (t < half) number[t] += number[t + half];
        }
        __syncthreads();
        if (blockIdx.x == 0) out[t] = (float)number[0];"""
    program = cuda(body)
    out = torch.zeros(64)
    ptx.launch(program, "k", (5, 1), 64, 256, (torch.arange(8.0), out))
    assert out.eq(63 * 32).all()


def test_turns_are_random_and_their_sums_are_not() -> None:
    """Which thread is the first depends on the seed, how many there are does not."""
    program = cuda("out[atomicAdd((unsigned int*)out + 63, 1u) % 63] = (float)t;")
    with pytest.raises(PtxError):  # two of 64 threads have the same place
        launched(program)
    program = cuda("if (t < 60) out[atomicAdd((unsigned int*)out + 63, 1u)] = (float)t;")
    orders = [launched(program, seed=seed) for seed in range(3)]
    assert not torch.equal(orders[0], orders[1]) and not torch.equal(orders[1], orders[2])
    for order in orders:
        assert order[:60].sort().values.tolist() == list(range(60))
        assert order.view(torch.int32)[63] == 60
    assert torch.equal(launched(program, seed=1), orders[1])


def test_vectors_and_local_memory() -> None:
    body = """
        float a[16];
        for (int k = 0; k < 16; ++k) a[k] = in[k % 8] * (float)(k + 1);
        for (int k = 0; k < 16; ++k) a[(k * (int)t) % 16] += 1.0f;
        out[t] = a[t % 16];"""
    program = cuda(body)
    assert "st.local" in program.text
    expected = np.tile(np.arange(8.0), 2) * np.arange(1, 17)
    hits = [sum((k * t) % 16 == t % 16 for k in range(16)) for t in range(64)]
    assert launched(program).tolist() == [expected[t % 16] + hits[t] for t in range(64)]
