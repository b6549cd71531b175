"""What a reader of a verdict must know beside its figures, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from unitune.backends import registry
from unitune.evaluate.grading import Graded
from unitune.evaluate.prompts.build import prompt_kind
from unitune.evaluate.prompts.training import Training
from unitune.evaluate.responses import Answered
from unitune.evaluate.task import Task
from unitune.job.contenders import FewShot, Model, Recorded, Server
from unitune.job.job import Job


def notes(
    job: Job, task: Task, training: Training | None, graded: Sequence[Graded]
) -> tuple[str, ...]:
    """Return all notes on a comparison: on its cases, its training, its contenders' answers."""
    contenders = [each.answered for each in graded]
    return (
        *task.notes,
        *(training.notes if training else ()),
        *_weak_baselines(job),
        *_about_base(job),
        *_unanswered_on_dev(contenders),
        *_failed_scorers(graded),
        *_cached(contenders),
        *_disbelieved(contenders),
        *(_replayed(contenders) if training is None else ()),
        *_adapted(contenders),
    )


def _unanswered_on_dev(contenders: Iterable[Answered]) -> Iterable[str]:
    """Tell of errors and cut answers by which prompts were chosen."""
    for each in contenders:
        scores = [trial.score for trial in each.choice.trials]
        errors, answers = sum(len(one.errors) for one in scores), sum(one.rows for one in scores)
        if errors:
            yield (
                f"{each.name}: {errors} of {answers} dev answers ended in an error; an error "
                "counts as a wrong answer."
            )
        if cut := sum(one.cut for one in scores):
            yield (
                f"{each.name}: {cut} of {answers} dev answers were cut off at max_tokens, so dev "
                "may have chosen a weaker prompt. Raise evaluate.max_tokens."
            )


def _failed_scorers(graded: Sequence[Graded]) -> Iterable[str]:
    """Tell of scores that are 0 because a scorer failed, and not because of the answer."""
    for each in graded:
        failed = Counter(name for answer in each.answers for name in answer.failed)
        for name, count in failed.items():
            first = next(a.reasons.get(name) for a in each.answers if name in a.failed)
            yield (
                f"{each.name}: the scorer {name} failed on {count} answers, which count "
                f"as 0. First reason: {first}"
            )


def _cached(contenders: Iterable[Answered]) -> Iterable[str]:
    for each in contenders:
        if count := sum(record.cached is not None for record in each.records):
            yield f"{each.name}: {count} answers were given in an earlier comparison (--use-cache)."


def _disbelieved(contenders: Iterable[Answered]) -> Iterable[str]:
    """Tell of vendors whose counts of tokens cannot be true."""
    for each in contenders:
        said = [one.uncounted.said for one in each.records if one.uncounted and one.uncounted.said]
        if said:
            yield (
                f"{each.name}: of {len(said)} answers the tokens as counted there cannot be true "
                f"(first: {said[0]}). The most that they can be was held against the budget."
            )


def _replayed(contenders: Iterable[Answered]) -> Iterable[str]:
    """Tell whose recorded answers stand for a tuned model that nobody here has seen."""
    for each in contenders:
        if each.choice.contender.is_tuned:
            yield (
                f"{each.name}: its recorded answers are of the model {each.fingerprint}, made by "
                f"{each.origin}, which is the training that the job describes."
            )


def _weak_baselines(job: Job) -> Iterable[str]:
    """Warn of baselines into which nobody put any effort, and of prompts that were left out."""
    specs = [spec for spec in job.evaluate.contenders if spec.role == "baseline"]
    kinds = {prompt_kind(spec) for spec in specs}
    if kinds == {"zero-shot"}:
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


def _adapted(contenders: Iterable[Answered]) -> Iterable[str]:
    """Tell of contenders that could not be asked as all others were."""
    for each in contenders:
        without = sorted({name for record in each.records for name in record.left_out or ()})
        if without:
            greedy = " Its answers are not greedy." if "temperature" in without else ""
            yield f"{each.name}: asked without {' and '.join(without)}, which it refuses.{greedy}"
        hidden = sum(record.reasoning_tokens or 0 for record in each.records)
        if hidden:
            yield (
                f"{each.name}: thinks before it answers ({hidden / len(each.records):,.0f} tokens "
                "of thoughts an answer, which are paid for and not scored)."
            )


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
