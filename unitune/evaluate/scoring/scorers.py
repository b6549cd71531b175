"""Prepare a comparison's scorers, check them against the cases, and apply them to answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from pydantic import JsonValue

from unitune import findings
from unitune.data.dataset import Dataset
from unitune.data.example import Example, digest
from unitune.errors import DataError, JobError
from unitune.evaluate.documents.records import Answer, Record
from unitune.evaluate.inference.budget import usd
from unitune.job.job import Job, TokenPrice
from unitune.scorers.formulas import Sums
from unitune.scorers.interface import Attempt, Confusion, Entry, Measured, Score, Scorer, Setting
from unitune.scorers.judge import Judge
from unitune.scorers.labels import labels_of
from unitune.scorers.measures import Measure
from unitune.scorers.row_scorers import KEY, RowScorers

FINGERPRINT_DIGITS = 16  # hex digits: 64 bits, enough for the few scorers of a baseline
UNSCORED = {"name"}  # options that do not change scores

S = TypeVar("S", bound=Scorer)


@dataclass(frozen=True, slots=True)
class Scoring:
    """Scorers and measures of a comparison."""

    scorers: tuple[Scorer, ...]  # ready to score
    primary: Scorer  # the deciding scorer
    measures: tuple[Measure, ...] = ()

    @property
    def on_dev(self) -> Scoring | None:
        """Scoring of dev answers, which no judge reads; None if only judges score."""
        scorers = tuple(each for each in self.scorers if not isinstance(each, Judge))
        if len(scorers) == len(self.scorers):
            return self
        primary = self.primary if self.primary in scorers else next(iter(scorers), None)
        return primary and replace(self, scorers=scorers, primary=primary)

    def asserted(self, case: Example) -> str:
        """Return a scorer's additional requirements for an answer."""
        return next(filter(None, (scorer.asserted(case) for scorer in self.scorers)), "")

    def scorer(self, name: str) -> Scorer:
        """Return the scorer with this name."""
        return next(scorer for scorer in self.scorers if scorer.name == name)

    def answers(
        self, attempts: Sequence[Attempt], records: Sequence[Record], price: TokenPrice | None
    ) -> list[Answer]:
        """Score recorded answers; an error scores 0 by every scorer."""
        pairs = zip(attempts, records, strict=True)
        return [self._answer(attempt, record, price) for attempt, record in pairs]

    def _answer(self, attempt: Attempt, record: Record, price: TokenPrice | None) -> Answer:
        attempt = replace(attempt, measured=measured_answer(record, price))
        scores = {
            scorer.name: Score(0.0) if record.error else scorer.score(attempt)
            for scorer in self.scorers
        }
        primary = scores[self.primary.name]
        return Answer(
            text=record.text,
            scores={name: score.value for name, score in scores.items()},
            reasons={name: score.reason for name, score in scores.items() if score.reason},
            failed=tuple(name for name, score in scores.items() if score.failed),
            measures={
                name: value for score in scores.values() for name, value in score.parts.items()
            },
            tool_calls=record.tool_calls,
            trajectory=record.trajectory,
            reasoning=record.reasoning,
            error=record.error or (primary.reason if primary.failed else None),
            cut=record.cut,
            open=record.cut and not self.primary.wrong_already(attempt),
        )

    def known_score(self, answer: Answer) -> float | None:
        """Return the deciding score of an answer; None if the scorer failed on it."""
        name = self.primary.name
        return None if name in answer.failed else answer.scores[name]

    def measured(
        self,
        scored: Iterable[tuple[Answer, Record]],
        price: TokenPrice | None,
        changed: Mapping[str, float],
    ) -> dict[str, float]:
        """Return the known measures of a case, from all its answers of one contender."""
        answers = [
            replace(measured_answer(record, price), score=self.known_score(answer), changed=changed)
            for answer, record in scored
            if record.error is None
        ]
        figures = {measure.name: measure.figure(answers) for measure in self.measures}
        return {name: figure for name, figure in figures.items() if figure is not None}

    def sums(self, attempts: Sequence[Attempt], answers: Sequence[Answer]) -> dict[str, Sums]:
        """Return the sufficient statistics of each scorer's score over cases."""
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

    def confusion(self, attempts: Sequence[Attempt]) -> dict[str, Confusion]:
        """Return the confusion matrices of answers, by scorer of labels."""
        matrices = {scorer.name: scorer.confusion(attempts) for scorer in self.scorers}
        return {name: matrix for name, matrix in matrices.items() if matrix}


