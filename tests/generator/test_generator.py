"""The generator: samples are a function of their index, bad input gets one sentence, and a record
per sample is made of columns: Python's own types, slices, parameters of several models."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import reference as ref
from support import small

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import ConfigError
from streamtrain.generator.batch import OfModels, Records
from streamtrain.generator.generator import Generator
from streamtrain.generator.paint import paint
from streamtrain.operators.noise import NoiseConfig

FAR = 10**12


@pytest.fixture(scope="module")
def generator(small_sky: Lightcone) -> Generator:
    config = small.config(
        emit={"line": {"model": "li16", "prior": "narrow"}},
        observe={"pool": {"factor": [3, 1, 1]}, "noise": {"sigma_uK": [1, 5]}},
    )
    return Generator(config, lightcones=[small_sky])


def test_shapes_and_types(generator: Generator) -> None:
    batch = generator.generate([5, 0])
    assert generator.input_shape == (3, 21, 21)
    assert batch.cube.shape == (2, 3, 21, 21)
    assert batch.cube.dtype == batch.label.dtype == torch.float32
    assert batch.label.shape == batch.counts.shape == (2, generator.num_bins)
    assert batch.counts.dtype == torch.int32
    assert generator.num_bins == 49
    np.testing.assert_allclose(10**generator.bin_edges, ref.LUMINOSITY_EDGES, rtol=1e-13)
    assert batch.indices == [5, 0]
    assert len(batch) == 2
    assert len(generator.generate([])) == 0


def test_a_batch_can_be_pickled(generator: Generator, tmp_path: Path) -> None:
    """For torch.save, and for a process of its own: with its records, drawn or not yet."""
    batch, plain = generator.generate([5, 0]), generator.generate([5, 0])
    copies = [pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch)]
    torch.save(batch, tmp_path / "batch.pt")
    copies.append(torch.load(tmp_path / "batch.pt", weights_only=False))
    list(plain.draws)
    copies.append(pickle.loads(pickle.dumps(plain)))
    for found in copies:
        assert found.digests() == batch.digests() and found.draws == list(batch.draws)
        assert found.indices == [5, 0] and torch.equal(found.label, batch.label)
        found.check()


def test_counts_alone_are_those_of_the_samples(generator: Generator) -> None:
    indices = [5, 0, 10**12, 7]
    assert torch.equal(generator.counts(indices), generator.generate(indices).counts)


def test_a_far_sample_is_one_like_any_other(generator: Generator) -> None:
    """The index has 64 bits, all of which matter."""
    indices = [FAR, 7, FAR % 2**32, 2**64 - 1, 7]
    digests = generator.generate(indices).digests()
    assert digests == [generator.generate([i]).digests()[0] for i in indices]
    assert digests[1] == digests[4]
    assert len(set(digests)) == 4
    with pytest.raises(ValueError, match="sample index -1 is outside"):
        generator.generate([-1])
    with pytest.raises(ValueError, match="is outside"):
        generator.generate([2**64])


def test_scenes_of_another_generator(generator: Generator, small_sky: Lightcone) -> None:
    """They give the samples that a generator makes of scenes of its own, for other noise."""
    noise = generator.config.observe["noise"]
    assert isinstance(noise, NoiseConfig)
    observe = {**generator.config.observe, "noise": replace(noise, sigma_uK=7.0)}
    config = replace(generator.config, observe=observe)
    own = Generator(config, lightcones=[small_sky])
    lent = Generator(config, lightcones=[small_sky], scenes=generator.scenes)
    assert lent.scenes.latest is generator.scenes.latest
    digests = [made.generate(range(3)).digests() for made in (own, lent, generator)]
    assert digests[0] == digests[1] != digests[2]


@small.EXTRAPOLATES
def test_what_was_drawn_is_recorded(small_sky: Lightcone) -> None:
    """A sample can be painted again from its record, by the reference."""
    line = {"model": "padmanabhan18", "prior": "published", "parameters": {"b11": 0.48}}
    generator = Generator(small.config(emit={"line": line}), lightcones=[small_sky])
    batch = generator.generate([1, 2, FAR])
    for k, draws in enumerate(batch.draws):
        assert draws["lightcone"] == "small-1"
        assert draws["model"] == "padmanabhan18"
        assert draws["parameters"]["b11"] == 0.48
        luminosity = ref.padmanabhan18(small_sky.mass_Msun, small_sky.z_obs, **draws["parameters"])
        cube, counts = ref.paint(
            small_sky.x_Mpc, small_sky.y_Mpc, small_sky.z_Mpc, small_sky.mass_Msun,
            small_sky.z_obs, luminosity, fov_deg=(0.8, 0.8), shape=(9, 21, 21), nu_GHz=(34, 26),
            min_mass_Msun=2.5e10, centre_deg=draws["centre_deg"], roll_deg=draws["roll_deg"],
            mirror=draws["mirror"],
        )  # fmt: skip
        np.testing.assert_allclose(batch.cube[k].numpy(), cube, rtol=2e-5)
        assert np.abs(batch.counts[k].numpy() - counts).sum() <= 6
    assert len({d["roll_deg"] for d in batch.draws}) == 3
    assert len({d["parameters"]["m11"] for d in batch.draws}) == 3


def test_noise_is_recorded_under_its_name(small_sky: Lightcone) -> None:
    observe = {"noise": {"sigma_uK": [1, 2]}, "noise_2": {"sigma_uK": [3, 4]}}
    generator = Generator(small.config(observe=observe), lightcones=[small_sky])
    quiet = Generator(small.config(), lightcones=[small_sky])
    batch, signal = generator.generate([4, 5]), quiet.generate([4, 5])
    for k in range(2):
        first, second = (batch.draws[k][name]["sigma_uK"] for name in observe)
        assert 1 < first < 2
        assert 3 < second < 4
        added = (batch.cube[k] - signal.cube[k]).numpy()
        error = 5 / np.sqrt(2 * added.size)
        assert added.std() == pytest.approx(np.hypot(first, second), rel=error)
    assert torch.equal(batch.counts, signal.counts)


def test_labels(small_sky: Lightcone) -> None:
    """Counts, N(>L) with or without what lies above the last edge, linear or log10."""
    given = {"log10_L": [4.0, 5.5], "bins": 12}
    forms = {
        "counts": {"scale": "linear"},
        "log counts": {},
        "cumulative": {"quantity": "cumulative", "scale": "linear"},
        "no overflow": {"quantity": "cumulative", "scale": "linear", "overflow": False},
        "log cumulative": {"quantity": "cumulative"},
    }
    labels: dict[str, Any] = {}
    for name, form in forms.items():
        generator = Generator(small.config(label={**given, **form}), lightcones=[small_sky])
        batch = generator.generate([3])
        labels[name], counts = batch.label[0].numpy(), batch.counts[0].numpy()
    wide = Generator(
        small.config(label={"log10_L": [4.0, 12.0], "bins": 64}), lightcones=[small_sky]
    )
    overflow = int(wide.generate([3]).counts[0, 12:].sum())
    assert overflow > 0
    assert (counts == 0).any() or counts.min() < counts.max()
    np.testing.assert_array_equal(labels["counts"], counts)
    np.testing.assert_allclose(labels["log counts"], ref.log10_label(counts), rtol=1e-6)
    np.testing.assert_array_equal(labels["cumulative"], ref.cumulative(counts, overflow))
    np.testing.assert_array_equal(labels["no overflow"], ref.cumulative(counts))
    expected = ref.log10_label(ref.cumulative(counts, overflow))
    np.testing.assert_allclose(labels["log cumulative"], expected, rtol=1e-6)


def test_splits_and_seeds_are_different_samples(small_sky: Lightcone) -> None:
    config = small.config(observe={"noise": {}})
    made = {
        split: Generator(config, split, lightcones=[small_sky]).generate(range(3))
        for split in ("train", "validation", "test")
    }
    other = small.config(seed=12, observe={"noise": {}})
    made["another seed"] = Generator(other, lightcones=[small_sky]).generate(range(3))
    assert len({d for batch in made.values() for d in batch.digests()}) == 12
    assert len({d["roll_deg"] for batch in made.values() for d in batch.draws}) == 12


def test_test_set_has_its_own_seed(small_sky: Lightcone) -> None:
    config = small.config(seed=1, test={"seed": 5})
    same = small.config(seed=5)
    for split, equal in (("test", True), ("train", False)):
        ours = Generator(config, split, lightcones=[small_sky]).generate([0]).digests()
        theirs = Generator(same, split, lightcones=[small_sky]).generate([0]).digests()
        assert (ours == theirs) == equal


def test_lightcones_are_drawn_evenly() -> None:
    cones = [small.lightcone(seed, 300) for seed in (1, 2, 3)]
    batch = Generator(small.config(), lightcones=cones).generate(range(600))
    names, counts = np.unique([d["lightcone"] for d in batch.draws], return_counts=True)
    assert names.tolist() == ["small-1", "small-2", "small-3"]
    assert np.abs(counts - 200).max() < 5 * np.sqrt(600 * 2 / 9)
    assert np.mean([d["mirror"] for d in batch.draws]) == pytest.approx(0.5, abs=0.1)


def test_rotation_keeps_the_halos(small_sky: Lightcone) -> None:
    """Each field of the evenly filled footprint holds its share of halos."""
    line = {
        "model": "breysse15",
        "parameters": {"A": 1e-6, "duty": 1.0},
    }  # all halos are in the label's range
    generator = Generator(small.config(emit={"line": line}), lightcones=[small_sky])
    counts = generator.generate(range(40)).counts.sum(dim=1).double().numpy()
    inside = (generator.grid.channel(small_sky.z_obs) >= 0).sum() * (0.8 / 1.2) ** 2
    assert counts.mean() == pytest.approx(inside, rel=0.02)
    assert counts.std() < 0.05 * inside


def test_model_function_from_a_file(small_sky: Lightcone, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def line(mass_Msun, z, *, A=2e-6):\n    return A * mass_Msun\n")
    batches = []
    for model, more in ((f"{file}:line", {}), ("breysse15", {"duty": 1.0})):
        config = small.config(emit={"line": {"model": model, "parameters": {"A": 3e-6, **more}}})
        batches.append(Generator(config, lightcones=[small_sky]).generate([3]))
    np.testing.assert_allclose(batches[0].cube.numpy(), batches[1].cube.numpy(), rtol=2e-6)
    assert batches[0].draws[0]["model"] == "line"


def test_paint_and_generator_agree(small_sky: Lightcone) -> None:
    generator = Generator(small.config(), lightcones=[small_sky])
    batch = generator.generate([0])
    draws = batch.draws[0]
    cube, counts = paint(
        small_sky, generator.grid, "li16", seed=11, roll_deg=draws["roll_deg"],
        mirror=draws["mirror"], centre_deg=tuple(draws["centre_deg"]),
    )  # fmt: skip
    assert torch.equal(cube, batch.cube[0])
    assert torch.equal(counts, batch.counts[0])


def test_saturation_is_an_error(small_sky: Lightcone) -> None:
    line = {"model": "breysse15", "parameters": {"A": 1e6, "duty": 1.0}}
    generator = Generator(small.config(emit={"line": line}), lightcones=[small_sky])
    with pytest.raises(ValueError, match=r"sample 8: \d+ halos are too bright .*'A': 1000000\.0"):
        generator.generate([8])


# Bad input (C8).


def refusal(sky: Lightcone | None, kind: type[Exception], **sections: Any) -> str:
    with pytest.raises(kind) as error:
        Generator(small.config(**sections), lightcones=None if sky is None else [sky])
    message = str(error.value)
    assert "\n" not in message
    return message


def test_field_that_does_not_fit(small_sky: Lightcone) -> None:
    grid = {"fov_deg": [1.0, 1.0], "shape": [4, 4, 4]}
    assert refusal(small_sky, CatalogError, grid=grid) == (
        "a field of 1 x 1 deg with roll 'any' needs 1.41 x 1.41 deg, but the footprint of small-1 "
        "is 1.2 x 1.2 deg: use a smaller field, a wider lightcone or data.roll=quarter"
    )
    Generator(small.config(grid=grid, data={"roll": "quarter"}), lightcones=[small_sky])


def test_band_that_is_not_covered(small_sky: Lightcone) -> None:
    assert refusal(small_sky, CatalogError, grid={**small.GRID, "nu_GHz": [34.0, 25.0]}) == (
        "small-1 holds halos at z = 2.300..3.500, but the band 34..25 GHz needs z = 2.390..3.611"
    )


def test_band_of_an_interloper_that_is_not_covered(small_sky: Lightcone) -> None:
    """Whose it is, and where other lightcones are named."""
    other = {"model": "kamenetzky16_co2", "nu_rest_GHz": 230.538}
    assert refusal(small_sky, CatalogError, emit={"line": {}, "interloper_2": other}) == (
        "emit.interloper_2: small-1 holds halos at z = 2.300..3.500, but the band 34..26 GHz needs "
        "z = 5.781..7.867; lightcones of other redshifts than the line's are "
        "emit.interloper_2.train, .validation and .test"
    )


def test_masses_that_are_not_there(small_sky: Lightcone) -> None:
    message = refusal(small_sky, CatalogError, data={"min_mass_Msun": 1e10})
    assert message.startswith("small-1 holds halos above 2.5e+10 Msun only, but ")
    assert "1e+10" in message
    assert refusal(small_sky, CatalogError, data={"min_mass_Msun": 1e14}) == (
        "no halo of small-1 is left above 1e+14 Msun and inside 34..26 GHz"
    )


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (3, "sample indices must be a row of whole numbers, not 3"),
        (None, "sample indices must be a row of whole numbers, not None"),
        (2.0, "sample indices must be a row of whole numbers, not 2.0"),
        ([0.0], "a sample index must be a whole number, not 0.0"),
        ([None], "a sample index must be a whole number, not None"),
        ("01", "a sample index must be a whole number, not '0'"),
        (np.array([0.0, 1.0]), "a sample index must be a whole number, not np.float64"),
        (np.array(3), "sample indices must be a row of whole numbers"),
        (np.array([[0, 1]]), "sample indices must be a row of whole numbers"),
        ([True], "a sample index must be a whole number, not True"),
        ([-1], "sample index -1 is outside"),
        ([2**64], "sample index 18446744073709551616 is outside"),
    ],
)
def test_what_is_no_index(generator: Generator, indices: Any, message: str) -> None:
    for call in (generator.generate, generator.blank, generator.draw):
        with pytest.raises(ValueError, match=message) as caught:
            call(indices)
        assert "\n" not in str(caught.value)


def test_kinds_of_indices(generator: Generator) -> None:
    expected = generator.generate([3, 5]).cube
    for indices in ((3, 5), np.array([3, 5]), np.array([3, 5], np.uint8), torch.tensor([3, 5]),
                    range(3, 6, 2), iter([3, 5])):  # fmt: skip
        assert torch.equal(generator.generate(indices).cube, expected)  # type: ignore[arg-type]


def test_what_is_no_configuration(small_sky: Lightcone) -> None:
    for given in ("comap.yaml", {"seed": 1}, None):
        with pytest.raises(ConfigError, match="a Generator needs what load_config returns, not"):
            Generator(given, lightcones=[small_sky])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="lightcones must be a list of them, not one"):
        Generator(small.config(), lightcones=small_sky)  # type: ignore[arg-type]


MODELS_BELOW_ZERO = """
def below(mass_Msun, z, *, A=1e-6, shift=0.0):
    return A * (mass_Msun - shift)

