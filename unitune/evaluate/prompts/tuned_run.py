"""The run whose model is judged, what a comparison shows of its training, and its deployment.

Only comparisons with a tuned contender import this: it loads the ledger.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal

from pydantic import JsonValue

from unitune.backends.protocol import FIGURES, Event, State
from unitune.cost.budget import HostingBudget
from unitune.data.dataset import Dataset
from unitune.data.example import Example
from unitune.data.load import load
from unitune.errors import Mismatch, NotFoundError, UserError
from unitune.evaluate.inference.budget import Budget
from unitune.evaluate.inference.sources import Source
from unitune.evaluate.prompts.prompts import check_prompts
from unitune.evaluate.results import Curve
from unitune.job.contenders import Tuned
from unitune.job.job import Job
from unitune.planning.preflight import ResolvedJob
from unitune.run.deploying import standing
from unitune.run.deployment import answering
from unitune.run.run import Run, runs


@dataclass(frozen=True, slots=True)
class TunedRun:
    """A run with what a comparison shows of its training.

    `rows` are what it was trained on, validation rows included, where that is not what the job says
    now; `effort` is what went into it, in words.
    """

    run: Run
    rows: tuple[Dataset, ...]
    effort: str
    curve: Curve | None
    notes: tuple[str, ...]

    def check_prompts(self, job: Job, train: Dataset, cases: Iterable[Example]) -> None:
        """Refuse cases whose system prompt the model has never seen; see `check_prompts`."""
        check_prompts(job.evaluate, self.rows or (train,), cases)

    @contextmanager
    def answering(
        self,
        sources: Mapping[str, Source],
        budget: Budget,
        seconds: float | None,
        options: Mapping[str, JsonValue] | None,
        *,
        unpriced: bool,
    ) -> Generator[dict[str, Source]]:
        """Give the sources with the tuned model, deployed while the body runs where need be.

        Args:
            sources: Who answers for each contender.
            budget: Pays for the deployment, too.
            seconds: How long a deployment may stand; None: none is started.
            options: The backend's own for it.
            unpriced: Whether its price may be unknown.
        """
        assert self.run.tuned_model is not None, "`find_tuned_run` sees to it"
        with ExitStack() as stack:
            if seconds:
                left = None if budget.cap is None else max(Decimal(0), budget.cap - budget.spent)
                hosting = HostingBudget(left, unpriced)
                budget.spent += stack.enter_context(standing(self.run, seconds, hosting, options))
            model = answering(self.run.id, self.run.tuned_model)
            yield {
                name: replace(source, model=model) if isinstance(source.spec, Tuned) else source
                for name, source in sources.items()
            }


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
    job = resolved.job
    run = _newest(job, resolved.fingerprint) if run is None else _refreshed(run)
    if (model := run.tuned_model) is None:
        raise UserError(
            f"run {run.id} is {run.state} and has no model to judge. "
            f"Follow it with `unitune watch {run.id}`, or name another: unitune runs"
        )
    if (model.backend, model.base) != (job.backend, job.base_model):
        raise Mismatch(
            f"run {run.id} tuned {model.base} on {model.backend}, and the job compares "
            f"with {job.base_model} on {job.backend}. Name a run of this job, or change the job."
        )
    events = run.events()
    effort, curve = _effort(run.job, events), curve_of(events)
    if run.fingerprint == resolved.fingerprint:
        return TunedRun(run, (), effort, curve, ())
    files = (run.folder / "train.jsonl", run.folder / "validation.jsonl")
    rows = tuple(load(file) for file in files if file.exists())
    other_rows = (
        f"Run {run.id} was trained on other rows or settings than this job says now; "
        "its own rows were searched for the test cases too."
    )
    return TunedRun(run, rows, effort, curve, (other_rows,))


def _newest(job: Job, fingerprint: str) -> Run:
    """Return the newest succeeded run of a training, also when it was not watched to its end."""
    twins = [run for run in runs() if run.fingerprint == fingerprint]
    for run in twins:
        if _refreshed(run).state is State.SUCCEEDED:
            return run
    unended = [run.id for run in twins if not run.state.ended]
    hint = (
        f"Run {unended[0]} is under way: unitune watch {unended[0]}"
        if unended
        else "Train it first: unitune run FILE. A run of other rows or settings must be named: "
        "unitune compare FILE --run RUN"
    )
    raise NotFoundError("succeeded run of job", job.name, (), hint)


def _refreshed(run: Run) -> Run:
    return run if run.state.ended else run.refresh()


def _effort(job: Job, events: Iterable[Event]) -> str:
    """Return in words how it was trained: the steps that were made, and the job's settings."""
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


def curve_of(events: Sequence[Event]) -> Curve | None:
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
