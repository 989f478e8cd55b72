"""What is drawn for any sample, as formulas of its random numbers.

NumPy's own functions are called once with draws that are written down (`Draws.recorder`) instead of
numbers. The formulas become instructions for kernels/draw.cu, see `program`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamtrain.luminosity.symbol import PORTABLE, Symbol, TraceError, operations, symbol
from streamtrain.numerics.rng import Draws, Split
from streamtrain.priors import (
    ELEMENTS_PER_ATTEMPT,
    FIRST_CHOICE,
    MOST_PARAMETERS,
    Prior,
)

Symbols = dict[str, Symbol]
Accept = Callable[[Symbols], Symbol]
EXACT = ("add", "sub", "mul", "div", "neg", "abs", "min", "max", "sqrt", "lt", "le", "where")
"""Operations whose result IEEE-754 says to the last bit."""
LEAVES = ("const", "uniform", "normal", "kept", "count", "float32")


@dataclass(frozen=True)
class Attempts:
    """What is drawn again and again, with other random numbers, until all conditions hold."""

    kept: dict[int, Symbol]
    """What is kept of an attempt, by place."""
    conditions: list[Symbol]
    """What must hold of the numbers that are kept, the cheapest first."""


class Columns:
    """Symbols of random numbers, with the columns of an array [B, E]."""

    def __init__(self, symbols: Sequence[Symbol]) -> None:
        self._symbols = symbols

    def __getitem__(self, place: tuple[slice, int]) -> Symbol:
        return self._symbols[place[1]]


class Recorder:
    """Writes down what is drawn; it is the `recorder` of the `draws` it gives."""

    def __init__(self) -> None:
        self.attempts: list[Attempts] = []
        self._kept, self._trying = 0, False

    def draws(self, stage: int, split: Split = "train") -> Draws:
        """Draws of any sample."""
        return Draws(0, split, np.zeros(1, np.uint64), stage, self)

    def leaves(self, kind: str, stage: int, elements: Sequence[int] | NDArray[np.int64]) -> Columns:
        """Symbols of random numbers of a `kind`, uniform or normal, named by stage, element, and
        the elements from one attempt to the next."""

        def leaf(element: int) -> Symbol:
            step = MOST_PARAMETERS if element >= FIRST_CHOICE else ELEMENTS_PER_ATTEMPT
            return Symbol(kind, name=f"{stage} {element} {step if self._trying else 0}")

        return Columns([leaf(int(element)) for element in elements])

    def accepted(
        self,
        prior: Prior,
        draws: Draws,
        defaults: Mapping[str, float],
        accept: Accept | None,
    ) -> Symbols:
        """Symbols of the parameters that a prior draws, and of those that it holds; its attempts
        are written down. accept: gives the symbol of a further condition."""
        held = {name: symbol(float(v[0])) for name, v in prior.held(defaults).items()}
        if not prior.varies:
            return held
        self._trying = True
        trial = prior.attempt(draws, 0)
        self._trying = False
        kept = {
            self._kept + k: exact(value)  # type: ignore[arg-type]
            for k, value in enumerate(trial.values())
        }
        drawn = {name: Symbol("kept", value=k) for name, k in zip(trial, kept, strict=True)}
        self._kept += len(kept)
        whole = {**held, **drawn}
        conditions = [exact(prior.holds(whole))]  # type: ignore[arg-type]
        if accept is not None:
            conditions.append(accept(whole))
        self.attempts.append(Attempts(kept, conditions))
        return whole


def exact(value: Symbol | float) -> Symbol:
    """`value`, if NumPy's own arithmetic has the bits of a kernel's. Raises TraceError."""
    for node in operations([symbol(value)]):
        portable = node.op in ("log2", "exp2") and node.name == PORTABLE
        if not portable and node.op not in (*EXACT, *LEAVES):
            raise TraceError(
                f"np.{node.op} has other last digits on other machines; numerics.portable has not"
            )
    return symbol(value)
