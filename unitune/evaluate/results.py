"""The results of a comparison: frozen data that the terminal, the report, JSON and the gate read.

`Comparison` is what `unitune.compare` returns; ``verdict.json`` is `Comparison` without its cases,
which stand in ``cases.jsonl``, one a line.
Every total is computed from records (`unitune.evaluate.records`), and no statistic here.
"""

from __future__ import annotations

from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import Field

from unitune._shown import Shown
from unitune.data.overlap import SharedCase
from unitune.errors import MissingExtra
from unitune.evaluate.records import CaseResult, SweptRun, UseOfTest
from unitune.job.contenders import Role
from unitune.run.curves import Curve
from unitune.scorers.interface import Confusion
from unitune.security.spec import Closed, Spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from unitune.evaluate.statistics.paired import PairedResult
    from unitune.job.job import Job
    from unitune.run.run import Run


# Figures of a paired result that documents have under the same names, and with another meaning.
OWN_MEANING = {"baseline", "candidate", "verdict"}


class ContenderResult(Closed):
    """One contender's results over all cases."""

    name: str
    type: str
    role: Role
    score: float
    """Mean of the primary metric, from 0 to 1."""
    interval: tuple[float, float]
    """Of the score, at the comparison's level."""
    n: int
    errors: int
    cut: int = 0
    """Cases with an answer that was cut off at `max_tokens`."""
    scores: dict[str, float]
    """Of every metric, over all cases: their mean, or what the metric makes of them together."""
    measures: dict[str, float] = {}  # noqa: RUF012 - pydantic copies it
    """Mean of every measure over the cases where it is known."""
    confusion: dict[str, Confusion] = {}  # noqa: RUF012 - pydantic copies it
    """By metric, for those that look for labels."""
    answers: int = 0
    """How many were given, repeats included."""
    prompt_tokens: int | None
    """All answers together."""
    completion_tokens: int | None
    usd: Decimal | None
    """None: no charge known; local models have none."""
    seconds: float | None
    """Wall time of all cases together."""
    effort: str
    """What was tried on dev to make it good, in words; the training's settings for tuned."""
    run: str | None = None
    """Id of the run that made its model, where it is tuned."""
    curve: Curve | None = None
    """Of that training."""


class GateCheck(Closed):
    """One rule of a gate, or one required case."""

    name: str
    exit_code: Literal[0, 1, 3, 4] | None
    """None: not judged, because too little is known."""
    reason: str


class Difference(Closed):
    """Figures of a paired result that every document about one shows."""

    n: int
    """Cases."""
    difference: float
    """Candidate minus baseline; now minus then."""
    interval: tuple[float, float]
    """At the comparison's level."""
    p_value: float
    """Two-sided, not corrected for anything else."""

    @classmethod
    def figures(cls, result: PairedResult) -> dict[str, Any]:
        """Return the figures of a result that this document has under the same names."""
        shared = {each.name for each in fields(result)} & cls.model_fields.keys() - OWN_MEANING
        known = {name: getattr(result, name) for name in shared}
        return known | {"interval": result.interval.ends}


class Regression(Difference):
    """The candidate against the scores in a baseline file, on all cases of the file."""

    file: str
    """As the job names it."""
    first: bool = False
    """Whether against the scores that were accepted first, and not last."""
    gained: int
    lost: int
    added: tuple[str, ...] = ()
    """Ids of cases that the file does not have yet."""
    removed: tuple[str, ...] = ()
    """Ids of cases that only the file has; they count as wrong now."""

    @property
    def when(self) -> str:
        """Where the earlier scores come from, in words."""
        return f"when {self.file} was first accepted" if self.first else f"in {self.file}"


class GateResult(Closed):
    """The gate's decision."""

    mode: Literal["improve", "no-regress", "absolute"]
    passed: bool
    exit_code: Literal[0, 1, 3, 4]
    reason: str
    """Of the checks that decided."""
    checks: tuple[GateCheck, ...] = ()
    """Every rule and every required case, judged or not."""
    regressions: tuple[Regression, ...] = ()
    """With a baseline file: against the scores accepted last and, if they differ, first."""


