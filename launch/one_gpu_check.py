"""One check of gpu_checks.py, in a process of its own that may fail in any way.

python launch/one_gpu_check.py NAME FOLDER RESULT.json

FOLDER holds, or gets, the lightcones. The result is written whole or not at all, also before the
end of the check, so that what was found before it was killed is not lost. A bar is for an H200, and
no failure elsewhere.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from streamtrain import Generator, load_config  # noqa: E402
from streamtrain.bench.comparison import compare_on_gpu  # noqa: E402
from streamtrain.bench.roofline import floor, report_floor  # noqa: E402
from streamtrain.bench.speed import measure  # noqa: E402
from streamtrain.bench.variants import paint_variants, report_variants  # noqa: E402
from streamtrain.catalogs.synthesis.make import Recipe, make_lightcones  # noqa: E402
from streamtrain.catalogs.synthesis.options import SkyOptions  # noqa: E402
from streamtrain.catalogs.synthesis.synthesize import synthesize  # noqa: E402
from streamtrain.check import golden_matches  # noqa: E402
from streamtrain.machine.workers import num_cores  # noqa: E402
from streamtrain.numerics.backend import BackendError, import_cupy  # noqa: E402
from streamtrain.train.folder import read_history  # noqa: E402
from streamtrain.train.trainer import Trainer  # noqa: E402

COMAP = "configs/comap.yaml"
EVERYTHING = [
    "emit={line: {mixture: {li16: {prior: narrow}, chung22: {prior: correlated}}},"
    " line_width: {inclination: true}, brightness: {poisson_bins: 3, probability: 0.5},"
    " dim: {above_log10_L: 6.0, probability: 0.5}, blank: {probability: 0.1},"
    " interloper: {model: breysse15, nu_rest_GHz: 115.4, prior: published}}",
    "observe={radio_sources: {density: {normal: [27.2, 2.5]}, absent: 0.1},"
    " beam: {fwhm_arcmin: 4.5, reference_GHz: 30.0},"
    " noise: {radiometer: {T_sys_K: 44, n_feeds: 19, hours: 1500}, absent: 0.1},"
    " edge_noise: {sigma_uK: [0, 100]}, mask: {edge_pixels: 2}, high_pass: {modes: 2},"
    " pool: {factor: [1, 2, 2]}, subtract_mean: {skip_zeros: true}, asinh: {scale: 5},"
    " log_modulus: {}, log10: {epsilon: 2}, standardise: {}}",
    "label={quantity: phi_L, log10_L: [3.0, 7.0], bins: 40}",
]
"""Every modifier, an interloper and every map operator at once."""
CNN_2D = ["network={kind: cnn, layers: 5, kernel: 3, filters: 32}"]
RESNET_3D = ["network={kind: resnet, filters: 64}"]
LIVE_OVER_RESIDENT = {"2-D CNN": 1.15, "3-D ResNet": 1.05}
"""Bars of a step with live generation over one on a resident batch."""
SAMPLES_PER_S, OVER_ALTERNATIVES, HOST_US, MEMORY = 40_000.0, 10.0, 50.0, 1.1
"""Bars of the generator alone: speed at batch 64, over the best of torch and CuPy, host time per
sample, peak memory over lightcones and two batches."""
NUM_LIGHTCONES = 4
"""Of the 16 that configs/comap.yaml trains on."""
SANITIZED = """
from streamtrain import Generator, load_config
import sys
generator = Generator(load_config("configs/reference.yaml", sys.argv[1:]), "test", "cuda")
print("samples made", len(generator.generate(range(4)).digests()))
"""


class Failed(Exception):
    """What the check is for does not hold."""


class NotHere(Exception):
    """This machine cannot run the check."""


class Result:
    """What a check has found so far, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, Any] = {"numbers": {}}

    def tell(self, status: str, text: str, numbers: dict[str, Any] | None = None) -> None:
        """status: "ok", "failed", "not here" or "unfinished"; numbers are added to those so far."""
        self._found |= {"status": status, "text": text}
        self._found["numbers"] |= numbers or {}
        whole = self._path.with_suffix(".part")
        whole.write_text(json.dumps(self._found, default=str), encoding="utf-8")
        whole.replace(self._path)

    def so_far(self, text: str, numbers: dict[str, Any] | None = None) -> None:
        """Found before the end."""
        self.tell("unfinished", text, numbers)


