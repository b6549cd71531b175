"""Turn judgements into scores of answers, and compare them with people's verdicts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from statistics import fmean
from typing import Any

from unitune.data.labels import (
    VALUES,
    Label,
    answers_digest,
    labels_of_cases,
    mean_verdict,
    read_labels,
)
from unitune.errors import DataError
from unitune.evaluate.documents.records import CaseJudgement, ClauseResult
from unitune.evaluate.documents.results import JudgeResult
from unitune.evaluate.inference.budget import record_usd
from unitune.evaluate.judging.collecting import Judging, changed
from unitune.evaluate.scoring.grading import Answered, Graded
from unitune.evaluate.statistics.judgements import cohens_kappa, length_controlled, sign
from unitune.evaluate.statistics.labels import MIN_LABELS
from unitune.evaluate.statistics.paired import own_score
from unitune.evaluate.task import Task
from unitune.evaluate.verdict.readings import Pairing, Ruling
from unitune.job.contenders import ContenderSpec, Model, Recorded, Server
from unitune.job.dialogue import SimulatedUser
from unitune.job.job import Job
from unitune.scorers.interface import Score
from unitune.scorers.judge import PASS_FAIL, Judge
from unitune.text import listed

# Words of model names, by the family that they stand for
FAMILY = re.compile(
    r"(?P<GPT>gpt|davinci|\bo[134]\b)|(?P<Claude>claude)|(?P<Gemini>gemini|gemma)|(?P<Llama>llama)|"
    r"(?P<Qwen>qwen|\bqwq)|(?P<Mistral>mistral|mixtral|ministral|magistral)|(?P<Nova>\bnova\b)|"
    r"(?P<DeepSeek>deepseek)|(?P<Phi>\bphi\b|\bphi-?\d)|(?P<SmolLM>smollm)"
)


def family_of(model: str) -> str:
    """Return the family of a model by its name, such as ``GPT`` for ``ft:gpt-4.1-mini:me``.

    A model of no known family is its own family.
    """
    owner, _, name = model.casefold().rpartition("/")
    known = FAMILY.search(name) or FAMILY.search(owner)
    return (known and known.lastgroup) or model


Place = tuple[str, int, int]  # contender, position of the case, repeat


def with_judgements(
    task: Task, answered: Sequence[Answered], judgings: Sequence[Judging]
) -> tuple[Answered, ...]:
    """Return the contenders with their answers' scores by each judge."""
    judged = {each.judge.name: _scores(task, answered, each) for each in judgings}

    def scores_of(each: Answered) -> tuple[Mapping[str, Score], ...]:
        places = [(each.name, *divmod(at, task.repeats)) for at in range(len(each.records))]
        return tuple(
            {name: scores[place] for name, scores in judged.items() if place in scores}
            for place in places
        )

    return tuple(replace(each, judged=scores_of(each)) if judged else each for each in answered)


def _scores(task: Task, answered: Sequence[Answered], judging: Judging) -> dict[Place, Score]:
    """Return a judge's scores. Only the first repeat of a case is in a pair; it counts for all."""
    scores: dict[Place, Score] = {}
    for case, made in enumerate(judging.judgements(len(task.cases))):
        known = [judgement for judgement in made if judgement.value is not None]
        if not judging.judge.compare:
            for each in known:
                score = _of_answer(judging.judge, task, case, each)
                scores[each.contender, case, each.repeat] = score
            continue
        pairs = {each.contender: _of_other(each) for each in known}
        if own := _of_candidate(answered, known):
            pairs[judging.candidate] = own
        for name, score in pairs.items():
            scores |= {(name, case, repeat): score for repeat in range(task.repeats)}
    return scores


def _of_answer(judge: Judge, task: Task, case: int, judgement: CaseJudgement) -> Score:
    values = [judge.value(verdict) for verdict in judgement.verdicts]
    lowest = values.index(min(values))
    clause, why = judge.clauses(task.cases[case])[lowest], judgement.reasons[lowest]
    quoted = f"\u201c{clause}\u201d: {judgement.verdicts[lowest]}. {why}"
    reason = quoted if min(values) < 1 else why
    return Score(min(values), reason, parts=dict(zip(judge.columns, values, strict=True)))


