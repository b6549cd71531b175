"""Answers written down before compete like a model's; a missing one is an error, not a miss."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from unitune.data.example import Example, Message
from unitune.errors import DataError, JobError
from unitune.evaluate.inference.sources import RecordedModel, answer_line, mend, read_answers
from unitune.evaluate.prompts.contenders import check_roles
from unitune.job.contenders import FewShot, Recorded, Tuned
from unitune.models import Request

CASES = [
    Example(
        messages=(Message(role="user", content=name), Message(role="assistant", content="right")),
        id=name,
    )
    for name in ("one", "two")
]


def test_a_second_answer_to_a_case_is_refused_unless_it_is_the_same(tmp_path: Path) -> None:
    file = tmp_path / "old.jsonl"
    file.write_text(answer_line("one", "a") * 2 + answer_line("one", "b"), encoding="utf-8")
    with pytest.raises(DataError, match=r"old\.jsonl:3 is a second answer to the case 'one'"):
        RecordedModel(file, CASES)


def test_answers_are_found_by_case(tmp_path: Path) -> None:
    file = tmp_path / "old.jsonl"
    lines = [("one", "sécond\n"), ("other", "x")]
    file.write_text("".join(answer_line(case, answer) for case, answer in lines), encoding="utf-8")
    model = RecordedModel(file, CASES)
    one, two = (asyncio.run(model.reply(Request(messages=case.prompt))) for case in CASES)
    assert one.text == "sécond\n"
    assert two.error == "no answer to this case was recorded"


def test_another_file_is_another_model(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(answer_line("one", name), encoding="utf-8")
    fingerprints = [RecordedModel(tmp_path / name, CASES).fingerprint for name in ("a", "b", "a")]
    assert fingerprints[0] == fingerprints[2] != fingerprints[1]


def test_scores_of_another_tool_come_with_the_answer(tmp_path: Path) -> None:
    file = tmp_path / "old.jsonl"
    file.write_text(answer_line("one", "x", {"judge": 0.5}) + answer_line("two", "y"))
    model = RecordedModel(file, CASES)
    given = [asyncio.run(model.reply(Request(messages=case.prompt))).given for case in CASES]
    assert given == [{"judge": 0.5}, None]
    file.write_text(answer_line("one", "x", {"judge": 1.0}) + answer_line("two", "y"))
    assert model.fingerprint != RecordedModel(file, CASES).fingerprint


def test_one_question_with_two_answers_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "old.jsonl"
    file.write_text(answer_line("one", "x") + answer_line("two", "y"))
    same = [CASES[0], CASES[1].model_copy(update={"messages": CASES[0].messages})]
    with pytest.raises(DataError, match="'one' and 'two' have the same question"):
        RecordedModel(file, same)


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "old.jsonl"
    file.write_text(answer_line("one", "x") + '{"case": "two"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"old\.jsonl:2 is not a recorded answer"):
        read_answers(file)
    with pytest.raises(DataError, match="cannot be read"):
        read_answers(tmp_path / "none.jsonl")


def test_recorded_answers_cannot_compete_on_dev() -> None:
    old = Recorded(name="old", answers="old.jsonl")
    check_roles((old, Tuned()))
    with pytest.raises(JobError, match="old has recorded answers to the test cases only"):
        check_roles((old, FewShot(), Tuned()))
    check_roles((old, FewShot(role="reference"), Tuned()))


@pytest.mark.parametrize("cut", range(1, len(answer_line("two", "x"))))
def test_a_line_over_which_a_process_died_is_cut_off_or_ended(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "old.jsonl"
    first, second = answer_line("one", "x"), answer_line("two", "x")
    file.write_text(first + second[:-cut], encoding="utf-8")
    mend(file)
    assert file.read_text(encoding="utf-8") == (first + second if cut == 1 else first)
