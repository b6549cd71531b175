"""Turn a teacher's answers to unanswered questions into training rows with their origin.

questions ──► dev       score of the teacher; chooses its prompt
          ──► answers   recorded within the budget, optionally in batches
          ──► accept    complete, in the form of the training rows, not wrong by a scorer
          ──► rows      the student's prompt, the answer and its origin
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from unitune.backends.offer import OutputTerms
from unitune.backends.output_limit import OutputLimit, longest_expected
from unitune.data.columns import ROWS_A_LABEL, may_be_labels
from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example, Message
from unitune.data.load import Files, Reading, usable_rows
from unitune.data.overlap import leaks
from unitune.data.privacy.screen import Screen
from unitune.data.records import strict_json
from unitune.distillation.teacher import Teacher, WrittenQuestions
from unitune.errors import DataError, UserError
from unitune.evaluate.documents.records import Record
from unitune.evaluate.documents.results import LeakResult
from unitune.evaluate.inference.engine import AnswerOptions
from unitune.evaluate.scoring.grading import Answered
from unitune.evaluate.scoring.scorers import attempt_of, scoring_of
from unitune.evaluate.task import Task, dev_rows
from unitune.files.filesystem import replacing
from unitune.models import Request, plain_calls
from unitune.planning.preflight import ResolvedJob
from unitune.scorers.interface import Scorer
from unitune.scorers.trajectory import Trajectory
from unitune.workspace.user_settings import today

# Finish reasons of complete answers; tool_use is Anthropic's word
WHOLE = ("stop", "tool_calls", "tool_use")


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """Common form of the answers in all training rows."""

    labels: frozenset[str] = frozenset()  # all labels; empty if the answers are not labels
    # Keys of the JSON objects; None if the answers are not such objects
    keys: frozenset[str] | None = None
    is_json: bool = False

    @classmethod
    def of(cls, answers: Sequence[str]) -> AnswerForm:
        """Find the common form of answers."""
        if not answers:
            return cls()
        counts = Counter(answer.strip() for answer in answers)
        repeats = len(counts) <= len(answers) // ROWS_A_LABEL
        if repeats and may_be_labels(answers, len(counts)):
            return cls(labels=frozenset(counts))
        values = [_value(answer) for answer in answers]
        if None in values:
            return cls()
        keys = {value.keys for value in values if value}
        return cls(keys=keys.pop() if len(keys) == 1 else None, is_json=True)

    def refusal(self, answer: str) -> str | None:
        """Return why an answer does not have this form, or None."""
        if self.labels:
            return None if answer.strip() in self.labels else "not a label of the training rows"
        if not self.is_json:
            return None
        value = _value(answer)
        if value is None:
            return "not JSON, unlike the answers of all training rows"
        if self.keys is not None and value.keys != self.keys:
            return "JSON without the keys that all training rows have"
        return None


class _Value(NamedTuple):
    keys: frozenset[str] | None


def _value(answer: str) -> _Value | None:
    try:
        value, _ = strict_json(answer)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict | list):  # a bare number or word is not a form
        return None
    return _Value(frozenset(value) if isinstance(value, dict) else None)


def refusal(
    question: Example, record: Record, scorers: Iterable[Scorer], form: AnswerForm
) -> str | None:
    """Return why an answer without an expected one is not accepted, or None."""
    if incomplete := _incomplete(record):
        return incomplete
    if not record.tool_calls and (of_form := form.refusal(record.text)):
        return of_form
    attempt = attempt_of(question, record)
    for scorer in scorers:
        if isinstance(scorer, Trajectory):  # a teacher gives one answer
            continue
        if not scorer.needs_expected and scorer.score(attempt).value < 1:
            return f"wrong by the scorer {scorer.name}"
    return None


def _incomplete(record: Record) -> str | None:
    if record.error is not None:
        return "no answer was received"
    if record.cut:
        return "truncated at the maximum answer length"
    if record.finish_reason not in WHOLE:
        return f"ended by {record.finish_reason}"
    if not record.text.strip() and not record.tool_calls:
        return "empty"
    return None


# Custom key for the origin of a row's answer; neither trained on nor sent
KEY = "distilled"
DEV_ROWS = 50  # enough to judge a teacher and to choose between two prompts
REJECTED = "rejected.jsonl"


@dataclass(frozen=True, slots=True)
class RejectedAnswer:
    """An answer that was not accepted."""

    line: int  # line of its question
    answer: str
    reason: str


@dataclass(frozen=True, slots=True)
class Distillation:
    """Result of a distillation."""

    path: Path  # file of the rows
    rows: int
    rejected: tuple[RejectedAnswer, ...]  # in question order
    left_out: dict[str, int]  # rows of the file that were not asked, by reason
    teacher: str  # name as written into the rows
    prompt: str  # description of the prompt
    # Teacher's score on the dev rows by the primary scorer; None without dev rows
    dev_score: float | None
    dev_rows: int
    scorer: str
    usd: Decimal  # cost of all answers until now
    # Vendor's terms on training on its answers; None if not on record
    terms: OutputTerms | None
    folder: Path  # contains every answer and `REJECTED`

    @property
    def reasons(self) -> Counter[str]:
        """Number of rejected answers by reason."""
        return Counter(each.reason for each in self.rejected)


@dataclass(frozen=True, slots=True)
class DistillationPlan:
    """Everything that is known before the first request."""

    teacher: Teacher
    questions: Questions
    task: Task  # the questions and the dev rows for the runner

    @property
    def most_usd(self) -> Decimal | None:
        """Maximum cost of the answers; None if the price is unknown."""
        contender, task = self.teacher.contender, self.task
        first, spec = contender.prompts[0], contender.spec
        tried = [*contender.prompts, *contender.refine(first)]
        on_dev = (task.questions(prompt, spec, task.dev) for prompt in tried)
        return self.teacher.most_usd(chain(*on_dev, task.questions(first, spec)))


def plan_distillation(
    teacher: Teacher,
    questions: str | os.PathLike[str] | WrittenQuestions,
    *,
    limit: int | None = None,
) -> DistillationPlan:
    """Prepare a distillation without sending anything.

    Args:
        teacher: Model that answers; its job has the training rows, scorers and test.
        questions: File of rows without answers, written by the user or the teacher.
        limit: Maximum number of questions.

    Raises:
        DataError: Rows of the questions or of the job cannot be used.
        UserError: No question is left.
    """
    if written := isinstance(questions, WrittenQuestions):
        teacher, questions = replace(teacher, spent=questions.usd), questions.path
    resolved = teacher.resolved
    chosen = read_questions(resolved, questions, limit, is_written=written)
    if not len(chosen.rows):
        why = "; ".join(f"{count:,} {reason}" for reason, count in chosen.left_out.items())
        raise UserError(f"{questions}: no question is left to answer: {why}.")
    evaluate, splits = resolved.job.evaluate, resolved.splits
    most = evaluate.max_tokens
    task = Task(
        # Identified by content, because users' ids may be repeated.
        cases=tuple(each.model_copy(update={"id": None}) for each in chosen.rows),
        dev=dev_rows(splits.validation)[:DEV_ROWS],
        scoring=scoring_of(resolved.job, splits.train),
        output_limit=OutputLimit(
            None if most == "auto" else most, longest_expected(splits.train), resolved.job.backend
        ),
        leaks=LeakResult(action=evaluate.leaks, searched=False),
        template=Request(
            messages=(),
            temperature=0.0 if evaluate.temperature == "auto" else evaluate.temperature,
        ),
    )
    return DistillationPlan(teacher, chosen, task)


def distill(
    planned: DistillationPlan, output: str | os.PathLike[str], options: AnswerOptions
) -> Distillation:
    """Get answers from a teacher and write the accepted ones as rows.

    Args:
        planned: Result of `plan_distillation`.
        output: JSON Lines file, written at the end; an existing file is replaced.
        options: Request options.

    Raises:
        DataError: No answer is accepted; an existing file is kept.
        BackendError: As `Teacher.answer`; also OverBudget and Interrupted.
    """
    teacher = planned.teacher
    answers = teacher.answer(planned.task, options)
    rows, rejected = _judged(planned, answers.answered)
    with replacing(teacher.folder / REJECTED) as file:
        file.writelines(f"{json.dumps(asdict(each), ensure_ascii=False)}\n" for each in rejected)
    if not rows:
        raise DataError(
            f"none of the {len(rejected):,} answers of {teacher.name} can be a training row, so "
            f"nothing was written. {teacher.folder / REJECTED} lists the reasons. The first: "
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
    train = planned.teacher.resolved.splits.train
    form = AnswerForm.of([row.answer for row in train if row.answer is not None])
    scoring = planned.task.scoring.on_dev  # judges read only answers to test cases
    scorers = scoring.scorers if scoring else ()
    redaction = planned.teacher.resolved.rows.read.redaction
    rows: list[Example] = []
    rejected: list[RejectedAnswer] = []
    for row, record in zip(planned.questions.rows.rows, answered.records, strict=True):
        if reason := refusal(row.example, record, scorers, form):
            rejected.append(RejectedAnswer(row.line, record.text, reason))
        else:
            made = _row(planned, row.example, record, answered.choice.prompt.label)
            rows.append(redaction.restore_row(made) if redaction else made)
    return rows, rejected


def _row(planned: DistillationPlan, question: Example, record: Record, prompt: str) -> Example:
    answer = Message(
        role="assistant",
        content=record.text.strip() or None,
        tool_calls=plain_calls(record.tool_calls),
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


ANSWERED = "had an answer"
REPEATED = "repeated another row"
KNOWN = "were in the training or validation rows"
NEAR = "were near a training row"
NEAR_TEST = "were near a test case"


@dataclass(frozen=True, slots=True)
class Questions:
    """Rows to answer."""

    rows: Dataset
    left_out: Counter[str]


def read_questions(
    resolved: ResolvedJob,
    path: str | os.PathLike[str],
    limit: int | None = None,
    *,
    is_written: bool = False,
) -> Questions:
    """Read questions that repeat no row of the job; raises `DataError` for an unusable row.

    Questions that a teacher wrote (`is_written`) must not be near a training row either.
    """
    splits = resolved.splits
    data, files = resolved.job.data, Files([str(path)])
    screen = Screen(data, resolved.rows.read.redaction)
    items = screen.rows(files.read(data, "any", Reading()), files)
    read = Dataset(Path(path).name, usable_rows(items, str(path), str(path)))
    seen = {row.input_key for part in (splits.train, splits.validation) for row in part}
    taken: set[str] = set()
    left_out: Counter[str] = Counter()
    kept: list[Row] = []
    for row in read.rows:
        key = row.example.input_key
        if row.example.answer is not None:
            left_out[ANSWERED] += 1
        elif key in seen:
            left_out[KNOWN] += 1
        elif key in taken:
            left_out[REPEATED] += 1
        else:
            taken.add(key)
            kept.append(row)
    for other, reason in ((splits.test, NEAR_TEST), (splits.train if is_written else None, NEAR)):
        if not other:
            continue
        near = {shared.line for shared in leaks([other], replace(read, rows=tuple(kept)))}
        if near:
            left_out[reason] += sum(row.line in near for row in kept)
        kept = [row for row in kept if row.line not in near]
    return Questions(replace(read, rows=tuple(kept[:limit])), left_out)
