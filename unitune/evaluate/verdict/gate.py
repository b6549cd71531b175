"""Apply the rule that passes or fails CI: a pure function from evidence to exit code.

    check                                     passed (0)   failed (1)         else
    errors: fraction of cases in error        <= 2 %                          4
    dev errors of each competing prompt       <= 2 %                          4
    required CASE, each                       right        wrong              4, not answered
    min_case_pass_rate, over all cases        reached      not reached        4, not answered
    min_cases                                 reached                         3
    all cases, for a preview (`--limit`)                                      3
    improve                                   better       worse, equivalent  3
    no-regress                                lo > -m      hi < 0             3
    absolute                                  lo >= line   hi < line          3
    constraints: METRIC at least or at most   holds        does not           4, no value

lo and hi are the ends of the interval of candidate minus best baseline (for absolute, of the
candidate's own score), m the margin. Modes and `constraints` are also undecided if the result
depends on errors (4) or cut answers (3), if nothing was right (3), or if no-regress passes with
both scores below the margin (3). The exit code is the first of 4, 1, 3 that any check has, else 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import TypeGuard

from unitune.data.load import source_of
from unitune.evaluate.documents.records import Answer, UseOfTest
from unitune.evaluate.documents.results import GateCheck, GateResult, Regression
from unitune.evaluate.scoring.grading import MOST_ERRORS, Graded
from unitune.evaluate.statistics.paired import Verdict, own_score
from unitune.evaluate.verdict.baseline import Requirements, regressions
from unitune.evaluate.verdict.readings import (
    NOTHING_RIGHT,
    ExitCode,
    Judgement,
    Reading,
    Ruling,
    undecided,
    uninformative,
)
from unitune.job.job import Constraint, Gate

# Maximum number of reasons in a result; its checks list all of them.
MOST_REASONS = 3
MOST_CASES = 10  # named in a reason; a check lists all of them
# Exit codes, deciding code first.
SEVERITY: tuple[ExitCode, ...] = (4, 1, 3, 0)
Held = tuple[Reading, Sequence[Regression]]
Rule = Callable[[Reading, Sequence[Regression]], Ruling]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Evidence that a gate rules on."""

    judgement: Judgement
    required: Requirements
    # Every reading of the answers, the scored one first, with its regressions
    held: tuple[Held, ...]
    # Ruling on too many dev errors; None without dev requests
    dev: Ruling | None = None
    look: Ruling | None = None  # why a preview is not evaluated
    use: UseOfTest | None = None
    retained: Mapping[str, float] = field(default_factory=dict[str, float])  # `Retention.metrics`

    @property
    def scored(self) -> Reading:
        """Answers as they were scored."""
        return self.judgement.scored


def decide(  # noqa: PLR0913, PLR0917 - each is independent
    gate: Gate | None,
    judgement: Judgement,
    required: Requirements,
    dev: Ruling | None,
    look: Ruling | None,
    use: UseOfTest | None,
    retained: Mapping[str, float],
) -> GateResult | None:
    """Return a gate's decision with the limits of its metric, or None without a gate."""
    if gate is None:
        return None
    then, margin = required.standing, judgement.scored.hardest.margin
    held = tuple(
        (each, regressions(then, each.hardest.candidate, margin))
        for each in (judgement.scored, *judgement.others)
    )
    result = apply(gate, Evidence(judgement, required, held, dev, look, use, retained))
    caution = judgement.scored.hardest.candidate.task.scoring.primary.caution
    return result.model_copy(update={"reason": f"{result.reason} {caution}".rstrip()})


