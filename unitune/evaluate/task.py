"""The cases of a comparison with their scorers.

`prepare` makes a `Task` out of a job's splits. It refuses what would make the evidence worthless
before any model is loaded: test cases that stand in training rows (as `evaluate.leaks` says),
two different cases under one id, expected answers that a scorer cannot read or that any answer
meets. A case that stands in the file twice, under whatever ids, counts once, because it is no
second piece of evidence.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from statistics import fmean
from typing import Literal

from unitune.backends.output_limit import OutputLimit, longest_expected
from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example, digest
from unitune.data.overlap import leaks, refuse
from unitune.errors import DataError, JobError, Leak
from unitune.evaluate.grouping import check_groups, question_hash
from unitune.evaluate.inference.budget import ScorerBudget, usd
from unitune.evaluate.inference.engine import Question
from unitune.evaluate.prompts.dev import DevScore
from unitune.evaluate.prompts.prompts import Prompt
from unitune.evaluate.records import Answer, Record
from unitune.evaluate.results import LeakResult
from unitune.evaluate.scoring import (
    attempt_of,
    build,
    check_expected,
    check_indulgence,
    labels_of,
)
from unitune.job.contenders import ContenderSpec
from unitune.job.job import TokenPrice
from unitune.models import Request
from unitune.planning.preflight import ResolvedJob
from unitune.scorers.embedding import Embedding
from unitune.scorers.formulas import Sums
from unitune.scorers.interface import Attempt, Confusion, Embedder, Score, Scorer, Setting
from unitune.scorers.measures import Measure, Measured
from unitune.workspace.home import home

FIXABLE: tuple[Literal["temperature", "max_tokens"], ...] = ("temperature", "max_tokens")
"""Settings that a model may refuse where the job leaves them to `auto`."""


@dataclass(frozen=True, slots=True)
class Task:
    """Cases with scorers.

    Args:
        cases: Test cases, each once.
        dev: Rows that choose prompts and the best baseline.
        primary: Name of the scorer that decides.
        leaks: Test cases that stand in training rows.
        notes: What a reader of the verdict must know about the cases.
        repeats: How often each test case is requested.
        fixed: Settings that the job itself names, `Request.fixed`.
        measures: Figures beside the quality, such as latency.
        prices: Of the contenders' tokens, by contender.
        copies: Ids of cases left out as copies, each with the id of the case that is kept.
    """

    cases: tuple[Example, ...]
    dev: tuple[Example, ...]
    scorers: tuple[Scorer, ...]
    primary: str
    output_limit: OutputLimit
    leaks: LeakResult
    notes: tuple[str, ...] = ()
    repeats: int = 1
    temperature: float = 0.0
    fixed: tuple[Literal["temperature", "max_tokens"], ...] = ()
    measures: tuple[Measure, ...] = ()
    prices: Mapping[str, TokenPrice] = field(default_factory=dict[str, TokenPrice])
    copies: Mapping[str, str] = field(default_factory=dict[str, str])

    def scorer(self, name: str) -> Scorer:
        """Return the scorer of a name."""
        return next(scorer for scorer in self.scorers if scorer.name == name)

    def question(
        self, case: Example, prompt: Prompt, spec: ContenderSpec, repeat: int = 0
    ) -> Question:
        """Return a case as a question to a contender."""
        return Question(
            case=case.case_id,
            request=Request(
                messages=prompt.messages(case),
                tools=case.tools,
                max_tokens=self.output_limit.of(spec),
                temperature=self.temperature,
                seed=repeat,
                fixed=self.fixed,
            ),
            repeat=repeat,
        )

    def questions(self, prompt: Prompt, spec: ContenderSpec) -> list[Question]:
        """Return all test cases as questions with their repeats, case by case."""
        return [
            self.question(case, prompt, spec, repeat)
            for case in self.cases
            for repeat in range(self.repeats)
        ]

    def attempts(self, records: Sequence[Record]) -> list[Attempt]:
        """Return answers to the test cases, one a case and repeat, as scorers see them."""
        cases = (case for case in self.cases for _ in range(self.repeats))
        return [attempt_of(*pair) for pair in zip(cases, records, strict=True)]

    def grade_all(
        self, attempts: Sequence[Attempt], records: Sequence[Record]
    ) -> tuple[Answer, ...]:
        """Score recorded answers; what scorers need of a server is requested together."""
        pairs = list(zip(attempts, records, strict=True))
        for scorer in self.scorers:
            scorer.fetch_all([attempt for attempt, record in pairs if not record.error])
        return tuple(self._grade(*pair) for pair in pairs)

    def _grade(self, attempt: Attempt, record: Record) -> Answer:
        """Score a recorded answer; 0 by every scorer when it is an error."""
        scores = {
            scorer.name: Score(0.0) if record.error else scorer.score(attempt)
            for scorer in self.scorers
        }
        primary = scores[self.primary]
        return Answer(
            text=record.text,
            scores={name: score.value for name, score in scores.items()},
            reasons={name: score.reason for name, score in scores.items() if score.reason},
            failed=tuple(name for name, score in scores.items() if score.failed),
            measures=self.measured([record]),
            tool_calls=record.tool_calls,
            error=record.error or (primary.reason if primary.failed else None),
            cut=record.cut,
            open=record.cut and not self.scorer(self.primary).wrong_already(attempt),
        )

    def measured(self, records: Sequence[Record]) -> dict[str, float]:
        """Return the measures of a case that are known, from all its answers of one contender."""
        price = self.prices.get(records[0].contender)
        answers = [measured_answer(record, price) for record in records if record.error is None]
        figures = {measure.name: measure.figure(answers) for measure in self.measures}
        return {name: figure for name, figure in figures.items() if figure is not None}

    def sums(self, attempts: Sequence[Attempt], answers: Sequence[Answer]) -> dict[str, Sums]:
        """Return what each scorer's score over cases, or over a resample of them, is made of."""
        return {
            scorer.name: scorer.sums(
                [
                    Attempt(attempt.case, "") if scorer.name in answer.failed else attempt
                    for attempt, answer in zip(attempts, answers, strict=True)
                ],
                [answer.scores[scorer.name] for answer in answers],
            )
            for scorer in self.scorers
        }

    def confusion(self, records: Sequence[Record]) -> dict[str, Confusion]:
        """Return the confusion matrices of answers to the test cases, by scorer of labels."""
        attempts = self.attempts(records)
        matrices = {scorer.name: scorer.confusion(attempts) for scorer in self.scorers}
        return {name: matrix for name, matrix in matrices.items() if matrix}

    def dev_score(self, records: Sequence[Record]) -> DevScore:
        """Return a prompt's score, from its answers to the first dev rows in their order."""
        attempts = [
            attempt_of(*pair) for pair in zip(self.dev[: len(records)], records, strict=True)
        ]
        answers = self.grade_all(attempts, records)
        scores = {name: sums.statistic() for name, sums in self.sums(attempts, answers).items()}
        return DevScore(
            primary=scores[self.primary],
            overall=fmean(scores.values()),
            rows=len(records),
            errors=tuple(record.error for record in records if record.error is not None),
            cut=sum(answer.open for answer in answers),
        )


