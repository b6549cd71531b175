"""Labels of people: files of every kind, and what is refused with file, line and value."""

from __future__ import annotations

from pathlib import Path

import pytest

from unitune.data.labels import (
    Label,
    answers_digest,
    append_label,
    labels_of_cases,
    mean_verdict,
    mend_labels,
    read_all_labels,
    read_labels,
)
from unitune.errors import DataError, UserError
from unitune.evaluate.documents.records import Answer
from unitune.models import function_call

ANSWERS = {"a": "d1" * 6, "b": "d2" * 6, "7": "d3" * 6}


def written(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.jsonl", '{"case": "a", "reviewer": "ana", "verdict": "win", "note": "short"}\n'),
        ("l.jsonl", '{"case":"a","reviewer":"ana","verdict":" WIN ","note":"short"}'),
        ("l.csv", "case,reviewer,verdict,note\na,ana,win,short\n"),
        ("l.csv", "Case;Reviewer;Verdict;Note;Colour\na;ana;Win;short;red\n"),
        ("l.tsv", "verdict\tcase\treviewer\tnote\nwin\ta\tana\tshort\n"),
        ("l.json", '[{"case": "a", "reviewer": "ana", "verdict": "win", "note": "short"}]'),
    ],
)
def test_every_format_gives_the_same_label(tmp_path: Path, name: str, text: str) -> None:
    (label,) = read_labels(written(tmp_path, text, name))
    assert label == Label(case="a", reviewer="ana", verdict="win", note="short")
    assert label.value == 1.0


def test_rows_of_other_programs_may_have_nulls_and_numbers(tmp_path: Path) -> None:
    """pandas writes whole numbers as 1.0 next to missing ones."""
    text = '{"case": 1.0, "reviewer": null, "verdict": "tie", "clauses": null, "note": null}'
    assert read_labels(written(tmp_path, text, "l.jsonl")) == (Label(case="1", verdict="tie"),)


def test_a_spreadsheet_is_read(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (("case", "reviewer", "verdict"), (12, "ana", "loss"), ("b", "ben", "unsure")):
        book.active.append(row)
    book.save(tmp_path / "l.xlsx")
    labels = read_labels(tmp_path / "l.xlsx")
    assert [(each.case, each.verdict, each.value) for each in labels] == [
        ("12", "loss", -1.0),
        ("b", "unsure", None),
    ]


def test_a_table_has_the_clauses_in_one_cell(tmp_path: Path) -> None:
    text = 'case,candidate,verdict,clauses\na,new,fail,"pass, Fail; unsure"\n'
    (label,) = read_labels(written(tmp_path, text))
    assert label.clauses == ("pass", "fail", "unsure")
    assert label.is_about("new")
    assert not label.is_about("new", "old")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "case,verdict\na,better\n",
            r"labels.csv:2: verdict is 'better'\. It must be one of win, ",
        ),
        ("case,verdict\na,\n", r"labels.csv:2: the row has no 'verdict'\. Add it"),
        ("name,verdict\na,win\n", r"labels.csv:2: the row has no 'case'"),
        ("case,verdict,reviewer\na,win,x\na,tie,x\n", r":3: x has labelled case 'a' before, on li"),
        ("case,verdict\n" + "a,hm\n" * 9, r"and 4 more"),
        ("case,verdict,answers\na,win,both long\n", r"labels.csv:2: answers is 'both long'"),
        ("case,verdict\na,pass\n", r"labels.csv:2: .*name the contender as 'candidate'"),
        (
            "case,candidate,verdict,clauses\na,new,pass,pass fail\n",
            r"labels.csv:2: .*verdict is 'pass', but its clauses make it 'fail'",
        ),
        ("case,candidate,verdict,clauses\na,new,pass,ok\n", r"labels.csv:2: clauses\[0\] is 'ok'"),
        ("case,verdict,created\na,win,last week\n", r"labels.csv:2: created is 'last week'"),
    ],
)
def test_a_wrong_line_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_labels(written(tmp_path, text))


