"""Who answers: a teacher, as the only contender of a job, with its price and its vendor's terms.

It answers as a contender of `compare` does, by the same runner: every answer is recorded as it
comes, a budget holds, and the same call goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Literal

from unitune.backends.offer import OutputTerms
from unitune.errors import NotFoundError, UserError
from unitune.evaluate.grading import Answered
from unitune.evaluate.inference.budget import Budget, answer_prices, most_usd
from unitune.evaluate.inference.engine import Question, short_hash
from unitune.evaluate.inference.sources import Source, resolve_sources
from unitune.evaluate.options import AnswerOptions
from unitune.evaluate.prompts.contenders import Contender, DevScore, build
from unitune.evaluate.result_files import folder_of_job
from unitune.evaluate.runner import EvaluationConfig, collect_responses, open_journals
from unitune.evaluate.task import Task
from unitune.job.contenders import ContenderSpec, Model, PromptKind, Server
from unitune.job.job import Job
from unitune.planning.preflight import ResolvedJob
from unitune.workspace.home import make_folder

FOLDER = "distillation"
SHOTS = 8  # training rows that a teacher is shown, those nearest to each question


@dataclass(frozen=True, slots=True)
class Teacher:
    """A model that answers."""

    resolved: ResolvedJob  # A job with it as the only contender
    contender: Contender  # that, with the prompts that it may be given
    source: Source
    # What the vendor's terms say of training on its answers; None: not on record
    terms: OutputTerms | None
    spent: Decimal = Decimal(0)  # what it was paid before, in US dollars
    writes: Literal["answers", "questions"] = "answers"  # each has a folder of its own

    @classmethod
    def of(
        cls,
        resolved: ResolvedJob,
        name: str,
        prompt: PromptKind | None = None,
        *,
        allow_unpriced: bool = False,
    ) -> Teacher:
        """Look a teacher up; nothing is sent.

        Args:
            resolved: A job; a contender of it, a model or a server, may be named.
            name: That contender's, or ``BACKEND:MODEL``.
            prompt: What it is shown; None: as the job says, else its nearest training rows.
            allow_unpriced: Whether the user accepts a price that is not known.

        Raises:
            NotFoundError: There is no such contender or backend.
            UserError: The contender has a prompt of its own, and another is given; or the teacher
                cannot be called.
            OverBudget: There is a budget, and its price is not known.
        """
        spec = _spec(resolved.job, name, prompt)
        alone, contender = _with_contender(resolved, spec)
        sources = resolve_sources(alone, {}, AnswerOptions(allow_unpriced=allow_unpriced))
        terms = alone.book.offer(spec.backend).outputs if isinstance(spec, Model) else None
        return cls(alone, contender, sources[spec.name], terms)

    @property
    def name(self) -> str:
        """As rows and reports have it."""
        return self.contender.name

    @property
    def is_free(self) -> bool:
        """Whether nobody takes money for the answers."""
        resolved = self.resolved
        return not answer_prices(resolved.job, resolved.book, allow_unpriced=True).charged

    @property
    def folder(self) -> Path:
        """Where its answers are recorded."""
        own = short_hash([self.contender.spec.model_dump(mode="json")])
        return folder_of_job(self.resolved.job) / FOLDER / own / self.writes

    def of_questions(self) -> Teacher:
        """Return it as the writer of questions: without what is shown for answers."""
        plain = {"prompt": "zero-shot", "shots": "auto", "choose": "auto", "instructions": None}
        spec = self.contender.spec.model_copy(update=plain)
        resolved, contender = _with_contender(self.resolved, spec)
        return replace(self, resolved=resolved, contender=contender, writes="questions")

    def most_usd(self, questions: Iterable[Question]) -> Decimal | None:
        """Return the most that answers may cost; None: the price is not known."""
        price = self.source.price
        if price is None:
            return None
        return sum((most_usd(price, question.request) for question in questions), Decimal(0))

    def answer(self, task: Task, options: AnswerOptions) -> TeacherAnswers:
        """Have the dev rows of a task answered, and its cases; what is recorded is not again.

        Raises:
            BackendError: The teacher is down or refuses every question; what it answered is kept.
            OverBudget: The budget is used up; likewise.
            Interrupted: The user pressed Ctrl-C; the same call goes on.
        """
        make_folder(self.folder)
        evaluate = self.resolved.job.evaluate
        config = EvaluationConfig(
            task=task,
            contenders=(self.contender,),
            sources={self.name: self.source},
            folder=self.folder,
            budget=Budget.of(evaluate, self.spent),
            concurrency=evaluate.concurrency,
            options=options,
        )
        score = None
        with open_journals(config) as journals:
            if task.dev:
                of_dev = replace(config, dev_only=True)
                (tried,) = collect_responses(of_dev, journals)
                score = tried.choice.score
            (answered,) = collect_responses(config, journals)
        return TeacherAnswers(answered, score, config.budget.spent)


@dataclass(frozen=True, slots=True)
class TeacherAnswers:
    """What a teacher answered."""

    answered: Answered
    score: DevScore | None  # its own on the dev rows; None: there are none
    usd: Decimal  # what it was paid so far, in US dollars


def _with_contender(resolved: ResolvedJob, spec: ContenderSpec) -> tuple[ResolvedJob, Contender]:
    evaluate = resolved.job.evaluate.model_copy(update={"contenders": (spec,)})
    (contender,) = build(evaluate, resolved.job.tuning, resolved.splits.train)
    job = resolved.job.model_copy(update={"evaluate": evaluate})
    return replace(resolved, job=job), contender


def _spec(job: Job, name: str, prompt: PromptKind | None) -> Model | Server:
    specs = [each for each in job.evaluate.contenders if isinstance(each, Model | Server)]
    for spec in specs:
        if spec.name == name:
            if prompt not in (None, spec.prompt):
                raise UserError(
                    f"contender {name!r} of the job has the prompt {spec.prompt}. Leave "
                    "--prompt out, or name the teacher as BACKEND:MODEL."
                )
            return spec
    backend, colon, model = name.partition(":")
    if not (colon and backend and model):
        hint = "Name a teacher as BACKEND:MODEL, or a contender of type model or server."
        raise NotFoundError("teacher", name, [spec.name for spec in specs], hint)
    teacher = Model(backend=backend, model=model, name=name, prompt=prompt or "few-shot")
    if teacher.prompt == "few-shot":
        teacher = teacher.model_copy(update={"shots": SHOTS, "choose": "nearest"})
    return teacher
