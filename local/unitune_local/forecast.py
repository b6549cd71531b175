"""What a training would take, said before it starts, from rows, configuration and machine.

The rows are rendered and laid into the very batches that training would make, so tokens, steps and
the gain of a shared prefix are exact. Memory is that of the largest micro-batch, by a dry run
without numbers (`unitune_local.dry_run`); time is arithmetic over the figures of this machine
(`unitune_local.cost_model`), measured where a calibration was made. No weights are loaded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from unitune.backends.capabilities import Forecast
from unitune.data.dataset import Dataset
from unitune.errors import Unsupported
from unitune.findings import Finding
from unitune.job.job import Job
from unitune_local import dry_run, loading, memory, store
from unitune_local.adapter import ANSWER_TOKENS, checked_prompts
from unitune_local.batches import TrainingRow
from unitune_local.cost_model import Figures, Work, guess, peak_bytes, recall, seconds, sizes_made
from unitune_local.loads import (
    Load,
    answers_load,
    epoch_parts,
    largest_parts,
    part_load,
    total,
    validation_load,
)
from unitune_local.loss import Form, not_plain
from unitune_local.memory import Shape
from unitune_local.rendering import turn_end
from unitune_local.rows import RenderedRows, render_rows
from unitune_local.settings import Settings, resolve

SMALLEST_MICRO_BATCH = 256
"""Tokens; below, the matrix products get slow."""
BUSY_SHARE = 0.2
"""Beyond what a desktop, or a build that ends at once, takes of a machine."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """A forecast with what it is for.

    Args:
        settings: Every choice, resolved.
        shape: Of the model with its adapters.
        rows: To learn from, as the model sees them.
        validation: To measure on, likewise.
        figures: Of this machine.
        forecast: What the training would take.
    """

    settings: Settings
    shape: Shape
    rows: tuple[TrainingRow, ...]
    validation: tuple[TrainingRow, ...]
    figures: Figures
    forecast: Forecast


def look_ahead(job: Job, folder: Path, train: Dataset, validation: Dataset) -> Outlook:
    """Return how a job would be trained here, and what that would take.

    Args:
        job: What the user asks for.
        folder: Of the base model.
        train: Rows to learn from.
        validation: Rows to measure on; may be empty.

    Raises:
        JobError: The options of this backend are not valid.
        UserError: No layer is a target.
    """
    settings = resolve(job, memory.dimensions_of(folder))
    tokenizer = loading.load_tokenizer(folder)
    before = time.perf_counter()
    learnt = render_rows(tokenizer, train, settings.sequence_length)
    held_out = render_rows(tokenizer, validation, settings.sequence_length)
    render_seconds = time.perf_counter() - before
    shape = memory.shape_of(folder, settings)
    figures = recall(shape, settings) or guess(
        shape,
        settings,
        packed=not not_plain(memory.config_of(folder)),
        weight_file_bytes=store.weight_bytes(folder),
    )
    form = figures.form(settings)
    available = memory.available_bytes(settings.device)
    settings, held, steps = fit(folder, shape, settings, figures, learnt.rows, available)

    sizes = sizes_made(steps, settings.epochs)
    work = Work(
        epoch=total(chain.from_iterable(steps)),
        steps=len(steps),
        sizes=sizes,
        validation=validation_load(held_out.rows, settings, form),
        answers=answers_load(
            [len(prompt) for prompt in checked_prompts(learnt.rows, held_out.rows)], ANSWER_TOKENS
        ),
        render_seconds=render_seconds,
    )
    tokens = sum(len(row.ids) for row in learnt.rows)
    trained = sum(row.trained_tokens for row in learnt.rows)
    expected, peak = (
        seconds(figures, shape, settings, work),
        peak_bytes(figures, settings, held, sizes),
    )
    forecast = Forecast(
        findings=(
            *_findings(settings, learnt, held_out, turn_end(tokenizer), shape),
            *_busy_calibration(figures),
        ),
        rows=len(train),
        tokens=tokens,
        trained_tokens=trained,
        epochs=settings.epochs,
        steps=settings.epochs * len(steps),
        seconds_low=figures.time_band[0] * expected,
        seconds_expected=expected,
        seconds_high=figures.time_band[1] * expected,
        memory_low_bytes=round(figures.memory_band[0] * peak),
        memory_bytes=peak,
        memory_high_bytes=round(figures.memory_band[1] * peak),
        memory_available_bytes=available,
        measured_on=figures.measured_on,
        settings={
            **settings.model_dump(mode="json"),
            "trained_share": round(trained / max(tokens, 1), 4),
            "prefix_gain": round(tokens / max(work.epoch.computed, 1), 2),
        },
    )
    return Outlook(settings, shape, learnt.rows, held_out.rows, figures, forecast)


def require_room(forecast: Forecast) -> None:
    """Refuse a training that would not fit into memory.

    Raises:
        Unsupported: It needs more than there is.
    """
    needed, available = forecast.memory_bytes, forecast.memory_available_bytes
    if needed > available:
        raise Unsupported(
            f"the training needs about {needed / 1e9:.1f} GB of memory, and {available / 1e9:.1f} "
            "GB are free. Free some, use a smaller model or lower tuning.sequence_length or "
            "tuning.lora.rank."
        )


def fit(  # noqa: PLR0913, PLR0917 - all that memory depends on
    folder: Path,
    shape: Shape,
    settings: Settings,
    figures: Figures,
    rows: Sequence[TrainingRow],
    available: int,
) -> tuple[Settings, int, list[list[Load]]]:
    """Return the settings with micro-batches small enough for the memory, if any are.

    Args:
        folder: Of the base model.
        shape: Of the model.
        settings: Of the training.
        figures: Of this machine.
        rows: To learn from.
        available: Bytes that may be held.

    Returns:
        The settings, what the largest micro-batch then holds, and the loads of an epoch's steps.
    """
    form = figures.form(settings)
    while True:
        held = _most_held(folder, shape, settings, form, rows)
        steps = epoch_parts(rows, settings, form)
        sizes = sizes_made(steps, settings.epochs)
        fits = peak_bytes(figures, settings, held, sizes) <= available
        if fits or settings.micro_batch_tokens <= SMALLEST_MICRO_BATCH:
            return settings, held, steps
        half = settings.micro_batch_tokens // 2
        settings = settings.model_copy(update={"micro_batch_tokens": half})


def _most_held(
    folder: Path, shape: Shape, settings: Settings, form: Form, rows: Sequence[TrainingRow]
) -> int:
    if not rows:
        return 0
    largest = max(
        largest_parts(rows, settings),
        key=lambda part: memory.live_bytes(shape, settings, part_load(part, form)),
    )
    return dry_run.held_bytes(folder, shape, settings, form, largest)


def _busy_calibration(figures: Figures) -> Iterator[Finding]:
    if figures.others_share > BUSY_SHARE:
        yield Finding(
            severity="warning",
            code="busy-calibration",
            message=f"other programs had {figures.others_share:.0%} of this machine's processors "
            "while steps were timed, so the time is that of a busy machine.",
            fix="Calibrate again when it is idle: unitune plan FILE --calibrate.",
        )


def _findings(
    settings: Settings,
    learnt: RenderedRows,
    held_out: RenderedRows,
    stop: int,
    shape: Shape,
) -> tuple[Finding, ...]:
    found = [*learnt.findings, *held_out.findings]
    if settings.sequence_length > shape.context:
        found.append(
            Finding(
                severity="error",
                code="sequence-length",
                message=f"tuning.sequence_length is {settings.sequence_length}, but the model was "
                f"made for {shape.context} tokens.",
                fix="Lower it, or leave it to auto.",
            )
        )
    endless = [row.line for row in learnt.rows if not _learns_to_stop(row, stop)]
    if endless:
        found.append(
            Finding(
                severity="warning",
                code="stop-not-trained",
                message=f"{len(endless)} of {len(learnt.rows)} rows do not train the token that "
                f"ends an answer, first in line {endless[0]}; the model may not learn to stop.",
                fix="End these rows with an assistant turn of weight 1.",
            )
        )
    if not learnt.rows:
        found.append(
            Finding(
                severity="error",
                code="nothing-to-learn",
                message="no row can be learnt from.",
                fix="Give rows an assistant turn.",
            )
        )
    return tuple(found)


def _learns_to_stop(row: TrainingRow, stop: int) -> bool:
    return any(on and token == stop for token, on in zip(row.ids, row.trained, strict=True))
