"""A training rehearsed: a few steps of it, timed, in a process of its own that leaves nothing.

    python -m unitune_local.profile_run FOLDER

reads ``rehearsal.json`` in the folder and writes ``figures.json``. All that is timed is what a
training runs (`unitune_local.train`, `unitune_local.adapter`), on rows of the job: the start, the
longest step, which grows to the memory that steps need, steps of different length, once when
kernels are made for them and once when they are there, a validation, a checkpoint, saving and
checking the adapter. Memory is the process's own high-water mark.

How much is tried depends on what the shortest rows took, so that a large model is rehearsed in
about the same time as a small one. Not here: choosing the rows (`unitune_local.calibrating`).
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TypeVar, cast

import psutil
import torch
from peft import PeftModel
from pydantic import BaseModel, ConfigDict, JsonValue

from unitune.workspace.filesystem import replacing
from unitune.workspace.today import today
from unitune_local import dry_run, loading
from unitune_local.adapter import ANSWER_TOKENS, check_adapter, save_adapter
from unitune_local.batches import WINDOW, TrainingRow, micro_batches
from unitune_local.cost_model import MOST_SIZES, Figures, forward_flops, steps_bytes
from unitune_local.job_folder import Kind
from unitune_local.loads import (
    Load,
    answers_load,
    epoch_parts,
    epoch_steps,
    new_sizes,
    part_load,
    step_parts,
    total,
    validation_load,
)
from unitune_local.loss import Form, choose_form, loss_sum, use_attention
from unitune_local.memory import Shape, live_bytes, peak_of_process, step_flops
from unitune_local.settings import Settings
from unitune_local.spec import Spec
from unitune_local.step_time import Pace, fit_pace
from unitune_local.train import Surroundings, train
from unitune_local.training import process_seconds, trainable_model

T = TypeVar("T")

EPOCHS = 2
STEPS_SECONDS = 16.0
"""For the steps of an epoch, at the pace of the shortest rows."""
MOST_STEPS = WINDOW
"""The training would sort no more of them by length together."""
FEWEST_STEPS = 4
"""Where they would take too long, batches are made smaller."""
CHECK_SECONDS = 8.0
"""A check of the adapter that would take longer is not rehearsed."""
VALIDATED_ROWS = 16
MEMORY_BAND = (0.85, 1.2)
"""Ten jobs, each trained three times, held 93 to 113 % of what was expected (2026-11-26,
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
    share, multiple = spec.settings.share_prefix, spec.settings.length_multiple
    form = choose_form(model, plan.rows, share=share, multiple=multiple)
    start_seconds, start_cpu_seconds = process_seconds(), time.process_time()
    start_machine_seconds = machine_cpu_seconds()

    steps = _rehearse_steps(plan, model, form, folder)
    settings = steps.settings
    step_peak = peak_of_process(settings.device)

    before = time.perf_counter()
    save_adapter(model, tokenizer, spec, folder / "adapter")
    save_seconds = time.perf_counter() - before + loading_seconds
    lengths = [len(prompt) for prompt in plan.prompts]
    answering = 2 * forward_flops(shape, answers_load(lengths, ANSWER_TOKENS))
    answer_pace, check_bytes = steps.forward_pace, plan.weight_file_bytes
    if answering * steps.forward_pace <= CHECK_SECONDS:
        before = time.perf_counter()
        check_adapter(model, spec, folder / "adapter", plan.prompts)
        answer_seconds = time.perf_counter() - before - loading_seconds
        answer_pace = max(answer_seconds / answering, steps.forward_pace)
        check_bytes = peak_of_process(settings.device) - step_peak

    rehearsed_seconds = process_seconds() - start_seconds
    own_cpu_seconds = time.process_time() - start_cpu_seconds
    busy_cores = own_cpu_seconds / rehearsed_seconds
    others_seconds = machine_cpu_seconds() - start_machine_seconds - own_cpu_seconds
    machine_seconds = rehearsed_seconds * (psutil.cpu_count() or 1)
    largest = _largest_part(steps.rows, settings, form, shape)
    part_bytes = dry_run.held_bytes(spec.base_path, shape, settings, form, largest)
    pace = steps.pace
    return Figures(
        measured_on=today(),
        packed=form.kind == "packed",
        start_seconds=start_seconds,
        start_cpu_seconds=start_cpu_seconds,
        busy_cores=busy_cores,
        others_share=min(1.0, max(0.0, others_seconds / machine_seconds)),
        part_seconds=pace.part_seconds,
        flop_seconds=pace.flop_seconds,
        size_seconds=pace.size_seconds,
        first_step_seconds=steps.growth_seconds,
        forward_flop_seconds=steps.forward_pace,
        answer_flop_seconds=answer_pace,
        checkpoint_seconds=steps.checkpoint_seconds,
        save_seconds=save_seconds,
        held_bytes=step_peak - steps_bytes(settings, part_bytes, steps.sizes),
        check_bytes=check_bytes,
        time_band=((1 - pace.band) * _had(settings, busy_cores), 1 + 2 * pace.band),
        memory_band=MEMORY_BAND,
    )


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps that were rehearsed.

    Args:
        settings: Of the training, with a batch that was affordable.
        rows: That were trained on, by length.
        sizes: Numbers of tokens that kernels were made for.
        pace: Of the steps.
        growth_seconds: What growing to the memory that steps need took.
        forward_pace: Seconds of an operation in a validation.
        checkpoint_seconds: Of one checkpoint.
    """

    settings: Settings
    rows: list[TrainingRow]
    sizes: int
    pace: Pace
    growth_seconds: float
    forward_pace: float
    checkpoint_seconds: float


def _rehearse_steps(plan: Rehearsal, model: PeftModel, form: Form, folder: Path) -> Steps:
    """Train on the longest rows of the plan, then twice on rows of every length."""
    shape, settings = plan.shape, plan.spec.settings
    shortest = plan.rows[: settings.batch_size]
    part = micro_batches(shortest, settings.micro_batch_tokens, share=form.share)[0]
    pilot = _try_out(model, part, form)
    flops = STEPS_SECONDS / pilot.again * step_flops(shape, pilot.load)
    settings, rows = affordable(plan.rows, settings, form, shape, flops)
    longest = rows[-settings.batch_size :]
    validation = every(plan.validation or rows, VALIDATED_ROWS)

    clock = Clock()
    for name, some, held_out, epochs in (
        ("longest", longest, [], 1),
        ("all", rows, validation, EPOCHS),
    ):
        use_attention(model, "sdpa")  # the training chooses its form anew
        around = Surroundings(folder / name, clock.note, stop=_never)
        train(model, some, held_out, settings.model_copy(update={"epochs": epochs}), around)

    steps = [[pilot.load], step_parts(longest, settings, form)]
    for epoch in range(EPOCHS):
        steps += epoch_parts(rows, settings, form, epoch)
    new = new_sizes(steps, MOST_SIZES) if settings.makes_kernels else [0] * len(steps)
    pace = fit_pace([total(parts) for parts in steps[1:]], new[1:], clock.seconds["step"], shape)
    # Memory grew in the pilot already; a training grows to all of it in its first steps.
    growth = pace.first_step_seconds + pilot.first - pilot.again - new[0] * pace.size_seconds
    validated = forward_flops(shape, validation_load(validation, settings, form))
    return Steps(
        settings=settings,
        rows=rows,
        sizes=sum(new),
        pace=pace,
        growth_seconds=max(0.0, growth),
        forward_pace=clock.seconds["validation"][-1] / validated,
        checkpoint_seconds=clock.seconds["checkpoint"][-1],
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
    while batch > 1 and step_flops(shape, total(step_parts(rows[-batch:], settings, form))) > most:
        batch //= 2
    rarely = {"checkpoint_every_steps": None, "checkpoint_seconds": math.inf}
    settings = settings.model_copy(update={"batch_size": batch, **rarely})
    chosen = spread(rows, batch, FEWEST_STEPS)
    for steps in range(FEWEST_STEPS + 1, MOST_STEPS + 1):
        more = spread(rows, batch, steps)
        epoch = epoch_parts(more, settings, form)
        if step_flops(shape, total(chain.from_iterable(epoch))) > flops:
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


@dataclass(frozen=True, slots=True)
class Pilot:
    """A micro-batch computed twice, forward and backward.

    Args:
        load: That was computed.
        first: Seconds of the first time, when memory is new and kernels are made.
        again: Seconds of the second time.
    """

    load: Load
    first: float
    again: float


def _try_out(model: PeftModel, rows: Sequence[TrainingRow], form: Form) -> Pilot:
    batch = form.batch(rows, cast("torch.device", model.device))
    taken: list[float] = []
    model.train()
    for _ in range(2):
        before = time.perf_counter()
        loss = loss_sum(model, batch)
        torch.autograd.backward(loss)
        loss.item()  # waits for a GPU
        taken.append(time.perf_counter() - before)
    model.zero_grad()
    return Pilot(part_load(rows, form), *taken)


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


def machine_cpu_seconds() -> float:
    """Return the seconds that all processors of the machine have worked since it was started."""
    spent = psutil.cpu_times()
    return sum(spent) - spent.idle - getattr(spent, "iowait", 0.0)


def _had(settings: Settings, busy_cores: float) -> float:
    """Return the share of the wanted cores that were had; an idle machine would give them all."""
    return min(1.0, busy_cores / settings.threads) if settings.device == "cpu" else 1.0


def _never() -> bool:
    return False


if __name__ == "__main__":
    where = Path(sys.argv[1])
    with replacing(where / "figures.json") as file:
        file.write(rehearse(where).model_dump_json(indent=2))
