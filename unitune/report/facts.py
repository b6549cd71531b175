"""List the figures of a comparison with names and meanings.

No statistic is computed here; every figure is from `Comparison`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

from unitune.data.overlap import by_kind
from unitune.evaluate.documents.records import ClauseResult
from unitune.evaluate.documents.results import Comparison, JudgeResult, Money, StyleFeature
from unitune.render.sections import Cell, Fact, Facts, Section, Table
from unitune.render.typography import counted, interval, moment, p_value, percent, points
from unitune.report.words import NO_PART, best_on_dev, labels, level, measure, metric

SMALL_USD = Decimal("0.01")


def evidence(comparison: Comparison) -> tuple[Fact, ...]:
    """Return the evidence of the verdict: the difference, and the cases behind it."""
    candidate, baseline = comparison.candidate, comparison.baseline
    difference, count = points(comparison.difference, sign=True), labels(comparison)
    people = f", by people's labels of {count:,} cases" if count else ""
    judge = "According to the judge. " if count else ""
    return (
        Fact("Difference", difference, f"{candidate} minus {baseline}{people}."),
        Fact(
            f"{level(comparison)} interval",
            interval(comparison.interval),
            "In points: the range that probably contains the true difference.",
        ),
        Fact(
            "Gained and lost",
            f"{comparison.gained:,} and {comparison.lost:,}",
            f"{judge}Cases where {candidate} scored higher, and cases where {baseline} did, "
            f"of {comparison.n:,}."
            if comparison.graded
            else f"Cases that only {candidate} got right, and cases that only {baseline} got "
            f"right, of {comparison.n:,}.",
        ),
    )


def judged_by(comparison: Comparison) -> Iterator[Fact]:
    """Yield the figures that decide the verdict on the difference."""
    unit = "label" if any(each.decides for each in comparison.judges) else "case"
    yield Fact("p-value", p_value(comparison.p_value), _chance(comparison.p_value))
    if (use := comparison.use_of_test) and use.p_adjusted != comparison.p_value:
        yield Fact("p-value, adjusted", p_value(use.p_adjusted), str(use))
    yield Fact(
        "Margin",
        f"\u00b1{points(comparison.margin)}",
        "Smaller differences do not matter for this job. To show that a difference is smaller "
        f"takes about {counted(comparison.cases_needed, unit)}; this test had {comparison.n:,}.",
    )
    yield Fact(
        "Minimum detectable difference",
        points(comparison.smallest_detectable),
        "A true difference of this size is found by four of five such tests; a smaller one is "
        "often missed.",
    )
    if comparison.spent_usd is not None:
        what = "All requests, on dev and on the test."
        yield Fact("Answers cost", _dollars(comparison.spent_usd), what)


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


def judging(comparison: Comparison) -> tuple[Fact, ...]:
    """Return the method of the verdict, for readers who want to check it."""
    rows = {
        measure(comparison): f"{metric(comparison.metric)} ({comparison.metric})",
        "Method": f"{comparison.method}, at {level(comparison)}; p = {comparison.p_value:.3g}",
    }
    if comparison.clusters is not None:
        rows["Clusters"] = (
            f"{comparison.clusters:,} for {comparison.n:,} cases; {comparison.design_effect:.2g} "
            "of them are worth one case that stands alone"
        )
    if comparison.use_of_test is not None:
        rows["Uses of the test"] = str(comparison.use_of_test)
    recorded = all(contender.type == "recorded" for contender in comparison.contenders)
    rows |= {
        "Baseline": _choice(comparison),
        "Test cases in the training rows": _leaks(comparison),
        "Base model": "none: every answer was recorded before"
        if recorded
        else f"{comparison.base_model}, on backend {comparison.backend}",
        "Run": comparison.run or "none: no contender was tuned here",
        "Date": moment(comparison.created),
    }
    return tuple(Fact(term, value) for term, value in rows.items())


def _choice(comparison: Comparison) -> str:
    count = len(comparison.baselines)
    if count < 2:
        return f"{comparison.baseline}, the only one"
    return (
        f"{comparison.baseline}, the hardest to beat of {count} on the test. "
        f"{best_on_dev(comparison)} is the best on {counted(comparison.dev_rows, 'dev row')}. "
        "Better, equivalent and not worse are claimed only where no baseline speaks against it, "
        "worse only against the one that dev chose"
    )


def _leaks(comparison: Comparison) -> str:
    leaks = comparison.leaks
    if not leaks.searched:
        return "not looked for: no contender was made from training rows"
    if not leaks.cases:
        return "none found"
    done = {"refuse": "refused", "drop": "left out of the test", "allow": "counted anyway"}
    kinds = by_kind(case.kind for case in leaks.cases)
    return f"{counted(len(leaks.cases), 'case')} ({kinds}), {done[leaks.action]}"


def judge(result: JudgeResult) -> tuple[Fact, ...]:
    """Return the known figures on how far a judge can be trusted."""
    agreement = first = ""
    if result.agreement is not None:
        agreement = f"kappa {_kappa(result.agreement)} ({_ends(result.agreement_interval)})"
    if result.first is not None and result.first_interval:
        first = f"{percent(result.first)} ({interval(result.first_interval)})"
    of_pairs = f"of {counted(result.pairs, 'pair')}" if result.compares else ""
    facts = (
        Fact(
            "Criterion" if result.compares else "Clauses",
            "" if result.clauses else "; ".join(each.rstrip(".") for each in result.criteria),
        ),
        Fact(
            "Stability",
            f"{result.changed} of {result.repeated} judgements changed",
            "Requested again in the same order. More than a third stops the comparison.",
        ),
        Fact(
            "Flips",
            of_pairs and f"{result.flips:,} {of_pairs}",
            "The same position was preferred in both orders. A flip counts as a tie.",
        ),
        Fact("Ties", of_pairs and f"{result.ties:,} {of_pairs}", "In one order or both."),
        Fact(
            "First position",
            first,
            "Share of preferences for the first of two answers; 50 % without a bias.",
        ),
        Fact(
            "At equal length",
            "" if result.length is None else percent(result.length),
            "Share won by the candidate if both answers were equally long.",
        ),
        Fact(
            "Agreement with people",
            agreement,
            f"Cohen's kappa on {counted(result.labels, 'labelled case')}: 1 is perfect, 0 chance.",
        ),
        Fact(
            "Without a judgement",
            f"{result.failed:,}" if result.failed else "",
            "Refused, cut off or unreadable. They count for neither side.",
        ),
        Fact("Requests", f"{result.requests:,}", f"To {result.model}."),
        Fact("Cost", "" if result.usd is None else _dollars(result.usd)),
    )
    return tuple(fact for fact in facts if fact.value)


def clause_table(clauses: Sequence[ClauseResult]) -> Table:
    """Return the table of a rubric's clauses with labels of people."""
    return Table(
        ["Clause", "#Labelled", "#Pass: people", "#Pass: judge", "#Kappa"],
        [
            [
                each.clause,
                f"{each.labels:,}",
                percent(each.people),
                percent(each.judge),
                Cell(_kappa(each.agreement), _ends(each.agreement_interval)),
            ]
            for each in clauses
        ],
        "Agreement of the judge with people by clause, over the answers of all contenders; Cohen's "
        "kappa is 1 if they always agree, and 0 if they agree as often as at random",
    )


