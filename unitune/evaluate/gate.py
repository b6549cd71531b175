"""The rule that passes or fails CI: a pure function from evidence to exit code.

    check                                     passed (0)   failed (1)         else
    errors: share of cases in error           <= 2 %                          4
    dev errors, of each prompt that competes  <= 2 %                          4
    required CASE, each                       right        wrong              4, not answered
    min_cases                                 reached                         3
    all cases, of a first look (`--limit`)                                    3
    improve                                   better       worse, equivalent  3
    no-regress                                lo > -m      hi < 0             3
    absolute                                  lo >= line   hi < line          3
    constraints: METRIC at least or at most   holds        does not           4, no value

lo and hi are the ends of the interval of candidate minus the best baseline, m the margin; under
absolute, those of the candidate's own score. Too many errors leave all that follows unjudged, too
few cases all but required ones. Whatever has no value (None, NaN) is never a pass.

A case that ended in an error favours no side, nor does a case whose answer was cut off at
`max_tokens`, unless the scorer that decides finds it wrong whatever would have followed
(`unitune.evaluate.readings`). Of the modes and `constraints` therefore:

    errors, read as right and as wrong, do not give the same result                     4
    cut answers, read as right and as wrong, do not give the same result                3
    neither side got anything right                                                     3
    no-regress passes, but both scores are below the margin: nothing could have failed  3

A required case whose answer was cut off gives 3, too. The exit code is the first of 4, 1, 3 that
any check has, else 0: a vendor's failure is never taken for evidence, and evidence outweighs doubt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean
from typing import TypeGuard

from unitune.evaluate.baseline import Requirements, Standing, regress
from unitune.evaluate.grading import MOST_ERRORS, Graded
from unitune.evaluate.readings import (
    NOTHING_RIGHT,
    Cut,
    ExitCode,
    Judgement,
    Reading,
    Ruling,
    undecided,
    uninformative,
)
from unitune.evaluate.results import GateCheck, GateResult, Regression, VerdictName
from unitune.evaluate.statistics.paired import LEVEL, own_score
from unitune.evaluate.use_of_test import UseOfTest
from unitune.job.job import Constraint, Gate

MOST_REASONS = 3
"""Reasons that a result spells out; its checks have them all."""
SEVERITY: tuple[ExitCode, ...] = (4, 1, 3, 0)
"""Exit codes, the deciding code first."""


@dataclass(frozen=True, slots=True)
class RequiredCase:
    """The candidate's scores of a required case, one a repeat; None where not known."""

    case: str
    scores: tuple[float | None, ...]
    cut: bool = False
    """Whether an answer to it was cut off before it was right or wrong."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a gate reads; intervals and margin are proportions."""

    verdict: VerdictName
    interval: tuple[float, float]
    """Of candidate minus the best baseline."""
    margin: float
    own_interval: tuple[float, float]
    """Of the candidate's own score."""
    n: int
    errors: int
    """Cases in which candidate or baseline gave no answer; of several baselines that with most."""
    dev: Ruling | None = None
    """Whether too many answers on dev are errors; None without dev requests."""
    totals: Mapping[str, float | None] = field(default_factory=dict[str, float | None])
    """The candidate's total by every scorer and measure; None where it has no value."""
    required: tuple[RequiredCase, ...] = ()
    regression: Regression | None = None
    anchor: Regression | None = None
    """The candidate against the scores that were accepted first, where others were since."""
    accepting: bool = False
    """Whether the candidate's scores become the baseline, and are held against nothing."""
    cut: tuple[Cut, ...] = ()
    """Answers that were cut off: of the candidate, then of each baseline."""
    uninformative: str | None = None
    doubt: Ruling | None = None
    """Why the verdict is inconclusive where its interval would allow another."""
    look: Ruling | None = None
    """Why nothing is judged, where only some of the cases were looked at."""
    use: UseOfTest | None = None
    """How often the test was used, which the verdict and the interval allow for."""
    readings: tuple[Evidence, ...] = ()
    """The same evidence, errors and cut answers read otherwise."""