class Contrast(Difference):
    """Candidate against baseline by another metric or on some of the cases, or against another.

    Its interval is not adjusted for other contrasts.
    """

    name: str
    """Of the metric, of the cases, such as ``language = de``, or of a reference."""
    baseline: float
    candidate: float
    p_adjusted: float
    """For all contrasts of its kind: Benjamini-Hochberg for slices, Holm for the others."""


VerdictName = Literal["better", "worse", "equivalent", "non-inferior", "inconclusive"]


class BaselineResult(Difference):
    """Candidate against one of the baselines, by the metric that decides.

    Claims that hold against each baseline need no correction.
    """

    name: str
    best_on_dev: bool
    """Whether dev chose it among the baselines."""
    verdict: VerdictName
    """Were it the only baseline."""
    bounds: tuple[float, float] | None = None
    """Ends of the interval with missing and cut answers read as right and as wrong, if any."""


# In US dollars, at the comparison's level; an end that is not known is open
UsdInterval: TypeAlias = tuple[Decimal | None, Decimal | None]
PayBack: TypeAlias = Literal["after", "never by cost alone", "not determined"]


class Money(Spec):
    """Cost against quality, in US dollars an answer; None is not known, or does not exist."""

    extra_usd: Decimal
    """What an answer costs more than the baseline's."""
    extra_interval_usd: UsdInterval
    """Of that, at the comparison's level; an end that is not known is open."""
    pay_back: PayBack | None = None
    """Whether cheaper answers alone pay for what was spent once."""
    break_even_answers: int | None = None
    """After how many answers they do."""
    usd_per_extra_right: Decimal | None = Field(
        default=None,
        description="Cost of one more right answer over the horizon; known when the candidate is "
        "better, and what is paid once and the number of answers are given (evaluate.economics).",
    )
    net_usd: Decimal | None = None
    """Worth of what is gained, less what it costs, an answer."""
    net_interval_usd: UsdInterval | None = None
    """Of that, at the comparison's level."""
    worth: Literal["worth it", "not worth it", "unclear"] | None = None
    """Whether that interval lies above 0."""
    smallest_worth_usd: Decimal | None = None
    """From this worth of a right answer on, the candidate is worth its money."""


class LeakResult(Closed):
    """Test cases that stand in the training rows."""

    action: Literal["refuse", "drop", "allow"]
    searched: bool = True
    """Whether there were training rows to search."""
    cases: tuple[SharedCase, ...] = ()
    """Each with its kind, its similarity and its place in the training rows."""


