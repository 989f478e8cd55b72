"""Networks beside the Markov chain on the same test maps: the tables of docs/classical.md.

python launch/beside_chain.py CONFIG --parameters RUN --counts RUN [--maps 16] [--out FOLDER]

CONFIG is that of the chain, as for `streamtrain mcmc`, whose chains are these, sample for sample.
The run of --parameters has the head `flow`, that of --counts `joint_counts`; both were trained on
CONFIG's maps. Compared are the posteriors of the luminosity model's parameters, chain against flow,
and those of the luminosity function, of which the chain and the flow have what follows from their
parameters. FOLDER keeps each map's chain, and the same command goes on where it was interrupted.
Set OMP_NUM_THREADS=1 for times of one core.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from streamtrain.config import load_config  # noqa: E402
from streamtrain.evaluate.baselines import MEAN_LABEL_SAMPLES  # noqa: E402
from streamtrain.evaluate.bootstrap import Bootstrap  # noqa: E402
from streamtrain.evaluate.posterior.functions import functionals  # noqa: E402
from streamtrain.evaluate.run import Run  # noqa: E402
from streamtrain.evaluate.scores import score  # noqa: E402
from streamtrain.labels import Label  # noqa: E402
from streamtrain.luminosity.scores import NormalScores, in_label  # noqa: E402
from streamtrain.machine.progress import Progress  # noqa: E402
from streamtrain.machine.workers import Resources  # noqa: E402
from streamtrain.mcmc.inference import Inference, Options  # noqa: E402
from streamtrain.mcmc.maps import make_maps  # noqa: E402
from streamtrain.tables import columns, plus_minus, range_title, rms_cell  # noqa: E402

Float = NDArray[np.float64]

DRAWN = 4000
"""Samples of each posterior of parameters, and luminosity functions of the head of counts."""
PAINTED = 1000
"""Of them, those whose luminosity function is worked out."""
ABOVE = (5.0, 5.5, 6.0, 6.5)
"""log10(L/Lsun) of the N(>L) that are compared."""
TIMED = 20
"""Times that a network's posterior of a map is drawn to know how long it takes."""


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("config", metavar="CONFIG", help="of the chain; a file or a run's folder")
    add("settings", nargs="*", metavar="key=value", help="settings to change")
    add("--parameters", required=True, metavar="RUN", help="with the head flow")
    add("--counts", required=True, metavar="RUN", help="with the head joint_counts")
    add("--maps", type=int, default=16, help="test maps [%(default)s]")
    add("--out", type=Path, default=Path("beside_chain"), help="[%(default)s]")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    config = load_config(arguments.config, arguments.settings)
    progress = Progress()
    began = time.process_time()
    inference = Inference(config, Options(), Resources(progress=progress))
    once = time.process_time() - began
    runs = {"counts": Run.open(arguments.counts), "parameters": Run.open(arguments.parameters)}
    test = make_maps(inference, arguments.maps, runs)
    generator = runs["counts"].testing()
    batch = generator.generate(range(arguments.maps))
    generator.close()
    arguments.out.mkdir(parents=True, exist_ok=True)
    chains = []
    for number in range(arguments.maps):
        path = arguments.out / f"chain_{number:03d}.npz"
        if not path.is_file():
            np.savez(path, **sampled(inference, test, number))
        chains.append(dict(np.load(path)))
        progress.note(f"map {number}: tau {chains[-1]['tau']:.0f} steps")
    networks = {name: network_of(run) for name, run in runs.items()}
    seconds = {name: timed(network, batch.cube) for name, network in networks.items()}
    with torch.inference_mode():
        joint = networks["counts"].head.sample(
            networks["counts"](batch.cube), DRAWN, torch.Generator().manual_seed(0)
        )
    progress.close()

    skies = Bootstrap.choose(test.skies)
    flows = test.posteriors["parameters"]
    print(f"{arguments.maps} test maps of {len(set(test.skies))} skies; +-: over {skies.unit}\n")
    print(
        "\n".join(of_parameters(inference, test.theta, [c["theta"] for c in chains], flows, skies))
    )
    functions = {
        "chain": [painted(inference, test, k, c["theta"]) for k, c in enumerate(chains)],
        "flow": [painted(inference, test, k, flow) for k, flow in enumerate(flows)],
        "joint": list(joint.numpy().transpose(1, 0, 2)),
    }
    true = batch.counts.numpy().astype(float)
    print()
    print("\n".join(of_functions(inference, true, functions, skies)))
    print()
    print("\n".join(errors(inference, test, chains, functions, skies)))
    print()
    print("\n".join(times(once, chains, seconds)))
    inference.close()
    return 0


