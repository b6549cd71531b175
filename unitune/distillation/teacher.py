"""Run a teacher: a model that answers as the only contender of a job."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Literal

from unitune.backends.offer import OutputTerms
from unitune.errors import NotFoundError, UserError
from unitune.evaluate.collecting import collect_responses
from unitune.evaluate.grading import Answered
from unitune.evaluate.inference.budget import Budget, answer_prices, most_usd
from unitune.evaluate.inference.engine import AnswerOptions, Question, short_hash
from unitune.evaluate.inference.sources import Source, resolve_sources
from unitune.evaluate.prompts.contenders import Contender, DevScore, build
from unitune.evaluate.result_files import folder_of_job
from unitune.evaluate.runner import EvaluationConfig, open_journals
from unitune.evaluate.task import Task
from unitune.job.contenders import ContenderSpec, Model, PromptKind, Server
from unitune.job.job import Job
from unitune.planning.preflight import ResolvedJob
from unitune.workspace.home import make_folder

FOLDER = "distillation"
SHOTS = 8  # training rows shown to a teacher: those nearest to each question


@dataclass(frozen=True, slots=True)
class Teacher:
    """A model that answers questions."""

    resolved: ResolvedJob  # job with the teacher as the only contender
    contender: Contender  # the contender and its possible prompts
    source: Source
    # Vendor's terms on training on its answers; None if not on record
    terms: OutputTerms | None
    spent: Decimal = Decimal(0)  # earlier cost in US dollars
    writes: Literal["answers", "questions"] = "answers"  # each has its own folder

    @classmethod
    def of(
        cls,
        resolved: ResolvedJob,
        name: str,
        prompt: PromptKind | None = None,
        *,
        allow_unpriced: bool = False,
    ) -> Teacher:
        """Look up a teacher without sending anything.

        Args:
            resolved: Job, which may have a contender of type model or server.
            name: Name of that contender, or ``BACKEND:MODEL``.
            prompt: Kind of prompt; None for the job's, or the nearest training rows.
            allow_unpriced: Whether the user accepts an unknown price.

        Raises:
            NotFoundError: The contender or backend does not exist.
            UserError: The contender has a prompt and another is given, or the teacher cannot be
                called.
            OverBudget: There is a budget, but the price is unknown.
        """
        spec = _spec(resolved.job, name, prompt)
        alone, contender = _with_contender(resolved, spec)
        sources = resolve_sources(alone, {}, AnswerOptions(allow_unpriced=allow_unpriced))
        terms = alone.book.offer(spec.backend).outputs if isinstance(spec, Model) else None
        return cls(alone, contender, sources[spec.name], terms)

    @property
    def name(self) -> str:
        """The name in rows and reports."""
        return self.contender.name

    @property
    def is_free(self) -> bool:
        """True if the answers cost nothing."""
        resolved = self.resolved
        return not answer_prices(resolved.job, resolved.book, allow_unpriced=True).charged

    @property
    def folder(self) -> Path:
        """The folder of its recorded answers."""
        own = short_hash([self.contender.spec.model_dump(mode="json")])
        return folder_of_job(self.resolved.job) / FOLDER / own / self.writes

    def of_questions(self) -> Teacher:
        """Return the teacher as a writer of questions, without the prompt for answers."""
        plain = {"prompt": "zero-shot", "shots": "auto", "choose": "auto", "instructions": None}
        spec = self.contender.spec.model_copy(update=plain)
        resolved, contender = _with_contender(self.resolved, spec)
        return replace(self, resolved=resolved, contender=contender, writes="questions")

    def most_usd(self, questions: Iterable[Question]) -> Decimal | None:
        """Return the maximum cost of answers; None if the price is unknown."""
        price = self.source.price
        if price is None:
            return None
        return sum((most_usd(price, question.request) for question in questions), Decimal(0))

    def answer(self, task: Task, options: AnswerOptions) -> TeacherAnswers:
        """Get answers to a task's dev rows and cases; recorded answers are not requested again.

        Raises:
            BackendError: The teacher is down or refuses every question; its answers are kept.
            OverBudget: The budget is used up; answers are kept.
            Interrupted: The user pressed Ctrl-C; the same call continues.
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
    """Answers of a teacher."""

    answered: Answered
    score: DevScore | None  # on the dev rows; None without dev rows
    usd: Decimal  # cost until now in US dollars


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
                    f"contender {name!r} of the job has the prompt {spec.prompt}. Omit "
                    "--prompt, or name the teacher as BACKEND:MODEL."
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
