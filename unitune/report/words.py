"""Write the sentences of a comparison, for terminals and pages.

Shares are in percent, differences of shares in points. Texts have plain hyphens and spaces, as for
a log; `typography.typeset` prepares them for print. No statistic is computed here; every figure is
from `Comparison`.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal, NamedTuple

from unitune.data.overlap import by_kind
from unitune.evaluate.documents.records import Contrast
from unitune.evaluate.documents.results import Comparison, ContenderResult, GateCheck
from unitune.render.typography import counted, interval, percent, points
from unitune.scorers import ENTRIES
from unitune.text import listed

ALPHA = 0.05  # of differences other than the verdict's
NO_PART = "They do not count for the verdict; p is adjusted for their number (Holm)."
PROMPTED = ("zero-shot", "instructed", "few-shot")


def contender(comparison: Comparison, name: str) -> ContenderResult:
    """Return the result of one contender; raises `KeyError` for another name."""
    return {result.name: result for result in comparison.contenders}[name]


def verdict(comparison: Comparison) -> str:
    """Return the verdict in a word or two."""
    if comparison.omitted_cases:
        return "first look"
    nearer = {"better": "closer", "worse": "farther"} if comparison.closeness else {}
    return nearer.get(comparison.verdict, comparison.verdict)


def level(comparison: Comparison) -> str:
    """Return the level of the intervals, e.g. ``95 %``."""
    return f"{100 * comparison.level:g} %"


def headline(comparison: Comparison) -> str:
    """Return the verdict as one sentence, without figures other than the margin.

    The sentence mentions a metric that measures similarity to the reference's wording.
    """
    candidate, baseline = _side(comparison, "candidate"), _side(comparison, "baseline")
    margin = points(comparison.margin)
    if comparison.omitted_cases:
        return f"First look, no verdict: {candidate} and {baseline}"
    if comparison.doubt:
        return f"No verdict between {candidate} and {baseline}"
    better, worse, by = "better", "worse", ""
    if near := comparison.closeness:
        better, worse, by = f"closer to {near}", f"farther from {near}", f" in closeness to {near}"
    small = f", by less than the {margin} that matter" if is_small_gain(comparison) else ""
    sentence = {
        "better": f"{candidate} is {better} than {baseline}{small}",
        "worse": f"{candidate} is {worse} than {baseline}",
        "equivalent": f"no difference larger than \u00b1{margin}{by} "
        f"between {candidate} and {baseline}",
        "non-inferior": f"{candidate} is not {worse} than {baseline} by {margin} or more",
        "inconclusive": f"too close to call{by} between {candidate} and {baseline}",
    }[comparison.verdict]
    return sentence[0].upper() + sentence[1:]


def is_small_gain(comparison: Comparison) -> bool:
    """Return whether the candidate is better, but its whole interval is below the margin."""
    return comparison.verdict == "better" and comparison.interval[1] < comparison.margin


def _side(comparison: Comparison, side: Literal["candidate", "baseline"]) -> str:
    result = contender(comparison, getattr(comparison, side))
    types = [each.type for each in comparison.contenders]
    if side == "candidate" and result.type == "tuned" and types.count("tuned") == 1:
        return "the tuned model"
    if side == "baseline" and result.type in PROMPTED:
        baselines = sum(each.role == "baseline" for each in comparison.contenders)
        return "the best prompt" if baselines > 1 else f"the {result.name} prompt"
    return f"\u201c{result.name}\u201d"


def reason(comparison: Comparison) -> str:
    """Return the reasons for the verdict against each baseline, and its open questions."""
    return " ".join(reasons(comparison))


def reasons(comparison: Comparison) -> list[str]:
    """Return the parts of `reason`, each short enough for a comment."""
    use = comparison.use_of_test
    uses = "" if use is None or use.is_first else str(use)
    return [text for text in (_reason(comparison), _against_each(comparison), uses) if text]


def _reason(comparison: Comparison) -> str:
    if comparison.doubt:
        return comparison.doubt
    margin, ends = points(comparison.margin), interval(comparison.interval)
    adjusted = "adjusted " if comparison.use_of_test and comparison.use_of_test.divisor > 1 else ""
    span = f"The {adjusted}{level(comparison)} interval of the difference, {ends} points,"
    if (
        comparison.interval[1] < 0
        and comparison.verdict != "worse"
        and len(comparison.baselines) > 1
    ):
        return (
            f"{span} lies below zero, but {comparison.baseline} was chosen as the strongest of "
            f"{len(comparison.baselines)} baselines on the same cases, so part of this gap may be "
            f"selection bias. No loss is shown against {best_on_dev(comparison)}, the best on dev."
        )
    more_cases = "More cases would settle it."
    if any(judge.decides for judge in comparison.judges):
        more_cases = f"About {comparison.cases_needed:,} labels of people would settle it."
    elif comparison.cases_needed > comparison.n:
        more_cases = (
            f"About {counted(comparison.cases_needed, 'case')} would settle it; "
            f"this test had {comparison.n:,}."
        )
    return {
        "better": f"{span} lies wholly above zero"
        + (f" and below the margin of {margin}." if is_small_gain(comparison) else "."),
        "worse": f"{span} lies wholly below zero.",
        "equivalent": f"{span} is narrow, and the 90 % one, which decides this question, lies "
        f"wholly inside \u00b1{margin}.",
        "non-inferior": f"{span} stays above -{margin}. These cases cannot show whether "
        "there is a gain.",
        "inconclusive": f"{span} includes zero and reaches down to -{margin} or further, so a "
        f"loss that matters cannot be ruled out. {more_cases}",
    }[comparison.verdict]


def _against_each(comparison: Comparison) -> str:
    baselines = comparison.baselines
    if len(baselines) < 2 or comparison.omitted_cases:
        return ""
    if comparison.verdict == "better":
        return (
            f"This holds against each of the {len(baselines)} baselines; {comparison.baseline} is "
            "the hardest to beat."
        )
    beaten: list[str] = []
    others: list[str] = []
    for result in baselines:
        if result.verdict == "better":
            beaten.append(f"{result.name}{' (the best on dev)' if result.best_on_dev else ''}")
        else:
            dev = ", the best on dev" if result.best_on_dev else ""
            difference, ends = points(result.difference, sign=True), interval(result.interval)
            if result.bounds:
                ends += f"; with missing and cut answers both ways {interval(result.bounds)}"
            others.append(f"{result.name} ({difference}, {ends}{dev})")
    better = f"It is better than {listed(beaten)}. " if beaten else ""
    return f"{better}It is not shown to be better than {listed(others)}."


def best_on_dev(comparison: Comparison) -> str:
    """Return the baseline that was chosen on dev."""
    return next(result.name for result in comparison.baselines if result.best_on_dev)


def rank(comparison: Comparison, name: str) -> str:
    """Return the role of a baseline among several; empty for all without one."""
    if len(comparison.baselines) < 2:
        return ""
    dev = any(result.best_on_dev for result in comparison.baselines if result.name == name)
    ranks = ("hardest to beat" if name == comparison.baseline else "", "best on dev" if dev else "")
    return ", ".join(filter(None, ranks))


def scores(comparison: Comparison) -> str:
    """Return one sentence with the scores of both sides."""
    candidate = contender(comparison, comparison.candidate)
    baseline = contender(comparison, comparison.baseline)
    cases = counted(comparison.n, "test case")
    ours, theirs = percent(candidate.score), percent(baseline.score)
    if count := labels(comparison):
        return (
            f"The difference is that of people's labels of {count:,} cases. The judge's own scores "
            f"over {cases} ({ours} for {candidate.name}, {theirs} for {baseline.name}) are not "
            "calibrated."
        )
    if comparison.graded:
        return f"Over {cases}, {candidate.name} scored {ours} and {baseline.name} {theirs}."
    return f"Of {cases}, {candidate.name} got {ours} right and {baseline.name} {theirs}."


def labels(comparison: Comparison) -> int:
    """Return the number of labelled cases that the difference rests on; 0 if on scores alone."""
    rests = comparison.method.startswith("prediction-powered")
    return sum(each.labels for each in comparison.judges if each.decides and rests)


def tuning_cost(comparison: Comparison, *, significant: bool = True) -> str:
    """Return one sentence on the significant changes of general ability by tuning, or the others.

    It is empty without such changes.
    """
    several = len(comparison.retention) > 1
    changes = [
        f"{f'{each.contender} has ' if several else ''}{_changed(contrast)}"
        for each in comparison.retention
        for contrast in each.contrasts.values()
        if is_significant(contrast) == significant
    ]
    if not changes:
        return ""
    begin = "Tuning changed the model beyond this task" if significant else "No change shown"
    return f"{begin}: {'; '.join(changes)}."


def _changed(contrast: Contrast) -> str:
    now, before, difference = contrast.candidate, contrast.baseline, contrast.difference
    if contrast.name == "general questions":
        change = f"{points(difference, sign=True)}, {interval(contrast.interval)}"
        right = f"{percent(now)} of {contrast.n} general questions right"
        return f"{right}, {percent(before)} before tuning ({change})"
    low, high = contrast.interval
    change = f"{difference:+.2f}, {low:.2f} to {high:.2f}"
    loss = f"a loss of {now:.2f} nats per token on general text"
    return f"{loss}, {before:.2f} before tuning ({change})"


def is_significant(contrast: Contrast) -> bool:
    """Return whether interval and adjusted p-value exclude that there is no difference."""
    low, high = contrast.interval
    return low * high > 0 and contrast.p_adjusted <= ALPHA


def figures(comparison: Comparison) -> str:
    """Return the figures behind the verdict in one line, for experts."""
    p = f"p={comparison.p_value:.2g}" if comparison.p_value else "p<1e-300"  # no p is 0
    use = comparison.use_of_test
    if use and use.p_adjusted != comparison.p_value:
        p += f" ({use.p_adjusted:.2g} adjusted)"
    times = ", first comparison on these cases" if use and use.is_first else ""
    people = f"{count} labelled; the judge: " if (count := labels(comparison)) else ""
    return (
        f"n={comparison.n}, {people}{comparison.gained} gained / {comparison.lost} lost, "
        f"{p}, margin \u00b1{points(comparison.margin)}{times}"
    )


def caveats(comparison: Comparison) -> tuple[str, ...]:
    """Return the caveats of the verdict."""
    leaks, caveats = comparison.leaks, list(filter(None, [comparison.caution]))
    judged = any(judge.decides for judge in comparison.judges)
    if leaks.action == "allow" and leaks.cases:
        tuned = any(result.type == "tuned" for result in comparison.contenders)
        caveats.append(
            f"{counted(len(leaks.cases), 'test case')} also in the training rows "
            f"({by_kind(case.kind for case in leaks.cases)}) and counted anyway (leaks: allow): "
            f"{'the tuned model' if tuned else 'a model trained on them'} may have memorised the "
            "answers."
        )
    if comparison.gate and comparison.gate.passed and comparison.verdict == "worse":
        caveats.append(
            f"The gate passed although the candidate is worse than {comparison.baseline}: its "
            f"{'threshold' if comparison.gate.mode == 'absolute' else 'margin'} allows that."
        )
    caveats += [
        f"The reference {result.name} is better than the candidate by "
        f"{points(-result.difference)}; references do not count for the verdict or the gate."
        for result in comparison.references
        if result.interval[1] < 0 and result.p_adjusted <= 1 - comparison.level
    ]
    caveats += [
        f"{result.name}: {counted(result.errors, 'case')} of {result.n:,} ended in an error; an "
        f"error counts {'for neither side' if judged else 'as a wrong answer'}."
        for result in comparison.contenders
        if result.errors
    ]
    if cut := ", ".join(
        f"{result.name} {result.cut:,} of {result.n:,}"
        for result in comparison.contenders
        if result.cut and f"{result.name}: {result.cut:,} of" not in (comparison.doubt or "")
    ):
        caveats.append(
            f"Answers cut off at max_tokens: {cut}. Raise evaluate.max_tokens if they should be "
            "longer."
        )
    if (both := comparison.answered) is not None:
        difference = f"{points(both.difference, sign=True)} ({interval(both.interval)})"
        cases = counted(both.n, "case")
        caveats.append(f"On the {cases} that both answered, the difference is {difference}.")
    return (*caveats, *comparison.notes)


def mood(comparison: Comparison) -> Literal["", "doubtful", "bad"]:
    """Return a page's mood: bad after a loss or if nothing is right, doubtful without a verdict.

    The gate has no influence: a gain stays a gain if the gate fails.
    """
    scores = [
        contender(comparison, name).score for name in (comparison.candidate, comparison.baseline)
    ]
    if comparison.verdict == "worse" or max(scores) <= 0:
        return "bad"
    return "doubtful" if comparison.doubt or comparison.verdict == "inconclusive" else ""


def swept(comparison: Comparison) -> str:
    """Return how the evaluated run of a sweep was chosen, in a sentence or two."""
    scored = [run for run in comparison.sweep if run.score is not None]
    left = len(comparison.sweep) - len(scored)
    failed = f"; {counted(left, 'run')} without a model left out" if left else ""
    return (
        f"Chosen among {counted(len(scored), 'run')} by {comparison.metric} on "
        f"{counted(max(run.rows for run in scored), 'dev row')}{failed}. Only the chosen run "
        "answered the test, because the selection score is optimistic."
    )


class Confused(NamedTuple):
    """Label that was given instead of another; empty for an answer without a label."""

    metric: str
    expected: str
    answered: str
    cases: int


def confusions(comparison: Comparison, limit: int) -> list[Confused]:
    """Return the most frequent confusions of the candidate, from its label scorers."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for metric, matrix in contender(comparison, comparison.candidate).confusion.items():
        for expected, row in matrix.counts.items():
            counts |= Counter({(metric, expected, x): n for x, n in row.items() if x != expected})
    return [Confused(*labels, n) for labels, n in counts.most_common(limit)]


