"""Score answers per contender and case, and over all cases.

Repeats of a case count once, with their mean score. Shapes: N cases, K repeats, S statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import chain
from statistics import fmean

from unitune.errors import JobError
from unitune.evaluate.documents.records import Answer, Record
from unitune.evaluate.documents.results import StyleFeature
from unitune.evaluate.inference.budget import usd
from unitune.evaluate.prompts.contenders import Choice, DevScore
from unitune.evaluate.scoring.scorers import attempt_of
from unitune.evaluate.statistics.intervals import Interval
from unitune.evaluate.statistics.paired import own_corpus, own_score
from unitune.evaluate.task import Task
from unitune.job.contenders import ContenderSpec, Recorded
from unitune.job.job import TokenPrice
from unitune.scorers.formulas import Sums
from unitune.scorers.interface import Attempt, Kind, Score
from unitune.scorers.style import Style

# A larger fraction of cases in error says more about the vendor than about the model. A case in
# error scores 0, so this also bounds how far errors can move a score.
MOST_ERRORS = 0.02


@dataclass(frozen=True, slots=True)
class Answered:
    """Contender with its answers to all test cases."""

    choice: Choice
    # One per case and repeat, in the task's order, with the repeats of a case together
    records: tuple[Record, ...]
    fingerprint: str  # of the model that answered
    origin: str  # `Record.origin`
    price: TokenPrice | None = None
    # Scores of each answer by judges, in the order of the records; empty without judges
    judged: tuple[Mapping[str, Score], ...] = ()
    changed: tuple[Record, ...] = ()  # answers to the task's changed questions

    @property
    def name(self) -> str:
        """Name of the contender."""
        return self.choice.contender.name

    def attempts(self, task: Task) -> list[Attempt]:
        """Return the answers as scorers read them."""
        attempts = task.attempts(self.records)
        if not self.judged:
            return attempts
        pairs = zip(attempts, self.judged, strict=True)
        return [replace(attempt, judged=judged) for attempt, judged in pairs]

    @property
    def succeeded(self) -> list[Record]:
        """Records without an error."""
        return [record for record in self.records if record.error is None]

    def is_sampled(self, task: Task) -> bool:
        """Return whether the same requests could have got different answers."""
        refused = any("temperature" in (each.left_out or ()) for each in self.records)
        recorded = isinstance(self.choice.contender.spec, Recorded)
        return not recorded and (task.template.temperature > 0 or refused)

    @property
    def usd(self) -> Decimal | None:
        """Cost of the answers, or None if their tokens or price are unknown."""
        return self.usd_of(self.succeeded)

    def usd_of(self, records: Sequence[Record]) -> Decimal | None:
        """Return the cost of some records, or None if their tokens or price are unknown."""
        if (price := self.price) is None:
            return None
        costs = [usd(price, record.prompt_tokens, record.completion_tokens) for record in records]
        known = [cost for cost in costs if cost is not None]
        return sum(known, Decimal(0)) if len(known) == len(costs) else None


@dataclass(frozen=True, slots=True)
class Graded:
    """Contender with its scored answers, in the order of the cases."""

    task: Task
    answered: Answered
    # First repeat of each case, with the scores of all repeats
    answers: tuple[Answer, ...]  # (N,)
    repeats: tuple[tuple[Answer, ...], ...]  # (N, K)
    sums: dict[str, Sums]  # sufficient statistics of each scorer
    # Known scores of answers to changed questions, by position of the case and change
    changed: dict[int, dict[str, float]]

    @property
    def name(self) -> str:
        """Name of the contender."""
        return self.answered.name

    @property
    def spec(self) -> ContenderSpec:
        """Contender as specified in the job."""
        return self.answered.choice.contender.spec

    @property
    def known(self) -> bool:
        """True if every answer can be scored."""
        return all(answer.known for answer in self.answers)

    @property
    def errors(self) -> int:
        """Number of cases without an answer."""
        return sum(answer.error is not None for answer in self.answers)

    @property
    def score(self) -> float:
        """Score by the deciding metric."""
        return self.sums[self.task.scoring.primary.name].statistic()

    @property
    def own_interval(self) -> Interval:
        """Interval of the score by the deciding metric."""
        primary, clusters = self.task.scoring.primary, self.task.clusters
        if primary.kind is Kind.CORPUS:
            sums = self.sums[primary.name]
            return own_corpus(sums.rows, sums.formula, clusters=clusters)
        return own_score(self.scores(primary.name), clusters=clusters)

    @property
    def measures(self) -> dict[str, float]:
        """Mean of each measure over the cases where it is known."""
        figures = [answer.measures for answer in self.answers]
        names = dict.fromkeys(chain.from_iterable(figures))
        return {name: fmean(each[name] for each in figures if name in each) for name in names}

    @property
    def totals(self) -> dict[str, float | None]:
        """Total by every scorer and measure; None if too many cases lack it."""
        totals: dict[str, float | None] = {n: sums.statistic() for n, sums in self.sums.items()}
        totals |= self.measures
        for name in totals:
            affected = self.task.affected(name)
            answers = [self.answers[at] for at in affected]
            unknown = sum(
                name not in answer.measures and (name not in answer.scores or name in answer.failed)
                for answer in answers
            )
            if unknown > MOST_ERRORS * len(answers):
                totals[name] = None
        return totals

    def scores(self, metric: str) -> list[float]:
        """Return the scores of one metric, in the order of the cases."""
        return [answer.scores[metric] for answer in self.answers]

    def costs(self) -> list[Decimal | None]:
        """Return the cost of an answer per case in US dollars; None where it is unknown."""
        size, records = self.task.repeats, self.answered.records
        cases = (records[at : at + size] for at in range(0, len(records), size))
        return [cost and cost / size for cost in map(self.answered.usd_of, cases)]


def dev_score(task: Task, records: Sequence[Record]) -> DevScore:
    """Return a prompt's score from its answers to the first dev rows, in order."""
    cases, scoring = task.dev[: len(records)], task.scoring.on_dev
    if scoring is None:
        raise JobError(
            "only judges score the answers, and judges do not read answers to dev rows. Add a "
            "scorer that needs no judge to evaluate.scorers."
        )
    attempts = [attempt_of(*pair) for pair in zip(cases, records, strict=True)]
    answers = scoring.answers(attempts, records, None)
    sums = scoring.sums(attempts, answers)
    scores = {name: each.statistic() for name, each in sums.items()}
    return DevScore(
        primary=scores[scoring.primary.name],
        overall=fmean(scores.values()),
        rows=len(records),
        errors=tuple(record.error for record in records if record.error is not None),
        cut=sum(answer.open for answer in answers),
    )


