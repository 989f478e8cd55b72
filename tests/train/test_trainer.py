"""The training loop: an interruption leaves no trace in what is learnt, and a long run needs no
more memory than a short one."""

from __future__ import annotations

import inspect
import json
import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from support import small
from support.fake_generator import FakeGenerator, FakeTrainer, tiny_config
from support.processes import Forked, trained_indices
from support.states import assert_same_bits, losses, state_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from streamtrain.catalogs.headers import MAKER, Header
from streamtrain.config import Config
from streamtrain.generator.draws import SampleGenerator
from streamtrain.generator.generator import Batch
from streamtrain.machine.interrupt import SIGNALS
from streamtrain.train.distributed import World
from streamtrain.train.folder import RunLock, read_history
from streamtrain.train.normalisation import NUM_SAMPLES
from streamtrain.train.optimiser import learning_rate
from streamtrain.train.torch_state import WORKSPACE
from streamtrain.train.trainer import Trainer, TrainingError
from streamtrain.train.validation import Summary, validate

pytestmark = pytest.mark.usefixtures("one_thread")


def run(
    config: Config, max_steps: int | None = None, generator: type[FakeGenerator] = FakeGenerator
) -> Summary:
    return FakeTrainer(config, max_steps=max_steps, generator=generator).run()


def test_continued_run_is_bit_equal_to_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, parts = tiny_config(tmp_path / "whole"), tiny_config(tmp_path / "parts")
    run(whole)
    for steps in (3, 1, 5, None):
        run(parts, steps)
    assert_same_bits(state_of(whole), state_of(parts))
    assert state_of(whole)["next_index"] == 12 * 8
    assert losses(whole, "validation_loss") == losses(parts, "validation_loss")


def test_continued_run_on_real_samples_is_bit_equal_for_any_generator_threads(
    tmp_path: Path,
) -> None:
    for seed, name in ((1, "train"), (2, "validation")):
        small.lightcone(seed).save(tmp_path / f"{name}.h5")

    def config_of(folder: str, threads: int) -> Config:
        return small.config(
            run=str(tmp_path / folder),
            data={name: [str(tmp_path / f"{name}.h5")] for name in ("train", "validation")},
            emit={"line": {"model": "li16", "prior": "narrow"}},
            observe={"noise": {"sigma_uK": 1.0}, "log_modulus": {}},
            network={"layers": 3, "filters": 4, "dense": 8, "dropout": 0.2},
            train={
                "steps": 7,
                "batch_size": 8,
                "warmup_steps": 2,
                "validation_samples": 5,
                "threads": threads,
            },
        )

    whole, parts = config_of("whole", 1), config_of("parts", 3)
    Trainer(whole, "cpu").run()
    for steps in (2, 3, None):
        Trainer(parts, "cpu", max_steps=steps).run()
    assert_same_bits(state_of(whole), state_of(parts))
    assert losses(whole, "validation_loss") == losses(parts, "validation_loss")


def test_kill_9_then_the_same_command(tmp_path: Path) -> None:
    """Killed after step 7, it goes on from the checkpoint of step 4."""
    whole, killed = tiny_config(tmp_path / "whole"), tiny_config(tmp_path / "killed")
    assert Forked(tmp_path / "killed", "--kill-at", "7").finish() == [-signal.SIGKILL]
    assert state_of(killed)["next_index"] == 4 * 8
    again = Forked(tmp_path / "killed")
    assert again.finish() == [0], again.errors
    assert f"continuing {killed.run} from step 4" in again.errors
    run(whole)
    assert_same_bits(state_of(whole), state_of(killed))
    assert losses(whole) == losses(killed)
    sequence = [batch[0] for batch in trained_indices(tmp_path / "killed")]
    second = sequence.index(32, sequence.index(32) + 1)  # the first sample after the checkpoint
    assert sequence[second : second + 8] == list(range(32, 96, 8))


