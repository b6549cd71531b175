"""Choose the step of a training to keep, and when to end early.

Less is better. A gain is measured from the value of the last gain, as in Keras and Lightning, so
that small gains add up. Every checkpoint includes the state of this choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

from peft import PeftModel

from unitune.backends.output_limit import TRAINING_ROOM, automatic_tokens, longest_expected
from unitune.backends.protocol import WORSE
from unitune.data.dataset import Dataset
from unitune.documents import Closed
from unitune.errors import BackendError
from unitune.job.job import Job
from unitune.scorers.interface import Attempt
from unitune_local.data.rendering import render_prompt
from unitune_local.data.rows import scored_cases
from unitune_local.grading import Grader, Grading
from unitune_local.inference.answers import Sampling
from unitune_local.inference.generate import generate_in_training
from unitune_local.job_folder import Note
from unitune_local.parallel.ranks import ALONE, Ranks
from unitune_local.settings import SelectionSettings, Settings
from unitune_local.spec import DevScorer


class Selection(Closed):
    """Result of the evaluations so far."""

    first: float | None = None
    """Value before the first step."""
    last: float | None = None
    """Value of the last evaluation."""
    best_step: int = 0
    """Step of the best evaluation; 0: none yet."""
    best: float | None = None
    last_gain: float | None = None
    """Value of the last evaluation that was a gain."""
    without_gain: int = 0
    """Number of evaluations since then."""

    def after(self, step: int, value: float, settings: SelectionSettings) -> Self:
        """Return the result with one more evaluation."""
        is_number = math.isfinite(value)
        is_best = is_number and (self.best is None or value < self.best)
        gains = is_number and (
            self.last_gain is None or value < self.last_gain - settings.min_delta
        )
        best = {"best_step": step, "best": value} if is_best else {}
        gain = {"last_gain": value} if gains else {}
        without_gain = 0 if gains else self.without_gain + 1
        decided = {**best, **gain, "without_gain": without_gain}
        return self.model_copy(update={**decided, "last": value if is_number else None})

    def ends(self, settings: SelectionSettings) -> bool:
        """Return whether the training ends early."""
        return settings.patience is not None and self.without_gain >= settings.patience


NONE_YET = Selection()


class Evaluations:
    """Evaluations of a training: when one is due, and what they decide."""

    def __init__(
        self,
        measure: Callable[[], dict[str, float]] | None,
        settings: Settings,
        rows: int,
        note: Note,
    ) -> None:
        self.selection = NONE_YET
        self._measure, self._note, self._rule = measure, note, settings.selection
        self.steps, self.epoch_steps = settings.steps(rows), settings.epoch_steps(rows)
        self._every = settings.evaluation_steps(rows)
        value = "reward" if settings.reward else "loss"
        self._metric = "score" if self._rule.best_by == "score" else value

    def before(self) -> None:
        """Evaluate before the first step; this decides nothing."""
        self.selection = self.selection.model_copy(update={"first": self._look(0)})

    def after(self, step: int) -> None:
        """Evaluate if it is due after a step."""
        value = self._look(step) if step % self._every == 0 or step == self.steps else None
        if value is not None:
            self.selection = self.selection.after(step, value, self._rule)

    def ends(self, step: int) -> bool:
        """Return whether a training ends after a step."""
        return step == self.steps or self.selection.ends(self._rule)

    def wants_checkpoint(self, step: int) -> bool:
        """Return whether the weights of a step are the last, or those to keep."""
        is_best = self._rule.keep == "best" and step == self.selection.best_step
        return is_best or self.ends(step)

    def kept(self, step: int) -> int:
        """Return the step to keep at the end of a step."""
        best = self.selection.best_step
        return best if self._rule.keep == "best" and best else step

    def conclude(self, step: int) -> None:
        """Record why a training ended, which step is kept, and whether it is worse."""
        best, metric, kept = self.selection.best, self._metric, self.kept(step)
        self._warn_if_worse(kept)
        if not self._rule.needs_validation:
            return
        end = f"all {step} steps are done"
        if step < self.steps:
            waited = f"{self.selection.without_gain} evaluations without a gain"
            end = f"ended early, at step {step} of {self.steps}, after {waited}"
        text = f"{end}; kept step {kept}"
        if best is not None and kept == self.selection.best_step:
            value = f"highest validation {metric}, {-100 * best:.1f} %"
            value = value if metric != "loss" else f"lowest validation loss, {best:.4f}"
            text += f", which has the {value}"
        self._note("message", {"text": text, "kept_step": kept})

    def _warn_if_worse(self, kept: int) -> None:
        selection = self.selection
        last = selection.best if kept == selection.best_step else selection.last
        if selection.first is None or (last is not None and last <= selection.first):
            return
        was, now = abs(selection.first), "not a number" if last is None else f"{abs(last):.4f}"
        what = f"the validation {self._metric} is {now} after step {kept}, but was {was:.4f}"
        text = f"{what} before the first step: the training made the model worse"
        self._note("warning", {"text": text, WORSE: True})

    def _look(self, step: int) -> float | None:
        if self._measure is None:
            return None
        figures = self._measure()
        self._note("validation", {"step": step, "epoch": step / self.epoch_steps, **figures})
        value = figures[self._metric]
        return value if self._metric == "loss" else -value


def dev_scorer(job: Job, validation: Dataset) -> DevScorer:
    """Return the scorer of a job's answers to the validation rows."""
    limit = job.evaluate.max_tokens
    if limit == "auto":
        limit = automatic_tokens(longest_expected(scored_cases(validation)), TRAINING_ROOM)
    grading = Grading.of(job.evaluate.deciding, job.folder.resolve())
    return DevScorer(grading=grading, max_tokens=limit)


def dev_score(
    grader: Grader, max_tokens: int, model: PeftModel, validation: Dataset, ranks: Ranks = ALONE
) -> float:
    """Return the score of answers to validation rows; raises BackendError if all fail."""
    tokenizer, scorer = grader.tokenizer, grader.scorer
    cases = scored_cases(validation)
    prompts = [render_prompt(tokenizer, case.prompt, case.tools) for case in cases]
    config = cast("Any", model.get_base_model()).config.get_text_config()
    context: int = config.max_position_embeddings
    limits = [min(max_tokens, context - len(prompt)) for prompt in prompts]

    def answer(places: Sequence[int]) -> list[str]:
        samplings = [Sampling(max_tokens=limits[place]) for place in places]
        own = [prompts[place] for place in places]
        return [each.text for each in generate_in_training(model, tokenizer, own, samplings)]

    texts = ranks.spread([len(prompt) for prompt in prompts], answer)

    def statistic() -> float:
        attempts = [Attempt(case, text) for case, text in zip(cases, texts, strict=True)]
        scores = [scorer.score(attempt) for attempt in attempts]
        if all(score.failed for score in scores):
            raise BackendError(
                f"the scorer {scorer.name!r} cannot score any answer to the validation rows: "
                f"{scores[0].reason}. Set tuning.best_by to loss, or choose another scorer."
            )
        return scorer.sums(attempts, [score.value for score in scores]).statistic()

    return ranks.first(statistic)