def check(result: GateCheck) -> str:
    """Return the result of a gate check in a word or two."""
    return {0: "passed", 1: "failed", 3: "inconclusive", 4: "error", None: "not judged"}[
        result.exit_code
    ]


def regressions(comparison: Comparison) -> str:
    """Return how the candidate compares with its baseline file; empty without one."""
    sentences: list[str] = []
    for then in comparison.gate.regressions if comparison.gate else ():
        changes = f"; {counted(len(then.added), 'case')} added since" if then.added else ""
        if then.removed:
            removed = counted(len(then.removed), "case")
            changes += f"; {removed} no longer there, counted as wrong"
        sentences.append(
            f"Against {then.file}{' as first accepted' if then.first else ''}: "
            f"{points(then.difference, sign=True)} [{interval(then.interval, ', ')}] on "
            f"{counted(then.n, 'case')}, {then.gained:,} gained / {then.lost:,} lost{changes}."
        )
    return " ".join(sentences)


def measure(comparison: Comparison) -> str:
    """Return the beginning of a sentence that ends with `metric`."""
    return "The score is" if comparison.graded else "Right means"


def measured(comparison: Comparison) -> str:
    """Return an explanation of the contenders' figures in a sentence or two."""
    what = "Score over the test cases" if comparison.graded else "Share of test cases right"
    what = "The judge's own score, not calibrated by labels" if labels(comparison) else what
    return (
        f"{what}, with its {level(comparison)} interval. "
        f"{measure(comparison)}: {metric(comparison.metric)}."
    )


def metric(name: str) -> str:
    """Return what a scorer counts as right; for other than built-in scorers, its name."""
    entry = ENTRIES.get(name)
    return entry.words() if entry else f"the scorer {name} accepts the answer"