def measured_answer(record: Record, price: TokenPrice | None) -> Measured:
    """Return a record as measures see it."""
    cost = price and usd(price, record.prompt_tokens, record.completion_tokens)
    dollars = None if cost is None else float(cost)
    return Measured(record.text, record.completion_tokens, record.seconds, dollars)


def prepare(
    resolved: ResolvedJob,
    trained: Iterable[Dataset] = (),
    prices: Mapping[str, TokenPrice] | None = None,
    *,
    paid: ScorerBudget | None = None,
    replay: bool = False,
) -> Task:
    """Make the task of a job.

    Args:
        resolved: The job with its rows.
        trained: Other rows of the training, to be searched for test cases too.
        prices: Of the contenders' tokens.
        paid: Pays for scorers that call a model.
        replay: Whether no request may be sent.

    Raises:
        JobError: The job has no test cases.
        DataError: Cases cannot be distinguished, or an expected answer cannot be read.
        Leak: Test cases stand in training rows, and the job refuses that or requires one.
    """
    job, splits = resolved.job, resolved.splits
    if splits.test is None:
        raise JobError(
            f"job {job.name!r} has no test cases, and nothing can be judged without. "
            "Set data.test to a file of held-out rows."
        )
    evaluate, limit = job.evaluate, job.evaluate.max_tokens
    test, copies = once_each(splits.test)

    def embedder(spec: Embedding) -> Embedder:
        from unitune.evaluate.inference.embeddings import EmbeddingsClient  # noqa: PLC0415 - httpx

        return EmbeddingsClient(spec, home() / "cache", paid, replay=replay)

    setting = Setting(folder=job.folder, labels=labels_of(splits.train), embedder=embedder)
    scorers = tuple(build(spec, setting) for spec in evaluate.scorers if isinstance(spec, Scorer))
    check_expected(scorers, test)
    check_expected(scorers, splits.validation)
    check_indulgence(scorers, test)
    check_groups(tuple(test), evaluate)
    leaking = _leaks(resolved, trained, test)
    names = evaluate.gate.required_cases if evaluate.gate else ()
    kept = _without(test, leaking, {copies.get(name, name) for name in names})
    longest = longest_expected(chain(splits.train, test))
    return Task(
        cases=tuple(kept),
        dev=dev_rows(splits.validation),
        scorers=scorers,
        primary=evaluate.primary_scorer,
        output_limit=OutputLimit(None if limit == "auto" else limit, longest, job.backend),
        leaks=leaking,
        notes=tuple(_notes(len(splits.test) - len(test), kept)),
        repeats=evaluate.repeats,
        temperature=0.0 if evaluate.temperature == "auto" else evaluate.temperature,
        fixed=tuple(name for name in FIXABLE if getattr(evaluate, name) != "auto"),
        prices=prices or {},
        measures=tuple(spec for spec in evaluate.scorers if isinstance(spec, Measure)),
        copies=copies,
    )


