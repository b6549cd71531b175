"""Documents of `unitune decide --json`, and the page that describes a decision.

Scores are fractions of 1; money is in US dollars.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Literal

from pydantic import Field

from unitune.cost.spread import Spread, cents
from unitune.curve.documents import LearningCurve
from unitune.curve.page import facts as curve_facts
from unitune.documents import Frozen
from unitune.evaluate.statistics.paired import LEVEL, Verdict
from unitune.evaluate.statistics.sample_size import LIKELY_DISCORDANCE, smallest_detectable
from unitune.ownership.serving import TotalCost
from unitune.render.sections import Bullets, Cell, Document, Fact, Facts, Section
from unitune.render.typography import decimal, interval, moment, percent, points, usd_range

Answer = Literal["prompt", "tune", "collect", "cannot tell"]
Measurement = Literal["prompts", "training", "curve"]
Rows = Literal["training", "validation", "test"]
# Minimum remaining life of a base model if the user does not state how long it is needed
LEAST_MONTHS = 6


class Score(Frozen):
    """Score on the validation rows, with its 95 % interval."""

    name: str
    """Name of the contender, with the prompt that it chose."""
    value: float
    low: float
    high: float


class Gain(Frozen):
    """Paired difference between the tuned model and the best prompt, with its 95 % interval."""

    value: float
    low: float
    high: float
    verdict: Verdict
    mean_square: float
    """Mean square of the differences per case; for binary scores, the share of differing cases."""


class TuningOption(Frozen):
    """Backend on which the job could be tuned, with its measurements."""

    backend: str
    base_model: str
    trains_here: bool
    """True if the training runs on the user's own hardware."""
    refusals: tuple[str, ...] = ()
    """Reasons why the job cannot be tuned there."""
    ends: date | None = None
    """Announced day on which the base model and models tuned from it are switched off."""
    months_left: float | None = None
    min_rows: int
    """Minimum number of training rows for a training."""
    curve_rows: int
    """Minimum number of training rows for a learning curve."""
    prompts: tuple[Score, ...] = ()
    tuned: Score | None = None
    """Score of the run with all training rows; the mean if there are several seeds."""
    runs: tuple[str, ...] = ()
    """Ids of the runs with all training rows."""
    gain: Gain | None = None
    """Gain over the best prompt of all options."""
    weakest: tuple[str, ...] = ()
    """Labels that the tuned model gets wrong most often."""
    curve: LearningCurve | None = None
    cost: TotalCost | None = None

    @property
    def shown_gain(self) -> Gain:
        """Measured gain. Only rules that run after its measurement may read it."""
        assert self.gain is not None, "rules that read the gain come after its measurement"
        return self.gain

    @property
    def totals(self) -> tuple[Spread | None, Spread | None]:
        """Total costs of the prompted and the tuned model over the horizon."""
        usd = {each.role: each.total_usd for each in self.cost.columns} if self.cost else {}
        return usd.get("prompted"), usd.get("tuned")

    @property
    def saving_usd(self) -> Decimal:
        """Cost of prompting minus cost of the tuned model, over the horizon."""
        prompted, tuned = self.totals
        return prompted.expected - tuned.expected if prompted and tuned else Decimal(0)

    def reaches(self, goal: float | None) -> bool:
        """Return whether the tuned model reaches a goal. Without a goal it always does."""
        return goal is None or (self.tuned is not None and self.tuned.value >= goal)


class Evidence(Frozen):
    """Evidence that the rules use."""

    job: str
    file: str = ""
    """Path of the job file as given on the command line; empty for the default file."""
    metric: str
    graded: bool
    """True if a case may score between wrong and right."""
    margin: float
    """Smallest difference that matters (`evaluate.margin`)."""
    goal: float | None = None
    """Desired score; None for the best possible score."""
    value_per_correct_usd: Decimal | None = None
    """Value of an additional correct answer, as given in the job."""
    wrong_labels: float = 0.0
    """Estimated share of training rows with a wrong label."""
    training_rows: int
    validation_rows: int
    test_cases: int
    errors: tuple[str, ...] = ()
    """Errors in the job or its rows that must be fixed first."""
    warnings: tuple[str, ...] = ()
    """Warnings that make the figures less reliable."""
    months: int
    """Months for which the model will be used (`usage.months`)."""
    months_given: bool
    volume_given: bool
    """True if the user has stated the number of requests."""
    options: tuple[TuningOption, ...]
    elsewhere: tuple[str, ...] = ()
    """Other backends that accept the job, the user's own hardware first."""

    @property
    def needed_months(self) -> int:
        """Months that a base model must remain available to be considered."""
        return self.months if self.months_given else min(self.months, LEAST_MONTHS)

    @property
    def open_options(self) -> list[TuningOption]:
        """Options that accept the job and whose base model remains available long enough."""
        return [each for each in self.options if not each.refusals and self.lives(each)]

    @property
    def measured_options(self) -> list[TuningOption]:
        """Open options whose tuned model has been measured."""
        return [each for each in self.open_options if each.gain is not None]

    @property
    def best_tuned(self) -> TuningOption:
        """Option whose tuned model gains most."""
        return max(self.measured_options, key=lambda each: each.shown_gain.value)

    @property
    def best_prompt(self) -> Score:
        """Best prompt of all options."""
        prompts = [each for option in self.open_options for each in option.prompts]
        return max(prompts, key=lambda each: each.value)

    @property
    def wanted_score(self) -> float:
        """Score that makes tuning worthwhile: the best prompt's plus the margin, or the goal."""
        return min(1.0, max(self.best_prompt.value + self.margin, self.goal or 0))

    def lives(self, option: TuningOption) -> bool:
        """Return whether a base model remains available as long as it is needed."""
        return option.months_left is None or option.months_left >= self.needed_months

    def worth_usd(self, option: TuningOption) -> float:
        """Return the value over the horizon if each wrong answer became correct; 0 if unknown."""
        value, cost = self.value_per_correct_usd, option.cost
        if not value or cost is None or not self.volume_given or None in option.totals:
            return 0.0
        return float(value * cost.requests_month * cost.horizon.months)

    def net_usd(self, option: TuningOption, gain: float) -> float:
        """Return the value of a gain in score minus the extra cost of tuning."""
        return self.worth_usd(option) * gain + float(option.saving_usd)


