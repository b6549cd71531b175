"""Rules of `unitune decide`, in order: the first that applies gives the conclusion.

A rule that lacks a figure concludes "cannot tell" and names the measurement in `next.measures`;
`unitune.decision.decide` makes it and applies the rules again. Cheap checks come before expensive
measurements: free ones, prompts, one training, several trainings.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from unitune.decision.conclusions import (
    collect,
    collect_validation,
    command,
    costs,
    exclusions,
    gained,
    keep_prompting,
    measure,
    more_rows,
    points,
    tune,
    tune_if_it_shows,
)
from unitune.decision.evidence import Conclusion, Evidence, NextStep, TuningOption
from unitune.evaluate.statistics.paired import Verdict
from unitune.evaluate.statistics.sample_size import (
    LIKELY_DISCORDANCE,
    cases_needed,
    smallest_detectable,
)
from unitune.render.typography import percent, two_digits

NO_WORSE = (Verdict.BETTER, Verdict.EQUIVALENT, Verdict.NON_INFERIOR)
# If tuning costs this multiple of prompting, and at least this much per additional correct answer,
# the user must give the value of a correct answer. A minute of a person's work costs about 1
# dollar.
FAR_MORE, DEAR_USD = 10, 1.0
WORTH = "evaluate.economics.value_per_correct_usd"
Rule = Callable[[Evidence], Conclusion | None]


def conclude(evidence: Evidence) -> Conclusion:
    """Return the conclusion of the first rule that applies, with the limits of all conclusions."""
    for rule in RULES:
        if conclusion := rule(evidence):
            limits = () if conclusion.next.measures else (*exclusions(evidence), *evidence.warnings)
            reasons = (*conclusion.reasons, *limits)
            return conclusion.model_copy(update={"rule": rule.__name__, "reasons": reasons})
    raise AssertionError("the last rule always applies")


def unusable(evidence: Evidence) -> Conclusion | None:
    """The job or its rows have errors."""
    if not evidence.errors:
        return None
    return Conclusion(
        answer="cannot tell",
        headline="Fix the errors in the job and its rows first",
        reasons=evidence.errors,
        next=NextStep(command=command(evidence, "check"), why="It lists each error and its fix."),
    )


def no_cases(evidence: Evidence) -> Conclusion | None:
    """The job lacks validation rows, or has too few test cases to detect any difference."""
    needed = cases_needed(LIKELY_DISCORDANCE[0], evidence.margin)
    cases = evidence.test_cases
    if not evidence.validation_rows:
        why = "The job has no validation rows to evaluate prompts and models on."
        return collect("validation", needed, why)
    if not cases:
        why = "The job has no test cases, so no comparison can show which model is better."
        return collect("test", needed, why)
    if smallest_detectable(cases, LIKELY_DISCORDANCE[0], graded=evidence.graded) < 1:
        return None
    why = f"{cases:,} test cases are too few to detect any difference, however large."
    return collect("test", needed - cases, why)


def nowhere(evidence: Evidence) -> Conclusion | None:
    """No backend accepts the job, or every base model is switched off too soon."""
    if evidence.open_options:
        return None
    others = evidence.elsewhere
    return Conclusion(
        answer="cannot tell",
        headline="Cannot tell: every backend that was considered is ruled out",
        changes=(
            "A backend that accepts the job and keeps its base model for as long as you need it.",
        ),
        next=NextStep(
            command=command(evidence, "decide", f"--backend {others[0]}") if others else "",
            why=f"The job can be tuned on {', '.join(others)}."
            if others
            else "No installed backend accepts the job. Try another base model.",
        ),
    )


def unmeasured_prompts(evidence: Evidence) -> Conclusion | None:
    """The score of the best prompt has not been measured."""
    for option in evidence.open_options:
        if not option.prompts:
            why = f"How good is the best prompt for {option.base_model} on {option.backend}?"
            return measure("prompts", evidence, option, why)
    return None


def prompt_suffices(evidence: Evidence) -> Conclusion | None:
    """The prompt suffices or leaves too little to gain, and tuning saves nothing."""
    best, goal, margin = evidence.best_prompt, evidence.goal, evidence.margin
    if any(_may_save(option, evidence) for option in evidence.open_options):
        return None
    score = (
        f"The best prompt ({best.name}) scores {percent(best.value)} ({percent(best.low)} to "
        f"{percent(best.high)})"
    )
    if goal is not None and best.low >= goal:
        why = f"{score}, which reaches the goal of {percent(goal)}."
        return keep_prompting(evidence, [why], "A higher goal.")
    if 1 - best.value >= margin:
        return None
    why = (
        f"{score}. A model without any error would gain less than the {points(margin)} points "
        "that matter."
    )
    change = f"A margin (evaluate.margin) below {points(1 - best.value)} points."
    return keep_prompting(evidence, [why], change if best.value < 1 else "Other validation rows.")


def labels_cap_scores(evidence: Evidence) -> Conclusion | None:
    """So many labels look wrong that no model can reach the goal."""
    goal, wrong = evidence.goal, evidence.wrong_labels
    if goal is None or goal <= 1 - wrong:
        return None
    share, ceiling = percent(wrong), percent(1 - wrong)
    why = (
        f"Similar training rows contradict about {share} of the labels. If validation rows have as "
        f"many wrong labels, no model can score above {ceiling}; the goal is {percent(goal)}."
    )
    return Conclusion(
        answer="cannot tell",
        headline=f"Check the labels first: about {share} of them look wrong",
        reasons=(why,),
        changes=(f"Corrected labels, or a goal of {ceiling} at most.",),
        next=NextStep(
            command=command(evidence, "check"), why="It lists the doubtful labels, worst first."
        ),
    )


def too_few_rows(evidence: Evidence) -> Conclusion | None:
    """There are fewer training rows than any backend requires."""
    least = min(evidence.open_options, key=lambda option: option.min_rows)
    missing = least.min_rows - evidence.training_rows
    if missing <= 0:
        return None
    why = (
        f"Training on {least.backend} requires at least {least.min_rows:,} rows; there are "
        f"{evidence.training_rows:,}."
    )
    return collect("training", missing, why)


def unmeasured_training(evidence: Evidence) -> Conclusion | None:
    """The score of the tuned model has not been measured."""
    for option in evidence.open_options:
        if option.gain is None and evidence.training_rows >= option.min_rows:
            why = f"How good is {option.base_model} when it is tuned on {option.backend}?"
            return measure("training", evidence, option, why)
    return None


def worth_its_cost(evidence: Evidence) -> Conclusion | None:
    """A correct answer's value shows that tuning gains more or less than it costs."""
    known = [option for option in evidence.measured_options if evidence.worth_usd(option)]
    if not known or not evidence.best_tuned.reaches(evidence.goal):
        return None
    option = max(known, key=lambda each: evidence.net_usd(each, each.shown_gain.value))
    gain = option.shown_gain
    if evidence.net_usd(option, gain.low) > 0:
        return tune_if_it_shows(evidence, option)
    if not _is_better(option, evidence):
        return None
    if evidence.net_usd(option, gain.high) < 0:
        return keep_prompting(
            evidence,
            [gained(evidence, option), *costs(evidence, option)],
            f"More requests, or a higher {WORTH}.",
            "tuning costs more than it gains over {}",
        )
    least = -float(option.saving_usd) / evidence.worth_usd(option)
    why = (
        f"Tuning pays if it gains at least {points(least)} points. These rows show neither more "
        "nor less."
    )
    return collect_validation(evidence, option, abs(gain.value - least), why)