def _evidence(reading: Reading, required: Requirements) -> Evidence:
    candidate, margin, then = reading.hardest.candidate, reading.hardest.margin, required.standing
    regression = anchor = None
    if then is not None:
        ids, labels = [case.case_id for case in candidate.task.cases], candidate.task.clusters
        clusters = dict(zip(ids, labels, strict=True)) if labels else None
        answers = dict(zip(ids, candidate.answers, strict=True))
        regression = regress(then, answers, clusters, margin, LEVEL)
        anchor = then.anchor and regress(then.anchor, answers, clusters, margin, LEVEL)
    return Evidence(
        verdict=reading.best.verdict.value,
        interval=reading.best.interval.ends,
        margin=margin,
        own_interval=candidate.own_interval.ends,
        n=reading.paired.n,
        errors=reading.errors,
        totals=candidate.totals,
        regression=regression,
        anchor=anchor,
        accepting=required.accepting,
        cut=reading.cut,
    )


def _uninformative(scored: Reading, then: Standing | None) -> str | None:
    """Say why the candidate's scores, and those that they are held against, tell nothing."""
    if then is None:
        return scored.uninformative
    candidate, before = scored.hardest.candidate, [*then.scores.values(), *then.removed.values()]
    scores = fmean(before), candidate.sums[then.metric].statistic()
    highs = own_score(before).high, candidate.own_interval.high
    return uninformative(scores, highs, scored.hardest.margin)


def _required_cases(candidate: Graded, required: Collection[str]) -> Iterator[RequiredCase]:
    """Yield the candidate's scores of each required case, in the order of their ids."""
    task, primary = candidate.task, candidate.task.scoring.primary.name
    ids = [case.case_id for case in task.cases]
    repeats = dict(zip(ids, candidate.repeats, strict=True))
    for name in sorted(required):
        scores = (each.scores[primary] if each.known else None for each in repeats[name])
        yield RequiredCase(name, tuple(scores), cut=any(each.open for each in repeats[name]))


def decide(  # noqa: PLR0913, PLR0917 - each is independent
    gate: Gate | None,
    judgement: Judgement,
    required: Requirements,
    dev: Ruling | None,
    look: Ruling | None,
    use: UseOfTest | None,
) -> GateResult | None:
    """Return a gate's decision, with what its metric cannot show; None without a gate."""
    if gate is None:
        return None
    scored = judgement.scored
    evidence = replace(
        _evidence(scored, required),
        verdict=judgement.verdict.value,
        doubt=judgement.doubt,
        dev=dev,
        look=look,
        use=use,
        required=tuple(_required_cases(scored.hardest.candidate, required.cases)),
        uninformative=_uninformative(scored, required.standing),
        readings=tuple(_evidence(other, required) for other in judgement.others),
    )
    result = apply(gate, evidence)
    caution = scored.hardest.candidate.task.scoring.primary.caution
    return result.model_copy(update={"reason": f"{result.reason} {caution}".rstrip()})


def apply(gate: Gate, evidence: Evidence) -> GateResult:
    """Return whether the evidence passes the gate, with every check and the reasons that decide."""
    checks = tuple(_checks(gate, evidence))
    codes = {check.exit_code for check in checks}
    code: ExitCode = next(each for each in SEVERITY if each in codes)
    of_code = [check for check in checks if check.exit_code == code]
    deciding = [check.reason for check in of_code if code or check.name == gate.mode]
    more = len(deciding) - MOST_REASONS
    rest = [f"{more} more checks say the like."] if more > 0 else []
    return GateResult(
        mode=gate.mode,
        passed=code == 0,
        exit_code=code,
        reason=" ".join([*deciding[:MOST_REASONS], *rest]),
        checks=checks,
        regression=evidence.regression,
        anchor=evidence.anchor,
    )


