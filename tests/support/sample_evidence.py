"""Evidence for a gate whose figures a test chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from unitune.evaluate.documents.records import Answer
from unitune.evaluate.documents.results import Regression, VerdictName
from unitune.evaluate.statistics.intervals import Interval
from unitune.evaluate.statistics.paired import LEVEL, Verdict
from unitune.evaluate.verdict.baseline import Requirements
from unitune.evaluate.verdict.gate import Evidence

METRIC = "exact"
Ends = tuple[float, float]
Required = Sequence[tuple[str, Sequence[float | None]]]


def evidence(
    *,
    verdict: VerdictName = "inconclusive",
    interval: Ends = (-0.1, 0.1),
    margin: float = 0.05,
    own_interval: Ends = (0.4, 0.6),
    n: int = 100,
    errors: int = 0,
    totals: Mapping[str, float | None] | None = None,
    required: Required = (),
    regressions: tuple[Regression, ...] = (),
    accepting: bool = False,
) -> Evidence:
    """Return evidence in which all answers are known.

    Args:
        verdict: Of candidate against the best baseline.
        interval: Of their difference.
        margin: Difference too small to matter.
        own_interval: Of the candidate's own score.
        n: Cases.
        errors: Cases in error.
        totals: The candidate's total by every scorer and measure.
        required: Ids of required cases with the candidate's scores, one a repeat.
        regressions: Against the baseline file.
        accepting: Whether the candidate's scores become the baseline.
    """
    primary = SimpleNamespace(name=METRIC)
    task = SimpleNamespace(
        cases=[SimpleNamespace(case_id=case) for case, _ in required],
        scoring=SimpleNamespace(primary=primary),
    )
    candidate = SimpleNamespace(
        task=task,
        repeats=[[_answer(score) for score in scores] for _, scores in required],
        totals=totals or {},
    )
    reading = SimpleNamespace(
        hardest=SimpleNamespace(candidate=candidate, margin=margin, candidate_ends=own_interval),
        best=SimpleNamespace(interval=Interval(*interval, LEVEL)),
        paired=SimpleNamespace(n=n),
        errors=errors,
        cut="",
        uninformative=None,
    )
    judgement = SimpleNamespace(scored=reading, others=(), verdict=Verdict(verdict), doubt=None)
    cases = frozenset(case for case, _ in required)
    stub: Any = judgement, reading
    return Evidence(stub[0], Requirements(cases, None, accepting), ((stub[1], regressions),))


def _answer(score: float | None) -> Answer:
    if score is None:
        return Answer(text="", scores={METRIC: 0.0}, error="no answer")
    return Answer(text="", scores={METRIC: score})
