"""A judge's comparison is reviewed, and its verdict then rests on the reviewer's labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from unitune.evaluate.compare import compare
from unitune.evaluate.history import keep
from unitune.evaluate.review import Item, Review
from unitune.job.job import Job

from .test_judge import CONTENDERS, PAIR, answers, better, judged


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