def _of_other(judgement: CaseJudgement) -> Score:
    value = judgement.value or 0.0
    how = {1.0: "the candidate was preferred", -1.0: "preferred to the candidate"}.get(value)
    how = f"{how} in both orders" if how else "a tie, or another verdict in the other order"
    return Score((1 - value) / 2, f"{how}: {judgement.reasons[0] if judgement.reasons else ''}")


def _of_candidate(answered: Sequence[Answered], made: Sequence[CaseJudgement]) -> Score | None:
    """Return the candidate's mean score against the baselines; None if one was not judged."""
    of_baselines = {e.name for e in answered if e.choice.contender.spec.role == "baseline"}
    values = {each.contender: each.value for each in made if each.contender in of_baselines}
    known = [value for value in values.values() if value is not None]
    if len(known) < len(of_baselines):
        return None
    return Score(fmean((1 + value) / 2 for value in known), "mean over the baselines")


def judge_result(judging: Judging, pairing: Pairing, calibration: Calibration) -> JudgeResult:
    """Return the figures of a judge, with those of the deciding pair."""
    judge, task = judging.judge, pairing.task
    labels = calibration.labels.get(pairing.baseline.name, {})
    every = [each for of_case in judging.judgements(len(task.cases)) for each in of_case]
    differ, repeated = changed(judging.repeated)
    price, usd = judging.price, None
    if price is not None:
        usd = sum((record_usd(price, each) for each in judging.records), Decimal(0))
    decides = task.scoring.primary is judge
    return JudgeResult(
        name=judge.name,
        model=judging.fingerprint,
        compares=judge.compare is not None,
        criteria=(judge.compare,) if judge.compare else judge.clause_names,
        decides=decides,
        requests=len(judging.records),
        failed=sum(each.error is not None for each in every),
        repeated=repeated,
        changed=differ,
        labels=len(labels),
        clauses=_clauses(judging, len(task.cases), calibration),
        basis=_basis(calibration, decides=decides),
        usd=usd,
        **(_of_pairs(judging, pairing, every) if judge.compare else {}),
        **_agreement(pairing, judge.name, labels),
    )


def _of_pairs(judging: Judging, pairing: Pairing, every: Sequence[CaseJudgement]) -> dict[str, Any]:
    """Return how a judge of pairs depends on the order and the length of the answers."""
    whole = [each.verdicts for each in every if each.error is None]
    given = [
        (each.case, opinion.verdicts[0]) for each, opinion in judging.items if opinion.verdicts
    ]
    preferred = {at: verdict == "A" for at, (_, verdict) in enumerate(given) if verdict != "tie"}
    figures: dict[str, Any] = {
        "pairs": len(whole),
        "flips": sum(bool(one and other) and one != other for one, other in whole),
        "ties": sum(not all(each) for each in whole),
    }
    if preferred:
        cases = [given[at][0] for at in preferred]
        interval = own_score([*map(float, preferred.values())], clusters=cases)
        figures |= {"first": fmean(preferred.values()), "first_interval": interval.ends}
    if known := pairing.whole:
        old, new = pairing.scores(judging.judge.name)
        sides = pairing.candidate.answers, pairing.baseline.answers
        longer = [len(sides[0][at].text) - len(sides[1][at].text) for at in known]
        figures["length"] = length_controlled([new[at] - old[at] for at in known], longer)
    return figures


def same_family(
    asked: Judge | SimulatedUser, specs: Iterable[ContenderSpec], base_model: str
) -> str | None:
    """Return a warning if a judge or a simulated user is of the family of a contender's model."""
    family, who = family_of(asked.model), f"judge {asked.name}"
    why = "Judges prefer answers of their own family; use one from another family."
    if isinstance(asked, SimulatedUser):
        who = "simulated user"
        why = "It may suit them better than real users do; use a user of another family."
    alike = [
        spec.name
        for spec in specs
        if not isinstance(spec, Recorded)
        and family_of(spec.model if isinstance(spec, Model | Server) else base_model) == family
    ]
    if not alike:
        return None
    return (
        f"The {who} ({asked.model}) is of the same model family, {family}, as {listed(alike)}. "
        f"{why}"
    )


