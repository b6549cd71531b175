"""A teacher's answers become training rows where nothing speaks against them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Command

from unitune.data.example import Example, Message
from unitune.data.load import load
from unitune.distillation.distill import (
    AnswerForm,
    Distillation,
    distill,
    plan_distillation,
    refusal,
)
from unitune.distillation.teacher import Teacher, plan_variants, write_variants
from unitune.errors import BackendError, DataError, NotFoundError, OverBudget, UserError
from unitune.evaluate.documents.records import Record
from unitune.evaluate.inference.engine import AnswerOptions
from unitune.job.job import Job
from unitune.models import Request
from unitune.planning.preflight import preflight
from unitune.scorers import Trajectory

NAME = "fake:big"


def asked(request: Request) -> str:
    return request.messages[-1].text


def write_questions(folder: Path, *questions: str | dict[str, Any]) -> Path:
    path = folder / "questions.jsonl"
    rows = (
        each if isinstance(each, dict) else {"messages": [{"role": "user", "content": each}]}
        for each in questions
    )
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def teacher_of(job: Job, prompt: Any = "zero-shot", name: str = NAME) -> Teacher:
    return Teacher.of(preflight(job), name, prompt)


def distilled(job: Job, questions: Path, prompt: Any = "zero-shot") -> Distillation:
    planned = plan_distillation(teacher_of(job, prompt), questions)
    return distill(planned, questions.with_name("out.jsonl"), AnswerOptions())


@pytest.fixture
def job(make_job: Callable[..., Job]) -> Job:
    return make_job({"scorers": ["exact"]})


def test_whole_answers_of_the_right_form_become_rows(
    job: Job, backend_of: Any, tmp_path: Path
) -> None:
    answers = {
        "a": "label-1\n",
        "b": "It is label-1.",
        "c": "CUTlabel-2",
        "d": "ERROR",
        "e": " ",
        "f": "label-3",
    }
    backend_of(lambda _, request: answers.get(asked(request), "yes"))
    made = distilled(job, write_questions(tmp_path, *answers))
    rows = load(made.path).rows
    assert [(row.example.prompt[0].text, row.example.answer) for row in rows] == [
        ("a", "label-1"),
        ("f", "label-3"),
    ]
    assert made.reasons == {
        "not a label of the training rows": 1,
        "truncated at the maximum answer length": 1,
        "no answer was received": 1,
        "empty": 1,
    }
    assert [each.line for each in made.rejected] == [2, 3, 4, 5]
    kept = (made.folder / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(kept[0])["answer"] == "It is label-1."
    origin: Any = rows[0].example.model_extra
    assert tuple(origin["distilled"][key] for key in ("teacher", "model", "terms")) == (
        NAME,
        "rule:big",
        "not on record",
    )


def test_the_teacher_is_scored_on_dev_and_shown_neighbours(
    job: Job, backend_of: Any, tmp_path: Path
) -> None:
    backend = backend_of(lambda _, request: "yes" if "dev" in asked(request) else "label-0")
    made = distilled(job, write_questions(tmp_path, "train 7 again"), None)
    assert (
        made.dev_score,
        made.dev_rows,
        made.prompt,
    ) == (1.0, 20, "8 nearest shots with instructions")
    (last,) = (each for each in backend.requests if "again" in asked(each))
    assert "train 7" in [message.text for message in last.messages]
    (row,) = load(made.path).rows
    assert [message.role for message in row.example.messages] == ["user", "assistant"]


def test_questions_that_are_known_or_near_a_test_case_are_not_put(
    job: Job, backend_of: Any, tmp_path: Path
) -> None:
    system = {"role": "system", "content": "You sort mail."}

    def row(text: str) -> dict[str, Any]:
        return {"messages": [system, {"role": "user", "content": text}]}

    answered = {"prompt": "has one", "completion": "label-1"}
    known = [row("train 3"), row("dev 4"), row("test 5")]
    backend = backend_of(lambda _, __: "label-1")
    made = distilled(job, write_questions(tmp_path, "new", "new", answered, *known))
    assert made.left_out == {
        "had an answer": 1,
        "repeated another row": 1,
        "were in the training or validation rows": 2,
        "were near a test case": 1,
    }
    assert [asked(each) for each in backend.requests if "dev" not in asked(each)] == ["new"]


def test_questions_of_one_id_have_answers_of_their_own(
    job: Job, backend_of: Any, tmp_path: Path
) -> None:
    answers = {"a": "label-1", "b": "label-2"}
    backend_of(lambda _, request: answers.get(asked(request), "yes"))
    questions = ({"id": "same", "prompt": text} for text in answers)
    rows = load(distilled(job, write_questions(tmp_path, *questions)).path, use="any").rows
    assert [(row.example.prompt[0].text, row.example.answer) for row in rows] == [*answers.items()]
    assert [row.example.id for row in rows] == ["same", "same"]


def test_a_secret_is_not_sent_to_a_teacher(job: Job, backend_of: Any, tmp_path: Path) -> None:
    backend = backend_of(lambda _, __: "label-1")
    questions = write_questions(tmp_path, "new", "My key is AKIAQWERTYUIOPASDFGH, is it valid?")
    with pytest.raises(DataError, match=r"questions\.jsonl:2: .*appears to hold a secret"):
        distilled(job, questions)
    assert backend.requests == []


def test_personal_data_is_redacted_for_the_teacher_alone(
    job: Job, backend_of: Any, tmp_path: Path
) -> None:
    pytest.importorskip("phonenumbers")
    data = job.data.model_copy(update={"personal_data": "redact"})
    backend = backend_of(lambda _, __: "label-1")
    made = distilled(
        job.model_copy(update={"data": data}),
        write_questions(tmp_path, "Who is jane@firma.de?"),
    )
    assert asked(backend.requests[-1]) == "Who is <EMAIL_1>?"
    (row,) = load(made.path).rows
    assert row.example.prompt[0].text == "Who is jane@firma.de?"


def test_no_question_left_is_refused_with_the_reason(
    job: Job, backend_of: Any, tmp_path: Path
) -> None:
    backend_of(lambda _, __: "label-1")
    questions = write_questions(tmp_path, {"prompt": "has one", "completion": "label-1"})
    with pytest.raises(UserError, match="1 had an answer"):
        distilled(job, questions)


def test_without_an_accepted_answer_nothing_is_written(
    job: Job, backend_of: Any, tmp_path: Path
) -> None:
    (tmp_path / "out.jsonl").write_text("kept", encoding="utf-8")
    backend_of(lambda _, __: "I think it is label-1.")
    with pytest.raises(DataError, match="The first: not a label of the training rows"):
        distilled(job, write_questions(tmp_path, "new"))
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == "kept"


def test_what_was_answered_is_not_requested_again(
    job: Job, backend_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher that goes down in the middle, and comes back."""
    monkeypatch.setattr("unitune.backends.retry.FIRST_PAUSE_SECONDS", 0.001)
    questions = write_questions(tmp_path, *(f"new {at}" for at in range(40)))
    answered: list[str] = []

    def goes_down(_: str, request: Request) -> str:
        if "new" in asked(request):
            answered.append(asked(request))
        if len(answered) <= 20:
            return "label-1"
        raise BackendError("down", status=500)

    backend_of(goes_down)
    with pytest.raises(BackendError, match="the same command"):
        distilled(job, questions)
    backend = backend_of(lambda _, __: "label-2")
    assert distilled(job, questions).rows == 40
    assert len(backend.requests) == 20


