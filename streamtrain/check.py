"""`streamtrain check`: what this machine has, and whether it makes the published bits."""

from __future__ import annotations

import platform
import time
import warnings

import torch

from streamtrain._version import __version__
from streamtrain.config import load_config
from streamtrain.generator.generator import GENERATOR_VERSION, Generator
from streamtrain.machine.workers import num_cores
from streamtrain.numerics import backend
from streamtrain.schema import AssumptionWarning

GOLDEN = {
    0: "69b52d35edbc1caa9402190c3f9568995fe9c1eadeaa3d96a53d4ff73f9a6608",
    1: "d6b12778977e92caebd25dea0e45fa37b5d789757ed34ee6e91655e5ca37184f",
    10**12: "319293042f3869424ffac32f2d181b47bf1d8d711244d3f07b9115c35ec22d4b",
}
"""sha256 of cube and counts of samples of configs/reference.yaml (split "test", generator version
2). They change only together with GENERATOR_VERSION."""


def golden_matches(device: str) -> list[bool]:
    """Whether each golden sample comes out on a device, bit for bit."""
    config = load_config("configs/reference.yaml")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumptionWarning)  # it is about bits, not about light
        generator = Generator(config, "test", device)
    digests = generator.generate(list(GOLDEN)).digests()
    return [a == b for a, b in zip(digests, GOLDEN.values(), strict=True)]


def check() -> int:
    """Print the report; 0 if every device that works is bit-exact, else 1."""
    print(f"streamtrain {__version__}, generator version {GENERATOR_VERSION}")
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {num_cores()} cores")
    good = True
    command = backend.compiler_command()
    print(f"compiler: {' '.join(command) if command else backend.NO_COMPILER}")
    devices = ["cpu"] if command else []
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            name = torch.cuda.get_device_name(number)
            print(f"GPU {number}: {name}, CUDA {torch.version.cuda} (torch)")
        try:
            cupy = backend.import_cupy()
            runtime = cupy.cuda.runtime.runtimeGetVersion()
            cuda = f"{runtime // 1000}.{runtime % 1000 // 10}"
            match = cuda.split(".")[0] == (torch.version.cuda or "").split(".")[0]
            print(f"CuPy {cupy.__version__}, CUDA {cuda}: {'matches' if match else 'MISMATCH'}")
            devices.append("cuda")
        except backend.BackendError as error:
            print(f"CuPy: {error}")
            good = False
    else:
        print("GPU: none that torch can use; everything runs on the CPU")
    for device in devices:
        start = time.perf_counter()
        exact = all(golden_matches(device))
        good = good and exact
        seconds = time.perf_counter() - start
        print(f"bit-exact on {device}: {'yes' if exact else 'NO'} ({seconds:.1f} s)")
    return 0 if good and devices else 1
