"""A teacher's answers to questions that have none, as training rows with their origin.

    questions ──► dev       how good the teacher is; chooses its prompt
              ──► answers   recorded, within the budget, in batches where that is wanted
              ──► accept    whole ones, in the form of the training rows, that no scorer finds wrong
              ──► rows      what the student is to see, the answer, and where it comes from

What the teacher is shown, instructions and examples, is no part of the rows.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from itertools import chain
from pathlib import Path

from pydantic import JsonValue

from unitune.backends.offer import OutputTerms
from unitune.backends.output_limit import OutputLimit, longest_expected
from unitune.data.example import Example, Message
from unitune.distillation.acceptance import Acceptance, AnswerForm
from unitune.distillation.questions import Questions, read_questions
from unitune.distillation.teacher import Teacher
from unitune.distillation.variants import WrittenQuestions
from unitune.errors import DataError, UserError
from unitune.evaluate.grading import Answered
from unitune.evaluate.inference.engine import AnswerOptions
from unitune.evaluate.records import Record
from unitune.evaluate.results import LeakResult
from unitune.evaluate.scoring import scoring_of
from unitune.evaluate.task import Task, dev_rows
from unitune.workspace.filesystem import replacing
from unitune.workspace.today import today

# Custom key of a row that says where its answer comes from; it is neither trained on nor sent
KEY = "distilled"
DEV_ROWS = 50  # enough to see whether a teacher is any good, and to choose between two prompts
REJECTED = "rejected.jsonl"


@dataclass(frozen=True, slots=True)
class RejectedAnswer:
    """An answer that becomes no row."""

    line: int  # of its question
    answer: str
    reason: str


@dataclass(frozen=True, slots=True)
class Distillation:
    """What came of it."""

    path: Path  # of the rows
    rows: int
    rejected: tuple[RejectedAnswer, ...]  # the others, in the order of the questions
    left_out: dict[str, int]  # how many rows of the file were no questions to put, by the reason
    teacher: str  # its name, as it is written into the rows
    prompt: str  # what it was shown, in words
    # The teacher's own score on the dev rows by the primary scorer; None: there are none
    dev_score: float | None
    dev_rows: int
    scorer: str
    usd: Decimal  # of all answers so far
    # What the vendor's terms say of training on its answers; None: not on record
    terms: OutputTerms | None
    folder: Path  # with every answer as it came, and `REJECTED`

    @property
    def reasons(self) -> Counter[str]:
        """How many answers were rejected, by the reason."""
        return Counter(each.reason for each in self.rejected)


@dataclass(frozen=True, slots=True)
class DistillationPlan:
    """Everything that is known before the first answer."""

    teacher: Teacher
    questions: Questions
    task: Task  # the same questions with the dev rows, as the runner takes them

    @property
    def most_usd(self) -> Decimal | None:
        """The most that the answers may cost; None: the price is not known."""
        contender = self.teacher.contender
        first = contender.prompts[0]
        tried, spec = [*contender.prompts, *contender.refine(first)], contender.spec
        on_dev = (
            self.task.question(row, prompt, spec) for prompt in tried for row in self.task.dev
        )
        return self.teacher.most_usd(chain(on_dev, self.task.questions(first, spec)))


def plan_distillation(
    teacher: Teacher,
    questions: str | os.PathLike[str] | WrittenQuestions,
    *,
    limit: int | None = None,
) -> DistillationPlan:
    """Look up all that a distillation needs; nothing is sent.

    Args:
        teacher: Who answers; its job has the training rows, their form, the scorers and the test.
        questions: A file of rows without answers, of the user's or the teacher's own.
        limit: The most questions.

    Raises:
        DataError: Rows cannot be used; of the file of questions, or of the job's own.
        UserError: No question is left to ask.
    """
    if written := isinstance(questions, WrittenQuestions):
        teacher, questions = replace(teacher, spent=questions.usd), questions.path
    resolved = teacher.resolved
    chosen = read_questions(resolved, questions, limit, is_written=written)
    if not len(chosen.rows):
        why = "; ".join(f"{count:,} {reason}" for reason, count in chosen.left_out.items())
        raise UserError(f"{questions}: no question is left to be answered: {why}.")
    evaluate, splits = resolved.job.evaluate, resolved.splits
    most = evaluate.max_tokens
    task = Task(
        # Known by their content: ids of a user's own may be given twice.
        cases=tuple(each.model_copy(update={"id": None}) for each in chosen.rows),
        dev=dev_rows(splits.validation)[:DEV_ROWS],
        scoring=scoring_of(resolved.job, splits.train),
        output_limit=OutputLimit(
            None if most == "auto" else most, longest_expected(splits.train), resolved.job.backend
        ),
        leaks=LeakResult(action=evaluate.leaks, searched=False),
        temperature=0.0 if evaluate.temperature == "auto" else evaluate.temperature,
    )
    return DistillationPlan(teacher, chosen, task)


def distill(
    planned: DistillationPlan, output: str | os.PathLike[str], options: AnswerOptions
) -> Distillation:
    """Have questions answered by a teacher, and write the answers that are accepted as rows.

    Args:
        planned: By `plan_distillation`.
        output: A file of JSON Lines, written whole at the end; what was there is replaced.
        options: How requests are put.

    Raises:
        DataError: No answer is accepted; what was there is left alone.
        BackendError: As of `Teacher.answer`; so are OverBudget and Interrupted.
    """
    teacher = planned.teacher
    answers = teacher.answer(planned.task, options)
    rows, rejected = _judged(planned, answers.answered)
    with replacing(teacher.folder / REJECTED) as file:
        file.writelines(f"{json.dumps(asdict(each), ensure_ascii=False)}\n" for each in rejected)
    if not rows:
        raise DataError(
            f"none of the {len(rejected):,} answers of {teacher.name} can be a training row, so "
            f"nothing was written; {teacher.folder / REJECTED} says why, first: "
            f"{rejected[0].reason}."
        )
    with replacing(Path(output)) as file:
        file.writelines(f"{row.line}\n" for row in rows)
    return Distillation(
        path=Path(output),
        rows=len(rows),
        rejected=tuple(rejected),
        left_out=dict(planned.questions.left_out),
        teacher=teacher.name,
        prompt=answers.answered.choice.prompt.label,
        dev_score=answers.score and answers.score.primary,
        dev_rows=answers.score.rows if answers.score else 0,
        scorer=planned.task.scoring.primary.name,
        usd=answers.usd,
        terms=teacher.terms,
        folder=teacher.folder,
    )


def _judged(
    planned: DistillationPlan, answered: Answered
) -> tuple[list[Example], list[RejectedAnswer]]:
    """Return the rows that the accepted answers make, and the other answers."""
    train = planned.teacher.resolved.splits.train
    form = AnswerForm.of([row.answer for row in train if row.answer is not None])
    acceptance = Acceptance(planned.task.scoring.scorers, form)
    redaction = planned.teacher.resolved.rows.read.redaction
    rows: list[Example] = []
    rejected: list[RejectedAnswer] = []
    for row, record in zip(planned.questions.rows.rows, answered.records, strict=True):
        if reason := acceptance.refusal(row.example, record):
            rejected.append(RejectedAnswer(row.line, record.text, reason))
        else:
            made = _row(planned, row.example, record, answered.choice.prompt.label)
            rows.append(redaction.restore_row(made) if redaction else made)
    return rows, rejected


def _row(planned: DistillationPlan, question: Example, record: Record, prompt: str) -> Example:
    answer = Message(
        role="assistant", content=record.text.strip() or None, tool_calls=record.tool_calls
    )
    origin: dict[str, JsonValue] = {
        "teacher": planned.teacher.name,
        "model": record.model,
        "prompt": prompt,
        "request_hash": record.request_hash,
        "date": today().isoformat(),
        "terms": planned.teacher.terms.training if planned.teacher.terms else "not on record",
    }
    return question.model_copy(update={"messages": (*question.messages, answer), KEY: origin})
