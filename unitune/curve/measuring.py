"""Measure how much data a job needs, and extrapolate its learning curve."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from statistics import fmean

from unitune.curve.documents import (
    FARTHEST,
    CurvePoint,
    CurveRun,
    Figure,
    Law,
    LearningCurve,
    Prediction,
    RowsForGoal,
)
from unitune.curve.fit import LEVEL, Doubt, FittedCurve, Range
from unitune.curve.planning import LEAST_POINTS, curve_notes, learning_curve_of
from unitune.errors import OverBudget, RunFailed, UserError
from unitune.evaluate.collecting import ValidationAnswers, answer_validation
from unitune.evaluate.inference.budget import answer_prices
from unitune.evaluate.inference.engine import AnswerOptions, Notify, ignore
from unitune.evaluate.scoring.grading import MOST_ERRORS, Graded
from unitune.files.filesystem import replacing
from unitune.job.job import Job
from unitune.planning.money import estimated
from unitune.planning.preflight import ResolvedJob, preflight
from unitune.run.run import Run, launch_sweep
from unitune.workspace.home import make_folder

DOCUMENT = "learning-curve.json"
TIMES = (2, 4)  # multiples of the available rows that are predicted


def learning_curve(  # noqa: PLR0913 - every option has a default
    job: Job | ResolvedJob,
    *,
    points: int = 4,
    seeds: int = 3,
    goal: float | None = None,
    budget: Decimal | float | None = None,
    allow_unpriced: bool = False,
    progress: Notify | None = None,
) -> LearningCurve:
    """Train a job on nested subsets of its rows, and predict the effect of more rows.

    Examples:
        >>> curve = unitune.learning_curve(job, budget=20)
        >>> print(curve.doubts or curve.predictions)

    Args:
        job: What to tune and how; not a sweep.
        points: Number of sizes, each half of the next; at least three.
        seeds: Number of trainings per size; at least two.
        goal: Score from 0 to 1; the required number of rows is predicted.
        budget: Maximum cost of trainings and answers together, in US dollars.
        allow_unpriced: Continue although a price is unknown or old.
        progress: Called as answers arrive.

    Raises:
        UnituneError: The same errors as `unitune.launch_sweep` and `unitune.compare`.
    """
    check_goal(goal)
    resolved = learning_curve_of(preflight(job), points, seeds)
    if budget is not None:
        usd = Decimal(str(budget))
        resolved = with_budget(resolved, usd, allow_unpriced=allow_unpriced)
    runs = train_all(resolved, allow_unpriced=allow_unpriced)
    options = AnswerOptions(allow_unpriced=allow_unpriced, progress=progress or ignore)
    return judge_curve(resolved, runs, goal=goal, options=options)


def train_all(resolved: ResolvedJob, *, allow_unpriced: bool) -> list[Run]:
    """Launch the runs of a sweep, and return them when they have ended."""
    launched = list(launch_sweep(resolved, allow_unpriced=allow_unpriced))
    return [run.wait() for run in launched]


def check_goal(goal: float | None) -> None:
    """Raise UserError if a goal is not a score above 0 and at most 1."""
    if goal is not None and not 0 < goal <= 1:
        raise UserError(
            f"the goal is {goal:g}, but a score must be above 0 and at most 1 (0.9 is 90 %)."
        )


def with_budget(
    resolved: ResolvedJob, usd: Decimal, *, allow_unpriced: bool = False
) -> ResolvedJob:
    """Return a curve with a budget in US dollars: trainings get their maximum, answers the rest.

    Raises:
        OverBudget: Items with a price may cost more, or the answers have no price.
    """
    job = resolved.job
    if resolved.offer.training_price == "none":
        job = job.with_budget(usd).with_evaluation_budget(usd)
        return replace(resolved, job=job)
    made = estimated(resolved)
    trainings, answers = made.launch_usd, made.evaluation_usd
    most = trainings.high if trainings else Decimal(0)
    total = most + (answers.high if answers else 0)
    if total > usd:
        runs = f"{len(resolved.runs)} training{'s' if resolved.is_sweep else ''}"
        raise OverBudget(
            f"{runs} may cost ${most:,.2f} and the answers ${total - most:,.2f}, more than the "
            f"budget of ${usd:,.2f}. Raise it, or use fewer --points or --seeds."
        )
    job = job.with_budget(most if trainings else usd).with_evaluation_budget(usd - most)
    answer_prices(job, resolved.book, allow_unpriced=allow_unpriced)
    return replace(resolved, job=job)


def judge_curve(
    resolved: ResolvedJob,
    runs: Sequence[Run],
    *,
    goal: float | None = None,
    options: AnswerOptions = AnswerOptions(),  # noqa: B008 - frozen
) -> LearningCurve:
    """Return the curve fitted to its runs' answers to the validation rows. Raises RunFailed."""
    return fit_curve(resolved, runs, answer_curve(resolved, runs, options), goal)


