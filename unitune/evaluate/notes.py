"""The notes on a comparison: what a reader must know beside its figures, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from unitune.backends import registry
from unitune.evaluate.grading import Graded
from unitune.evaluate.responses import Answered
from unitune.evaluate.task import Task
from unitune.job.contenders import FewShot, Model, Recorded, Server, prompt_kind
from unitune.job.job import Job

if TYPE_CHECKING:
    from unitune.evaluate.prompts.tuned_run import TunedRun


def notes(
    job: Job, task: Task, tuned: TunedRun | None, graded: Sequence[Graded]
) -> tuple[str, ...]:
    """Return all notes: on the cases, the training, the baselines, each contender's answers."""
    sentences = [*task.notes, *(tuned.notes if tuned else ())]
    sentences += [*_weak_baselines(job), *_about_base(job)]
    for each in graded:
        answered = each.answered
        sentences += [*_on_dev(answered), *_failed_scorers(each), *_about_records(answered)]
        if tuned is None and answered.choice.contender.is_tuned:
            sentences.append(
                f"{each.name}: its recorded answers are of the model {answered.fingerprint}, made "
                f"by {answered.origin}, which is the training that the job describes."
            )
    return tuple(sentences)


def _on_dev(answered: Answered) -> Iterator[str]:
    """Tell of errors and cut answers by which prompts were chosen."""
    scores = [trial.score for trial in answered.choice.trials]
    errors, answers = sum(len(each.errors) for each in scores), sum(each.rows for each in scores)
    if errors:
        yield (
            f"{answered.name}: {errors} of {answers} dev answers ended in an error; an error "
            "counts as a wrong answer."
        )
    if cut := sum(each.cut for each in scores):
        yield (
            f"{answered.name}: {cut} of {answers} dev answers were cut off at max_tokens, so dev "
            "may have chosen a weaker prompt. Raise evaluate.max_tokens."
        )


def _failed_scorers(graded: Graded) -> Iterator[str]:
    """Tell of scores that are 0 because a scorer failed, and not because of the answer."""
    failed = Counter(name for answer in graded.answers for name in answer.failed)
    for name, count in failed.items():
        first = next(a.reasons.get(name) for a in graded.answers if name in a.failed)
        yield (
            f"{graded.name}: the scorer {name} failed on {count} answers, which count as 0. First "
            f"reason: {first}"
        )


def _about_records(answered: Answered) -> Iterator[str]:
    """Tell of answers that were requested or charged otherwise than usual."""
    name, records = answered.name, answered.records
    if count := sum(record.cached is not None for record in records):
        yield f"{name}: {count} answers were given in an earlier comparison (--use-cache)."
    if count := sum(record.uncounted is not None for record in answered.succeeded):
        yield (
            f"{name}: for {count} answers the most tokens that a request can take were held "
            "against the budget, since the vendor gave no possible count."
        )
    without = sorted({setting for record in records for setting in record.left_out or ()})
    if without:
        greedy = " Its answers are not greedy." if "temperature" in without else ""
        yield f"{name}: requested without {' and '.join(without)}, which it refuses.{greedy}"
    if hidden := sum(record.reasoning_tokens or 0 for record in records):
        yield (
            f"{name}: thinks before it answers ({hidden / len(records):,.0f} tokens of thoughts "
            "an answer, which are paid for and not scored)."
        )


def _weak_baselines(job: Job) -> Iterator[str]:
    """Warn of baselines without any effort in them, and of prompts that were left out."""
    specs = [spec for spec in job.evaluate.contenders if spec.role == "baseline"]
    if {prompt_kind(spec) for spec in specs} == {"zero-shot"}:
        yield (
            "The only baseline is zero-shot, a prompt without any effort: instructions or shots "
            "may do as well as tuning. Add instructed and few-shot to evaluate.contenders."
        )
    shot_choices = {
        spec.choose
        for spec in specs
        if isinstance(spec, FewShot | Model | Server) and prompt_kind(spec) == "few-shot"
    }
    if shot_choices == {"random"}:
        yield (
            "Left out of the comparison: a prompt that shows each case its own nearest training "
            "rows, often stronger than the same rows for all (choose: random). With choose: auto "
            "dev tries both."
        )


def _about_base(job: Job) -> Iterator[str]:
    """Tell what the offer notes of the base model, such as that it was quantised."""
    if all(isinstance(spec, Recorded) for spec in job.evaluate.contenders):
        return
    for model in registry.offer(job.backend).models:
        if model.note and job.base_model in (model.name, *model.aliases):
            yield f"{model.name}: {model.note}"
