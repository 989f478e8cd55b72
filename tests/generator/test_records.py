"""A record per sample out of columns: Python's own types, slices, parameters of several models."""

from __future__ import annotations

import json

import numpy as np

from streamtrain.generator.batch import OfModels, Records

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
