"""Files and datasets through formats: rows in order, a finding with its line for each refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.rows import write_rows

from unitune.backends.formats import Converted, convert_file, wire_lines
from unitune.data.load import load
from unitune.errors import NotFoundError
from unitune.findings import Finding

USER = {"role": "user", "content": "a"}
ANSWER = {"role": "assistant", "content": "é"}
ROWS: list[dict[str, Any]] = [
    {"messages": [USER, ANSWER], "id": "7"},
    {"messages": [USER, ANSWER], "weight": 2.0},
    {"messages": [USER, ANSWER], "expected": "x", "customer": 4711},
]


def test_a_dataset_is_encoded_with_a_finding_for_each_row_that_will_not_go(tmp_path: Path) -> None:
    items = list(wire_lines(load(write_rows(tmp_path / "rows.jsonl", ROWS)), "openai-chat"))
    lines = [item for item in items if isinstance(item, str)]
    findings = [item for item in items if isinstance(item, Finding)]
    assert [(found.code, found.file, found.line) for found in findings] == [
        ("cannot-carry", "rows.jsonl", 2)
    ]
    assert [json.loads(line) for line in lines] == [{"messages": [USER, ANSWER]}] * 2
    assert all(line.endswith("\n") for line in lines)


def test_a_file_is_encoded_row_by_row_and_says_what_it_left_out(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [*ROWS, "broken"])
    items = list(convert_file(path, to="openai-chat"))
    rows = [item for item in items if isinstance(item, Converted)]
    findings = [item for item in items if isinstance(item, Finding)]
    assert [(row.line, row.left_out) for row in rows] == [
        (1, ("id",)),
        (3, ("expected", "customer")),
    ]
    assert [(one.code, one.line) for one in findings] == [("cannot-carry", 2), ("broken-json", 4)]
    assert {finding.file for finding in findings} == {str(path)}


def test_rows_of_any_method_are_encoded(tmp_path: Path) -> None:
    question = write_rows(tmp_path / "a.jsonl", [{"messages": [USER], "grade": 1}])
    pair = write_rows(tmp_path / "b.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    assert all(isinstance(item, Converted) for item in convert_file(question, to="openai-rft"))
    assert all(isinstance(item, Converted) for item in convert_file(pair, to="together-dpo"))


def test_a_file_is_decoded_into_canonical_rows(tmp_path: Path) -> None:
    lines = ['{"prompt": "a", "completion": "b"}', '{"prompt": "a", "x": 1}', "", "[]"]
    items = list(convert_file(write_rows(tmp_path / "rows.jsonl", lines), source="bedrock-prompt"))
    assert [json.loads(item.text) for item in items if isinstance(item, Converted)] == [
        {"messages": [USER, {"role": "assistant", "content": "b"}]}
    ]
    assert [(item.code, item.line) for item in items if isinstance(item, Finding)] == [
        ("cannot-read", 2),
        ("not-an-object", 4),
        ("blank-lines", 3),
    ]


def test_a_file_that_cannot_be_decoded_is_one_finding(tmp_path: Path) -> None:
    (found,) = convert_file(tmp_path / "missing.jsonl", source="openai-chat")
    assert isinstance(found, Finding)
    assert (found.severity, found.line) == ("error", None)


def test_an_unknown_format_is_told_at_once() -> None:
    with pytest.raises(NotFoundError, match="vertex-sft"):
        convert_file("rows.jsonl", to="vertx")