def _kappa(value: float | None) -> str:
    return "\u2013" if value is None else f"{value:.2f}".replace("-", "\u2212")


def _ends(interval: tuple[float, float] | None) -> str:
    return " to ".join(map(_kappa, interval)) if interval else "all verdicts are equal"


def economics(money: Money) -> tuple[Fact, ...]:
    """Return the known figures on whether the candidate is worth its cost."""
    pay_back = "" if money.pay_back in (None, "after") else str(money.pay_back)
    if money.break_even_answers is not None:
        pay_back = f"after {counted(money.break_even_answers, 'answer')}"
    facts = (
        Fact("Worth it?", money.worth or "", "Quality and cost together, case by case."),
        _extra(money),
        Fact("Pays for itself", pay_back, "By cheaper answers alone, whatever they say."),
        Fact("One more right answer costs", _usd(money.usd_per_extra_right)),
        Fact(
            "Net benefit of an answer",
            _usd(money.net_usd, money.net_interval_usd),
            "What it is worth that more are right, less what they cost more.",
        ),
        Fact(
            "Worth it from",
            _usd(money.smallest_worth_usd),
            "If one more right answer is worth so much or more.",
        ),
    )
    return tuple(fact for fact in facts if fact.value)


def _extra(money: Money) -> Fact:
    """Return by how much an answer is cheaper or more expensive than the baseline's, unsigned."""
    extra, (low, high), sides = money.extra_usd, money.extra_interval_usd, ("more", "cheaper")
    if extra < 0:
        low, high, sides = high and -high, low and -low, ("less", "dearer")
    crosses = low is not None and low < 0
    return Fact(
        f"An answer costs {sides[0]} by",
        _usd(abs(extra), (low, high)),
        f"Below zero, it is {sides[1]} than the baseline's." if crosses else "",
    )


