"""Define the result of a comparison: `Comparison`, returned by `unitune.compare`."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field

from unitune._shown import Shown
from unitune.data.overlap import SharedCase
from unitune.documents import Closed, Spec
from unitune.errors import MissingExtra
from unitune.evaluate.documents.records import (
    CaseResult,
    ClauseResult,
    Contrast,
    Difference,
    MeasureContrast,
    Retention,
    SimulatedUserResult,
    SweptRun,
    UseOfTest,
)
from unitune.job.contenders import Role
from unitune.run.curves import Curve
from unitune.scorers.interface import Confusion

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from unitune.job.job import Job
    from unitune.run.run import Run

VerdictName = Literal["better", "worse", "equivalent", "non-inferior", "inconclusive"]


class ContenderResult(Closed):
    """Results of one contender over all cases."""

    name: str
    type: str
    role: Role
    score: float
    """Mean of the primary metric, from 0 to 1."""
    interval: tuple[float, float]
    """Interval of the score, at the comparison's level."""
    n: int
    errors: int
    cut: int = 0
    """Cases with an answer cut off at `max_tokens`."""
    scores: dict[str, float]
    """Score by every metric over all cases: their mean, or a corpus score."""
    measures: dict[str, float] = {}  # noqa: RUF012 - pydantic copies it
    """Mean of every measure over the cases where it is known."""
    confusion: dict[str, Confusion] = {}  # noqa: RUF012 - pydantic copies it
    """Confusion matrices of metrics that look for labels."""
    answers: int = 0
    """Number of answers, including repeats."""
    prompt_tokens: int | None
    """Tokens of all answers together."""
    completion_tokens: int | None
    usd: Decimal | None
    """Cost of the answers; None if unknown or, for local models, not charged."""
    seconds: float | None
    """Wall time of all cases together."""
    effort: str
    """Summary of what was tried on dev rows; for a tuned model, the training's settings."""
    run: str | None = None
    """Id of the run that trained the model, if it is tuned."""
    curve: Curve | None = None
    """Learning progress of the training."""


class StyleFeature(Closed):
    """Feature of the style of answers, such as their words per sentence."""

    name: str
    house: float
    """Mean over the training answers; for a word, the share of answers with it."""
    means: dict[str, float]
    """Mean over the answers of each contender."""
    deviations: dict[str, float]
    """Mean deviation of each contender's answers, in units of the training answers' own."""


class GateCheck(Closed):
    """Rule of a gate, or a required case."""

    name: str
    exit_code: Literal[0, 1, 3, 4] | None
    """Exit code; None if not checked, because too little is known."""
    reason: str
    cases: tuple[str, ...] = ()
    """Ids of the cases because of which `min_case_pass_rate` is not met."""


class Regression(Difference):
    """Candidate compared with the scores in a baseline file, on all cases of the file."""

    file: str
    """Path of the file as given in the job."""
    first: bool = False
    """True if compared with the first accepted scores, not the last."""
    gained: int
    lost: int
    added: tuple[str, ...] = ()
    """Ids of cases that are not in the file yet."""
    removed: tuple[str, ...] = ()
    """Ids of cases that are only in the file; they count as wrong now."""

    @property
    def when(self) -> str:
        """Origin of the earlier scores, for sentences."""
        return f"when {self.file} was first accepted" if self.first else f"in {self.file}"


class GateResult(Closed):
    """Decision of the gate."""

    mode: Literal["improve", "no-regress", "absolute"]
    passed: bool
    exit_code: Literal[0, 1, 3, 4]
    reason: str
    """Reasons of the deciding checks."""
    checks: tuple[GateCheck, ...] = ()
    """All rules and required cases, checked or not."""
    regressions: tuple[Regression, ...] = ()
    """Comparisons with a baseline file: the last accepted scores and, if different, the first."""


class BaselineResult(Difference):
    """Candidate compared with one of the baselines by the deciding metric.

    A claim that holds against every baseline needs no correction.
    """

    name: str
    best_on_dev: bool
    """True if it was the best baseline on dev rows."""
    verdict: VerdictName
    """Verdict as if it were the only baseline."""
    bounds: tuple[float, float] | None = None
    """Outer ends of the interval with missing and cut answers counted both ways, if any."""