def apply(gate: Gate, evidence: Evidence) -> GateResult:
    """Return whether the evidence passes the gate, with every check and the deciding reasons."""
    checks = tuple(_checks(gate, evidence))
    codes = {check.exit_code for check in checks}
    code: ExitCode = next(each for each in SEVERITY if each in codes)
    of_code = [check for check in checks if check.exit_code == code]
    deciding = [check.reason for check in of_code if code or check.name == gate.mode]
    more = len(deciding) - MOST_REASONS
    rest = [f"{more} more checks failed for the same reason."] if more > 0 else []
    return GateResult(
        mode=gate.mode,
        passed=code == 0,
        exit_code=code,
        reason=" ".join([*deciding[:MOST_REASONS], *rest]),
        checks=checks,
        regressions=tuple(evidence.held[0][1]),
    )


def _checks(gate: Gate, evidence: Evidence) -> Iterator[GateCheck]:
    errors = _errors(evidence.scored)
    yield _check("errors", errors)
    if evidence.dev is not None:
        yield _check("dev errors", evidence.dev)
    if evidence.use is not None:
        yield _check("uses of the test", Ruling(0, str(evidence.use)))
    answered = errors.exit_code == 0
    candidate = evidence.scored.hardest.candidate
    repeats = zip(candidate.task.cases, candidate.repeats, strict=True)
    answers = {case.case_id: each for case, each in repeats}
    required = {case: each for case, each in answers.items() if case in evidence.required.cases}
    metric = candidate.task.scoring.primary.name
    for case in sorted(required):
        ruling = _required(gate, case, required[case], metric)
        yield _check(f"required {case}", ruling, judged=answered)
    if gate.min_case_pass_rate is not None:
        floor, below = _floor(gate, gate.min_case_pass_rate, answers, metric)
        check = _check("min_case_pass_rate", floor, judged=answered)
        yield check.model_copy(update={"cases": below if answered else ()})
    cases = evidence.look or _enough(gate, *evidence.held[0])
    yield _check("all cases" if evidence.look else "min_cases", cases, judged=answered)
    enough = answered and cases.exit_code == 0
    yield _check(gate.mode, _mode(gate, evidence), judged=enough)
    for constraint in gate.constraints:
        rule = partial(_constraint, constraint, evidence.retained)
        ruling = _in_every_reading(rule, evidence)
        about = f" on {constraint.test}" if constraint.test else ""
        yield _check(f"{constraint.metric} {_line(constraint)}{about}", ruling, judged=enough)


def _check(name: str, ruling: Ruling, *, judged: bool = True) -> GateCheck:
    if not judged:
        return GateCheck(name=name, exit_code=None, reason="Not checked: too little is known.")
    return GateCheck(name=name, exit_code=ruling.exit_code, reason=ruling.reason)


def _errors(scored: Reading) -> Ruling:
    what = f"{scored.errors} of {scored.paired.n} cases ended in an error"
    if scored.errors > MOST_ERRORS * scored.paired.n:
        return Ruling(
            4,
            f"{what}, more than {100 * MOST_ERRORS:.0f} %. Run compare again; it requests only "
            "those.",
        )
    return Ruling(0, f"{what}.")


def _required(gate: Gate, case: str, answers: Sequence[Answer], metric: str) -> Ruling:
    """Rule by the majority of the repeats, so that one slip does not stop a release."""
    repeats, (right, most) = len(answers), _right(gate, answers, metric)
    often = f" ({right} of {repeats} times)" if repeats > 1 else ""
    if 2 * right > repeats:
        return Ruling(0, f"The required case {case} is right{often}.")
    if 2 * most <= repeats:
        return Ruling(1, f"The required case {case} is not right{often}.")
    if any(answer.open for answer in answers):
        what = f"The answer to the required case {case} was cut off."
        return Ruling(3, f"{what} Raise evaluate.max_tokens.")
    return Ruling(4, f"The required case {case} has no answer. Run compare again.")


def _right(gate: Gate, answers: Sequence[Answer], metric: str) -> tuple[int, int]:
    """Return how many repeats are right, and how many would be if the unknown ones were."""
    known = [a.scores[metric] for a in answers if a.known and math.isfinite(a.scores[metric])]
    right = sum(score >= gate.required_score for score in known)
    return right, right + len(answers) - len(known)