def network_of(run: Run) -> Any:
    """The trained network of a run."""
    config = run.config
    label = Label(config.label, parameters=in_label(config.label, config.line))
    return run.trained.network(label)


def sampled(inference: Inference, test: Any, number: int) -> dict[str, Any]:
    """What is kept of the chain of a map, with the CPU seconds of the simulations over the prior
    and of all that follows."""
    began = time.process_time()
    inference.noise(test.levels[number])
    simulated = time.process_time()
    posterior = inference.infer(test.vectors[number], test.levels[number], seed=number)
    done = time.process_time()
    chain = posterior.chain
    return {
        "theta": chain.spread(DRAWN),
        "tau": chain.tau,
        "acceptance": chain.acceptance,
        "independent": len(chain.samples) / chain.tau,
        "chi2": posterior.chi2,
        "numbers": int(posterior.noise.used.sum()),
        "mean": posterior.mean[2],
        "field": posterior.field,
        "simulated_s": simulated - began,
        "sampled_s": done - simulated,
    }


def painted(inference: Inference, test: Any, number: int, theta: Float) -> Float:
    """Halos per bin of a map's field, as `Inference.infer` works them out, for samples of the
    parameters: [PAINTED, num_bins]."""
    random = np.random.default_rng(number)
    chosen = theta[np.linspace(0, len(theta) - 1, PAINTED).astype(int)]
    fields = random.choice(inference.noise(test.levels[number]).fields, len(chosen))[:, None]
    return random.poisson(inference.rates(chosen)[:, :-1] * fields).astype(float)


def timed(network: Any, cubes: torch.Tensor) -> tuple[float, float]:
    """CPU seconds of a map: of the network, and of `DRAWN` samples of its posterior."""
    passed, drawn = [], []
    for number in range(TIMED):
        cube = cubes[number % len(cubes), None]
        began = time.process_time()
        with torch.inference_mode():
            prediction = network(cube)
            middle = time.process_time()
            network.head.sample(prediction, DRAWN, torch.Generator().manual_seed(number))
        passed.append(middle - began)
        drawn.append(time.process_time() - middle)
    return float(np.median(passed)), float(np.median(drawn))


def within(samples: Sequence[Float], true: Float) -> tuple[int, int]:
    """In how many maps 68 and 95 % of the samples [num] hold the truth [maps]."""
    levels = [np.percentile(s, (2.5, 16.0, 84.0, 97.5)) for s in samples]
    pairs = [(a <= t <= d, b <= t <= c) for (a, b, c, d), t in zip(levels, true, strict=True)]
    return sum(inner for _, inner in pairs), sum(outer for outer, _ in pairs)


def width(samples: Sequence[Float]) -> Float:
    """Half of the 68 % interval of each map's samples."""
    return np.array([0.5 * np.diff(np.percentile(s, (16.0, 84.0)))[0] for s in samples])


def ratio(of: Float, over: Float, skies: Bootstrap) -> str:
    """Ratio of the means over the maps, with its error."""
    return plus_minus(float(of.sum() / over.sum()), skies.ratio(of, over), ".3f")


