"""numeric: finding the number of a text, and comparing it within a tolerance."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scoring import dataset, score

from unitune.errors import DataError
from unitune.evaluate.scoring.scorers import build, check_expected
from unitune.scorers.text import Numeric, find_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("72", "72"),
        ("So the answer is 72.", "72"),
        ("#### 72", "72"),
        ("$1,234,567.50 in all", "1234567.50"),
        ("It is \u22123.5 degrees", "-3.5"),
        ("+4", "4"),
        ("5km", "5"),
        (".5", "0.5"),
        ("1.5e3", "1500"),
        ("6.02E-23", "6.02E-23"),
        ("first 3, then 4", "4"),
        ("[1, 2, 3]", "3"),
        ("1,2,3", "3"),
        ("rows 3-5", "5"),
        ("ticket T-12", "12"),
        ("40 %", "40"),
        ("1'000", "1000"),
        ("1\u202f000", "1000"),
        ("1234567", "1234567"),
        ("v2", None),
        ("seven", None),
        ("", None),
    ],
)
def test_the_last_number_of_a_text_is_found(text: str, number: str | None) -> None:
    assert (None if number is None else Decimal(number)) == find_number(text)


@pytest.mark.parametrize(
    ("text", "number"), [("1.234,5", "1234.5"), ("0,5", "0.5"), ("1.234.567", "1234567")]
)
def test_fractions_may_be_written_with_a_comma(text: str, number: str) -> None:
    assert Decimal(number) == find_number(text, decimal="comma")


@pytest.mark.parametrize(("take", "number"), [("first", "3"), ("last", "4")])
def test_which_number_counts_can_be_said(take: Literal["first", "last"], number: str) -> None:
    assert Decimal(number) == find_number("3 apples and 4 pears", take=take)


@pytest.mark.parametrize(
    ("spec", "answer", "expected", "right"),
    [
        (Numeric(), "1,000", "1000.0", 1),
        (Numeric(), "0.30000000000000001", "0.3", 0),
        (Numeric(tolerance=0.01), "3.15", "3.14", 1),
        (Numeric(tolerance=0.01), "3.1501", "3.14", 0),
        (Numeric(relative=0.1), "110", "100", 1),
        (Numeric(relative=0.1), "111", "100", 0),
        (Numeric(relative=0.1), "0.01", "0", 0),
        (Numeric(tolerance=0.1, relative=0.1), "0.1", "0", 1),
        (Numeric(), "-5", "5", 0),
        (Numeric(), "no idea", "5", 0),
        (Numeric(tolerance=1), "1e999999999", "5", 0),
        (Numeric(), "1e999999999", "1e999999999", 1),
    ],
)
def test_a_number_is_right_within_the_larger_tolerance(
    spec: Numeric, answer: str, expected: str, right: float
) -> None:
    assert right == score(spec, answer, expected).value


def test_an_expected_answer_without_a_number_is_refused() -> None:
    with pytest.raises(DataError, match=r"test\.jsonl:2: the expected answer 'many' has no"):
        check_expected([build(Numeric())], dataset("5", "many"))


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4), st.booleans())
def test_every_way_of_writing_a_number_is_the_same_number(number: Decimal, grouped: bool) -> None:  # noqa: FBT001
    written = f"{number:,f}" if grouped else f"{number:f}"
    assert number == find_number(f"That makes {written} in all.")


@given(st.text())
def test_no_text_makes_it_fall_over(text: str) -> None:
    assert score(Numeric(tolerance=0.5), text, "1").value in (0, 1)
