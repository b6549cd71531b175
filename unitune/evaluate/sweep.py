"""Choose the run of a sweep that scores best on dev rows as the candidate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from unitune.errors import NotFoundError
from unitune.evaluate.documents.records import SweptRun
from unitune.evaluate.inference.sources import Source
from unitune.evaluate.prompts.contenders import Contender, Trial, best_trial
from unitune.evaluate.scoring.grading import Answered
from unitune.job.contenders import Tuned
from unitune.planning.preflight import ResolvedJob
from unitune.run.run import Run

# Subfolder of the job's recorded answers for the dev rows that choose a run
FOLDER = "sweep"


@dataclass(frozen=True, slots=True)
class Selection:
    """Chosen run of a sweep."""

    resolved: ResolvedJob  # its job, with its values instead of lists
    run: Run | None  # None in a replay whose ledger does not have it
    runs: tuple[SweptRun, ...] = ()  # all runs of the sweep, for the comparison
    trials: tuple[Trial, ...] = ()  # the same runs with their dev scores
    spent: Decimal = Decimal(0)  # cost of the dev answers, in US dollars

    def noted(self, answered: Iterable[Answered]) -> tuple[Answered, ...]:
        """Return the contenders, adding the trials on dev rows to those of the chosen run."""
        return tuple(
            replace(each, choice=replace(each.choice, trials=self.trials))
            if _is_of_the_job(each.choice.contender.spec)
            else each
            for each in answered
        )


def selects(resolved: ResolvedJob) -> bool:
    """Return whether a contender is the tuned model of a sweep, so that a run must be chosen."""
    return any(map(_is_of_the_job, resolved.job.evaluate.contenders))


def _is_of_the_job(spec: object) -> bool:
    return isinstance(spec, Tuned) and spec.run is None


def unselected(resolved: ResolvedJob, run: Run | None) -> Selection:
    """Return the run given by the user, or the first one."""
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
    """Return the source of each run, based on the source of the job's tuned model."""
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
    """Choose the first run with the best score on dev rows. Raises NotFoundError if none."""
    if not trials:
        hint = "All of its runs failed or were cancelled: unitune runs"
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
