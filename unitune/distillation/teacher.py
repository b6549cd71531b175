"""Run a teacher: a model that answers as the only contender of a job.

It can also write new questions like those of the training rows.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import count, islice
from pathlib import Path
from typing import Literal

from unitune.backends.offer import OutputTerms
from unitune.backends.output_limit import OutputLimit, longest_expected
from unitune.data.example import Example, Message, digest
from unitune.data.records import strict_json
from unitune.errors import DataError, NotFoundError, UserError
from unitune.evaluate.collecting import collect_responses
from unitune.evaluate.documents.history import folder_of_job
from unitune.evaluate.documents.records import Record
from unitune.evaluate.documents.results import LeakResult
from unitune.evaluate.inference.budget import Budget, answer_prices, most_usd
from unitune.evaluate.inference.engine import AnswerOptions, Question, short_hash
from unitune.evaluate.inference.sources import Source, resolve_sources
from unitune.evaluate.prompts.contenders import Contender, DevScore, build
from unitune.evaluate.runner import EvaluationConfig, open_journals
from unitune.evaluate.scoring.grading import Answered
from unitune.evaluate.scoring.scorers import scoring_of
from unitune.evaluate.task import Task
from unitune.files.filesystem import replacing
from unitune.job.contenders import ContenderSpec, Model, PromptKind, Server
from unitune.job.job import Job
from unitune.models import Request
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
        template=Request(messages=(), temperature=TEMPERATURE),
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
