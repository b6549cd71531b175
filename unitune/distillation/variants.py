"""Have a teacher write new questions like those of the training rows."""

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
from unitune.files.filesystem import replacing

SHOWN = 5  # questions shown in a request, and new ones requested
# Maximum answer length per listed question, in lengths of the longest row's question
ROOM = 4
TEMPERATURE = 1.0  # so that requests with the same rows give different questions
FILE = "questions.jsonl"
REQUEST = """\
These are {shown} messages that people have sent:

{messages}

Write {shown} other messages of this kind, as other people would send them. Change what is asked, \
the wording, the length and the tone; repeat none of them. Answer with a JSON list of {shown} \
strings and nothing else."""


@dataclass(frozen=True, slots=True)
class VariantsPlan:
    """Questions to show, before the first request."""

    teacher: Teacher
    shown: tuple[tuple[Example, ...], ...]
    task: Task
    wanted: int

    @property
    def most_usd(self) -> Decimal | None:
        """Maximum cost of the questions; None if the price is unknown."""
        contender = self.teacher.contender
        return self.teacher.most_usd(self.task.questions(contender.prompts[0], contender.spec))


def plan_variants(teacher: Teacher, wanted: int) -> VariantsPlan:
    """Choose the rows to imitate; raises `DataError` if none is a single question."""
    job, train = teacher.resolved.job, teacher.resolved.splits.train
    seeds = sorted(filter(_is_one_question, train), key=lambda row: digest(["seed", row.input_key]))
    if not seeds:
        raise DataError(
            f"{train.name}: no row is a single user question with an answer, so there is nothing "
            "to imitate. Pass questions with --questions."
        )
    requests, size = -(-wanted // SHOWN), min(SHOWN, len(seeds))
    source = _in_turn(seeds)
    shown = tuple(tuple(islice(source, size)) for _ in range(requests))
    # Only the length of questions matters, so each serves as its own answer.
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
    """Get new questions and write them to a file of rows without answers.

    Raises:
        DataError: No answer is a list of strings.
        BackendError: As `Teacher.answer`; also OverBudget and Interrupted.
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
            f"questions. The first: {(records[0].error or records[0].text)[:200]!r}. Use a larger "
            "model, or pass questions with --questions."
        )
    path = planned.teacher.folder / FILE
    with replacing(path) as file:
        file.writelines(f"{row.line}\n" for row in rows)
    return WrittenQuestions(path, len(rows), answers.usd)


@dataclass(frozen=True, slots=True)
class WrittenQuestions:
    """File of new questions: rows without answers."""

    path: Path
    count: int
    usd: Decimal  # cost of the teacher until now


def _in_turn(rows: Sequence[Example]) -> Iterator[Example]:
    """Yield all rows repeatedly, in a different order each time, so that no request recurs."""
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
    text = record.text[record.text.find("[") : record.text.rfind("]") + 1]
    try:
        value, _ = strict_json(text)
    except (ValueError, RecursionError):
        return
    for each in value if isinstance(value, list) and record.error is None else ():
        if isinstance(each, str) and each.strip():
            yield each.strip()