def _usd(amount: Decimal | None, ends: tuple[Decimal | None, Decimal | None] | None = None) -> str:
    """Return an amount; for one far below a cent, the amount for a thousand answers."""
    if amount is None:
        return ""
    times = 1000 if abs(amount) < SMALL_USD else 1
    unit = " per 1,000" if times > 1 else ""
    text = f"{_dollars(times * amount)}{unit}"
    if ends is None:
        return text
    low, high = ("unbounded" if end is None else _dollars(times * end) for end in ends)
    return f"{text} ({low} to {high})"


def _dollars(amount: Decimal) -> str:
    """Return an amount with two significant digits, or whole cents from a dollar upwards."""
    size = abs(amount)
    digits = 2 if size >= 1 or not size else 1 - size.adjusted()
    return f"{'-' if amount < 0 else ''}${size:,.{digits}f}"


MEANINGS = {
    "pass_k": "pass^k: chance that k answers to one case are all right.",
    "unstable": "unstable: share of cases that are sometimes right and sometimes wrong.",
    "stability": "stable_...: share of cases whose score stays under a harmless change.",
}
FAR = 2.0  # deviation of a feature that is marked, in units of the training answers' own


def sections(comparison: Comparison) -> Iterator[Section]:
    """Yield the sections of the simulated user, of measures and of style, if there are any."""
    if user := comparison.simulated_user:
        cost = [] if user.usd is None else [Fact("Cost", _dollars(user.usd))]
        failed = "Their dialogues are errors, which count for neither side."
        known = [
            Fact("Model", user.model, f"{user.settings.capitalize()}."),
            Fact("Messages", f"{user.requests:,}", "To all contenders, on dev and on the test."),
            *([Fact("Failed", f"{user.failed:,}", failed)] if user.failed else []),
            *cost,
        ]
        yield Section("The simulated user", [Facts(known)])
    if comparison.measured:
        yield Section("Measures", [differences(comparison)])
    if comparison.style:
        yield Section("Style", [*style(comparison)])


def differences(comparison: Comparison) -> Table:
    """Return the table of the paired differences of all measures, in their own units."""
    types = {each.type for each in comparison.measured}
    meanings = [meaning for kind, meaning in MEANINGS.items() if kind in types]
    sides = f"#{comparison.baseline}", f"#{comparison.candidate}"
    return Table(
        ["Measure", *sides, "#Difference", "#Cases", "#p", "#p,\nadjusted"],
        [
            [
                each.name,
                figure(each.baseline),
                figure(each.candidate),
                Cell(
                    f"{each.difference:+.3g}",
                    " to ".join(f"{end:+.3g}" for end in each.interval),
                    strong=True,
                ),
                f"{each.n:,}",
                p_value(each.p_value),
                p_value(each.p_adjusted),
            ]
            for each in comparison.measured
        ],
        f"{comparison.candidate} minus {comparison.baseline}, mean of a case, with the "
        f"{level(comparison)} interval. {' '.join([*meanings, NO_PART])}",
    )


def style(comparison: Comparison) -> Iterator[str | Table]:
    """Yield a sentence on the distance of both sides from the house's style, and its features."""
    distance = next((each for each in comparison.measured if each.type == "style"), None)
    if distance is not None:
        low, high = distance.interval
        yield (
            f"{comparison.candidate} {distance.candidate:.1f}, {comparison.baseline} "
            f"{distance.baseline:.1f}: difference {distance.difference:+.1f} [{low:+.1f}, "
            f"{high:+.1f}]. 1.0 is the distance of held-out training answers to the others."
        )
    names = [comparison.candidate, comparison.baseline]
    names += [each.name for each in comparison.contenders if each.name not in names]
    seen = [each for each in comparison.style if each.house or any(each.means.values())]
    yield Table(
        ["Feature", "#Training\nanswers", *(f"#{name}" for name in names)],
        [
            [each.name, _mean(each.house), *(_feature(each, name) for name in names)]
            for each in sorted(seen, key=lambda each: -max(each.deviations.values()))
        ],
        "Mean of an answer, with its deviation in units of the training answers' own (at most 5)",
    )


def _feature(feature: StyleFeature, contender: str) -> str | Cell:
    if contender not in feature.means:
        return "\u2013"
    mean, deviation = feature.means[contender], feature.deviations[contender]
    return Cell(_mean(mean), f"{deviation:.1f}", tone="doubtful" if deviation >= FAR else "")


def _mean(value: float) -> str:
    return f"{value:.3g}" if abs(value) >= 1 else f"{value:.2f}"


def figure(value: float) -> str:
    """Return the value of a measure."""
    return f"{value:.4g}"
