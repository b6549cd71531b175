"""Build the conclusions that several rules share. Intervals are in brackets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unitune.curve.documents import FARTHEST
from unitune.decision.evidence import (
    Conclusion,
    Evidence,
    Measurement,
    NextStep,
    Rows,
    TuningOption,
)
from unitune.evaluate.statistics.sample_size import cases_needed, smallest_detectable
from unitune.render.typography import percent, two_digits

ROWS: dict[Rows, tuple[str, str]] = {
    "training": (
        "training rows",
        "Add rows with answers to data.train, or get them from a better model (`data distill`).",
    ),
    "validation": (
        "validation rows",
        "Set data.validation to rows that are not in train or test, or to a share such as 0.2.",
    ),
    "test": ("test cases", "Add rows of real use that are not in train to data.test."),
}
MEASUREMENTS: dict[Measurement, str] = {
    "prompts": "an answer of each prompt to every validation row",
    "training": "one training, and its answers to the validation rows",
    "curve": "trainings on parts of the rows, and their answers to the validation rows",
}


def measure(
    what: Measurement, evidence: Evidence, option: TuningOption, question: str
) -> Conclusion:
    """Conclude that `decide` must make a measurement first."""
    several = [f"--backend {each.backend}" for each in evidence.options]
    goal = [] if evidence.goal is None else [f"--goal {evidence.goal:g}"]
    options = [*several, *goal] if len(several) > 1 else goal
    return Conclusion(
        answer="cannot tell",
        headline="Cannot tell yet",
        reasons=(question,),
        next=NextStep(
            command=command(evidence, "decide", *options),
            why=f"It takes {MEASUREMENTS[what]}.",
            measures=what,
            backend=option.backend,
        ),
    )


def collect(kind: Rows, rows: int, why: str, weakest: Sequence[str] = ()) -> Conclusion:
    """Conclude that more rows are needed, above all of the labels that the model gets wrong."""
    which, where = ROWS[kind]
    labels = [f"Start with the labels that the model gets wrong most often: {', '.join(weakest)}."]
    return Conclusion(
        answer="collect",
        rows=rows,
        kind=kind,
        headline=f"Collect about {two_digits(rows)} more {which} first",
        reasons=(why, *(labels if weakest else ())),
        changes=(f"Run the same command with more {which}.",),
        next=NextStep(why=where),
    )


def collect_validation(
    evidence: Evidence, option: TuningOption, apart: float, why: str
) -> Conclusion:
    """Conclude that detecting such a difference needs more validation rows."""
    gain, apart = option.shown_gain, max(apart, evidence.margin / 2)
    needed = cases_needed(min(1.0, gain.mean_square), apart) - evidence.validation_rows
    return collect("validation", max(1, needed), f"{gained(evidence, option)} {why}")


def keep_prompting(
    evidence: Evidence, reasons: Sequence[str], change: str, verdict: str = "{} is good enough"
) -> Conclusion:
    """Conclude that the best prompt is the better choice."""
    return Conclusion(
        answer="prompt",
        headline=f"Prompt: {verdict.format(evidence.best_prompt.name)}",
        reasons=tuple(reasons),
        changes=(change,),
        next=NextStep(
            why=(
                "Use that prompt. To gate it, set `role: candidate` on its contender and remove "
                "the tuned contender."
            )
        ),
    )


def tune(evidence: Evidence, option: TuningOption) -> Conclusion:
    """Conclude that tuning pays."""
    where = "here" if option.trains_here else f"at {option.backend}"
    spare = points(max(0.0, option.shown_gain.value - evidence.margin))
    changes = [f"A prompt that scores {spare} points more than {evidence.best_prompt.name}."]
    if option.ends:
        changes.append(
            f"An earlier retirement of the base model than {option.ends}, the announced day."
        )
    reasons = [gained(evidence, option), *costs(evidence, option)]
    if evidence.goal is not None and not option.reaches(evidence.goal):
        missed = f"The model does not reach the goal of {percent(evidence.goal)}."
        reasons += [missed, more_rows(evidence, option)]
    return Conclusion(
        answer="tune",
        backend=option.backend,
        headline=f"Tune {where}: {option.base_model} on {option.backend}",
        reasons=tuple(filter(None, reasons)),
        changes=tuple(changes),
        next=NextStep(
            command=command(evidence, "compare", f"--run {option.runs[0]}"),
            why="The model is trained. The test set, which is still unused, gives the verdict.",
        ),
    )


def tune_if_it_shows(evidence: Evidence, option: TuningOption) -> Conclusion:
    """Conclude that tuning pays, or that the test set is too small to show it."""
    gain, cases = option.shown_gain, evidence.test_cases
    visible = smallest_detectable(cases, gain.mean_square, graded=evidence.graded)
    if visible <= gain.value:
        return tune(evidence, option)
    needed = cases_needed(min(1.0, gain.mean_square), gain.value)
    why = (
        f"{gained(evidence, option)} With {cases:,} test cases, a comparison detects differences "
        f"of at least {points(visible)} points (80 % power), so it could not show this gain."
    )
    return collect("test", max(1, needed - cases), why)


def gained(evidence: Evidence, option: TuningOption) -> str:
    """Return a sentence on the tuned model's gain."""
    shown, best = option.shown_gain, evidence.best_prompt
    own = percent(option.tuned.value) if option.tuned else ""
    return (
        f"Tuned on {option.backend}, {option.base_model} scores {own}. That is "
        f"{points(shown.value, sign=True)} points ({points(shown.low, sign=True)} to "
        f"{points(shown.high, sign=True)}) relative to the best prompt ({best.name}, "
        f"{percent(best.value)}); {points(evidence.margin)} matter."
    )