def _checks(gate: Gate, evidence: Evidence) -> Iterator[GateCheck]:
    """Yield every check, in the order of the table; unjudged where an earlier check forbids it."""
    errors = _errors(evidence)
    yield _check("errors", errors)
    if evidence.dev is not None:
        yield _check("dev errors", evidence.dev)
    if evidence.use is not None:
        yield _check("uses of the test", Ruling(0, str(evidence.use)))
    answered = errors.exit_code == 0
    for required in evidence.required:
        yield _check(f"required {required.case}", _required(gate, required), judged=answered)
    cases = evidence.look or _enough(gate, evidence)
    yield _check("all cases" if evidence.look else "min_cases", cases, judged=answered)
    enough = answered and cases.exit_code == 0
    yield _check(gate.mode, _mode(gate, evidence), judged=enough)
    for constraint in gate.constraints:
        ruling = _in_every_reading(partial(_constraint, constraint), evidence)
        yield _check(f"{constraint.metric} {_line(constraint)}", ruling, judged=enough)


def _check(name: str, ruling: Ruling, *, judged: bool = True) -> GateCheck:
    if not judged:
        return GateCheck(name=name, exit_code=None, reason="Not judged: too little is known.")
    return GateCheck(name=name, exit_code=ruling.exit_code, reason=ruling.reason)


def _errors(evidence: Evidence) -> Ruling:
    what = f"{evidence.errors} of {evidence.n} cases ended in an error"
    if evidence.errors > MOST_ERRORS * evidence.n:
        return Ruling(
            4,
            f"{what}, more than {100 * MOST_ERRORS:.0f} %. Run compare again: it requests only "
            "those.",
        )
    return Ruling(0, f"{what}.")


def _required(gate: Gate, required: RequiredCase) -> Ruling:
    """Go by the majority of the repeats, so that one slip does not stop a release."""
    repeats = len(required.scores)
    right = sum(is_known(score) and score >= gate.required_score for score in required.scores)
    unknown = sum(not is_known(score) for score in required.scores)
    often = f" ({right} of {repeats} times)" if repeats > 1 else ""
    if 2 * right > repeats:
        return Ruling(0, f"The required case {required.case} is right{often}.")
    if 2 * (right + unknown) <= repeats:
        return Ruling(1, f"The required case {required.case} is not right{often}.")
    if required.cut:
        what = f"The answer to the required case {required.case} was cut off."
        return Ruling(3, f"{what} Raise evaluate.max_tokens.")
    return Ruling(4, f"The required case {required.case} has no answer. Run compare again.")


def _enough(gate: Gate, evidence: Evidence) -> Ruling:
    then = evidence.regression
    n = then.n - len(then.removed) if then else evidence.n
    if n < gate.min_cases:
        return Ruling(3, f"There are {n} cases, and the gate asks for at least {gate.min_cases}.")
    return Ruling(0, f"There are {n} cases.")


def _mode(gate: Gate, evidence: Evidence) -> Ruling:
    """Rule by the mode, as far as every reading of the evidence supports it."""
    if evidence.uninformative == NOTHING_RIGHT:
        return Ruling(3, NOTHING_RIGHT)
    if gate.mode == "improve":
        return evidence.doubt or _rule(gate, evidence)
    ruling = _in_every_reading(partial(_rule, gate), evidence)
    says_nothing = gate.mode == "no-regress" and not evidence.accepting and evidence.uninformative
    return Ruling(3, says_nothing) if ruling.exit_code == 0 and says_nothing else ruling


def _in_every_reading(rule: Callable[[Evidence], Ruling], evidence: Evidence) -> Ruling:
    """Return a rule's ruling, where it is the same in every reading or claims nothing."""
    ruling = rule(evidence)
    if ruling.exit_code in (3, 4):
        return ruling
    if all(rule(other).exit_code == ruling.exit_code for other in evidence.readings):
        return ruling
    return undecided(evidence.errors, evidence.cut)


