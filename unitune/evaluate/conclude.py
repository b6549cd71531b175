"""From recorded answers to the verdict: every figure of a comparison, computed from its records.

`conclude` takes what the contenders answered, scores it, compares the candidate with the baseline
that was best on dev, and applies the gate. It asks nothing and writes nothing, so the same records
always give the same comparison.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean

from unitune import __version__, registry
from unitune.data.example import digest
from unitune.errors import BackendError
from unitune.evaluate import gate
from unitune.evaluate.corpus import compare_corpus, own_corpus
from unitune.evaluate.dev import best_baseline
from unitune.evaluate.evidence import Requirements, Sides, gather
from unitune.evaluate.examine import Answered
from unitune.evaluate.families import benjamini_hochberg, holm
from unitune.evaluate.grouping import clusters_of, slices_of
from unitune.evaluate.intervals import Interval
from unitune.evaluate.results import (
    Answer,
    CaseResult,
    Comparison,
    ContenderResult,
    Contrast,
    GateResult,
    Record,
)
from unitune.evaluate.scorers import Sums
from unitune.evaluate.statistics import PairedResult, compare_paired, own_score
from unitune.evaluate.task import Task
from unitune.evaluate.training import Training
from unitune.job import Job, Recorded

LEVEL = 0.95
"""Of every interval that is shown."""


@dataclass(frozen=True, slots=True)
class Graded:
    """A contender with its scored answers, in the order of the cases, and what they add up to."""

    answered: Answered
    answers: tuple[Answer, ...]
    sums: Mapping[str, Sums]

    def scores(self, metric: str) -> list[float]:
        """Return the scores of one metric, in the order of the cases."""
        return [answer.scores[metric] for answer in self.answers]


@dataclass(frozen=True, slots=True)
class Pairing:
    """The two sides of the verdict on the same cases.

    Args:
        baseline: The best on dev.
        candidate: What is judged.
        clusters: Of each case; None where each stands alone.
        margin: Difference too small to matter.
        corpora: Metrics that are no mean of cases.
    """

    baseline: Graded
    candidate: Graded
    clusters: Sequence[str] | None
    margin: float
    corpora: frozenset[str]

    @property
    def unanswered(self) -> list[bool]:
        """Of each case, whether a side gave no answer."""
        pairs = zip(self.baseline.answers, self.candidate.answers, strict=True)
        return [any(answer.error for answer in pair) for pair in pairs]

    def compare(self, metric: str, members: Sequence[int] | None = None) -> PairedResult:
        """Compare by a metric on all cases, or on those at the given places."""
        places = list(range(len(self.baseline.answers)) if members is None else members)
        clusters = self.clusters and [self.clusters[place] for place in places]
        if metric in self.corpora:
            before, after = self.baseline.sums[metric], self.candidate.sums[metric]
            return compare_corpus(
                before.rows[places],
                after.rows[places],
                before.formula,
                clusters=clusters,
                margin=self.margin,
                level=LEVEL,
            )
        old, new = self.baseline.scores(metric), self.candidate.scores(metric)
        return compare_paired(
            [old[place] for place in places],
            [new[place] for place in places],
            clusters=clusters,
            margin=self.margin,
            level=LEVEL,
        )


def conclude(
    job: Job,
    task: Task,
    contenders: Sequence[Answered],
    training: Training | None,
    asked: Requirements,
) -> Comparison:
    """Judge the candidate.

    Args:
        job: What was to be judged, with margin and gate.
        task: Cases and scorers.
        contenders: All of them, with their answers.
        training: Of the tuned model, when there is one.
        asked: What the gate asks of the cases.

    Raises:
        BackendError: Candidate or baseline gave no answer at all.
    """
    graded = [_grade(task, answered) for answered in contenders]
    candidate = next(each for each in graded if _role(each) == "candidate")
    chosen = best_baseline([answered.choice for answered in contenders])
    baseline = next(each for each in graded if each.answered.choice is chosen)
    _refuse_silence(baseline, candidate)
    clusters = clusters_of(task.cases, job.evaluate)
    pairing = Pairing(baseline, candidate, clusters, job.evaluate.margin, task.corpora)
    paired = pairing.compare(task.primary)
    results = tuple(_result(each, task, training, clusters) for each in graded)
    return Comparison(
        job=job.name,
        run=training.run if training else None,
        base_model=job.base_model,
        backend=job.backend,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        verdict=paired.verdict.value,
        metric=task.primary,
        candidate=candidate.answered.name,
        baseline=baseline.answered.name,
        difference=paired.difference,
        interval=(paired.interval.low, paired.interval.high),
        level=LEVEL,
        p_value=paired.p_value,
        p_exact=paired.p_exact,
        method=paired.method,
        n=paired.n,
        graded=paired.graded,
        gained=paired.gained,
        lost=paired.lost,
        clusters=paired.clusters,
        design_effect=paired.design_effect,
        margin=paired.margin,
        cases_needed=paired.cases_needed,
        smallest_detectable=paired.smallest_detectable,
        secondary=_secondary(pairing, task),
        slices=_slices(pairing, job, task),
        answered=_answered_by_both(pairing, task),
        contenders=results,
        gate=_gate(job, paired, _sides(task, pairing, results), asked),
        leaks=task.leaks,
        dev_rows=len(task.dev),
        notes=(
            *_notes(job, task, training, (baseline.answered, candidate.answered)),
            *_failed_scorers(graded),
            *paired.warnings,
        ),
        curve=training.curve if training else None,
        provenance=_provenance(task, contenders),
        cases=_cases(task, graded, asked.pinned),
    )


def _role(each: Graded) -> str:
    return each.answered.choice.contender.spec.role


def _grade(task: Task, answered: Answered) -> Graded:
    answers = task.grade_all(task.cases, answered.records)
    return Graded(answered, answers, task.sums(task.cases, answered.records, answers))


def _refuse_silence(*sides: Graded) -> None:
    """Raise when a side has no answer at all: that is no evidence, with or without a gate."""
    for side in sides:
        if side.answered.errors == len(side.answers):
            raise BackendError(
                f"{side.answered.name} gave no answer to any of {len(side.answers)} cases. "
                f"First reason: {side.answers[0].error}. Run compare again when it is mended: "
                "it asks only what has no answer."
            )


def _secondary(pairing: Pairing, task: Task) -> tuple[Contrast, ...]:
    others = [scorer.name for scorer in task.scorers if scorer.name != task.primary]
    return _family({name: pairing.compare(name) for name in others}, holm)


def _slices(pairing: Pairing, job: Job, task: Task) -> tuple[Contrast, ...]:
    found = slices_of(task.cases, job.evaluate)
    results = {each.name: pairing.compare(task.primary, each.members) for each in found}
    return _family(results, benjamini_hochberg)


def _answered_by_both(pairing: Pairing, task: Task) -> Contrast | None:
    """Return the comparison without errors, which otherwise count as wrong; None without any."""
    members = [place for place, missing in enumerate(pairing.unanswered) if not missing]
    if not members or len(members) == len(task.cases):
        return None
    found = pairing.compare(task.primary, members)
    return _contrast("cases that both answered", found, found.p_value)


def _family(
    results: Mapping[str, PairedResult], adjust: Callable[[list[float]], list[float]]
) -> tuple[Contrast, ...]:
    adjusted = adjust([found.p_value for found in results.values()])
    pairs = zip(results.items(), adjusted, strict=True)
    return tuple(_contrast(name, found, p) for (name, found), p in pairs)


def _contrast(name: str, found: PairedResult, p_adjusted: float) -> Contrast:
    return Contrast(
        name=name,
        n=found.n,
        baseline=found.baseline,
        candidate=found.candidate,
        difference=found.difference,
        interval=(found.interval.low, found.interval.high),
        p_value=found.p_value,
        p_adjusted=p_adjusted,
    )


def _result(
    each: Graded, task: Task, training: Training | None, clusters: Sequence[str] | None
) -> ContenderResult:
    answered, spec = each.answered, each.answered.choice.contender.spec
    own = _own_interval(each, task, clusters)
    totals = {name: sums.statistic() for name, sums in each.sums.items()}
    return ContenderResult(
        name=spec.name,
        type=spec.type,
        role=spec.role,
        score=totals[task.primary],
        interval=(own.low, own.high),
        n=len(each.answers),
        errors=sum(answer.error is not None for answer in each.answers),
        scores=totals,
        measures=_means([answer.measures for answer in each.answers]),
        confusion=task.confusion(answered.records),
        prompt_tokens=_total_tokens(record.prompt_tokens for record in _given(answered)),
        completion_tokens=_total_tokens(record.completion_tokens for record in _given(answered)),
        usd=None,
        seconds=_total_seconds(record.seconds for record in _given(answered)),
        effort=_effort(answered, task, training),
    )


def _means(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each figure over the cases where it is known."""
    names = dict.fromkeys(name for one in figures for name in one)
    return {name: fmean(one[name] for one in figures if name in one) for name in names}


