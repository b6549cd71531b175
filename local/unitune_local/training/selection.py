"""Choose the step of a training to keep, and when to end early.

Less is better. A gain is measured from the value of the last gain, as in Keras and Lightning, so
that small gains add up. Every checkpoint includes the state of this choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self

from unitune.backends.protocol import WORSE
from unitune.documents import Closed
from unitune_local.job_folder import Note
from unitune_local.settings import SelectionSettings, Settings


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
        self.steps, self._epoch_steps = settings.steps(rows), settings.epoch_steps(rows)
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
        self._note("validation", {"step": step, "epoch": step / self._epoch_steps, **figures})
        value = figures[self._metric]
        return value if self._metric == "loss" else -value
