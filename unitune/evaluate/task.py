"""What contenders are asked, and how an answer is scored: the cases with their scorers.

`prepare` makes a `Task` out of a job's splits. It refuses what would make the evidence worthless
before any model is loaded: test cases that stand in training rows (as `evaluate.leaks` says),
two different cases under one id, expected answers that a scorer cannot read or that any answer
meets. A case that stands in the file twice, under whatever ids, is asked and counted once, because
it is no second piece of evidence.

Not here: asking (`unitune.evaluate.inference.engine`), statistics
(`unitune.evaluate.statistics.paired`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from statistics import fmean
from typing import Literal

from unitune.backends.output_limit import OutputLimit, longest_expected
from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example, digest
from unitune.data.leaks import leaks, refuse
from unitune.errors import DataError, JobError, Leak
from unitune.evaluate.grouping import asks, check_groups
from unitune.evaluate.inference.budget import ScorerBudget, usd
from unitune.evaluate.inference.engine import Question, short_hash
from unitune.evaluate.prompts.dev import DevScore
from unitune.evaluate.prompts.prompts import Prompt
from unitune.evaluate.records import Answer, Record
from unitune.evaluate.results import LeakResult
from unitune.evaluate.scoring import attempt_of, build, check_expected, check_indulgence
from unitune.job.contenders import ContenderSpec
from unitune.job.job import Job, TokenPrice
from unitune.models import Request
from unitune.planning.preflight import ResolvedJob
from unitune.scorers.embedding import Embedding
from unitune.scorers.interface import Attempt, Confusion, Embedder, Score, Scorer, Setting
from unitune.scorers.measures import Measure, Measured
from unitune.scorers.sums import Sums
from unitune.workspace.home import home

FIXABLE: tuple[Literal["temperature", "max_tokens"], ...] = ("temperature", "max_tokens")
"""Settings that a model need not take as they are where the job leaves them to `auto`."""


@dataclass(frozen=True, slots=True)
class Task:
    """Cases with scorers.

    Args:
        cases: Test cases, each once.
        dev: Rows that choose prompts and the best baseline.
        scorers: What counts as right.
        primary: Name of the scorer that decides.
        room: For answers.
        leaks: Test cases that stand in training rows.
        notes: What a reader of the verdict must know about the cases.
        repeats: How often each test case is asked.
        temperature: 0 is greedy.
        fixed: Settings that the job itself names, `Request.fixed`.
        measures: What is told of answers beside their quality.
        prices: Of the contenders' tokens, by contender.
        copies: Cases left out because they are copies of another, by their id: that one's id.
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
            case_hash=short_hash(case.content),
            target_hash=short_hash(case.answer),
        )

    def questions(self, prompt: Prompt, spec: ContenderSpec) -> list[Question]:
        """Return all test cases as questions, each as often as it is asked, case by case."""
        return [
            self.question(case, prompt, spec, repeat)
            for case in self.cases
            for repeat in range(self.repeats)
        ]

    def measured(self, records: Sequence[Record]) -> dict[str, float]:
        """Return the measures of a case that are known, from all its answers of one contender."""
        price = self.prices.get(records[0].contender)
        answers = [measured_answer(record, price) for record in records if record.error is None]
        figures = {measure.name: measure.figure(answers) for measure in self.measures}
        return {name: figure for name, figure in figures.items() if figure is not None}

    def grade(self, attempt: Attempt, record: Record) -> Answer:
        """Score a recorded answer; 0 by every scorer when it is an error."""
        found = {
            scorer.name: Score(0.0) if record.error else scorer.score(attempt)
            for scorer in self.scorers
        }
        primary = found[self.primary]
        return Answer(
            text=record.text,
            scores={name: score.value for name, score in found.items()},
            reasons={name: score.reason for name, score in found.items() if score.reason},
            failed=tuple(name for name, score in found.items() if score.failed),
            measures=self.measured([record]),
            tool_calls=record.tool_calls,
            error=record.error or (primary.reason if primary.failed else None),
            cut=record.cut,
            open=record.cut and not self.scorer(self.primary).wrong_already(attempt),
        )

    def grade_all(
        self, attempts: Sequence[Attempt], records: Sequence[Record]
    ) -> tuple[Answer, ...]:
        """Score recorded answers; what scorers ask of a server is asked at once."""
        pairs = list(zip(attempts, records, strict=True))
        for scorer in self.scorers:
            scorer.fetch_all([attempt for attempt, record in pairs if not record.error])
        return tuple(self.grade(*pair) for pair in pairs)

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
        found = {scorer.name: scorer.confusion(attempts) for scorer in self.scorers}
        return {name: confusion for name, confusion in found.items() if confusion}

    def attempts(self, records: Sequence[Record]) -> list[Attempt]:
        """Return answers to the test cases, one a case and repeat, as scorers see them."""
        cases = (case for case in self.cases for _ in range(self.repeats))
        return [attempt_of(*pair) for pair in zip(cases, records, strict=True)]

    def dev_score(self, records: Sequence[Record]) -> DevScore:
        """Return how a prompt did, from its answers to the first dev rows in their order."""
        asked = self.dev[: len(records)]
        attempts = [attempt_of(*pair) for pair in zip(asked, records, strict=True)]
        answers = self.grade_all(attempts, records)
        sums = self.sums(attempts, answers)
        scores = {name: each.statistic() for name, each in sums.items()}
        return DevScore(
            primary=scores[self.primary],
            overall=fmean(scores.values()),
            rows=len(records),
            errors=tuple(record.error for record in records if record.error is not None),
            cut=sum(answer.open for answer in answers),
        )