def _floor(
    gate: Gate, floor: float, answers: Mapping[str, Sequence[Answer]], metric: str
) -> tuple[Ruling, tuple[str, ...]]:
    """Rule on the share of right repeats in every case, with the cases that decide it."""
    right = {case: (*_right(gate, each, metric), len(each)) for case, each in answers.items()}
    if below := [case for case, (_, most, n) in right.items() if most / n < floor]:
        shown = [f"{case} ({right[case][0]} of {right[case][2]})" for case in below[:MOST_CASES]]
        more = f" and {len(below) - MOST_CASES:,} more" if len(below) > MOST_CASES else ""
        what = "1 case is" if len(below) == 1 else f"{len(below):,} cases are"
        reason = f"{what} right less often than {floor:g}: {', '.join(shown)}{more}."
        return Ruling(1, reason), tuple(below)
    if unknown := [case for case, (least, _, n) in right.items() if least / n < floor]:
        if any(answer.open for answer in answers[unknown[0]]):
            reason = f"An answer to the case {unknown[0]} was cut off. Raise evaluate.max_tokens."
            return Ruling(3, reason), tuple(unknown)
        reason = f"An answer to the case {unknown[0]} is missing. Run compare again."
        return Ruling(4, reason), tuple(unknown)
    return Ruling(0, f"Every case is right at least as often as {floor:g}."), ()


def _enough(gate: Gate, scored: Reading, then: Sequence[Regression]) -> Ruling:
    n = then[0].n - len(then[0].removed) if then else scored.paired.n
    if n < gate.min_cases:
        return Ruling(3, f"The gate requires at least {gate.min_cases} cases; there are {n}.")
    return Ruling(0, f"There are {n} cases.")


def _mode(gate: Gate, evidence: Evidence) -> Ruling:
    nothing = _uninformative(evidence)
    if nothing == NOTHING_RIGHT:
        return Ruling(3, nothing)
    ruling = _in_every_reading(partial(_rule, gate, evidence), evidence)
    says_nothing = gate.mode == "no-regress" and not evidence.required.accepting and nothing
    return Ruling(3, says_nothing) if ruling.exit_code == 0 and says_nothing else ruling


def _uninformative(evidence: Evidence) -> str | None:
    scored, then = evidence.scored, evidence.required.standing
    if then is None:
        return scored.uninformative
    candidate, before = scored.hardest.candidate, [*then.scores().values()]
    scores = fmean(before), candidate.sums[then.metric].statistic()
    highs = own_score(before).high, candidate.own_interval.high
    return uninformative(scores, highs, scored.hardest.margin)


def _in_every_reading(rule: Rule, evidence: Evidence) -> Ruling:
    ruling = rule(*evidence.held[0])
    if ruling.exit_code in (3, 4):
        return ruling
    if all(rule(*other).exit_code == ruling.exit_code for other in evidence.held[1:]):
        return ruling
    return undecided(evidence.scored.errors, evidence.scored.cut)


def _rule(gate: Gate, evidence: Evidence, reading: Reading, then: Sequence[Regression]) -> Ruling:
    ends = reading.best.interval.ends
    own = reading.hardest.candidate_ends
    if not all(map(math.isfinite, (*ends, *own, *(end for each in then for end in each.interval)))):
        return Ruling(4, "The deciding metric has no value.")
    margin = reading.hardest.margin
    match gate.mode:
        case "improve":  # by the judgement, which all readings support
            return evidence.judgement.doubt or _improve(evidence.judgement.verdict, ends, margin)
        case "no-regress":
            return _no_regress(ends, margin, then, accepting=evidence.required.accepting)
        case "absolute":
            return _absolute(gate.threshold or 0.0, *own)