below.prior = {"A": (1e-6, 1e-7), "shift": (1e8, 1e7)}
"""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parameters": {"shift": 1e11}}, "below gives L = -.* Lsun for a halo of"),
        ({"parameters": {"A": -1e-6}}, "below gives L = -.* Lsun for a halo of"),
        ({"prior": "own", "parameters": {"shift": 3e10}}, "below gives L = -.* for a halo of"),
    ],
)
def test_luminosities_below_zero(
    small_sky: Lightcone, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    """Parameters that are held are refused when the generator is made, drawn ones drawn again."""
    file = tmp_path / "models.py"
    file.write_text(MODELS_BELOW_ZERO)

    def made(**more: Any) -> Generator:
        line = {"model": f"{file}:below", "scatter": False, **more}
        return Generator(small.config(emit={"line": line}), lightcones=[small_sky])

    with pytest.raises(ConfigError, match=message):
        made(**settings)
    both_signs = {"prior": "own", "parameters": {"A": {"normal": [0.0, 1e-6]}}}
    drawn = [d["parameters"]["A"] for d in made(**both_signs).generate(range(40)).draws]
    assert min(drawn) > 0.0


def test_a_negative_scatter_is_refused(small_sky: Lightcone) -> None:
    line = {"line": {"model": "li16", "parameters": {"sigma_sfr": -0.3}}}
    with pytest.raises(ConfigError, match=r"sigma_sfr = -0\.3 of the model li16: a scatter"):
        Generator(small.config(emit=line), lightcones=[small_sky])


def test_files_and_splits(tmp_path: Path) -> None:
    """No file, a pattern without a match, one sky in two splits, damaged files."""
    assert refusal(None, ConfigError).startswith("data.train names no lightcone: name some, as in")
    absent = str(tmp_path / "*.h5")
    message = refusal(None, CatalogError, data={"train": [absent]})
    assert message == f"data.train: no file matches '{absent}'"
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        small.lightcone(seed, 400 if name == "a" else 300).save(tmp_path / f"{name}.h5")
    a, b, c = (str(tmp_path / f"{name}.h5") for name in "abc")
    message = refusal(None, CatalogError, data={"train": [a], "test": [b]})
    assert message == (
        f"the realisation 'small-1' is in two splits: data.train ({a}) and data.test ({b}); "
        "splits must be different skies"
    )
    generator = Generator(small.config(data={"train": [a, b], "test": [c]}), "test")
    assert generator.generate([0]).draws[0]["lightcone"] == "c.h5"
    Path(a).write_bytes(Path(a).read_bytes()[:3000])
    assert str(a) in refusal(None, CatalogError, data={"train": [a]})


def test_names(small_sky: Lightcone) -> None:
    line = {"model": "lee16"}
    assert "unknown luminosity model 'lee16'" in refusal(
        small_sky, ConfigError, emit={"line": line}
    )
    line = {"model": "li16", "prior": "nrrow"}
    assert "did you mean 'narrow'" in refusal(small_sky, ConfigError, emit={"line": line})
    line = {"model": "li16", "parameters": {"alhpa": 1.0}}
    assert "did you mean 'alpha'" in refusal(small_sky, ConfigError, emit={"line": line})
    with pytest.raises(ConfigError, match="split 'valid' is none of train, validation, test"):
        Generator(small.config(), "valid", lightcones=[small_sky])  # type: ignore[arg-type]


CHOICE = np.array([1, 0, 1, 1])
PARAMETERS = [{"a": np.array([0.5])}, {"b": np.array([1.0, 2.0, 3.0]), "c": np.zeros(3)}]
EXPECTED = [
    {"name": "w", "at": [0.0, 1.0], "noise": {"sigma": 7}, "of": {"b": 1.0, "c": 0.0}},
    {"name": "x", "at": [2.0, 3.0], "noise": {"sigma": 8}, "of": {"a": 0.5}},
    {"name": "y", "at": [4.0, 5.0], "noise": {"sigma": 9}, "of": {"b": 2.0, "c": 0.0}},
    {"name": "z", "at": [6.0, 7.0], "noise": {"sigma": 10}, "of": {"b": 3.0, "c": 0.0}},
]


def records() -> Records:
    places = range(4)
    first = Records({"name": list("wxyz"), "at": np.arange(8.0).reshape(4, 2)}, places)
    noise = Records({"sigma": np.arange(7, 11)}, places)
    return first.with_columns({"noise": noise, "of": OfModels(CHOICE, PARAMETERS)})


def test_records_are_plain() -> None:
    made = records()
    assert list(made) == EXPECTED and len(made) == 4
    assert made == EXPECTED and made == records() and made != EXPECTED[1:]
    assert json.loads(json.dumps(list(made))) == EXPECTED
    assert repr(made) == repr(EXPECTED)


def test_slices_and_places_from_the_end() -> None:
    made = records()
    assert made[-1] == EXPECTED[-1]
    assert list(made[1:3]) == EXPECTED[1:3]
    assert list(made[1:][1:2]) == EXPECTED[2:3]
    assert OfModels(CHOICE, PARAMETERS)[1:3] == [record["of"] for record in EXPECTED[1:3]]