def grade(task: Task, answered: Answered) -> Graded:
    """Score all answers of a contender."""
    attempts = answered.attempts(task)
    scored = task.scoring.answers(attempts, answered.records, answered.price)
    return _graded(task, answered, attempts, scored, _changed_scores(task, answered))


def read_as(graded: Graded, *, right: bool) -> Graded:
    """Return a contender with all failed or cut-off answers counted as right, or as wrong."""
    if graded.known:
        return graded
    attempts = graded.answered.attempts(graded.task)
    scored = list(chain.from_iterable(graded.repeats))
    for at, (attempt, answer) in enumerate(zip(attempts, scored, strict=True)):
        if not answer.known:
            attempts[at] = Attempt(attempt.case, attempt.expected if right else "")
            scored[at] = replace(answer, scores=dict.fromkeys(answer.scores, float(right)))
    return _graded(graded.task, graded.answered, attempts, scored, graded.changed)


def style_features(task: Task, graded: Sequence[Graded]) -> tuple[StyleFeature, ...]:
    """Return the features of style of all contenders, if the job measures it."""
    style = next((each for each in task.scoring.measures if isinstance(each, Style)), None)
    texts = {each.name: [record.text for record in each.answered.succeeded] for each in graded}
    features = {name: style.features(each) for name, each in texts.items() if style and each}
    if not features:
        return ()
    return tuple(
        StyleFeature(
            name=name,
            house=feature.house,
            means={contender: each[name].mean for contender, each in features.items()},
            deviations={contender: each[name].deviation for contender, each in features.items()},
        )
        for name, feature in next(iter(features.values())).items()
    )


def _graded(
    task: Task,
    answered: Answered,
    attempts: Sequence[Attempt],
    scored: Sequence[Answer],
    changed: dict[int, dict[str, float]],
) -> Graded:
    size, answers, repeats = task.repeats, list[Answer](), list[tuple[Answer, ...]]()
    for at in range(0, len(scored), size):
        repeats.append(tuple(scored[at : at + size]))
        pairs = zip(repeats[-1], answered.records[at : at + size], strict=True)
        measures = task.scoring.measured(pairs, answered.price, changed.get(at // size, {}))
        answers.append(_merged(repeats[-1], measures))
    sums = {
        # (N * K, S) to (N, S): mean over the repeats of each case
        name: replace(each, rows=each.rows.reshape(-1, size, each.rows.shape[1]).mean(axis=1))
        for name, each in task.scoring.sums(attempts, scored).items()
    }
    return Graded(task, answered, tuple(answers), tuple(repeats), sums, changed)


def _changed_scores(task: Task, answered: Answered) -> dict[int, dict[str, float]]:
    scores: dict[int, dict[str, float]] = {}
    pairs = [*zip(task.changed, answered.changed, strict=False)]  # recorded contenders have none
    attempts = [attempt_of(each.example, record) for each, record in pairs]
    answers = task.scoring.answers(attempts, answered.changed, answered.price)
    for (each, _), answer in zip(pairs, answers, strict=True):
        score = task.scoring.known_score(answer)
        if answer.known and score is not None:
            scores.setdefault(each.position, {})[each.change] = score
    return scores


def _merged(repeats: Sequence[Answer], measures: dict[str, float]) -> Answer:
    """Return one answer for a case, with an error if any of its repeats has one."""
    first = repeats[0]
    measures = {**_mean(repeats), **measures}
    if len(repeats) == 1:
        return replace(first, measures=measures)
    return replace(
        first,
        scores={name: fmean(answer.scores[name] for answer in repeats) for name in first.scores},
        failed=tuple(dict.fromkeys(name for answer in repeats for name in answer.failed)),
        measures=measures,
        error=next((answer.error for answer in repeats if answer.error), None),
        cut=any(answer.cut for answer in repeats),
        open=any(answer.open for answer in repeats),
    )


def _mean(repeats: Sequence[Answer]) -> dict[str, float]:
    """Return the mean of each measure that all repeats have."""
    names = set(repeats[0].measures).intersection(*(each.measures for each in repeats))
    order = [name for name in repeats[0].measures if name in names]
    return {name: fmean(each.measures[name] for each in repeats) for name in order}