def costs_far_more(evidence: Evidence) -> Conclusion | None:
    """The tuned model is better but far more expensive, and its value is unknown."""
    option = evidence.best_tuned
    (prompted, tuned), cost = option.totals, option.cost
    if not (_is_better(option, evidence) and cost and prompted and tuned):
        return None
    answers = option.shown_gain.value * float(cost.requests_month * cost.horizon.months)
    usd = -float(option.saving_usd) / answers if answers > 0 else math.inf
    is_far_more = tuned.expected >= FAR_MORE * prompted.expected and usd >= DEAR_USD
    if not is_far_more or usd <= (evidence.value_per_correct_usd or 0):
        return None
    return Conclusion(
        answer="cannot tell",
        headline=f"Cannot tell: one additional correct answer costs about ${usd:,.2f}",
        reasons=(gained(evidence, option), *costs(evidence, option)),
        changes=(f"Tuning pays if one additional correct answer is worth more than ${usd:,.2f}.",),
        next=NextStep(why=f"Set {WORTH} and usage.requests_month in the job."),
    )


def tuning_pays(evidence: Evidence) -> Conclusion | None:
    """The tuned model is better by the margin and reaches any goal."""
    best = evidence.best_tuned
    if _is_better(best, evidence) and best.reaches(evidence.goal):
        return tune_if_it_shows(evidence, best)
    return None


def tuning_saves(evidence: Evidence) -> Conclusion | None:
    """The tuned model is not worse and costs less at the given volume."""
    for option in evidence.measured_options:
        if _may_save(option, evidence) and option.reaches(evidence.goal):
            return tune(evidence, option)
    return None