# US dollars at the comparison's level; None for an unknown, open end
UsdInterval: TypeAlias = tuple[Decimal | None, Decimal | None]
PayBack: TypeAlias = Literal["after", "never by cost alone", "not determined"]


class Money(Spec):
    """Cost compared with quality, in US dollars per answer; None is unknown or undefined."""

    extra_usd: Decimal
    """Extra cost of an answer compared with the baseline's."""
    extra_interval_usd: UsdInterval
    """Interval of the extra cost; an unknown end is open."""
    pay_back: PayBack | None = None
    """Pay-back of the one-time cost by cheaper answers alone."""
    break_even_answers: int | None = None
    """Answers after which they do."""
    usd_per_extra_right: Decimal | None = None
    """Cost of an additional correct answer over the horizon; known if the candidate is better and
    evaluate.economics has the one-time cost and the number of answers."""
    net_usd: Decimal | None = None
    """Net value per answer: worth of the gain minus its cost."""
    net_interval_usd: UsdInterval | None = None
    """Interval of the net value."""
    worth: Literal["worth it", "not worth it", "unclear"] | None = None
    """Conclusion from the interval of the net value."""
    smallest_worth_usd: Decimal | None = None
    """Smallest worth of a correct answer for which the candidate is worth its cost."""


class JudgeResult(Closed):
    """Figures of a judge: how far its judgements can be trusted."""

    name: str
    model: str
    """Fingerprint of the judging model."""
    compares: bool
    """True if it compares the candidate with the others, False if it judges by a rubric."""
    criteria: tuple[str, ...]
    """Clauses of the rubric, or what makes one of two answers better."""
    decides: bool
    """True if it is the deciding scorer."""
    requests: int
    """Number of requests, including repeats."""
    failed: int
    """Answers or pairs without a complete judgement. They count for neither side."""
    repeated: int
    """Answers or pairs that were judged twice in the same order."""
    changed: int
    """Those of them whose judgement changed."""
    pairs: int = 0
    """Pairs that were judged in both orders."""
    flips: int = 0
    """Pairs in which the judge preferred the same position both times."""
    ties: int = 0
    """Pairs with at least one tie."""
    first: float | None = None
    """Share of preferences for the first of two answers; 0.5 without a preference for a position.
    None without a preference."""
    first_interval: tuple[float, float] | None = None
    length: float | None = None
    """Score of the candidate in pairs, if answers of equal length are assumed, from 0 to 1."""
    labels: int = 0
    """Cases with labels of people for the deciding pair."""
    agreement: float | None = None
    """Cohen's kappa of the judge and the people on them; None without both kinds of verdicts."""
    agreement_interval: tuple[float, float] | None = None
    clauses: tuple[ClauseResult, ...] = ()
    """Clauses of a rubric of pass and fail that people have labelled."""
    basis: str
    """What rests on the judge, in a sentence."""
    usd: Decimal | None = None


class LeakResult(Closed):
    """Test cases that also occur in the training rows."""

    action: Literal["refuse", "drop", "allow"]
    searched: bool = True
    """True if there were training rows to search."""
    cases: tuple[SharedCase, ...] = ()
    """Cases with their kind, similarity and location in the training rows."""