def more_rows(evidence: Evidence, option: TuningOption) -> str:
    """Return a sentence on the learning curve's prediction for more rows."""
    curve, wanted = option.curve, evidence.wanted_score
    if curve is None:
        return ""
    if curve.doubts:
        return f"The effect of more rows is unknown: {' '.join(curve.doubts)}"
    farthest = curve.predictions[-1]
    figure = farthest.score
    predicted = (
        f"By the learning curve, {farthest.rows:,} rows would score {percent(figure.value or 0)} "
        f"({percent(figure.low or 0)} to {percent(figure.high or 0)})"
    )
    rows = curve.goal and curve.goal.rows
    if not rows or rows.value is None:
        return f"{predicted}; it predicts no number of rows for {percent(wanted)}."
    high = f"{rows.high:,.0f}" if rows.high else f"more than {FARTHEST * curve.rows:,}"
    return (
        f"{predicted}, and {percent(wanted)} takes {two_digits(rows.value)} rows "
        f"({rows.low or 0:,.0f} to {high} in four curves of five)."
    )


def costs(evidence: Evidence, option: TuningOption) -> Iterator[str]:
    """Yield the total costs of tuning and prompting, and the value of the gain."""
    if (cost := option.cost) is None:
        return
    prompted, tuned = option.totals
    if not prompted or not tuned:
        yield "Its total cost is unknown because a price is missing (see unitune cost)."
        return
    assumed = "" if evidence.volume_given else ", an assumption: set usage.requests_month"
    yield (
        f"Its total cost of ownership is ${tuned.expected:,.2f}, compared with "
        f"${prompted.expected:,.2f} for prompting the same base model ({cost.requests_month:,} "
        f"requests a month, {cost.horizon.months:.3g} months{assumed})."
    )
    if evidence.worth_usd(option) and (gain := option.gain):
        left, low, high = (
            evidence.net_usd(option, each) for each in (gain.value, gain.low, gain.high)
        )
        yield (
            f"At ${evidence.value_per_correct_usd} per additional correct answer, the gain is "
            f"worth ${left:,.2f} (${low:,.2f} to ${high:,.2f}) after the extra cost."
        )


def exclusions(evidence: Evidence) -> Iterator[str]:
    """Yield the reasons why options were ruled out."""
    for option in evidence.options:
        for refusal in option.refusals:
            yield f"Not at {option.backend}: {refusal}"
        if not option.refusals and not evidence.lives(option):
            yield (
                f"Not at {option.backend}: {option.base_model} and models tuned from it are "
                f"switched off on {option.ends}, in {option.months_left:.1f} months. The model is "
                f"needed for {evidence.needed_months} months."
            )


def command(evidence: Evidence, name: str, *options: str) -> str:
    """Return a command on the job's file."""
    return " ".join(filter(None, ("unitune", name, evidence.file, *options)))


def points(share: float, *, sign: bool = False) -> str:
    """Format a difference in percentage points."""
    return f"{100 * share:+.1f}" if sign else f"{100 * share:.1f}"
