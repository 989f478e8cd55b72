"""Everything that needs an NVIDIA GPU, in one command, with a short table last.

python launch/gpu_checks.py                 from a checkout, nothing installed but the packages
python launch/gpu_checks.py --out results   also writes gpu_checks.json there
python launch/gpu_checks.py --only bench    those checks alone whose names hold the word

Bit-equality of GPU and CPU samples comes first (also with every emitter and map operator on), then
compute-sanitizer on one batch where it is installed, equal weights of two trainings with
train.deterministic and its price, the tests marked gpu, then the parts of `streamtrain bench` on
the COMAP field of lightcones that are synthesised on the spot: generation and a step with live
generation over one on a resident batch for three networks, torch's and CuPy's ways to paint, the
bounds that the hardware sets, which options of a step pay, scaling, and, with several GPUs, ranks.
What has a bar says whether it is met; a bar is for an H200 and no failure elsewhere.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from streamtrain import Generator, load_config  # noqa: E402
from streamtrain.bench import measure  # noqa: E402
from streamtrain.bench.comparison import compare_on_gpu  # noqa: E402
from streamtrain.bench.floor import floor, report_floor  # noqa: E402
from streamtrain.bench.ranks import rank_costs, report_ranks  # noqa: E402
from streamtrain.bench.scaling import report_scaling, scaling  # noqa: E402
from streamtrain.bench.training import (  # noqa: E402
    best_option,
    report_options,
    training_options,
)
from streamtrain.catalogs.make import Recipe, make_lightcones  # noqa: E402
from streamtrain.catalogs.skyoptions import SkyOptions  # noqa: E402
from streamtrain.catalogs.synthesize import synthesize  # noqa: E402
from streamtrain.check import golden_matches  # noqa: E402
from streamtrain.train import Trainer  # noqa: E402
from streamtrain.train.folder import read_history  # noqa: E402

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
"""Every emitter and every map operator at once."""
CNN_2D = "network={kind: cnn, layers: 5, kernel: 3, filters: 32}"
RESNET_3D = "network={kind: resnet, filters: 64}"
LIVE_OVER_RESIDENT = {"2-D CNN": 1.15, "3-D ResNet": 1.05}
"""Bars of a step with live generation over one on a resident batch."""
SAMPLES_PER_S, OVER_ALTERNATIVES, HOST_US, MEMORY = 40_000.0, 10.0, 50.0, 1.1
"""Bars of the generator alone: speed at batch 64, over the best of torch and CuPy, host time per
sample, peak memory over lightcones and two batches."""
NUM_LIGHTCONES = 8
"""Of the 16 that configs/comap.yaml trains on: the machine's cores make so many at a time."""
SANITIZED = """
from streamtrain import Generator, load_config
import sys
generator = Generator(load_config("configs/comap.yaml", sys.argv[1:]), "train", "cuda")
print(generator.generate(range(4)).cube.sum().item())
"""


def golden() -> str:
    """The published digests on the GPU."""
    matches = golden_matches("cuda")
    return "bit-exact" if all(matches) else f"DIFFERENT: {matches}"


def digests(settings: list[str]) -> str:
    """64 samples of the COMAP field: GPU in batches of 64 and 7, CPU."""
    config = load_config("configs/comap.yaml", settings)
    gpu, cpu = (Generator(config, "train", device, 8) for device in ("cuda", "cpu"))
    numbers = list(range(64))
    whole = gpu.generate(numbers).digests()
    pieces = [d for k in range(0, 64, 7) for d in gpu.generate(numbers[k : k + 7]).digests()]
    host = cpu.generate(numbers).digests()
    equal = sum(a == b for a, b in zip(whole, host, strict=True))
    text = f"GPU = CPU for {equal}/64, batch 7 = batch 64: {'yes' if pieces == whole else 'no'}"
    return text if equal == len(whole) and pieces == whole else f"DIFFERENT: {text}"


def synthesis() -> str:
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
    reference = synthesize(1, **options)
    other = np.setxor1d(field.mass_Msun, reference.mass_Msun).size
    text = (
        f"{1e3 * made:.0f} ms for {len(field)} halos ({1e3 * all_:.0f} ms sorted, on the host), "
        f"{peak:.2f} GB; {other} masses that only one of GPU and CPU has"
    )
    return text if other < 1e-4 * len(field) else f"DIFFERENT: {text}"