def test_global_state_of_torch_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    before = torch.random.get_rng_state(), torch.get_num_threads()
    handlers = [signal.getsignal(n) for n in SIGNALS]
    run(tiny_config(tmp_path, steps=3, deterministic=True))
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    assert [signal.getsignal(n) for n in SIGNALS] == handlers
    assert not torch.are_deterministic_algorithms_enabled()
    assert WORKSPACE not in os.environ


def test_it_learns(tmp_path: Path) -> None:
    """The amplitude of white noise, to half the error of the mean label."""
    config = tiny_config(
        tmp_path, steps=150, learning_rate=0.01, validate_every=50, validation_samples=64
    )
    result = run(config).validation
    assert result is not None
    whole = result.ranges[-1]
    assert whole.name == "all"
    assert whole.rms_dex < 0.5 * whole.baseline_dex
    assert whole.baseline_dex == pytest.approx(1 / math.sqrt(12), rel=0.2)  # of uniform(0.5, 1.5)


@pytest.mark.parametrize("scale", ["log10", "linear"])
def test_units_change_no_error(tmp_path: Path, scale: str) -> None:
    """phi and phi L are dN times a constant per bin: the same errors in dex, the same loss."""
    found = {}
    for quantity in ("counts", "phi", "phi_L"):
        config = tiny_config(
            tmp_path / quantity, label={"quantity": quantity, "scale": scale}, dropout=0.0
        )
        result = run(config).validation
        assert result is not None
        found[quantity] = [result.loss] + [e.rms_dex for e in result.ranges]
    for quantity in ("phi", "phi_L"):
        assert found[quantity] == pytest.approx(found["counts"], rel=2e-3)


def test_it_learns_a_class(tmp_path: Path) -> None:
    """Whether the amplitude of white noise is above its mean."""
    config = tiny_config(
        tmp_path, label={"quantity": "class"}, steps=150, learning_rate=0.01, dropout=0.0,
        validate_every=50, validation_samples=64,
    )  # fmt: skip
    result = run(config).validation
    assert result is not None and result.classes is not None
    labels = FakeGenerator(config, "validation").generate(range(64)).label
    shares = labels.mean(0).double().numpy()
    assert result.classes.baseline_accuracy == pytest.approx(shares.max())
    assert result.classes.baseline_loss == pytest.approx(-(shares * np.log(shares)).sum())
    assert result.classes.accuracy > 0.9
    assert result.loss < 0.5 * result.classes.baseline_loss
    assert result.classes.confusion.sum(axis=1).tolist() == labels.sum(0).tolist()
    assert np.trace(result.classes.confusion) == round(64 * result.classes.accuracy)
    assert result.ranges == []
    history = read_history(tmp_path / "history.jsonl")
    last = [entry for entry in history if "accuracy" in entry][-1]
    assert last["accuracy"] == result.classes.accuracy
    assert last["baseline_accuracy"] == result.classes.baseline_accuracy
    events = EventAccumulator(str(tmp_path)).Reload()
    assert {"classes/accuracy", "classes/baseline_accuracy"} <= set(events.Tags()["scalars"])
    assert set(events.Tags()["images"]) == {"map", "confusion"}


def test_untrained_classifier_answers_the_frequencies(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, label={"quantity": "class"}, steps=3)
    trainer = FakeTrainer(config)
    trainer.run()
    chances = trainer.network.head.function.label_mean.softmax(0)
    frequencies = FakeGenerator(config).generate(range(NUM_SAMPLES)).label.mean(0)
    torch.testing.assert_close(chances, frequencies)


