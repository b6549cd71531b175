"""Several files read as one: by a list or a pattern, each row at its own file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.rows import job_on

from unitune.data.check import read_job
from unitune.data.load import Files, Reading
from unitune.errors import JobError
from unitune.job.job import Job

DATA = {"train": ["a.jsonl", "more/*.csv"], "test": "test-*.jsonl", "validation": ["v.jsonl"]}


def write(path: Path, *prompts: str) -> None:
    path.parent.mkdir(exist_ok=True)
    rows = [{"prompt": f"What is {prompt}?", "completion": prompt} for prompt in prompts]
    if path.suffix == ".csv":
        lines = ["prompt,completion", *(f"{row['prompt']},{row['completion']}" for row in rows)]
    else:
        lines = [json.dumps(row) if row["completion"] else "broken" for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def job(folder: Path, **data: object) -> Job:
    write(folder / "a.jsonl", "apple", "bread")
    write(folder / "more" / "b.csv", "candle", "dragon")
    write(folder / "more" / "c.csv", "elephant")
    write(folder / "v.jsonl", "flute")
    write(folder / "test-1.jsonl", "guitar")
    write(folder / "test-2.jsonl", "harbour", "island")
    return job_on(folder, {**DATA, **data})


def test_rows_of_all_files_are_read_in_order(tmp_path: Path) -> None:
    read = read_job(job(tmp_path))
    assert not read.report.errors
    assert [example.answer for example in read.splits.train] == [
        "apple",
        "bread",
        "candle",
        "dragon",
        "elephant",
    ]
    assert [file.rows for file in read.report.files] == [5, 1, 3]
    assert read.report.files[0].name == f"{tmp_path / 'a.jsonl'} and 2 more"
    assert (
        read.report.files[0].read_as
    ) == "JSON Lines and a table separated by commas: pairs from prompt, completion"


def test_each_row_has_its_own_file_and_line(tmp_path: Path) -> None:
    splits = read_job(job(tmp_path)).splits
    assert [splits.train.place(row) for row in splits.train.rows] == [
        ("a.jsonl", 1),
        ("a.jsonl", 2),
        ("b.csv", 2),
        ("b.csv", 3),
        ("c.csv", 2),
    ]
    assert splits.test is not None
    assert [splits.test.place(row) for row in splits.test.rows] == [
        ("test-1.jsonl", 1),
        ("test-2.jsonl", 1),
        ("test-2.jsonl", 2),
    ]


def test_findings_name_the_file_and_the_line_there(tmp_path: Path) -> None:
    wanted = job(tmp_path)
    write(tmp_path / "more" / "c.csv", "apple", "bread")
    write(tmp_path / "test-2.jsonl", "", "candle")
    read = read_job(wanted)
    found = {(each.code, Path(each.file or "").name, each.line) for each in read.report.findings}
    assert found >= {
        ("duplicate", "c.csv", 2),
        ("duplicate", "c.csv", 3),
        ("broken-json", "test-2.jsonl", 1),
        ("leak", "test-2.jsonl", 2),
    }
    messages = "\n".join(str(each) for each in read.report.findings)
    assert "equals the one on line 2 of a.jsonl." in messages
    assert f"is in train, {tmp_path / 'more' / 'b.csv'}:2, with the same answer" in messages
    assert [(leak.train_file, leak.train_line) for leak in read.leaks] == [("b.csv", 2)]


def test_a_pattern_that_fits_nothing_is_a_missing_file(tmp_path: Path) -> None:
    (found,) = read_job(job(tmp_path, train="no-*.jsonl")).report.errors
    assert (found.code, Path(found.file or "").name) == ("missing-file", "no-*.jsonl")


def test_lists_are_saved_as_lists_that_mean_the_same_files(tmp_path: Path) -> None:
    wanted = job(tmp_path)
    (tmp_path / "sub").mkdir()
    wanted.save(tmp_path / "sub" / "job.yaml")
    again = Job.load(tmp_path / "sub" / "job.yaml")
    assert again.data.train == ("../a.jsonl", "../more/*.csv")
    assert len(read_job(again).splits.train) == 5


def test_an_empty_list_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("name: j\nmodel: m\nbackend: b\ndata: {train: []}\n")
    with pytest.raises(JobError, match="train"):
        Job.load(tmp_path / "job.yaml")


def test_an_error_in_the_last_rows_of_a_file_moves_no_row_of_the_next(tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl", "", "apple", "")
    write(tmp_path / "y.jsonl", "", "bread")
    files = Files([str(tmp_path / name) for name in ("x.jsonl", "y.jsonl")])
    items = list(files.read(None, "case", Reading()))
    places = [files.place(item.line) for item in items if item.line and not hasattr(item, "code")]
    assert [(Path(p.file).name, p.line) for p in places] == [("x.jsonl", 2), ("y.jsonl", 2)]