def scoring_of(job: Job, train: Iterable[Example]) -> Scoring:
    """Prepare a job's scorers, with the labels of its training rows. Raises like `build`."""
    evaluate, setting = job.evaluate, Setting(folder=job.folder, labels=labels_of(train))
    scorers = [build(spec, setting) for spec in evaluate.scorers if isinstance(spec, Scorer)]
    return Scoring(
        scorers=tuple(scorers),
        primary=next(each for each in scorers if each.name == evaluate.primary_scorer),
        measures=tuple(
            measure.prepared(
                row.answer for row in train if row.answer is not None and row.kto_tag is not False
            )
            for measure in evaluate.measures
        ),
    )


def measured_answer(record: Record, price: TokenPrice | None) -> Measured:
    """Return a record in the form that measures read."""
    cost = price and usd(price, record.prompt_tokens, record.completion_tokens)
    dollars = None if cost is None else float(cost)
    measured = Measured(record.text, record.completion_tokens, record.seconds, dollars)
    path = record.trajectory
    return replace(measured, turns=path.turns, tool_errors=path.tool_errors) if path else measured


def attempt_of(case: Example, record: Record) -> Attempt:
    """Return a record in the form that scorers read; an error is an empty answer."""
    if record.error:
        return Attempt(case, "")
    return Attempt(
        case,
        record.text,
        record.tool_calls or (),
        record.given or {},
        finish_reason=record.finish_reason,
        trajectory=record.trajectory.messages if record.trajectory else (),
    )


def build(scorer: S, setting: Setting | None = None) -> S:
    """Return a scorer that is ready to score.

    Raises:
        JobError: A file, schema, function or label in the options cannot be used.
        MissingExtra: A package is not installed; the message has the install command.
    """
    setting = setting or Setting()
    return scorer.ready(setting, scorer_fingerprint(scorer, setting))


def scorer_fingerprint(scorer: Scorer, setting: Setting | None = None) -> str:
    """Return a hash that changes when a scorer may score differently. Raises JobError.

    It covers the type with our version of it, non-default options, the labels of the training rows,
    and the content of files that the options name. It does not cover imports of a Python file or
    package versions, which known answers in our tests check.
    """
    options: JsonValue = scorer.model_dump(mode="json", exclude=UNSCORED, exclude_defaults=True)
    material = scorer.material(setting or Setting())
    parts = [scorer.type_name(), scorer.version, options, material]
    return digest(parts)[:FINGERPRINT_DIGITS]


def check_expected(scorers: Sequence[Scorer], cases: Dataset) -> None:
    """Raise DataError, with the lines, if no answer could get a case right."""
    broken = [
        cases.located(
            findings.error(
                "unusable-expected",
                f"{why}, so the scorer {scorer.name} could never accept an answer.",
                "Correct the row, or use another scorer in evaluate.scorers.",
            ),
            row,
        )
        for scorer in scorers
        for row in cases.rows
        if (why := scorer.refusal(row.example))
    ]
    if broken:
        count = "1 case" if len(broken) == 1 else f"{len(broken)} cases"
        raise DataError(
            f"{cases.name}: no answer could get {count} right. First: {broken[0]}", tuple(broken)
        )


def check_row_scorers(specs: Iterable[Entry], cases: Dataset) -> None:
    """Raise DataError, with the lines, if rows have scorers that no scorer of the job reads."""
    if any(isinstance(spec, RowScorers) for spec in specs):
        return
    unread = [
        cases.located(
            findings.error(
                "unread-scorers",
                f"the row has its own `{KEY}`, but the job scores all rows in the same way.",
                "Set evaluate.scorers to [row_scorers], or rename the key.",
            ),
            row,
        )
        for row in cases.rows
        if KEY in (row.example.model_extra or {})
    ]
    if unread:
        raise DataError(f"{unread[0]}", tuple(unread))


def check_indulgence(scorers: Sequence[Scorer], cases: Dataset) -> None:
    """Raise JobError if a scorer would accept every answer to every case."""
    for scorer in scorers:
        reasons = [scorer.indulgence(row.example) for row in cases.rows]
        if reasons and all(reasons):
            raise JobError(
                f"evaluate.scorers: {scorer.name} could never reject an answer to {cases.name}: "
                f"{reasons[0]}. Every contender would score 100 %. Use another scorer or other "
                "rows."
            )
