"""Show in a notebook how far a training has come while a cell waits."""

from __future__ import annotations

from collections.abc import Iterable

from unitune.backends.protocol import FIGURES, Event
from unitune.workspace.notebook import live


def show_steps(run_id: str, events: Iterable[Event]) -> None:
    """Follow a run's events to their end; in a notebook, show its steps below the cell."""
    show = live()
    for event in events:
        if show and (line := step_words(event)):
            show(f"{run_id}: {line}")


def step_words(event: Event) -> str:
    """Return a step in words: ``step 3 of 15, loss 0.412``; nothing of another event."""
    step, steps = event.number("step"), event.number("steps")
    if event.kind != "step" or step is None:
        return ""
    figures = ((name, event.number(name)) for name in FIGURES)
    measured = [f"{name} {value:.3f}" for name, value in figures if value is not None]
    return ", ".join([f"step {step:.0f}" + (f" of {steps:.0f}" if steps else ""), *measured])
