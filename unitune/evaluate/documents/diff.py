"""Compare two comparisons of the history: what each contender gained and lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from unitune.documents import Closed
from unitune.evaluate.documents.records import CaseResult, Difference
from unitune.evaluate.documents.results import Comparison
from unitune.evaluate.statistics.paired import compare_paired
from unitune.evaluate.statistics.significance import holm
from unitune.evaluate.verdict.baseline import LEAST_OVERLAP

LEAST_PAIRS = 2


class PairedDiff(Difference):
    """Paired difference of a contender on the cases with a complete answer in both."""

    p_adjusted: float
    """P-value adjusted for all contenders together by Holm's method."""
    gained: tuple[str, ...]
    """Ids of cases that scored higher now, in the order of the cases."""
    lost: tuple[str, ...]
    left_out: int
    """Cases in both with an error or a cut-off answer in either."""


class ContenderDiff(Closed):
    """One contender in two comparisons."""

    name: str
    then: float | None
    """Score in the first comparison, or None if it is not in it."""
    now: float | None
    paired: PairedDiff | None
    """Paired difference, or None if it cannot be paired."""


class Change(Closed):
    """Changed input of the results; None where a comparison lacks it."""

    name: str
    then: str | None
    now: str | None


class ComparisonDiff(Closed):
    """Changes from the first comparison to the second."""

    schema_version: Literal[1] = 1
    then: str | None
    """Id of the first comparison."""
    now: str | None
    unpaired: str | None
    """Reason why contenders cannot be paired case by case, or None."""
    contenders: tuple[ContenderDiff, ...]
    changes: tuple[Change, ...]
    """Changed models, trainings, scorers, cases and versions."""


def diff(then: Comparison, now: Comparison) -> ComparisonDiff:
    """Return what changed from one comparison to another."""
    old, new = ({each.name: each.score for each in one.contenders} for one in (then, now))
    pairs = _same_cases(then, now)
    unpaired = _unpaired(then, now, pairs)
    both = [name for name in new if name in old] if unpaired is None else []
    paired = {name: made for name in both if (made := _paired(name, now, pairs))}
    adjusted = holm([each.p_value for each in paired.values()])
    for name, p in zip(paired, adjusted, strict=True):
        paired[name] = paired[name].model_copy(update={"p_adjusted": p})
    return ComparisonDiff(
        then=then.id,
        now=now.id,
        unpaired=unpaired,
        contenders=tuple(
            ContenderDiff(name=name, then=old.get(name), now=new.get(name), paired=paired.get(name))
            for name in dict.fromkeys((*new, *old))
        ),
        changes=tuple(_changes(then.provenance, now.provenance)),
    )


def _same_cases(then: Comparison, now: Comparison) -> list[tuple[CaseResult, CaseResult]]:
    before = {case.id: case for case in then.cases}
    pairs = ((before[case.id], case) for case in now.cases if case.id in before)
    return [
        (old, new)
        for old, new in pairs
        if (old.messages, old.expected) == (new.messages, new.expected)
    ]


def _unpaired(then: Comparison, now: Comparison, pairs: Sequence[object]) -> str | None:
    metric, scorer = now.metric, f"Scorer {now.metric}"
    if then.metric != metric:
        return f"the first is scored by {then.metric}, the second by {metric}"
    if then.provenance.get(scorer) != now.provenance.get(scorer):
        return f"the scorer {metric} has changed"
    if not (then.per_case and now.per_case):
        return f"{metric} is computed over all cases together and does not score single cases"
    most = max(len(then.cases), len(now.cases))
    if len(pairs) < max(LEAST_PAIRS, LEAST_OVERLAP * most):
        return (
            f"the first has {len(then.cases):,} cases and the second {len(now.cases):,}, but only "
            f"{len(pairs):,} are the same; pairing requires {100 * LEAST_OVERLAP:.0f} %"
        )
    return None


def _paired(
    name: str, now: Comparison, pairs: Iterable[tuple[CaseResult, CaseResult]]
) -> PairedDiff | None:
    of_both = [(old.answers[name], new.answers[name], new) for old, new in pairs]
    known = [each for each in of_both if each[0].known and each[1].known]
    if len(known) < LEAST_PAIRS:
        return None
    before = [old.scores[now.metric] for old, _, _ in known]
    after = [new.scores[now.metric] for _, new, _ in known]
    clusters = [case.cluster or case.id for _, _, case in known]
    result = compare_paired(
        before,
        after,
        clusters=clusters if len(set(clusters)) < len(clusters) else None,
        margin=now.margin,
        level=now.level,
    )
    changes = [(case.id, b - a) for (_, _, case), a, b in zip(known, before, after, strict=True)]
    return PairedDiff(
        **Difference.figures(result),
        p_adjusted=result.p_value,
        gained=tuple(case for case, change in changes if change > 0),
        lost=tuple(case for case, change in changes if change < 0),
        left_out=len(of_both) - len(known),
    )


def _changes(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Change]:
    for name in dict.fromkeys((*now, *then)):
        if then.get(name) != now.get(name):
            yield Change(name=name, then=then.get(name), now=now.get(name))
