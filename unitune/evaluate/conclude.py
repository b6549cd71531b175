"""From recorded answers to the verdict: every figure of a comparison, computed from its records.

`conclude` takes what the contenders answered, scores it, compares the candidate with the baseline
that was best on dev, and applies the gate. It asks nothing and writes nothing, so the same records
always give the same comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean

from unitune import __version__, registry
from unitune.data.example import digest
from unitune.errors import BackendError
from unitune.evaluate import gate
from unitune.evaluate.dev import best_baseline
from unitune.evaluate.examine import Answered
from unitune.evaluate.families import benjamini_hochberg, holm
from unitune.evaluate.grouping import clusters_of, slices_of
from unitune.evaluate.results import (
    Answer,
    CaseResult,
    Comparison,
    ContenderResult,
    Contrast,
    GateResult,
    Record,
)
from unitune.evaluate.statistics import PairedResult, compare_paired, own_score
from unitune.evaluate.task import Task
from unitune.evaluate.training import Training
from unitune.job import Job, Recorded

LEVEL = 0.95
"""Of every interval that is shown."""


@dataclass(frozen=True, slots=True)
class Graded:
    """A contender with its scored answers, in the order of the cases."""

    answered: Answered
    answers: tuple[Answer, ...]

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
    """

    baseline: Graded
    candidate: Graded
    clusters: Sequence[str] | None
    margin: float

    @property
    def unanswered(self) -> list[bool]:
        """Of each case, whether a side gave no answer."""
        pairs = zip(self.baseline.answers, self.candidate.answers, strict=True)
        return [any(answer.error for answer in pair) for pair in pairs]

    def compare(self, metric: str, members: Sequence[int] | None = None) -> PairedResult:
        """Compare by a metric on all cases, or on those at the given places."""
        old, new = self.baseline.scores(metric), self.candidate.scores(metric)
        places = range(len(old)) if members is None else members
        return compare_paired(
            [old[place] for place in places],
            [new[place] for place in places],
            clusters=self.clusters and [self.clusters[place] for place in places],
            margin=self.margin,
            level=LEVEL,
        )


def conclude(
    job: Job, task: Task, contenders: Sequence[Answered], training: Training | None
) -> Comparison:
    """Judge the candidate.

    Args:
        job: What was to be judged, with margin and gate.
        task: Cases and scorers.
        contenders: All of them, with their answers.
        training: Of the tuned model, when there is one.

    Raises:
        BackendError: Candidate or baseline gave no answer at all.
    """
    graded = [_grade(task, answered) for answered in contenders]
    candidate = next(each for each in graded if _role(each) == "candidate")
    chosen = best_baseline([answered.choice for answered in contenders])
    baseline = next(each for each in graded if each.answered.choice is chosen)
    _refuse_silence(baseline, candidate)
    clusters = clusters_of(task.cases, job.evaluate)
    pairing = Pairing(baseline, candidate, clusters, job.evaluate.margin)
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
        gate=_gate(job, paired, pairing, results),
        leaks=task.leaks,
        dev_rows=len(task.dev),
        notes=(
            *_notes(job, task, training, (baseline.answered, candidate.answered)),
            *paired.warnings,
        ),
        curve=training.curve if training else None,
        provenance=_provenance(task, contenders),
        cases=_cases(task, graded),
    )


def _role(each: Graded) -> str:
    return each.answered.choice.contender.spec.role


def _grade(task: Task, answered: Answered) -> Graded:
    pairs = zip(task.cases, answered.records, strict=True)
    return Graded(answered, tuple(task.grade(case, record) for case, record in pairs))


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
    others = [scorer.type for scorer in task.scorers if scorer.type != task.primary]
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
    scores = each.scores(task.primary)
    own = own_score(scores, clusters=clusters, level=LEVEL)
    return ContenderResult(
        name=spec.name,
        type=spec.type,
        role=spec.role,
        score=fmean(scores),
        interval=(own.low, own.high),
        n=len(scores),
        errors=answered.errors,
        scores={scorer.type: fmean(each.scores(scorer.type)) for scorer in task.scorers},
        prompt_tokens=_total_tokens(record.prompt_tokens for record in _given(answered)),
        completion_tokens=_total_tokens(record.completion_tokens for record in _given(answered)),
        usd=None,
        seconds=_total_seconds(record.seconds for record in _given(answered)),
        effort=_effort(answered, task, training),
    )


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


def _gate(
    job: Job, paired: PairedResult, pairing: Pairing, results: Iterable[ContenderResult]
) -> GateResult | None:
    if job.evaluate.gate is None:
        return None
    own = {result.name: result.interval for result in results}
    evidence = gate.Evidence(
        verdict=paired.verdict.value,
        interval=(paired.interval.low, paired.interval.high),
        margin=paired.margin,
        own_interval=own[pairing.candidate.answered.name],
        n=paired.n,
        errors=sum(pairing.unanswered),
    )
    return gate.apply(job.evaluate.gate, evidence)


def _cases(task: Task, graded: Sequence[Graded]) -> tuple[CaseResult, ...]:
    return tuple(
        CaseResult(
            id=case.case_id,
            messages=case.prompt,
            expected=case.answer or "",
            answers={each.answered.name: each.answers[at] for each in graded},
        )
        for at, case in enumerate(task.cases)
    )


def _provenance(task: Task, contenders: Iterable[Answered]) -> dict[str, str]:
    models = {
        "Tuned model" if each.choice.contender.is_tuned else "Untuned model": each.fingerprint
        for each in contenders
    }
    return {
        **models,
        "Test cases": digest([case.content for case in task.cases]),
        "Sampling": f"greedy, at most {task.max_tokens} tokens an answer",
        "unitune": __version__,
    }


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
    models = registry.offer(job.backend).models
    return tuple(
        f"{model.name}: {model.note}"
        for model in models
        if model.note and job.base_model in (model.name, *model.aliases)
    )
