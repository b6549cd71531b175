"""Measure a job on one backend for a decision, using only validation rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from statistics import fmean
from typing import Self

import numpy as np

from unitune.cost.estimate import HOURS_A_MONTH
from unitune.curve.documents import LearningCurve
from unitune.curve.measuring import answer_curve, fit_curve, with_budget
from unitune.curve.planning import (
    LEAST_ROWS,
    judged_on_validation,
    learning_curve_of,
    whole_training_of,
)
from unitune.data.dataset import Dataset
from unitune.decision.evidence import Conclusion, Gain, Measurement, Score, TuningOption
from unitune.distillation.distill import AnswerForm
from unitune.errors import UnituneError
from unitune.evaluate.collecting import answer_validation
from unitune.evaluate.inference.engine import AnswerOptions, Notify
from unitune.evaluate.scoring.grading import Graded
from unitune.evaluate.statistics.intervals import FloatArray
from unitune.evaluate.statistics.paired import compare_corpus, compare_paired
from unitune.job.contenders import ContenderSpec, FewShot, Instructed, ZeroShot, prompt_kind
from unitune.ownership.serving import TotalCost
from unitune.ownership.total_cost import total_cost
from unitune.planning.money import estimated
from unitune.planning.preflight import ResolvedJob
from unitune.run.run import Run
from unitune.scorers.interface import Kind
from unitune.workspace.user_settings import today

# Launches the runs of a sweep and returns them when they have ended
Launch = Callable[[ResolvedJob], Sequence[Run]]
# Tried if the job has no prompts among its contenders
USUAL_PROMPTS: tuple[ContenderSpec, ...] = (ZeroShot(), Instructed(), FewShot())
MOST_LABELS = 3  # labels named in the advice to collect rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Options of `decide` and callbacks for its measurements."""

    points: int
    seeds: int
    requests_month: int | None = None
    budget: Decimal | None = None
    launch: Launch
    # Called before a measurement; raises if the user does not accept its price
    agree: Callable[[Measurement, ResolvedJob], None]
    answers: AnswerOptions  # how validation rows are answered
    # Context manager entered while answers arrive; yields the progress callback
    shown: Callable[[], AbstractContextManager[Notify]]
    goal: float | None = None
    # Path of the job file in the commands of the conclusion; empty for the default one
    file: str = ""
    # Called before a measurement with the conclusion that requires it
    announce: Callable[[Conclusion], None] = lambda _: None

    @contextmanager
    def answering(self) -> Generator[AnswerOptions]:
        """Yield answer options that report progress."""
        with self.shown() as progress:
            yield replace(self.answers, progress=progress)


@dataclass(slots=True)
class Measured:
    """Job on one backend, with the measurements made so far."""

    resolved: ResolvedJob
    prompts: tuple[Graded, ...] = ()
    tuned: tuple[Graded, ...] = ()  # with all rows, one per seed
    runs: tuple[str, ...] = ()
    curve: LearningCurve | None = None
    cost: TotalCost | None = None  # None if unknown, or if the job cannot be tuned there
    prompts_usd: Decimal = Decimal(0)  # cost of the prompts' answers
    # Maximum cost of the trainings plus the cost of their models' answers
    tuned_usd: Decimal = Decimal(0)

    @classmethod
    def of(cls, resolved: ResolvedJob, requests_month: int | None) -> Self:
        """Return a job without measurements."""
        if resolved.rows.read.report.errors:
            return cls(resolved)
        with suppress(UnituneError):
            return cls(resolved, cost=total_cost(resolved, requests_month=requests_month))
        return cls(resolved)

    def measure_prompts(self, choices: Choices, left: Decimal | None) -> None:
        """Let every prompt of the job answer the validation rows."""
        given = self.resolved.job.evaluate.contenders
        specs = tuple(spec for spec in given if prompt_kind(spec)) or USUAL_PROMPTS
        judged = judged_on_validation(self.resolved, specs)
        if left is not None:
            judged = replace(judged, job=judged.job.with_evaluation_budget(left))
        choices.agree("prompts", judged)
        with choices.answering() as options:
            answers = answer_validation(judged, {}, options)
        self.prompts, self.prompts_usd = answers.graded, answers.spent_usd or Decimal(0)

    def measure_training(
        self, what: Measurement, choices: Choices, left: Decimal | None, goal: float
    ) -> None:
        """Train with all rows (and for a curve with subsets) and answer the validation rows."""
        seeds = choices.seeds if what == "curve" else 1
        if what == "curve":
            sweep = learning_curve_of(self.resolved, choices.points, seeds)
        else:
            sweep = whole_training_of(self.resolved)
        if left is not None:
            usd = max(Decimal(0), left - self.prompts_usd)
            sweep = with_budget(sweep, usd, allow_unpriced=choices.answers.allow_unpriced)
        choices.agree(what, sweep)
        if sweep.offer.training_price != "none":
            usd = estimated(sweep).launch_usd
            self.tuned_usd = usd.high if usd else Decimal(0)
        runs = choices.launch(sweep)
        with choices.answering() as options:
            answers = answer_curve(sweep, runs, options)
        self.tuned_usd += answers.spent_usd or Decimal(0)
        if what == "curve":
            self.curve = fit_curve(sweep, runs, answers, goal)
        self.tuned, self.runs = answers.graded[-seeds:], tuple(run.id for run in runs[-seeds:])

    def option(self, best: Graded | None, points: int) -> TuningOption:
        """Return the option as evidence; `best` is the best prompt of all backends."""
        resolved, rows = self.resolved, self.resolved.rows.read
        model = resolved.terms.model
        ends = model.retires_on if model else None
        least = max(LEAST_ROWS, resolved.terms.limits.min_rows or 0)
        refusals = (each for each in resolved.offer_findings if each.severity == "error")
        margin = resolved.job.evaluate.margin
        gain = _gain(best, self.tuned, margin) if best and self.tuned else None
        return TuningOption(
            backend=resolved.job.backend,
            base_model=resolved.job.base_model,
            trains_here=resolved.offer.trains_here,
            refusals=tuple(each.message for each in refusals),
            ends=ends,
            months_left=(ends - today()).days * 24 / float(HOURS_A_MONTH) if ends else None,
            min_rows=least,
            curve_rows=least << (points - 1),
            prompts=tuple(map(_score, self.prompts)),
            tuned=_mean_score(self.tuned),
            runs=self.runs,
            gain=gain,
            weakest=weakest_labels(self.tuned, rows.splits.train) if self.tuned else (),
            curve=self.curve,
            cost=self.cost,
        )


