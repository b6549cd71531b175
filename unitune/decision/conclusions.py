"""What the rules say, in words: an answer with its reasons, what would change it, what to do next.

Figures in sentences are percentages and points with one decimal; intervals stand in brackets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from unitune.decision.evidence import (
    Conclusion,
    Evidence,
    Measurement,
    NextStep,
    Rows,
    Score,
    TuningOption,
)
from unitune.decision.net_worth import net_worth, totals
from unitune.evaluate.learning_curve_document import FARTHEST, LearningCurve
from unitune.evaluate.statistics.sample_size import cases_needed

COLLECTED_ROWS: dict[Rows, str] = {
    "training": "training rows",
    "validation": "validation rows",
    "test": "test cases",
}
_WHERE: dict[Rows, str] = {
    "training": "Rows with answers, under data.train; unitune distill can have a better model "
    "write some.",
    "validation": "Rows apart from train and test, or data.validation: 0.2 of train.",
    "test": "Rows of real use, apart from train, under data.test.",
}
_MEASUREMENTS: dict[Measurement, str] = {
    "prompts": "each prompt answers the validation rows",
    "training": "one training, whose model answers the validation rows",
    "curve": "trainings on parts of the rows, whose models answer the validation rows",
}


def fix_first(evidence: Evidence) -> Conclusion:
    """Job or rows have errors."""
    return Conclusion(
        answer="cannot tell",
        headline="Fix the errors of job and rows first",
        reasons=evidence.errors,
        next=NextStep(command=_command(evidence, "check"), why="It names each with what to do."),
    )


def look_elsewhere(evidence: Evidence) -> Conclusion:
    """No option is left."""
    others = evidence.elsewhere
    step = NextStep(why="No backend that is installed takes the job; another base may be taken.")
    if others:
        command = _command(evidence, f"decide --backend {others[0]}")
        step = NextStep(command=command, why=f"The job can be tuned at {', '.join(others)}.")
    return Conclusion(
        answer="cannot tell",
        headline="Cannot tell: every backend that was considered is ruled out",
        reasons=tuple(exclusions(evidence)),
        changes=("A backend that takes the job, and whose base lives as long as it is needed.",),
        next=step,
    )


def check_labels(evidence: Evidence) -> Conclusion:
    """Too many labels look wrong for the goal."""
    share, ceiling = percent(evidence.wrong_labels), percent(1 - evidence.wrong_labels)
    why = (
        f"Training rows with like words contradict about {share} of the labels. If validation rows "
        f"are labelled alike, no model can be shown to score above {ceiling}; the goal is "
        f"{percent(evidence.goal or 0)}."
    )
    return Conclusion(
        answer="cannot tell",
        headline=f"Check the labels first: about {share} of them look wrong",
        reasons=(why, *evidence.warnings),
        changes=(f"Corrected labels, or a goal of {ceiling} at most.",),
        next=NextStep(
            command=_command(evidence, "check"), why="It lists the doubtful labels, worst first."
        ),
    )


def measure(
    what: Measurement, evidence: Evidence, option: TuningOption, question: str
) -> Conclusion:
    """A figure is missing that a decision measures by itself."""
    return Conclusion(
        answer="cannot tell",
        headline="Cannot tell yet",
        reasons=(question,),
        next=NextStep(
            command=_command(evidence, " ".join(["decide", *_given(evidence)])),
            why=f"It measures that: {_MEASUREMENTS[what]}.",
            measures=what,
            backend=option.backend,
        ),
    )


def keep_prompting(
    evidence: Evidence, reasons: Sequence[str], change: str, verdict: str = "{} is good enough"
) -> Conclusion:
    """The best prompt is good enough, or tuning no better."""
    return Conclusion(
        answer="prompt",
        headline=f"Prompt: {verdict.format(evidence.best_prompt.name)}",
        reasons=(*reasons, *exclusions(evidence), *evidence.warnings),
        changes=(change,),
        next=NextStep(
            why="Use that prompt. To gate it: role: candidate at its contender, and none tuned."
        ),
    )


def not_worth_it(evidence: Evidence, option: TuningOption, why: str) -> Conclusion:
    """Tuning costs more than its right answers are worth."""
    return keep_prompting(
        evidence,
        [why, *_costs(evidence, option)],
        "More requests, or a higher evaluate.economics.value_per_correct_usd.",
        "tuning costs more than it gains beyond {}",
    )


def name_the_worth(evidence: Evidence, option: TuningOption, usd: float) -> Conclusion:
    """Tuning gains, at a high price for each right answer."""
    return Conclusion(
        answer="cannot tell",
        headline=f"Cannot tell: one more right answer costs about ${usd:,.2f}",
        reasons=(
            gain_sentence(evidence, option),
            *_costs(evidence, option),
            *exclusions(evidence),
            *evidence.warnings,
        ),
        changes=(f"Tuning pays if one more right answer is worth more than ${usd:,.2f}.",),
        next=NextStep(
            why="Set evaluate.economics.value_per_correct_usd in the job and usage.requests_month."
        ),
    )


def tune(evidence: Evidence, option: TuningOption) -> Conclusion:
    """The tuned model pays."""
    where = "here" if option.trains_here else f"at {option.backend}"
    own = f"--run {option.runs[0]}"
    spare = points(max(0.0, option.shown_gain.value - evidence.margin))
    changes = [f"A prompt that scores {spare} points more than {evidence.best_prompt.name}."]
    if option.ends:
        changes.append(f"An end before {option.ends}, on which the base is switched off.")
    return Conclusion(
        answer="tune",
        backend=option.backend,
        headline=f"Tune {where}: {option.base_model} on {option.backend}",
        reasons=(
            gain_sentence(evidence, option),
            *_costs(evidence, option),
            *_below_goal(evidence, option),
            *exclusions(evidence),
            *evidence.warnings,
        ),
        changes=tuple(changes),
        next=NextStep(
            command=_command(evidence, f"compare {own}"),
            why="It is trained already; the verdict is that of the test, which is unused so far.",
        ),
    )


def collect(
    evidence: Evidence, kind: Rows, rows: int, why: str, weakest: Sequence[str] = ()
) -> Conclusion:
    """More rows come first."""
    which = COLLECTED_ROWS[kind]
    reasons = [why]
    if weakest:
        reasons.append(f"Of the labels that it gets wrong most first: {', '.join(weakest)}.")
    return Conclusion(
        answer="collect",
        rows=rows,
        kind=kind,
        headline=f"Collect about {_two_digits(rows)} more {which} first",
        reasons=(*reasons, *exclusions(evidence), *evidence.warnings),
        changes=(f"The same command with more {which}.",),
        next=NextStep(why=_WHERE[kind]),
    )


def cannot_tell(evidence: Evidence, option: TuningOption) -> Conclusion:
    """What was measured allows both."""
    shown, margin = option.shown_gain, evidence.margin
    effect = max(margin, abs(shown.value))
    more = cases_needed(min(1.0, shown.mean_square), effect) - evidence.validation_rows
    change = "More training rows of the same kind." if more <= 0 else (
        f"{_two_digits(more)} more validation rows, which find a difference of {points(effect)} "
        "points (80 % power)."
    )  # fmt: skip
    return Conclusion(
        answer="cannot tell",
        headline="Cannot tell: tuning may gain what matters, or nothing",
        reasons=(*gain_and_curve(evidence, option), *exclusions(evidence), *evidence.warnings),
        changes=(change,),
        next=NextStep(
            command=_command(evidence, "check"),
            why="Rows worth a look: better answers in the rows there are cost least.",
        ),
    )


def gain_sentence(evidence: Evidence, option: TuningOption) -> str:
    """Return what a tuned model gains."""
    shown, best = option.shown_gain, evidence.best_prompt
    own = percent(option.tuned.value) if option.tuned else ""
    return (
        f"Tuned on {option.backend}, {option.base_model} scores {own}, "
        f"{points(shown.value, sign=True)} points "
        f"({points(shown.low, sign=True)} to {points(shown.high, sign=True)}) beyond the best "
        f"prompt ({best.name}, {percent(best.value)}); {points(evidence.margin)} matter."
    )


def score_sentence(best: Score) -> str:
    """Return a prompt with its score."""
    return (
        f"The best prompt ({best.name}) scores {percent(best.value)} ({percent(best.low)} to "
        f"{percent(best.high)})"
    )


def curve_sentence(evidence: Evidence, option: TuningOption) -> str:
    """Return what a learning curve says of more rows."""
    curve, wanted = option.curve, evidence.wanted_score
    if curve is None:
        return ""
    if curve.doubts:
        return f"What more rows would bring cannot be told: {' '.join(curve.doubts)}"
    farthest = curve.predictions[-1]
    figure = farthest.score
    predicted = (
        f"By the learning curve {farthest.rows:,} rows would score {percent(figure.value or 0)} "
        f"({percent(figure.low or 0)} to {percent(figure.high or 0)})"
    )
    rows = curve.goal and curve.goal.rows
    if not rows or rows.value is None:
        return f"{predicted}; for {percent(wanted)} it knows no number of rows."
    high = f"{rows.high:,.0f}" if rows.high else f"more than {FARTHEST * curve.rows:,}"
    return (
        f"{predicted}, and {percent(wanted)} takes {_two_digits(rows.value)} rows "
        f"({rows.low or 0:,.0f} to {high} in four curves of five)."
    )


def gain_and_curve(evidence: Evidence, option: TuningOption) -> tuple[str, str]:
    """Return what a tuned model gains, and what more rows would bring."""
    return gain_sentence(evidence, option), curve_sentence(evidence, option)


def is_out_of_reach(option: TuningOption, evidence: Evidence) -> bool:
    """Whether the curve is seen to stay below the wanted score, as far as four times the rows."""
    curve, tuned = option.curve, option.tuned
    if curve is None or tuned is None:
        return False
    if curve.predictions:
        high = curve.predictions[-1].score.high or 1.0
    else:  # each doubling gains no more than the last one did
        high = tuned.value + 2 * max(0.0, curve.last_gain.high or 0.0)
    return high < evidence.wanted_score


def more_rows(curve: LearningCurve | None) -> int | None:
    """Return how many more rows the wanted score takes; None: the curve does not say."""
    rows = curve and curve.goal and curve.goal.rows
    if not curve or not rows or rows.value is None:
        return None
    return max(1, math.ceil(rows.value) - curve.rows)


def _costs(evidence: Evidence, option: TuningOption) -> Iterator[str]:
    if (cost := option.cost) is None:
        return
    prompted, tuned = totals(cost)
    assumed = "" if evidence.volume_given else ", an assumption: set usage.requests_month"
    volume = f"{cost.requests_month:,} requests a month, {cost.horizon.months:.3g} months{assumed}"
    if prompted and tuned:
        yield (
            f"Its total cost of ownership is ${tuned.expected:,.2f}, that of prompting the same "
            f"base ${prompted.expected:,.2f} ({volume})."
        )
        net, gain = net_worth(option, evidence), option.gain
        if net and gain:
            left, low, high = map(net.of_gain, (gain.value, gain.low, gain.high))
            yield (
                f"At ${evidence.value_per_correct_usd} for one more right answer, what it gains is "
                f"worth ${left:,.2f} (${low:,.2f} to ${high:,.2f}) after that extra cost."
            )
    else:
        yield "Its total cost is not known: a price is missing (unitune cost says which)."


def _below_goal(evidence: Evidence, option: TuningOption) -> Iterator[str]:
    if evidence.goal is not None and option.tuned and option.tuned.value < evidence.goal:
        yield f"The goal of {percent(evidence.goal)} is not reached."
        yield curve_sentence(evidence, option)


def exclusions(evidence: Evidence) -> Iterator[str]:
    """Yield why options were left out."""
    for option in evidence.options:
        for refusal in option.refusals:
            yield f"Not at {option.backend}: {refusal}"
        if not option.refusals and not evidence.lives(option):
            yield (
                f"Not at {option.backend}: {option.base_model}, and what is tuned from it, is "
                f"switched off on {option.ends}, in {option.months_left:.1f} months; it is "
                f"needed for {evidence.needed_months}."
            )


def _given(evidence: Evidence) -> Iterator[str]:
    """Yield the options that the same decision takes again."""
    if len(evidence.options) > 1:
        yield from (f"--backend {option.backend}" for option in evidence.options)
    if evidence.goal is not None:
        yield f"--goal {evidence.goal:g}"


def _command(evidence: Evidence, command: str) -> str:
    name, _, options = command.partition(" ")
    return " ".join(filter(None, ("unitune", name, evidence.file, options)))


def percent(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:.1f} %"


def points(share: float, *, sign: bool = False) -> str:
    """Return a difference in points."""
    return f"{100 * share:+.1f}" if sign else f"{100 * share:.1f}"


def _two_digits(number: float) -> str:
    """Return a number with two digits, more of which would say nothing."""
    return f"{float(f'{number:.2g}'):,.0f}"