def _rule(gate: Gate, evidence: Evidence) -> Ruling:
    then = evidence.regression
    ends = (*evidence.interval, *evidence.own_interval, *(then.interval if then else ()))
    if not all(map(math.isfinite, ends)):
        return Ruling(4, "The metric that decides has no value.")
    match gate.mode:
        case "improve":
            return _improve(evidence)
        case "no-regress":
            return _no_regress(evidence)
        case "absolute":
            return _absolute(gate.threshold or 0.0, evidence)


def _improve(evidence: Evidence) -> Ruling:
    margin = _points(evidence.margin)
    small = f", by less than {margin}" if evidence.interval[1] < evidence.margin else ""
    rulings: dict[VerdictName, Ruling] = {
        "better": Ruling(0, f"The candidate is better than every baseline{small}."),
        "worse": Ruling(1, "The candidate is worse than the best baseline."),
        "equivalent": Ruling(1, f"There is no difference larger than {margin}."),
        "non-inferior": Ruling(
            3,
            f"The candidate is not worse by more than {margin}, "
            "but these cases do not show that it is better than every baseline.",
        ),
        "inconclusive": Ruling(
            3, "These cases do not show whether it is better than every baseline."
        ),
    }
    return rulings[evidence.verdict]


def _no_regress(evidence: Evidence) -> Ruling:
    if evidence.accepting:
        return Ruling(0, "The candidate's scores are the baseline from now on.")
    then, first = evidence.regression, evidence.anchor
    if then is None:
        return _not_worse(evidence.interval, "", evidence)
    rulings = [_not_worse(then.interval, f" than in {then.file}", evidence)]
    if first is not None:
        than = f" than when {first.file} was first accepted"
        rulings.append(_not_worse(first.interval, than, evidence))
    return next(each for code in SEVERITY for each in rulings if each.exit_code == code)


def _not_worse(interval: tuple[float, float], than: str, evidence: Evidence) -> Ruling:
    margin, (low, high) = _points(evidence.margin), interval
    if low > -evidence.margin:
        return Ruling(0, f"The candidate is not worse{than} by more than {margin}.")
    if high < 0:
        return Ruling(1, f"The candidate is worse{than}, perhaps by {_points(-low)}.")
    return Ruling(3, f"These cases do not exclude that it is worse{than} by more than {margin}.")


def _absolute(threshold: float, evidence: Evidence) -> Ruling:
    low, high = evidence.own_interval
    own = f"The candidate's score lies between {low:.3f} and {high:.3f}"
    if low >= threshold:
        return Ruling(0, f"{own}, at or above {threshold:g}.")
    if high < threshold:
        return Ruling(1, f"{own}, below {threshold:g}.")
    return Ruling(3, f"{own}: these cases do not show whether it reaches {threshold:g}.")


def _constraint(constraint: Constraint, evidence: Evidence) -> Ruling:
    total = evidence.totals.get(constraint.metric)
    if not is_known(total):
        return Ruling(4, f"The candidate's {constraint.metric} has no value.")
    what = f"The candidate's {constraint.metric} is {total:.4g}"
    at_least = -math.inf if constraint.at_least is None else constraint.at_least
    at_most = math.inf if constraint.at_most is None else constraint.at_most
    if at_least <= total <= at_most:
        return Ruling(0, f"{what}.")
    return Ruling(1, f"{what}; the gate asks for {_line(constraint)}.")


def _line(constraint: Constraint) -> str:
    if constraint.at_least is not None:
        return f"at least {constraint.at_least:g}"
    return f"at most {constraint.at_most:g}"


def is_known(score: float | None) -> TypeGuard[float]:
    """Return whether there is a score at all: not None, not NaN, not infinite."""
    return score is not None and math.isfinite(score)


def _points(share: float) -> str:
    return f"{100 * share:.3g} points"