def of_parameters(
    inference: Inference,
    true: Float,
    chain: Sequence[Float],
    flow: Sequence[Float],
    skies: Bootstrap,
) -> list[str]:
    """Widths and coverage of every parameter, and of the posteriors as a whole."""
    prior, rows = inference.simulations.theta, []

    def root_of_mean(squares: Float) -> str:
        error = skies.ratio(squares, np.ones(len(squares)), root=True)
        return plus_minus(float(np.sqrt(squares.mean())), error, ".2f")

    for k, name in enumerate(inference.density.names):
        theirs, ours = ([s[:, k] for s in samples] for samples in (chain, flow))
        widths = [width(theirs), width(ours)]
        stds = [np.array([s.std() for s in samples]) for samples in (theirs, ours)]
        away = [true[:, k] - [s.mean() for s in samples] for samples in (theirs, ours)]
        rows.append(
            [
                name,
                f"{width([prior[:, k]])[0]:.4f}",
                *(plus_minus(w.mean(), skies.mean(w)) for w in widths),
                ratio(widths[1], widths[0], skies),
                ratio(stds[1], stds[0], skies),
                *("{}, {}".format(*within(s, true[:, k])) for s in (theirs, ours)),
                *(root_of_mean((a / s) ** 2) for a, s in zip(away, stds, strict=True)),
                plus_minus(
                    float(np.sqrt((away[1] ** 2).sum() / (away[0] ** 2).sum())),
                    skies.ratio(away[1] ** 2, away[0] ** 2, root=True),
                    ".2f",
                ),
            ]
        )
    component = inference.generator.mixture.components[0]
    scores = NormalScores(component.prior, component.model.defaults)

    def of(theta: Float) -> Float:
        values = dict(zip(inference.density.names, theta.T, strict=True))
        return scores.scores(values, np.full((len(theta), len(scores.names)), 0.5))

    def normal(samples: Float, truth: Float) -> tuple[float, float, float]:
        """ln of the volume of a normal distribution with the samples' moments, chi^2 of the truth
        in it, and its part along the shortest axis."""
        variances, axes = np.linalg.eigh(np.cov(samples, rowvar=False))
        squares = ((truth - samples.mean(0)) @ axes) ** 2 / variances
        return 0.5 * float(np.log(variances).sum()), float(squares.sum()), float(squares[0])

    (ours, chi2, short), (theirs, their_chi2, their_short) = (
        np.array([normal(of(s), t) for s, t in zip(samples, of(true), strict=True)]).T
        for samples in (flow, chain)
    )
    volume, density = ours - theirs, theirs - ours + 0.5 * (their_chi2 - chi2)
    head = ["parameter", "prior", "chain", "flow", "flow / chain", "of std"]
    return [
        *columns([*head, "chain holds", "flow", "chain off by", "flow", "errors"], rows),
        "half of the 68 % intervals; ratios of the means over the maps; holds: truths in 68, 95 %;",
        "off by: rms distance of truth and mean, in standard deviations of the posterior;",
        "errors: rms of that distance, flow over chain",
        f"chi^2 of the truth, {true.shape[1]} numbers: chain "
        f"{plus_minus(their_chi2.mean(), skies.mean(their_chi2), '.1f')}, flow "
        f"{plus_minus(chi2.mean(), skies.mean(chi2), '.1f')}",
        f"along the shortest axis the truth is off by: chain {root_of_mean(their_short)}, flow "
        f"{root_of_mean(short)}",
        "ln of the flow's volume over the chain's (normal scores): "
        + plus_minus(volume.mean(), skies.mean(volume), ".2f"),
        "ln of the density at the truth, flow's over chain's: "
        + plus_minus(density.mean(), skies.mean(density), ".2f"),
    ]


def sums(inference: Inference) -> dict[str, Float]:
    """Weights of the bins [num_bins] of what is compared of a luminosity function."""
    bins = inference.config.label.luminosity_bins
    edges = bins.edges[:-1]
    found = {"N(10^3.5-10^4.5)": (edges < 4.5 - 1e-9).astype(float)}
    found |= {f"N(>10^{low:g})": (edges > low - 1e-9).astype(float) for low in ABOVE}
    [rho] = [f for f in functionals(bins, inference.config.grid) if f.name == "rho_L"]
    return {**found, "rho_L": rho.weights}