@dataclass(frozen=True, slots=True)
class Calibration:
    """People's verdicts on the answers of a comparison, and whether a verdict may rest on them."""

    # Verdict of each labelled case by position, by baseline: 1 if the candidate is better
    labels: Mapping[str, Mapping[int, float]] = field(
        default_factory=dict[str, Mapping[int, float]]
    )
    # Labels of single answers by position of the case, by contender
    answers: Mapping[str, Mapping[int, Sequence[Label]]] = field(
        default_factory=dict[str, Mapping[int, Sequence[Label]]]
    )
    # Why no verdict rests on a judge that decides
    bar: Ruling | None = None

    def applied(self, pairings: Mapping[str, Pairing]) -> dict[str, Pairing]:
        """Return the pairings with people's verdicts."""
        return {
            name: replace(
                each, labels=self.labels[name], passed=_means(self.answers[each.candidate.name])
            )
            for name, each in pairings.items()
        }


def calibrate(job: Job, task: Task, pairings: Mapping[str, Pairing]) -> Calibration:
    """Return the labels of each pair, and the reason why no verdict rests on the deciding judge.

    Raises:
        DataError: The labels file cannot be read, or has a case that the test lacks.
    """
    if task.omitted:
        return Calibration(bar=Ruling(3, "A preview (--limit) does not read labels of people."))
    file, labels = job.evaluate.labels, dict[str, Mapping[int, float]]()
    answers = dict[str, Mapping[int, Sequence[Label]]]()
    if file is not None:
        read = _read(job, task, file)
        for name, pairing in pairings.items():
            sides = pairing.candidate, pairing.baseline
            answers |= {each.name: _labels_of(read, file, each) for each in sides}
            new, old = (_means(answers[each.name]) for each in sides)
            both = {at: new[at] - old[at] for at in new.keys() & old.keys()}
            labels[name] = both | _means(_labels_of(read, file, *sides))
    bar = _bar(pairings, labels)
    return Calibration(labels, answers, bar if isinstance(task.scoring.primary, Judge) else None)


def _read(job: Job, task: Task, file: str) -> list[Label]:
    """Return the labels of a job's file for the current rubric, with the ids of kept cases."""
    path, sizes = job.path(file), {len(each.rubric) for each in job.evaluate.judges if each.rubric}
    labels = [
        label.model_copy(update={"case": task.copies.get(label.case, label.case)})
        for label in (read_labels(path) if path.exists() else ())
        if not (label.clauses and sizes) or len(label.clauses) in sizes
    ]
    ids = {case.case_id for case in task.cases}
    left_out = task.copies or (task.leaks.action == "drop" and task.leaks.cases)
    if left_out and any(each.answers is None and each.case not in ids for each in labels):
        raise DataError(
            f"{file}: rows were left out of the test (copies, leaks), so numbers of cases are not "
            "those of rows. Use the ids of test cases."
        )
    return labels


def unknown_contenders(job: Job) -> str | None:
    """Return a warning about labels that name contenders which a job lacks. Raises DataError."""
    file, known = job.evaluate.labels, [each.name for each in job.evaluate.contenders]
    if file is None or not job.path(file).exists():
        return None
    labels = read_labels(job.path(file))
    named = {name for label in labels for name in (label.candidate, label.baseline) if name}
    # A finalist's name is that of its contender, with its prompt
    fits = tuple(f"{name}: " for name in known)
    unknown = sorted(name for name in named if not f"{name}: ".startswith(fits))
    ignored = sum(bool({label.candidate, label.baseline} & {*unknown}) for label in labels)
    if not unknown:
        return None
    return (
        f"{file}: {ignored:,} of {len(labels):,} labels are ignored, because they name "
        f"{listed(unknown)}. The contenders are {listed(known)}. Correct the names, or remove "
        "these labels."
    )


