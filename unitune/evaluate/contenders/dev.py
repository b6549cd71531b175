"""Choosing on dev: which prompt a contender uses, and which baseline the candidate must beat.

The test cases have no part in either choice: nothing here can see them. Between equals the more
strictly scored one wins (the mean of all scorers), then for prompts the one tried first, which is
the shorter, and for baselines the one with more effort in it, so that a tie never gives the
candidate the easier opponent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from unitune.evaluate.contenders.build import Contender, prompt_kind
from unitune.evaluate.contenders.prompts import Prompt

EFFORT = (None, "zero-shot", "instructed", "few-shot")
"""Kinds of prompts by the effort in them."""


@dataclass(frozen=True, slots=True, order=True)
class DevScore:
    """How a prompt did on the dev rows; greater is better.

    Args:
        primary: Mean of the primary metric.
        overall: Mean of all metrics, which decides between equals.
    """

    primary: float
    overall: float


@dataclass(frozen=True, slots=True)
class Trial:
    """A prompt with its score on dev."""

    prompt: Prompt
    score: DevScore


@dataclass(frozen=True, slots=True)
class Choice:
    """A contender with the prompt that it goes into the test with.

    Args:
        contender: Who.
        prompt: Chosen on dev where there was a choice.
        trials: All that was tried, in order; empty when dev was not needed.
    """

    contender: Contender
    prompt: Prompt
    trials: tuple[Trial, ...] = ()

    @property
    def score(self) -> DevScore | None:
        """The chosen prompt's score on dev, when it was measured."""
        return max((trial.score for trial in self.trials), default=None)

    def effort(self, dev_rows: int) -> str:
        """Say what was tried on dev, in words.

        Args:
            dev_rows: Rows that each prompt was asked.
        """
        if not self.trials:
            return self.prompt.label
        if len(self.trials) == 1:
            return f"{self.prompt.label}; {self._right} on {dev_rows} dev rows"
        tried = ", ".join(trial.prompt.label for trial in self.trials)
        return (
            f"tried {len(self.trials)} prompts on {dev_rows} dev rows ({tried}); "
            f"chose {self.prompt.label}, {self._right}"
        )

    @property
    def _right(self) -> str:
        return f"{self.score.primary:.1%} right" if self.score else "not measured"


def choose(contender: Contender, measure: Callable[[Prompt], DevScore]) -> Choice:
    """Try a contender's prompts on dev and take the best.

    Args:
        contender: With its prompts.
        measure: Asks the dev rows with one prompt.
    """
    trials = [Trial(prompt, measure(prompt)) for prompt in contender.prompts]
    trials += [Trial(prompt, measure(prompt)) for prompt in contender.refine(_best(trials).prompt)]
    return Choice(contender, _best(trials).prompt, tuple(trials))


def best_baseline(choices: Sequence[Choice]) -> Choice:
    """Return the baseline with the best score on dev.

    Args:
        choices: All contenders; a single baseline needs no score.
    """
    baselines = [choice for choice in choices if choice.contender.spec.role == "baseline"]
    return max(baselines, key=_strength)


def borrow(contender: Contender, choices: Sequence[Choice]) -> Choice:
    """Return a contender with the prompt that the best baseline has chosen.

    Args:
        contender: Who borrows.
        choices: Of all baselines.
    """
    lender = best_baseline(choices)
    label = f"the prompt of {lender.contender.name}: {lender.prompt.label}"
    return Choice(contender, replace(lender.prompt, label=label))


def needs_dev(contender: Contender, contenders: Sequence[Contender]) -> bool:
    """Whether dev decides anything about this contender: its prompt, or which baseline is best."""
    rivals = sum(other.spec.role == "baseline" for other in contenders)
    return contender.has_choice or (contender.spec.role == "baseline" and rivals > 1)


def _best(trials: Sequence[Trial]) -> Trial:
    return max(trials, key=lambda trial: trial.score)


def _strength(choice: Choice) -> tuple[DevScore, int]:
    score = choice.score or DevScore(0.0, 0.0)
    return score, EFFORT.index(prompt_kind(choice.contender.spec))
