"""Compare the candidate with each baseline, and bound what missing and cut answers could change.

A case with an error, or with an answer cut off at `max_tokens`, does not show how good its
contender is, unless the deciding scorer finds the cut answer wrong regardless of its continuation.
Such cases are scored anyway (errors 0, cut answers as is). Two more readings bound what complete
answers could have shown: each counts all such cases as right for one side and as wrong for the
other. A verdict counts only if all three share it, so no side gains from errors. More than 2 %
errors on one side also prevent a verdict in favour of the other.

Source:
    Bounds for data missing in an unknown way: Horowitz and Manski 2000, J Am Stat Assoc 95:77.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from unitune.evaluate.documents.records import Contrast, MeasureContrast
from unitune.evaluate.documents.results import Money
from unitune.evaluate.scoring.grading import MOST_ERRORS, Graded, read_as
from unitune.evaluate.statistics.economics import weigh
from unitune.evaluate.statistics.intervals import Units, difference_interval
from unitune.evaluate.statistics.judgements import compare_labelled
from unitune.evaluate.statistics.labels import corrected_interval
from unitune.evaluate.statistics.paired import (
    LEVEL,
    AgainstBest,
    PairedResult,
    Verdict,
    against_best,
    compare_corpus,
    compare_paired,
)
from unitune.evaluate.statistics.significance import benjamini_hochberg, holm, sign_flip_p
from unitune.evaluate.task import Task
from unitune.job.job import Economics
from unitune.scorers.interface import Kind
from unitune.scorers.judge import Judge
from unitune.scorers.measures import Measure

NOTHING_RIGHT = (
    "No side got a single case right, which points to the prompt or the scorer. Check scorer, "
    "template and labels."
)


ExitCode = Literal[0, 1, 3, 4]
IN_FAVOUR_OF_CANDIDATE = (Verdict.BETTER, Verdict.EQUIVALENT, Verdict.NON_INFERIOR)
IN_FAVOUR_OF_BASELINE = (Verdict.WORSE, Verdict.EQUIVALENT)
WITHIN_MARGIN = (Verdict.EQUIVALENT, Verdict.NON_INFERIOR)


@dataclass(frozen=True, slots=True)
class Ruling:
    """Exit code with its reason."""

    exit_code: ExitCode
    reason: str


@dataclass(frozen=True, slots=True)
class Pairing:
    """Baseline and candidate on the same cases, with the smallest difference that matters."""

    baseline: Graded
    candidate: Graded
    margin: float
    level: float = LEVEL  # of the deciding interval; others use the default
    # People's verdicts by position of the case, if the verdict on a judge's scores rests on them
    labels: Mapping[int, float] | None = None
    passed: Mapping[int, float] | None = None  # likewise whether the candidate's answer is right

    @property
    def candidate_ends(self) -> tuple[float, float]:
        """Interval of the candidate's score; a judge's is corrected by people's labels."""
        if self.passed is None:
            return self.candidate.own_interval.ends
        scores = zip(self.candidate.answers, self.candidate.scores(self._primary), strict=True)
        judged = {at: score for at, (answer, score) in enumerate(scores) if answer.known}
        # The correction takes independent cases.
        return corrected_interval(judged, {} if self.task.clusters else self.passed)

    @property
    def task(self) -> Task:
        """Cases and scorers."""
        return self.candidate.task

    @property
    def errors(self) -> int:
        """Cases in which a side gave no answer."""
        pairs = zip(self.baseline.answers, self.candidate.answers, strict=True)
        return sum(any(answer.error is not None for answer in pair) for pair in pairs)

    @property
    def whole(self) -> list[int]:
        """Positions of the cases that both answered completely."""
        pairs = zip(self.baseline.answers, self.candidate.answers, strict=True)
        return [position for position, pair in enumerate(pairs) if all(each.known for each in pair)]

    def compare(
        self,
        metric: str | None = None,
        members: Sequence[int] | None = None,
        level: float = LEVEL,
    ) -> PairedResult:
        """Compare by a metric, by default the deciding one, on all or some cases."""
        metric = metric or self._primary
        old, new = self.baseline.sums[metric], self.candidate.sums[metric]
        positions = list(range(len(old)) if members is None else members)
        labels = self.task.clusters
        clusters = labels and [labels[position] for position in positions]
        if self.task.scoring.scorer(metric).kind is Kind.CORPUS:
            rows, formula = (old.rows[positions], new.rows[positions]), old.formula
            return compare_corpus(
                *rows, formula, clusters=clusters, margin=self.margin, level=level
            )
        sides = self.scores(metric)
        if self.labels is not None and members is None and metric == self._primary:
            unknown = set(positions).difference(self.whole)
            return compare_labelled(
                *sides, self.labels, unknown, clusters=clusters, margin=self.margin, level=level
            )
        scores = ([side[position] for position in positions] for side in sides)
        return compare_paired(*scores, clusters=clusters, margin=self.margin, level=level)

    @property
    def _primary(self) -> str:
        return self.task.scoring.primary.name

    def scores(self, metric: str) -> tuple[list[float], list[float]]:
        """Return the scores of both sides by a metric, in the order of the cases.

        A judge of pairs scores the baseline against this candidate. The candidate's own score is
        its mean over several baselines, so it is replaced by the opposite of the baseline's.
        """
        old, new = self.baseline.scores(metric), self.candidate.scores(metric)
        scorer = self.task.scoring.scorer(metric)
        if isinstance(scorer, Judge) and scorer.compare:
            for at, (b, c) in enumerate(
                zip(self.baseline.answers, self.candidate.answers, strict=True)
            ):
                if c.open:
                    old[at] = 1 - new[at]
                elif b.error is None and metric not in b.failed:
                    new[at] = 1 - old[at]
        return old, new

    def secondary(self) -> tuple[Contrast, ...]:
        """Compare by every metric except the deciding one."""
        scoring = self.task.scoring
        names = [scorer.name for scorer in scoring.scorers if scorer is not scoring.primary]
        return _family({name: self.compare(name) for name in names}, holm)

    def measured(self) -> tuple[MeasureContrast, ...]:
        """Compare by every measure, on the cases where it is known for both sides."""
        contrasts = [*filter(None, map(self._by_measure, self.task.scoring.measures))]
        adjusted = holm([each.p_value for each in contrasts])
        pairs = zip(contrasts, adjusted, strict=True)
        return tuple(each.model_copy(update={"p_adjusted": p}) for each, p in pairs)

    def _by_measure(self, measure: Measure) -> MeasureContrast | None:
        name, labels = measure.name, self.task.clusters
        sides = zip(self.baseline.answers, self.candidate.answers, strict=True)
        values = {
            at: (old.measures[name], new.measures[name])
            for at, (old, new) in enumerate(sides)
            if name in old.measures and name in new.measures
        }
        if len(values) < 2:
            return None
        old, new = np.array([*values.values()], dtype=np.float64).T  # (N,) each
        clusters = labels and [labels[at] for at in values]
        units = Units.of(new - old, clusters, bound=float(measure.is_share))
        p_value = sign_flip_p(units.sums)
        return MeasureContrast(
            name=name,
            type=measure.type_name(),
            baseline=float(old.mean()),
            candidate=float(new.mean()),
            n=units.n,
            difference=units.mean,
            interval=difference_interval(units, LEVEL).ends,
            p_value=p_value,
            p_adjusted=p_value,
        )

    def slices(self) -> tuple[Contrast, ...]:
        """Compare on slices of the cases."""
        results = {each.name: self.compare(members=each.members) for each in self.task.slices}
        return _family(results, benjamini_hochberg)

    def answered(self) -> Contrast | None:
        """Compare on the cases that both answered completely, or return None if those are all."""
        members = self.whole
        if len(members) < 2 or len(members) == len(self.task.cases):
            return None
        result = self.compare(members=members)
        return Contrast.of("cases that both answered", result, result.p_value)

    def money(self, economics: Economics) -> Money | None:
        """Weigh quality against cost, or return None if the price of an answer is unknown."""
        primary, old, new = self.task.scoring.primary, self.baseline, self.candidate
        if primary.kind is Kind.CORPUS or isinstance(primary, Judge):
            return None
        gains = np.array(new.scores(primary.name)) - np.array(old.scores(primary.name))
        return weigh(gains, old.costs(), new.costs(), economics, clusters=self.task.clusters)