def of_functions(
    inference: Inference, true: Float, functions: dict[str, list[Float]], skies: Bootstrap
) -> list[str]:
    """Sums over the bins, and single bins: widths, coverage, and how far medians are apart."""

    def log10(counts: Float) -> Float:
        return np.log10(np.maximum(counts, 1.0))

    rows = []
    for name, weights in sums(inference).items():
        values = {who: [log10(s @ weights) for s in f] for who, f in functions.items()}
        truth = log10(true @ weights)
        widths = {who: width(s) for who, s in values.items()}
        middle = {who: np.array([np.median(s) for s in f]) for who, f in values.items()}
        known = widths["joint"] > 0.0
        apart = (middle["flow"] - middle["joint"])[known] / widths["joint"][known]
        own = skies.among(known)
        rows.append(
            [
                name,
                *(plus_minus(w.mean(), skies.mean(w)) for w in widths.values()),
                ratio(widths["flow"], widths["joint"], skies),
                ratio(widths["chain"], widths["joint"], skies),
                plus_minus(apart.mean(), own.mean(apart), ".2f"),
                f"{np.sqrt((apart**2).mean()):.2f}",
                *("{}, {}".format(*within(s, truth)) for s in values.values()),
            ]
        )
    shares = []
    for f in functions.values():
        levels = np.array([np.percentile(log10(s), (2.5, 16.0, 84.0, 97.5), axis=0) for s in f])
        t = log10(true)
        inside = [(levels[:, a] <= t) & (t <= levels[:, b]) for a, b in ((1, 2), (0, 3))]
        shares.append([i[true > 0].mean() for i in inside])
    head = ["", *functions, "flow / joint", "chain / joint", "flow - joint", "rms"]
    return [
        *columns([*head, *(f"{who} holds" for who in functions)], rows),
        "half of the 68 % intervals [dex]; flow - joint: medians, in the joint head's half-widths",
        "single bins with a halo, 68 and 95 %: "
        + ", ".join(
            f"{who} {a:.2f}, {b:.2f}" for who, (a, b) in zip(functions, shares, strict=True)
        ),
    ]


def errors(
    inference: Inference,
    test: Any,
    chains: list[dict[str, Any]],
    functions: dict[str, list[Float]],
    skies: Bootstrap,
) -> list[str]:
    """rms error of log10 dN of each predictor, as `streamtrain mcmc` prints it."""
    flow = np.array([np.median(np.log10(np.maximum(s, 1.0)), axis=0) for s in functions["flow"]])
    predictors = {
        "joint": test.networks["counts"],
        "flow": flow,
        "chain": np.array([chain["mean"] for chain in chains]),
        "mean label": inference.simulations.log10_counts[:MEAN_LABEL_SAMPLES].mean(axis=0),
    }
    edges = inference.generator.bin_edges
    scores = [score(p, test.true, test.occupied, edges, skies) for p in predictors.values()]
    rows = [
        [range_title(row[0].log10_L), *(rms_cell(vars(r)) for r in row)]
        for row in zip(*(s.ranges for s in scores), strict=True)
    ]
    rows.append(["mse, all bins", *(plus_minus(s.mse, s.mse_error) for s in scores)])
    return ["rms error of log10 dN [dex]", *columns(["log10 L", *predictors], rows)]


def times(
    once: float, chains: list[dict[str, Any]], seconds: dict[str, tuple[float, float]]
) -> list[str]:
    """CPU seconds, and what there is to know of the chains."""

    def spread(name: str, form: str = ".3g") -> str:
        values = [float(chain[name]) for chain in chains]
        return f"{np.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"

    lines = [
        f"chain: simulations and mean model once {once:.1f} s; for each map simulations "
        f"over the prior {spread('simulated_s')} s, chains and simulations near them "
        f"{spread('sampled_s')} s (CPU)",
        f"tau {spread('tau')} steps, {spread('independent')} independent samples, acceptance "
        f"{spread('acceptance')}, chi^2 {spread('chi2')} of {spread('numbers')} numbers",
    ]
    for name, (passed, drawn) in seconds.items():
        lines.append(
            f"{name}: network {1e3 * passed:.2f} ms, {DRAWN} samples {1e3 * drawn:.1f} ms (CPU)"
        )
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