class NextStep(Frozen):
    """Cheapest next step."""

    command: str = ""
    """Command to run; empty if no command does the step."""
    why: str
    measures: Measurement | None = None
    """Measurement that the command makes; None if `decide` does not make one."""
    backend: str | None = None


class Conclusion(Frozen):
    """Conclusion of the first rule that applies."""

    answer: Answer
    rule: str = ""
    """Name of the rule in `unitune.decision.rules`."""
    backend: str | None = None
    """Backend to tune on, if the answer is tune."""
    rows: int | None = None
    """Number of additional rows, if the answer is collect."""
    kind: Rows | None = None
    """Kind of rows, if the answer is collect."""
    headline: str
    reasons: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    """Changes that would change the answer."""
    next: NextStep


class Decision(Frozen):
    """Decision whether to tune or to prompt, with its evidence."""

    schema_version: Literal[1] = 1
    created: str
    """ISO date and time in UTC."""
    level: float = LEVEL
    """Confidence level of the intervals of scores and gains."""
    conclusion: Conclusion
    evidence: Evidence
    notes: tuple[str, ...] = ()
    """Reasons why a required measurement was not made."""
    over_budget: bool = False
    """True if the reason was its possible cost."""
    folder: Path = Field(default=Path(), exclude=True)
    """Folder of the recorded answers."""


PAGE = "decision.html"


def describe(decision: Decision) -> Document:
    """Return the document of a decision."""
    conclusion, evidence, step = decision.conclusion, decision.evidence, decision.conclusion.next
    about = (
        f"Scores are {evidence.metric} on the validation rows, with {percent(decision.level)} "
        "intervals. The test rows had no part in them."
    ).replace(".0 %", " %")
    lists = (("What would change this", conclusion.changes), ("Not measured", decision.notes))
    return Document(
        title=conclusion.headline,
        about=(evidence.job, "tune or prompt?", moment(decision.created)),
        tone="good" if conclusion.answer in ("tune", "prompt") else "doubtful",
        text=" ".join(conclusion.reasons),
        state=Cell("Next", ": ".join(filter(None, [step.command, step.why])), strong=True),
        sections=(
            Section("The evidence", [about, Facts(facts(evidence), "figures")]),
            *(
                Section(f"On {option.backend}", [Facts([*option_facts(option)], "figures")])
                for option in evidence.options
            ),
            *(Section(title, [Bullets(sentences)]) for title, sentences in lists if sentences),
        ),
    )


def facts(evidence: Evidence) -> tuple[Fact, ...]:
    """Return the facts of the job that do not depend on a backend."""
    visible = (
        smallest_detectable(max(1, evidence.test_cases), share, graded=evidence.graded)
        for share in LIKELY_DISCORDANCE
    )
    smallest = " to ".join(dict.fromkeys(decimal(100 * each) for each in visible))
    return (
        Fact("Training", f"{evidence.training_rows:,} rows"),
        Fact("Validation", f"{evidence.validation_rows:,} rows", "all scores are measured on them"),
        Fact(
            "Test",
            f"{evidence.test_cases:,} cases",
            f"detects differences of {smallest} points or more (80 % power); "
            f"{decimal(100 * evidence.margin)} matter",
        ),
    )


def option_facts(option: TuningOption) -> Iterator[Fact]:
    """Yield the facts of tuning at one backend, in the order of the effort to learn them."""
    yield Fact("Base", option.base_model, _life(option))
    if (cost := option.cost) is not None:
        prompted, tuned = option.totals
        volume = f"{cost.requests_month:,} requests a month, {cost.horizon.months:.3g} months"
        other = f"prompted {usd_range(prompted)}; {volume}"
        unknown = f"unitune cost names the missing price; {volume}"
        usd = f"${cents(tuned.expected):,}" if tuned else "unknown"
        yield Fact("Total cost", usd, other if tuned else unknown)
    for prompt in option.prompts:
        yield Fact("Prompt", percent(prompt.value), f"{_range(prompt)}; {prompt.name}")
    if option.tuned and option.gain:
        gain = points(option.gain.value, sign=True)
        ends = interval((option.gain.low, option.gain.high))
        meaning = f"{_range(option.tuned)}; {gain} ({ends}) beyond the best prompt"
        yield Fact("Tuned", percent(option.tuned.value), meaning)
    if option.curve:
        yield from curve_facts(option.curve)


def _life(option: TuningOption) -> str:
    if option.refusals:
        return " ".join(option.refusals)
    if option.ends is None:
        return "no retirement date"
    return f"switched off on {option.ends}, in {option.months_left:.1f} months"


def _range(score: Score) -> str:
    return interval((score.low, score.high))
