"""A run before halo catalogues of makers that it has not seen: `evaluate RUN --catalogs`.

Every maker has a row beside that of the run's own test skies: the errors of `evaluate` and the
ranks of `evaluate --calibration`, from one pass over its maps. A maker is lightcones in files, or a
mass function that streamtrain makes skies of itself, of seeds that none of the run's skies has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from glob import has_magic
from pathlib import Path
from typing import Any

from streamtrain.bins import bright_above
from streamtrain.catalogs.headers import Header
from streamtrain.catalogs.skies import expand
from streamtrain.catalogs.synthesis.box import METHOD
from streamtrain.catalogs.synthesis.make import Recipe, make_lightcones
from streamtrain.catalogs.synthesis.massfunction import halo_bias, mass_function
from streamtrain.catalogs.synthesis.options import SkyOptions
from streamtrain.config import Config
from streamtrain.cosmology import Cosmology
from streamtrain.evaluate import testset
from streamtrain.evaluate.baselines import MeanLabelBaseline, mean_label
from streamtrain.evaluate.bootstrap import ENOUGH_LIGHTCONES, Bootstrap
from streamtrain.evaluate.calibration.calibration import DRAWS, Prior, Ranking, check_head
from streamtrain.evaluate.calibration.report import numbers
from streamtrain.evaluate.evaluation import test_set_record
from streamtrain.evaluate.predictions import Predictions, predict_batches
from streamtrain.evaluate.report import scores_of
from streamtrain.evaluate.robustness.makers_report import makers_figure, makers_table
from streamtrain.evaluate.robustness.other_skies import (
    cosmology_of,
    folder_for,
    notes_on,
    on_other_skies,
    open_maps,
    training_files,
)
from streamtrain.evaluate.run import Run
from streamtrain.figures import write_png
from streamtrain.generator.line import MASS_TOLERANCE
from streamtrain.generator.needed import FIRST_SEEDS, MOST, sky_of
from streamtrain.machine.files import write_json
from streamtrain.machine.workers import ALONE, Resources
from streamtrain.numerics.rng import SPLITS

OPTION = "--catalogs"
FOLDER = "catalogs"
"""In the run folder: a manifest for each maker, and the skies that were made."""
OWN = "the run's own"
"""Name of the first row."""
MADE_SKIES = ENOUGH_LIGHTCONES
"""Skies that are made of a mass function: so many that errors resample them."""
FIRST_SEED = max(FIRST_SEEDS.values()) + MOST
"""Seed of the first sky that is made here; `catalog make --for` uses no seed from here on."""


@dataclass(frozen=True)
class Maker:
    """Who made halos: a name, and lightcone files or a mass function."""

    name: str
    files: tuple[str, ...] = ()
    """Files or globs; empty where the skies are made here."""
    mass_function: str = ""
    bias: str = "tinker10"

    @classmethod
    def parse(cls, word: str) -> Maker:
        """The maker that a word of the command line stands for: NAME=FILE,GLOB,... or
        MASS_FUNCTION, or MASS_FUNCTION+BIAS.

        Raises ValueError, one sentence, for a word that is neither.
        """
        name, equals, files = word.partition("=")
        if equals:
            patterns = tuple(part for part in files.split(",") if part)
            if not name or not patterns:
                raise ValueError(f"{OPTION} {word}: a maker is NAME=FILES, or a mass function")
            return cls(name, patterns)
        if Path(word).exists() or has_magic(word):
            raise ValueError(f"{OPTION} {word}: give the files a name, as in pinocchio={word}")
        function, _, bias = word.partition("+")
        try:
            mass_function(function)
            halo_bias(1e12, 1.0, Cosmology(), bias or cls.bias)
        except ValueError as error:
            raise ValueError(f"{OPTION} {word}: {error}; or NAME=FILES") from None
        return cls(word, mass_function=function, bias=bias or cls.bias)

    @property
    def stem(self) -> str:
        """Start of the names of its files."""
        return re.sub(r"[^\w.-]", "_", self.name)


def evaluate_catalogs(
    config: Config,
    words: Sequence[str],
    *,
    draws: int = DRAWS,
    out: str | Path | None = None,
    bootstrap: str = "auto",
    recalibrated: bool = True,
    resources: Resources = ALONE,
) -> dict[str, Any]:
    """Put the newest intact checkpoint of a run before halos of other makers: print the table,
    write catalogs.json and catalogs.png into the run folder, return what the JSON file holds.

    words: the makers, see `Maker.parse`. Of a mass function 8 skies are made, like those that
    `catalog make --for` plans for data.test, in the folder `catalogs` of the output. draws:
    functions drawn for each map; out, bootstrap, recalibrated: as in `evaluate`. Test sets have the
    run's test seed and number of maps; their manifests lie in the folder `catalogs`. Raises
    ValueError with one sentence for what cannot be evaluated.
    """
    check_head(config, OPTION)
    makers = [Maker.parse(word) for word in words]
    stems = [maker.stem for maker in makers]
    for maker in makers:
        if stems.count(maker.stem) > 1 or maker.name == OWN:
            raise ValueError(f"{OPTION}: two makers are called '{maker.name}'")
    with (
        Run.using(resources, config, recalibrated=recalibrated) as run,
        folder_for(run, out) as folder,
    ):
        result = _Table(run, folder, draws, bootstrap, own=out is None).written(makers)
    print(f"wrote {out or run.folder}: catalogs.json, {', '.join(result['figures'])}, catalogs")
    return result


class _Table:
    """What the rows of all makers have in common. own: whether the folder is the run's."""

    def __init__(
        self, run: Run, folder: Path, draws: int, bootstrap: str, *, own: bool = True
    ) -> None:
        self._run, self._folder, self._own = run, folder, own
        self._draws, self._bootstrap = draws, bootstrap
        self._step = run.trained.step  # there is a network, before anything is made

    def written(self, makers: Sequence[Maker]) -> dict[str, Any]:
        """The result, written into the folder."""
        run, config = self._run, self._run.config
        for maker in makers:  # what cannot be used is refused before any sky is made
            if maker.files:
                run.testing(self._config_of(maker, maker.files)[0]).close()
        files = {maker.name: self._files_of(maker) for maker in makers}
        kept = MeanLabelBaseline.of_evaluation(run.evaluation) if self._own else None
        if kept is None or len(kept.mean) != config.label.luminosity_bins.num:
            training = run.training()
            kept = mean_label(training, run.progress)
            training.close()
        self._reference, self._prior = kept, Prior.of_run(run)
        own_path = self._folder / "testset.json" if not self._own else testset.default_path(config)
        rows = [self._row(OWN, config, own_path, [])]
        for maker in makers:
            rows.append(self._row_of(maker, files[maker.name]))
        conventions = rows[0]["conventions"]
        for row in rows:
            del row["conventions"]
        result: dict[str, Any] = {
            "checkpoint_step": self._step,
            "recalibration": run.trained.applied.record(),
            "head": config.network.head,
            "label": config.label.quantity,
            "bins_are_independent": not self._joint,
            "draws": self._draws,
            "notes": run.said(),
            "conventions": conventions,
            "makers": rows,
            "figures": ["catalogs.png"],
        }
        write_json(self._folder / "catalogs.json", result)
        write_png(makers_figure(result), self._folder / "catalogs.png")
        run.progress.close()
        print(makers_table(result))
        return result

    def _config_of(self, maker: Maker, files: Sequence[str]) -> tuple[Config, list[str]]:
        """The run's configuration on the skies of another maker, and what is to be known of it."""
        notes: list[str] = []
        config = on_other_skies(self._run, files, f"{OPTION} {maker.name}")
        heavy = max(Header.read(path).min_mass_Msun for path in expand(files, OPTION))
        least = config.data.min_mass_Msun
        if heavy > MASS_TOLERANCE * least:
            config = replace(config, data=replace(config.data, min_mass_Msun=heavy))
            notes = [
                f"its halos are above {heavy:.3g} Msun alone, the training's above {least:.3g}: "
                "its maps and true functions are without those between"
            ]
        return config, notes

    def _row_of(self, maker: Maker, files: Sequence[str]) -> dict[str, Any]:
        """The row of another maker than the run's."""
        config, notes = self._config_of(maker, files)
        made = bool(maker.mass_function)
        if made:
            seeds = [_seed_of(Header.read(path)) for path in expand(files, OPTION)]
            notes.append(
                f"{len(seeds)} skies, made here: mass function {maker.mass_function}, bias "
                f"{maker.bias}, seeds {seeds[0]} to {seeds[-1]}, which no sky of the run has"
            )
        path = self._folder / FOLDER / f"{maker.stem}.testset.json"
        return self._row(maker.name, config, path, notes, made=made)

    def _row(
        self, name: str, config: Config, path: Path, notes: list[str], *, made: bool = False
    ) -> dict[str, Any]:
        """A maker's row; made: the skies were made here, and have no names worth telling."""
        run = self._run
        generator, batches, again = open_maps(run, config, path, name)
        if name != OWN:
            notes = [*notes_on(config, generator)[made:], *notes, *run.said(generator)[1:]]
        notes = [*again, *notes]
        network = run.network(generator)
        self._joint = network.head.joint
        ranking = Ranking(network, generator, self._draws, self._prior)
        count = config.test.samples
        predictions = predict_batches(
            network, generator, ranking.watching(batches), count, name, run.progress
        )
        assert isinstance(predictions, Predictions)
        ranked = ranking.ranked()
        resampled = Bootstrap.choose(ranked.skies, self._bootstrap)
        scores = scores_of(predictions, self._reference, config.label.quantity, resampled)
        network_error, reference_error = (
            ((of - predictions.true) ** 2).mean(axis=1)
            for of in (predictions.predicted, self._reference.mean)
        )
        found = {
            "name": name,
            "skies": len(set(ranked.skies)),
            **test_set_record(path, testset.load(path)),
            "notes": notes,
            "mse": scores["network"]["mse"],
            "mse_error": scores["network"]["mse_error"],
            "mean_label_mse": scores["mean_label"]["mse"],
            "mean_label_mse_error": scores["mean_label"]["mse_error"],
            "mse_ratio": float(network_error.sum() / reference_error.sum()),
            "mse_ratio_error": resampled.ratio(network_error, reference_error),
            "ranges": scores["network"]["ranges"],
            **numbers(ranked, resampled, bright_above(generator.bin_edges)),
        }
        found["conventions"] |= {
            key: scores["conventions"][key] for key in ("delta", "mean_label", "errors")
        }
        generator.close()
        return found

    def _files_of(self, maker: Maker) -> list[str]:
        """The lightcones of a maker, which are made here if need be."""
        if maker.files:
            return list(maker.files)
        config = self._run.config
        usual, sfr = sky_of(config)
        training = training_files(config)
        known = cosmology_of(config, training)
        cosmology = Cosmology() if known is None else Cosmology.from_dict(known)
        options = SkyOptions(
            **usual, cosmology=cosmology, mass_function=maker.mass_function, bias=maker.bias
        )
        recipe = Recipe(self._folder / FOLDER, maker.stem, options, velocities=False, sfr=sfr)
        first = free_seed(self._run, MADE_SKIES)
        make_lightcones(MADE_SKIES, recipe, first_seed=first)
        return [str(recipe.path(first + number)) for number in range(MADE_SKIES)]


def free_seed(run: Run, number: int) -> int:
    """The first of `number` consecutive seeds that none of the run's skies was made from."""
    data = run.config.data
    files = [
        path for split in SPLITS for path in expand(data.files(split), split, must_exist=False)
    ]
    taken = {_seed_of(Header.read(path)) for path in files}
    first = FIRST_SEED
    while clash := taken & set(range(first, first + number)):
        first = max(clash) + 1
    return first


def _seed_of(header: Header) -> int:
    """The seed that a sky was made from; -1 for one of another maker."""
    found = re.match(rf"{re.escape(METHOD)}-(\d+)-", header.realisation)
    return int(found[1]) if found else -1