class Comparison(Shown, Difference):
    """Contenders compared, with the verdict.

    Difference and interval are those against the strongest baseline. The interval is corrected for
    other uses of the test; the corrected p-value is in `use_of_test`.
    """

    schema_version: Literal[1] = 1
    id: str | None = None
    """Id in the history (`unitune comparisons`), or None if it is not kept there."""
    job: str
    """Name of the job."""
    run: str | None
    """Id of the run of the candidate or, if it is not tuned, of the first tuned contender."""
    base_model: str
    backend: str
    created: str
    """ISO date and time in UTC."""
    verdict: VerdictName
    """Verdict against the best baseline, whichever that truly is.

    Better requires better than every baseline, worse only worse than the best one on dev rows.
    """
    doubt: str | None = None
    """Reason for an inconclusive verdict if the intervals alone would allow another."""
    metric: str
    closeness: str = ""
    """Target of a closeness score, such as the reference's wording; else empty."""
    caution: str = ""
    """Limits of a closeness score; else empty."""
    candidate: str
    baseline: str
    """Baseline that is hardest to beat: the one with the lowest interval."""
    baselines: tuple[BaselineResult, ...] = ()
    """Candidate compared with each baseline."""
    level: float = 0.95
    use_of_test: UseOfTest | None = None
    """Earlier uses of the test; None for a preview (`--limit`)."""
    p_exact: float | None = None
    """Exact McNemar p-value; None if McNemar's test does not apply."""
    method: str
    """Names of interval and test with their sources."""
    graded: bool = False
    """True if any answer scored between 0 and 1."""
    per_case: bool = True
    """True if the deciding metric scores single cases, False for a corpus score."""
    gained: int
    """Cases where the candidate scored higher; unless graded, those that only it got right."""
    lost: int
    clusters: int | None = None
    """Number of clusters of the cases, or None if they are independent."""
    design_effect: float = 1.0
    """Number of clustered cases that are worth one independent case."""
    margin: float
    cases_needed: int
    """Cases needed for the margin at the observed variance and 80 % power."""
    smallest_detectable: float
    """Smallest true difference that this n detects with 80 % power."""
    secondary: tuple[Contrast, ...] = ()
    """Contrasts by the other metrics."""
    measured: tuple[MeasureContrast, ...] = ()
    """Contrasts by the measures, on the cases where both sides are known."""
    style: tuple[StyleFeature, ...] = ()
    """Features of the first measure `style`."""
    slices: tuple[Contrast, ...] = ()
    """Exploratory contrasts by the primary metric on slices of the cases."""
    answered: Contrast | None = None
    """Contrast by the primary metric on the cases without an error, if some have one."""
    references: tuple[Contrast, ...] = ()
    """Contrasts with each reference on the cases that both answered; not part of the verdict."""
    retention: tuple[Retention, ...] = ()
    """What tuning cost each tuned model; empty if not measured."""
    contenders: tuple[ContenderResult, ...]
    sweep: tuple[SweptRun, ...] = ()
    """Runs of a sweep among which the compared one was chosen on dev rows."""
    spent_usd: Decimal | None = None
    """Cost of all requests, an upper bound where tokens were not counted; None if not charged."""
    gate: GateResult | None = None
    judges: tuple[JudgeResult, ...] = ()
    """Figures of the judges among the scorers."""
    simulated_user: SimulatedUserResult | None = None
    """Figures of the simulated user of dialogues, if there is one."""
    economics: Money | None = None
    """Cost and quality, if the prices of both sides are known."""
    leaks: LeakResult
    dev_rows: int
    omitted_cases: int = 0
    """Test cases left out by a preview (`--limit`), which has no verdict and passes no gate."""
    notes: tuple[str, ...] = ()
    """Notes for the reader: dropped cases, a weak baseline, dequantised weights …"""
    provenance: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    """Other inputs of the result, by name: fingerprints, versions, seeds …"""
    cases: tuple[CaseResult, ...] = Field(default=(), repr=False)
    folder: Path | None = Field(default=None, exclude=True)
    """Folder of its files on this machine."""

    @property
    def exit_code(self) -> int:
        """Exit code of the gate; 0 without a gate."""
        return self.gate.exit_code if self.gate else 0

    @property
    def summary(self) -> str:
        """Verdict with its figures, in one line."""
        low, high = (100 * end for end in self.interval)
        look = f"preview on {self.n} of {self.n + self.omitted_cases} cases, no verdict"
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
                "question": case.messages[-1].shown if case.messages else "",
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
                "to_frame() needs pandas: pip install pandas. rows() returns the same data "
                "without it."
            ) from error
        return DataFrame(self.rows()).set_index(["case", "contender"])


def judged_run(job: Job, runs: Mapping[str, Run]) -> str | None:
    """Return the id of the run that a comparison is about: the candidate's, else the first."""
    by_role = sorted(job.evaluate.contenders, key=lambda spec: spec.role != "candidate")
    return next((runs[spec.name].id for spec in by_role if spec.name in runs), None)