def environment(result: Result, folder: Path) -> str:
    """What the machine has."""
    properties = torch.cuda.get_device_properties(0)
    numbers: dict[str, Any] = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "gpus": torch.cuda.device_count(),
        "capability": list(torch.cuda.get_device_capability(0)),
        "GPU_memory_GB": properties.total_memory / 1e9,
        "torch_cuda": torch.version.cuda,
        "cores": num_cores(),
    }
    result.so_far("torch sees the GPU", numbers)
    try:
        cupy = import_cupy()
        numbers["cupy"] = cupy.__version__
        numbers["cupy_cuda"] = cupy.cuda.runtime.runtimeGetVersion()
    except BackendError as error:
        raise Failed(str(error)) from None
    for name in ("nvcc", "g++", "compute-sanitizer"):
        numbers[name] = _program(name) or "none"
    query = ("name,driver_version,clocks.max.sm,clocks.max.mem,power.limit", "csv,noheader")
    command = ["nvidia-smi", f"--query-gpu={query[0]}", f"--format={query[1]}"]
    if shutil.which(command[0]):
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        numbers["nvidia-smi"] = found.stdout.strip() or found.stderr.strip()
    packages = ("pytest", "scipy", "h5py", "yaml", "tensorboard", "matplotlib", "astropy")
    lacking = [name for name in packages if importlib.util.find_spec(name) is None]
    numbers["lacking"] = lacking
    result.so_far("asked", numbers)
    without = f", without {', '.join(lacking)}" if lacking else ""
    return (
        f"Python {numbers['python']}, NumPy {numbers['numpy']}, CuPy {numbers['cupy']} (CUDA "
        f"{numbers['cupy_cuda']}, torch's {numbers['torch_cuda']}), {numbers['cores']} cores, "
        f"{numbers['GPU_memory_GB']:.0f} GB{without}"
    )


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(f"/usr/local/cuda/bin/{name}")


def lightcones(result: Result, folder: Path) -> str:
    """What most checks paint from."""
    sky = Recipe(folder, "sky", SkyOptions(), velocities=False)
    make_lightcones(NUM_LIGHTCONES, sky)
    return f"{NUM_LIGHTCONES} made"


def comap(folder: Path, settings: list[str]) -> Any:
    """The COMAP field of the lightcones that are there."""
    skies = [f"data.train=[{folder}/sky_*.h5]", "data.validation=[]", "data.test=[]"]
    return load_config(COMAP, [*skies, *settings])


def golden(result: Result, folder: Path) -> str:
    """The published digests on the GPU."""
    matches = golden_matches("cuda")
    if not all(matches):
        raise Failed(f"different bytes: matches {matches}, on the CPU {golden_matches('cpu')}")
    return "bit-exact"


def tests(result: Result, folder: Path) -> str:
    """The tests marked gpu, in the files that hold any. What only warns in the packages of this
    machine is no failure."""
    if importlib.util.find_spec("pytest") is None:
        raise NotHere("pytest is not installed here, so the tests marked gpu did not run")
    marked = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "pytest.mark.gpu" in path.read_text(encoding="utf-8")
    ]
    options = ["-v", "-m", "gpu", "-p", "no:cacheprovider", "-W", "default"]
    options += ["-o", "faulthandler_timeout=60"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *marked],
        cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    output = ""
    while more := os.read(process.stdout.fileno(), 1 << 16):
        print(more.decode(errors="replace"), end="", flush=True)
        output += more.decode(errors="replace")
        passed, failed = (len(re.findall(rf" {w}\b", output)) for w in ("PASSED", "FAILED"))
        [*_, present] = re.findall(r"^tests/\S+::.+?(?= |$)", output, re.MULTILINE) or ["none"]
        result.so_far(f"{passed} passed, {failed} failed, the last to begin: {present}")
    status, last = process.wait(), (output.strip() or "no output").splitlines()[-1].strip("= ")
    if status != 0 or " passed" not in last:
        wrong = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
        raise Failed(f"{last} {' '.join(wrong[:8])}")
    return last


def digests(settings: list[str], result: Result, folder: Path) -> str:
    """64 samples of the COMAP field: GPU in batches of 64 and 7, CPU."""
    config = comap(folder, settings)
    gpu, cpu = (Generator(config, "train", device, 8) for device in ("cuda", "cpu"))
    numbers = list(range(64))
    batch = gpu.generate(numbers)
    whole = batch.digests()
    pieces = [d for k in range(0, 64, 7) for d in gpu.generate(numbers[k : k + 7]).digests()]
    same = f"batch 7 = batch 64: {'yes' if pieces == whole else 'no'}"
    result.so_far(same)
    host = cpu.generate(numbers)
    equal = sum(a == b for a, b in zip(whole, host.digests(), strict=True))
    text = f"GPU = CPU for {equal}/64, {same}"
    if equal == len(whole) and pieces == whole:
        return text
    cube = batch.cube.cpu()
    voxels = cube.view(torch.int32) != host.cube.view(torch.int32)
    wrong = [k for k in numbers if whole[k] != host.digests()[k]]
    raise Failed(
        f"{text}; {int(voxels.sum())} of {voxels.numel()} voxels differ, by up to "
        f"{float((cube - host.cube).abs().max()):.3g} of {float(host.cube.abs().max()):.3g}, and "
        f"{int((batch.counts.cpu() != host.counts).sum())} counts, in samples {wrong[:8]}"
    )


