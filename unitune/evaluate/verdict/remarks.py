"""Remarks on how a comparison was made, shown below its figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from unitune.evaluate.prompts.tuned_run import TunedRun
from unitune.evaluate.scoring.grading import Answered, Graded
from unitune.evaluate.statistics.paired import Verdict
from unitune.evaluate.task import Task
from unitune.job.contenders import FewShot, Model, Recorded, Server, Tuned, prompt_kind
from unitune.job.job import Job
from unitune.planning.preflight import ResolvedJob
from unitune.scorers.judge import Judge

# Fraction of the cases from which on a cluster is reported: with a quarter in one, 500 cases in
# clusters of five did not show a difference of 15 points
LARGE_CLUSTER = 0.2


def remarks(
    resolved: ResolvedJob, task: Task, tuned: Mapping[str, TunedRun], graded: Sequence[Graded]
) -> Iterator[str]:
    """Yield what a reader of a comparison should know of its prompts, runs and answers."""
    yield from task.notes
    yield from dict.fromkeys(note for each in tuned.values() for note in each.notes)
    yield from _weak_baselines(resolved.job)
    base, specs = resolved.terms.model, resolved.job.evaluate.contenders
    is_asked = not all(isinstance(spec, Recorded | Server | Model) for spec in specs)
    if base and base.note and is_asked:
        yield f"{base.name}: {base.note}"
    if resolved.job.evaluate.repeats > 1 and not task.template.temperature:
        yield (
            "The repeats were requested at temperature 0, so the figures of reliability are about "
            "that temperature. Set evaluate.temperature to the one in production."
        )
    yield from _on_dev([each.answered for each in graded])
    for each in graded:
        answered = each.answered
        yield from _failed_scorers(each)
        yield from _about_records(answered)
        if isinstance(each.spec, Tuned) and each.name not in tuned:
            which = "run named in the job" if each.spec.run else "training described in the job"
            yield (
                f"{each.name}: the recorded answers are from the model {answered.fingerprint} of "
                f"{answered.origin}, the {which}."
            )


def large_cluster(task: Task, verdict: Verdict) -> Iterator[str]:
    """Yield a remark if one cluster has many of the cases and there is no verdict."""
    if task.clusters is None or verdict in (Verdict.BETTER, Verdict.WORSE, Verdict.EQUIVALENT):
        return
    (label, count), n = Counter(task.clusters).most_common(1)[0], len(task.cases)
    if count >= LARGE_CLUSTER * n:
        case = task.cases[task.clusters.index(label)].case_id
        yield (
            f"The cluster {label.removeprefix('named ')!r}, such as case {case}, has {count:,} of "
            f"{n:,} cases, which widens the interval. Use fewer of its cases, or more of others."
        )


def _on_dev(contenders: Sequence[Answered]) -> Iterator[str]:
    errors, cut = list[str](), list[str]()
    for answered in contenders:
        scores = [trial.score for trial in answered.choice.trials]
        answers = sum(each.rows for each in scores)
        if count := sum(len(each.errors) for each in scores):
            errors.append(f"{answered.name} {count:,} of {answers:,}")
        if count := sum(each.cut for each in scores):
            cut.append(f"{answered.name} {count:,} of {answers:,}")
    if errors:
        yield f"Dev answers with an error, which count as wrong: {', '.join(errors)}."
    if cut:
        yield (
            f"Dev answers cut off at max_tokens: {', '.join(cut)}. They may have caused the "
            "choice of a weaker prompt or run; raise evaluate.max_tokens."
        )


def _failed_scorers(graded: Graded) -> Iterator[str]:
    failed = Counter(name for answer in graded.answers for name in answer.failed)
    for name, count in failed.items():
        if isinstance(graded.task.scoring.scorer(name), Judge):
            continue  # in the judge's own section
        first = next(a.reasons.get(name) for a in graded.answers if name in a.failed)
        yield (
            f"{graded.name}: the scorer {name} failed on {count} answers, which count as 0. First "
            f"reason: {first}"
        )


def _about_records(answered: Answered) -> Iterator[str]:
    name, records = answered.name, answered.records
    if count := sum(record.cached is not None for record in records):
        yield f"{name}: {count} answers were reused from earlier comparisons (--use-cache)."
    if count := sum(record.uncounted is not None for record in answered.succeeded):
        yield (
            f"{name}: {count} answers had no plausible token count, so the maximum tokens per "
            "request were charged to the budget."
        )
    without = sorted({setting for record in records for setting in record.left_out or ()})
    if without:
        greedy = " Its answers are not greedy." if "temperature" in without else ""
        yield f"{name}: requested without {' and '.join(without)}, which the model rejects.{greedy}"
    if hidden := sum(record.reasoning_tokens or 0 for record in records):
        yield (
            f"{name}: reasons before it answers ({hidden / len(records):,.0f} reasoning tokens "
            "per answer, which are paid for but not scored)."
        )


def _weak_baselines(job: Job) -> Iterator[str]:
    specs = [spec for spec in job.evaluate.contenders if spec.role == "baseline"]
    if {prompt_kind(spec) for spec in specs} == {"zero-shot"}:
        yield (
            "The only baseline is zero-shot, a prompt without any tuning effort. Instructions or "
            "few-shot examples may do as well. Add instructed and few-shot to evaluate.contenders."
        )
    prompted = [spec for spec in specs if isinstance(spec, FewShot | Model | Server)]
    if {spec.choose for spec in prompted if prompt_kind(spec) == "few-shot"} == {"random"}:
        yield (
            "Not compared: few-shot prompts with the nearest training rows of each case, which "
            "often beat the same rows for all cases (choose: random). Use choose: auto to try "
            "both on dev rows."
        )
