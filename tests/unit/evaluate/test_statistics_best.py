"""The verdict against the best of several baselines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from unitune.evaluate.statistics.intervals import Interval
from unitune.evaluate.statistics.paired import PairedResult, Verdict, against_best, compare_paired


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
    assert against_best({"a": EQUAL, "b": EQUAL, "c": EQUAL}, "b").hardest == "b"


def normal_pair(candidate: np.ndarray, baseline: np.ndarray) -> PairedResult:
    """The candidate against one baseline by the normal interval, which is quicker to draw."""
    differences = candidate - baseline
    mean = float(differences.mean())
    half = 1.96 * float((differences**2).sum()) ** 0.5 / len(differences)
    wide, narrow = Interval(mean - half, mean + half, 0.95), Interval(mean, mean, 0.90)
    return replace(WIDE, interval=wide, interval90=narrow)


def test_among_equals_neither_claim_comes_too_often() -> None:
    """Six baselines and a candidate, all equally good: each claim at most 2.5 % (+ 3 SE)."""
    random, trials = np.random.default_rng(8), 2000
    verdicts: list[Verdict] = []
    for _ in range(trials):
        easy = random.beta(2, 1, 120)
        right = (random.random((7, 120)) < easy).astype(float)
        pairs = {str(at): normal_pair(right[6], right[at]) for at in range(6)}
        verdicts.append(against_best(pairs, "0").verdict)
    most = 0.025 * trials + 3 * (0.025 * 0.975 * trials) ** 0.5
    assert verdicts.count(Verdict.BETTER) <= most
    assert verdicts.count(Verdict.WORSE) <= most