def test_a_scorer_that_needs_no_expected_answer_decides(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    train = [(f"train {at}", f'{{"city": "town {at}", "zip": {at}}}') for at in range(40)]
    job = make_job({"scorers": ["exact", {"type": "regex", "pattern": '"zip": \\d+'}]}, train=train)
    answers = {
        "a": '{"city": "Rome", "zip": 1}',
        "b": '{"city": "Rome"}',
        "c": "Rome",
        "d": '{"city": "Rome", "zip": "x"}',
    }
    backend_of(lambda _, request: answers.get(asked(request), "yes"))
    made = distilled(job, write_questions(tmp_path, *answers))
    assert made.rows == 1
    assert [each.reason for each in made.rejected] == [
        "JSON without the keys that all training rows have",
        "not JSON, unlike the answers of all training rows",
        "wrong by the scorer regex",
    ]


def test_a_budget_holds_and_the_most_is_known_before(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    price = {NAME: {"input": 1000, "output": 1000}}
    job = make_job({"scorers": ["exact"], "prices": price, "budget": {"usd": 0.01}})
    questions = write_questions(tmp_path, "new")
    backend = backend_of(lambda _, __: "label-1")
    planned = plan_distillation(teacher_of(job), questions)
    assert planned.most_usd is not None
    assert planned.most_usd > 1
    with pytest.raises(OverBudget, match="The limit is"):
        distill(planned, tmp_path / "out.jsonl", AnswerOptions())
    assert backend.requests == []
    assert not (tmp_path / "out.jsonl").exists()


def test_a_teacher_is_a_contender_or_a_model_of_a_backend(make_job: Any, backend_of: Any) -> None:
    backend_of(lambda _, __: "")
    server = {"type": "server", "url": "http://127.0.0.1:9/v1", "model": "big", "name": "mine"}
    job = make_job({"contenders": ["zero-shot", "tuned", server]})
    assert teacher_of(job, None, "mine").contender.spec.type == "server"
    with pytest.raises(UserError, match="prompt instructed"):
        teacher_of(job, "few-shot", "mine")
    with pytest.raises(NotFoundError, match="BACKEND:MODEL"):
        teacher_of(job, None, "big")


def test_a_teacher_writes_questions_like_those_of_the_rows(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    """New ones alone are kept: neither a row's, nor a test case's, nor one twice."""
    lists = iter(
        [
            '```json\n["a new matter", "train 3", "test 4", " ", 7]\n```',
            "Sorry, I cannot.",
            '["a new matter", "quite another thing"]',
        ]
    )

    def rule(_: str, request: Request) -> str:
        return next(lists) if "Write 5 other messages" in asked(request) else "label-2"

    job = make_job({"scorers": ["exact"], "concurrency": 1})
    backend = backend_of(rule)
    planned = plan_variants(teacher_of(job), 12)
    written = write_variants(planned, AnswerOptions())
    assert (len(backend.requests), written.count) == (3, 5)
    assert asked(backend.requests[0]).count(". train ") == 5
    questions = plan_distillation(teacher_of(job), written)
    made = distill(questions, tmp_path / "out.jsonl", AnswerOptions())
    rows = [row.example for row in load(made.path).rows]
    assert [row.prompt[-1].text for row in rows] == ["a new matter", "quite another thing"]
    assert [row.prompt[0].text for row in rows] == ["You sort mail."] * 2
    assert "repeated another row" in made.left_out
    assert len(asked(backend.requests[0]).splitlines()) + 3 == 12
    assert written == write_variants(planned, AnswerOptions()), (
        "what was answered is not asked again"
    )


def test_rows_that_are_no_single_questions_have_no_variants(make_job: Any, backend_of: Any) -> None:
    backend_of(lambda _, __: "no list")
    job = make_job({"scorers": ["exact"]})
    with pytest.raises(DataError, match=r"is a JSON list of questions\. The first: 'no list'"):
        write_variants(plan_variants(teacher_of(job), 3), AnswerOptions())


@pytest.mark.parametrize(
    ("finish", "accepted"), [("stop", True), ("tool_use", True), ("refusal", False)]
)
def test_an_answer_that_was_not_refused_may_end_in_a_call(finish: str, accepted: bool) -> None:  # noqa: FBT001
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    record = Record(
        contender="t", case="c", request_hash="h", finish_reason=finish, tool_calls=(call,)
    )
    question = Example(messages=(Message(role="user", content="q"),))
    assert accepted == (refusal(question, record, [Trajectory()], AnswerForm()) is None)


@pytest.mark.parametrize(
    ("answers", "refused"),
    [
        (["a", "b", "a", "b", "a", "b"], {"c": "not a label of the training rows"}),
        (["a long text", "another text"], {}),
        (["[1]", '{"a": 1}'], {"text": "not JSON, unlike the answers of all training rows"}),
        (["7", "12", "31"], {"seven": None}),
        ([], {}),
    ],
)
def test_the_form_is_what_all_answers_share(
    answers: list[str], refused: dict[str, str | None]
) -> None:
    form = AnswerForm.of(answers)
    assert [None] * len(answers) == [form.refusal(answer) for answer in answers]
    assert refused == {answer: form.refusal(answer) for answer in refused}


def write_job(job: Job, folder: Path) -> None:
    content = job.model_dump(mode="json", exclude_defaults=True, exclude={"folder"})
    (folder / "unitune.yaml").write_text(json.dumps(content), encoding="utf-8")


def test_the_command_says_what_became_of_each_answer(
    unitune: Command, job: Job, backend_of: Any, tmp_path: Path
) -> None:
    write_job(job, tmp_path)
    write_questions(tmp_path, "a", "b", "train 1")
    backend_of(lambda _, request: "label-1" if asked(request) == "a" else "It is label-1.")
    line = (
        "data",
        "distill",
        "--teacher",
        NAME,
        "--questions",
        "questions.jsonl",
        "-o",
        "out.jsonl",
    )
    done = unitune(*line)
    assert (done.code, len((tmp_path / "out.jsonl").read_text().splitlines())) == (0, 1)
    assert "3 questions for fake:big." in done.err
    for part in ("1 of 3 answers", "2 not a label of the training rows", "line 2: It is label-1."):
        assert part in done.out
    found = json.loads(unitune(*line, "--json").out)
    assert (found["rows"], found["rejected"]) == (1, {"not a label of the training rows": 2})


@pytest.mark.parametrize("given", [(), ("--questions", "q.jsonl", "--variants", "3")])
def test_questions_come_from_one_place(
    unitune: Command, job: Job, tmp_path: Path, given: tuple[str, ...]
) -> None:
    write_job(job, tmp_path)
    done = unitune("data", "distill", "--teacher", NAME, "-o", "out.jsonl", *given)
    assert (done.code, "either --questions FILE" in done.err) == (2, True)


def test_what_costs_money_needs_a_budget_where_no_one_can_say_yes(
    unitune: Command, make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    write_job(make_job({"scorers": ["exact"]}), tmp_path)
    write_questions(tmp_path, "a")
    backend = backend_of(lambda _, __: "label-1")
    line = ("data", "distill", "--teacher", "openai:gpt-4.1", "--questions", "questions.jsonl")
    done = unitune(*line, "-o", "out.jsonl")
    assert (done.code, backend.requests) == (6, [])
    assert "at most $" in done.err
    done = unitune(*line, "-o", "out.jsonl", "--budget", "5")
    assert done.code == 0
    assert "The vendor's terms forbid" in " ".join(done.out.split())