def variants(result: Result, folder: Path) -> str:
    """The paint kernel compiled in other ways."""

    def tell(found: dict[str, Any]) -> None:
        result.so_far(f"{len(found)} of them", {"paint": found})

    found = paint_variants(comap(folder, []), torch.device("cuda", 0), 0.3, tell)
    print("\n".join(report_variants(found)), flush=True)
    different = [name for name, row in found.items() if row.get("same_bytes") is False]
    if different:
        raise Failed(f"different bytes: {', '.join(different)}")
    ratios = {n: row["over_shipped"] for n, row in found.items() if "over_shipped" in row}
    if not ratios:
        raise Failed(f"none can be compiled: {found}")
    best = min(ratios, key=lambda name: ratios[name])
    return (
        f"{found['shipped']['us_per_sample']:.2f} us per sample as shipped; {best}: "
        f"{ratios[best]:.3f} of it; the same bytes by all {len(ratios)}"
    )


def bar(value: float, limit: float, *, at_most: bool) -> str:
    """Whether a bar is met, in words."""
    met = value <= limit if at_most else value >= limit
    return f"bar {limit:g}: {'met' if met else 'missed'}"


def benchmark(settings: list[str], network: str, result: Result, folder: Path) -> str:
    """Samples per second on the COMAP field."""
    report = measure(comap(folder, settings), "cuda", 5.0)
    result.so_far("measured", report)
    ratio = report["step_live_over_resident"]
    if network:
        limit = bar(ratio, LIVE_OVER_RESIDENT[network], at_most=True)
        return f"live / resident step {ratio:.3f} ({limit})"
    speed, host = report["generate_samples_per_s"], report["host_us_per_sample"]
    memory = report["generator_peak_MB"] / (report["lightcones_MB"] + 2 * report["batch_MB"])
    return (
        f"{speed:.0f} samples/s ({bar(speed, SAMPLES_PER_S, at_most=False)}), host {host:.0f} us "
        f"per sample ({bar(host, HOST_US, at_most=True)}), memory "
        f"{memory:.2f} of lightcones and two batches ({bar(memory, MEMORY, at_most=True)}), live / "
        f"resident step {ratio:.3f}"
    )


def floors(result: Result, folder: Path) -> str:
    """What a sample must cost on this GPU."""
    found = floor(comap(folder, []), "cuda", 3.0)
    result.so_far("measured", found)
    print("\n".join(report_floor(found)), flush=True)
    return ", ".join(f"{x:.1f} x {name}" for name, x in found["over_bounds"].items())