def test_validation_error_is_that_of_the_samples(tmp_path: Path) -> None:
    """By hand, from the same samples and the weights of the checkpoint."""
    config = tiny_config(tmp_path, validation_samples=11)
    trainer = FakeTrainer(config)
    result = trainer.run().validation
    assert result is not None
    batch = FakeGenerator(config, "validation").generate(range(11))
    trainer.network.eval()
    with torch.no_grad():
        error = trainer.network(batch.cube) - batch.label
    assert result.loss == pytest.approx(error.square().mean().item(), rel=1e-5)
    by_name = {e.name: e for e in result.ranges}
    assert list(by_name) == ["3.5-4.5", "4.5-5.5", "5.5-6", "6-6.5", "6.5-7", "all"]
    assert by_name["5.5-6"].rms_dex == pytest.approx(
        error[:, 4].square().mean().sqrt().item(), rel=1e-5
    )
    assert by_name["all"].baseline_dex == pytest.approx(
        batch.label.std(0, correction=0).square().mean().sqrt().item(), rel=1e-5
    )


def test_the_mean_label_counts_empty_bins(tmp_path: Path) -> None:
    """Its error is over bins that hold a halo, it itself over all samples, as in an evaluation."""
    config = tiny_config(tmp_path, validation_samples=11)

    class Sparse(FakeGenerator):
        def generate(self, indices: Sequence[int]) -> Batch:
            batch = super().generate(indices)
            empty = torch.tensor([index % 3 > 0 for index in indices])[:, None]
            label, counts = (v.masked_fill(empty, 0) for v in (batch.label, batch.counts))
            return replace(batch, label=label, counts=counts)

    batch = Sparse(config, "validation").generate(range(11))
    world = World(0, 1, 1, torch.device("cpu"))
    result = validate(
        Sparse(config, "validation"),
        lambda some: (some.label, torch.zeros(())),
        world,
        num_samples=11,
        chunk=4,
        stopped=lambda done: False,
    )
    assert result is not None
    label, held = batch.label.double().numpy(), batch.counts.numpy() > 0
    assert 0 < held.sum() < held.size
    wanted = np.sqrt(np.mean((label - label.mean(0))[held] ** 2))
    assert result.ranges[-1].baseline_dex == pytest.approx(wanted, rel=1e-6)


def test_a_validation_that_is_no_number_is_told(tmp_path: Path) -> None:
    """A network that answers NaN where it is not trained."""
    config = tiny_config(tmp_path, validation_samples=11)
    trainer = FakeTrainer(config)
    trainer.network.register_forward_hook(
        lambda network, _, answer: answer if network.training else torch.full_like(answer, np.nan)
    )
    with pytest.raises(TrainingError, match=r"loss on the validation samples is nan, although its"):
        trainer.run()


