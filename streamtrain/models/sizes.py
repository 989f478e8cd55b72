"""Sizes of maps through a network, and the refusal of those that do not fit."""

from __future__ import annotations

from collections.abc import Sequence


def halve(sizes: Sequence[int], round_up: bool) -> tuple[int, ...]:
    """Half of every size, of one pixel one."""
    return tuple(max(1, (n + round_up) // 2) for n in sizes)


def check_halvings(
    sky: tuple[int, int], times: int, what: str, *, round_up: bool, remedy: str
) -> list[tuple[int, ...]]:
    """The sizes of a map after each of so many halvings, the map itself first.

    sky: pixels (dec, ra); round_up: half of 5 is 3, not 2; what, remedy: the setting that asks for
    them, and the end of the sentence ('{most}' in it becomes the number that fits).
    Raises ValueError with all sizes if a side of one pixel would be halved.
    """
    sizes: list[tuple[int, ...]] = [sky]
    while min(sizes[-1]) > 1 and len(sizes) <= times:
        sizes.append(halve(sizes[-1], round_up))
    most = len(sizes) - 1
    if most < times:
        shown = ", ".join(f"{dec} x {ra}" for dec, ra in sizes[1:]) or "one pixel"
        raise ValueError(
            f"{what} halve the map {times} times, but a map of {sky[0]} x {sky[1]} pixels becomes "
            f"{shown}, and a side of one pixel cannot be halved: {remedy.format(most=most)}"
        )
    return sizes
