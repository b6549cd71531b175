from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from support.rows import job_on, write_rows

from unitune.data import check
from unitune.data.check import DataReport, check_file, read_job
from unitune.data.dataset import Row
from unitune.data.example import Example, Message
from unitune.data.families import Repeats
from unitune.data.load import load
from unitune.data.report import Lengths
from unitune.errors import DataError
from unitune.job.job import Data


def pair(prompt: str, completion: str, **more: str) -> str:
    return json.dumps({"prompt": prompt, "completion": completion, **more})


def write(folder: Path, *lines: str, name: str = "train.jsonl") -> Path:
    return write_rows(folder / name, lines)


def told(report: DataReport) -> list[tuple[str, str, str, int | None]]:
    return [
        (found.severity, found.code, Path(found.file or "").name, found.line)
        for found in report.findings
    ]


def test_a_file_is_counted(tmp_path: Path) -> None:
    chat = {
        "messages": [
            {"role": "system", "content": "12345"},
            {"role": "user", "content": "123"},
            {"role": "assistant", "content": "12"},
        ]
    }
    path = write(tmp_path, json.dumps(chat), pair("123456", "1234567890"))
    (file,) = check_file(path).files
    assert (str(path), None, 2, 5) == (file.name, file.purpose, file.rows, file.messages)
    assert file.roles == {"system": 1, "user": 2, "assistant": 2}
    assert file.characters is not None
    assert (file.characters.shortest, file.characters.longest) == (10, 16)


def test_a_clean_file_has_no_findings(tmp_path: Path) -> None:
    assert check_file(write(tmp_path, pair("a", "b"), pair("c", "b"))).findings == ()


def test_findings_of_reading_and_of_checking_stand_together_by_line(tmp_path: Path) -> None:
    path = write(tmp_path, pair("a", "b"), "broken", pair("a", "b"))
    report = check_file(path)
    assert told(report) == [
        ("error", "broken-json", "train.jsonl", 2),
        ("warning", "duplicate", "train.jsonl", 3),
    ]
    assert [found.code for found in report.errors] == ["broken-json"]


def test_rows_equal_in_all_but_their_id_are_duplicates(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        pair("a", "b", id="1"),
        pair("a", "b", grade="x"),
        pair("a", "b", id="2"),
        pair("a", "b"),
    )
    report = check_file(path)
    assert [(f.code, f.line) for f in report.findings] == [("duplicate", 3), ("duplicate", 4)]
    assert all("on line 1" in found.message for found in report.findings)
    assert report.files[0].duplicates == 2


def test_the_same_input_with_another_answer_is_a_contradiction_with_both_lines(
    tmp_path: Path,
) -> None:
    report = check_file(write(tmp_path, pair("a", "b"), pair("a", "c"), pair("x", "c")))
    assert told(report) == [("warning", "contradiction", "train.jsonl", 2)]
    assert "on line 1" in report.findings[0].message
    assert report.files[0].contradictions == 1


def test_another_system_prompt_or_other_tools_make_another_input(tmp_path: Path) -> None:
    def row(answer: str, system: str, tool: str) -> str:
        messages = [
            {"role": "system", "content": system},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": answer},
        ]
        return json.dumps({"messages": messages, "tools": [{"name": tool}]})

    path = write(tmp_path, row("1", "s", "t"), row("2", "z", "t"), row("3", "s", "u"))
    assert check_file(path).findings == ()


def test_an_id_given_to_two_rows_is_a_warning_and_an_error_among_test_cases(
    tmp_path: Path,
) -> None:
    rows = [pair("a", "b", id="1"), pair("c", "d", id="1")]
    write(tmp_path, *(pair(f"q{index}", "r") for index in range(90)))
    path = write(tmp_path, *rows, name="test.jsonl")
    assert told(check_file(path)) == [("warning", "repeated-id", "test.jsonl", 2)]
    report = read_job(job_on(tmp_path, Data(train="train.jsonl", test="test.jsonl"))).report
    assert told(report) == [("error", "repeated-id", "test.jsonl", 2)]


def test_of_many_findings_alike_some_are_listed_and_all_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "MOST_ALIKE", 2)
    report = check_file(write(tmp_path, *[pair("a", "b")] * 6, "broken"))
    assert [finding.code for finding in report.findings] == [
        "duplicate",
        "duplicate",
        "broken-json",
        "more-findings",
    ]
    assert report.files[0].duplicates == 5
    assert "3 more rows with 'duplicate'" in report.findings[-1].message


def test_blank_ids_are_none(tmp_path: Path) -> None:
    path = write(tmp_path, pair("a", "b", id=""), pair("c", "d", id=""))
    assert check_file(path).findings == ()


def test_half_of_a_character_is_checked_like_any_text() -> None:
    turns = (Message(role="user", content="a\ud800"), Message(role="assistant", content="b"))
    repeats = Repeats()
    for line in (1, 2):
        example = Example(messages=turns, id=str(line))
        repeats.add(Row(line, example), example.input_key)
    assert [found.code for _, found in repeats.findings(ids_are_cases=False)] == ["duplicate"]


