"""Labels: closed forms of each quantity, volumes of several cosmologies, what an answer means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support import reference as ref
from support import small

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import ConfigError
from streamtrain.cosmology import Cosmology
from streamtrain.generator.generator import Batch, Generator
from streamtrain.labels import Label, LabelConfig

UNEQUAL = (3.0, 4.0, 4.2, 5.5, 5.51, 5.6, 7.0)
F64 = np.float64


def made(sky: Lightcone | list[Lightcone], label: dict[str, Any], num: int = 3) -> Batch:
    skies = sky if isinstance(sky, list) else [sky]
    return Generator(small.config(label=label), lightcones=skies).generate(range(num))


def volume_Mpc3(fov_deg: tuple[float, float] = (0.8, 0.8), **cosmology: float) -> float:
    """Of the field between 34 and 26 GHz, from the reference's distances."""
    near, far = (ref.comoving_distance(115.27 / nu - 1, **cosmology) for nu in (34.0, 26.0))
    solid_angle = np.radians(fov_deg[0]) * 2 * np.sin(np.radians(fov_deg[1] / 2))
    return float(solid_angle * (far**3 - near**3) / 3)


def widths(edges: Any) -> tuple[np.ndarray, np.ndarray]:
    """dL [Lsun] and dlnL of bins."""
    return np.diff(10 ** np.asarray(edges, F64)), np.diff(np.log(10) * np.asarray(edges, F64))


