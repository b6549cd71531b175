"""Keys to which other tools give a meaning are read with it, or refused; never left aside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.rows import findings_in, write_rows

from unitune.data.check import check_file
from unitune.data.load import load
from unitune.errors import DataError
from unitune.job.job import Columns, Data

TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": "Ahoy?"},
    {"role": "assistant", "content": "Arr."},
]
PAIR: dict[str, Any] = {"prompt": "Ahoy?", "completion": "Arr."}
PREFERENCE = {"prompt": "Ahoy?", "chosen": "Arr.", "rejected": "Hello."}
TRIPLE = {
    "input": {"messages": TURNS[:1]},
    "preferred_output": TURNS[1:],
    "non_preferred_output": [{"role": "assistant", "content": "Hello."}],
}


def _file(folder: Path, *rows: dict[str, Any]) -> Path:
    return write_rows(folder / "rows.jsonl", rows)


@pytest.mark.parametrize("row", [{"messages": TURNS}, PAIR, PREFERENCE, TRIPLE])
def test_system_beside_the_conversation_is_its_first_message(
    tmp_path: Path, row: dict[str, Any]
) -> None:
    """As Anthropic writes it: https://docs.anthropic.com/en/api/messages, `system`."""
    read = load(_file(tmp_path, {"system": "You are a pirate.", **row}), use="any")
    messages = read.rows[0].example.messages
    assert [turn.role for turn in messages] == ["system", "user", "assistant"]
    assert messages[0].text == "You are a pirate."
    assert not read.rows[0].example.model_extra


def test_system_in_blocks_of_text_is_read_too(tmp_path: Path) -> None:
    blocks = [{"type": "text", "text": "You are "}, {"type": "text", "text": "a pirate."}]
    read = load(_file(tmp_path, {"system": blocks, "messages": TURNS}))
    assert read.rows[0].example.messages[0].text == "You are a pirate."


@pytest.mark.parametrize("nothing", [None, "", []])
def test_system_without_a_text_says_nothing(tmp_path: Path, nothing: object) -> None:
    read = load(_file(tmp_path, {"system": nothing, "messages": TURNS}))
    assert len(read.rows[0].example.messages) == 2


def test_two_system_prompts_are_refused(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, *TURNS]
    report = check_file(_file(tmp_path, {"system": "You are a pirate.", "messages": messages}))
    (finding,) = report.findings
    assert (finding.severity, finding.code, finding.line) == ("error", "two-systems", 1)


def test_a_wrong_system_is_told_in_its_own_place(tmp_path: Path) -> None:
    report = check_file(_file(tmp_path, {"system": 7, "messages": TURNS}))
    (finding,) = report.findings
    assert finding.code == "wrong-value"


REFUSED: list[dict[str, Any]] = [
    {**PAIR, "chosen": "Arr.", "rejected": "Hello."},
    {"messages": TURNS, "chosen": TURNS[1:]},
    {"messages": TURNS, "completion": "Arr."},
    {"messages": TURNS, "conversations": [{"from": "human", "value": "Ahoy?"}]},
    {"messages": TURNS, "contents": [{"role": "user", "parts": [{"text": "Ahoy?"}]}]},
    {"messages": TURNS, "functions": [{"name": "sail", "parameters": {}}]},
    {"messages": TURNS, "function_call": {"name": "sail"}},
    {"messages": TURNS, "systemInstruction": {"parts": [{"text": "You are a pirate."}]}},
    {"messages": TURNS, "system_prompt": "You are a pirate."},
    {"messages": TURNS, "images": ["ship.png"]},
    {"messages": TURNS, "chat_template_kwargs": {"enable_thinking": False}},
    {**PREFERENCE, "images": ["ship.png"]},
]


@pytest.mark.parametrize("row", REFUSED)
def test_what_would_train_something_else_is_refused_with_its_line(
    tmp_path: Path, row: dict[str, Any]
) -> None:
    file = _file(tmp_path, {"messages": TURNS}, row)
    (finding,) = [each for each in check_file(file).findings if each.severity == "error"]
    assert (finding.code, finding.line) == ("foreign-key", 2)
    with pytest.raises(DataError):
        load(file)


RATED: list[dict[str, Any]] = [
    {**PAIR, "label": False},  # KTO, TRL's dataset_formats.md: unpaired preference
    {"messages": TURNS, "kto_tag": False},  # LLaMA-Factory, data/README.md
]


@pytest.mark.parametrize("row", RATED)
def test_ratings_are_for_a_loss_that_learns_from_them(tmp_path: Path, row: dict[str, Any]) -> None:
    file = _file(tmp_path, row)
    assert [each.example.kto_tag for each in load(file, use="kto").rows] == [False]
    assert "label" not in (load(file, use="kto").rows[0].example.model_extra or {})
    (finding,) = check_file(file).findings  # alone, it may be for any job
    assert (finding.severity, finding.code, finding.line) == ("note", "rated-row", 1)
    for use in ("sft", "dpo", "case"):
        with pytest.raises(DataError, match=r"rates its answer .*\n?.*loss: kto"):
            load(file, use=use)
    with pytest.raises(DataError, match="does not rate its answer"):
        load(_file(tmp_path, PAIR), use="kto")


@pytest.mark.parametrize(
    "own", [{"label": "billing"}, {"label": 1}, {"images": []}, {"chosen": None}, {"year": 1999}]
)
def test_keys_of_ones_own_stay(tmp_path: Path, own: dict[str, Any]) -> None:
    assert not check_file(_file(tmp_path, {**PAIR, **own})).findings


def test_a_table_says_its_system_prompt_in_a_column(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("system,prompt,completion\nYou are a pirate.,Ahoy?,Arr.\n")
    read = load(file)
    assert read.rows[0].example.messages[0].text == "You are a pirate."


def test_a_table_rates_its_answers(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("prompt,completion,label\nAhoy?,Hello.,False\n")
    assert [each.example.kto_tag for each in load(file, use="kto").rows] == [False]
    with pytest.raises(DataError, match="rates its answer"):
        load(file, use="sft")


def test_columns_that_the_job_names_decide(tmp_path: Path) -> None:
    """Who maps the columns has said what the model sees; the rest is told as left out."""
    file = tmp_path / "rows.csv"
    file.write_text("prompt,completion,label\nAhoy?,Arr.,True\n")
    data = Data(train="rows.csv", columns=Columns(user="prompt", assistant="completion"))
    assert [finding.code for finding in findings_in(file, data)] == ["columns-left-out"]
