"""A judge's comparison is reviewed, and its verdict then rests on the reviewer's labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unitune.evaluate.compare import compare
from unitune.evaluate.documents.history import keep
from unitune.evaluate.review.queue import Item, Review
from unitune.job.job import Job
from unitune.models import Request
from unitune.report import files

from .test_judge import CLAUSES, CONTENDERS, PAIR, RUBRIC, answers, better, judged


def test_reviewed_cases_calibrate_the_judge_of_the_next_comparison(
    make_job: Callable[..., Job], backend_of: Any, tmp_path: Path
) -> None:
    backend_of(answers(lambda n: f"no {n}", lambda n: f"yes {n + 1}", better))
    first = judged(make_job, PAIR, tmp_path)
    assert first.verdict == "inconclusive"
    review = Review(keep(first), tmp_path / "labels.jsonl", "ana", 40)
    for case in review.draw.cases[:40]:  # ana prefers the baseline, against the judge
        item = Item(case, "first")
        review.write(item, "right" if review.candidate_is_left(item) else "left")
    assert len(review.look().disagreements) == 40
    job = make_job(
        {"scorers": [PAIR], "contenders": CONTENDERS, "labels": "labels.jsonl"},
        test=[(f"test {at}", "yes") for at in range(60)],
    )
    second = compare(job)
    assert second.judges[0].labels == 40
    assert second.verdict == "worse"


def test_clause_by_clause_labels_calibrate_a_rubric(
    make_job: Callable[..., Job], backend_of: Any, tmp_path: Path
) -> None:
    """The judge finds every answer polite; ana does not find the candidate's so."""

    def passes(_: Request) -> str:
        each = {"reasons": "so it is", "verdict": "pass"}
        return json.dumps({"clause_1": each, "clause_2": each})

    backend_of(answers(lambda n: f"no {n}", lambda n: f"yes {n + 1}", passes))
    first = judged(make_job, RUBRIC, tmp_path)
    assert first.cases[0].clauses == tuple(CLAUSES)
    review = Review(keep(first), tmp_path / "labels.jsonl", "ana", 40)
    for item in review.look().items:
        polite = "pass" if item.contender == first.baseline else "fail"
        review.write(item, (polite, "pass"))
    assert len(review.look().disagreements) == 40
    second = judged(make_job, RUBRIC, tmp_path, labels_file="labels.jsonl")
    (result,) = second.judges
    assert (result.labels, second.verdict) == (40, "worse")
    assert [(each.labels, each.people, each.judge) for each in result.clauses] == [
        (80, 0.5, 1.0),
        (80, 1.0, 1.0),
    ]
    report = files.markdown_summary(second)
    assert "is polite" in report
    assert "50.0 %" in report.replace("\u202f", " ").replace("\u00a0", " ")
