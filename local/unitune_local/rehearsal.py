"""A training rehearsed: a few steps of it, timed, in a process of its own that leaves nothing.

    python -m unitune_local.rehearsal FOLDER

reads ``rehearsal.json`` in the folder and writes ``figures.json``. All that is timed is what a
training runs (`unitune_local.train`, `unitune_local.adapter`), on rows of the job: the start, steps
of different length with the longest among them, a validation, a checkpoint, saving and checking the
adapter. Memory is the process's own high-water mark.

How much is tried depends on what a first short row took, so that a large model is rehearsed in
about the same time as a small one. Not here: choosing the rows (`unitune_local.calibrating`).
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
from peft import PeftModel
from pydantic import BaseModel, ConfigDict, JsonValue

from unitune.today import today
from unitune_local import dry_run, loading
from unitune_local.adapter import ANSWER_TOKENS, check_adapter, save_adapter
from unitune_local.batches import WINDOW, TrainingRow, micro_batches
from unitune_local.figures import MOST_SIZES, Figures, forward_flops, steps_bytes
from unitune_local.job_folder import Kind, write_whole
from unitune_local.loads import (
    Load,
    answers_load,
    distinct_sizes,
    epoch_loads,
    epoch_steps,
    part_load,
    step_load,
    validation_load,
)
from unitune_local.loss import Form, choose_form, loss_sum, use_attention
from unitune_local.memory import Shape, live_bytes, peak_of_process, step_flops
from unitune_local.settings import Settings
from unitune_local.spec import Spec
from unitune_local.train import Surroundings, train
from unitune_local.training import process_seconds, trainable_model

T = TypeVar("T")

STEPS_SECONDS = 24.0
"""For all steps together, at the pace of one short row, which is less than theirs."""
MOST_STEPS = WINDOW
"""The training would sort no more of them by length together."""
FEWEST_STEPS = 4
"""Where they would take too long, batches are made smaller."""
CHECK_SECONDS = 8.0
"""A check of the adapter that would take longer is not rehearsed."""
VALIDATED_ROWS = 16
LEAST_BAND, MOST_BAND = 0.08, 0.4
"""A machine is not steadier from one minute to the next; and of steps that differ by more, what was
measured is still better than a guess."""


MEMORY_BAND = (0.83, 1.3)
"""Ten jobs, each trained three times, held 84 to 128 % of what was expected (2026-11-26,
``benchmarks/local_forecast.py``); small models hold most beside it."""


class Rehearsal(BaseModel):
    """What to rehearse."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    spec: Spec
    """Of the training; its files of rows are not read."""
    shape: Shape
    rows: tuple[TrainingRow, ...]
    """To train on, by length."""
    validation: tuple[TrainingRow, ...]
    prompts: tuple[tuple[int, ...], ...]
    """For the check of the adapter."""
    weight_file_bytes: int


def rehearse(folder: Path) -> Figures:
    """Time a training's parts and return what they take.

    Args:
        folder: With ``rehearsal.json``; whoever made it removes it with all that is written here.
    """
    plan = Rehearsal.model_validate_json((folder / "rehearsal.json").read_text(encoding="utf-8"))
    spec, shape = plan.spec, plan.shape
    tokenizer = loading.load_tokenizer(spec.base_path)
    before = time.perf_counter()
    model = trainable_model(spec.base_path, spec.settings)
    loading_seconds = time.perf_counter() - before
    form = choose_form(model, plan.rows, share=spec.settings.share_prefix)
    start_seconds, start_cpu_seconds = process_seconds(), time.process_time()

    first_pace = _flop_seconds_of(model, plan.rows[0], form, shape)
    settings, rows = affordable(plan.rows, spec.settings, form, shape, STEPS_SECONDS / first_pace)
    validation = every(plan.validation or rows, VALIDATED_ROWS)
    use_attention(model, "sdpa")  # the training chooses its form anew
    clock = Clock()
    train(model, rows, validation, settings, Surroundings(folder, clock.note, stop=_never))
    step_peak = peak_of_process(settings.device)
    pace = fit_pace(epoch_loads(rows, settings, form), clock.seconds["step"], shape)
    validated = forward_flops(shape, validation_load(validation, settings, form))
    forward_pace = clock.seconds["validation"][-1] / validated

    before = time.perf_counter()
    save_adapter(model, tokenizer, spec, folder / "adapter")
    save_seconds = time.perf_counter() - before + loading_seconds
    lengths = [len(prompt) for prompt in plan.prompts]
    answering = 2 * forward_flops(shape, answers_load(lengths, ANSWER_TOKENS))
    answer_pace, check_bytes = first_pace, plan.weight_file_bytes
    if answering * first_pace <= CHECK_SECONDS:
        before = time.perf_counter()
        check_adapter(model, spec, folder / "adapter", plan.prompts)
        answer_seconds = time.perf_counter() - before - loading_seconds
        answer_pace = max(answer_seconds / answering, forward_pace)
        check_bytes = peak_of_process(settings.device) - step_peak

    rehearsed_seconds = process_seconds() - start_seconds
    busy_cores = (time.process_time() - start_cpu_seconds) / rehearsed_seconds
    largest = _largest_part(rows, settings, form, shape)
    part_bytes = dry_run.held_bytes(spec.base_path, shape, settings, form, largest)
    sizes = distinct_sizes(rows, settings, form, MOST_SIZES)
    return Figures(
        measured_on=today(),
        packed=form.kind == "packed",
        start_seconds=start_seconds,
        start_cpu_seconds=start_cpu_seconds,
        busy_cores=busy_cores,
        part_seconds=pace.part_seconds,
        flop_seconds=pace.flop_seconds,
        forward_flop_seconds=forward_pace,
        answer_flop_seconds=answer_pace,
        checkpoint_seconds=clock.seconds["checkpoint"][-1],
        save_seconds=save_seconds,
        held_bytes=step_peak - steps_bytes(settings, part_bytes, sizes),
        check_bytes=check_bytes,
        time_band=((1 - pace.band) * _had(settings, busy_cores), 1 + 2 * pace.band),
        memory_band=MEMORY_BAND,
    )