def _labels_of(labels: Sequence[Label], file: str, *sides: Graded) -> dict[int, list[Label]]:
    """Return the labels of one contender's answers, or of a pair's, by position of the case."""
    task, names = sides[0].task, [side.name for side in sides]
    shown = zip(*(side.answered.records[:: task.repeats] for side in sides), strict=True)
    ids = [case.case_id for case in task.cases]
    digests = {id_: answers_digest(*each) for id_, each in zip(ids, shown, strict=True)}
    found = labels_of_cases([each for each in labels if each.is_about(*names)], digests, file)
    return {at: found[id_] for at, id_ in enumerate(ids) if id_ in found}


def _means(labels: Mapping[int, Sequence[Label]]) -> dict[int, float]:
    """Return the reviewers' mean verdicts; a case that no reviewer could decide is left out."""
    means = {at: mean_verdict(each) for at, each in labels.items()}
    return {at: mean for at, mean in means.items() if mean is not None}


def _bar(
    pairings: Mapping[str, Pairing], labels: Mapping[str, Mapping[int, float]]
) -> Ruling | None:
    if not labels:
        return Ruling(
            3,
            "A judge decides, but its answers have no labels of people (evaluate.labels). Its "
            "figures are shown, and no verdict and no gate rests on them. Label at least "
            f"{MIN_LABELS} cases.",
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


def _agreement(pairing: Pairing, metric: str, labels: Mapping[int, float]) -> dict[str, Any]:
    """Return the agreement of a judge and the people on who is better; empty without labels."""
    old, new = pairing.scores(metric)
    cases = [at for at in pairing.whole if at in labels]
    judged, people = [sign(new[at] - old[at]) for at in cases], [sign(labels[at]) for at in cases]
    return cohens_kappa(judged, people).figures if cases else {}


def by_clause(
    clauses: Sequence[str], answers: Iterable[tuple[Sequence[Label], Sequence[str]]]
) -> tuple[ClauseResult, ...]:
    """Return how far a judge and the people agree on each clause of a rubric.

    Args:
        clauses: Name of each clause.
        answers: People's labels of each answer, and the judge's verdict on each clause.
    """
    made: list[list[tuple[float, float]]] = [[] for _ in clauses]
    for labels, verdicts in answers:
        whole = [label.clauses for label in labels if len(label.clauses) == len(verdicts)]
        for number, verdict in enumerate(verdicts):
            given = [VALUES[each[number]] for each in whole if each[number] in VALUES]
            if given:
                made[number].append((fmean(given), VALUES[verdict]))
    return tuple(_clause(*each) for each in zip(clauses, made, strict=True) if each[1])


def _clause(clause: str, verdicts: Sequence[tuple[float, float]]) -> ClauseResult:
    people, judge = zip(*verdicts, strict=True)
    kappa = cohens_kappa(*([sign(2 * share - 1) for share in side] for side in (judge, people)))
    return ClauseResult(
        clause=clause,
        labels=len(verdicts),
        people=fmean(people),
        judge=fmean(judge),
        **kappa.figures,
    )


def _clauses(judging: Judging, cases: int, calibration: Calibration) -> tuple[ClauseResult, ...]:
    """Return the agreement on each clause over all labelled answers of a comparison."""
    judge = judging.judge
    if judge.scale != PASS_FAIL:
        return ()
    return by_clause(
        judge.clause_names,
        (
            (calibration.answers.get(each.contender, {}).get(at, ()), each.verdicts)
            for at, made in enumerate(judging.judgements(cases))
            for each in made
            if each.value is not None and not each.repeat
        ),
    )


def _basis(calibration: Calibration, *, decides: bool) -> str:
    """Return in a sentence or two what rests on a judge."""
    if not decides:
        return "It is shown next to the deciding scorer, and no verdict and no gate rests on it."
    if calibration.bar is not None:
        return calibration.bar.reason
    fewest = min(map(len, calibration.labels.values()))
    return (
        f"The verdict rests on people's labels of {fewest:,} cases. The judge only makes the "
        "interval shorter (prediction-powered inference), whatever its bias."
    )
