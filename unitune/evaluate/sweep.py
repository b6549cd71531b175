"""Which run of a sweep is the candidate: the one that scores best on dev.

Each run's model answers all dev rows with their own messages, as prompts are tried for the best
prompt: by the primary metric, between equals by the mean of all scorers, then the first. The test
cases have no part in it, and only the chosen run's model answers them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from unitune.errors import NotFoundError
from unitune.evaluate.grading import Answered
from unitune.evaluate.inference.sources import Source
from unitune.evaluate.prompts.contenders import Contender, Trial, best_trial
from unitune.evaluate.records import SweptRun
from unitune.job.contenders import Tuned
from unitune.planning.preflight import ResolvedJob

if TYPE_CHECKING:
    from unitune.run.run import Run

# Beside the recorded answers of the job, for those to dev rows by which a run is chosen
FOLDER = "sweep"


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen run of a sweep."""

    resolved: ResolvedJob  # its job: with its values, and without lists
    run: Run | None  # none in a replay whose ledger does not know it
    runs: tuple[SweptRun, ...] = ()  # all runs of the sweep, as the comparison shows them
    trials: tuple[Trial, ...] = ()  # the same, as dev scored them
    spent: Decimal = Decimal(0)  # cost of the answers on dev, in US dollars

    def noted(self, answered: Iterable[Answered]) -> tuple[Answered, ...]:
        """Return the contenders; those that the chosen run has made, with the trials on dev."""
        return tuple(
            replace(each, choice=replace(each.choice, trials=self.trials))
            if _is_of_the_job(each.choice.contender.spec)
            else each
            for each in answered
        )


def selects(resolved: ResolvedJob) -> bool:
    """Whether a contender is the tuned model of a sweep, so that a run must be chosen."""
    return any(map(_is_of_the_job, resolved.job.evaluate.contenders))


def _is_of_the_job(spec: object) -> bool:
    return isinstance(spec, Tuned) and spec.run is None


def unselected(resolved: ResolvedJob, run: Run | None) -> Selection:
    """Return the run that the user names, or the first where none is judged."""
    same = (each for each in resolved.runs if run and each.fingerprint == run.fingerprint)
    return Selection(next(same, resolved.runs[0]), run)


def tuned_alone(resolved: ResolvedJob) -> ResolvedJob:
    """Return the job with its own tuned model as the only contender."""
    evaluate = resolved.job.evaluate
    tuned = tuple(filter(_is_of_the_job, evaluate.contenders))[:1]
    alone = evaluate.model_copy(update={"contenders": tuned})
    return replace(resolved, job=resolved.job.model_copy(update={"evaluate": alone}))


def sources_of(
    resolved: ResolvedJob, tuned: Source, contenders: Mapping[str, Contender]
) -> dict[str, Source]:
    """Return who answers for each run, as the source of the job's tuned model says."""
    return {
        each.setting: replace(
            tuned,
            spec=contenders[each.setting].spec,
            origin=f"training:{each.fingerprint}",
        )
        for each in resolved.runs
    }


def select(
    resolved: ResolvedJob, runs: Mapping[str, Run], trials: Mapping[str, Trial], spent: Decimal
) -> Selection:
    """Choose the run with the best score on dev; of equals the first.

    Args:
        resolved: The sweep.
        runs: By values; those that have no model are left out.
        trials: Likewise.
        spent: Cost of the answers, in US dollars.

    Raises:
        NotFoundError: No run has a model.
    """
    if not trials:
        hint = "All of its runs have failed or were cancelled: unitune runs"
        raise NotFoundError("tuned model of sweep", resolved.job.name, (), hint)
    best = best_trial(list(trials.values()))
    (chosen,) = (each for each in resolved.runs if trials.get(each.setting) is best)
    return Selection(
        resolved=chosen,
        run=runs.get(chosen.setting),
        runs=tuple(_shown(each, runs, trials, chosen) for each in resolved.runs),
        trials=tuple(
            replace(trial, prompt=replace(trial.prompt, label=name))
            for name, trial in trials.items()
        ),
        spent=spent,
    )


def _shown(
    each: ResolvedJob, runs: Mapping[str, Run], trials: Mapping[str, Trial], chosen: ResolvedJob
) -> SweptRun:
    run, trial = runs.get(each.setting), trials.get(each.setting)
    return SweptRun(
        name=each.setting,
        run=run and run.id,
        score=trial and trial.score.primary,
        rows=trial.score.rows if trial else 0,
        errors=len(trial.score.errors) if trial else 0,
        chosen=each is chosen,
    )
