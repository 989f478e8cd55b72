"""A run, opened in one place: nothing before it is used, all closed in the end."""

import json
from pathlib import Path

import pytest
import torch

from streamtrain.evaluate import evaluation, testset
from streamtrain.evaluate import run as run_module
from streamtrain.evaluate.run import Run


@pytest.fixture
def closed(monkeypatch):
    """The splits of the generators that were closed."""
    found = []
    fake = testset.Generator
    monkeypatch.setattr(fake, "close", lambda self: found.append(self.split))
    return found


def test_nothing_is_opened_before_it_is_used(config, monkeypatch):
    for module in (run_module, testset):
        monkeypatch.setattr(module, "Generator", None)
    with Run(config, threads=3) as run:
        assert run.folder == Path(config.run) and run.threads == 3
        assert run.evaluation is None
        with pytest.raises(ValueError, match="has no checkpoint; train first"):
            _ = run.trained
    assert Run(config).threads >= 1


def test_a_gpu_is_used_where_there_is_one(config, monkeypatch):
    """As the commands do, also by `evaluate` of a folder."""
    assert Run(config).device == "cpu"
    given = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(evaluation, "_of_the_run", lambda run, _: given.append(run.device) or {})
    evaluation.evaluate(config)
    assert (Run(config).device, *given) == ("cuda:0", "cuda:0")
    assert Run(config, device="cpu").device == "cpu"


def test_what_cannot_be_read_is_no_evaluation(config):
    folder = Path(config.run)
    folder.mkdir()
    for text, expected in (("{", None), ("[1]", None), ('{"a": 1}', {"a": 1})):
        (folder / "evaluation.json").write_text(text)
        assert Run(config).evaluation == expected


def test_generators_are_closed_with_the_run(config, closed):
    with pytest.raises(RuntimeError, match="in between"), Run(config) as run:
        kept = run.testing()
        raise RuntimeError("in between")
    assert kept.split == "test" and closed == ["test"]


def test_a_test_set_is_made_once_and_compared_afterwards(config, closed):
    run = Run(config)
    manifest, generator = run.test_set()
    assert manifest.count == 40 and generator.seed == 5
    path = testset.default_path(config)
    before = path.read_bytes()
    assert run.test_set()[0] == manifest and path.read_bytes() == before
    data = json.loads(before)
    data["lightcones"][0]["digest"] = "0" * 64
    path.write_text(json.dumps(data))
    closed.clear()
    with pytest.raises(testset.OtherTestSet, match=r"north\.h5 differs"):
        run.test_set()
    assert closed == ["test"]  # the one that was refused
