"""What a training would take, said before it starts, from rows, configuration and machine.

The rows are rendered and laid into the very batches that training would make, so tokens, steps and
the gain of a shared prefix are exact. Time is arithmetic over a short measurement of this machine;
memory is the formula of `unitune_local.memory`. No weights are loaded.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from unitune.abilities import Forecast
from unitune.data.dataset import Dataset
from unitune.data.findings import Finding
from unitune.errors import Unsupported
from unitune.job import Job
from unitune_local import loading, machine, memory
from unitune_local.batches import TrainingRow, epoch_batches, micro_batches, shared_prefix
from unitune_local.memory import Load, Shape
from unitune_local.rendering import turn_end
from unitune_local.rows import RenderedRows, render_rows
from unitune_local.settings import Settings, resolve


@dataclass(frozen=True, slots=True)
class Range:
    """From the least to the most that is to be expected."""

    low: float
    high: float


CALIBRATION_SECONDS = 0.3
FASTEST_SHARE, SLOWEST_SHARE = 0.85, 0.2
"""Of the measured matrix products per second: 0.35 to 0.7 was reached on an idle CPU in either
dtype, less with short micro-batches, or when others use the machine."""
STARTUP_SECONDS = Range(5.0, 40.0)
"""Imports, loading, the first checkpoint, saving and checking the adapter."""
SMALLEST_MICRO_BATCH = 256
"""Tokens; below, the matrix products get slow."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """A forecast with the settings that it is for.

    Args:
        settings: Every choice, resolved.
        forecast: What they would take.
    """

    settings: Settings
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
    learnt = render_rows(tokenizer, train, settings.sequence_length)
    held_out = render_rows(tokenizer, validation, settings.sequence_length)
    shape = memory.shape_of(folder, settings)
    available = memory.available_bytes(settings.device)
    settings = fit(shape, settings, learnt.rows, available)

    load = epoch_load(learnt.rows, settings)
    tokens = sum(len(row.ids) for row in learnt.rows)
    seconds = _seconds(shape, settings, load, epoch_load(held_out.rows, settings))
    peak = memory.peak_bytes(shape, settings, largest_load(learnt.rows, settings))
    forecast = Forecast(
        findings=_findings(settings, learnt, held_out, turn_end(tokenizer), shape),
        rows=len(train),
        tokens=tokens,
        trained_tokens=load.trained,
        epochs=settings.epochs,
        steps=settings.epochs * math.ceil(len(learnt.rows) / settings.batch_size),
        seconds_low=seconds.low,
        seconds_expected=math.sqrt(seconds.low * seconds.high),
        seconds_high=seconds.high,
        memory_low_bytes=peak // 2,
        memory_bytes=peak,
        memory_high_bytes=peak * 3 // 2,
        memory_available_bytes=available,
        settings={
            **settings.model_dump(mode="json"),
            "trained_share": round(load.trained / max(tokens, 1), 4),
            "prefix_gain": round(tokens / max(load.computed, 1), 2),
        },
    )
    return Outlook(settings, forecast)


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


def fit(shape: Shape, settings: Settings, rows: Sequence[TrainingRow], available: int) -> Settings:
    """Return the settings with micro-batches small enough for the memory, if any are."""
    while settings.micro_batch_tokens > SMALLEST_MICRO_BATCH:
        if memory.peak_bytes(shape, settings, largest_load(rows, settings)) <= available:
            break
        settings = settings.model_copy(
            update={"micro_batch_tokens": settings.micro_batch_tokens // 2}
        )
    return settings


def epoch_load(rows: Sequence[TrainingRow], settings: Settings) -> Load:
    """Return what one pass over rows has to compute, in the batches of the first epoch."""
    lengths = [len(row.ids) for row in rows]
    batches = epoch_batches(lengths, settings.batch_size, settings.seed, 0)
    loads = [
        load for batch in batches for load in _loads([rows[index] for index in batch], settings)
    ]
    return sum(loads, start=Load())


def largest_load(rows: Sequence[TrainingRow], settings: Settings) -> Load:
    """Return the most that a micro-batch can be, whatever rows an epoch brings together."""
    longest = sorted(rows, key=lambda row: len(row.ids))[-settings.batch_size :]
    loads = _loads(longest, settings)
    return Load(
        computed=max((load.computed for load in loads), default=0),
        trained=max((load.trained for load in loads), default=0),
        pairs=max((load.pairs for load in loads), default=0),
    )


def _loads(rows: Sequence[TrainingRow], settings: Settings) -> list[Load]:
    """Return the load of each micro-batch of a step."""
    share = settings.share_prefix
    parts = micro_batches(rows, settings.micro_batch_tokens, share=share)
    return [_load(part, shared_prefix(part) if share else 0) for part in parts]


def _load(rows: Sequence[TrainingRow], prefix: int) -> Load:
    own = [len(row.ids) - prefix for row in rows]
    longest = max(own)
    return Load(
        computed=prefix + sum(own),
        trained=sum(row.trained_tokens for row in rows),
        pairs=prefix**2 + len(rows) * longest * (prefix + longest),
    )


def _seconds(shape: Shape, settings: Settings, train: Load, validation: Load) -> Range:
    # A validation is a forward without a backward, once an epoch and once before the first.
    checking = memory.step_flops(shape, validation) / 2
    total = settings.epochs * memory.step_flops(shape, train) + (settings.epochs + 1) * checking
    speed = _flops_per_second(settings, shape)
    return Range(
        STARTUP_SECONDS.low + total / (speed.high * FASTEST_SHARE),
        STARTUP_SECONDS.high + total / (speed.low * SLOWEST_SHARE),
    )


def _flops_per_second(settings: Settings, shape: Shape) -> Range:
    """Measure matrix products of the model's own shape on the device that will train.

    A CPU is measured by one thread, and counted as many times as there are threads. Low is the
    mean of all products, high the best of them: what the machine does when nobody else wants it.
    """
    device, dtype = torch.device(settings.device), settings.torch_dtype
    times: list[float] = []
    with machine.one_thread():
        tokens = torch.ones(512, shape.hidden, device=device, dtype=dtype)
        weight = torch.ones(shape.hidden, shape.mlp, device=device, dtype=dtype)
        product = torch.mm(tokens, weight)  # prepares the kernel
        while sum(times) < CALIBRATION_SECONDS:
            start = time.perf_counter()
            torch.mm(tokens, weight, out=product)
            product[0, 0].cpu()  # waits for a GPU
            times.append(time.perf_counter() - start)
    threads = settings.threads if settings.device == "cpu" else 1
    flops = threads * 2 * tokens.shape[0] * weight.numel()
    return Range(flops * len(times) / sum(times), flops / min(times))


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
