"""The rule that passes or fails CI: a pure function from evidence to exit code.

    first that holds                                 improve      no-regress    absolute
    more than 2 % of the cases in error              4            4             4
    fewer cases than min_cases                       3            3             3
    passed (0)                                       better       lo > -m       own lo >= threshold
    failed on evidence (1)                           worse,       hi < 0        own hi < threshold
                                                     equivalent
    inconclusive (3)                                 the rest     the rest      the rest

lo and hi are the ends of the interval of candidate minus baseline, m the margin, own lo and own
hi the ends of the interval of the candidate's own score. The order matters: a vendor that was down
or a handful of cases is never mistaken for evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unitune.evaluate.results import GateResult
from unitune.job import Gate

MOST_ERRORS = 0.02
"""Larger shares of cases in error say more about the vendor than about the model.

DESIGN 10 sets it; a case in error scores 0, so this also bounds what errors can move a score.
"""

VerdictName = Literal["better", "worse", "equivalent", "non-inferior", "inconclusive"]
ExitCode = Literal[0, 1, 3, 4]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a gate looks at.

    Args:
        verdict: Of the comparison.
        interval: Of candidate minus baseline, as proportions.
        margin: Difference too small to matter, as a proportion.
        own_interval: Of the candidate's own score.
        n: Cases.
        errors: Cases in which candidate or baseline gave no answer.
    """

    verdict: VerdictName
    interval: tuple[float, float]
    margin: float
    own_interval: tuple[float, float]
    n: int
    errors: int


@dataclass(frozen=True, slots=True)
class Ruling:
    """An exit code with its reason in plain words."""

    exit_code: ExitCode
    reason: str


def apply(gate: Gate, evidence: Evidence) -> GateResult:
    """Say whether the evidence passes the gate.

    Args:
        gate: The job's gate.
        evidence: What the comparison found.

    Returns:
        Passed or not, the exit code, and why in plain words.
    """
    ruling = _unfit(gate, evidence) or _rule(gate, evidence)
    return GateResult(
        mode=gate.mode,
        passed=ruling.exit_code == 0,
        exit_code=ruling.exit_code,
        reason=ruling.reason,
    )


def _unfit(gate: Gate, evidence: Evidence) -> Ruling | None:
    if evidence.errors / evidence.n > MOST_ERRORS:
        return Ruling(
            4,
            f"{evidence.errors} of {evidence.n} cases ended in an error, more than "
            f"{MOST_ERRORS:.0%}. Run compare again: it asks only those.",
        )
    if evidence.n < gate.min_cases:
        return Ruling(
            3, f"There are {evidence.n} cases, and the gate asks for at least {gate.min_cases}."
        )
    return None


def _rule(gate: Gate, evidence: Evidence) -> Ruling:
    match gate.mode:
        case "improve":
            return _improve(evidence)
        case "no-regress":
            return _no_regress(evidence)
        case "absolute":
            return _absolute(gate.threshold or 0.0, evidence)


def _improve(evidence: Evidence) -> Ruling:
    match evidence.verdict:
        case "better":
            return Ruling(0, "The candidate is better than the best baseline.")
        case "worse":
            return Ruling(1, "The candidate is worse than the best baseline.")
        case "equivalent":
            return Ruling(1, f"There is no difference larger than {_points(evidence.margin)}.")
        case "non-inferior":
            return Ruling(
                3,
                f"The candidate is not worse by more than {_points(evidence.margin)}, "
                "but these cases do not show that it is better.",
            )
        case "inconclusive":
            return Ruling(3, "These cases do not show which of the two is better.")


def _no_regress(evidence: Evidence) -> Ruling:
    low, high = evidence.interval
    margin = _points(evidence.margin)
    if low > -evidence.margin:
        return Ruling(0, f"The candidate is not worse by more than {margin}.")
    if high < 0:
        return Ruling(1, f"The candidate is worse, perhaps by {_points(-low)}.")
    return Ruling(3, f"These cases do not exclude that it is worse by more than {margin}.")


def _absolute(threshold: float, evidence: Evidence) -> Ruling:
    low, high = evidence.own_interval
    own = f"The candidate's score lies between {low:.3f} and {high:.3f}"
    if low >= threshold:
        return Ruling(0, f"{own}, at or above {threshold:g}.")
    if high < threshold:
        return Ruling(1, f"{own}, below {threshold:g}.")
    return Ruling(3, f"{own}: these cases do not show whether it reaches {threshold:g}.")


def _points(share: float) -> str:
    return f"{100 * share:.3g} points"
