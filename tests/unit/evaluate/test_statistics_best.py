"""The verdict against the best of several baselines."""

from __future__ import annotations

import numpy as np
import pytest

from unitune.evaluate.statistics.best import against_best
from unitune.evaluate.statistics.paired import PairedResult, Verdict, compare_paired


def pair(gained: int, lost: int, n: int = 400) -> PairedResult:
    """The candidate against one baseline."""
    old = [0] * gained + [1] * lost + [1] * (n - gained - lost)
    new = [1] * gained + [0] * lost + [1] * (n - gained - lost)
    return compare_paired(old, new)


BETTER, EQUAL, WORSE, WIDE = pair(60, 10), pair(8, 8), pair(10, 60), pair(90, 90)


def test_with_one_baseline_it_is_the_comparison_with_it() -> None:
    for only in (BETTER, EQUAL, WORSE, WIDE):
        found = against_best({"a": only}, "a")
        assert ("a", only.interval, only.verdict) == (
            found.hardest,
            found.interval,
            found.verdict,
        )


@pytest.mark.parametrize(
    ("chosen", "other", "verdict"),
    [
        (BETTER, BETTER, Verdict.BETTER),
        (BETTER, EQUAL, Verdict.NON_INFERIOR),
        (BETTER, WIDE, Verdict.INCONCLUSIVE),
        (BETTER, WORSE, Verdict.INCONCLUSIVE),
        (EQUAL, BETTER, Verdict.EQUIVALENT),
        (EQUAL, EQUAL, Verdict.EQUIVALENT),
        (EQUAL, WIDE, Verdict.INCONCLUSIVE),
        (EQUAL, WORSE, Verdict.INCONCLUSIVE),
        (WORSE, BETTER, Verdict.WORSE),
        (WORSE, EQUAL, Verdict.WORSE),
        (WORSE, WORSE, Verdict.WORSE),
    ],
)
def test_claims_hold_against_each_and_a_loss_against_the_chosen_one(
    chosen: PairedResult, other: PairedResult, verdict: Verdict
) -> None:
    found = against_best({"other": other, "chosen": chosen}, "chosen")
    assert verdict == found.verdict
    assert min(chosen.interval.low, other.interval.low) == found.interval.low
    assert chosen.interval.high <= found.interval.high


def test_the_chosen_one_wins_ties() -> None:
    assert "b" == against_best({"a": EQUAL, "b": EQUAL, "c": EQUAL}, "b").hardest


def test_among_equals_neither_claim_comes_too_often() -> None:
    """Six baselines and a candidate, all equally good: each claim at most 2.5 % (+ 3 SE)."""
    random = np.random.default_rng(8)
    verdicts: list[Verdict] = []
    for _ in range(400):
        easy = random.beta(2, 1, 120)
        right = (random.random((7, 120)) < easy).astype(float)
        pairs = {str(at): compare_paired(right[at], right[6]) for at in range(6)}
        verdicts.append(against_best(pairs, "0").verdict)
    assert verdicts.count(Verdict.BETTER) <= 400 * 0.025 + 3 * (400 * 0.025 * 0.975) ** 0.5
    assert verdicts.count(Verdict.WORSE) <= 400 * 0.025 + 3 * (400 * 0.025 * 0.975) ** 0.5