def test_tensorboard_after_a_restart_has_each_step_once(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    run(config, 7)
    time.sleep(1.1)  # TensorBoard orders event files by the second they were made in
    run(config)
    events = EventAccumulator(str(tmp_path)).Reload()
    wanted = {
        "loss/train",
        "loss/validation",
        "error_dex/logL_3.5-4.5",
        "optimiser/learning_rate",
        "speed/samples_per_s",
        "speed/generate_ms",
        "speed/train_ms",
        "progress/samples_seen",
    }
    assert wanted <= set(events.Tags()["scalars"])
    assert set(events.Tags()["images"]) == {"map", "luminosity_function"}
    assert "config/text_summary" in events.Tags()["tensors"]
    steps = [event.step for event in events.Scalars("loss/train")]
    assert steps == [2, 4, 6, 7, 8, 10, 12]
    assert events.Scalars("progress/samples_seen")[-1].value == 96


def test_steps_past_the_checkpoint_are_dropped_from_the_record(tmp_path: Path) -> None:
    assert Forked(tmp_path, "--kill-at", "7").finish() == [-signal.SIGKILL]
    config = tiny_config(tmp_path)
    assert losses(config)[-1][0] == 6
    run(config)
    assert [step for step, _ in losses(config)] == [2, 4, 6, 8, 10, 12]


class Failing(FakeGenerator):
    """Training sample 43 cannot be made, but for the calibration."""

    calibrated = False

    def generate(self, indices: Sequence[int]) -> Batch:
        if self.split == "train" and 43 in indices:
            if self.calibrated:
                raise ValueError("sample 43: no such halo")
            self.calibrated = True
        return super().generate(indices)


def test_sample_that_cannot_be_made_costs_no_step_before_it(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "failed")
    with pytest.raises(ValueError, match="sample 43: no such halo"):
        run(config, generator=Failing)
    assert (state_of(config)["step"], state_of(config)["next_index"]) == (5, 40)
    run(config)
    whole = tiny_config(tmp_path / "whole")
    run(whole)
    assert_same_bits(state_of(whole), state_of(config))


@pytest.mark.parametrize(("split", "index", "saved"), [("train", 7, 0), ("validation", 3, 3)])
def test_halos_too_bright_outside_a_training_step_are_an_error(
    tmp_path: Path, split: str, index: int, saved: int
) -> None:
    """On a GPU `generate` does not look; calibration and validation must."""

    class Bright(FakeGenerator):
        def generate(self, indices: Sequence[int]) -> Batch:
            batch = super().generate(indices)
            batch.draws = [{**draw, "parameters": {"A": 1e9}} for draw in batch.draws]
            if self.split == split and index in indices:
                batch.saturated[list(indices).index(index)] = 2
            return batch

    config = tiny_config(tmp_path, validate_every=3, checkpoint_every=100)
    with pytest.raises(ValueError, match=rf"sample {index}: 2 halos are too bright .*'A'"):
        run(config, generator=Bright)
    checkpoints = sorted(path.name for path in (tmp_path / "checkpoints").glob("*"))
    assert checkpoints == ([f"step_{saved:09d}"] if saved else [])


@pytest.mark.parametrize(
    ("identity", "sentence"),
    [
        (
            {"lightcones": ["none", "new"], "model": "fake"},
            r"the lightcones of data\.train are not those .*: 1 then, 2 now, 1 in both",
        ),
        (
            {"lightcones": ["none"], "model": "edited"},
            "the luminosity model li16 was edited since the run began",
        ),
        (
            {"lightcones": ["none"], "model": "fake", "sfr": "a table"},
            r"the table of star-formation rates data\.sfr is not the one the run began with",
        ),
        (
            {"lightcones": ["none"], "model": "fake", "observe": {"noise": "a hit map"}},
            "the files that map operators read are not those the run began with",
        ),
    ],
)
def test_run_does_not_go_on_with_other_samples(
    tmp_path: Path, identity: dict[str, Any], sentence: str
) -> None:
    class Other(FakeGenerator):
        def identity(self) -> dict[str, Any]:
            return identity

    config = tiny_config(tmp_path)
    run(config, 4)
    before = (tmp_path / "config.yaml").read_text()
    other = replace(config, data=replace(config.data, validation=["other.h5"]))
    with pytest.raises(ValueError, match=sentence):
        run(other, generator=Other)
    assert (tmp_path / "config.yaml").read_text() == before
    assert run(config).step == 12


def test_run_goes_on_with_lightcones_made_again(tmp_path: Path) -> None:
    """Of the same recipe, with other last bits: that is said, and shows in TensorBoard. The next
    checkpoint is of them. Lightcones of another recipe, or of a run of before recipes, are not."""

    def generator(number: int, provenance: str) -> type[FakeGenerator]:
        header = small.lightcone(number, num=300, provenance=provenance).header

        class OfFile(FakeGenerator):
            headers: ClassVar[list[Header]] = [header]

            def identity(self) -> dict[str, Any]:
                return {"lightcones": [header.digest], "model": "fake"}

        return OfFile

    made = json.dumps({"program": MAKER, "version": "1", "seed": 4})
    again = json.dumps({"program": MAKER, "version": "2", "device": "another", "seed": 4})
    old, new = generator(1, made), generator(2, again)
    config = tiny_config(tmp_path)

    def told() -> list[str]:
        events = EventAccumulator(str(tmp_path))
        events.Reload()
        if "lightcones/text_summary" not in events.Tags()["tensors"]:
            return []
        found = events.Tensors("lightcones/text_summary")
        return [one.tensor_proto.string_val[0].decode() for one in found]

    run(config, 4, generator=old)
    run(config, 2, generator=old)
    assert not told()
    run(config, 2, generator=new)
    [text] = told()
    assert text.startswith("small-2: lightcones of the recipe of those the run began with")
    assert text.endswith("training goes on with them")
    assert state_of(config)["samples"]["lightcones"] == [new.headers[0].digest]
    run(config, 2, generator=new)
    assert told() == [text]
    for other in (generator(3, again.replace("4", "5")), generator(3, "")):
        with pytest.raises(ValueError, match=r"lightcones of data\.train are not those"):
            run(config, generator=other)


def test_the_stream_is_as_configured(tmp_path: Path) -> None:
    trainer = FakeTrainer(tiny_config(tmp_path, queue=3), max_steps=1)
    trainer.run()
    assert trainer._stream._ahead == 3


def test_finished_run_does_nothing_more(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    run(config)
    before = (tmp_path / "history.jsonl").read_text()
    assert run(config).step == 12
    assert (tmp_path / "history.jsonl").read_text() == before


def test_refused_run_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    run(config, 4)
    before = (tmp_path / "config.yaml").read_text()
    with pytest.raises(ValueError, match=r"train\.batch_size = 8 there, 16 here"):
        run(tiny_config(tmp_path, batch_size=16))
    assert (tmp_path / "config.yaml").read_text() == before
    assert state_of(config)["step"] == 4


def test_network_that_does_not_fit_leaves_no_folder(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run")
    config = replace(config, network=replace(config.network, layers=4))
    with pytest.raises(ValueError, match=r"network\.layers = 4 .* 8 x 8 pixels"):
        run(config)
    assert not (tmp_path / "run").exists()


def test_second_training_in_a_folder_is_refused(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    with pytest.raises(ValueError, match=r"is in use by process \d+ on .* stop that training"):
        RunLock(tmp_path, patience_s=0.3)
    lock.close()
    RunLock(tmp_path, patience_s=0).close()


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    train = tiny_config("unused", steps=110, warmup_steps=10, learning_rate=1.0).train
    rates = [learning_rate(step, train) for step in range(110)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[60] == pytest.approx(0.5)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 1e-3


def test_the_fake_generator_is_asked_as_the_real_one(tmp_path: Path) -> None:
    """Nothing that a training asks is missing in it, or takes other arguments."""
    fake = FakeGenerator(tiny_config(tmp_path))
    names = {name for name in vars(SampleGenerator) if not name.startswith("_")}
    names |= set(SampleGenerator.__annotations__)
    assert {"generate", "window", "label", "input_shape"} < names
    for name in names:
        asked = vars(SampleGenerator).get(name)
        if callable(asked):
            given = inspect.signature(getattr(FakeGenerator, name)).parameters
            assert list(given) == list(inspect.signature(asked).parameters), name
        else:
            assert hasattr(fake, name), name


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_memory_after_10000_steps_is_that_after_500(tmp_path: Path) -> None:
    """Logging, checkpoints, an average and validations with their figures included. A first run of
    25 validations fills the caches of what draws the figures, which grow no further."""
    found = {}

    class Weighed(FakeTrainer):
        def _step(self, batches: Iterator[Batch]) -> None:
            super()._step(batches)
            if self.step in (500, 10000):
                found[self.step] = resident_bytes()

    FakeTrainer(tiny_config(tmp_path / "first", steps=25, validate_every=1)).run()
    settings = {"validate_every": 400, "checkpoint_every": 100, "log_every": 10, "ema": 0.99}
    Weighed(tiny_config(tmp_path / "long", steps=10001, **settings)).run()
    print({step: f"{size / 1e6:.2f} MB" for step, size in found.items()})
    assert found[10000] < 1.01 * found[500]