class Comparison(Shown, Difference):
    """Contenders side by side, with the verdict.

    Difference and interval are those against the hardest baseline, the interval corrected for other
    uses of the test; `use_of_test` has the corrected p-value.
    """

    schema_version: Literal[1] = 1
    id: str | None = None
    """In the history (`unitune comparisons`); None where it is not kept there."""
    job: str
    """Name of the job."""
    run: str | None
    """Id of the run that made the candidate's model; where it is not tuned, the first tuned one's.
    """
    base_model: str
    backend: str
    created: str
    """ISO date and time, UTC."""
    verdict: VerdictName
    """Against the best baseline, whichever that truly is: better only where it is better than each
    of them, worse where it is worse than the one that was best on dev.
    """
    doubt: str | None = None
    """Why the verdict is inconclusive where the intervals alone would allow another."""
    metric: str
    closeness: str = ""
    """What a higher score is closer to, such as the reference's wording; empty where the score says
    whether answers are right."""
    caution: str = ""
    """What such a score cannot show; empty like `closeness`."""
    candidate: str
    baseline: str
    """The baseline that is hardest to beat: against which the interval reaches down farthest."""
    baselines: tuple[BaselineResult, ...] = ()
    """The candidate against each baseline."""
    level: float = 0.95
    use_of_test: UseOfTest | None = None
    """How often the test was used; None for a first look (`--limit`)."""
    p_exact: float | None = None
    """Exact McNemar p; None where McNemar's test does not apply."""
    method: str
    """Interval and test, in words with their sources' names."""
    graded: bool = False
    """Whether any answer scored something between 0 and 1."""
    per_case: bool = True
    """Whether the metric that decides scores single cases, and not all of them together."""
    gained: int
    """Cases in which the candidate scored higher: it alone got them right, unless graded."""
    lost: int
    clusters: int | None = None
    """How many clusters the cases fall into; None where each stands alone."""
    design_effect: float = 1.0
    """So many clustered cases are worth one that stands alone."""
    margin: float
    cases_needed: int
    """Cases that the margin needs at the seen scatter and 80 % power."""
    smallest_detectable: float
    """Smallest true difference that this n finds with 80 % power."""
    secondary: tuple[Contrast, ...] = ()
    """By the other metrics."""
    slices: tuple[Contrast, ...] = ()
    """By the primary metric on slices of the cases. Exploratory: they prove nothing."""
    answered: Contrast | None = None
    """By the primary metric on the cases that both sides answered, where some ended in an error."""
    references: tuple[Contrast, ...] = ()
    """The candidate against each reference, on the cases that both answered. They have no part in
    the verdict."""
    contenders: tuple[ContenderResult, ...]
    sweep: tuple[SweptRun, ...] = ()
    """The runs among which dev chose the one that is judged, where the job is a sweep."""
    spent_usd: Decimal | None = None
    """Cost of all requests, on dev and on the test; at most, where a vendor counted no tokens; None
    where no charge is known."""
    gate: GateResult | None = None
    economics: Money | None = None
    """With the prices of both sides."""
    leaks: LeakResult
    dev_rows: int
    omitted_cases: int = 0
    """Test cases that a first look left out (`--limit`): where there are any, there is no verdict,
    and no gate is passed."""
    notes: tuple[str, ...] = ()
    """What a reader must know: dropped cases, a baseline with no effort, dequantised weights …"""
    provenance: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    """What else determined the result, by name, for people: fingerprints, versions, seeds …"""
    cases: tuple[CaseResult, ...] = Field(default=(), repr=False)
    folder: Path | None = Field(default=None, exclude=True)
    """Where its files are, on this machine."""

    @property
    def exit_code(self) -> int:
        """The gate's exit code; 0 without a gate."""
        return self.gate.exit_code if self.gate else 0

    @property
    def summary(self) -> str:
        """The verdict with its figures, in one line."""
        low, high = (100 * end for end in self.interval)
        look = f"first look at {self.n} of {self.n + self.omitted_cases} cases, no verdict"
        by = f" by closeness to {self.closeness}" if self.closeness else ""
        return (
            f"{look if self.omitted_cases else self.verdict}{by}: "
            f"{self.candidate} minus {self.baseline} is "
            f"{100 * self.difference:+.1f} points, {100 * self.level:.0f} % interval "
            f"[{low:.1f}, {high:.1f}], n={self.n}, {self.gained} gained, {self.lost} lost, "
            f"p={self.p_value:.2g}"
        )

    def __repr__(self) -> str:
        return f"<Comparison {self.summary}>"

    def __str__(self) -> str:
        return self.summary

    def verdict_json(self) -> str:
        """Return the content of ``verdict.json``: everything but the cases."""
        return self.model_dump_json(exclude={"cases"}, indent=2) + "\n"

    def rows(self) -> list[dict[str, str | float | bool | None]]:
        """Return every answer as a flat row, by case and contender; scores are ``score_NAME``."""
        return [
            {
                "case": case.id,
                "contender": name,
                "question": case.messages[-1].text if case.messages else "",
                "expected": case.expected,
                "required": case.required,
                "answer": answer.text,
                "error": answer.error,
                **{f"score_{metric}": score for metric, score in answer.scores.items()},
            }
            for case in self.cases
            for name, answer in case.answers.items()
        ]

    def to_frame(self) -> pd.DataFrame:
        """Return `rows` as a DataFrame, indexed by case and contender.

        Examples:
            >>> scores = comparison.to_frame()["score_exact"].unstack()  # cases x contenders

        Raises:
            MissingExtra: pandas is not installed.
        """
        try:
            from pandas import DataFrame  # noqa: PLC0415 - optional, and slow to import
        except ModuleNotFoundError as error:
            raise MissingExtra(
                "to_frame() needs pandas: pip install pandas. rows() gives the same without it."
            ) from error
        return DataFrame(self.rows()).set_index(["case", "contender"])


def judged_run(job: Job, runs: Mapping[str, Run]) -> str | None:
    """Return the id of the run that a comparison is about: the candidate's, else the first."""
    by_role = sorted(job.evaluate.contenders, key=lambda spec: spec.role != "candidate")
    return next((runs[spec.name].id for spec in by_role if spec.name in runs), None)