@dataclass(frozen=True, slots=True)
class Reading:
    """Candidate compared with every baseline by the deciding metric, for one reading."""

    pairings: Mapping[str, Pairing]
    pairs: Mapping[str, PairedResult]
    best: AgainstBest

    @classmethod
    def of(cls, pairings: Mapping[str, Pairing], chosen: str) -> Reading:
        """Compare with every baseline; `chosen` is the best one on dev rows."""
        pairs = {name: each.compare(level=each.level) for name, each in pairings.items()}
        return cls(pairings, pairs, against_best(pairs, chosen))

    def only(self, name: str) -> Reading:
        """Return the reading as if this were the only baseline."""
        pairs = {name: self.pairs[name]}
        return Reading({name: self.pairings[name]}, pairs, against_best(pairs, name))

    @property
    def hardest(self) -> Pairing:
        """Candidate and the baseline that is hardest to beat."""
        return self.pairings[self.best.hardest]

    @property
    def paired(self) -> PairedResult:
        """Comparison of `hardest`."""
        return self.pairs[self.best.hardest]

    @property
    def sides(self) -> tuple[Graded, ...]:
        """Candidate, then all baselines."""
        return (self.hardest.candidate, *(pairing.baseline for pairing in self.pairings.values()))

    @property
    def errors(self) -> int:
        """Cases with an error of the candidate or the baseline, for the baseline with most."""
        return max(pairing.errors for pairing in self.pairings.values())

    @property
    def cut(self) -> str:
        """Sentences on the sides whose answers were cut off before they could be scored."""
        return " ".join(filter(None, map(_cut_answers, self.sides)))

    @property
    def uninformative(self) -> str | None:
        """Reason why the scores are uninformative; see `uninformative`."""
        scores = [side.score for side in self.sides]
        highs = [side.own_interval.high for side in self.sides]
        return uninformative(scores, highs, self.hardest.margin)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Result that holds regardless of missing answers."""

    scored: Reading  # errors as wrong, cut answers as is
    # Unknown answers counted for the baselines and for the candidate; empty if all are known
    others: tuple[Reading, ...]
    verdict: Verdict  # supported by every reading, else inconclusive
    doubt: Ruling | None = None  # reason for inconclusive, if `scored` alone has a verdict

    @classmethod
    def of(cls, scored: Reading, others: tuple[Reading, ...]) -> Judgement:
        """Take the verdict that all readings share."""
        doubt = _doubt(scored, others)
        return cls(scored, others, Verdict.INCONCLUSIVE if doubt else scored.best.verdict, doubt)

    def only(self, name: str) -> Judgement:
        """Return the judgement as if this were the only baseline."""
        return Judgement.of(self.scored.only(name), tuple(each.only(name) for each in self.others))


def judge(pairings: Mapping[str, Pairing], chosen: str) -> Judgement:
    """Return the result against these baselines; `chosen` is the best one on dev rows."""
    scored = Reading.of(pairings, chosen)
    others: tuple[Reading, ...] = ()
    if not all(side.known for side in scored.sides):
        others = tuple(
            Reading.of(_given(pairings, to_candidate=to_candidate), chosen)
            for to_candidate in (False, True)
        )
    return Judgement.of(scored, others)


def _given(pairings: Mapping[str, Pairing], *, to_candidate: bool) -> dict[str, Pairing]:
    candidate = read_as(next(iter(pairings.values())).candidate, right=to_candidate)
    return {
        name: replace(
            pairing,
            baseline=read_as(pairing.baseline, right=not to_candidate),
            candidate=candidate,
        )
        for name, pairing in pairings.items()
    }


def _doubt(scored: Reading, others: Sequence[Reading]) -> Ruling | None:
    verdict, low = scored.best.verdict, scored.uninformative
    if low == NOTHING_RIGHT or (low and verdict in WITHIN_MARGIN):
        return Ruling(3, low)
    if verdict is Verdict.INCONCLUSIVE:
        return None
    if any(other.best.verdict is not verdict for other in others):
        return undecided(scored.errors, scored.cut)
    candidate, *baselines = scored.sides
    against = [*baselines] if verdict in IN_FAVOUR_OF_CANDIDATE else []
    against += [candidate] if verdict in IN_FAVOUR_OF_BASELINE else []
    for side in against:
        if side.errors > MOST_ERRORS * len(side.answers):
            return Ruling(
                4,
                f"{side.name}: {side.errors:,} of {len(side.answers):,} cases ended in an error, "
                f"more than {100 * MOST_ERRORS:.0f} %. Run compare again; it requests only those.",
            )
    return None


def _cut_answers(side: Graded) -> str:
    if not (cases := sum(answer.open for answer in side.answers)):
        return ""
    limits = [record.max_tokens or 0 for record in side.answered.records if record.cut]
    limit = max(limits, default=0) or side.task.output_limit.of(side.spec)
    return (
        f"{side.name}: {cases:,} of {len(side.answers):,} answers were cut off at {limit:,} "
        "tokens before they could be scored. Raise evaluate.max_tokens."
    )


def against_references(pairings: Mapping[str, Pairing]) -> tuple[Contrast, ...]:
    """Compare the candidate with each reference on the cases that both answered."""
    whole = {name: pairing.whole for name, pairing in pairings.items()}
    compared = {
        name: pairing.compare(members=whole[name])
        for name, pairing in pairings.items()
        if len(whole[name]) > 1
    }
    return _family(compared, holm)


def _family(
    results: Mapping[str, PairedResult], adjust: Callable[[list[float]], list[float]]
) -> tuple[Contrast, ...]:
    adjusted = adjust([result.p_value for result in results.values()])
    pairs = zip(results.items(), adjusted, strict=True)
    return tuple(Contrast.of(name, result, p) for (name, result), p in pairs)


def undecided(errors: int, cut: str) -> Ruling:
    """Return the ruling for a result that depends on errors or cut answers."""
    if errors:
        cases = "1 case" if errors == 1 else f"{errors:,} cases"
        return Ruling(
            4,
            f"The verdict depends on {cases} in error, and an error counts for neither side. Run "
            "compare again; it requests only those.",
        )
    return Ruling(3, f"The verdict depends on answers that were cut off. {cut}")


def uninformative(scores: Sequence[float], highs: Sequence[float], margin: float) -> str | None:
    """Return why scores are uninformative because almost nothing was right, else None.

    A candidate that gets nothing right loses no more than the baseline's score. If that is below
    the margin, no candidate can be worse by more than the margin.

    Source:
        Assay sensitivity of a non-inferiority trial: ICH E10 (2000), section 1.5.
    """
    if max(scores) <= 0:
        return NOTHING_RIGHT
    if max(highs) <= margin:
        return (
            f"Almost nothing was right: all scores are below the margin of {100 * margin:.3g} "
            "points, so a candidate that gets nothing right would do as well. Check scorer, "
            "template and labels, or set a smaller evaluate.margin."
        )
    return None
