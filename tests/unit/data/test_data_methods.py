"""What a row must have depends on the job's method, and on whether it is trained on or judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.rows import job_on, write_rows

from unitune.data.check import read_job
from unitune.errors import DataError
from unitune.job.job import Job, Method


def answered(index: int) -> dict[str, Any]:
    return {"prompt": f"q{index}", "completion": "a"}


def pair(index: int) -> dict[str, Any]:
    return {"prompt": f"q{index}", "chosen": "a", "rejected": "b"}


def question(index: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"q{index}"}], "reference": index}


KINDS = {"answered": answered, "pair": pair, "question": question}


def job(folder: Path, method: Method, kind: str, test: str = "answered") -> Job:
    for name, made, first in (("train", kind, 0), ("dev", kind, 10), ("test", test, 20)):
        write_rows(folder / f"{name}.jsonl", (KINDS[made](first + index) for index in range(3)))
    data = {"train": "train.jsonl", "validation": "dev.jsonl", "test": "test.jsonl"}
    return job_on(folder, data, method=method)


def told(job: Job) -> set[tuple[str, str]]:
    found = read_job(job).report.errors
    return {(Path(finding.file or "").name, finding.code) for finding in found}


@pytest.mark.parametrize(
    ("method", "kind"),
    [("sft", "answered"), ("dpo", "pair"), ("rft", "question"), ("rft", "answered")],
)
def test_rows_that_fit_the_method_are_used(tmp_path: Path, method: Method, kind: str) -> None:
    fitting = job(tmp_path, method, kind)
    assert set() == told(fitting)
    splits = read_job(fitting).splits
    assert (len(splits.train), len(splits.validation)) == (3, 3)


@pytest.mark.parametrize(
    ("method", "kind", "code"),
    [
        ("sft", "pair", "preference-row"),
        ("sft", "question", "missing-answer"),
        ("dpo", "answered", "not-a-preference"),
        ("dpo", "question", "not-a-preference"),
        ("rft", "pair", "preference-row"),
    ],
)
def test_rows_that_do_not_fit_are_errors_in_train_and_validation(
    tmp_path: Path, method: Method, kind: str, code: str
) -> None:
    misfit = job(tmp_path, method, kind)
    assert told(misfit) == {("train.jsonl", code), ("dev.jsonl", code)}
    assert len(read_job(misfit).report.errors) == 6
    with pytest.raises(DataError) as caught:
        _ = read_job(misfit).splits
    assert code in {finding.code for finding in caught.value.findings}


@pytest.mark.parametrize("method", ["sft", "dpo", "rft"])
def test_cases_need_an_answer_by_any_method(tmp_path: Path, method: Method) -> None:
    kind = {"sft": "answered", "dpo": "pair", "rft": "question"}[method]
    assert set() == told(job(tmp_path, method, kind, test="pair"))
    assert told(job(tmp_path, method, kind, test="question")) == {("test.jsonl", "missing-answer")}


def test_the_error_about_a_preference_says_what_to_do(tmp_path: Path) -> None:
    (first, *_) = read_job(job(tmp_path, "sft", "pair")).report.errors
    assert "Set `method: dpo`" in first.fix
