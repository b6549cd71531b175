"""A teacher's answers to questions that have none, as training rows with their origin.

    questions ──► dev       how good the teacher is; chooses its prompt
              ──► answers   journalled, within the budget, in batches where that is wanted
              ──► accept    whole ones, in the form of the training rows, that no scorer finds wrong
              ──► rows      what the student is to see, the answer, and where it comes from

The teacher answers as a contender of `compare` does, with the same runner: killed at any moment,
the same call goes on where it stopped, and what was answered is not paid for twice. What it is
shown, instructions and examples, is not part of the rows.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
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
from unitune.errors import DataError, NotFoundError, UserError
from unitune.evaluate.grading import Answered
from unitune.evaluate.inference.budget import Budget, answer_prices, most_usd
from unitune.evaluate.inference.engine import EvaluationProgress, short_hash
from unitune.evaluate.inference.sources import Source, resolve_sources
from unitune.evaluate.prompts.contenders import Contender, DevScore, build
from unitune.evaluate.records import Record
from unitune.evaluate.result_files import folder_of_job
from unitune.evaluate.results import LeakResult
from unitune.evaluate.runner import (
    EvaluationConfig,
    Journals,
    collect_responses,
    open_journals,
)
from unitune.evaluate.scoring import scoring_of
from unitune.evaluate.task import Task, dev_rows
from unitune.job.contenders import Model, PromptKind, Server
from unitune.job.job import Job
from unitune.planning.preflight import ResolvedJob
from unitune.workspace.filesystem import private_folder, replacing
from unitune.workspace.home import home, make_home
from unitune.workspace.today import today

KEY = "distilled"
"""Custom key of a row that says where its answer comes from; it is neither trained on nor sent."""
FOLDER = "distillation"
SHOTS = 8
"""Training rows that a teacher is shown, those nearest to each question."""
DEV_ROWS = 50
"""Enough to see whether a teacher is any good, and to choose between two prompts."""
REJECTED = "rejected.jsonl"


@dataclass(frozen=True, slots=True)
class RejectedAnswer:
    """An answer that becomes no row."""

    line: int
    """Of its question."""
    answer: str
    reason: str


@dataclass(frozen=True, slots=True)
class Distillation:
    """What came of it.

    Args:
        path: The rows.
        rows: How many.
        rejected: The others, in the order of the questions.
        left_out: How many rows of the file were no questions to put, by the reason.
        teacher: Its name, as it is written into the rows.
        prompt: What it was shown, in words.
        dev_score: Its own score on the dev rows by the primary scorer; None: there are none.
        dev_rows: How many dev rows that are.
        scorer: By which.
        usd: Cost of all answers so far.
        terms: What the vendor's terms say of training on its answers; None: not on record.
        folder: With every answer as it came, and `REJECTED`.
    """

    path: Path
    rows: int
    rejected: tuple[RejectedAnswer, ...]
    left_out: dict[str, int]
    teacher: str
    prompt: str
    dev_score: float | None
    dev_rows: int
    scorer: str
    usd: Decimal
    terms: OutputTerms | None
    folder: Path

    @property
    def reasons(self) -> Counter[str]:
        """How many answers were rejected, by the reason."""
        return Counter(each.reason for each in self.rejected)


def teacher_of(job: Job, name: str, prompt: PromptKind | None = None) -> Model | Server:
    """Return a teacher by its name.

    Args:
        job: A contender of it, a model or a server, may be named.
        name: That contender's, or ``BACKEND:MODEL``.
        prompt: How it is asked; None: as the job says, else with examples.

    Raises:
        NotFoundError: There is no such contender.
        UserError: The contender has a prompt of its own, and another is given.
    """
    specs = [each for each in job.evaluate.contenders if isinstance(each, Model | Server)]
    for spec in specs:
        if spec.name == name:
            if prompt not in (None, spec.prompt):
                raise UserError(
                    f"contender {name!r} of the job is asked by prompt {spec.prompt}. Leave "
                    "--prompt out, or name the teacher as BACKEND:MODEL."
                )
            return spec
    backend, colon, model = name.partition(":")
    if not (colon and backend and model):
        hint = "Name a teacher as BACKEND:MODEL, or a contender of type model or server."
        raise NotFoundError("teacher", name, [spec.name for spec in specs], hint)
    if prompt in (None, "few-shot"):
        shots = {"prompt": "few-shot", "shots": SHOTS, "choose": "nearest"}
        return Model.model_validate({"backend": backend, "model": model, "name": name} | shots)
    return Model(backend=backend, model=model, name=name, prompt=prompt)


@dataclass(frozen=True, slots=True)
class DistillationPlan:
    """Everything that is known before the first request.

    Args:
        resolved: The job, with the teacher as its only contender.
        teacher: That contender.
        questions: What it is to answer.
        task: The same with the dev rows, as the runner takes them.
        source: Who answers, at which price.
        terms: As `Distillation.terms`.
    """

    resolved: ResolvedJob
    teacher: Model | Server
    questions: Questions
    task: Task
    source: Source
    terms: OutputTerms | None

    @property
    def is_free(self) -> bool:
        """Whether nobody takes money for the answers."""
        priced = answer_prices(self.resolved.job, self.resolved.book, allow_unpriced=True)
        return not priced.charged

    @property
    def most_usd(self) -> Decimal | None:
        """The most that answers to the questions may cost; None: the price is not known."""
        if self.source.price is None:
            return None
        contender = _contender(self.resolved)
        first = contender.prompts[0]
        tried = [*contender.prompts, *contender.refine(first)]
        on_dev = (
            self.task.question(row, prompt, self.teacher)
            for prompt in tried
            for row in self.task.dev
        )
        asked = chain(on_dev, self.task.questions(first, self.teacher))
        return sum((most_usd(self.source.price, each.request) for each in asked), Decimal(0))


def plan_distillation(
    resolved: ResolvedJob,
    teacher: Model | Server,
    questions: str | os.PathLike[str],
    *,
    limit: int | None = None,
    allow_unpriced: bool = False,
) -> DistillationPlan:
    """Look up all that a distillation needs; nothing is sent.

    Args:
        resolved: A job with training rows: their form, its scorers and its test.
        teacher: Who answers.
        questions: A file of rows without answers.
        limit: The most questions.
        allow_unpriced: Whether the user accepts a price that is not known.

    Raises:
        DataError: Rows cannot be used; of the file of questions, or of the job's own.
        UserError: No question is left to ask, or the teacher cannot be called.
        OverBudget: There is a budget, and the teacher's price is not known.
    """
    evaluate = resolved.job.evaluate.model_copy(update={"contenders": (teacher,)})
    resolved = replace(resolved, job=resolved.job.model_copy(update={"evaluate": evaluate}))
    asked = read_questions(resolved, questions, limit)
    if not len(asked.rows):
        why = "; ".join(f"{count:,} {reason}" for reason, count in asked.left_out.items())
        raise UserError(f"{questions}: no question is left to be answered: {why}.")
    job, splits = resolved.job, resolved.splits
    prices = answer_prices(job, resolved.book, allow_unpriced=allow_unpriced)
    sources = resolve_sources(resolved, {}, prices.contenders, replay=False)
    most = evaluate.max_tokens
    task = Task(
        cases=tuple(asked.rows),
        dev=dev_rows(splits.validation)[:DEV_ROWS],
        scoring=scoring_of(job, splits.train),
        output_limit=OutputLimit(
            None if most == "auto" else most, longest_expected(splits.train), job.backend
        ),
        leaks=LeakResult(action=evaluate.leaks, searched=False, cases=()),
        temperature=0.0 if evaluate.temperature == "auto" else evaluate.temperature,
    )
    terms = resolved.book.offer(teacher.backend).outputs if isinstance(teacher, Model) else None
    return DistillationPlan(resolved, teacher, asked, task, sources[teacher.name], terms)


def distill(  # noqa: PLR0913 - each is independent
    planned: DistillationPlan,
    output: str | os.PathLike[str],
    *,
    batch: bool = False,
    use_cache: bool = False,
    progress: Callable[[EvaluationProgress], None] = lambda _: None,
    announce: Callable[[str], None] = lambda _: None,
) -> Distillation:
    """Have questions answered by a teacher, and write the answers that are accepted as rows.

    Args:
        planned: By `plan_distillation`.
        output: A file of JSON Lines, written whole at the end; what was there is replaced.
        batch: Have them answered in batches, where the teacher's backend can.
        use_cache: Take answers that were given to the same requests before.
        progress: Called as answers come.
        announce: Called with what the user should know, a sentence.

    Raises:
        DataError: No answer is accepted; what was there is left alone.
        BackendError: The teacher is down or refuses every question; what it answered is kept.
        OverBudget: The budget is used up; likewise.
        Interrupted: The user pressed Ctrl-C; the same call goes on.
    """
    job, teacher = planned.resolved.job, planned.teacher
    folder = folder_of_job(job) / FOLDER / short_hash([teacher.model_dump(mode="json")])
    make_home(home())
    private_folder(folder)
    budget = job.evaluate.budget
    config = EvaluationConfig(
        task=planned.task,
        contenders=(_contender(planned.resolved),),
        sources={teacher.name: planned.source},
        folder=folder,
        budget=Budget(budget and budget.usd),
        concurrency=job.evaluate.concurrency,
        batch=batch,
        replay=False,
        use_cache=use_cache,
        announce=announce,
        dev_only=True,
    )
    with open_journals(config) as journals:
        score = _dev_score(config, journals, progress) if planned.task.dev else None
        (answered,) = collect_responses(replace(config, dev_only=False), journals, progress)
    rows, rejected = _judged(planned, answered)
    with replacing(folder / REJECTED) as file:
        file.writelines(f"{json.dumps(asdict(each), ensure_ascii=False)}\n" for each in rejected)
    if not rows:
        raise DataError(
            f"none of the {len(rejected):,} answers of {teacher.name} can be a training row, so "
            f"nothing was written; {folder / REJECTED} says why, first: {rejected[0].reason}."
        )
    with replacing(Path(output)) as file:
        file.writelines(f"{row.line}\n" for row in rows)
    return Distillation(
        path=Path(output),
        rows=len(rows),
        rejected=tuple(rejected),
        left_out=dict(planned.questions.left_out),
        teacher=teacher.name,
        prompt=answered.choice.prompt.label,
        dev_score=score and score.primary,
        dev_rows=score.rows if score else 0,
        scorer=planned.task.scoring.primary.name,
        usd=config.budget.spent,
        terms=planned.terms,
        folder=folder,
    )


def _contender(resolved: ResolvedJob) -> Contender:
    """Return the only contender: the teacher with the prompts that it may be given."""
    job = resolved.job
    (contender,) = build(job.evaluate, job.tuning, resolved.splits.train)
    return contender


def _dev_score(
    config: EvaluationConfig, journals: Journals, progress: Callable[[EvaluationProgress], None]
) -> DevScore | None:
    (answered,) = collect_responses(config, journals, progress)
    return answered.choice.score


def _judged(
    planned: DistillationPlan, answered: Answered
) -> tuple[list[Example], list[RejectedAnswer]]:
    """Return the rows that the accepted answers make, and the other answers."""
    train = planned.resolved.splits.train
    form = AnswerForm.of([row.answer for row in train if row.answer is not None])
    acceptance = Acceptance(planned.task.scoring.scorers, form)
    rows: list[Example] = []
    rejected: list[RejectedAnswer] = []
    for row, record in zip(planned.questions.rows.rows, answered.records, strict=True):
        if reason := acceptance.refusal(row.example, record):
            rejected.append(RejectedAnswer(row.line, record.text, reason))
        else:
            rows.append(_row(planned, row.example, record, answered.choice.prompt.label))
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
        "terms": planned.terms.training if planned.terms else "not on record",
    }
    return question.model_copy(update={"messages": (*question.messages, answer), KEY: origin})
