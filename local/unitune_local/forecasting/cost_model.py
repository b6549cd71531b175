"""What a training takes on one machine: seconds and bytes, from what it has to compute.

A training is a start, micro-batches, validations and an end that saves and checks the adapter. A
micro-batch costs a fixed time and a time for each operation. Memory is what the process always
holds and a factor on what the largest micro-batch holds. The figures are measured by
`unitune_local.training.profile_run` and kept in the cache under all that they depend on, or guessed
from a short measurement of matrix products. Left out are checkpoints and the making of kernels,
which take 1 to 2 % of a training's time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import nnls

from unitune.data.example import digest
from unitune.security.spec import Closed
from unitune_local import machine
from unitune_local.data.batches import (
    TrainingRow,
    micro_batches,
    rounded,
    shared_prefix,
    spread_rows,
)
from unitune_local.forecasting.memory import Shape
from unitune_local.objectives.loss import Form, most_logits
from unitune_local.settings import Settings

PROCESS_BYTES = 440 * 2**20
"""Python with torch, transformers and peft, before a model is loaded: 415 to 430 MiB were
measured."""
ADAPTER_BYTES = 12
"""Of each adapter weight between two steps: itself and two moments, in float32."""
WORKSPACE = 1.4
"""Of what a micro-batch holds: workspace of the kernels, and holes in the heap."""
QUANTIZED_BYTES = {"4bit": 0.516, "8bit": 1.0}
"""Of a quantised weight: 4 bits, and a scale for 64 of them in 8 bits (Dettmers et al. 2023)."""
SIZE_BYTES, MOST_SIZES = 14 * 2**20, 45
"""A CPU's kernels in bfloat16 are made for each number of tokens anew, and kept: 13 MiB a number
were measured, growing no more after 43 to 60 of them, as oneDNN keeps 1024 kernels.
Source: https://uxlfoundation.github.io/oneDNN/dev_guide_primitive_cache.html (2026-11-25)."""
GATHERED_LAYERS = 3
"""Whole at once: the one that is computed, the next, and what came of all processes."""
REACHED_SHARE = {"float32": 0.6, "bfloat16": 0.25}
"""Of the measured matrix products per second, in a training on a CPU; less in bfloat16, as all but
the products is as slow as before."""


class PartWork(NamedTuple):
    """What a micro-batch computes: tokens that go through the layers, and operations."""

    tokens: int
    flops: float


class CostModel(Closed):
    """What the parts of a training take here."""

    measured_on: date | None = None
    """None: guessed."""
    busy_share: float = 0.0
    """Of the processor that other programs used then."""
    packed: bool
    """Whether the model takes packed micro-batches."""
    start_seconds: float
    """From the start of the process to the first step, rendering of rows apart, and what growing
    to the memory of a step takes."""
    part_seconds: float
    """Of a micro-batch, whatever its size."""
    flop_seconds: float
    """Of an operation in forward and backward."""
    end_seconds: float
    """Saving the adapter, loading it on a fresh base and comparing the answers of both."""
    held_bytes: int
    """All but what grows with micro-batches."""

    def form(self, settings: Settings) -> Form:
        """Return how micro-batches are laid out."""
        share = self.packed and settings.share_prefix
        kind = "packed" if self.packed else "padded"
        return Form(kind, share, settings.length_multiple, most_logits(settings))

    def seconds(
        self,
        epochs: float,
        parts: Sequence[PartWork],
        validation: Sequence[PartWork],
        validations: int,
        forwards: float = 0,
    ) -> float:
        """Return how long a training is expected to take, rendering of rows apart.

        Args:
            epochs: Passes over the rows.
            parts: Micro-batches of one epoch.
            validation: Micro-batches of one validation, which has no backward pass.
            validations: How many of them are made.
            forwards: Further passes over all of them without a backward pass.
        """
        validated = (validations + forwards) * self._seconds(validation) / 2
        steps = (epochs + forwards / 2) * self._seconds(parts)
        return self.start_seconds + steps + validated + self.end_seconds

    def _seconds(self, parts: Sequence[PartWork]) -> float:
        flops = sum(part.flops for part in parts)
        return len(parts) * self.part_seconds + flops * self.flop_seconds


def different_sizes(parts: Sequence[PartWork]) -> int:
    """Return how many different numbers of tokens micro-batches have."""
    return len({part.tokens for part in parts})


def steps_bytes(settings: Settings, part_bytes: int, sizes: int) -> int:
    """Return what steps add to what is held before the first of them."""
    kernels = SIZE_BYTES * min(sizes, MOST_SIZES) if settings.makes_kernels else 0
    return round(WORKSPACE * part_bytes) + kernels


def spared_bytes(shape: Shape, settings: Settings) -> int:
    """Return what a process holds less where the layers' weights are spread over all."""
    if not settings.shard:
        return 0
    layers = shape.linear * settings.torch_dtype.itemsize
    return round(layers * (1 - 1 / settings.processes - GATHERED_LAYERS / shape.layers))


