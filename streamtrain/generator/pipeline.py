"""From what was drawn for samples to their maps and counts, on one device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from streamtrain.bins import Counts, LuminosityBins
from streamtrain.generator.painter import PaintArguments
from streamtrain.generator.windows import Scene
from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.workspace import Arrays, DeviceArrays, Workspace
from streamtrain.operators.base import Drawn, Operator


class Pipeline:
    """Paints samples and applies the map operators.

    operators: in their order; observe: kernels of observe.cu; bins: luminosity bins.
    """

    def __init__(
        self,
        operators: Sequence[Operator],
        observe: Kernels,
        device: torch.device,
        bins: LuminosityBins,
    ) -> None:
        self.operators, self.observe, self.device = operators, observe, device
        self._counts = bins.num_counts

    def kernel_arguments(
        self, scene: Scene, arguments: PaintArguments, drawn: Sequence[Drawn], first: int, last: int
    ) -> list[Arrays]:
        """What `make` needs of samples first..last-1, still on the host: the arrays of each line,
        then of each operator."""
        every_line = zip(scene.lines, [arguments, *arguments.others], strict=True)
        painted = [line.painter.kernel_arguments(part, first, last) for line, part in every_line]
        return [
            *painted,
            *({name: v[first:last] for name, v in values.items()} for values in drawn),
        ]

    def make(
        self,
        scene: Scene,
        arrays: Sequence[DeviceArrays],
        cube: Tensor,
        counts: Tensor,
        memory: Workspace,
    ) -> None:
        """Paint and observe B samples into `cube`, the network's input, float32
        [B, n_freq, n_dec, n_ra], and add to `counts`, int32 [B, bins + 3].

        arrays: see there, on the device; memory: for all between.
        """
        lines = scene.lines
        total = self.blank_total(scene, len(cube), memory)
        scene.line.painter.deposit(arrays[0], total, counts)
        for line, part in zip(lines[1:], arrays[1 : len(lines)], strict=True):
            others = memory.scratch.zeros("interloper counts", counts.shape, torch.int32)
            line.painter.deposit(part, total, others)
            Counts(counts).saturated.add_(Counts(others).saturated)
        self.finish(scene, total, arrays[0]["keys"], arrays[len(lines) :], cube, memory)

    def blank_total(self, scene: Scene, size: int, memory: Workspace) -> Tensor:
        """Cubes without a halo, in fixed point, int64 [size, freq, dec, ra]."""
        return memory.scratch.zeros("total", (size, *scene.line.painter.shape), torch.int64)

    def finish(
        self,
        scene: Scene,
        total: Tensor,
        keys: Tensor,
        drawn: Sequence[DeviceArrays],
        target: Tensor,
        memory: Workspace,
    ) -> None:
        """From what was painted, in fixed point, to the network's input `target`."""
        cube = target
        if total.shape != target.shape:
            cube = memory.scratch.empty("painted", total.shape, torch.float32)
        self.to_map_units(scene, total, cube)
        observed = cube
        for _, after in self.observed(cube, keys, drawn):
            observed = after
        if observed is not target:
            target.copy_(observed)

    def observed(
        self, cube: Tensor, keys: Tensor, drawn: Sequence[DeviceArrays]
    ) -> Iterator[tuple[str, Tensor]]:
        """The cubes after each operator, which may change them in place, with its name."""
        for operator, values in zip(self.operators, drawn, strict=True):
            cube = operator.apply(self.observe, cube, keys, values)
            yield operator.name, cube

    def to_map_units(self, scene: Scene, total: Tensor, cube: Tensor) -> None:
        """Cubes in fixed point, int64, to map units, float32, of the same shape."""
        unit = np.float64(scene.line.painter.unit)
        self.observe.elementwise(
            "from_fixed_point", len(total), total[0].numel(), unit, total, cube
        )
