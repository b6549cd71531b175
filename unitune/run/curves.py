"""Read the progress of a training from its events, and show it in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from unitune.backends.protocol import FIGURES, Event
from unitune.documents import Closed
from unitune.workspace.progress import live


class Curve(Closed):
    """Loss of a training by step, or the reward in reinforcement learning."""

    figure: Literal["loss", "reward"] = "loss"
    steps: tuple[int, ...]
    values: tuple[float, ...]
    validation_steps: tuple[int, ...] = ()
    validation_values: tuple[float, ...] = ()
    # Learning rate of each of `steps`; empty if one is unknown
    learning_rates: tuple[float, ...] = ()
    # Step whose adapter became the model, if validation rows selected it
    kept_step: int | None = None


def curve_of(events: Sequence[Event]) -> Curve | None:
    """Return the losses by step, or the rewards if steps have no loss."""
    rates = _points(events, "step", "learning_rate")
    for name in FIGURES:
        points = {kind: _points(events, kind, name) for kind in ("step", "validation")}
        if steps := points["step"]:
            return Curve(
                figure=name,
                steps=tuple(steps),
                values=tuple(steps.values()),
                validation_steps=tuple(points["validation"]),
                validation_values=tuple(points["validation"].values()),
                learning_rates=tuple(rates[step] for step in steps if step in rates)
                if steps.keys() <= rates.keys()
                else (),
                kept_step=kept_step(events),
            )
    return None


def kept_step(events: Iterable[Event]) -> int | None:
    """Return the step whose adapter was kept, if validation rows selected it."""
    steps = [step for event in events if (step := event.number("kept_step")) is not None]
    return int(steps[-1]) if steps else None


def _points(events: Iterable[Event], kind: str, name: str) -> dict[int, float]:
    return {
        int(step): value
        for event in events
        if event.kind == kind
        and (step := event.number("step")) is not None
        and (value := event.number(name)) is not None
    }


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