def fit(timed: Sequence[tuple[PartWork, float]]) -> tuple[float, float]:
    """Return the seconds of a micro-batch and of an operation that explain measured times best.

    Best: with the least squared relative errors, no cost below zero.
    """
    causes = np.array([(1.0, work.flops) for work, _ in timed])  # (parts, 2)
    relative = causes / np.array([seconds for _, seconds in timed])[:, None]
    scale = relative.max(axis=0)  # operations are many
    part, flop = map(float, nnls(relative / scale, np.ones(len(timed)))[0] / scale)
    return part, flop


def part_work(
    shape: Shape, rows: Sequence[TrainingRow], form: Form, *, twice: bool | None = False
) -> PartWork:
    """Return what one micro-batch computes, in forward and backward.

    Source: 2 operations a weight and token forward, 2 for the gradient of the input, and 2 more for
    the gradient of an adapter's weight; attention likewise with 4 H a query-key pair, three times.
    """
    if form.kind == "padded":
        rows = [side for row in rows for side in row.conversations]
    count = len(rows)
    prefix = shared_prefix(rows) if form.share else 0
    own = [len(row.ids) - prefix for row in rows]
    longest = rounded(max(own), form.multiple)
    if form.kind == "packed":
        tokens = rounded(prefix + sum(own), form.multiple)
        logits = sum(row.trained_tokens for row in rows)
    else:
        tokens = count * longest
        logits = count * len({at for row in rows for at, on in enumerate(row.trained[1:]) if on})
    pairs = prefix**2 + count * longest * (prefix + longest)
    forwards = 2 if twice else 1
    linear = 2 * ((1 + forwards) * shape.linear + (2 + forwards) * shape.adapter) * tokens
    head = (4 if form.most_logits is None else 6) * shape.vocabulary * shape.hidden * logits
    attention = 4 * (2 + forwards) * shape.hidden * shape.layers * pairs
    return PartWork(tokens, float(linear + head + attention))


class StepWork(NamedTuple):
    """The micro-batches of a step, and the work of the process that has most of it."""

    parts: list[list[TrainingRow]]
    work: list[PartWork]

    @classmethod
    def of(
        cls, rows: Sequence[TrainingRow], settings: Settings, form: Form, shape: Shape
    ) -> StepWork:
        """Return rows as they would be spread over processes, and cut."""
        cut = partial(micro_batches, most_tokens=settings.micro_batch_tokens, share=form.share)
        ranks = [cut(share) for share in spread_rows(rows, settings.processes)]
        work_of = partial(part_work, shape, form=form, twice=settings.gradient_checkpointing)
        work = [[work_of(part) for part in parts] for parts in ranks]
        busiest = max(work, key=lambda parts: sum(part.flops for part in parts))
        return cls([*chain(*ranks)], busiest)


def guess(
    shape: Shape, settings: Settings, *, packed: bool, weight_file_bytes: int, checked_tokens: int
) -> CostModel:
    """Return a cost model that rests on a model's shape and on a third of a second of measuring.

    What hardly depends on the model is what the embedded one took on two idle cores.
    """
    rate = machine.products_per_second(
        torch.device(settings.device), settings.torch_dtype, shape.hidden, shape.mlp
    )
    threads = settings.threads if settings.device == "cpu" else 1
    flop_seconds = 1 / (threads * rate * REACHED_SHARE[settings.dtype])
    check = 2 * shape.linear * checked_tokens * flop_seconds
    itemsize = settings.torch_dtype.itemsize
    quantized = QUANTIZED_BYTES.get(settings.quantization or "", itemsize)
    weights = round((shape.parameters - shape.linear) * itemsize + shape.linear * quantized)
    is_mapped = round(weight_file_bytes / shape.parameters) == itemsize
    read_whole = settings.device != "cuda" and not (is_mapped or settings.quantization)
    return CostModel(
        packed=packed,
        start_seconds=10.0,
        part_seconds=0.02,
        flop_seconds=flop_seconds,
        end_seconds=2.0 + check,
        # A file of another dtype is read beside its weights; one of the same is the weights. The
        # base that is loaded for the check has the place of the trained one.
        held_bytes=PROCESS_BYTES
        + weights
        + ADAPTER_BYTES * shape.adapter
        + (weight_file_bytes if read_whole else 0),
    )


def calibration(shape: Shape, settings: Settings) -> str:
    """Return the name under which measurements are kept: of what they depend on, not the rows."""
    chosen = {
        "device",
        "dtype",
        "quantization",
        "threads",
        "rank",
        "targets",
        "dropout",
        "dora",
        "share_prefix",
    }
    depends_on = {
        "processor": machine.processor(settings.device),
        "torch": torch.__version__,
        "shape": asdict(shape),
        "settings": settings.model_dump(mode="json", include=chosen),
    }
    return digest(depends_on)
