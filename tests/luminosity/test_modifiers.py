"""What changes the light of the line: closed forms in map and label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import poisson as poisson_law
from support import reference as ref
from support import small

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import ConfigError
from streamtrain.cosmology import Cosmology
from streamtrain.generator.generator import Batch, Generator
from streamtrain.generator.halos import virial_velocity_kms
from streamtrain.grid import Grid
from streamtrain.luminosity.modifiers import poisson

pytestmark = small.EXTRAPOLATES

LINE = {"model": "breysse15", "parameters": {"duty": 1.0}, "scatter": False}
BIN_DEX = 3.5 / 49


def made(sky: Lightcone, number: int = 4, **emit: Any) -> Batch:
    config = small.config(emit={"line": LINE, **emit})
    return Generator(config, lightcones=[sky]).generate(range(number))


# Brightness, dimming, blank samples.


def test_brightness_scales_the_map_and_shifts_the_label(small_sky: Lightcone) -> None:
    """Three label bins brighter: the map times 10^(3 bins), the counts three bins on."""
    factor = 10 ** (3 * BIN_DEX)
    plain, bright = made(small_sky), made(small_sky, brightness={"factor": factor})
    np.testing.assert_allclose(bright.cube, factor * plain.cube, rtol=1e-5, atol=1e-6)
    shifted = bright.counts[:, 3:] - plain.counts[:, :-3]
    assert shifted.abs().sum() <= 4  # halos whose log2 L lies on an edge in float32
    assert bright.draws[0]["brightness"] == {"factor": pytest.approx(factor, rel=1e-6)}


def test_fainter_by_whole_bins_in_some_samples(small_sky: Lightcone) -> None:
    """The published augmentation: Poisson(5) bins down, in a tenth of the samples."""
    emit = {"line": LINE, "brightness": {"poisson_bins": 5, "probability": 0.1}}
    generator = Generator(small.config(emit=emit), lightcones=[small_sky])
    number = 5000
    factors = np.array([r["brightness"]["factor"] for r in generator.draw(range(number)).records])
    bins = -np.log10(factors) / BIN_DEX
    np.testing.assert_allclose(bins, np.rint(bins), atol=1e-5)
    dimmed = bins[np.rint(bins) > 0]
    share = 0.1 * (1 - np.exp(-5))
    assert len(dimmed) / number == pytest.approx(share, abs=4 * np.sqrt(share / number))
    assert dimmed.mean() == pytest.approx(5 / (1 - np.exp(-5)), abs=4 * np.sqrt(5 / len(dimmed)))


def test_brightness_from_a_distribution(small_sky: Lightcone) -> None:
    factor = {"log_uniform": [0.1, 10]}
    batch = made(small_sky, 200, brightness={"factor": factor})
    drawn = np.log10([record["brightness"]["factor"] for record in batch.draws])
    assert -1 < drawn.min() < -0.9 and 0.9 < drawn.max() < 1
    plain = made(small_sky, 200)
    ratio = batch.cube.double().mean(dim=(1, 2, 3)) / plain.cube.double().mean(dim=(1, 2, 3))
    np.testing.assert_allclose(np.log10(ratio.numpy()), drawn, atol=1e-5)


def test_published_augmentation_scales_the_log_map(small_sky: Lightcone) -> None:
    """Label as it should be; log10(T + 1) of the pooled map times the factor, before the noise."""
    emit = {"line": LINE, "brightness": {"factor": 10 ** (-4 * BIN_DEX), "log_map": True}}
    observe = {"pool": {"factor": [3, 3, 3], "reduce": "sum"}}
    made_so = Generator(small.config(emit=emit, observe=observe), lightcones=[small_sky])
    batch = made_so.generate(range(3))
    emit["brightness"] = {**emit["brightness"], "log_map": False}
    sound = Generator(small.config(emit=emit, observe=observe), lightcones=[small_sky])
    right = sound.generate(range(3))
    plain = Generator(small.config(emit={"line": LINE}, observe=observe), lightcones=[small_sky])
    cube = plain.generate(range(3)).cube.double().numpy()
    expected = (cube + 1) ** (10 ** (-4 * BIN_DEX)) - 1
    np.testing.assert_allclose(batch.cube, expected, rtol=1e-5, atol=1e-5)
    assert (batch.counts - right.counts).abs().sum() <= 3  # halos on an edge in float32
    assert [name for name, _ in made_so.steps(0)] == ["line", "brightness"]


def test_bright_halos_removed(small_sky: Lightcone) -> None:
    """Above 10^6 Lsun nothing is left, in map and label; below nothing changes."""
    plain, cut = made(small_sky), made(small_sky, dim={"above_log10_L": 6.0})
    edge = round((6.0 - 3.5) / BIN_DEX)  # 35 bins below 10^6
    assert np.array_equal(cut.counts[:, :edge], plain.counts[:, :edge])
    assert plain.counts[:, edge:].sum() > 100 and cut.counts[:, edge:].sum() == 0

    painter = Generator(small.config(emit={"line": LINE}), lightcones=[small_sky])
    bright_share = 1 - cut.cube.double().sum() / plain.cube.double().sum()
    mass = small_sky.mass_Msun.astype(float)
    inside = painter.grid.channel(small_sky.z_obs) >= 0
    weights = mass[inside] / (small_sky.x_Mpc**2 + small_sky.y_Mpc**2 + small_sky.z_Mpc**2)[inside]
    expected = weights[2e-6 * mass[inside] > 1e6].sum() / weights.sum()
    assert float(bright_share) == pytest.approx(expected, abs=0.1)


def test_dimming_and_brightness_in_the_order_of_the_configuration(small_sky: Lightcone) -> None:
    """Above 10^6 Lsun seven bins fainter, and all seven bins brighter: one first, or the other."""
    up = {"factor": 10 ** (7 * BIN_DEX)}
    down = {"above_log10_L": 6.0, "factor": 10 ** (-7 * BIN_DEX)}
    plain = made(small_sky).counts.numpy()
    for first, emit in (
        (35, {"dim": down, "brightness": up}),
        (28, {"brightness": up, "dim": down}),
    ):
        expected = np.zeros_like(plain)  # from bin `first` on: down and up again
        expected[:, first:] = plain[:, first:]
        expected[:, 7 : first + 7] += plain[:, :first]
        found = made(small_sky, **emit).counts.numpy()
        assert np.abs(found - expected).sum() <= 8  # halos on an edge in float32


def test_blank_samples(small_sky: Lightcone) -> None:
    number = 300
    batch = made(small_sky, number, blank={"probability": 0.3})
    blank = np.array([record["blank"]["blank"] == 1.0 for record in batch.draws])
    assert blank.mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / number))
    assert float(batch.cube[blank].abs().max()) == 0 and int(batch.counts[blank].sum()) == 0
    plain = made(small_sky, number)
    rest = [k for k in range(number) if not blank[k]]
    assert [batch.digests()[k] for k in rest] == [plain.digests()[k] for k in rest]


def test_maps_without_a_halo(small_sky: Lightcone) -> None:
    """`Generator.blank`: what samples would be, had all of them been drawn blank."""
    observe = {"noise": {"sigma_uK": 3.0}, "pool": {"factor": [3, 3, 3]}, "log_modulus": {}}

    def of(**emit: Any) -> Generator:
        config = small.config(emit={"line": LINE, **emit}, observe=observe)
        return Generator(config, lightcones=[small_sky])

    blank = of().blank(range(5, 12))
    assert float(blank.std()) > 0.1
    drawn = of(blank={"probability": 1.0}).generate(range(5, 12))
    assert int(drawn.counts.sum()) == 0
    assert blank.numpy().tobytes() == drawn.cube.numpy().tobytes()
    assert not (blank == of().generate(range(5, 12)).cube).all()


def test_poisson_numbers() -> None:
    u = (np.arange(200_000) + 0.5) / 200_000
    for mean in (0.02, 1.0, 5.0, 80.0):
        number = poisson(u, mean)
        np.testing.assert_array_equal(number, poisson_law.ppf(u, mean))
    assert poisson(np.array([1 - 2.0**-53]), 0.02)[0] < 20


# Line width.

FINE: dict[str, Any] = {"fov_deg": [0.8, 0.8], "shape": [800, 4, 4], "nu_GHz": [31.0, 29.0]}


def unit_label(mass: float, z: float, number: int = 1) -> Lightcone:
    chi = ref.comoving_distance(z)
    place = (np.full(number, v) for v in (0.0, 0.0, chi, mass, z))
    return Lightcone.from_arrays(
        *place,
        cosmology=Cosmology().to_dict(),
        footprint_deg=(-0.6, 0.6, -0.6, 0.6),
        z_range=(2.3, 3.5),
        min_mass_Msun=1e10,
    )


def spectrum(sky: Lightcone, **width: Any) -> tuple[np.ndarray, Grid]:
    """Total of every channel, uK, and the grid."""
    config = small.config(
        grid=FINE, emit={"line": LINE, "line_width": width}, data={"roll": "none"}
    )
    generator = Generator(config, lightcones=[sky])
    return generator.generate([0]).cube[0].double().sum(dim=(1, 2)).numpy(), generator.grid


def moments(spectrum: np.ndarray, grid: Grid) -> tuple[float, float]:
    """Mean frequency and full width at half maximum of a normal of that variance [GHz]."""
    edges = grid.edges[0]
    centre = 0.5 * (edges[1:] + edges[:-1])
    mean = np.average(centre, weights=spectrum)
    variance = np.average((centre - mean) ** 2, weights=spectrum) - grid.dnu_GHz**2 / 12
    return float(mean), float(np.sqrt(8 * np.log(2) * variance))


def test_width_of_unit_label() -> None:
    """1e12 Msun at z = 2.8: 230 km/s by the published formula, not 4.64 times that (a public code
    takes H in km/s/Mpc instead of H / 100)."""
    sky = unit_label(1e12, 2.8)
    hubble = 70.0 * np.sqrt(0.286 * 3.8**3 + 0.714)
    velocity = 35 * (1e12 / 1e10) ** (1 / 3) * (hubble / 100) ** (1 / 3)
    assert velocity == pytest.approx(230, abs=2)
    np.testing.assert_allclose(virial_velocity_kms(sky), velocity, rtol=1e-6)
    light, grid = spectrum(sky)
    mean, fwhm = moments(light, grid)
    assert mean == pytest.approx(115.27 / 3.8, abs=1e-4)
    assert fwhm == pytest.approx(mean * velocity / ref.C_KMS, rel=2e-3)
    assert moments(spectrum(sky, factor=2.0)[0], grid)[1] == pytest.approx(2 * fwhm, rel=2e-3)
    narrow = Generator(
        small.config(grid=FINE, emit={"line": LINE}, data={"roll": "none"}), lightcones=[sky]
    ).generate([0])
    assert light.sum() == pytest.approx(float(narrow.cube.double().sum()), rel=1e-6)
    assert narrow.counts.sum() == 1


def test_profile_is_normal() -> None:
    """Every channel against the normal distribution between its edges, cut at 4 sigma."""
    sky = unit_label(3e13, 2.8)
    light, grid = spectrum(sky)
    sigma = 115.27 / 3.8 * virial_velocity_kms(sky)[0] / ref.C_KMS / np.sqrt(8 * np.log(2))
    share = np.diff(ndtr((grid.edges[0] - 115.27 / 3.8) / sigma))
    np.testing.assert_allclose(light / light.sum(), -share, atol=4e-5)


def test_discs_at_random_angles() -> None:
    """sin i / (sqrt(3) / 2): the variance of the stacked line is that of a width of 1, since
    <sin^2 i> = 2/3 and (2/3) / (3/4) = 8/9."""
    sky = unit_label(1e12, 2.8, number=4000)
    plain, grid = spectrum(sky)
    inclined, _ = spectrum(sky, inclination=True)
    ratio = moments(inclined, grid)[1] / moments(plain, grid)[1]
    assert ratio**2 == pytest.approx(8 / 9, rel=0.02)
    assert inclined.max() > plain.max()  # a sharper core, wider wings
    assert inclined.sum() == pytest.approx(plain.sum(), rel=1e-6)


def test_light_crosses_the_ends_of_the_band() -> None:
    """A halo at the band's very end leaves half of its light outside, one just outside puts almost
    half inside; only halos inside are counted."""
    z_end = 115.27 / 29.0 - 1
    kept = []
    for z in (z_end - 1e-4, z_end + 1e-4):
        config = small.config(
            grid=FINE, emit={"line": LINE, "line_width": {}}, data={"roll": "none"}
        )
        inside = unit_label(1e12, 2.8)
        sky = Lightcone.from_arrays(
            *(
                np.append(a, b)
                for a, b in zip(
                    (inside.x_Mpc, inside.y_Mpc, inside.z_Mpc, inside.mass_Msun, inside.z_obs),
                    (0.0, 0.0, ref.comoving_distance(z), 1e12, z),
                    strict=True,
                )
            ),
            cosmology=Cosmology().to_dict(),
            footprint_deg=(-0.6, 0.6, -0.6, 0.6),
            z_range=(2.3, 3.5),
            min_mass_Msun=1e10,
        )
        batch = Generator(config, lightcones=[sky]).generate([0])
        whole = ref.surface_brightness(
            2e-6 * 1e12, ref.comoving_distance(z), z, nu_rest_GHz=115.27, dnu_GHz=0.0025,
            omega_sr=np.radians(0.2) ** 2,
        )  # fmt: skip
        kept.append(float(batch.cube[0, 700:].double().sum()) / float(whole))
        assert int(batch.counts.sum()) == (2 if z < z_end else 1)
    velocity = virial_velocity_kms(unit_label(1e12, z_end))[0]
    sigmas = 1e-4 / (1 + z_end) / (velocity / ref.C_KMS / np.sqrt(8 * np.log(2)))
    assert kept == pytest.approx([ndtr(sigmas), ndtr(-sigmas)], abs=1e-3)


# Interlopers.

OTHER = {
    "model": "breysse15",
    "parameters": {"A": 5e-6, "duty": 1.0},
    "scatter": False,
    "nu_rest_GHz": 117.0,
}


def test_interloper_lands_where_its_line_falls() -> None:
    """One halo shines in both lines: the other line one channel or more away, at the brightness of
    the closed form; the label knows the first alone."""
    sky, z = unit_label(1e12, 2.8), 2.8
    config = small.config(
        grid=FINE, emit={"line": LINE, "interloper": OTHER}, data={"roll": "none"}
    )
    generator = Generator(config, lightcones=[sky])
    batch = generator.generate([0])
    light = batch.cube[0].double().sum(dim=(1, 2)).numpy()
    for nu_rest, amplitude in ((115.27, 2e-6), (117.0, 5e-6)):
        channel = int((31.0 - nu_rest / (1 + z)) / 0.0025)
        expected = ref.surface_brightness(
            amplitude * 1e12, ref.comoving_distance(z), z, nu_rest_GHz=nu_rest, dnu_GHz=0.0025,
            omega_sr=np.radians(0.2) ** 2,
        )  # fmt: skip
        assert light[channel] == pytest.approx(float(expected), rel=1e-5)
    assert np.count_nonzero(light) == 2
    plain = made(sky, 1)
    assert batch.draws[0]["interloper"]["model"] == "breysse15"
    assert int(batch.counts.sum()) == int(plain.counts.sum()) == 1


def test_interloper_of_the_same_sky_adds_to_the_same_field(small_sky: Lightcone) -> None:
    line = {"model": "li16", "prior": "narrow"}
    both = made(small_sky, 6, line=line, interloper=OTHER)
    alone = made(small_sky, 6, line=line)
    other = Generator(
        small.config(
            grid={**small.GRID, "nu_rest_GHz": 117.0},
            emit={"line": {k: v for k, v in OTHER.items() if k != "nu_rest_GHz"}},
        ),
        lightcones=[small_sky],
    ).generate(range(6))
    np.testing.assert_allclose(both.cube, alone.cube + other.cube, rtol=2e-6, atol=2e-6)
    assert np.array_equal(both.counts, alone.counts)
    draws = both.draws[0]
    assert draws["interloper"]["centre_deg"] == draws["centre_deg"]


def test_interloper_from_lightcones_of_its_own(small_sky: Lightcone, tmp_path: Path) -> None:
    paths = {}
    for number, split in enumerate(("train", "validation")):
        paths[split] = [str(tmp_path / f"{split}.h5")]
        small.lightcone(10 + number).save(paths[split][0])
    emit = {"line": LINE, "interloper": {**OTHER, **paths}}
    generator = Generator(small.config(emit=emit), lightcones=[small_sky])
    batch = generator.generate(range(3))
    draws = batch.draws[0]
    assert draws["interloper"]["lightcone"] == "train.h5"
    assert draws["interloper"]["centre_deg"] != draws["centre_deg"]
    assert len(generator.identity()["interloper"]["lightcones"]) == 1
    assert "halos in the band by breysse15 at 117 GHz" in generator.describe()
    moved = [str(tmp_path / "elsewhere.h5")]
    small.lightcone(10).save(moved[0])
    elsewhere = small.config(emit={"line": LINE, "interloper": {**OTHER, **paths, "train": moved}})
    assert elsewhere.sample_settings() == generator.config.sample_settings()
    shared = small.config(
        data={"test": paths["train"]}, emit={"line": LINE, "interloper": {**OTHER, **paths}}
    )
    with pytest.raises(CatalogError, match="is in two splits"):
        Generator(shared, lightcones=[small_sky])
    assert [header.name for header in generator.headers] == [small_sky.name, "train.h5"]
    same = {**paths, "validation": paths["train"]}
    with pytest.raises(CatalogError, match="is in two splits"):
        Generator(
            small.config(emit={"line": LINE, "interloper": {**OTHER, **same}}),
            lightcones=[small_sky],
        )


def test_no_line_shines_in_a_blank_sample(small_sky: Lightcone) -> None:
    batch = made(small_sky, 40, interloper=OTHER, blank={"probability": 0.5})
    blank = np.array([record["blank"]["blank"] == 1.0 for record in batch.draws])
    assert 5 < blank.sum() < 35
    assert float(batch.cube[blank].abs().max()) == 0
    assert float(batch.cube[~blank].mean(dim=(1, 2, 3)).min()) > 0


EVERYTHING: dict[str, Any] = {
    "line": {"model": "li16", "prior": "narrow"},
    "line_width": {"inclination": True},
    "dim": {"above_log10_L": 5.5, "factor": 0.3},
    "brightness": {"factor": {"log_uniform": [0.3, 3]}, "probability": 0.5},
    "blank": {"probability": 0.1},
    "interloper": {"model": "chung22", "nu_rest_GHz": 117.0},
    "interloper_2": {"model": "breysse15", "nu_rest_GHz": 114.5, "prior": "published"},
}


@pytest.mark.parametrize("threads", [1, 2])
def test_everything_at_once_is_a_function_of_the_index(small_sky: Lightcone, threads: int) -> None:
    skies = [small_sky, small.lightcone(2)]
    generator = Generator(small.config(emit=EVERYTHING), lightcones=skies, threads=threads)
    indices = [0, 5, 10**12, 7, 3]
    together = generator.generate(indices).digests()
    assert generator.generate(indices[::-1]).digests() == together[::-1]
    assert [generator.generate([i]).digests()[0] for i in indices] == together


@pytest.mark.parametrize(
    ("emit", "expected"),
    [
        ({"brightness": {"factor": 0}}, "emit.brightness.factor = 0 is outside 0..1000"),
        ({"brightness": {"factor": {"normal": [1, 1]}}}, "a normal needs low and high"),
        (
            {"brightness": {"factor": 2, "poisson_bins": 5}},
            "has factor and poisson_bins: emit.brightness.poisson_bins=null",
        ),
        ({"blank": {}, "blank_2": {}}, "emit.blank_2: there is emit.blank already"),
        ({"interloper": {"model": "li16", "nu_rest_GHz": 30}}, "must lie above the band"),
        ({"dim": {}}, "'emit.dim.above_log10_L' is missing"),
        ({"interlopr": {}}, "did you mean 'interloper'"),
        (
            {"brightness": {"factor": 0.5, "log_map": True}, "dim": {"above_log10_L": 5}},
            "emit.brightness.log_map cannot stand beside emit.dim",
        ),
        ({"dim": {"above_log10_L": 1e300}}, "is outside its range"),
    ],
)
def test_refusals(emit: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        small.config(emit={"line": LINE, **emit})
    assert expected in str(error.value)


def test_refusals_of_the_sky(small_sky: Lightcone) -> None:
    with pytest.raises(CatalogError, match="needs z = 5"):
        made(small_sky, 1, interloper={**OTHER, "nu_rest_GHz": 230.5})
    with pytest.raises(ConfigError, match="needs equal luminosity bins"):
        Generator(
            small.config(
                emit={"line": LINE, "brightness": {"poisson_bins": 5}},
                label={"edges": [3.5, 4, 6]},
            ),
            lightcones=[small_sky],
        )
    with pytest.raises(ConfigError, match="log_map needs equal luminosity bins"):
        Generator(
            small.config(
                emit={"line": LINE, "brightness": {"factor": 0.5, "log_map": True}},
                label={"edges": [3.5, 4, 6]},
            ),
            lightcones=[small_sky],
        )
    with pytest.raises(ConfigError, match="a blank map has no class"):
        small.config(emit={"line": LINE, "blank": {}}, label={"quantity": "class"})
    with pytest.raises(ConfigError, match="emit must begin with 'line'"):
        small.config(emit={"blank": {}, "line": LINE})


def test_steps_of_a_sample(small_sky: Lightcone) -> None:
    """The last is the sample; what an interloper and the noise add is what they add alone."""
    observe = {"noise": {"sigma_uK": 2.0}, "pool": {"factor": [3, 3, 3]}, "log_modulus": {}}
    emit = {"line": {"model": "li16"}, "interloper": OTHER}
    generator = Generator(small.config(emit=emit, observe=observe), lightcones=[small_sky])
    steps = generator.steps(7)
    assert [name for name, _ in steps] == ["line", "interloper", "noise", "pool", "log_modulus"]
    assert np.array_equal(steps[-1][1], generator.generate([7]).cube[0])
    alone = Generator(small.config(emit={"line": {"model": "li16"}}), lightcones=[small_sky])
    assert np.array_equal(steps[0][1], alone.generate([7]).cube[0])
    assert float((steps[1][1] - steps[0][1]).min()) >= 0
    noise = (steps[2][1] - steps[1][1]).double()
    assert float(noise.std()) == pytest.approx(2.0, rel=0.05)
