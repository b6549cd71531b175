"""Choosing on dev: which prompt a contender uses, and which baseline counts as the best there.

The test cases have no part in either choice: nothing here can see them. All dev rows count. Where a
contender has several prompts and dev many rows, the first `SCREENING_ROWS` pick `FINALISTS`, which
answer the others too. Between equals the mean of all scorers decides, then for prompts the order of
trial, shorter first, and for baselines the effort in them, so that a tie never gives the candidate
the easier opponent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from unitune.cost.evaluation import FINALISTS
from unitune.evaluate.gate import MOST_ERRORS, Ruling
from unitune.evaluate.prompts.build import Contender
from unitune.evaluate.prompts.prompts import Prompt
from unitune.job.contenders import prompt_kind

EFFORT = (None, "zero-shot", "instructed", "few-shot")
"""Kinds of prompts by the effort in them."""


@dataclass(frozen=True, slots=True, order=True)
class DevScore:
    """A prompt's score on the dev rows; greater is better.

    Args:
        primary: Mean of the primary metric.
        overall: Mean of all metrics, which decides between equals.
        rows: Dev rows that were requested.
        errors: The reason of each without an answer; an error scores 0.
        cut: Answers that were cut off before it was clear whether they are right.
    """

    primary: float
    overall: float
    rows: int = field(default=0, compare=False)
    errors: tuple[str, ...] = field(default=(), compare=False)
    cut: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Trial:
    """A prompt with its score on dev."""

    prompt: Prompt
    score: DevScore


@dataclass(frozen=True, slots=True)
class Choice:
    """A contender with its prompt for the test, and all trials, in order, that chose it."""

    contender: Contender
    prompt: Prompt
    trials: tuple[Trial, ...] = ()

    @property
    def score(self) -> DevScore | None:
        """The chosen prompt's score on dev, when it was measured."""
        return next((each.score for each in self.trials if each.prompt is self.prompt), None)

    @property
    def effort(self) -> str:
        """What was tried on dev, in words."""
        score = self.score
        if score is None:
            return self.prompt.label
        right = f"{score.primary:.1%} right"
        if len(self.trials) == 1:
            return f"{self.prompt.label}; {right} on {score.rows} dev rows"
        tried = ", ".join(trial.prompt.label for trial in self.trials)
        fewest = min(trial.score.rows for trial in self.trials)
        finals = f", the best {FINALISTS} on all {score.rows}" if fewest < score.rows else ""
        return (
            f"tried {len(self.trials)} prompts on {fewest} dev rows{finals} ({tried}); "
            f"chose {self.prompt.label}, {right}"
        )


def best_trial(trials: Sequence[Trial]) -> Trial:
    """Return the trial with the best score; of equals the first."""
    return max(trials, key=lambda trial: trial.score)


def finalists(trials: Sequence[Trial]) -> list[int]:
    """Return the positions of the best trials, in their order."""
    ranked = sorted(range(len(trials)), key=lambda at: trials[at].score, reverse=True)
    return sorted(ranked[:FINALISTS])


def errors_on_dev(choices: Sequence[Choice]) -> Ruling | None:
    """Say how many answers on dev are errors, and whether there are too many to choose by.

    The prompts of a reference compete for nothing, so their errors never are too many.

    Returns:
        None where nothing was requested on dev.
    """
    trials = [(choice.contender, trial) for choice in choices for trial in choice.trials]
    if not trials:
        return None
    for contender, trial in trials:
        score = trial.score
        if contender.spec.role != "reference" and len(score.errors) > MOST_ERRORS * score.rows:
            return Ruling(
                4,
                f"{contender.name}: {len(score.errors)} of {score.rows} dev rows with "
                f"{trial.prompt.label} ended in an error, more than {MOST_ERRORS:.0%}, so dev may "
                f"have chosen wrongly. First reason: {score.errors[0]}. Run compare again: it "
                "requests only those. If they fail for good, such as a prompt that is too long "
                "for the model, change the contender (few-shot takes `shots: 4`), or give it "
                "`role: reference`.",
            )
    failed = sum(len(trial.score.errors) for _, trial in trials)
    rows = sum(trial.score.rows for _, trial in trials)
    return Ruling(0, f"{failed:,} of {rows:,} answers on dev ended in an error.")


def best_baseline(choices: Sequence[Choice]) -> Choice:
    """Return the baseline with the best score on dev."""

    def strength(choice: Choice) -> tuple[DevScore, int]:
        effort = EFFORT.index(prompt_kind(choice.contender.spec))
        return choice.score or DevScore(0.0, 0.0), effort

    return max((each for each in choices if each.contender.spec.role == "baseline"), key=strength)


def borrow(contender: Contender, choices: Sequence[Choice]) -> Choice:
    """Return a contender with the prompt that the best baseline has chosen."""
    lender = best_baseline(choices)
    label = f"the prompt of {lender.contender.name}: {lender.prompt.label}"
    return Choice(contender, replace(lender.prompt, label=label))


def needs_dev(contender: Contender, contenders: Sequence[Contender]) -> bool:
    """Whether dev decides anything about this contender: its prompt, or which baseline is best."""
    rivals = sum(other.spec.role == "baseline" for other in contenders)
    return contender.has_choice or (contender.spec.role == "baseline" and rivals > 1)
