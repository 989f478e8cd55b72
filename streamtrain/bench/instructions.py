"""How many arithmetic instructions a halo costs, counted in what the paint kernel compiles to."""

from __future__ import annotations

import re
from dataclasses import dataclass

DIVISION = 8
"""What a division or a root counts for: a GPU makes at least so many multiplications and additions
of one, and a CPU's unit is busy for at least so many."""

PAIR = 2
"""Halos that a turn of the GPU's loop paints."""


@dataclass(frozen=True)
class Instructions:
    """Arithmetic of one halo: on 32-bit and on 64-bit numbers."""

    bits32: int
    bits64: int


def count(text: str, function: str = "paint") -> Instructions | None:
    """Count those of PTX or of x86-64 assembly without vectors; None for another processor's."""
    if ".visible .entry" in text:
        return _count_ptx(text, function)
    if re.search(r"\bv?mulsd\b", text):
        return _count_x86(text, function)
    return None


def _count_ptx(text: str, function: str) -> Instructions | None:
    """Half of the longest loop of the kernel, which is the one over pairs of halos: everything but
    moves, which the assembler removes, and but the loop in it that finds places in float64, which
    one halo in thousands needs."""
    body = re.search(rf"\.entry {function}\(.*?\n\{{(.*?)\n\}}", text, re.DOTALL)
    if body is None:
        return None
    lines = [line.strip() for line in body[1].splitlines()]
    places = {line[:-1]: k for k, line in enumerate(lines) if re.fullmatch(r"\$?\w+:", line)}
    loops = []
    for k, line in enumerate(lines):
        branch = re.search(r"\bbra(?:\.uni)?\s+(\$?\w+);", line)
        if branch and places.get(branch[1], k) < k:
            loops.append(range(places[branch[1]], k))
    if not loops:
        return None
    halos = max(loops, key=len)
    with_root = (loop for loop in loops if loop != halos and _finds_places(lines, loop))
    exact = min(with_root, key=len, default=range(0))
    bits32 = bits64 = 0
    for line in (lines[k] for k in halos if k not in exact):
        found = re.match(r"(?:@!?%p\d+\s+)?([a-z][a-z0-9_.]+)[\s;]", line)
        if found is None or found[1].split(".")[0] in ("mov", "bra"):
            continue
        stem, *kinds = found[1].split(".")
        cost = DIVISION if stem in ("div", "sqrt", "rcp") else 1
        if "f64" in kinds:
            bits64 += cost
        else:
            bits32 += cost
    return Instructions(-(-bits32 // PAIR), -(-bits64 // PAIR))


def _finds_places(lines: list[str], loop: range) -> bool:
    return any(lines[k].startswith("sqrt.rn.f64") for k in loop)


_FLOAT = re.compile(r"v?(add|sub|mul|div|sqrt|min|max|and|andn|or|xor|cmp|blend|blendv|cvt)\w*")
_INTEGER = re.compile(r"(add|sub|xor|and|or|imul|mul|shr|sar|sal|shl|neg|not)l")
_WIDE_INTEGER = ("imulq", "mulq", "mulx", "shrq")
"""Of Philox; other arithmetic on 64-bit integers is that of addresses."""


def _count_x86(text: str, function: str) -> Instructions | None:
    """All arithmetic of the function, each instruction once per halo: what is done once per block
    of halos is small beside it. Moves, comparisons of integers and branches do not count."""
    body = re.search(rf"^_?{function}:\n(.*?)(?:\.cfi_endproc|^\s*\.size)", text, re.M | re.S)
    if body is None:
        return None
    bits32 = bits64 = 0
    for opcode in re.findall(r"^\t([a-z][a-z0-9]+)\b", body[1], re.MULTILINE):
        cost = DIVISION if re.match(r"v?(div|sqrt)", opcode) else 1
        if opcode in _WIDE_INTEGER or (_FLOAT.fullmatch(opcode) and opcode[-1] == "d"):
            bits64 += cost
        elif _INTEGER.fullmatch(opcode) or (_FLOAT.fullmatch(opcode) and opcode[-1] == "s"):
            bits32 += cost
    return Instructions(bits32, bits64)
