"""Count the operations and bytes of a training, with one formula for every architecture.

Factors that are measured on this machine (`unitune_local.models.size`) make them time and memory.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple, cast

from pydantic import JsonValue

from unitune.workspace.user_settings import today
from unitune_local import machine
from unitune_local.data.attention import LARGEST_PLAIN_SCORES
from unitune_local.data.batches import (
    TrainingRow,
    micro_batches,
    rounded,
    shared_prefix,
    spread_rows,
)
from unitune_local.job_folder import Kind, Note
from unitune_local.models.size import Conditions, ModelSize, Speed, keep_speed
from unitune_local.objectives.loss import Form, most_logits
from unitune_local.settings import Settings
from unitune_local.spec import SpeedBasis

# Starting, saving and checking of the adapter: the embedded model on two idle cores.
OVERHEAD_SECONDS = 12.0
# Operations that equal the fixed time of a layer in each micro-batch: about a millisecond.
LAYER_FLOPS = {"cpu": 5e7, "mps": 1e9, "cuda": 1e11}
LEAST_SECONDS = 2.0  # of steps; a shorter measurement does not count

# Python with torch, transformers and peft, and a first step of the smallest model.
PROCESS_BYTES = 500 * 2**20
TRAINED_BYTES, ADAM_BYTES = 8, 8  # of a trained weight: itself and its gradient; two moments
QUANTIZED_BYTES = {"4bit": 0.516, "8bit": 1.0}  # 4 bits, and a scale for 64 of them in 8 bits
WORKSPACE = 1.4  # gradients, other needs of kernels, and fragmentation of the heap
NORM_BYTES = 8  # of a token's hidden value in each layer: both norms compute in float32
LOGIT_BYTES = 12  # of a logit: itself, its log-probability and its gradient, in float32
# A CPU compiles and caches bfloat16 kernels for each number of tokens: 13 MiB a number were
# measured, up to 43 to 60 of them, as oneDNN keeps 1024 kernels.
# Source: https://uxlfoundation.github.io/oneDNN/dev_guide_primitive_cache.html (2026-11-25).
LENGTH_BYTES, MOST_LENGTHS = 14 * 2**20, 45
GATHERED_LAYERS = 3  # whole at once: the current layer, the next, and the inputs from all processes


class PartCost(NamedTuple):
    """Cost of a micro-batch."""

    tokens: int  # tokens that pass through the layers
    flops: float  # operations
    held: int  # bytes in addition to weights and optimiser


def part_cost(
    size: ModelSize, rows: Sequence[TrainingRow], form: Form, settings: Settings
) -> PartCost:
    """Return the cost of one micro-batch, in forward and backward.

    Source: 2 operations a weight and token forward, 2 for the gradient of the input, and 2 more for
    the gradient of a trained weight; attention takes 4 H a query-key pair, three times.
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
    again = 1 if settings.gradient_checkpointing else 0  # a second pass forward
    weights = (4 + 2 * again) * size.linear + 2 * (
        size.linear if size.trains_all else (3 + again) * size.trained
    )
    head = (4 if form.most_logits is None else 6) * size.head * logits
    attention = 4 * (3 + again) * size.hidden * size.layers * pairs
    fixed = size.layers * LAYER_FLOPS[settings.device]
    flops = weights * tokens + head + attention + fixed

    itemsize = settings.torch_dtype.itemsize
    # Keys and values of a shared prefix are copied to each of its rows.
    layers = itemsize * (size.features * tokens + 2 * size.hidden * size.layers * count * prefix)
    if itemsize < 4:
        layers += NORM_BYTES * size.hidden * size.layers * tokens
    layers += size.layers * _score_bytes(size, form, settings, count * longest, prefix + longest)
    if settings.gradient_checkpointing:
        layers = layers // size.layers + itemsize * size.hidden * size.layers * tokens
    kept = logits if form.most_logits is None else min(logits, form.most_logits)
    words = size.head // size.hidden
    return PartCost(tokens, float(flops), round(WORKSPACE * layers + LOGIT_BYTES * kept * words))


def _score_bytes(size: ModelSize, form: Form, settings: Settings, queries: int, keys: int) -> int:
    """Return the bytes that attention keeps of pairs in a layer; fused, only its mask."""
    itemsize, scores = settings.torch_dtype.itemsize, size.heads * queries * keys
    plain = form.kind == "packed" and settings.makes_kernels and scores <= LARGEST_PLAIN_SCORES
    if plain:
        return itemsize * scores
    if size.stores_scores:  # also before they are rounded from float32
        return (4 + itemsize) * scores
    return itemsize * queries * keys