def best_of(options: Sequence[Measured]) -> Graded | None:
    """Return the best measured prompt."""
    prompts = (each for option in options for each in option.prompts)
    return max(prompts, key=lambda each: each.score, default=None)


def weakest_labels(tuned: Sequence[Graded], train: Dataset) -> tuple[str, ...]:
    """Return the labels that a model gets wrong most often, if the answers look like labels."""
    if not AnswerForm.of([row.answer or "" for row in train]).labels:
        return ()
    task, scores = tuned[0].task, defaultdict[str, list[float]](list)
    for graded in tuned:
        for case, value in zip(task.cases, graded.scores(task.scoring.primary.name), strict=True):
            scores[(case.answer or "").strip()].append(value)
    means = {label: fmean(values) for label, values in scores.items()}
    wrong = sorted((label for label in means if means[label] < 1), key=lambda each: means[each])
    return tuple(wrong[:MOST_LABELS])


def _score(graded: Graded) -> Score:
    prompt, interval = graded.answered.choice.prompt.label, graded.own_interval
    own = f"{graded.name}: {prompt}" if graded.answered.choice.contender.has_choice else graded.name
    return Score(name=own, value=graded.score, low=interval.low, high=interval.high)


def _mean_score(tuned: Sequence[Graded]) -> Score | None:
    if not tuned:
        return None
    intervals = [each.own_interval for each in tuned]
    return Score(
        name="tuned" if len(tuned) == 1 else f"tuned, mean of {len(tuned)} seeds",
        value=fmean(each.score for each in tuned),
        low=fmean(each.low for each in intervals),
        high=fmean(each.high for each in intervals),
    )


def _gain(best: Graded, tuned: Sequence[Graded], margin: float) -> Gain:
    """Compare the tuned model with the best prompt. Its seeds count as repeats of the cases."""
    task, metric = best.task, best.task.scoring.primary
    old: FloatArray = np.array(best.scores(metric.name))  # (N,)
    new: FloatArray = np.transpose([each.scores(metric.name) for each in tuned])  # (N, K)
    if metric.kind is Kind.CORPUS:
        sums = best.sums[metric.name]
        rows = np.mean([each.sums[metric.name].rows for each in tuned], axis=0)
        paired = compare_corpus(
            sums.rows, rows, sums.formula, clusters=task.clusters, margin=margin
        )
    else:
        paired = compare_paired(old, new, clusters=task.clusters, margin=margin)
    return Gain(
        value=paired.difference,
        low=paired.interval.low,
        high=paired.interval.high,
        verdict=paired.verdict,
        mean_square=float(((new.mean(axis=1) - old) ** 2).mean()),
    )
