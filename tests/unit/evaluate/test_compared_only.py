"""A job without training rows is compared all the same, and recorded scores count as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unitune.backends.output_limit import longest_expected
from unitune.data.check import read_job
from unitune.data.example import Example, Message
from unitune.errors import DataError, JobError
from unitune.evaluate.compare import compare
from unitune.evaluate.scoring.scorers import build
from unitune.job.job import Job
from unitune.scorers.functions import RecordedScore
from unitune.scorers.interface import Attempt

CASE = Example(messages=(Message(role="user", content="?"),), id="a")


def job(folder: Path, evaluate: str, *, expected: str | None = "yes") -> Job:
    row = {"messages": [{"role": "user", "content": "Is it?"}], "id": "a", "expected": expected}
    kept = {key: value for key, value in row.items() if value is not None}
    (folder / "test.jsonl").write_text(json.dumps(kept) + "\n")
    file = folder / "unitune.yaml"
    file.write_text(
        f"name: demo\nmodel: m\nbackend: fake\ndata: {{test: test.jsonl}}\nevaluate: {evaluate}\n"
    )
    return Job.load(file)


def test_a_recorded_score_is_the_one_beside_the_answer() -> None:
    scorer = build(RecordedScore(key="judge"))
    assert scorer.score(Attempt(CASE, "x", given={"judge": 0.75})).value == 0.75
    missing = scorer.score(Attempt(CASE, "x", given={"match": 1.0}))
    assert missing.failed
    assert missing.reason == "score 'judge' is missing with the recorded answer; available: match"
    assert scorer.score(Attempt(CASE, "x", given={"judge": 7.0})).failed
    assert scorer.score(Attempt(CASE, "x", given={"judge": float("nan")})).failed


def test_without_training_rows_the_cases_alone_are_read(tmp_path: Path) -> None:
    found = job(tmp_path, "{contenders: [zero-shot, {type: tuned}]}")
    splits = read_job(found).splits
    assert (len(splits.train), len(splits.validation), len(splits.test or ())) == (0, 0, 1)
    assert [Path(file.name).stem for file in read_job(found).report.files] == ["test"]


@pytest.mark.parametrize(
    ("contenders", "named"),
    [
        ("[zero-shot, tuned]", "tuned"),
        ("[{type: zero-shot, role: candidate}, few-shot]", "few-shot"),
        ("[{type: zero-shot, role: candidate}, instructed]", "instructed"),
    ],
)
def test_what_is_made_from_training_rows_needs_some(
    tmp_path: Path, contenders: str, named: str
) -> None:
    with pytest.raises(JobError, match=f"has no training rows, which {named} needs"):
        compare(job(tmp_path, f"{{contenders: {contenders}}}"))


def test_cases_need_no_expected_answer_where_no_scorer_looks_at_it(tmp_path: Path) -> None:
    scorers = "{scorers: [{type: regex, pattern: ye}, json_valid]}"
    assert len(read_job(job(tmp_path, scorers, expected=None)).splits.test or ()) == 1
    assert read_job(job(tmp_path, scorers, expected=None)).report.findings == ()
    with pytest.raises(DataError, match="the row has no answer"):
        _ = read_job(job(tmp_path, "{scorers: [exact]}", expected=None)).splits


def test_answers_get_room_for_the_longest_expected_one(tmp_path: Path) -> None:
    found = job(tmp_path, "{}", expected="x" * 100)
    assert longest_expected(read_job(found).splits.test or ()) == 50
