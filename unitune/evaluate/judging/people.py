"""Read people's verdicts on the answers of a comparison, and decide what rests on a judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from unitune.data.labels import (
    Label,
    answers_digest,
    labels_of_cases,
    mean_verdict,
    read_labels,
)
from unitune.errors import DataError
from unitune.evaluate.readings import Pairing, Ruling
from unitune.evaluate.records import Record
from unitune.evaluate.statistics.agreement import Agreement, cohens_kappa
from unitune.evaluate.statistics.labels import MIN_LABELS
from unitune.evaluate.task import Task
from unitune.job.job import Job
from unitune.scorers.judge import Judge

OF_ONE = ("pass", "fail")  # verdicts on one answer, whose contender is the label's candidate


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
    if task.omitted:
        return Calibration(bar=Ruling(3, "A preview (--limit) does not read labels of people."))
    file, labels = job.evaluate.labels, dict[str, Mapping[int, float]]()
    if file is not None:
        read = read_labels(job.path(file)) if job.path(file).exists() else ()
        labels = {name: _verdicts(read, file, pairing) for name, pairing in pairings.items()}
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


def _verdicts(labels: Sequence[Label], file: str, pairing: Pairing) -> dict[int, float]:
    """Return the mean verdict of the reviewers on each labelled case of a pair.

    Verdicts pass and fail on the answers of both sides become their difference. A case that no
    reviewer could decide is not labelled.

    Raises:
        DataError: A label is about a case that the test lacks.
    """
    task, sides = pairing.task, (pairing.candidate, pairing.baseline)
    kept = ((task.copies.get(label.case, label.case), label) for label in labels)
    labels = [label.model_copy(update={"case": case}) for case, label in kept]
    names = tuple(side.name for side in sides)
    shown = [side.answered.records[:: task.repeats] for side in sides]
    ids = [case.case_id for case in task.cases]
    places = {name: at for at, name in enumerate(ids)}
    left_out = task.copies or (task.leaks.action == "drop" and task.leaks.cases)
    if left_out and any(each.answers is None and each.case not in places for each in labels):
        raise DataError(
            f"{file}: rows were left out of the test (copies, leaks), so numbers of cases are not "
            "those of rows. Use the ids of test cases."
        )

    def by_case(chosen: Sequence[Label], *answers: Sequence[Record]) -> dict[int, float]:
        digests = [answers_digest(*each) for each in zip(*answers, strict=True)]
        of_cases = labels_of_cases(chosen, dict(zip(ids, digests, strict=True)), file)
        means = {places[case]: mean_verdict(each) for case, each in of_cases.items()}
        return {at: mean for at, mean in means.items() if mean is not None}

    of_pairs = [
        label
        for label in labels
        if label.verdict not in OF_ONE
        and (label.candidate or names[0], label.baseline or names[1]) == names
    ]
    passed = [
        by_case([x for x in labels if x.verdict in OF_ONE and x.candidate == name], records)
        for name, records in zip(names, shown, strict=True)
    ]
    both = passed[0].keys() & passed[1].keys()
    return {at: passed[0][at] - passed[1][at] for at in both} | by_case(of_pairs, *shown)


def agreement(pairing: Pairing, metric: str, labels: Mapping[int, float]) -> Agreement | None:
    """Return the agreement of a judge and the people on who is better, or None without labels."""
    old, new = pairing.scores(metric)
    cases = [at for at in pairing.whole if at in labels]
    if not cases:
        return None
    judged = [_sign(new[at] - old[at]) for at in cases]
    return cohens_kappa(judged, [_sign(labels[at]) for at in cases])


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def basis_of(judge: str, *, decides: bool, calibration: Calibration, labels: Sequence[int]) -> str:
    """Return in one sentence what rests on a judge."""
    if not decides:
        return (
            f"{judge} is shown next to the deciding scorer, and no verdict and no gate rests on it."
        )
    if calibration.bar is not None:
        return calibration.bar.reason
    return (
        f"The verdict rests on people's labels of {min(labels):,} cases; {judge} only makes the "
        "interval shorter (prediction-powered inference), whatever its bias."
    )
