"""The rules of `unitune decide`: the first that applies gives the answer, in the order of `RULES`.

Each is a pure function of the evidence, and says nothing of what was not measured or priced. Where
a figure is missing that would settle it, the answer is "cannot tell", and `next.measures` names the
measurement; `unitune.decision.decide` makes it, if the user agrees to its price, and asks again. So
the order is also that of the cost: what is free, what prompts score, one training, several.
"""

from __future__ import annotations

from collections.abc import Callable

from unitune.decision.conclusions import (
    cannot_tell,
    check_labels,
    collect,
    fix_first,
    gain_and_curve,
    gain_sentence,
    is_out_of_reach,
    keep_prompting,
    look_elsewhere,
    measure,
    more_rows,
    name_the_worth,
    not_worth_it,
    percent,
    points,
    score_sentence,
    tune,
)
from unitune.decision.evidence import Conclusion, Evidence, TuningOption
from unitune.decision.net_worth import net_worth, saving, usd_per_right_answer
from unitune.evaluate.statistics.paired import Verdict
from unitune.evaluate.statistics.sample_size import (
    LIKELY_DISCORDANCE,
    cases_needed,
    smallest_detectable,
)

NO_WORSE = (Verdict.BETTER, Verdict.EQUIVALENT, Verdict.NON_INFERIOR)
Rule = Callable[[Evidence], Conclusion | None]


def conclude(evidence: Evidence) -> Conclusion:
    """Return what the first rule that applies says."""
    for rule in RULES:
        if conclusion := rule(evidence):
            return conclusion.model_copy(update={"rule": rule.__name__})
    raise AssertionError("the last rule always applies")


def unusable(evidence: Evidence) -> Conclusion | None:
    """Job or rows have errors."""
    return fix_first(evidence) if evidence.errors else None


def no_cases(evidence: Evidence) -> Conclusion | None:
    """No validation rows to measure on, or too few test cases to find any difference."""
    needed = cases_needed(LIKELY_DISCORDANCE[0], evidence.margin)
    if not evidence.validation_rows:
        why = "There are no validation rows, on which prompts and models are measured."
        return collect(evidence, "validation", needed, why)
    if not evidence.test_cases:
        why = "There are no test cases, so no comparison could say which is better."
        return collect(evidence, "test", needed, why)
    visible = smallest_detectable(
        evidence.test_cases, LIKELY_DISCORDANCE[0], graded=evidence.graded
    )
    if visible < 1:
        return None
    why = f"{evidence.test_cases:,} test cases are too few to find any difference, however large."
    return collect(evidence, "test", needed - evidence.test_cases, why)


def nowhere(evidence: Evidence) -> Conclusion | None:
    """No backend that is considered takes the job, or its base is switched off too soon."""
    return None if evidence.open_options else look_elsewhere(evidence)


def unmeasured_prompts(evidence: Evidence) -> Conclusion | None:
    """It is not known how good the best prompt is."""
    for option in evidence.open_options:
        if not option.prompts:
            why = f"How good is the best prompt for {option.base_model} on {option.backend}?"
            return measure("prompts", evidence, option, why)
    return None


def prompt_suffices(evidence: Evidence) -> Conclusion | None:
    """The best prompt reaches the goal or leaves too little to gain, and tuning saves nothing."""
    best, goal, margin = evidence.best_prompt, evidence.goal, evidence.margin
    if any(_may_save(each, evidence) for each in evidence.open_options):
        return None
    if goal is not None and best.low >= goal:
        why = f"{score_sentence(best)}, which reaches the goal of {percent(goal)}."
        return keep_prompting(evidence, [why], "A higher goal.")
    if 1 - best.value >= margin:
        return None
    why = (
        f"{score_sentence(best)}: a model that is always right would gain less than the "
        f"{points(margin)} points that matter."
    )
    change = f"A margin (evaluate.margin) below {points(1 - best.value)} points."
    return keep_prompting(evidence, [why], change if best.value < 1 else "Other validation rows.")


def labels_cap_scores(evidence: Evidence) -> Conclusion | None:
    """So many labels look wrong that no model could reach the goal."""
    goal = evidence.goal
    return check_labels(evidence) if goal is not None and goal > 1 - evidence.wrong_labels else None


def too_few_rows(evidence: Evidence) -> Conclusion | None:
    """No backend would train on so few rows."""
    least = min(evidence.open_options, key=lambda each: each.min_rows)
    if evidence.training_rows >= least.min_rows:
        return None
    why = (
        f"A training on {least.backend} takes at least {least.min_rows:,} rows, and there are "
        f"{evidence.training_rows:,}."
    )
    return collect(evidence, "training", least.min_rows - evidence.training_rows, why)


def unmeasured_training(evidence: Evidence) -> Conclusion | None:
    """It is not known how good the tuned model is."""
    for option in evidence.open_options:
        if option.gain is None and evidence.training_rows >= option.min_rows:
            why = f"How good is {option.base_model} when it is tuned on {option.backend}?"
            return measure("training", evidence, option, why)
    return None


def worth_its_cost(evidence: Evidence) -> Conclusion | None:
    """A right answer's worth is given, and tuning gains more, or less, than it costs."""
    weighed = [(net_worth(each, evidence), each) for each in evidence.measured_options]
    known = [(net, each) for net, each in weighed if net is not None]
    if not known or not _reaches_goal(evidence.best_tuned, evidence):
        return None
    net, option = max(known, key=lambda each: each[0].of_gain(each[1].shown_gain.value))
    gain = option.shown_gain
    if net.of_gain(gain.low) > 0:
        return _tune_if_it_shows(option, evidence)
    if not is_better(option, evidence):
        return None
    if net.of_gain(gain.high) < 0:
        return not_worth_it(evidence, option, gain_sentence(evidence, option))
    least = net.extra / net.value
    why = f"Tuning pays from {points(least)} points on, and these rows show neither more nor less."
    return _collect_validation(evidence, option, abs(gain.value - least), why)