def test_every_file_of_a_job_is_checked_with_its_purpose(tmp_path: Path) -> None:
    write(tmp_path, *(pair(f"q{index}", "r") for index in range(90)))
    write(tmp_path, pair("dev", "r"), name="dev.jsonl")
    write(tmp_path, "broken", name="test.jsonl")
    data = Data(train="train.jsonl", validation="dev.jsonl", test="test.jsonl")
    report = read_job(job_on(tmp_path, data)).report
    assert [(file.purpose, file.rows) for file in report.files] == [
        ("train", 90),
        ("validation", 1),
        ("test", 0),
    ]
    assert told(report) == [("error", "broken-json", "test.jsonl", 1)]


def test_a_mapping_of_the_job_is_used(tmp_path: Path) -> None:
    rows = [f"question {index},label" for index in range(90)]
    write(tmp_path, "text,label", *rows, name="train.csv")
    data = Data.model_validate(
        {"train": "train.csv", "columns": {"user": "text", "assistant": "label"}}
    )
    report = read_job(job_on(tmp_path, data)).report
    assert (report.findings, report.files[0].rows) == ((), 90)


def test_test_cases_in_train_are_refused_unless_the_job_says_otherwise(tmp_path: Path) -> None:
    write(tmp_path, *(pair(f"q{index}", "r") for index in range(90)))
    write(tmp_path, pair(" Q7 ", "R"), pair("q9", "other"), pair("new", "r"), name="test.jsonl")
    data = Data(train="train.jsonl", test="test.jsonl")
    report = read_job(job_on(tmp_path, data)).report
    assert told(report) == [
        ("error", "leak", "test.jsonl", 1),
        ("error", "leak", "test.jsonl", 2),
    ]
    same, other = report.findings
    assert "the same question is in train" in same.message
    assert "train.jsonl:8, with the same answer" in same.message
    assert "train.jsonl:10, with another answer" in other.message
    assert "Remove the row from one of the files" in same.fix
    dropping = read_job(job_on(tmp_path, data, evaluate={"leaks": "drop"})).report
    assert dropping.errors == ()
    assert "left out and counted" in dropping.findings[0].fix


def test_a_validation_file_is_held_against_train_and_test_against_both(tmp_path: Path) -> None:
    write(tmp_path, pair("a", "1"), pair("b", "1"))
    write(tmp_path, pair("b", "1"), pair("c", "1"), name="dev.jsonl")
    write(tmp_path, pair("c", "1"), pair("d", "1"), name="test.jsonl")
    data = Data(train="train.jsonl", validation="dev.jsonl", test="test.jsonl")
    report = read_job(job_on(tmp_path, data)).report
    assert told(report) == [
        ("error", "overlap", "dev.jsonl", 1),
        ("error", "leak", "test.jsonl", 1),
    ]
    assert "in validation" in report.findings[1].message


def test_rows_of_a_validation_file_that_stand_in_train_are_refused_dropped_or_kept(
    tmp_path: Path,
) -> None:
    write(tmp_path, pair("a", "1"), pair("b", "1"))
    write(tmp_path, pair("b", "1"), pair("c", "1"), name="dev.jsonl")
    data = Data(train="train.jsonl", validation="dev.jsonl")
    refused, dropped, kept = (
        read_job(job_on(tmp_path, data, evaluate={"leaks": action}))
        for action in ("refuse", "drop", "allow")
    )
    with pytest.raises(DataError, match="the same question is in train"):
        _ = refused.splits
    assert told(dropped.report) == told(kept.report) == [("warning", "overlap", "dev.jsonl", 1)]
    assert tuple(
        [example.messages[0].text for example in rows.splits.validation] for rows in (dropped, kept)
    ) == (["c"], ["b", "c"])


def test_tool_calls_that_differ_in_their_ids_are_the_same_answer(tmp_path: Path) -> None:
    def row(name: str, arguments: str) -> str:
        function = {"name": "book", "arguments": arguments}
        calls = [{"id": name, "type": "function", "function": function}]
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": calls}]
        return json.dumps({"messages": turns, "tools": [{"function": {"name": "book"}}]})

    same = write(tmp_path, row("call_1", '{"at": 15, "for": 2}'), row("2", '{"for": 2, "at": 15}'))
    assert told(check_file(same)) == [("warning", "duplicate", "train.jsonl", 2)]
    other = write(tmp_path, row("call_1", '{"at": 15}'), row("call_1", '{"at": 16}'))
    assert told(check_file(other)) == [("warning", "contradiction", "train.jsonl", 2)]


def test_weights_of_test_rows_are_said_to_count_for_nothing(tmp_path: Path) -> None:
    write(tmp_path, pair("a", "1"))
    weighted = json.dumps({"prompt": "b", "completion": "1", "weight": 2})
    write(tmp_path, weighted, pair("c", "1"), name="test.jsonl")
    data = Data(train="train.jsonl", validation="train.jsonl", test="test.jsonl")
    notes = [
        each for each in read_job(job_on(tmp_path, data)).report.findings if each.code != "overlap"
    ]
    assert [(each.severity, each.code) for each in notes] == [("note", "unused-weight")]
    assert notes[0].message.startswith("1 rows have a weight")