def tests() -> str:
    """The tests marked gpu."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(result.stdout[-4000:], flush=True)
    last = (result.stdout.strip() or result.stderr.strip() or "no output").splitlines()[-1]
    return last if result.returncode == 0 and " passed" in last else f"FAILED: {last}"


def sanitizer(settings: list[str]) -> str:
    """compute-sanitizer on one batch of four samples: memory errors, then races. Each tensor has
    an allocation of its own, so that what lies behind it is not torch's too."""
    program = shutil.which("compute-sanitizer") or shutil.which(
        "/usr/local/cuda/bin/compute-sanitizer"
    )
    if program is None:
        return "not installed here"
    found = []
    for tool in ("memcheck", "racecheck"):
        command = [program, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c"]
        result = subprocess.run(
            [*command, SANITIZED, *settings], cwd=ROOT, capture_output=True, text=True, check=False,
            timeout=900, env={**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        )  # fmt: skip
        print(result.stdout[-2000:], result.stderr[-2000:], flush=True)
        found.append(f"{tool} {'clean' if result.returncode == 0 else 'FAILED'}")
    text = ", ".join(found)
    return f"FAILED: {text}" if "FAILED" in text else text


def bar(value: float, limit: float, *, at_most: bool) -> str:
    """Whether a bar is met, in words."""
    met = value <= limit if at_most else value >= limit
    return f"bar {limit:g}: {'met' if met else 'missed'}"


def benchmark(name: str, settings: list[str], numbers: dict[str, Any], network: str = "") -> str:
    """Samples per second on the COMAP field."""
    config = load_config("configs/comap.yaml", settings)
    report = measure(config, "cuda", 5.0)
    numbers[name] = report
    print(json.dumps(report, indent=1), flush=True)
    ratio = report["step_live_over_resident"]
    if network:
        limit = bar(ratio, LIVE_OVER_RESIDENT[network], at_most=True)
        return f"live / resident step {ratio:.3f} ({limit})"
    speed, host = report["generate_samples_per_s"], report["host_us_per_sample"]
    own = report["training_process_us_per_sample"]
    memory = report["generator_peak_MB"] / (report["lightcones_MB"] + 2 * report["batch_MB"])
    return (
        f"{speed:.0f} samples/s ({bar(speed, SAMPLES_PER_S, at_most=False)}), host {host:.0f} us "
        f"per sample ({bar(host, HOST_US, at_most=True)}), {own:.1f} of it while training, memory "
        f"{memory:.2f} of lightcones and two batches ({bar(memory, MEMORY, at_most=True)}), live / "
        f"resident step {ratio:.3f}"
    )


def alternatives(settings: list[str], numbers: dict[str, Any]) -> str:
    """Torch's and CuPy's ways to make the same sample."""
    config = load_config("configs/comap.yaml", settings)
    found = compare_on_gpu(config, torch.device("cuda", 0), 3.0)
    numbers["alternatives"] = found
    print(json.dumps(found, indent=1), flush=True)
    if found.get("failures"):
        return f"FAILED: {found['failures']}"
    ratio = found["best_alternative_over_streamtrain"]
    return f"the best of them takes {ratio:.1f} x ({bar(ratio, OVER_ALTERNATIVES, at_most=False)})"


def floors(settings: list[str], numbers: dict[str, Any]) -> str:
    """What a sample must cost on this GPU."""
    found = floor(load_config("configs/comap.yaml", settings), "cuda", 3.0)
    numbers["floor"] = found
    print("\n".join(report_floor(found)), flush=True)
    return ", ".join(f"{x:.1f} x {name}" for name, x in found["over_bounds"].items())


def options(settings: list[str], numbers: dict[str, Any]) -> str:
    """Which options of a training step pay."""
    found = training_options(load_config("configs/comap.yaml", settings), "cuda", 20.0)
    numbers["training"] = found
    print("\n".join(report_options(found)), flush=True)
    best = {name: best_option(times) for name, times in found.items()}
    return "; ".join(f"{name}: {option} {gain:.2f} x" for name, (option, gain) in best.items())


def scales(settings: list[str], numbers: dict[str, Any]) -> str:
    """A sample against halos, voxels, batch and lightcone."""
    rows = scaling(load_config("configs/comap.yaml", settings), "cuda", 5.0)
    numbers["scaling"] = rows
    print("\n".join(report_scaling(rows)), flush=True)
    return f"{len(rows)} points, see above"


def ranks(settings: list[str], numbers: dict[str, Any]) -> str:
    """Several GPUs, a process each."""
    number = torch.cuda.device_count()
    if number < 2:
        return "needs two GPUs"
    rows = rank_costs(load_config("configs/comap.yaml", settings), "cuda", number)
    numbers["ranks"] = rows
    print("\n".join(report_ranks(rows)), flush=True)
    return f"{number} ranks make {rows[-1]['over_one_rank']:.2f} times the samples of one"


def deterministic(folder: Path, settings: list[str], numbers: dict[str, Any]) -> str:
    """Two trainings of 60 steps with train.deterministic: equal weights; and its price."""
    seconds: dict[bool, float] = {}
    digests = []
    for number, exact in enumerate((True, True, False)):
        run = folder / f"run_{number}"
        more = ["train.steps=60", "train.warmup_steps=5", "train.log_every=20"]
        more += ["train.validate_every=1000", "train.validation_samples=1"]
        config = load_config(
            "configs/comap.yaml",
            [*settings, *more, f"run={run}", f"train.deterministic={str(exact).lower()}"],
        )
        trainer = Trainer(config, "cuda")
        trainer.run()
        seconds[exact] = read_history(run / "history.jsonl")[2]["train_ms"] / 1e3
        weights = [v.cpu().numpy().tobytes() for v in trainer.network.state_dict().values()]
        digests.append(hashlib.sha256(b"".join(weights)).hexdigest())
    numbers["deterministic_over_usual_step"] = seconds[True] / seconds[False]
    text = f"equal weights, step {seconds[True] / seconds[False]:.3f} of the usual one"
    return text if digests[0] == digests[1] else f"DIFFERENT: {digests[:2]}"


def main() -> int:
    """Exit status 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for gpu_checks.json")
    parser.add_argument("--only", default="", help="the checks whose names hold this word")
    given = parser.parse_args()
    out: Path | None = given.out
    if not torch.cuda.is_available():
        print("no NVIDIA GPU that torch can use", file=sys.stderr)
        return 1
    numbers: dict[str, Any] = {"device": torch.cuda.get_device_name(0), "torch": torch.__version__}
    rows: list[tuple[str, str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        sky = Recipe(Path(folder), "sky", SkyOptions(), velocities=False)
        settings = [f"data.train=[{folder}/sky_*.h5]", "data.validation=[]", "data.test=[]"]

        def run(name: str, check: Callable[[], str], always: bool = False) -> None:
            if given.only not in name and not always:
                return
            start = time.perf_counter()
            try:
                result = check()
            except Exception as error:
                result = f"FAILED: {type(error).__name__}: {error}"
            rows.append((name, result, time.perf_counter() - start))
            print(f"{name}: {result}", flush=True)

        run("golden digests", golden)
        run(
            "lightcones",
            lambda: f"exit {make_lightcones(NUM_LIGHTCONES, sky)}",
            always=True,
        )
        run("synthesis, 1.4 deg", synthesis)
        run("64 digests", lambda: digests(settings))
        run("64 digests, all on", lambda: digests([*settings, *EVERYTHING]))
        run("compute-sanitizer", lambda: sanitizer(settings))
        run("compute-sanitizer, all on", lambda: sanitizer([*settings, *EVERYTHING]))
        both = [f"data.train=[{folder}/sky_*0.h5]", f"data.validation=[{folder}/sky_*1.h5]"]
        run("deterministic training", lambda: deterministic(Path(folder), both, numbers))
        run("tests marked gpu", tests)
        run("bench", lambda: benchmark("bench", settings, numbers))
        run("bench, all on", lambda: benchmark("bench_all_on", [*settings, *EVERYTHING], numbers))
        for network, setting in (("2-D CNN", CNN_2D), ("3-D ResNet", RESNET_3D)):
            run(
                f"bench, {network}",
                lambda n=network, s=setting: benchmark(f"bench {n}", [*settings, s], numbers, n),  # type: ignore[misc]
            )
        run("bench, alternatives", lambda: alternatives(settings, numbers))
        run("bench, floor", lambda: floors(settings, numbers))
        run("bench, training", lambda: options(settings, numbers))
        run("bench, scaling", lambda: scales(settings, numbers))
        run("bench, ranks", lambda: ranks(both, numbers))
    numbers["checks"] = {name: result for name, result, _ in rows}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "gpu_checks.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")
    print(f"\n{numbers['device']}, torch {numbers['torch']}")
    for name, result, seconds in rows:
        print(f"{name:22s} {seconds:7.1f} s  {result}")
    return int(any(result.startswith(("FAILED", "DIFFERENT")) for _, result, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