def test_an_unknown_key_of_json_lines_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, '{"case": "a", "verdict": "win", "winner": "b"}\n', "l.jsonl")
    with pytest.raises(DataError, match=r"l.jsonl:1: a label has no key 'winner'\. Allowed keys: "):
        read_labels(path)


def test_repeats_and_second_verdicts_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    for number, verdict in (("first", "win"), ("repeat", "tie"), ("second", "loss")):
        append_label(path, Label(case="a", reviewer="ana", verdict=verdict, round=number))
    assert [label.verdict for label in read_labels(path)] == ["win"]
    assert len(read_all_labels(path)) == 3


@pytest.mark.parametrize(
    ("end", "cases"),
    [('{"case": "b", "verd', ["a", "c"]), ('{"case":"b","verdict":"tie"}', ["a", "b", "c"])],
)
def test_a_last_line_is_ended_or_removed(tmp_path: Path, end: str, cases: list[str]) -> None:
    """A killed process leaves a part of a line, an editor a whole one without its end."""
    path = tmp_path / "l.jsonl"
    append_label(path, Label(case="a", verdict="win"))
    with path.open("a", encoding="utf-8") as file:
        file.write(end)
    mend_labels(path)
    append_label(path, Label(case="c", verdict="tie"))
    assert [label.case for label in read_labels(path)] == cases


def test_a_changed_verdict_with_a_time_replaces_the_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    for time, verdict in (("2026-11-30T10:00:00Z", "win"), ("2026-11-30T10:00:09Z", "tie")):
        append_label(path, Label(case="a", reviewer="ana", verdict=verdict, created=time))
    assert [label.verdict for label in read_labels(path)] == ["tie"]


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "l.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError):
        append_label(tmp_path / "l.jsonl", Label(case="a", verdict="win"))
    assert not (tmp_path / "elsewhere").exists()


def test_labels_belong_to_the_answers_they_were_given_for() -> None:
    labels = [
        Label(case="a", reviewer="ana", verdict="win", answers="d1" * 6),
        Label(case="a", reviewer="ben", verdict="tie", answers="0" * 12),
        Label(case="gone", verdict="win", answers="d9" * 6),
        Label(case="b", verdict="loss"),
    ]
    found = labels_of_cases(labels, ANSWERS, "l.jsonl")
    assert {case: [each.verdict for each in some] for case, some in found.items()} == {
        "a": ["win"],
        "b": ["loss"],
    }


def test_numbers_count_rows_unless_they_are_ids() -> None:
    numbered = [Label(case="1", verdict="win"), Label(case="3", verdict="tie")]
    assert list(labels_of_cases(numbered, ANSWERS, "l.csv")) == ["a", "7"]
    named = [Label(case="7", verdict="win")]
    assert list(labels_of_cases(named, ANSWERS, "l.csv")) == ["7"]


def test_a_case_that_the_test_lacks_is_refused() -> None:
    with pytest.raises(DataError, match=r"1 of its cases are not in the test: 'c'\. Use the ids"):
        labels_of_cases([Label(case="c", verdict="win")], ANSWERS, "l.csv")


def test_reviewers_are_averaged_without_those_who_cannot_tell() -> None:
    labels = [Label(case="a", verdict=each) for each in ("win", "tie", "unsure")]
    assert mean_verdict(labels) == 0.5
    assert mean_verdict(labels[2:]) is None


def test_the_digest_depends_on_order_and_tool_calls() -> None:
    one, two = (Answer(text=text, scores={}) for text in ("yes", "no"))
    made = [function_call("f", '{"a": 1}', "1"), function_call("f", '{ "a":1 }', "2")]
    calls = [Answer(text="yes", scores={}, tool_calls=(each,)) for each in made]
    assert answers_digest(one, two) != answers_digest(two, one)
    assert answers_digest(one) != answers_digest(calls[0])
    assert answers_digest(calls[0]) == answers_digest(calls[1])