def prepare(
    resolved: ResolvedJob,
    trained: Iterable[Dataset] = (),
    prices: Mapping[str, TokenPrice] | None = None,
    *,
    paid: ScorerBudget | None = None,
    replay: bool = False,
) -> Task:
    """Make the task of a job.

    Raises:
        JobError: The job has no test cases.
        DataError: Cases cannot be told apart, or an expected answer cannot be read.
        Leak: Test cases stand in training rows, and the job refuses that or requires one.
    """
    job, splits = resolved.job, resolved.splits
    if splits.test is None:
        raise JobError(
            f"job {job.name!r} has no test cases, and nothing can be judged without. "
            "Set data.test to a file of held-out rows."
        )
    evaluate = job.evaluate
    test, copies = once_each(splits.test)
    setting = _setting(job, splits.train, paid, replay=replay)
    scorers = tuple(build(spec, setting) for spec in evaluate.scorers if isinstance(spec, Scorer))
    check_expected(scorers, test)
    check_expected(scorers, splits.validation)
    check_indulgence(scorers, test)
    check_groups(tuple(test), evaluate)
    found = _leaks(resolved, trained, test)
    required = {
        copies.get(name, name) for name in (evaluate.gate.required_cases if evaluate.gate else ())
    }
    kept = _without(test, found, required)
    return Task(
        cases=tuple(kept),
        dev=dev_rows(splits.validation),
        scorers=scorers,
        primary=evaluate.primary_scorer,
        output_limit=_output_limit(job, chain(splits.train, test)),
        leaks=found,
        notes=(*_doubles(len(splits.test) - len(test)), *_asked_alike(kept)),
        repeats=evaluate.repeats,
        temperature=0.0 if evaluate.temperature == "auto" else evaluate.temperature,
        fixed=tuple(name for name in FIXABLE if getattr(evaluate, name) != "auto"),
        prices=prices or {},
        measures=tuple(spec for spec in evaluate.scorers if isinstance(spec, Measure)),
        copies=copies,
    )


def _output_limit(job: Job, rows: Iterable[Example]) -> OutputLimit:
    limit = job.evaluate.max_tokens
    return OutputLimit(None if limit == "auto" else limit, longest_expected(rows), job.backend)


def _setting(
    job: Job, train: Iterable[Example], paid: ScorerBudget | None, *, replay: bool
) -> Setting:
    def embedder(spec: Embedding) -> Embedder:
        from unitune.evaluate.inference.embeddings import EmbeddingsClient  # noqa: PLC0415 - httpx

        return EmbeddingsClient(spec, home() / "cache", paid, replay=replay)

    labels = dict.fromkeys(example.answer.strip() for example in train if example.answer)
    return Setting(folder=job.folder, labels=tuple(labels), embedder=embedder)


def measured_answer(record: Record, price: TokenPrice | None) -> Measured:
    """Return what measures see of a record."""
    cost = price and usd(price, record.prompt_tokens, record.completion_tokens)
    dollars = None if cost is None else float(cost)
    return Measured(record.text, record.completion_tokens, record.seconds, dollars)


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


def _without(test: Dataset, found: LeakResult, required: Collection[str]) -> Sequence[Example]:
    """Return the cases without those that leak, where they are to be dropped."""
    if found.action != "drop":
        return tuple(test)
    leaking = {shared.case for shared in found.cases}
    for row in test.rows:
        name = row.example.case_id
        if name in leaking and (row.example.required or name in required):
            raise Leak(
                f"{test.name}:{row.line}: the case {name} is required, and it stands in training "
                "or validation rows too: dropping it would drop the check. Take the row out of "
                "training, or require another case."
            )
    kept = [example for example in test if example.case_id not in leaking]
    if not kept:
        raise Leak(
            f"all {len(test)} test cases stand in training or validation rows, "
            "so none is left to judge by. Give data.test rows that were not trained on."
        )
    return kept


def _asked_alike(cases: Sequence[Example]) -> tuple[str, ...]:
    """Tell of cases that ask the same, though something else in their rows differs."""
    count = len(cases) - len({asks(case) for case in cases})
    if not count:
        return ()
    what = "1 test case asks" if count == 1 else f"{count} test cases ask"
    return (f"{what} the same as another; such cases are one piece of evidence together.",)


def _doubles(count: int) -> tuple[str, ...]:
    if not count:
        return ()
    what = "1 test row is a copy" if count == 1 else f"{count} test rows are copies"
    return (f"{what} of another row, left out: a copy is no second piece of evidence.",)
