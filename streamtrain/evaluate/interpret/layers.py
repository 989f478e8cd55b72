"""What the layers of a trained network do with one map: `streamtrain layers`.

It draws filters (filters.png), activations (activations.png) and a gradient (gradient.png), that of
one output with respect to every voxel of the map (a saliency map, Simonyan et al. 2013,
arXiv:1312.6034), in map units where the map's transform can be undone voxel by voxel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import gelu

from streamtrain.config import Config
from streamtrain.evaluate.folder import output_folder, run_config
from streamtrain.evaluate.interpret import layer_figures
from streamtrain.evaluate.interpret.layer_figures import Activation, Gradient, Target
from streamtrain.evaluate.run import Run
from streamtrain.figures import as_name, write_png
from streamtrain.labels import Label
from streamtrain.machine.workers import ALONE, Resources
from streamtrain.networks.cnn import CNN
from streamtrain.networks.compact import Compact
from streamtrain.networks.layers import SameConv
from streamtrain.networks.means import Means
from streamtrain.networks.network import Network
from streamtrain.networks.resnet import ResNet
from streamtrain.networks.summaries import Hybrid

Float = NDArray[np.float64]


def first_filters(network: Network) -> NDArray[np.float32]:
    """Weights of the first convolution [filters, frequencies, dec, ra]: of every channel of the map
    in 2 dimensions, else of neighbouring ones. They act on the input in its standard deviations."""
    for module in network.body.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            weight = module.weight.detach()
            return (weight[:, 0] if weight.ndim == 5 else weight).cpu().numpy()
    raise AssertionError("a network without a convolution")


def filtered_shape(network: Network, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """(n_freq, n_dec, n_ra) of the map that the first filters act on, of a map of that shape: a
    hybrid's are of the map joined by two pixels."""
    freq, dec, ra = shape
    return (freq, dec // 2, ra // 2) if isinstance(network.body, Hybrid) else shape


def watched(network: Network) -> list[tuple[str, nn.Module, Callable[[Tensor], Tensor]]]:
    """Names of the layers whose activations are shown, the modules that make them, and what is left
    to be done to a module's output. A module that makes several stands once."""
    body = network.body

    def as_it_is(x: Tensor) -> Tensor:
        return x

    def with_channels(x: Tensor) -> Tensor:  # which a hybrid convolves one by one
        return gelu(x).transpose(0, 1)[None]

    if isinstance(body, Hybrid):
        found = enumerate(body.convolutions, 1)
        return [(f"layer {k}", convolution, with_channels) for k, convolution in found]
    if isinstance(body, Means):
        return [("layer", body.pool, as_it_is)]
    if isinstance(body, Compact):
        stages = [(f"stage {k}", stage, as_it_is) for k, stage in enumerate(body.stages, 2)]
        return [("stage 1", body.stem, gelu), *stages]
    if isinstance(body, ResNet):
        stages = [(f"stage {k}", stage, as_it_is) for k, stage in enumerate(body.stages, 1)]
        return [("stem", body.pool, as_it_is), *stages]
    assert isinstance(body, CNN)
    # a layer ends before the convolution that takes other channels, or more of them
    ends: list[tuple[str, nn.Module, Callable[[Tensor], Tensor]]] = []
    modules = list(body.layers)
    for k, module in enumerate(modules):
        after = modules[k + 1] if k + 1 < len(modules) else None
        if after is None or (isinstance(after, SameConv) and _widens(after)):
            ends.append((f"layer {len(ends) + 1}", module, as_it_is))
    return ends


def _widens(layer: SameConv) -> bool:
    weight = layer.convolution.weight
    assert isinstance(weight, Tensor)
    return weight.shape[0] != weight.shape[1]


@torch.no_grad()
def activations(network: Network, cube: Tensor) -> list[Activation]:
    """What the layers of a network put out for one map, in the order of the layers.

    network: in evaluation mode; cube: [n_freq, n_dec, n_ra], as it is trained on.
    """
    found: list[Activation] = []
    layers = watched(network)
    hooks = []
    for name, module, rest in layers:

        def record(
            _: nn.Module, __: Any, output: Tensor, name: str = name, rest: Any = rest
        ) -> None:
            number = f" {len(found) + 1}" if len(layers) == 1 else ""
            values = rest(output)[0].float().cpu().numpy()
            found.append(Activation(name + number, values))

        hooks.append(module.register_forward_hook(record))
    try:
        network(cube[None])
    finally:
        for hook in hooks:
            hook.remove()
    return found


def target_of(
    label: Label, bounds: tuple[float, float] | None = None, name: str | None = None
) -> Target:
    """The output of a luminosity range, or of a class.

    bounds: log10 L of the range [Lsun]; default: all bins. name: of the class. For labels in log10
    it is the mean of the log10 of the count over the bins of the range, for linear ones the sum of
    the counts (of N(>L), their mean); for a class, ln of its probability. Raises ValueError for a
    range without a bin, or an unknown class.
    """
    if label.is_parameters:
        raise ValueError(
            "layers show what a luminosity function or a class is read off, and this run's label "
            "is the model's parameters"
        )
    if label.is_class:
        if bounds is not None:
            raise ValueError("the label is a class: it has no luminosity range")
        if name not in label.classes:
            raise ValueError(f"class '{name}' is none of {', '.join(label.classes)}")
        column = label.classes.index(str(name))
        return Target(
            f"ln probability of {name}", "nat", lambda p, _: p.log_softmax(dim=1)[:, column]
        )
    if name is not None:
        raise ValueError(f"class '{name}' is asked for, but the label is a function of luminosity")
    edges = label.bins.edges
    centres = 0.5 * (edges[1:] + edges[:-1])
    low, high = bounds or (float(edges[0]), float(edges[-1]))
    inside = np.flatnonzero((centres >= low) & (centres <= high))
    if not len(inside):
        raise ValueError(
            f"no luminosity bin has its centre in log10 L = {low:g} to {high:g}; "
            f"the label's are {edges[0]:g} to {edges[-1]:g}"
        )
    members = torch.from_numpy(inside)
    cumulative = label.config.quantity == "cumulative"
    symbol, where = ("N(>L)" if cumulative else "dN"), f"log10 L = {low:g} to {high:g}"
    if label.form == "log10":

        def mean_dex(point: Tensor, unit_label: Tensor) -> Tensor:
            return (point - unit_label)[:, members].mean(dim=1)

        return Target(f"mean log10 {symbol}, {where}", "dex", mean_dex)

    def halos(point: Tensor, unit_label: Tensor) -> Tensor:
        counts = (point / unit_label)[:, members]
        return counts.mean(dim=1) if cumulative else counts.sum(dim=1)

    return Target(f"{'mean ' if cumulative else ''}{symbol}, {where}", "halos", halos)


def gradient(
    network: Network, cube: Tensor, unit_label: Tensor, target: Target, config: Config
) -> Gradient:
    """Derivative of an output with respect to every voxel of a map.

    network: in evaluation mode; cube: [n_freq, n_dec, n_ra], as it is trained on; unit_label: of
    the sample [1, num_bins]; config: of the run, which says how the map was transformed.
    """
    with torch.inference_mode(False), torch.enable_grad():
        inputs = cube[None].detach().clone().requires_grad_(True)
        output = target.of(
            network.head.point(network(inputs), unit_label.to(cube.device)), unit_label
        )
        (slope,) = torch.autograd.grad(output.sum(), inputs)
    values = cube.detach().double().cpu().numpy()
    by_input = slope[0].double().cpu().numpy()
    values, factor, unit = map_units(config, values)
    return Gradient(values, by_input * factor, unit, float(output.detach()))


def map_units(config: Config, cube: Float) -> tuple[Float, Float, str]:
    """A network's input in map units, and the derivative of the input by it, voxel by voxel.

    The last operators are undone as long as they act on each voxel by itself. Where values were
    transformed before that, nothing is, and the unit is 'network input'.
    """
    shown, inputs = config.observation.input_map, torch.from_numpy(cube)
    if not shown.units:
        return cube, np.ones_like(cube), "network input"
    return shown.restore(inputs).numpy(), shown.slope(inputs).numpy(), shown.units


def summed_voxels(config: Config) -> int:
    """How many voxels were summed into one of the map; 1 where none were."""
    return int(config.observation.state.weight)


def sample_text(draw: Mapping[str, Any], index: int) -> str:
    """'test sample 3: li16'."""
    return f"test sample {index}: {draw['model']}" if "model" in draw else f"test sample {index}"


def show_layers(
    folder: str | Path,
    *,
    index: int = 0,
    bounds: tuple[float, float] | None = None,
    class_name: str | None = None,
    settings: Sequence[str] = (),
    out: str | Path | None = None,
    resources: Resources = ALONE,
) -> str:
    """Draw the first filters of a run's network, its activations for one test sample, and the
    gradient of an output, into the run's folder or `out`. Returns the text to print.

    index: of the sample in the split "test"; bounds: log10 L of the luminosity range that is
    explained (default: all bins); class_name: where the label is a class (default: the true one);
    settings: see `run_config`. Raises ValueError
    with one sentence for what cannot be shown.
    """
    if not 0 <= index < 2**64:
        raise ValueError(f"--index {index} is outside 0..2^64 - 1")
    with Run.using(resources, run_config(folder, settings), recalibrated=False) as run:
        config, generator = run.config, run.testing()
        target_folder = output_folder(config, out, generator)
        label = generator.label
        if label.is_class and class_name is None:
            batch = generator.generate([index])
            class_name = label.classes[int(batch.label[0].argmax())]
        target = target_of(label, bounds, class_name)
        batch = generator.generate([index])
        batch.check()
        trained, network = run.trained, run.network(generator)
    cube = batch.cube[0]
    title = f"{as_name(Path(folder).resolve().name)}, step {trained.step}: network {network.kind}"
    sample = f"{title}, {sample_text(batch.draws[0], index)}"
    sky = {"fov_deg": config.grid.fov_deg, "nu_GHz": config.grid.nu_GHz}
    summed = summed_voxels(config)
    of_sums = f", maps of {summed} voxels summed" if summed > 1 else ""
    found = gradient(network, cube, batch.unit_label, target, config)
    figures = {
        "filters.png": layer_figures.filters(
            first_filters(network),
            shape=filtered_shape(network, trained.input_shape),
            dimensions=3 if isinstance(network.body, Hybrid) else network.body.dimensions,
            title=f"filters of the first layer\n{title}",
            **sky,
        ),
        "activations.png": layer_figures.activations(
            cube.cpu().numpy(),
            activations(network, cube),
            title=f"what the layers make of a map: {sample}",
            **sky,
        ),
        "gradient.png": layer_figures.gradient(
            found, target, title=f"what the prediction depends on: {sample}{of_sums}", **sky
        ),
    }
    for name, figure in figures.items():
        write_png(figure, target_folder / name)
    lines = [f"{target.text}: the network predicts {found.output:.4g} {target.unit}"]
    if found.unit == "network input":
        lines.append(
            "gradient by the network's input, not by the map: its transform is not the last step "
            "of observe, or standardises the map"
        )
    return "\n".join([*lines, f"Figures in {target_folder}: {', '.join(figures)}"])