class StepCost(NamedTuple):
    """Micro-batches of a step, and their costs in the busiest process."""

    parts: list[list[TrainingRow]]
    busiest: list[PartCost]


def training_conditions(size: ModelSize, settings: Settings) -> Conditions:
    """Return the conditions that the speed of a training is measured and stored under."""
    dtype, threads = settings.torch_dtype, settings.threads
    return Conditions("training", size, settings.device, dtype, threads, settings.quantization)


class CostModel(NamedTuple):
    """Cost model of the trainings of a model on this machine."""

    size: ModelSize
    speed: Speed
    is_plain: bool  # its attention is plain causal
    file_bytes: int  # size of its weight files
    optimizer_bytes: float = ADAM_BYTES  # state of the optimiser for each trained weight

    def form(self, settings: Settings) -> Form:
        """Return the expected layout of micro-batches."""
        packs = self.size.packs and self.is_plain
        share = packs and settings.share_prefix
        kind = "packed" if packs else "padded"
        return Form(kind, share, settings.length_multiple, most_logits(settings))

    def step(self, rows: Sequence[TrainingRow], settings: Settings) -> StepCost:
        """Return rows spread over processes and cut into micro-batches, with their costs."""
        form = self.form(settings)
        cut = partial(micro_batches, most_tokens=settings.micro_batch_tokens, share=form.share)
        ranks = [cut(share) for share in spread_rows(rows, settings.processes)]
        costs = [[part_cost(self.size, part, form, settings) for part in parts] for parts in ranks]
        busiest = max(costs, key=lambda parts: sum(part.flops for part in parts))
        return StepCost([*chain(*ranks)], busiest)

    def seconds(self, parts: Sequence[PartCost]) -> float:
        """Return the seconds of micro-batches, forward and backward."""
        return self.speed.flop_seconds * sum(part.flops for part in parts)

    def peak_bytes(self, settings: Settings, parts: Sequence[PartCost]) -> int:
        """Return the peak memory of all processes on a device, in bytes."""
        size, itemsize = self.size, settings.torch_dtype.itemsize
        matrices = size.matrices * QUANTIZED_BYTES.get(settings.quantization or "", itemsize)
        if settings.shard:
            matrices *= 1 / settings.processes + GATHERED_LAYERS / size.layers
        frozen = 0 if size.trains_all else matrices + itemsize * (size.parameters - size.matrices)
        # Files of another dtype are read in addition to the weights; others are mapped as the
        # weights.
        is_mapped = round(self.file_bytes / size.parameters) == itemsize
        read_whole = settings.device != "cuda" and not (is_mapped or settings.quantization)
        lengths = len({part.tokens for part in parts}) if settings.makes_kernels else 0
        steps = LENGTH_BYTES * min(lengths, MOST_LENGTHS)
        steps += (TRAINED_BYTES + self.optimizer_bytes) * size.trained
        steps += max((part.held for part in parts), default=0)
        whole = PROCESS_BYTES + frozen + max(self.file_bytes if read_whole else 0, steps)
        return round(self.speed.memory_share * whole * settings.processes_per_device)


class StepClock:
    """Timer of a training's steps by its events.

    Only the later half counts, as kernels are prepared in the first steps.
    """

    def __init__(self, note: Note) -> None:
        self._note = note
        self._before = time.perf_counter()
        self.steps: list[tuple[float, int]] = []  # seconds and tokens of each

    def note(self, kind: Kind, data: dict[str, JsonValue]) -> None:
        """Pass on an event; a step has taken the time since the previous event."""
        if kind == "step":
            seconds = time.perf_counter() - self._before
            self.steps.append((seconds, cast("int", data["tokens"])))
        self._note(kind, data)
        self._before = time.perf_counter()

    @property
    def says_enough(self) -> bool:
        """True if the steps took long enough and the machine is not overloaded now."""
        return (
            sum(seconds for seconds, _ in self.steps) > LEAST_SECONDS and not machine.overloaded()
        )

    def keep(self, basis: SpeedBasis, device: str, busy_share: float = 0.0) -> None:
        """Store the speed of the steps and the memory of this process for later forecasts."""
        timed = self.steps[len(self.steps) // 2 :]
        seconds, tokens = (sum(column) for column in zip(*timed, strict=True))
        speed = Speed(
            flop_seconds=seconds / (tokens * basis.flops_per_token),
            memory_share=machine.peak_of_process(device) / basis.peak_bytes,
            measured_on=today(),
            busy_share=busy_share,
        )
        keep_speed(speed, basis.key)
