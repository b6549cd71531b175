"""What a comparison says in words and numbers, the same in the terminal and on the page.

Shares are printed in percent, differences of shares in points. Here is plain text with plain
hyphens and spaces, fit for a log; `typography.typeset` makes it fit for print. Nothing here
computes a statistic: every figure comes out of `Comparison`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from unitune.data.leaks import by_kind
from unitune.evaluate.results import (
    BaselineResult,
    Comparison,
    ContenderResult,
    GateCheck,
    LeakResult,
)
from unitune.report.facts import Fact, level
from unitune.report.typography import counted, decimal, moment, p_value, percent, points
from unitune.report.worth import retention, spent
from unitune.scorers import ENTRIES

PROMPTED = ("zero-shot", "instructed", "few-shot")


def contender(comparison: Comparison, name: str) -> ContenderResult:
    """Return the result of one contender.

    Raises:
        KeyError: The comparison has no contender of this name.
    """
    return {result.name: result for result in comparison.contenders}[name]


def headline(comparison: Comparison) -> str:
    """Return the verdict as one sentence, without figures other than the margin."""
    candidate, baseline = _spoken(comparison, "candidate"), _spoken(comparison, "baseline")
    margin = points(comparison.margin)
    if comparison.doubt:
        return f"No verdict between {candidate} and {baseline}"
    sentence = {
        "better": f"{candidate} is better than {baseline}",
        "worse": f"{candidate} is worse than {baseline}",
        "equivalent": f"no difference larger than \u00b1{margin} "
        f"between {candidate} and {baseline}",
        "non-inferior": f"{candidate} is not worse than {baseline} by {margin} or more",
        "inconclusive": f"too close to call between {candidate} and {baseline}",
    }[comparison.verdict]
    return sentence[0].upper() + sentence[1:]


def reason(comparison: Comparison) -> str:
    """Return why the verdict is what it is, against each baseline, and what it leaves open."""
    return " ".join(reasons(comparison))


def reasons(comparison: Comparison) -> list[str]:
    """Return the parts of `reason`, each short enough for a comment."""
    return [text for text in (_reason(comparison), against_each(comparison)) if text]


def _reason(comparison: Comparison) -> str:
    if comparison.doubt:
        return comparison.doubt
    low, high = (decimal(100 * end) for end in comparison.interval)
    margin, share = points(comparison.margin), level(comparison)
    span = f"The {share} interval of the difference, {low} to {high} points,"
    if comparison.interval[1] < 0 and comparison.verdict != "worse":
        return (
            f"{span} lies below zero, but {comparison.baseline} was singled out as the hardest of "
            f"{len(comparison.baselines)} baselines on these very cases, which alone may explain "
            f"that; against {_best_on_dev(comparison)}, the best on dev, no loss is shown."
        )
    return {
        "better": f"{span} lies wholly above zero.",
        "worse": f"{span} lies wholly below zero.",
        "equivalent": f"{span} is narrow, and the 90 % one, which decides this question, lies "
        f"wholly inside \u00b1{margin}.",
        "non-inferior": f"{span} stays above -{margin}. Whether there is a gain, these cases "
        "cannot tell.",
        "inconclusive": f"{span} includes zero and reaches down to -{margin} or further, so a "
        f"loss that matters cannot be ruled out. {_more_cases(comparison)}",
    }[comparison.verdict]


def against_each(comparison: Comparison) -> str:
    """Return against which baselines the candidate is better, and against which it is not.

    Empty where there is one baseline alone.
    """
    rivals = comparison.baselines
    if len(rivals) < 2:
        return ""
    if comparison.verdict == "better":
        return (
            f"This holds against each of the {len(rivals)} baselines; {comparison.baseline} is "
            "the hardest to beat."
        )
    beaten = [
        f"{rival.name}{' (the best on dev)' if rival.best_on_dev else ''}"
        for rival in rivals
        if rival.verdict == "better"
    ]
    others = [_unbeaten(rival) for rival in rivals if rival.verdict != "better"]
    return (
        f"It is better than {_listed(beaten)}. " if beaten else ""
    ) + f"It is not shown to be better than {_listed(others)}."


def _unbeaten(rival: BaselineResult) -> str:
    low, high = (decimal(100 * end) for end in rival.interval)
    dev = ", the best on dev" if rival.best_on_dev else ""
    return f"{rival.name} ({points(rival.difference, sign=True)}, {low} to {high}{dev})"


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _best_on_dev(comparison: Comparison) -> str:
    return next(rival.name for rival in comparison.baselines if rival.best_on_dev)


def rank(comparison: Comparison, name: str) -> str:
    """Return what is special about a baseline among several; empty for all others."""
    if len(comparison.baselines) < 2:
        return ""
    dev = any(rival.best_on_dev for rival in comparison.baselines if rival.name == name)
    ranks = ("hardest to beat" if name == comparison.baseline else "", "best on dev" if dev else "")
    return ", ".join(filter(None, ranks))


def scores(comparison: Comparison) -> str:
    """Return what both sides got right, as one sentence."""
    candidate = contender(comparison, comparison.candidate)
    baseline = contender(comparison, comparison.baseline)
    cases = counted(comparison.n, "test case")
    ours, theirs = percent(candidate.score), percent(baseline.score)
    if comparison.graded:
        return f"Over {cases}, {candidate.name} scored {ours} and {baseline.name} {theirs}."
    return f"Of {cases}, {candidate.name} got {ours} right and {baseline.name} {theirs}."


def evidence(comparison: Comparison) -> tuple[Fact, ...]:
    """Return the figures behind the verdict, each with its meaning."""
    low, high = (decimal(100 * end) for end in comparison.interval)
    return (
        Fact(
            "Difference",
            points(comparison.difference, sign=True),
            f"{comparison.candidate} minus {comparison.baseline}. "
            f"{level(comparison)} interval: {low} to {high} points.",
        ),
        Fact(
            "Gained and lost",
            f"{comparison.gained:,} and {comparison.lost:,}",
            _gained_and_lost(comparison),
        ),
        Fact("p-value", p_value(comparison.p_value), _chance(comparison.p_value)),
        Fact(
            "Margin",
            f"\u00b1{points(comparison.margin)}",
            "Smaller differences do not matter for this job. To show that a difference is "
            f"smaller takes about {counted(comparison.cases_needed, 'case')}; "
            f"this test had {comparison.n:,}.",
        ),
        Fact(
            "Smallest visible difference",
            points(comparison.smallest_detectable),
            "A true difference of this size is found by four of five such tests; a smaller one is "
            "often missed.",
        ),
        *retention(comparison),
        *spent(comparison),
    )


def _gained_and_lost(comparison: Comparison) -> str:
    candidate, baseline, n = comparison.candidate, comparison.baseline, comparison.n
    if comparison.graded:
        return f"Cases in which {candidate} scored higher, and in which {baseline} did, of {n:,}."
    return (
        f"Cases that only {candidate} got right, and cases that only {baseline} got right, "
        f"of {n:,}."
    )


def caveats(comparison: Comparison) -> tuple[str, ...]:
    """Return what a reader must know before trusting the verdict."""
    return (
        *_counted_leaks(comparison),
        *(
            f"{result.name}: {counted(result.errors, 'case')} of {result.n:,} ended in an error; "
            "an error counts as a wrong answer."
            for result in comparison.contenders
            if result.errors
        ),
        *(
            f"{result.name}: {counted(result.cut, 'answer')} of {result.n:,} cut off at "
            "max_tokens. Raise evaluate.max_tokens where more was to come."
            for result in comparison.contenders
            if result.cut
        ),
        *_without_errors(comparison),
        *comparison.notes,
    )


def _without_errors(comparison: Comparison) -> tuple[str, ...]:
    """Return what the difference is without errors and answers that were cut off too early."""
    both = comparison.answered
    if both is None:
        return ()
    low, high = (decimal(100 * end) for end in both.interval)
    difference = f"{points(both.difference, sign=True)} ({low} to {high})"
    cases = counted(both.n, "case")
    return (f"On the {cases} that both answered, the difference is {difference}.",)


def judging(comparison: Comparison) -> tuple[Fact, ...]:
    """Return how the verdict was reached, for somebody who wants to check it."""
    return tuple(
        Fact(term, value)
        for term, value in (
            (_measure(comparison), f"{metric(comparison.metric)} ({comparison.metric})"),
            (
                "Method",
                f"{comparison.method}, at {level(comparison)}; p = {comparison.p_value:.3g}",
            ),
            *_clusters(comparison),
            ("Baseline", _choice(comparison)),
            ("Test cases in the training rows", _leaks(comparison)),
            ("Base model", _base_model(comparison)),
            ("Run", comparison.run or "none: no contender was tuned here"),
            ("Date", moment(comparison.created)),
            *comparison.provenance.items(),
        )
    )


def _clusters(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    if comparison.clusters is None:
        return ()
    worth = f"{comparison.design_effect:.2g} of them are worth one case that stands alone"
    return (("Clusters", f"{comparison.clusters:,} for {comparison.n:,} cases; {worth}"),)


def _base_model(comparison: Comparison) -> str:
    if all(contender.type == "recorded" for contender in comparison.contenders):
        return "none: every answer was recorded before"
    return f"{comparison.base_model}, on backend {comparison.backend}"


def gate(comparison: Comparison) -> str:
    """Return what the gate says in one line; empty without a gate."""
    if comparison.gate is None:
        return ""
    result = comparison.gate
    state = "passed" if result.passed else "not passed"
    return f"Gate {result.mode}: {state} (exit code {result.exit_code}). {result.reason}"


def check(result: GateCheck) -> str:
    """Return what became of one check of a gate, in a word or two."""
    return {0: "passed", 1: "failed", 3: "inconclusive", 4: "error", None: "not judged"}[
        result.exit_code
    ]


def regression(comparison: Comparison) -> str:
    """Return how the candidate stands to its baseline file; empty when there is none."""
    then = comparison.gate.regression if comparison.gate else None
    if then is None:
        return ""
    low, high = (decimal(100 * end) for end in then.interval)
    others = ", ".join(
        f"{counted(len(cases), 'case')} {what}"
        for what, cases in (
            ("added since", then.added),
            ("no longer there, counted as wrong", then.removed),
        )
        if cases
    )
    return (
        f"Against {then.file}: {points(then.difference, sign=True)} [{low}, {high}] on "
        f"{counted(then.n, 'case')}, {then.gained:,} gained / {then.lost:,} lost"
        f"{'; ' if others else ''}{others}."
    )


def figures(comparison: Comparison) -> str:
    """Return the figures behind the verdict in one line, for who knows what they mean."""
    p = f"p={comparison.p_value:.2g}" if comparison.p_value else "p<1e-300"  # no p is 0
    return (
        f"n={comparison.n}, {comparison.gained} gained / {comparison.lost} lost, "
        f"{p}, margin \u00b1{points(comparison.margin)}"
    )


def errors(result: ContenderResult) -> str:
    """Return how many cases have no whole answer: in error, and where there are any, cut off."""
    return f"{result.errors:,}, {result.cut:,} cut" if result.cut else f"{result.errors:,}"


def tokens(result: ContenderResult) -> int | None:
    """Return the tokens of all cases, prompts and answers; None when they are not known."""
    if result.prompt_tokens is None or result.completion_tokens is None:
        return None
    return result.prompt_tokens + result.completion_tokens


def _measure(comparison: Comparison) -> str:
    return "The score is" if comparison.graded else "Right means"


def measured(comparison: Comparison) -> str:
    """Return what the figures of the contenders are, as a sentence or two."""
    what = "Score over the test cases" if comparison.graded else "Share of test cases right"
    return (
        f"{what}, with its {level(comparison)} interval. "
        f"{_measure(comparison)}: {metric(comparison.metric)}."
    )


def metric(name: str) -> str:
    """Return what a scorer counts as right; its name when it is not one of ours."""
    entry = ENTRIES.get(name)
    return entry.words() if entry else f"the scorer {name} says so"


def _spoken(comparison: Comparison, side: Literal["candidate", "baseline"]) -> str:
    """Name a side as a manager would: the tuned model, the best prompt."""
    types = [result.type for result in comparison.contenders]
    if side == "candidate":
        candidate = contender(comparison, comparison.candidate)
        only_tune = candidate.type == "tuned" and types.count("tuned") == 1
        return "the tuned model" if only_tune else f"\u201c{candidate.name}\u201d"
    baseline = contender(comparison, comparison.baseline)
    if baseline.type not in PROMPTED:
        return f"\u201c{baseline.name}\u201d"
    rivals = sum(rival.role == "baseline" for rival in comparison.contenders)
    return "the best prompt" if rivals > 1 else f"the {baseline.name} prompt"


def _more_cases(comparison: Comparison) -> str:
    if comparison.cases_needed <= comparison.n:
        return "More cases would settle it."
    return (
        f"About {counted(comparison.cases_needed, 'case')} would settle it; "
        f"this test had {comparison.n:,}."
    )


def _chance(p: float) -> str:
    if p < 1e-6:
        often = "in fewer than one of a million"
    elif p < 0.01:
        often = f"in about one of {float(f'{1 / p:.2g}'):,.0f}"
    elif p < 0.99:
        often = f"in about {100 * p:.0f} of 100"
    else:
        often = "in nearly all"
    return f"Were both equally good, gains and losses this uneven would come up {often} such tests."


def _choice(comparison: Comparison) -> str:
    rivals = len(comparison.baselines)
    if rivals < 2:
        return f"{comparison.baseline}, the only one"
    return (
        f"{comparison.baseline}, the hardest to beat of {rivals} on the test. "
        f"{_best_on_dev(comparison)} is the best on {counted(comparison.dev_rows, 'dev row')}. "
        "Better, equivalent and not worse are claimed only where no baseline speaks against it, "
        "worse only against the one that dev chose"
    )


def _counted_leaks(comparison: Comparison) -> tuple[str, ...]:
    leaks = comparison.leaks
    if leaks.action != "allow" or not leaks.cases:
        return ()
    cases = counted(len(leaks.cases), "test case")
    warning = (
        f"{cases} also in the training rows ({_kinds(leaks)}) and counted all the same "
        "(leaks: allow): the tuned model may know the answers by heart."
    )
    return (warning,)


def _leaks(comparison: Comparison) -> str:
    leaks = comparison.leaks
    if not leaks.cases:
        return "none found"
    done = {"refuse": "refused", "drop": "left out of the test", "allow": "counted all the same"}
    return f"{counted(len(leaks.cases), 'case')} ({_kinds(leaks)}), {done[leaks.action]}"


def _kinds(leaks: LeakResult) -> str:
    return by_kind(case.kind for case in leaks.cases)
