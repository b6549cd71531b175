from __future__ import annotations

import csv
from pathlib import Path

import pytest
from support.rows import job_on

from unitune.data.check import read_job

BANKING77 = Path(__file__).parents[3] / "../shared/data/banking77"


def _plain_questions(name: str) -> list[str]:
    with (BANKING77 / name).open(encoding="utf-8", newline="") as file:
        return [" ".join(row["text"].lower().split()) for row in csv.DictReader(file)]


@pytest.mark.heavy
@pytest.mark.skipif(not BANKING77.is_dir(), reason="needs the banking77 files beside the checkout")
def test_a_real_file_is_read_whole_checked_and_split() -> None:
    columns = {"user": "text", "assistant": "category"}
    job = job_on(BANKING77, {"train": "train.csv", "test": "test.csv", "columns": columns})
    report = read_job(job).report
    assert {found.code for found in report.errors} == {"leak"}
    # Row counts as published with the files, by PolyAI: 10,003 and 3,080.
    assert [(file.purpose, file.rows) for file in report.files] == [
        ("train", 10_003),
        ("test", 3_080),
    ]
    # The published split leaks: some questions differ in case or white space alone.
    train = set(_plain_questions("train.csv"))
    shared = sum(question in train for question in _plain_questions("test.csv"))
    assert shared > 0
    kinds = report.files[1].shared
    assert shared == kinds["exact"]
    # Counted once with a comparison of all pairs; each of the 138 is a finding.
    assert kinds == {"exact": 7, "near-duplicate": 129, "n-gram": 2}
    assert sum(found.code == "leak" for found in report.findings) == 138
    splits = read_job(job).splits
    assert len(splits.validation) == 1001 - 4  # those are nearly in the rows to train on
    held = {example.input_key for example in splits.validation}
    assert held.isdisjoint(example.input_key for example in splits.train)
