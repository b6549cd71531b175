"""The run whose model is judged: found, described, and brought up where it needs a deployment.

`find_tuned_run` finds the run and refuses one that does not belong to the job. What a
comparison tells of it is data (`unitune.evaluate.prompts.training`). Only comparisons with a tuned
contender come here: it takes the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from decimal import Decimal

from pydantic import JsonValue

from unitune.backends.protocol import FIGURES, Event, State
from unitune.cost.budget import NO_LIMIT, HostingBudget
from unitune.data.dataset import Dataset
from unitune.data.load import load
from unitune.errors import Mismatch, NotFoundError, UserError
from unitune.evaluate.prompts.training import Training
from unitune.evaluate.results import Curve
from unitune.job.job import Job
from unitune.models import TunedModel
from unitune.planning.preflight import ResolvedJob
from unitune.run.deploying import standing
from unitune.run.deployment import answering
from unitune.run.run import Run, runs


@dataclass(frozen=True, slots=True)
class TunedRun:
    """A run with what a comparison tells of its training."""

    run: Run
    training: Training

    def model(self) -> TunedModel:
        """Return what to ask: the model itself, or the deployment that stands for it.

        Raises:
            UserError: It answers only from a deployment, and none is ready.
        """
        assert self.run.tuned_model is not None, "`find_tuned_run` looks"
        return answering(self.run.id, self.run.tuned_model)

    def standing(
        self,
        seconds: float | None,
        budget: HostingBudget = NO_LIMIT,
        options: Mapping[str, JsonValue] | None = None,
    ) -> AbstractContextManager[Decimal]:
        """Let the model answer while the body runs, and give what that may cost, in US dollars.

        Args:
            seconds: How long a deployment may stand that is brought up for it; None: none is.
            budget: What the deployment may cost.
            options: The backend's own for it.
        """
        if seconds is None:
            return nullcontext(Decimal(0))
        return standing(self.run, seconds, budget, options)


def find_tuned_run(resolved: ResolvedJob, run: Run | None) -> TunedRun:
    """Return the run whose model is judged.

    Args:
        resolved: What is to be judged.
        run: Named by the user; None for the newest succeeded run of this very training.

    Raises:
        NotFoundError: There is no such run.
        UserError: The run has no model.
        Mismatch: It tuned another base, or on another backend.
    """
    found = _run_under_test(resolved, run)
    return TunedRun(found, _described(resolved, found))


def _run_under_test(resolved: ResolvedJob, run: Run | None) -> Run:
    job = resolved.job
    run = _newest(job, resolved.fingerprint) if run is None else _seen_now(run)
    if (tuned := run.tuned_model) is None:
        raise UserError(
            f"run {run.id} is {run.state} and has no model to judge. "
            f"Follow it with `unitune watch {run.id}`, or name another: unitune runs"
        )
    if (tuned.backend, tuned.base) != (job.backend, job.base_model):
        raise Mismatch(
            f"run {run.id} tuned {tuned.base} on {tuned.backend}, and the job compares "
            f"with {job.base_model} on {job.backend}. Name a run of this job, or change the job."
        )
    return run


def _newest(job: Job, fingerprint: str) -> Run:
    """Return the newest succeeded run of a training, also when nobody has looked since it ended."""
    twins = [run for run in runs() if run.fingerprint == fingerprint]
    for run in twins:
        if _seen_now(run).state is State.SUCCEEDED:
            return run
    unended = [run.id for run in twins if not run.state.ended]
    hint = (
        f"Run {unended[0]} is under way: unitune watch {unended[0]}"
        if unended
        else "Train it first: unitune run FILE. A run of other rows or settings must be named: "
        "unitune compare FILE --run RUN"
    )
    raise NotFoundError("succeeded run of job", job.name, (), hint)


def _seen_now(run: Run) -> Run:
    return run if run.state.ended else run.refresh()


def _described(resolved: ResolvedJob, run: Run) -> Training:
    same = run.fingerprint == resolved.fingerprint
    events = run.events()
    return Training(
        run=run.id,
        fingerprint=run.fingerprint,
        rows=() if same else _trained_rows(run),
        effort=_effort(run.job, events),
        curve=_curve(events),
        notes=() if same else (_other_rows(run),),
    )


def _other_rows(run: Run) -> str:
    return (
        f"Run {run.id} was trained on other rows or settings than this job says now; "
        "its own rows were searched for the test cases too."
    )


def _trained_rows(run: Run) -> tuple[Dataset, ...]:
    files = (run.folder / "train.jsonl", run.folder / "validation.jsonl")
    return tuple(load(file) for file in files if file.exists())


def _effort(job: Job, events: Iterable[Event]) -> str:
    """Say how it was trained: the job's settings, and the steps that were made."""
    steps = max((event.number("step") or 0 for event in events if event.kind == "step"), default=0)
    tuning = job.tuning
    settings = {
        "epochs": tuning.epochs,
        "batch size": tuning.batch_size,
        "learning rate": tuning.learning_rate,
        "rank": tuning.lora.rank,
        "seed": tuning.seed,
    }
    chosen = [f"{name} {value}" for name, value in settings.items() if value != "auto"]
    made = [f"{steps:.0f} steps"] if steps else []
    return ", ".join(["trained by " + job.method, *made, *chosen])


def _curve(events: Sequence[Event]) -> Curve | None:
    """Return the losses by step, or the rewards where steps have no loss."""
    for name in FIGURES:
        points = {kind: _points(events, kind, name) for kind in ("step", "validation")}
        if points["step"]:
            return Curve(
                figure=name,
                steps=tuple(points["step"]),
                values=tuple(points["step"].values()),
                validation_steps=tuple(points["validation"]),
                validation_values=tuple(points["validation"].values()),
            )
    return None


def _points(events: Iterable[Event], kind: str, name: str) -> dict[int, float]:
    return {
        int(step): value
        for event in events
        if event.kind == kind
        and (step := event.number("step")) is not None
        and (value := event.number(name)) is not None
    }
