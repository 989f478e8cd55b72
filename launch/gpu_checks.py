"""Everything that needs an NVIDIA GPU, in one command, with a short table last.

python launch/gpu_checks.py                 from a checkout, nothing installed but the packages
python launch/gpu_checks.py --out results   also writes gpu_checks.json there

Bit-equality of GPU and CPU samples comes first (also with every emitter and map operator on), then
equal weights of two trainings with train.deterministic and its price, the tests marked gpu, then
`streamtrain bench` on the COMAP field of a lightcone that is synthesised on the spot.
"""

from __future__ import annotations

import argparse
import hashlib
import json
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


def benchmark(name: str, settings: list[str], numbers: dict[str, Any]) -> str:
    """Samples per second on the COMAP field."""
    config = load_config("configs/comap.yaml", settings)
    report = measure(config, "cuda", 5.0)
    numbers[name] = report
    print(json.dumps(report, indent=1), flush=True)
    return (
        f"{report['generate_samples_per_s']:.0f} samples/s, "
        f"live / resident step {report['step_live_over_resident']:.3f}"
    )


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
    out: Path | None = parser.parse_args().out
    if not torch.cuda.is_available():
        print("no NVIDIA GPU that torch can use", file=sys.stderr)
        return 1
    numbers: dict[str, Any] = {"device": torch.cuda.get_device_name(0), "torch": torch.__version__}
    rows: list[tuple[str, str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        sky = Recipe(Path(folder), "sky", SkyOptions(), velocities=False)
        settings = [f"data.train=[{folder}/sky_*.h5]", "data.validation=[]", "data.test=[]"]

        def run(name: str, check: Callable[[], str]) -> None:
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
            lambda: f"exit {make_lightcones(2, sky)}",
        )
        run("synthesis, 1.4 deg", synthesis)
        run("64 digests", lambda: digests(settings))
        run("64 digests, all on", lambda: digests([*settings, *EVERYTHING]))
        run(
            "deterministic training",
            lambda: deterministic(
                Path(folder),
                [f"data.train=[{folder}/sky_*0.h5]", f"data.validation=[{folder}/sky_*1.h5]"],
                numbers,
            ),
        )
        run("tests marked gpu", tests)
        run("bench", lambda: benchmark("bench", settings, numbers))
        run("bench, all on", lambda: benchmark("bench_all_on", [*settings, *EVERYTHING], numbers))
    numbers["checks"] = {name: result for name, result, _ in rows}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "gpu_checks.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")
    print(f"\n{numbers['device']}, torch {numbers['torch']}")
    for name, result, seconds in rows:
        print(f"{name:20s} {seconds:7.1f} s  {result}")
    return int(any(result.startswith(("FAILED", "DIFFERENT")) for _, result, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
