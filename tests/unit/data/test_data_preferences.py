"""Preference rows: both shapes, what is wrong with one, and what they are as Examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.rows import findings_in, rows_in, write_rows

from unitune.data.check import check_file
from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example
from unitune.data.load import load

USER = {"role": "user", "content": "a"}
BETTER = {"role": "assistant", "content": "b"}
WORSE = {"role": "assistant", "content": "c"}
TRIPLE = {
    "input": {"messages": [USER], "tools": [{"type": "function"}]},
    "preferred_output": [BETTER],
    "non_preferred_output": [WORSE],
}


def write(folder: Path, *rows: Any) -> Path:
    return write_rows(folder / "pairs.jsonl", rows)


def changed(**changes: Any) -> dict[str, Any]:
    made = {**TRIPLE, **changes}
    return {key: value for key, value in made.items() if value is not None}


def test_a_triple_is_a_conversation_that_ends_with_the_preferred_output(tmp_path: Path) -> None:
    (example,) = load(write(tmp_path, {**TRIPLE, "id": "7", "grade": [1]}))
    assert [(m.role, m.text) for m in example.messages] == [("user", "a"), ("assistant", "b")]
    assert (len(example.prompt), example.answer) == (1, "b")
    assert [message.text for message in example.non_preferred_output or ()] == ["c"]
    assert (example.id, example.model_extra) == ("7", {"grade": [1]})
    assert example.tools == ({"type": "function"},)


def test_a_preference_is_written_as_the_triple_and_read_back(tmp_path: Path) -> None:
    row = {**TRIPLE, "weight": 2.0, "id": "7", "expected": "é", "grade": 1}
    example = Example.model_validate(row)
    dataset = Dataset("again.jsonl", (Row(1, example),))
    path = tmp_path / dataset.name
    path.write_text(dataset.jsonl, encoding="utf-8")
    assert row == example.content == json.loads(dataset.jsonl)
    assert dataset == load(path)
    assert dataset.fingerprint == load(path).fingerprint
    assert example == Example.model_validate(row) == Example.model_validate(example.model_dump())


def test_rows_without_a_worse_answer_are_written_as_ever() -> None:
    row = {"messages": [USER, BETTER], "id": "1", "input": {"messages": []}, "chosen": 1}
    example = Example.model_validate(row)
    assert row == example.content
    assert example.model_dump_json(exclude_defaults=True) == example.line


def test_a_preference_and_the_same_answer_alone_ask_the_same_and_are_not_the_same() -> None:
    alone = Example.model_validate({"messages": [USER, BETTER], "tools": TRIPLE["input"]["tools"]})
    pair = Example.model_validate(TRIPLE)
    assert alone.input_key == pair.input_key
    assert alone.case_id != pair.case_id


def test_a_preference_made_in_python_ends_with_the_assistant() -> None:
    with pytest.raises(ValidationError, match="the preferred output"):
        Example.model_validate({"messages": [USER], "non_preferred_output": [WORSE]})
    own = {"messages": [USER, BETTER], "non_preferred_output": [WORSE], "input": 1}
    with pytest.raises(ValidationError, match="'input' cannot be a custom key"):
        Example.model_validate(own)


PLAIN = {key: value for key, value in TRIPLE.items() if key != "input"} | {
    "input": {"messages": [USER]}
}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"prompt": [USER], "chosen": [BETTER], "rejected": [WORSE]},
        {"prompt": "a", "chosen": [USER, BETTER], "rejected": [USER, WORSE]},
        {"chosen": [USER, BETTER], "rejected": [USER, WORSE]},
    ],
)
def test_trls_columns_are_the_same_row(tmp_path: Path, row: dict[str, Any]) -> None:
    assert [example.content for example in load(write(tmp_path, row))] == [PLAIN]


def test_trls_columns_may_be_those_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("prompt,chosen,rejected,score\na,b,c,9\n", encoding="utf-8")
    assert [row.example.content for row in rows_in(path)] == [{**PLAIN, "score": "9"}]
    assert [note.code for note in findings_in(path)] == ["columns-left-out"]


def test_own_keys_and_tools_stand_beside_trls_columns(tmp_path: Path) -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "c", "tools": [{"type": "x"}], "score": 1}
    (example,) = load(write(tmp_path, row))
    assert (example.tools, example.model_extra) == (({"type": "x"},), {"score": 1})


TRL = {"prompt": "a", "chosen": "b", "rejected": "c"}
BAD: list[tuple[dict[str, Any], str, str]] = [
    (changed(non_preferred_output=None), "missing-output", "no 'non_preferred_output'"),
    (changed(preferred_output=None), "missing-output", "no 'preferred_output'"),
    ({"input": {"messages": [USER]}}, "missing-output", "no 'preferred_output'"),
    (changed(input=None), "missing-output", "no 'input'"),
    (changed(preferred_output=[]), "wrong-output", "has 0 messages"),
    (changed(preferred_output=[BETTER, BETTER]), "wrong-output", "has 2 messages"),
    (changed(preferred_output="b"), "wrong-value", "preferred_output is 'b'"),
    (changed(non_preferred_output=[USER]), "wrong-output", "is from 'user'"),
    (changed(preferred_output=[{**BETTER, "content": " "}]), "empty-output", "is empty"),
    (changed(preferred_output=[WORSE]), "equal-outputs", "are equal: 'c'"),
    (changed(preferred_output=[{"role": "bot"}]), "wrong-value", "preferred_output[0].role"),
    (changed(input="a"), "wrong-value", "input is 'a'"),
    (changed(input={"messages": []}), "missing-question", "without a question"),
    (changed(input={"messages": [USER], "tols": 1}), "unknown-key", "'tols'"),
    (changed(input={"messages": [USER], "tools": 1}), "wrong-value", "input.tools is 1"),
    (changed(tools=[]), "repeated-key", "'tools' is both in `input` and next to it"),
    (changed(messages=[USER]), "mixed-shapes", "both `messages`"),
    ({**TRL, "rejected": None}, "missing-output", "no 'rejected'"),
    ({**TRL, "rejected": "b"}, "equal-outputs", "chosen and rejected are equal"),
    ({**TRL, "rejected": ""}, "empty-output", "rejected is empty"),
    ({**TRL, "chosen": 3}, "not-a-text", "'chosen' is 3"),
    ({**TRL, "chosen": [{"role": "bot"}]}, "wrong-value", "chosen[0].role"),
    ({**TRL, "prompt": [{"role": "bot"}]}, "wrong-value", "prompt[0].role"),
    ({"chosen": "b", "rejected": "c"}, "missing-key", "no `prompt`"),
    ({**TRL, "chosen": [USER, BETTER]}, "different-prompts", "before their last"),
    (
        {"prompt": "z", "chosen": [USER, BETTER], "rejected": [USER, WORSE]},
        "different-prompts",
        "differ from `prompt`",
    ),
]


@pytest.mark.parametrize(("row", "code", "says"), BAD)
def test_a_bad_preference_is_one_error_with_its_line(
    tmp_path: Path, row: dict[str, Any], code: str, says: str
) -> None:
    path = write(tmp_path, TRIPLE, row, TRIPLE)
    errors = findings_in(path)
    assert [row.line for row in rows_in(path)] == [1, 3]
    assert [(item.severity, item.code, item.line) for item in errors] == [("error", code, 2)]
    assert says in errors[0].message
    assert errors[0].fix


def test_a_chat_row_may_have_keys_that_are_called_like_trls(tmp_path: Path) -> None:
    rows = [
        {"messages": [USER, BETTER], "chosen": True},
        {"prompt": "a", "completion": "b", "rejected": 3},
    ]
    dataset = load(write(tmp_path, *rows))
    assert [example.model_extra for example in dataset] == [{"chosen": True}, {"rejected": 3}]


def test_several_pairs_of_one_question_are_no_contradiction_but_a_turned_one_is(
    tmp_path: Path,
) -> None:
    rows = [TRL, {**TRL, "rejected": "d"}, {**TRL, "chosen": "c", "rejected": "b"}]
    found = check_file(write(tmp_path, *rows)).findings
    assert [(finding.code, finding.line) for finding in found] == [("contradiction", 3)]
    assert "on line 1, but another answer" in found[0].message


def test_both_answers_are_counted(tmp_path: Path) -> None:
    (file,) = check_file(write(tmp_path, TRIPLE)).files
    assert (file.messages, file.roles) == (3, {"user": 1, "assistant": 2})


ORCA = Path(__file__).parents[4] / "shared" / "data" / "orca-dpo-pairs" / "validation.jsonl"


@pytest.mark.skipif(not ORCA.exists(), reason="needs the shared data")
def test_a_real_file_of_pairs_is_read_and_written_back() -> None:
    dataset = load(ORCA, use="dpo")
    lines = ORCA.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [row.content for row in dataset]