def _improve(verdict: Verdict, ends: tuple[float, float], margin: float) -> Ruling:
    small = f", by less than {_points(margin)}" if ends[1] < margin else ""
    rulings: dict[Verdict, Ruling] = {
        Verdict.BETTER: Ruling(0, f"The candidate is better than every baseline{small}."),
        Verdict.WORSE: Ruling(1, "The candidate is worse than the best baseline."),
        Verdict.EQUIVALENT: Ruling(1, f"Any difference is smaller than {_points(margin)}."),
        Verdict.NON_INFERIOR: Ruling(
            3,
            f"The candidate is not worse by more than {_points(margin)}, but these cases do not "
            "show that it is better than every baseline.",
        ),
        Verdict.INCONCLUSIVE: Ruling(
            3, "These cases do not show whether it is better than every baseline."
        ),
    }
    return rulings[verdict]


def _no_regress(
    ends: tuple[float, float], margin: float, then: Sequence[Regression], *, accepting: bool
) -> Ruling:
    if accepting:
        return Ruling(0, "The candidate's scores become the baseline.")
    rulings = [_not_worse(each.interval, f" than {each.when}", margin) for each in then]
    rulings = rulings or [_not_worse(ends, "", margin)]
    return next(each for code in SEVERITY for each in rulings if each.exit_code == code)


def _not_worse(interval: tuple[float, float], than: str, margin: float) -> Ruling:
    low, high = interval
    if low > -margin:
        return Ruling(0, f"The candidate is not worse{than} by more than {_points(margin)}.")
    if high < 0:
        return Ruling(1, f"The candidate is worse{than}, perhaps by {_points(-low)}.")
    return Ruling(
        3, f"These cases cannot rule out that it is worse{than} by more than {_points(margin)}."
    )


def _absolute(threshold: float, low: float, high: float) -> Ruling:
    own = f"The candidate's score is between {low:.3f} and {high:.3f}"
    if low >= threshold:
        return Ruling(0, f"{own}, at or above {threshold:g}.")
    if high < threshold:
        return Ruling(1, f"{own}, below {threshold:g}.")
    return Ruling(3, f"{own}: these cases do not show whether it reaches {threshold:g}.")


def _constraint(
    constraint: Constraint,
    retained: Mapping[str, float],
    reading: Reading,
    _: Sequence[Regression],
) -> Ruling:
    candidate, about = reading.hardest.candidate, ""
    total = {**retained, **candidate.totals}.get(constraint.metric)
    if constraint.test is not None:
        about = f" on {constraint.test}"
        total = _on_test(candidate, constraint.metric, constraint.test)
    if not is_known(total):
        return Ruling(4, f"The candidate's {constraint.metric}{about} has no value.")
    what = f"The candidate's {constraint.metric}{about} is {total:.4g}"
    at_least = -math.inf if constraint.at_least is None else constraint.at_least
    at_most = math.inf if constraint.at_most is None else constraint.at_most
    if at_least <= total <= at_most:
        return Ruling(0, f"{what}.")
    return Ruling(1, f"{what}; the gate requires {_line(constraint)}.")


def _on_test(candidate: Graded, metric: str, test: str) -> float | None:
    """Return the mean value of a scorer or measure on a named test set; None if nothing has it."""
    pairs = zip(candidate.task.cases, candidate.answers, strict=True)
    answers = [answer for case, answer in pairs if source_of(case) == test]
    found = [{**answer.measures, **answer.scores}.get(metric) for answer in answers]
    values = [value for value in found if value is not None]
    return fmean(values) if values else None


def _line(constraint: Constraint) -> str:
    if constraint.at_least is not None:
        return f"at least {constraint.at_least:g}"
    return f"at most {constraint.at_most:g}"


def is_known(score: float | None) -> TypeGuard[float]:
    """Return whether there is a finite score: not None, NaN or infinite."""
    return score is not None and math.isfinite(score)


def _points(share: float) -> str:
    return f"{100 * share:.3g} points"