def saving_unproven(evidence: Evidence) -> Conclusion | None:
    """Tuning costs less, but the rows are too few to show that the model is not worse."""
    for option in evidence.measured_options:
        gain, saved = option.shown_gain, option.saving_usd
        saves = evidence.volume_given and saved > 0 and option.reaches(evidence.goal)
        if saves and gain.verdict is Verdict.INCONCLUSIVE:
            why = (
                f"Tuning saves ${saved:,.2f} if the model is not worse by "
                f"{points(evidence.margin)} points or more. These rows do not show that."
            )
            apart = evidence.margin + min(0.0, gain.value)
            return collect_validation(evidence, option, apart, why)
    return None


def unmeasured_curve(evidence: Evidence) -> Conclusion | None:
    """The tuned model falls short and the effect of more rows is not measured."""
    option = evidence.best_tuned
    if option.curve is not None:
        return None
    so_far, missing = gained(evidence, option), option.curve_rows - evidence.training_rows
    if missing <= 0:
        return measure("curve", evidence, option, f"{so_far} Would more rows be enough?")
    why = f"{so_far} A learning curve requires {option.curve_rows:,} rows."
    return collect("training", missing, why, option.weakest)


def more_rows_pay(evidence: Evidence) -> Conclusion | None:
    """The learning curve predicts that more rows are enough."""
    option = evidence.best_tuned
    curve = option.curve
    rows = curve and curve.goal and curve.goal.rows
    if not curve or not rows or rows.value is None:
        return None
    more = max(1, math.ceil(rows.value) - curve.rows)
    why = f"{gained(evidence, option)} {more_rows(evidence, option)}"
    return collect("training", more, why, option.weakest)


def better_below_goal(evidence: Evidence) -> Conclusion | None:
    """The tuned model is better by the margin, but misses the goal."""
    best = evidence.best_tuned
    return tune_if_it_shows(evidence, best) if _is_better(best, evidence) else None


def no_gain(evidence: Evidence) -> Conclusion | None:
    """Tuning gains too little, and by its curve more rows would not help."""
    option = evidence.best_tuned
    curve, tuned = option.curve, option.tuned
    if any(each.shown_gain.high >= evidence.margin for each in evidence.measured_options):
        return None
    if curve is None or tuned is None:
        return None
    if curve.predictions:
        high = curve.predictions[-1].score.high or 1.0
    else:  # assume that each doubling gains no more than the last one
        high = tuned.value + 2 * max(0.0, curve.last_gain.high or 0.0)
    if high >= evidence.wanted_score:
        return None
    why = gained(evidence, option), more_rows(evidence, option)
    change = "Rows of another kind, or a larger base model."
    return keep_prompting(evidence, why, change, "tuning gains too little over {}")


def undecided(evidence: Evidence) -> Conclusion:
    """The measurements can neither rule out nor confirm a gain that matters."""
    option = evidence.best_tuned
    gain = option.shown_gain
    effect = max(evidence.margin, abs(gain.value))
    more = cases_needed(min(1.0, gain.mean_square), effect) - evidence.validation_rows
    change = "More training rows of the same kind."
    if more > 0:
        change = (
            f"{two_digits(more)} more validation rows, which detect a difference of "
            f"{points(effect)} points (80 % power)."
        )
    return Conclusion(
        answer="cannot tell",
        headline="Cannot tell: tuning may gain what matters, or nothing",
        reasons=(gained(evidence, option), more_rows(evidence, option)),
        changes=(change,),
        next=NextStep(
            command=command(evidence, "check"),
            why="It lists suspicious rows. Improving the answers of existing rows costs least.",
        ),
    )


RULES: tuple[Rule, ...] = (
    unusable,
    no_cases,
    nowhere,
    unmeasured_prompts,
    prompt_suffices,
    labels_cap_scores,
    too_few_rows,
    unmeasured_training,
    worth_its_cost,
    costs_far_more,
    tuning_pays,
    tuning_saves,
    saving_unproven,
    unmeasured_curve,
    more_rows_pay,
    better_below_goal,
    no_gain,
    undecided,
)


def _is_better(option: TuningOption, evidence: Evidence) -> bool:
    gain = option.shown_gain
    return gain.verdict is Verdict.BETTER and gain.value >= evidence.margin


def _may_save(option: TuningOption, evidence: Evidence) -> bool:
    """Return whether tuning costs less at the given volume and is not known to be worse."""
    is_worse = option.gain is not None and option.gain.verdict not in NO_WORSE
    return evidence.volume_given and option.saving_usd > 0 and not is_worse
