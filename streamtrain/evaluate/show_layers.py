"""`streamtrain layers`: filters.png, activations.png and gradient.png of a trained network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from streamtrain.cores import num_cores
from streamtrain.evaluate import layer_figures, layers, testset
from streamtrain.evaluate.png import write_png
from streamtrain.evaluate.trained import Trained, output_folder, run_config


def show_layers(
    folder: str | Path,
    *,
    index: int = 0,
    bounds: tuple[float, float] | None = None,
    class_name: str | None = None,
    settings: Sequence[str] = (),
    out: str | Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> str:
    """Draw the first filters of a run's network, its activations for one test sample, and the
    gradient of an output, into the run's folder or `out`. Returns the text to print.

    index: of the sample in the split "test"; bounds: log10 L of the luminosity range that is
    explained (default: all bins); class_name: where the label is a class (default: the true one);
    settings: see `run_config`; threads: default: train.threads, or one per core. Raises ValueError
    with one sentence for what cannot be shown.
    """
    if not 0 <= index < 2**64:
        raise ValueError(f"--index {index} is outside 0..2^64 - 1")
    config = run_config(folder, settings)
    threads = threads or config.train.threads or num_cores()
    trained = Trained.load(config)
    generator = testset.open_generator(config, device=device, threads=threads)
    target_folder = output_folder(config, out, generator)
    label = generator.label
    if label.is_class and class_name is None:
        batch = generator.generate([index])
        class_name = label.classes[int(batch.label[0].argmax())]
    target = layers.target_of(label, bounds, class_name)
    batch = generator.generate([index])
    batch.check()
    generator.close()
    network = trained.network(label, generator.device)
    cube = batch.cube[0]
    title = f"{Path(folder).resolve().name}, step {trained.step}: network {network.kind}"
    sample = f"{title}, {layers.sample_text(batch.draws[0], index)}"
    sky = {"fov_deg": config.grid.fov_deg, "nu_GHz": config.grid.nu_GHz}
    summed = layers.summed_voxels(config)
    of_sums = f", maps of {summed} voxels summed" if summed > 1 else ""
    found = layers.gradient(network, cube, batch.one_halo, target, config)
    figures = {
        "filters.png": layer_figures.filters(
            layers.first_filters(network),
            shape=trained.input_shape,
            dimensions=network.body.dimensions,
            title=title,
            **sky,
        ),
        "activations.png": layer_figures.activations(
            cube.cpu().numpy(), layers.activations(network, cube), title=sample, **sky
        ),
        "gradient.png": layer_figures.gradient(found, target, title=sample + of_sums, **sky),
    }
    for name, figure in figures.items():
        write_png(figure, target_folder / name)
    lines = [f"{target.text}: the network answers {found.output:.4g} {target.unit}"]
    if found.unit == "network input":
        lines.append(
            "gradient by the network's input, not by the map: its transform is not the last step "
            "of observe, or standardises the map"
        )
    return "\n".join([*lines, f"Figures in {target_folder}: {', '.join(figures)}"])
