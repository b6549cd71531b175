"""Show a run and the progress of its training in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from unitune.backends.protocol import FIGURES, Event
from unitune.ledger import RunRecord
from unitune.workspace.notebook import live, table


def run_table(run: RunRecord, events: Iterable[Event], folder: Path) -> str:
    """Return a run and its progress as an HTML table."""
    return table(f"Run {run.id}", _rows(run, events, folder))


def _rows(run: RunRecord, events: Iterable[Event], folder: Path) -> Iterator[tuple[str, str]]:
    yield "job", run.name
    yield "state", f"{run.state} ({run.raw})" if run.raw and run.raw != run.state else run.state
    yield "base model", f"{run.base_model} on {run.backend}"
    if run.start is not None:
        yield "started from", str(run.start)
    if steps := [event for event in events if event.kind == "step"]:
        yield "training", step_words(steps[-1])
        for name in FIGURES:
            if (first := steps[0].number(name)) is not None:
                yield f"first {name}", f"{first:.3f}"
    if run.error:
        yield "error", run.error
    if run.model:
        yield "model", run.model.name
    yield "files", str(folder)


def show_steps(run_id: str, events: Iterable[Event]) -> None:
    """Read a run's events to their end; in a notebook, show its steps below the cell."""
    show = live()
    for event in events:
        if show and (line := step_words(event)):
            show(f"{run_id}: {line}")


def step_words(event: Event) -> str:
    """Describe a step: ``step 3 of 15, loss 0.412``; empty for other events."""
    step, steps = event.number("step"), event.number("steps")
    if event.kind != "step" or step is None:
        return ""
    figures = ((name, event.number(name)) for name in FIGURES)
    measured = [f"{name} {value:.3f}" for name, value in figures if value is not None]
    return ", ".join([f"step {step:.0f}" + (f" of {steps:.0f}" if steps else ""), *measured])