def sanitizer(tool: str, result: Result, folder: Path) -> str:
    """compute-sanitizer on one batch of four samples. Each tensor has an allocation of its own, so
    that what lies behind it is not torch's too. It works on some machines only, and may be too
    slow: neither is a failure."""
    program = _program("compute-sanitizer")
    if program is None:
        raise NotHere("compute-sanitizer is not installed here")
    result.tell("not here", f"{tool} was not done in time")
    command = [program, "--tool", tool, "--error-exitcode", "9"]
    command += ["--report-api-errors", "no"] if tool == "memcheck" else []
    run = subprocess.run(
        [*command, sys.executable, "-c", SANITIZED], cwd=ROOT, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace",
        env={**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
    )  # fmt: skip
    print(run.stdout, flush=True)
    return verdict(tool, run.returncode, run.stdout)


def verdict(tool: str, status: int, output: str) -> str:
    """What compute-sanitizer has found, by what it printed."""
    summaries = re.findall(r"SUMMARY: (\d+) (?:errors?|hazards?)", output)
    made = "samples made 4" in output
    if made and status == 0 and summaries == ["0"]:
        return f"{tool} clean"
    lines = [line.strip("= ") for line in output.splitlines() if line.startswith("=========")]
    unusable = "not supported|Unable to|Internal Sanitizer Error|Target application terminated"
    reason = next((line for line in lines if re.search(unusable, line)), "")
    if not reason and any(number != "0" for number in summaries):
        raise Failed(f"{tool}: {'; '.join(lines[1:3])}; {lines[-1]}")
    last = (output.strip() or f"exit code {status}").splitlines()[-1]
    raise NotHere(f"{tool} is not usable here: {reason or last}")


def synthesis(result: Result, folder: Path) -> str:
    """A field of 1.4 deg on the GPU, after one that fills caches, and the same on the CPU."""
    options: dict[str, Any] = {"footprint_deg": (1.4, 1.4)}
    steps: list[tuple[str, float]] = []

    def tell(share: float, what: str) -> None:
        torch.cuda.synchronize()
        steps.append((what, time.perf_counter()))

    synthesize(0, **options, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    field = synthesize(1, **options, device="cuda", progress=tell)
    peak = torch.cuda.max_memory_allocated() / 1e9
    times = dict(reversed(steps))  # of each step when it began
    made, all_ = times["sort"] - times["plan"], times["done"] - times["plan"]
    text = (
        f"{1e3 * made:.0f} ms for {len(field)} halos ({1e3 * all_:.0f} ms sorted, on the host), "
        f"{peak:.2f} GB"
    )
    result.so_far(text)
    other = np.setxor1d(field.mass_Msun, synthesize(1, **options).mass_Msun).size
    text += f"; {other} masses that only one of GPU and CPU has"
    if other >= 1e-4 * len(field):
        raise Failed(text)
    return text


def deterministic(result: Result, folder: Path) -> str:
    """Two trainings of 60 steps with train.deterministic: equal weights; and its price."""
    seconds: dict[bool, float] = {}
    digests = []
    skies = sorted(folder.glob("sky_*.h5"))
    if len(skies) < 2:
        raise NotHere("needs two lightcones")
    for number, exact in enumerate((True, True, False)):
        run = folder / f"run_{number}"
        shutil.rmtree(run, ignore_errors=True)
        settings = ["train.steps=60", "train.warmup_steps=5", "train.log_every=20"]
        settings += ["train.validate_every=1000", "train.validation_samples=1", "data.test=[]"]
        settings += [f"data.train=[{skies[0]}]", f"data.validation=[{skies[1]}]", f"run={run}"]
        settings += [f"train.deterministic={str(exact).lower()}"]
        trainer = Trainer(load_config(COMAP, settings), "cuda")
        trainer.run()
        seconds[exact] = read_history(run / "history.jsonl")[2]["train_ms"] / 1e3
        weights = [v.cpu().numpy().tobytes() for v in trainer.network.state_dict().values()]
        digests.append(hashlib.sha256(b"".join(weights)).hexdigest())
        result.so_far(f"{number + 1} of 3 trainings", {"weights": digests})
    ratio = seconds[True] / seconds[False]
    result.so_far("done", {"deterministic_over_usual_step": ratio})
    if digests[0] != digests[1]:
        raise Failed("two trainings with train.deterministic have different weights")
    return f"equal weights, step {ratio:.3f} of the usual one"


def alternatives(result: Result, folder: Path) -> str:
    """Torch's and CuPy's ways to make the same sample."""
    found = compare_on_gpu(comap(folder, []), torch.device("cuda", 0), 3.0)
    result.so_far("measured", found)
    if found.get("failures"):
        raise Failed(str(found["failures"]))
    ratio = found["best_alternative_over_streamtrain"]
    return f"the best of them takes {ratio:.1f} x ({bar(ratio, OVER_ALTERNATIVES, at_most=False)})"


CHECKS: dict[str, Callable[[Result, Path], str]] = {
    "environment": environment,
    "lightcones": lightcones,
    "golden digests": golden,
    "tests marked gpu": tests,
    "64 digests, li16": partial(digests, []),
    "64 digests, all on": partial(digests, EVERYTHING),
    "paint variants": variants,
    "bench, li16": partial(benchmark, [], ""),
    "bench, 3-D ResNet": partial(benchmark, RESNET_3D, "3-D ResNet"),
    "bench, 2-D CNN": partial(benchmark, CNN_2D, "2-D CNN"),
    "bench, all on": partial(benchmark, EVERYTHING, ""),
    "roofline": floors,
    "sanitizer, memcheck": partial(sanitizer, "memcheck"),
    "sanitizer, racecheck": partial(sanitizer, "racecheck"),
    "deterministic training": deterministic,
    "synthesis": synthesis,
    "alternatives": alternatives,
}


def main() -> int:
    """Exit status 0 where a result was written, whatever it says."""
    name, folder, path = sys.argv[1:]
    os.chdir(ROOT)
    result = Result(Path(path))
    try:
        if name != "lightcones":
            if not torch.cuda.is_available():
                result.tell("failed", "no NVIDIA GPU that torch can use", {"stop": True})
                return 0
            device = f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}"
            result.so_far("begun", {"device": device})
        result.tell("ok", CHECKS[name](result, Path(folder)))
    except NotHere as reason:
        result.tell("not here", str(reason))
    except Failed as reason:
        result.tell("failed", str(reason))
    except Exception as error:
        traceback.print_exc()
        result.tell("failed", f"{type(error).__name__}: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
