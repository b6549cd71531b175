"""Findings of one cause are one line, with their number and the first of their lines."""

from __future__ import annotations

from unitune.findings import Finding, error, grouped, shown


def bad(code: str, message: str, line: int) -> Finding:
    return error(code, message, "Change it.").at(file="a.jsonl", line=line)


def test_one_cause_is_one_error_with_its_count_and_its_first_lines() -> None:
    findings = [bad("missing-column", "there is no column 'q'.", line) for line in range(1, 301)]
    assert shown(findings) == [
        "a.jsonl:1: there is no column 'q'. Change it. (and 299 more rows: lines 2, 3, 4, …)"
    ]


def test_values_of_the_rows_make_no_cause_of_their_own() -> None:
    findings = [bad("wrong-value", f"messages[1].content is {n}.", n) for n in (1, 2, 3)]
    assert [group.size for group in grouped(findings)] == [3]
    assert grouped(findings)[0].more == " (and 2 more rows: lines 2, 3)"


def test_other_names_and_other_places_are_other_causes() -> None:
    findings = [
        bad("missing-column", "there is no column 'q'.", 1),
        bad("missing-column", "there is no column 'r'.", 1),
        bad("wrong-value", "messages[1].role is 'bot'.", 1),
        bad("wrong-value", "messages[1].content is 5.", 1),
        bad("duplicate", "the row equals the one on line 3.", 5),
        bad("duplicate", "the row equals the one on line 4.", 6),
    ]
    assert [group.size for group in grouped(findings)] == [1, 1, 1, 1, 2]
    assert [group.more for group in grouped(findings)][:2] == ["", ""]


def test_one_row_with_a_cause_twice_is_one_row() -> None:
    found = error("wrong-value", "role 'human' is not known.").at(file="a", line=1)
    (group,) = grouped([found, found, found.at(line=4)])
    assert (group.size, group.lines) == (2, (4,))


def test_bytes_that_differ_are_one_cause() -> None:
    texts = ("byte 0xE4 at offset 12 is not UTF-8.", "byte 0xFC at offset 1,290 is not UTF-8.")
    findings = [error("encoding", text).at(file="a", line=at) for at, text in enumerate(texts, 1)]
    assert shown(findings) == ["a:1: byte 0xE4 at offset 12 is not UTF-8. (and 1 more row: line 2)"]
