"""New questions like those of the training rows, written by a teacher.

A request shows some rows' questions and asks for as many others. What comes back and is no list of
texts is left out; what nearly repeats a row, or another new question, is left out when questions
are read (`unitune.distillation.questions`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import count, islice
from pathlib import Path

from unitune.backends.output_limit import OutputLimit, longest_expected
from unitune.data.example import Example, Message, digest
from unitune.data.records import strict_json
from unitune.distillation.teacher import Teacher
from unitune.errors import DataError
from unitune.evaluate.inference.engine import AnswerOptions
from unitune.evaluate.records import Record
from unitune.evaluate.results import LeakResult
from unitune.evaluate.scoring import scoring_of
from unitune.evaluate.task import Task
from unitune.workspace.filesystem import replacing

SHOWN = 5  # questions that a request shows, and others that it asks for
# An answer may be so many times as long as the longest row's question for each that it lists
ROOM = 4
TEMPERATURE = 1.0  # so that requests which show the same rows give other questions
FILE = "questions.jsonl"
REQUEST = """\
These are {shown} messages that people have sent:

{messages}

Write {shown} other messages of this kind, as other people would send them. Change what is asked, \
the wording, the length and the tone; repeat none of them. Answer with a JSON list of {shown} \
strings and nothing else."""


@dataclass(frozen=True, slots=True)
class VariantsPlan:
    """Which questions are shown, before the first request."""

    teacher: Teacher
    shown: tuple[tuple[Example, ...], ...]
    task: Task
    wanted: int

    @property
    def most_usd(self) -> Decimal | None:
        """The most that the questions may cost; None: the price is not known."""
        contender = self.teacher.contender
        return self.teacher.most_usd(self.task.questions(contender.prompts[0], contender.spec))


def plan_variants(teacher: Teacher, wanted: int) -> VariantsPlan:
    """Choose the rows that questions are written after; nothing is sent.

    Raises:
        DataError: No training row is one question with its answer.
    """
    job, train = teacher.resolved.job, teacher.resolved.splits.train
    seeds = sorted(filter(_is_one_question, train), key=lambda row: digest(["seed", row.input_key]))
    if not seeds:
        raise DataError(
            f"{train.name}: no row is one question of a user with its answer, so none can be "
            "written like it. Give questions with --questions."
        )
    requests, size = -(-wanted // SHOWN), min(SHOWN, len(seeds))
    source = _in_turn(seeds)
    shown = tuple(tuple(islice(source, size)) for _ in range(requests))
    # Of interest is the length of questions: each stands as the answer to itself.
    answers = (Message(role="assistant", content=row.prompt[-1].text) for row in seeds)
    pairs = zip(seeds, answers, strict=True)
    longest = longest_expected([Example(messages=(*row.prompt, own)) for row, own in pairs])
    task = Task(
        cases=tuple(_request(number, rows) for number, rows in enumerate(shown)),
        dev=(),
        scoring=scoring_of(job, train),
        output_limit=OutputLimit(SHOWN * ROOM * longest, longest, job.backend),
        leaks=LeakResult(action=job.evaluate.leaks, searched=False),
        temperature=TEMPERATURE,
    )
    return VariantsPlan(teacher.of_questions(), shown, task, wanted)


def write_variants(planned: VariantsPlan, options: AnswerOptions) -> WrittenQuestions:
    """Have questions written, into a file of rows without answers.

    Raises:
        DataError: No answer is a list of texts.
        BackendError: As of `Teacher.answer`; so are OverBudget and Interrupted.
    """
    answers = planned.teacher.answer(planned.task, options)
    records = answers.answered.records
    rows: list[Example] = []
    for shown, record in zip(planned.shown, records, strict=True):
        for at, text in enumerate(_texts(record)):
            before = shown[at % len(shown)].prompt[:-1]
            rows.append(Example(messages=(*before, Message(role="user", content=text))))
    rows = rows[: planned.wanted]
    if not rows:
        raise DataError(
            f"none of the {len(records):,} answers of {planned.teacher.name} is a JSON list of "
            f"questions, first: {(records[0].error or records[0].text)[:200]!r}. Take a larger "
            "model, or give questions with --questions."
        )
    path = planned.teacher.folder / FILE
    with replacing(path) as file:
        file.writelines(f"{row.line}\n" for row in rows)
    return WrittenQuestions(path, len(rows), answers.usd)


@dataclass(frozen=True, slots=True)
class WrittenQuestions:
    """A file of new questions: rows without answers."""

    path: Path
    count: int
    usd: Decimal  # what the teacher was paid so far


def _in_turn(rows: Sequence[Example]) -> Iterator[Example]:
    """Yield all rows again and again, each time in another order, so that no request recurs."""
    for number in count():
        yield from random.Random(number).sample(rows, len(rows))  # noqa: S311 - repeatable


def _is_one_question(row: Example) -> bool:
    roles = [turn.role for turn in row.prompt]
    return roles in (["user"], ["system", "user"]) and not row.tools


def _request(number: int, rows: Sequence[Example]) -> Example:
    messages = "\n".join(f"{at}. {row.prompt[-1].text}" for at, row in enumerate(rows, 1))
    text = REQUEST.format(shown=len(rows), messages=messages)
    return Example(messages=(Message(role="user", content=text),), id=f"request {number}")


def _texts(record: Record) -> Iterator[str]:
    """Yield the questions of an answer; a fence around it is no part of it."""
    text = record.text[record.text.find("[") : record.text.rfind("]") + 1]
    try:
        value, _ = strict_json(text)
    except (ValueError, RecursionError):
        return
    for each in value if isinstance(value, list) and record.error is None else ():
        if isinstance(each, str) and each.strip():
            yield each.strip()
