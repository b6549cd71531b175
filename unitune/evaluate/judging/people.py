"""Read people's verdicts on the answers of a comparison, and decide what rests on a judge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from unitune.data.labels import Label, answers_digest, read_labels
from unitune.evaluate.judging.protocol import answer_text
from unitune.evaluate.readings import Pairing, Ruling
from unitune.evaluate.statistics.agreement import Agreement, cohens_kappa
from unitune.evaluate.statistics.labels import MIN_LABELS, labels_needed
from unitune.evaluate.statistics.paired import LEVEL
from unitune.evaluate.task import Task
from unitune.job.job import Job
from unitune.scorers.judge import Judge

OUTCOMES = {"win": 1.0, "tie": 0.0, "loss": -1.0}
PASSES = {"pass": 1.0, "fail": 0.0}


@dataclass(frozen=True, slots=True)
class Calibration:
    """People's verdicts on the pairs of a comparison, and whether a verdict may rest on them."""

    # Verdict of each labelled case by position, by baseline: 1 if the candidate is better
    labels: Mapping[str, Mapping[int, float]] = field(
        default_factory=dict[str, Mapping[int, float]]
    )
    # Why no verdict rests on a judge that decides
    bar: Ruling | None = None


def calibrate(job: Job, task: Task, pairings: Mapping[str, Pairing]) -> Calibration:
    """Return the labels of each pair, and the reason why no verdict rests on the deciding judge.

    Raises:
        DataError: The labels file cannot be read.
    """
    if not job.evaluate.judges:
        return Calibration()
    file, labels = job.evaluate.labels, dict[str, Mapping[int, float]]()
    if file is not None:
        read = read_labels(job.path(file))
        labels = {name: _verdicts(read, task, pairing) for name, pairing in pairings.items()}
    bar = _bar(task.scoring.primary.name, pairings, labels)
    return Calibration(labels, bar if isinstance(task.scoring.primary, Judge) else None)


def _bar(
    judge: str, pairings: Mapping[str, Pairing], labels: Mapping[str, Mapping[int, float]]
) -> Ruling | None:
    if not labels:
        return Ruling(
            3,
            f"{judge} is a judge without labels of people (evaluate.labels). Its figures are "
            f"shown, but no verdict and no gate rests on them. Label at least {MIN_LABELS} cases.",
        )
    for name, pairing in pairings.items():
        whole = set(pairing.whole).intersection(labels[name])
        clusters = pairing.task.clusters
        groups = len({clusters[at] for at in whole} if clusters else whole)
        if len(whole) < MIN_LABELS or groups < 2:
            missing = MIN_LABELS - len(whole)
            return Ruling(
                3,
                f"{len(whole)} cases have labels of people for {pairing.candidate.name} and "
                f"{name}. A verdict that rests on a judge takes at least {MIN_LABELS}, so "
                f"{missing} more are needed."
                if missing > 0
                else f"All labelled cases for {name} are of one cluster. Label cases of others.",
            )
    return None


def _verdicts(labels: Iterable[Label], task: Task, pairing: Pairing) -> dict[int, float]:
    """Return the mean verdict of the reviewers on each labelled case of a pair.

    A case that no reviewer could decide is not labelled.
    """
    places = {str(at): at - 1 for at in range(1, len(task.cases) + 1)}
    places |= {case.case_id: at for at, case in enumerate(task.cases)}
    places |= {copy: places[kept] for copy, kept in task.copies.items() if kept in places}
    given: dict[int, list[float]] = defaultdict(list)
    passed: dict[tuple[str, int], list[float]] = defaultdict(list)
    candidate, baseline = pairing.candidate.name, pairing.baseline.name
    for label in labels:
        if (at := places.get(label.case)) is None:
            continue
        if label.verdict in PASSES:
            if label.candidate is not None:
                passed[label.candidate, at].append(PASSES[label.verdict])
        elif label.verdict in OUTCOMES and _fits(label, at, pairing):
            given[at].append(OUTCOMES[label.verdict])
    verdicts = {at: fmean(each) for at, each in given.items()}
    for at in range(len(task.cases)):
        both = passed.get((candidate, at)), passed.get((baseline, at))
        if at not in verdicts and both[0] and both[1]:
            verdicts[at] = fmean(both[0]) - fmean(both[1])
    return verdicts


def _fits(label: Label, at: int, pairing: Pairing) -> bool:
    """Return whether a label is about the answers of this pair."""
    named = label.candidate or pairing.candidate.name, label.baseline or pairing.baseline.name
    if named != (pairing.candidate.name, pairing.baseline.name):
        return False
    if label.answers is None:
        return True
    sides = (pairing.candidate, pairing.baseline)
    records = [side.answered.records[at * side.task.repeats] for side in sides]
    return label.answers == answers_digest(*map(answer_text, records))


def agreement(pairing: Pairing, metric: str, labels: Mapping[int, float]) -> Agreement | None:
    """Return the agreement of a judge and the people on who is better, or None without labels."""
    old, new = pairing.scores(metric)
    cases = [at for at in pairing.whole if at in labels]
    if not cases:
        return None
    judged = [_sign(new[at] - old[at]) for at in cases]
    return cohens_kappa(judged, [_sign(labels[at]) for at in cases])


def more_labels(pairing: Pairing, metric: str, labels: Mapping[int, float]) -> int | None:
    """Return the labels at which the interval's half-width would reach the margin, or None."""
    old, new = pairing.scores(metric)
    values = {at: new[at] - old[at] for at in pairing.whole}
    labelled = [at for at in values if at in labels]
    rest = [value for at, value in values.items() if at not in labels]
    if len(labelled) < 2:
        return None
    people, judge = [labels[at] for at in labelled], [values[at] for at in labelled]
    return labels_needed(people, judge, rest, pairing.margin, level=LEVEL)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def basis_of(judge: str, *, decides: bool, calibration: Calibration, labels: Sequence[int]) -> str:
    """Return in one sentence what rests on a judge."""
    if not decides:
        return f"{judge} is shown next to the deciding scorer, and no verdict and no gate rests on it."
    if calibration.bar is not None:
        return calibration.bar.reason
    return (
        f"The verdict rests on people's labels of {min(labels):,} cases; {judge} only makes the "
        "interval shorter (prediction-powered inference), whatever its bias."
    )
