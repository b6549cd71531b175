"""What a comparison tells of the training behind the tuned model: which run, how, and its losses.

`run_under_test` finds the run and refuses one that does not belong to the job, `check_prompts`
refuses cases with another prompt than its rows, and `describe` turns it into data. Not here: the
run itself (`unitune.run`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from unitune.backend import Event, State
from unitune.contender_specs import Tuned
from unitune.data.dataset import Dataset
from unitune.data.example import Example
from unitune.data.findings import clip
from unitune.data.load import load
from unitune.data.split import Splits
from unitune.errors import Mismatch, UnknownName, UserError
from unitune.evaluate.prompts import SYSTEM_ROLES
from unitune.evaluate.results import Curve
from unitune.job import Job
from unitune.run import Run, runs, training_fingerprint

MOST_SYSTEM_PROMPTS = 0.1
"""Where there are more of them than a tenth of the rows, they hold content and are no prompt."""


@dataclass(frozen=True, slots=True)
class Training:
    """Where the tuned model comes from.

    Args:
        run: Id of the run.
        rows: What it was trained on, validation rows included, where that is not what the job
            says now.
        effort: What went into it, in words.
        curve: Its losses, when there are events of them.
        notes: What a reader of the verdict must know about it.
    """

    run: str
    rows: tuple[Dataset, ...]
    effort: str
    curve: Curve | None
    notes: tuple[str, ...]


def run_under_test(job: Job, splits: Splits, run: Run | None) -> Run:
    """Return the run whose model is judged.

    Args:
        job: What is to be judged.
        splits: The job's rows.
        run: Named by the user; None for the newest succeeded run of this very training.

    Raises:
        UnknownName: There is no such run.
        UserError: The run has no model.
        Mismatch: It tuned another base, or on another backend.
    """
    run = _newest(job, training_fingerprint(job, splits)) if run is None else _seen_now(run)
    if run.model is None:
        raise UserError(
            f"run {run.id} is {run.state} and has no model to judge. "
            f"Follow it with `unitune watch {run.id}`, or name another: unitune runs"
        )
    if (run.model.backend, run.model.base) != (job.backend, job.base_model):
        raise Mismatch(
            f"run {run.id} tuned {run.model.base} on {run.model.backend}, and the job compares "
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
    raise UnknownName("succeeded run of job", job.name, (), hint)


def _seen_now(run: Run) -> Run:
    return run if run.state.ended else run.refresh()


def describe(job: Job, splits: Splits, run: Run) -> Training:
    """Return what a comparison tells of a run that has a model."""
    same = run.fingerprint == training_fingerprint(job, splits)
    events = run.events()
    return Training(
        run=run.id,
        rows=() if same else _trained_rows(run),
        effort=_effort(run.job, events),
        curve=_curve(events),
        notes=() if same else (_other_rows(run),),
    )


def check_prompts(job: Job, trained: Iterable[Dataset], cases: Iterable[Example]) -> None:
    """Refuse cases whose system prompt the tuned model has never seen in training.

    Its own prompt is the one that it was trained with; another would judge another thing. Where
    nearly every row has a system prompt of its own, none of them is the model's, and any will do.

    Args:
        job: Its contenders may name another prompt for the tuned model.
        trained: What it was trained on.
        cases: What it will be asked.

    Raises:
        Mismatch: There are such cases, and a tuned contender is asked with its own prompt.
    """
    if not any(isinstance(s, Tuned) and s.prompt == "own" for s in job.evaluate.contenders):
        return
    known = Counter(_system(row) for rows in trained for row in rows)
    strange = [case for case in cases if _system(case) not in known]
    fixed = 0 < len(known) <= max(1, MOST_SYSTEM_PROMPTS * known.total())
    if not strange or not fixed:
        return
    raise Mismatch(
        f"the tuned model was not trained with the system prompt of {len(strange)} test cases, "
        f"such as {clip(_system(strange[0]))}; most of its rows have "
        f"{clip(known.most_common(1)[0][0])}. Give the cases the prompt of training, or let the "
        "contender be asked otherwise: {type: tuned, prompt: baseline}."
    )


def _system(row: Example) -> str:
    turns = (turn.text for turn in row.prompt if turn.role in SYSTEM_ROLES)
    return " ".join(" ".join(turns).split())


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
    steps = max(
        (_number(event, "step") or 0 for event in events if event.kind == "step"), default=0
    )
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


def _curve(events: Iterable[Event]) -> Curve | None:
    points = {
        kind: {
            int(step): loss
            for event in events
            if event.kind == kind
            and (step := _number(event, "step")) is not None
            and (loss := _number(event, "loss")) is not None
        }
        for kind in ("step", "validation")
    }
    if not points["step"]:
        return None
    return Curve(
        steps=tuple(points["step"]),
        losses=tuple(points["step"].values()),
        validation_steps=tuple(points["validation"]),
        validation_losses=tuple(points["validation"].values()),
    )


def _number(event: Event, name: str) -> float | None:
    value = event.data.get(name)
    return float(value) if isinstance(value, int | float) else None