def affordable(
    rows: Sequence[TrainingRow], settings: Settings, form: Form, shape: Shape, flops: float
) -> tuple[Settings, list[TrainingRow]]:
    """Return an epoch of few steps that spans the rows' lengths within so many operations.

    Batches are halved until enough steps fit; rows that alone would be too much are left out.

    Args:
        rows: By length.
        settings: Of the training.
        form: How micro-batches are laid out.
        shape: Of the model.
        flops: To be spent, in forward and backward.

    Returns:
        The settings of the rehearsal, and its rows by length.
    """
    most = flops / FEWEST_STEPS
    rows = [row for row in rows if step_flops(shape, part_load([row], form)) <= most] or rows[:1]
    batch = settings.batch_size
    while batch > 1 and step_flops(shape, step_load(rows[-batch:], settings, form)) > most:
        batch //= 2
    once = {"epochs": 1, "checkpoint_every_steps": None, "checkpoint_seconds": math.inf}
    settings = settings.model_copy(update={"batch_size": batch, **once})
    chosen = spread(rows, batch, FEWEST_STEPS)
    for steps in range(FEWEST_STEPS + 1, MOST_STEPS + 1):
        more = spread(rows, batch, steps)
        if step_flops(shape, sum(epoch_loads(more, settings, form), start=Load())) > flops:
            break
        chosen = more
    return settings, chosen


def spread(rows: Sequence[TrainingRow], batch: int, steps: int) -> list[TrainingRow]:
    """Return the rows of so many batches, evenly spaced from the shortest to the longest rows."""
    starts = every(range(len(rows) % batch, len(rows), batch), steps)
    return [row for start in starts for row in rows[start : start + batch]] or list(rows)


def every(items: Sequence[T], count: int) -> list[T]:
    """Return so many items, two at least, evenly spaced from the first to the last; or all."""
    if len(items) <= count:
        return list(items)
    return [items[round(at * (len(items) - 1) / (count - 1))] for at in range(count)]


@dataclass(frozen=True, slots=True)
class Pace:
    """How long steps take.

    Args:
        part_seconds: Of a micro-batch, whatever its size.
        flop_seconds: Of an operation.
        band: By how much of itself the total may be off.
    """

    part_seconds: float
    flop_seconds: float
    band: float


def fit_pace(loads: Sequence[Load], seconds: Sequence[float], shape: Shape) -> Pace:
    """Return the pace that explains the seconds of steps best, with the right total.

    The first step, which fills caches, is left out where there are others. Relative errors are
    made small (least squares), so that short steps count like long ones; neither part of the pace
    is ever below zero, so that more work never takes less time.

    Args:
        loads: Of each step, in their order.
        seconds: That each took.
        shape: Of the model.
    """
    if len(loads) > 1:
        loads, seconds = loads[1:], seconds[1:]
    taken = np.array(seconds)
    parts = np.array([float(load.parts) for load in loads])
    flops = np.array([step_flops(shape, load) for load in loads])
    relative = np.stack([parts, flops], axis=1) / taken[:, None]
    part, flop = np.linalg.lstsq(relative, np.ones(len(taken)))[0]
    if part < 0 or flop <= 0:
        part, flop = 0.0, taken.sum() / flops.sum()
    expected = part * parts + flop * flops
    right = taken.sum() / expected.sum()
    noise = float(np.std(taken / (expected * right))) / math.sqrt(len(taken))
    band = min(max(LEAST_BAND, 2 * noise), MOST_BAND)
    return Pace(float(part * right), float(flop * right), band)


@dataclass(slots=True)
class Clock:
    """Notes what the training loop took for each thing that it says is done."""

    last: float = field(default_factory=time.perf_counter)
    seconds: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def note(self, kind: Kind, data: dict[str, JsonValue]) -> None:
        """Count the time since the last note for what is done now."""
        del data
        now = time.perf_counter()
        self.seconds.setdefault(kind, []).append(now - self.last)
        self.last = now


def _flop_seconds_of(model: PeftModel, row: TrainingRow, form: Form, shape: Shape) -> float:
    """Return what an operation takes in forward and backward of one row, the second time."""
    batch = form.batch([row], cast("torch.device", model.device))
    taken = 0.0
    model.train()
    for _ in range(2):
        before = time.perf_counter()
        loss = loss_sum(model, batch)
        torch.autograd.backward(loss)
        loss.item()  # waits for a GPU
        taken = time.perf_counter() - before
    model.zero_grad()
    return taken / step_flops(shape, part_load([row], form))


def _largest_part(
    rows: Sequence[TrainingRow], settings: Settings, form: Form, shape: Shape
) -> list[TrainingRow]:
    """Return the micro-batch of an epoch that holds most."""
    parts = [
        part
        for step in epoch_steps(rows, settings)
        for part in micro_batches(step, settings.micro_batch_tokens, share=form.share)
    ]
    return max(parts, key=lambda part: live_bytes(shape, settings, part_load(part, form)))


def _had(settings: Settings, busy_cores: float) -> float:
    """Return the share of the wanted cores that were had; an idle machine would give them all."""
    return min(1.0, busy_cores / settings.threads) if settings.device == "cpu" else 1.0


def _never() -> bool:
    return False


if __name__ == "__main__":
    where = Path(sys.argv[1])
    write_whole(where / "figures.json", rehearse(where).model_dump_json(indent=2))