def dev_rows(validation: Dataset) -> tuple[Example, ...]:
    """Return the rows that choose prompts, each once, in an order that is no order of the file."""
    distinct = {example.case_id: example for example in validation}
    return tuple(distinct[name] for name in sorted(distinct, key=digest))


def once_each(test: Dataset) -> tuple[Dataset, dict[str, str]]:
    """Return the test rows without copies, and the ids of copies with those of what they copy.

    A case that is required in any of its copies is required.
    """
    by_id: dict[str, Row] = {}
    kept: dict[str, Row] = {}
    copies: dict[str, str] = {}
    for row in test.rows:
        name, content = row.example.case_id, row.example.case_hash
        other = by_id.setdefault(name, row)
        if other.example.case_hash != content:
            raise DataError(
                f"{test.name}:{row.line}: the id {name!r} stands at line "
                f"{other.line} too, with another content. Give each case an id of its own, or none."
            )
        first = kept.setdefault(content, row)
        if first.example.case_id != name:
            copies[name] = first.example.case_id
        if row.example.required and not first.example.required:
            required = first.example.model_copy(update={"required": True})
            kept[content] = replace(first, example=required)
    return replace(test, rows=tuple(kept.values())), copies


def _leaks(resolved: ResolvedJob, trained: Iterable[Dataset], test: Dataset) -> LeakResult:
    """Refuse or name the test cases that stand in rows that contenders were made from.

    The job's own rows are searched when it is resolved; other rows of a training are searched here.
    """
    action, lines = resolved.job.evaluate.leaks, {row.line for row in test.rows}
    known = {leak.line: leak for leak in leaks(trained, test)}
    known |= {leak.line: leak for leak in resolved.leaks if leak.line in lines}
    cases = tuple(known[line] for line in sorted(known))
    if action == "refuse":
        refuse(cases, test)
    return LeakResult(action=action, cases=cases)


def _without(test: Dataset, leaking: LeakResult, required: Collection[str]) -> Sequence[Example]:
    """Return the cases without those that leak, where they are to be dropped."""
    if leaking.action != "drop":
        return tuple(test)
    dropped = {shared.case for shared in leaking.cases}
    for row in test.rows:
        name = row.example.case_id
        if name in dropped and (row.example.required or name in required):
            raise Leak(
                f"{test.name}:{row.line}: the case {name} is required, and it stands in training "
                "or validation rows too: dropping it would drop the check. Take the row out of "
                "training, or require another case."
            )
    kept = [example for example in test if example.case_id not in dropped]
    if not kept:
        raise Leak(
            f"all {len(test)} test cases stand in training or validation rows, "
            "so none is left to judge by. Give data.test rows that were not trained on."
        )
    return kept


def _notes(copies: int, cases: Sequence[Example]) -> Iterator[str]:
    """Tell of rows that are copies, and of cases that ask the same though their rows differ."""
    if copies:
        what = "1 test row is a copy" if copies == 1 else f"{copies} test rows are copies"
        yield f"{what} of another row, left out: a copy is no second piece of evidence."
    if alike := len(cases) - len({question_hash(case) for case in cases}):
        what = "1 test case asks" if alike == 1 else f"{alike} test cases ask"
        yield f"{what} the same as another; such cases are one piece of evidence together."
