"""Tables as text: alignment, blocks, numbers with their errors."""

from __future__ import annotations

import pytest

from streamtrain.tables import columns, plus_minus, range_title, rms_cell, rounded


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    rows = [["3.5-4.5", "network", "0.1"], "a line of its own", ["4-6", "", "12.25"]]
    assert columns(["range", "of", "rms"], rows, left=(0, 1)) == [
        "range    of         rms",
        "3.5-4.5  network    0.1",
        "a line of its own",
        "4-6               12.25",
    ]
    assert columns(["range", "of"], [["4-6", ""]]) == ["range  of", "4-6"]


def test_columns_that_do_not_fit_go_below() -> None:
    head, rows = ["", "first", "second", "third"], [["one", "1", "2", "3"], ["two", "4", "5", "6"]]
    assert columns(head, rows, widest=20) == [
        "     first  second",
        "one      1       2",
        "two      4       5",
        "",
        "     third",
        "one      3",
        "two      6",
    ]
    assert len(columns(head, rows, widest=25)) == 3
    # the first column and another are never apart, however little fits
    assert len(columns(head, rows, widest=1)) == 3 * 3 + 2


def test_a_row_of_another_length_is_ours() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        columns(["a", "b"], [["1"]])


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [(0.123456, 0.0123, "0.123+-0.012"), (12.0, 3.4, "12.0+-3.4"), (0.5, None, "0.5000")],
)
def test_numbers_have_two_digits_of_their_error(
    value: float, error: float | None, text: str
) -> None:
    assert rounded(value, error) == text
    assert rounded(value, error, "+") == f"+{text}"


def test_numbers_with_errors() -> None:
    assert plus_minus(0.25, 0.01) == "0.2500 +- 0.0100"
    assert plus_minus(0.25, None, ".2f") == "0.25" and plus_minus(None, 0.1) == "-"
    assert plus_minus(1.0, 0.0) == plus_minus(1.0, 3e-17) == "1.0000"  # no resample differs
    assert plus_minus(0.0, 1e-5) == "0.0000 +- 0.0000"
    assert rms_cell({"rms_dex": 0.5}) == "0.5000"
    assert rms_cell({"rms_dex": None, "rms_dex_error": None}) == "-"
    assert range_title((3.5, 10.0)) == "3.5-10"