def costs_far_more(evidence: Evidence) -> Conclusion | None:
    """The tuned model is better but far dearer, and it is not known to be worth that."""
    best = evidence.best_tuned
    usd = usd_per_right_answer(best) if is_better(best, evidence) else None
    if usd is None or usd <= (evidence.value_per_correct_usd or 0):
        return None
    return name_the_worth(evidence, best, usd)


def tuning_pays(evidence: Evidence) -> Conclusion | None:
    """The tuned model is better by what matters, and reaches the goal where there is one."""
    best = evidence.best_tuned
    if is_better(best, evidence) and _reaches_goal(best, evidence):
        return _tune_if_it_shows(best, evidence)
    return None


def tuning_saves(evidence: Evidence) -> Conclusion | None:
    """The tuned model is no worse, and costs less at the volume that the user has given."""
    for option in evidence.measured_options:
        if _may_save(option, evidence) and _reaches_goal(option, evidence):
            return tune(evidence, option)
    return None


def saving_unproven(evidence: Evidence) -> Conclusion | None:
    """The tuned model costs less, and too few validation rows show whether it is no worse."""
    for option in evidence.measured_options:
        gain, saved = option.shown_gain, saving(option.cost)
        may_be_no_worse = gain.verdict is Verdict.INCONCLUSIVE
        saves = evidence.volume_given and saved > 0 and _reaches_goal(option, evidence)
        if not (may_be_no_worse and saves):
            continue
        why = (
            f"Tuning saves ${saved:,.2f}, if the model is not worse by {points(evidence.margin)} "
            "points or more, which these rows do not show."
        )
        apart = evidence.margin + min(0.0, gain.value)
        return _collect_validation(evidence, option, apart, why)
    return None


def unmeasured_curve(evidence: Evidence) -> Conclusion | None:
    """The tuned model is not good enough, and it is not known what more rows would bring."""
    option = evidence.best_tuned
    if option.curve is not None:
        return None
    so_far, missing = gain_sentence(evidence, option), option.curve_rows - evidence.training_rows
    if missing <= 0:
        return measure("curve", evidence, option, f"{so_far} Would more rows be enough?")
    why = f"{so_far} What more rows would bring is seen with {option.curve_rows:,}."
    return collect(evidence, "training", missing, why, option.weakest)


def more_rows_pay(evidence: Evidence) -> Conclusion | None:
    """By its learning curve the tuned model is good enough with more rows."""
    option = evidence.best_tuned
    more = more_rows(option.curve)
    if more is None:
        return None
    why = " ".join(gain_and_curve(evidence, option))
    return collect(evidence, "training", more, why, option.weakest)


def better_below_goal(evidence: Evidence) -> Conclusion | None:
    """The tuned model is better by what matters, and no number of rows is known for the goal."""
    best = evidence.best_tuned
    return _tune_if_it_shows(best, evidence) if is_better(best, evidence) else None


def no_gain(evidence: Evidence) -> Conclusion | None:
    """Tuning does not gain what matters, and by its curve more rows would not either."""
    if any(each.shown_gain.high >= evidence.margin for each in evidence.measured_options):
        return None
    if not is_out_of_reach(evidence.best_tuned, evidence):
        return None
    why = gain_and_curve(evidence, evidence.best_tuned)
    change = "Rows of another kind, or a larger base model."
    return keep_prompting(evidence, why, change, "tuning gains too little beyond {}")


def undecided(evidence: Evidence) -> Conclusion:
    """What was measured allows a gain that matters, and none."""
    return cannot_tell(evidence, evidence.best_tuned)


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


def is_better(option: TuningOption, evidence: Evidence) -> bool:
    """Whether the tuned model is shown to be better, by what matters."""
    gain = option.shown_gain
    return gain.verdict is Verdict.BETTER and gain.value >= evidence.margin


def _may_save(option: TuningOption, evidence: Evidence) -> bool:
    """Whether tuning costs less at the volume given, and is not known to be worse."""
    is_worse = option.gain is not None and option.gain.verdict not in NO_WORSE
    return evidence.volume_given and saving(option.cost) > 0 and not is_worse


def _reaches_goal(option: TuningOption, evidence: Evidence) -> bool:
    return evidence.goal is None or (
        option.tuned is not None and option.tuned.value >= evidence.goal
    )


def _tune_if_it_shows(option: TuningOption, evidence: Evidence) -> Conclusion:
    """Return the advice to tune; where the test could not show the gain, more cases come first."""
    gain = option.shown_gain
    visible = smallest_detectable(evidence.test_cases, gain.mean_square, graded=evidence.graded)
    if visible <= gain.value:
        return tune(evidence, option)
    needed = cases_needed(min(1.0, gain.mean_square), gain.value)
    why = (
        f"{gain_sentence(evidence, option)} With {evidence.test_cases:,} test cases a comparison "
        f"finds differences from {points(visible)} points on (80 % power), so it could not "
        "show that."
    )
    return collect(evidence, "test", max(1, needed - evidence.test_cases), why)


def _collect_validation(
    evidence: Evidence, option: TuningOption, apart: float, why: str
) -> Conclusion:
    """Return the advice to collect the validation rows that find such a difference."""
    gain, apart = option.shown_gain, max(apart, evidence.margin / 2)
    needed = cases_needed(min(1.0, gain.mean_square), apart) - evidence.validation_rows
    why = f"{gain_sentence(evidence, option)} {why}"
    return collect(evidence, "validation", max(1, needed), why)