def answer_curve(
    resolved: ResolvedJob, runs: Sequence[Run], options: AnswerOptions
) -> ValidationAnswers:
    """Let a curve's runs answer the validation rows. Raises RunFailed if one has no model."""
    if missing := [run.id for run in runs if run.tuned_model is None]:
        raise RunFailed(
            f"{len(missing)} of {len(runs)} runs of the learning curve have no model: "
            f"{', '.join(missing)}. Repeat the call to launch them again."
        )
    by_name = {part.setting: run for part, run in zip(resolved.runs, runs, strict=True)}
    return answer_validation(resolved, by_name, options)


def fit_curve(
    resolved: ResolvedJob, runs: Sequence[Run], answers: ValidationAnswers, goal: float | None
) -> LearningCurve:
    """Fit the scores of a curve's runs, and write the document."""
    made = _document(resolved, runs, answers, goal)
    make_folder(answers.folder)
    with replacing(answers.folder / DOCUMENT) as file:
        file.write(made.model_dump_json(indent=2))
    return made


def _document(
    resolved: ResolvedJob, runs: Sequence[Run], answers: ValidationAnswers, goal: float | None
) -> LearningCurve:
    task, graded = answers.task, answers.graded
    metric = task.scoring.primary.name
    made = [
        CurveRun(
            run=run.id,
            seed=int(part.settings["seed"]),
            rows=len(part.splits.train),
            score=each.score,
            errors=each.errors,
        )
        for part, run, each in zip(resolved.runs, runs, graded, strict=True)
    ]
    seeds = len({each.seed for each in made})
    starts = range(0, len(made), seeds)
    sizes = [round(fmean(each.rows for each in made[at : at + seeds])) for at in starts]
    trainings = [[each.sums[metric] for each in graded[at : at + seeds]] for at in starts]
    fitted = FittedCurve.of(sizes, trainings, task.clusters)
    doubts, most, wanted = tuple(_doubts(fitted, graded)), sizes[-1], None
    if goal is not None:
        reached = bool(fitted.scores[-1] >= goal)
        is_said = not (reached or doubts)
        rows = _figure(fitted.rows(goal), most=FARTHEST * most) if is_said else None
        wanted = RowsForGoal(score=goal, reached=reached, rows=rows)
    return LearningCurve(
        job=resolved.job.name,
        backend=resolved.job.backend,
        base_model=resolved.job.base_model,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        metric=metric,
        cases=len(task.cases),
        points=tuple(
            CurvePoint(
                rows=sizes[number],
                score=_figure(fitted.measured(number)),
                runs=tuple(made[at : at + seeds]),
            )
            for number, at in enumerate(starts)
        ),
        last_gain=_figure(fitted.last_gain),
        law=Law(
            form=fitted.law.form,
            floor=float(fitted.law.floor),
            scale=float(fitted.law.scale),
            shape=_figure(fitted.shape(fitted.law.form)),
            fitting=fitted.fitting,
        ),
        doubts=doubts,
        check=_check(fitted),
        predictions=() if doubts else tuple(_prediction(fitted, times * most) for times in TIMES),
        goal=wanted,
        notes=tuple(finding.message for finding in curve_notes(resolved)),
        spent_usd=answers.spent_usd,
        folder=answers.folder,
    )


def _check(fitted: FittedCurve) -> Prediction | None:
    if len(fitted.sizes) <= LEAST_POINTS:
        return None
    predicted = _prediction(fitted.before_last, fitted.sizes[-1])
    return predicted.model_copy(update={"measured": float(fitted.scores[-1])})


def _prediction(fitted: FittedCurve, rows: int) -> Prediction:
    return Prediction(rows=rows, score=_figure(fitted.score(rows)), gain=_figure(fitted.gain(rows)))


def _figure(figure: Range, most: float = math.inf) -> Figure:
    value, low, high = (each if each < most else None for each in figure)
    return Figure(value=value, low=low, high=high)


def _doubts(fitted: FittedCurve, graded: Sequence[Graded]) -> Iterator[str]:
    answers, errors = sum(len(each.answers) for each in graded), sum(each.errors for each in graded)
    if errors > MOST_ERRORS * answers:
        yield f"{errors:,} of {answers:,} answers ended in an error, which counts as wrong."
    before, last = fitted.sizes[-2:]
    gain = fitted.last_gain
    texts = {
        Doubt.NO_GAIN: (
            f"From {before:,} to {last:,} rows the score changed by {100 * gain.value:+.1f} "
            f"points ({100 * LEVEL:.0f} % range {100 * gain.low:+.1f} to {100 * gain.high:+.1f}). "
            "This may be no gain at all."
        ),
        Doubt.FLAT: "The error may fall so slowly that it never falls noticeably.",
        Doubt.MISFIT: (
            "No curve with diminishing gains fits the scores. If small sizes have learned hardly "
            "anything, use fewer --points to leave them out."
        ),
    }
    yield from (texts[doubt] for doubt in fitted.doubts)
