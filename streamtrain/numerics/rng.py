"""Random numbers as a function of what they are for, not of when they are drawn.

Philox4x32-10 (Salmon et al. 2011, SC11) turns a counter and a key into four random words:
key = the 64-bit seed, counter = (element, split and stage, index lo, index hi). An element is a
pair of halos, a voxel group or the number of a draw. kernels/philox.cuh is the same function.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from streamtrain.arguments import whole_number
from streamtrain.machine.files import one_line
from streamtrain.numerics import portable

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

STAGE_PAINT = 0
"""Luminosity scatter; element = half of the halo's row number in its lightcone, so that two
neighbours share a call (kernels/paint.cu)."""
STAGE_POSE = 1
"""Lightcone, pointing, roll and mirror of a sample."""
STAGE_MODEL = 2
"""Parameters of the luminosity model."""
STAGE_MIXTURE = 3
"""Which luminosity model makes a sample."""
STAGE_EMIT = 4096
"""First entry of `emit` after the line; entry k uses stages 4096 + 4k (draws), + 1 (its own pose),
+ 2 (scatter) and + 3 (parameters)."""
STAGE_SKIES = 4
"""Order in which lightcones take turns."""
STAGE_THETA = 5
"""Places between counts, for sbi; element = luminosity bin."""
STAGE_VARY = 6
"""Options of a synthetic lightcone; seed = that of the sky, index = the option (`PLACES`)."""
STAGE_OBSERVE = 16
"""First map operator; operator k of the config uses stages 16 + 2k (draws) and 17 + 2k (voxels)."""

U32 = NDArray[np.uint32]
Float = NDArray[np.float64]


def philox(counter: NDArray[np.integer], key: NDArray[np.integer]) -> U32:
    """Philox4x32-10. counter: uint32 [..., 4]; key: uint32 [..., 2]; returns uint32 [..., 4]."""
    mask = np.uint64(0xFFFFFFFF)
    c0, c1, c2, c3 = (np.asarray(counter)[..., k].astype(np.uint64) for k in range(4))
    k0, k1 = (np.asarray(key)[..., k].astype(np.uint64) for k in range(2))
    shift = np.uint64(32)
    for _ in range(10):
        p0 = np.uint64(0xD2511F53) * c0
        p1 = np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ k0, p1 & mask, (p0 >> shift) ^ c3 ^ k1, p0 & mask
        k0 = (k0 + np.uint64(0x9E3779B9)) & mask
        k1 = (k1 + np.uint64(0xBB67AE85)) & mask
    return np.stack(np.broadcast_arrays(c0, c1, c2, c3), axis=-1).astype(np.uint32)


def seed_words(seed: int) -> tuple[int, int]:
    """The key (lo, hi) of a 64-bit seed."""
    seed = whole_number(seed, "the seed")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed {seed} is outside 0..2^64-1")
    return seed & 0xFFFFFFFF, seed >> 32


def stage_word(split: Split, stage: int) -> int:
    """Counter word 1: the split in the upper half, the stage in the lower."""
    if split not in SPLITS:
        raise ValueError(f"split '{split}' is none of {', '.join(SPLITS)}")
    return (SPLITS.index(split) << 16) | stage


class Recorder(Protocol):
    """What writes down what would be drawn, see `generator.recorder`."""

    def leaves(self, kind: str, stage: int, elements: Sequence[int] | NDArray[np.int64]) -> Any:
        """What stands for random numbers of a `kind`, uniform or normal, and has columns
        `[:, k]`."""

    def accepted(self, prior: Any, draws: Draws, defaults: Any, accept: Any) -> Any:
        """What stands for the parameters that a prior draws, see `Prior.draw`."""


@dataclass(frozen=True)
class Draws:
    """The random numbers of one purpose (`stage`) for B samples; `elements` numbers them.

    Every method takes E element numbers and returns [B, E] (`words`: [B, E, 4]).
    """

    seed: int
    split: Split
    indices: NDArray[np.uint64]
    """Global sample indices [B]."""
    stage: int
    recorder: Recorder | None = None
    """Writes down what is drawn, of any sample, instead; `indices` then stands for one."""

    def words(self, elements: Sequence[int] | NDArray[np.int64]) -> U32:
        """Four random words per sample and element."""
        counter = np.empty((len(self.indices), len(elements), 4), np.uint64)
        counter[..., 0] = np.asarray(elements, np.uint64)
        counter[..., 1] = stage_word(self.split, self.stage)
        counter[..., 2] = (self.indices & np.uint64(0xFFFFFFFF))[:, None]
        counter[..., 3] = (self.indices >> np.uint64(32))[:, None]
        return philox(counter, np.array(seed_words(self.seed)))

    def uniform(self, elements: Sequence[int] | NDArray[np.int64]) -> Float:
        """Uniform in (0, 1) with 52 random bits."""
        if self.recorder is not None:
            return self.recorder.leaves("uniform", self.stage, elements)
        words = self.words(elements)
        return _unit(words[..., 0], words[..., 1])

    def normal(self, elements: Sequence[int] | NDArray[np.int64]) -> Float:
        """Standard normal (Box-Muller, the cosine branch)."""
        if self.recorder is not None:
            return self.recorder.leaves("normal", self.stage, elements)
        words = self.words(elements)
        radius = np.sqrt(-2.0 * portable.log(_unit(words[..., 0], words[..., 1])))
        _, cosine = portable.sincos_turns(_unit(words[..., 2], words[..., 3]))
        return radius * cosine

    def of_stage(self, stage: int) -> Draws:
        """These samples with the random numbers of another purpose."""
        return replace(self, stage=stage)

    def take(self, samples: NDArray[np.int64]) -> Draws:
        """The draws of some of the samples."""
        return replace(self, indices=self.indices[samples])


def _unit(high: U32, low: U32) -> Float:
    word = (high.astype(np.uint64) << np.uint64(20)) | (low.astype(np.uint64) >> np.uint64(12))
    return (word.astype(np.float64) + 0.5) * 2.0**-52


def sample_indices(indices: Sequence[int]) -> NDArray[np.uint64]:
    """Global sample indices as uint64 [B]; ValueError, one sentence, for what is no row of whole
    numbers, and outside 0..2^64-1."""
    if not isinstance(indices, Iterable) or getattr(indices, "ndim", 1) != 1:
        shown = one_line(repr(indices), 80)
        raise ValueError(
            f"sample indices must be a row of whole numbers, not {shown}; one sample is [3], the "
            "first eight are range(8)"
        )
    if isinstance(indices, range) and indices and 0 <= indices[0] <= indices[-1] < 2**64:
        steps = np.arange(len(indices), dtype=np.uint64) * np.uint64(abs(indices.step))
        return np.uint64(indices[0]) + steps
    whole = [whole_number(index, "a sample index") for index in indices]
    for index in whole:
        if not 0 <= index < 2**64:
            raise ValueError(f"sample index {index} is outside 0..2^64-1")
    return np.array(whole, np.uint64)