@pytest.mark.parametrize("bins", [{}, {"bins": 7, "log10_L": [2.0, 9.0]}, {"edges": UNEQUAL}])
def test_phi_is_a_density(small_sky: Lightcone, bins: dict[str, Any]) -> None:
    """The integral of phi is N / V, and phi L is phi times L (their ratio is dL / dlnL)."""
    phi = made(small_sky, {**bins, "quantity": "phi", "scale": "linear"})
    phi_l = made(small_sky, {**bins, "quantity": "phi_L", "scale": "linear"})
    edges = Generator(small.config(label=bins), lightcones=[small_sky]).bin_edges
    d_l, d_ln_l = widths(edges)
    counts = phi.counts.numpy()
    assert counts.sum() > 1000
    density = (phi.label.double().numpy() * d_l).sum(axis=1)
    np.testing.assert_allclose(density * volume_Mpc3(), counts.sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(phi.label.numpy(), counts / (volume_Mpc3() * d_l), rtol=1e-5)
    mean_l = d_l / d_ln_l
    np.testing.assert_allclose(phi_l.label.numpy(), phi.label.double().numpy() * mean_l, rtol=3e-7)


def test_phi_times_l_of_narrow_bins_is_phi_times_the_centre(small_sky: Lightcone) -> None:
    narrow = {"log10_L": [4.0, 5.0], "bins": 200, "scale": "linear"}
    phi = made(small_sky, {**narrow, "quantity": "phi"}).label.double().numpy()
    phi_l = made(small_sky, {**narrow, "quantity": "phi_L"}).label.double().numpy()
    centres = 10 ** (4.0 + (np.arange(200) + 0.5) / 200)
    assert np.count_nonzero(phi) > 100
    np.testing.assert_allclose(phi_l, phi * centres, rtol=1e-5)


@pytest.mark.parametrize("quantity", ["phi", "phi_L"])
def test_log10_of_an_empty_bin_is_that_of_unit_label(small_sky: Lightcone, quantity: str) -> None:
    batch = made(small_sky, {"quantity": quantity})
    width = widths(np.linspace(3.5, 7.0, 50))[quantity == "phi_L"]
    counts = batch.counts.numpy()
    assert (counts == 0).any()
    expected = ref.log10_label(counts) - np.log10(volume_Mpc3() * width)
    np.testing.assert_allclose(batch.label.numpy(), expected, atol=3e-6)
    lonely = np.broadcast_to(batch.unit_label.numpy(), counts.shape)
    assert (batch.label.numpy()[counts == 0] == lonely[counts == 0]).all()


@pytest.mark.parametrize("scale", ["log10", "linear"])
def test_volume_is_that_of_the_samples_own_cosmology(small_sky: Lightcone, scale: str) -> None:
    other = small.lightcone(2, cosmology={**Cosmology().to_dict(), "Omega_m": 0.29})
    batch = made([small_sky, other], {"quantity": "phi", "scale": scale}, 12)
    d_l, _ = widths(np.linspace(3.5, 7.0, 50))
    seen = set()
    for k, draws in enumerate(batch.draws):
        omega_m = {"small-1": 0.286, "small-2": 0.29}[draws["lightcone"]]
        seen.add(omega_m)
        unit = 1 / (volume_Mpc3(Omega_m=omega_m) * d_l)
        counts = batch.counts[k].numpy()
        expected = counts * unit
        if scale == "log10":
            expected = np.log10(np.maximum(counts, 1)) + np.log10(unit)
        np.testing.assert_allclose(batch.label[k].numpy(), expected, rtol=1e-5)
    assert len(seen) == 2
    ratio = volume_Mpc3(Omega_m=0.29) / volume_Mpc3()
    assert abs(ratio - 1) > 1e-3  # the tolerance above tells them apart
    assert batch.unit_label.shape == (12, 49)


def test_one_cosmology_needs_no_copy_per_batch() -> None:
    cones = [small.lightcone(seed, 300) for seed in (1, 2)]
    generator = Generator(small.config(label={"quantity": "phi"}), lightcones=cones)
    first, second = generator.generate([0, 1]), generator.generate([2])
    assert first.unit_label.shape == (1, 49)
    assert first.unit_label.data_ptr() == second.unit_label.data_ptr()


@pytest.mark.parametrize("scale", ["log10", "linear"])
@pytest.mark.parametrize("quantity", ["counts", "cumulative", "phi", "phi_L"])
def test_labels_become_log10_counts(quantity: str, scale: Any) -> None:
    """Whatever the quantity; what lies below one halo is one halo."""
    config = LabelConfig(quantity=quantity, scale=scale, log10_L=(4.0, 6.0), bins=6)  # type: ignore[arg-type]
    label = Label(config, [2e6, 3e6])
    unit_label = label.unit_label(np.array([1]))
    counts = torch.tensor([[0.01, 1.0, 10.0, 1e4, 0.3, 2.0]])
    values = counts.log10() + unit_label if scale == "log10" else counts * unit_label
    expected = torch.tensor([[0.0, 0.0, 1.0, 4.0, 0.0, np.log10(2.0)]], dtype=torch.float64)
    found = label.log10_counts(values, unit_label)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
    if quantity in ("counts", "cumulative"):
        assert unit_label.unique().tolist() == [0.0 if scale == "log10" else 1.0]
        assert label.unit_of(unit_label) is None
    if scale == "linear":
        assert label.log10_counts(-values, unit_label).abs().max() == 0.0


@pytest.mark.parametrize("quantity", ["counts", "phi", "phi_L"])
def test_smallest_scale_of_a_linear_label_is_unit_label(quantity: Any) -> None:
    label = Label(LabelConfig(quantity=quantity, scale="linear", bins=5), [2e6, 1e6])
    mean, std = torch.zeros(5), torch.tensor([0.0, 0.0, 0.0, 0.0, 1e9])
    _, scaled = label.output_moments(mean, std)
    largest = label.unit_label(np.array([0, 1])).max(dim=0).values
    torch.testing.assert_close(scaled[:4], largest[:4])
    assert scaled[4] == 1e9


def test_classes_start_at_the_log_of_their_frequencies() -> None:
    label = Label(LabelConfig(quantity="class"), classes=["li16", "chung22", "breysse15"])
    assert (label.num_outputs, label.form) == (3, "class")
    frequencies = torch.tensor([0.75, 0.25, 0.0])
    mean, std = label.output_moments(frequencies, torch.full((3,), 0.4))
    torch.testing.assert_close(mean.softmax(0), frequencies, atol=1.1e-3, rtol=0)
    assert std.tolist() == [1.0, 1.0, 1.0]


def test_a_class_needs_two_models(small_sky: Lightcone) -> None:
    with pytest.raises(ConfigError, match=r"needs several .* in emit\.line\.mixture$"):
        made(small_sky, {"quantity": "class"})


def test_a_class_is_one_hot(small_sky: Lightcone) -> None:
    generator = Generator(small.config(), lightcones=[small_sky])
    generator.label = Label(LabelConfig(quantity="class"), classes=["li16", "another"])
    assert generator.num_outputs == 2
    batch = generator.generate([0, 1])
    assert batch.label.tolist() == [[1.0, 0.0], [1.0, 0.0]]
    assert batch.counts.shape == (2, 49)
    model = {"model": torch.tensor([1, 0])}
    made = generator.label.make(generator._label, batch.counts, batch.unit_label, model)
    torch.testing.assert_close(made, torch.tensor([[0.0, 1.0], [1.0, 0.0]]))


def test_a_unit_that_float32_cannot_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"one halo is worth .* outside 1e-36"):
        Label(LabelConfig(quantity="phi", log10_L=(20.0, 40.0)), [1e8])
