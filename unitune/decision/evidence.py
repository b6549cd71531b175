"""What a decision rests on, and what it says: the documents of `unitune decide --json`.

Scores are shares from 0 to 1, on validation rows; money is in US dollars. Nothing here computes.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Literal

from pydantic import Field

from unitune.cost.spread import Spread
from unitune.evaluate.learning_curve_document import LearningCurve
from unitune.evaluate.statistics.paired import LEVEL, Verdict
from unitune.security.spec import Frozen
from unitune.tco.documents import TotalCost

Answer = Literal["prompt", "tune", "collect", "cannot tell"]
Measurement = Literal["prompts", "training", "curve"]
Rows = Literal["training", "validation", "test"]
# A base that is switched off sooner is not tuned, where the user has not said how long the model is
# needed
LEAST_MONTHS = 6


class Score(Frozen):
    """A score on the validation rows, with its 95 % interval."""

    name: str
    """Of the contender, with the prompt that it has chosen."""
    value: float
    low: float
    high: float


class Gain(Frozen):
    """What the tuned model scores beyond the best prompt, case by case, with its 95 % interval."""

    value: float
    low: float
    high: float
    verdict: Verdict
    mean_square: float
    """Of the cases' differences; of scores of 0 and 1 the share of cases in which they differ."""


class TuningOption(Frozen):
    """A backend at which the job could be tuned, and what is known of it there."""

    backend: str
    base_model: str
    trains_here: bool
    """Whether on the user's own hardware."""
    refusals: tuple[str, ...] = ()
    """Why it cannot be tuned there."""
    ends: date | None = None
    """Day on which the base, and what was tuned from it, is switched off; None: none announced."""
    months_left: float | None = None
    min_rows: int
    """Fewer training rows are not taken, or would teach next to nothing."""
    curve_rows: int
    """Fewer training rows make no learning curve of so many sizes."""
    prompts: tuple[Score, ...] = ()
    tuned: Score | None = None
    """The run with all training rows; mean over the seeds where there are several."""
    runs: tuple[str, ...] = ()
    """Ids of those runs."""
    gain: Gain | None = None
    """Beyond the best prompt of all options."""
    weakest: tuple[str, ...] = ()
    """Labels that the tuned model gets wrong most."""
    curve: LearningCurve | None = None
    cost: TotalCost | None = None

    @property
    def shown_gain(self) -> Gain:
        """Its gain, which has been measured."""
        assert self.gain is not None, "rules that need it come after its measurement"
        return self.gain

    @property
    def totals(self) -> tuple[Spread | None, Spread | None]:
        """Total costs of the prompted model and of the tuned one, over the horizon."""
        usd = {each.role: each.total_usd for each in self.cost.columns} if self.cost else {}
        return usd.get("prompted"), usd.get("tuned")

    @property
    def saving_usd(self) -> Decimal:
        """How much less the tuned model costs than the prompted one, over the horizon."""
        prompted, tuned = self.totals
        return prompted.expected - tuned.expected if prompted and tuned else Decimal(0)

    def reaches(self, goal: float | None) -> bool:
        """Return whether the tuned model reaches a goal; always without one."""
        return goal is None or (self.tuned is not None and self.tuned.value >= goal)


class Evidence(Frozen):
    """Everything that the rules see."""

    job: str
    file: str = ""
    """Of the job, as the command line names it; empty: the one that every command takes here."""
    metric: str
    graded: bool
    """Whether a case may score something between right and wrong."""
    margin: float
    """Differences smaller than this do not matter (`evaluate.margin`)."""
    goal: float | None = None
    """The score that is wanted; None: as good as can be had."""
    value_per_correct_usd: Decimal | None = None
    """Worth of one more right answer, as the job gives it."""
    wrong_labels: float = 0.0
    """Estimated share of training rows whose label is wrong."""
    training_rows: int
    validation_rows: int
    test_cases: int
    errors: tuple[str, ...] = ()
    """What must be mended in job or rows first."""
    warnings: tuple[str, ...] = ()
    """What makes the figures doubtful."""
    months: int
    """How long the model is to be used (`usage.months`)."""
    months_given: bool
    volume_given: bool
    """Whether the user has said how many requests there will be."""
    options: tuple[TuningOption, ...]
    elsewhere: tuple[str, ...] = ()
    """Other backends that would take the job, those on the user's own hardware first."""

    @property
    def needed_months(self) -> int:
        """How long a base must live, so that tuning it is considered."""
        return self.months if self.months_given else min(self.months, LEAST_MONTHS)

    @property
    def open_options(self) -> list[TuningOption]:
        """Those that take the job, and whose base lives as long as it is needed."""
        return [each for each in self.options if not each.refusals and self.lives(each)]

    @property
    def measured_options(self) -> list[TuningOption]:
        """Those whose tuned model has been measured."""
        return [each for each in self.open_options if each.gain is not None]

    @property
    def best_tuned(self) -> TuningOption:
        """The one whose tuned model gains most."""
        return max(self.measured_options, key=lambda each: each.shown_gain.value)

    @property
    def best_prompt(self) -> Score:
        """Of all options."""
        prompts = [each for option in self.open_options for each in option.prompts]
        return max(prompts, key=lambda each: each.value)

    @property
    def wanted_score(self) -> float:
        """The score that makes tuning worth it: the best prompt's and the margin, or the goal."""
        return min(1.0, max(self.best_prompt.value + self.margin, self.goal or 0))

    def lives(self, option: TuningOption) -> bool:
        """Return whether a base lives as long as it is needed."""
        return option.months_left is None or option.months_left >= self.needed_months

    def worth_usd(self, option: TuningOption) -> float:
        """Return the worth of all answers over the horizon if each wrong one became right.

        0 where volume, worth or a price is not known.
        """
        value, cost = self.value_per_correct_usd, option.cost
        if not value or cost is None or not self.volume_given or None in option.totals:
            return 0.0
        return float(value * cost.requests_month * cost.horizon.months)

    def net_usd(self, option: TuningOption, gain: float) -> float:
        """Return the worth of a gain in score, less what tuning costs more than prompting."""
        return self.worth_usd(option) * gain + float(option.saving_usd)


class NextStep(Frozen):
    """The cheapest thing to do next."""

    command: str = ""
    """Empty: nothing that a command does."""
    why: str
    measures: Measurement | None = None
    """What it would measure; None: nothing that a decision takes by itself."""
    backend: str | None = None


class Conclusion(Frozen):
    """What the first rule that applies says."""

    answer: Answer
    rule: str = ""
    """Its name in `unitune.decision.rules`."""
    backend: str | None = None
    """For tune: where."""
    rows: int | None = None
    """For collect: how many more."""
    kind: Rows | None = None
    """For collect: of which kind."""
    headline: str
    reasons: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    """What would change the answer."""
    next: NextStep


class Decision(Frozen):
    """Whether to tune, or to prompt, with the evidence."""

    schema_version: Literal[1] = 1
    created: str
    """ISO date and time, UTC."""
    level: float = LEVEL
    """Of the intervals of scores and gains."""
    conclusion: Conclusion
    evidence: Evidence
    notes: tuple[str, ...] = ()
    """Why a measurement that the rules wanted was not made."""
    over_budget: bool = False
    """Whether it was not made because of what it may cost."""
    folder: Path = Field(default=Path(), exclude=True)
    """Where the recorded answers are."""
