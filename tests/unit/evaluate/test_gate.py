from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from unitune.evaluate.gate import Evidence, VerdictName, apply
from unitune.job import Gate

Mode = Literal["improve", "no-regress", "absolute"]

PLAIN = Evidence(
    verdict="inconclusive",
    interval=(-0.1, 0.1),
    margin=0.05,
    own_interval=(0.4, 0.6),
    n=100,
    errors=0,
)


@pytest.mark.parametrize(
    ("verdict", "code"),
    [("better", 0), ("worse", 1), ("equivalent", 1), ("non-inferior", 3), ("inconclusive", 3)],
)
def test_improve_goes_by_the_verdict(verdict: VerdictName, code: int) -> None:
    result = apply(Gate(mode="improve"), replace(PLAIN, verdict=verdict))
    assert (code, code == 0) == (result.exit_code, result.passed)


@pytest.mark.parametrize(
    ("interval", "code"),
    [
        ((0.01, 0.2), 0),
        ((-0.049, 0.1), 0),
        ((-0.05, 0.1), 3),
        ((-0.2, 0.0), 3),
        ((-0.2, -0.001), 1),
        ((-0.04, -0.001), 0),
    ],
)
def test_no_regress_goes_by_the_interval_and_the_margin(
    interval: tuple[float, float], code: int
) -> None:
    assert code == apply(Gate(mode="no-regress"), replace(PLAIN, interval=interval)).exit_code


@pytest.mark.parametrize(
    ("own", "code"), [((0.8, 0.9), 0), ((0.81, 0.9), 0), ((0.7, 0.8), 3), ((0.7, 0.79), 1)]
)
def test_absolute_goes_by_the_candidates_own_interval(own: tuple[float, float], code: int) -> None:
    gate = Gate(mode="absolute", threshold=0.8)
    assert code == apply(gate, replace(PLAIN, own_interval=own)).exit_code


@pytest.mark.parametrize("mode", ["improve", "no-regress", "absolute"])
@pytest.mark.parametrize(
    ("n", "errors", "min_cases", "code"),
    [
        (100, 2, 1, 0),
        (100, 3, 1, 4),
        (50, 1, 1, 0),
        (350, 7, 1, 0),
        (350, 8, 1, 4),
        (100, 0, 100, 0),
        (100, 0, 101, 3),
        (100, 3, 101, 4),
    ],
)
def test_errors_and_too_few_cases_come_before_any_evidence(
    mode: Mode, n: int, errors: int, min_cases: int, code: int
) -> None:
    gate = Gate(mode=mode, threshold=0.5 if mode == "absolute" else None, min_cases=min_cases)
    passing = replace(PLAIN, verdict="better", interval=(0.1, 0.2), own_interval=(0.6, 0.7))
    assert code == apply(gate, replace(passing, n=n, errors=errors)).exit_code


def test_the_reason_is_a_sentence_with_the_figures() -> None:
    result = apply(Gate(mode="no-regress"), PLAIN)
    assert "These cases do not exclude that it is worse by more than 5 points." == result.reason
