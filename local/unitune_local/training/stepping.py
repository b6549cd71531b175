"""Run the steps of a training, whatever computes them: this machine, or a vendor.

`Machine` computes steps and keeps their state. `run_steps` decides everything else: which rows and
which learning rate a step has, when it is evaluated and saved, and which step is kept.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from pydantic import JsonValue

from unitune.errors import RunFailed
from unitune_local.data.batches import Batches, TrainingRow
from unitune_local.job_folder import Note
from unitune_local.objectives.objective import StepRows
from unitune_local.settings import Settings
from unitune_local.training.checkpoint import Position
from unitune_local.training.optimizers import scheduled_rate
from unitune_local.training.selection import Evaluations

# Enough to even out rows of different length, few enough to follow a machine that others use
THROUGHPUT_STEPS = 10

# Writes the event of a step: what it learnt from, and its figures
Record = Callable[[StepRows, Mapping[str, JsonValue]], None]


class Machine(Protocol):
    """What computes the steps of a training, and keeps its state between them."""

    def restore(self) -> Position | None:
        """Continue from the newest checkpoint and return its position; None without one."""
        ...

    def step(self, step: int, rows: Sequence[TrainingRow], rate: float, record: Record) -> None:
        """Make a step, and record it once.

        Raises:
            RunFailed: Loss or gradient is not a finite number.
        """
        ...

    def move(self, position: Position) -> None:
        """Take note of a position that the weights have reached without a change."""
        ...

    def stops(self) -> bool:
        """Return whether the training is to stop after the current step."""
        ...

    def is_due(self, step: int, *, epoch_ended: bool) -> bool:
        """Return whether a checkpoint is due after a step."""
        ...

    def save(self, step: int) -> None:
        """Write a checkpoint of the current position, and its event."""
        ...

    def keep(self, kept: int, step: int) -> None:
        """Make the weights of a kept step the result, at the end of a step."""
        ...


def run_steps(
    machine: Machine,
    batches: Batches,
    evaluations: Evaluations,
    settings: Settings,
    note: Note,
) -> bool:
    """Make the steps from the newest checkpoint up to the end; return False if stopped.

    Raises:
        RunFailed: Loss or gradient is not a finite number; the last checkpoint is good.
    """
    steps, epoch_steps = evaluations.steps, evaluations.epoch_steps
    if (step := _resumed(machine, evaluations, note)) == 0:
        evaluations.before()
    throughput = Throughput(steps - step)
    while not evaluations.ends(step):
        step += 1
        rate = scheduled_rate(step, steps, settings)
        at = {"step": step, "steps": steps, "epoch": step / epoch_steps}

        def record(
            prepared: StepRows, figures: Mapping[str, JsonValue], at: dict[str, float] = at
        ) -> None:
            trained = sum(row.trained_tokens for row in prepared.rows)
            counts = {"tokens": prepared.tokens, "trained_tokens": trained}
            speed = throughput.after(prepared.tokens)
            note("step", {**at, **prepared.figures, **counts, **figures, **speed})

        machine.step(step, batches.of(step), rate, record)
        _evaluate(step, evaluations, machine)
        stopping = not evaluations.ends(step) and machine.stops()
        if (
            stopping
            or evaluations.wants_checkpoint(step)
            or machine.is_due(step, epoch_ended=step % epoch_steps == 0)
        ):
            machine.save(step)
        if stopping:
            return False
    machine.keep(evaluations.kept(step), step)
    evaluations.conclude(step)
    return True


def _resumed(machine: Machine, evaluations: Evaluations, note: Note) -> int:
    if (saved := machine.restore()) is None:
        return 0
    evaluations.selection = saved.selection
    note("message", {"text": f"resuming at step {saved.step}/{evaluations.steps}"})
    if not saved.evaluated:
        _evaluate(saved.step, evaluations, machine)
        machine.save(saved.step)
    return saved.step


def _evaluate(step: int, evaluations: Evaluations, machine: Machine) -> None:
    evaluations.after(step)
    machine.move(Position(step=step, selection=evaluations.selection))


class Throughput:
    """Speed of the training over the last steps of this process."""

    def __init__(self, steps_left: int) -> None:
        self._left = steps_left
        self._tokens = 0
        self._marks = deque([(time.monotonic(), 0)], maxlen=THROUGHPUT_STEPS + 1)

    def after(self, tokens: int) -> dict[str, JsonValue]:
        """Return tokens per second and the seconds left, after a step of so many tokens."""
        self._left -= 1
        self._tokens += tokens
        self._marks.append((time.monotonic(), self._tokens))
        (start, before), (now, after) = self._marks[0], self._marks[-1]
        spent = max(now - start, 1e-9)
        return {
            "tokens_per_second": (after - before) / spent,
            "seconds_left": spent / (len(self._marks) - 1) * self._left,
        }


def check_finite(
    step: int, loss: float, norm: float, learning_rate: float, rows: Sequence[TrainingRow]
) -> None:
    """Raise `RunFailed` if the loss or the gradient of a step is not a finite number."""
    if math.isfinite(loss) and math.isfinite(norm):
        return
    lines = ", ".join(str(row.line) for row in sorted(rows, key=lambda row: row.line))
    raise RunFailed(
        f"step {step} has loss {loss} and gradient norm {norm} at learning rate "
        f"{learning_rate:.2g}, on the training rows of lines {lines}. These weights were not "
        "saved. Lower tuning.learning_rate, or check these rows."
    )