def test_train_too_small_to_cut_is_an_error_and_a_meagre_rest_a_warning(tmp_path: Path) -> None:
    write(tmp_path, *(pair(f"q{index}", "r") for index in range(30)))
    assert told(read_job(job_on(tmp_path, Data(train="train.jsonl"))).report) == [
        ("error", "too-few-rows", "train.jsonl", None)
    ]
    write(tmp_path, *(pair(f"q{index}", "r") for index in range(40)))
    report = read_job(job_on(tmp_path, Data(train="train.jsonl"))).report
    assert told(report) == [("warning", "small-train", "train.jsonl", None)]
    assert "leaves 10 to train on" in report.findings[0].message
    assert (
        read_job(job_on(tmp_path, Data(train="train.jsonl", validation=0.1))).report.findings == ()
    )


def test_keys_of_ones_own_are_counted_by_the_rows_that_have_them(tmp_path: Path) -> None:
    write(tmp_path, *(pair(f"q{at}", "r", topic="x", day=str(at)) for at in range(90)))
    (finding,) = read_job(job_on(tmp_path, Data(train="train.jsonl"))).report.findings
    assert (finding.code, finding.severity) == ("own-keys", "note")
    assert "'topic' (90 rows), 'day' (90 rows)" in finding.message


def test_the_report_is_one_json_object_with_its_schema_version(tmp_path: Path) -> None:
    report = check_file(write(tmp_path, pair("a", "b"), pair("a", "b")))
    printed = json.loads(report.model_dump_json())
    assert printed["schema_version"] == 1
    assert report == DataReport.model_validate(printed)


def test_a_missing_file_is_a_finding_and_no_exception(tmp_path: Path) -> None:
    report = check_file(tmp_path / "none.jsonl")
    assert ([f.code for f in report.findings], report.files[0].rows) == (["missing-file"], 0)
    assert report.files[0].characters is None


def test_a_share_in_per_cent_is_told_how_to_be_written(tmp_path: Path) -> None:
    (finding,) = check_file(tmp_path / "20%").findings
    assert finding.fix == "To use 20% of the training rows, write 0.2."


def test_lengths_are_the_shortest_the_median_and_the_longest() -> None:
    lengths = Lengths.of(Counter([*range(100), 5000]))
    assert Lengths(shortest=0, median=50, longest=5000) == lengths
    assert Lengths(shortest=42, median=42, longest=42) == Lengths.of({42: 7})


@pytest.mark.parametrize("validation", [None, 0.2, "validation.jsonl"])
def test_one_pass_checks_and_keeps_the_rows(tmp_path: Path, validation: str | float | None) -> None:
    rows = [pair(f"question {at % 60}", f"answer {at}") for at in range(80)]
    write(tmp_path, *rows)
    write(tmp_path, *(pair(f"held {at}", "answer") for at in range(9)), name="validation.jsonl")
    write(tmp_path, pair("question 3", "answer 3"), pair("new", "x"), name="test.jsonl")
    data = Data(train="train.jsonl", validation=validation, test="test.jsonl")
    made = job_on(tmp_path, data, evaluate={"leaks": "drop"})
    rows = read_job(made)
    splits = rows.splits
    assert read_job(made).report == rows.report
    assert {"contradiction", "leak"} <= {found.code for found in rows.report.findings}
    assert [("test.jsonl", leak.line) for leak in rows.leaks] == [("test.jsonl", 1)]
    train = load(tmp_path / "train.jsonl")
    kept = [
        *splits.train.rows,
        *(() if validation == "validation.jsonl" else splits.validation.rows),
    ]
    assert list(train.rows) == sorted(kept, key=lambda row: row.line)
    if validation == "validation.jsonl":
        assert load(tmp_path / "validation.jsonl") == splits.validation
    assert load(tmp_path / "test.jsonl") == splits.test


def test_where_a_row_cannot_be_used_there_are_no_splits(tmp_path: Path) -> None:
    write(tmp_path, *(pair(f"question {at}", "answer") for at in range(80)), '{"prompt": "only"}')
    rows = read_job(job_on(tmp_path, Data(train="train.jsonl")))
    assert [found.code for found in rows.report.errors] == ["missing-answer"]
    with pytest.raises(DataError, match=r"train\.jsonl:81"):
        _ = rows.splits


def test_rows_that_differ_in_the_order_of_their_keys_alone_are_duplicates(tmp_path: Path) -> None:
    one, other = '"prompt": "a", "completion": "b"', '"topic": 1, "level": 2'
    turned = '"level": 2, "topic": 1'
    path = write(tmp_path, f"{{{one}, {other}}}", f"{{{turned}, {one}}}")
    assert told(check_file(path)) == [("warning", "duplicate", "train.jsonl", 2)]