def _given(answered: Answered) -> list[Record]:
    return [record for record in answered.records if record.error is None]


def _effort(answered: Answered, task: Task, training: Training | None) -> str:
    if answered.choice.contender.is_tuned and training is not None:
        return training.effort
    spec = answered.choice.contender.spec
    if isinstance(spec, Recorded):
        return f"answers kept in {spec.answers}"
    return answered.choice.effort(len(task.dev))


def _total_tokens(counts: Iterable[int | None]) -> int | None:
    """Return the sum; None when there is nothing, or one of them is not known."""
    known = list(counts)
    return None if not known or None in known else sum(count or 0 for count in known)


def _total_seconds(spans: Iterable[float | None]) -> float | None:
    known = list(spans)
    return None if not known or None in known else sum(span or 0.0 for span in known)


def _own_interval(each: Graded, task: Task, clusters: Sequence[str] | None) -> Interval:
    if task.primary in task.corpora:
        sums = each.sums[task.primary]
        return own_corpus(sums.rows, sums.formula, clusters=clusters, level=LEVEL)
    return own_score(each.scores(task.primary), clusters=clusters, level=LEVEL)


def _sides(task: Task, pairing: Pairing, results: Iterable[ContenderResult]) -> Sides:
    ids, clusters = [case.case_id for case in task.cases], pairing.clusters
    return Sides(
        task.primary,
        result=next(each for each in results if each.name == pairing.candidate.answered.name),
        baseline=dict(zip(ids, pairing.baseline.answers, strict=True)),
        candidate=dict(zip(ids, pairing.candidate.answers, strict=True)),
        clusters=None if clusters is None else dict(zip(ids, clusters, strict=True)),
    )


