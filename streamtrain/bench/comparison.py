"""One sample by streamtrain and by what one would write otherwise, in the same run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from streamtrain.bench.alternatives import Alternative, limlam_pipeline, numpy_user
from streamtrain.bench.alternatives_gpu import array_pipeline, array_user, torch_batches
from streamtrain.bench.timing import (
    ONE_THREAD,
    batch_maker,
    in_turn,
    median_seconds,
    one_torch_thread,
)
from streamtrain.config import Config
from streamtrain.generator.generator import Generator
from streamtrain.numerics.backend import import_cupy

BATCH = 16
"""Samples that streamtrain makes at once here on a CPU."""
SIDE_BY_SIDE = 16
"""Samples that the batched torch alternatives make at once on a GPU."""


def compare(config: Config, seconds: float) -> dict[str, Any]:
    """Milliseconds per sample on one CPU thread, of its CPU time, all in turn: streamtrain (in
    batches of 16, as the stream asks for them) and what one would write otherwise (one at a time:
    a batch would not help them)."""
    generator = Generator(config, "train", "cpu", 1)
    lightcone = generator.lightcones[0]
    pooled = replace(generator.grid, shape=generator.input_shape)
    mass = config.data.min_mass_Msun
    numbers = iter(range(10**9))
    ours = "streamtrain"
    ways: dict[str, Callable[[], Any]] = {
        ours: lambda: generator.generate([next(numbers) for _ in range(BATCH)])
    }
    cpu = torch.device("cpu")
    others = [
        numpy_user(lightcone, pooled, mass),
        torch_batches(lightcone, pooled, mass, cpu),
        limlam_pipeline(lightcone, pooled, mass),
    ]
    for other in others:
        ways[other.name] = lambda o=other: o.make(next(numbers))  # type: ignore[misc]
    with one_torch_thread():
        found = in_turn(ways, seconds, clock=ONE_THREAD)
    found[ours] /= BATCH
    result = _ratios({name: 1e3 * s for name, s in found.items()}, ours)
    return {**result, "halos_in_lightcone": len(lightcone)}


def compare_on_gpu(config: Config, device: torch.device, seconds: float) -> dict[str, Any]:
    """One sample on a GPU by every alternative, in milliseconds between CUDA events: streamtrain in
    batches of `train.batch_size`, torch's index_add_ (one sample at a time and several, also
    compiled), CuPy's scatter_add and histogramdd."""
    generator = Generator(config, "train", device)
    size, numbers = config.train.batch_size, iter(range(10**9))

    make = batch_maker(generator, size)
    ours = "streamtrain"
    times = {ours: 1e3 * median_seconds(make, seconds, device) / size}
    failures = {}
    lightcone = generator.lightcones[0]
    pooled = replace(generator.grid, shape=generator.input_shape)
    ways = _on_gpu(lightcone, pooled, config.data.min_mass_Msun, device)
    for name, build in ways.items():
        try:
            way = build()
            spent = median_seconds(lambda w=way: w.make(next(numbers)), seconds, device)  # type: ignore[misc]
        except Exception as error:  # what others' code cannot do here is no failure of the bench
            failures[name] = f"{type(error).__name__}: {error}"
            continue
        times[way.name] = 1e3 * spent / way.batch
        torch.cuda.empty_cache()
    result = _ratios(times, ours)
    again = 1e3 * median_seconds(make, seconds, device) / size
    best = min(ms for name, ms in times.items() if name != ours) if len(times) > 1 else None
    return {
        **result,
        "streamtrain_ms_again": again,
        "best_alternative_over_streamtrain": best / times[ours] if best else None,
        **({"failures": failures} if failures else {}),
    }


def _on_gpu(
    lightcone: Any, grid: Any, min_mass_Msun: float, device: torch.device
) -> dict[str, Callable[[], Alternative]]:
    given = (lightcone, grid, min_mass_Msun)
    of_torch = partial(torch_batches, *given, device)

    def cupy_scatter_add() -> Alternative:
        cupy = import_cupy()
        import cupyx

        return array_user(cupy, cupyx.scatter_add, *given)

    def cupy_histogramdd() -> Alternative:
        cupy = import_cupy()
        from cupyx.scipy.ndimage import gaussian_filter

        return array_pipeline(cupy, gaussian_filter, *given)

    return {
        "torch_one": of_torch,
        "torch_batch": partial(of_torch, SIDE_BY_SIDE),
        "torch_compiled": partial(of_torch, SIDE_BY_SIDE, compiled=True),
        "cupy_scatter_add": cupy_scatter_add,
        "cupy_histogramdd": cupy_histogramdd,
    }


def _ratios(milliseconds: dict[str, float], ours: str) -> dict[str, Any]:
    """{name: {ms, ratio}}, and streamtrain's own as `streamtrain_ms`."""
    own = milliseconds[ours]
    others = {n: {"ms": ms, "ratio": ms / own} for n, ms in milliseconds.items() if n != ours}
    return {"streamtrain_ms": own, **others}
