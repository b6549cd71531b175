"""`unitune check`: what it prints of rows that are worth a look, and the page it writes of them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from support.command_line import Command
from support.job_files import write_job, write_rows


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file of 40 rows of two labels, of which the last contradicts the first."""
    chance = random.Random(4)  # noqa: S311 - repeatable, not secret
    words = {label: [f"{label}{at}" for at in range(9)] for label in ("card", "rate")}
    rows = [
        {"prompt": " ".join(chance.sample(words[label], 6)), "completion": label}
        for label in ("card", "rate") * 20
    ]
    rows.append({"prompt": f"{rows[0]['prompt']}!", "completion": "rate"})
    path = tmp_path / "rows.jsonl"
    write_rows(path, rows)
    return path


def test_rows_worth_a_look_are_printed_by_cause_beside_others(
    unitune: Command, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = unitune("check", file.name)

    assert done.code == 0
    assert "1 Nearly the same question with different answers" in done.out
    assert "rows.jsonl:41 " in done.out
    assert "next to rows.jsonl:1 " in done.out
    assert "No errors, 6 rows to review" in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_json_has_all_of_them(unitune: Command, file: Path) -> None:
    quality = json.loads(unitune("check", str(file), "--json").out)["quality"]

    assert (quality["rows"], quality["is_whole"]) == (41, True)
    assert {"contradictions", "label-errors"} <= {cause["code"] for cause in quality["causes"]}


def test_the_page_replaces_one_of_unitune_and_nothing_else(
    unitune: Command, file: Path, tmp_path: Path
) -> None:
    page, other = tmp_path / "check.html", tmp_path / "other.html"
    other.write_text("<p>mine</p>", encoding="utf-8")
    for _ in range(2):
        assert unitune("check", str(file), "--html", str(page)).code == 0
    assert "rows.jsonl:41" in page.read_text(encoding="utf-8")
    assert unitune("check", str(file), "--html", str(other)).code == 2
    assert other.read_text(encoding="utf-8") == "<p>mine</p>"


def job_with(folder: Path, rows: list[dict[str, str]], **data: object) -> str:
    write_rows(folder / "train.jsonl", rows)
    evaluate = {"scorers": ["exact"], "leaks": "drop"}
    write_job(folder, data={"train": "train.jsonl", **data}, evaluate=evaluate)
    return "unitune.yaml"


def rows_of(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_each_thing_is_listed_once_and_rows_of_the_test_are_counted_apart(
    unitune: Command, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    rows = rows_of(file)
    rows += [rows[2], {"prompt": rows[0]["prompt"], "completion": "rate"}]
    told = unitune("check", job_with(tmp_path, rows, test=0.3, validation=0.2)).out

    assert "43 rows: " in told
    assert "All 43 rows (13 of them for the test)" in told
    assert told.count("characters in a row: median ") == 1
    assert "has the input of" not in told
    assert "equals the one" not in told
    assert "Rows that are the same or nearly the same" in told
    assert "to train on were" not in told


def test_the_headline_counts_the_errors_which_come_last(
    unitune: Command, file: Path, tmp_path: Path
) -> None:
    rows = [*rows_of(file), {"prompt": "Where is it?", "completion": ""}]
    done = unitune("check", job_with(tmp_path, rows, test=0.3, validation=0.2))

    assert done.code == 2
    assert done.out.splitlines()[2].startswith("1 error, ")
    assert done.out.index("read as") < done.out.index("the answer is empty")


def test_several_right_answers_are_not_called_wrong(unitune: Command, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Write to customer {at % 20} about the plants.", "completion": text * 6}
        for at, text in enumerate(["Dear you, all is well. ", "Hello there, sorry to hear. "] * 20)
    ]
    rows += [{"prompt": rows[0]["prompt"], "completion": "Something else, quite another. " * 5}]
    told = unitune("check", job_with(tmp_path, rows)).out
    assert "Several answers may be right." in told
    assert "Decide which answer is right" not in told