def _gate(job: Job, paired: PairedResult, sides: Sides, asked: Requirements) -> GateResult | None:
    if job.evaluate.gate is None:
        return None
    return gate.apply(job.evaluate.gate, gather(paired, sides, asked, LEVEL))


def _cases(task: Task, graded: Sequence[Graded], pinned: Collection[str]) -> tuple[CaseResult, ...]:
    return tuple(
        CaseResult(
            id=case.case_id,
            messages=case.prompt,
            expected=case.answer or "",
            pinned=case.case_id in pinned,
            answers={each.answered.name: each.answers[at] for each in graded},
        )
        for at, case in enumerate(task.cases)
    )


def _provenance(task: Task, contenders: Iterable[Answered]) -> dict[str, str]:
    models = {_called(each): each.fingerprint for each in contenders}
    scorers = {f"Scorer {scorer.name}": scorer.fingerprint for scorer in task.scorers}
    return {
        **models,
        **scorers,
        "Test cases": digest([case.content for case in task.cases]),
        "Sampling": f"greedy, at most {task.max_tokens} tokens an answer",
        "unitune": __version__,
    }


def _called(each: Answered) -> str:
    contender = each.choice.contender
    if isinstance(contender.spec, Recorded):
        return f"Answers of {contender.name}"
    return "Tuned model" if contender.is_tuned else "Untuned model"


def _notes(
    job: Job, task: Task, training: Training | None, sides: Iterable[Answered]
) -> tuple[str, ...]:
    return (
        *task.notes,
        *(training.notes if training else ()),
        *_weak_baseline(job),
        *(note for side in sides for note in _cut_short(side, task.max_tokens)),
        *_about_base(job),
    )


def _failed_scorers(graded: Sequence[Graded]) -> Iterable[str]:
    """Tell of scores that are 0 because a scorer failed, and not because of the answer."""
    for each in graded:
        failed = Counter(name for answer in each.answers for name in answer.failed)
        for name, count in failed.items():
            first = next(a.reasons.get(name) for a in each.answers if name in a.failed)
            yield (
                f"{each.answered.name}: the scorer {name} failed on {count} answers, which count "
                f"as 0. First reason: {first}"
            )


def _weak_baseline(job: Job) -> tuple[str, ...]:
    """Warn of a baseline into which nobody put any effort."""
    types = {spec.type for spec in job.evaluate.contenders if spec.role == "baseline"}
    if types != {"zero-shot"}:
        return ()
    note = (
        "The only baseline is zero-shot, a prompt without any effort: instructions or shots may "
        "do as well as tuning. Add instructed and few-shot to evaluate.contenders."
    )
    return (note,)


def _cut_short(side: Answered, max_tokens: int) -> tuple[str, ...]:
    cut = sum(record.finish_reason == "length" for record in side.records)
    if not cut:
        return ()
    return (f"{side.name}: {cut} answers were cut off at {max_tokens} tokens (max_tokens).",)


def _about_base(job: Job) -> tuple[str, ...]:
    """Return what the offer says of the base model, such as that it was quantised."""
    if all(isinstance(spec, Recorded) for spec in job.evaluate.contenders):
        return ()
    models = registry.offer(job.backend).models
    return tuple(
        f"{model.name}: {model.note}"
        for model in models
        if model.note and job.base_model in (model.name, *model.aliases)
    )
