from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sample_comparison import VERDICTS, Counts, gated, infested, sample_comparison

from unitune.evaluate.documents.results import Comparison
from unitune.job.job import Gate
from unitune.report.files import junit

IMPROVE = Gate.model_validate(
    {"mode": "improve", "constraints": [{"metric": "json_valid", "at_least": 0.99}]}
)


def suite(comparison: Comparison) -> ET.Element:
    root = ET.fromstring(junit(comparison).encode())  # noqa: S314 - our own file
    (found,) = root
    return found


def told(comparison: Comparison) -> dict[str | None, tuple[str, str | None]]:
    """How each testcase came out."""
    return {
        case.get("name"): (case[0].tag, case[0].get("type"))
        for case in suite(comparison).iter("testcase")
    }


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        ("better", ("system-out", None)),
        ("worse", ("failure", "failed")),
        ("inconclusive", ("failure", "inconclusive")),
    ],
)
def test_the_rule_passes_fails_or_is_inconclusive(
    verdict: str, outcome: tuple[str, str | None]
) -> None:
    comparison = gated(sample_comparison(VERDICTS[verdict]), Gate(mode="improve"))

    assert outcome == told(comparison)["improve"]


def test_a_vendor_that_was_down_is_an_error_and_no_failure() -> None:
    comparison = gated(sample_comparison(errors=30), IMPROVE, required=1)
    required = f"required {comparison.cases[0].id}"

    assert told(comparison) == {
        "errors": ("error", "infrastructure"),
        required: ("skipped", None),
        "min_cases": ("skipped", None),
        "improve": ("skipped", None),
        "json_valid at least 0.99": ("skipped", None),
    }
    counts = suite(comparison)
    assert [counts.get(name) for name in ("tests", "failures", "errors", "skipped")] == [
        "5",
        "0",
        "1",
        "4",
    ]


def test_there_is_one_test_a_rule_and_pinned_case_and_none_a_sample() -> None:
    comparison = gated(sample_comparison(), IMPROVE, required=3)

    assert 3 + 4 == len(told(comparison)) < comparison.n
    assert comparison.gate is not None
    assert len(comparison.gate.checks) == len(told(comparison))


def test_without_a_gate_there_is_one_skipped_test() -> None:
    assert told(sample_comparison()) == {"gate": ("skipped", None)}


def test_the_message_is_the_checks_reason() -> None:
    comparison = gated(sample_comparison(), IMPROVE)
    (failure,) = suite(comparison).iter("failure")

    assert failure.get("message") == (
        "The candidate's json_valid is 0.7917; the gate requires at least 0.99."
    )


@given(st.text())
def test_no_text_breaks_the_file(text: str) -> None:
    small = sample_comparison(Counts(2, 1, 1, 1), curve=False)
    hostile = infested(gated(small, IMPROVE, required=1), text)

    assert len(told(hostile)) == 5
