"""Micro-batches that fit into memory: how large they are, and what is computed again for it.

Smaller micro-batches come first, as they cost little. Where the smallest would not fit, logits are
kept of a few tokens at a time, and then of each layer its input alone; the rest is computed again
in the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from peft import PeftModel

from unitune.backends.options import job_options
from unitune.findings import Finding, note
from unitune.job.job import Job
from unitune_local.data.batches import TrainingRow, epoch_batches
from unitune_local.forecasting import memory
from unitune_local.forecasting.cost_model import (
    CostModel,
    PartWork,
    StepWork,
    different_sizes,
    part_work,
    spared_bytes,
    steps_bytes,
)
from unitune_local.forecasting.sampling_cost import AnswerTokens, stand_ins
from unitune_local.models.model import keep_inputs_alone
from unitune_local.options import LocalOptions
from unitune_local.settings import Settings

COMPUTED_AGAIN = {
    "chunked_cross_entropy": "logits",
    "gradient_checkpointing": "values within the layers",
}
"""Settings that compute values again, the cheaper first: a product with the output head alone."""
SMALLEST_MICRO_BATCH = 256
"""Tokens; below, the matrix products get slow."""


@dataclass(frozen=True, slots=True)
class Batching:
    """The micro-batches of an epoch in their order, the one that holds most, and what they take.

    Where several processes compute, the work is that of the busiest one in each step.
    """

    settings: Settings
    parts: list[list[TrainingRow]]
    work: list[PartWork]
    largest: list[TrainingRow]
    peak_bytes: int
    otherwise_bytes: int
    """The peak if nothing was computed again or spread over processes to save memory."""


def fit_batches(  # noqa: PLR0913, PLR0917 - what they depend on
    model: PeftModel,
    settings: Settings,
    cost_model: CostModel,
    rows: Sequence[TrainingRow],
    available: int,
    answers: AnswerTokens | None = None,
) -> Batching:
    """Cut rows into micro-batches that are small enough for the memory, if any are.

    Args:
        model: On torch's meta device.
        settings: Of the training.
        cost_model: Of the machine.
        rows: Of the data.
        available: Bytes of memory.
        answers: How long the answers are that are sampled to them; None: none are.
    """
    shape = memory.shape_of(model)
    order = epoch_batches([len(row.ids) for row in rows], settings.batch_size, settings.seed, 0)
    steps = [
        stand_ins([rows[index] for index in step], settings, answers and answers.expected)
        for step in order
    ]
    # The longest rows and those with the most trained tokens, as steps of an epoch.
    longest = sorted(rows, key=lambda row: len(row.ids))
    most_trained = sorted(longest, key=lambda row: row.trained_tokens)
    largest_steps = [
        stand_ins(each[-settings.batch_size :], settings, answers and answers.high)
        for each in (longest, most_trained)
    ]
    ways, otherwise = _ways(settings), 0
    for number, way in enumerate(ways, 1):
        form = cost_model.form(way)
        spread = [StepWork.of(step, way, form, shape) for step in steps]
        work = [part for step in spread for part in step.work]
        largest_spread = (StepWork.of(step, way, form, shape) for step in largest_steps)
        largest = max(
            (part for step in largest_spread for part in step.parts),
            key=lambda part: part_work(shape, part, form).flops,
            default=list[TrainingRow](),
        )
        if way.gradient_checkpointing:
            keep_inputs_alone(model)
        held = memory.held_bytes(model, form, largest) if largest else 0
        peak = cost_model.held_bytes + steps_bytes(way, held, different_sizes(work))
        peak = (peak - spared_bytes(shape, way)) * way.processes_per_device
        if not way.shard and not any(getattr(way, name) for name in COMPUTED_AGAIN):
            otherwise = peak
        if peak <= available or number == len(ways):
            parts = [part for step in spread for part in step.parts]
            return Batching(way, parts, work, largest, peak, otherwise)
    raise AssertionError("there is always a way")


def _ways(settings: Settings) -> list[Settings]:
    """Return settings that take less and less memory, the fastest first.

    First micro-batches shrink. Then values are computed again, and at last the base is spread over
    the processes, where the job leaves that open.
    """
    sizes = [settings.micro_batch_tokens]
    while sizes[-1] > SMALLEST_MICRO_BATCH:
        sizes.append(sizes[-1] // 2)
    undecided = [name for name in COMPUTED_AGAIN if getattr(settings, name) is None]
    savings = [
        {name: undecided.index(name) < count for name in undecided}
        for count in range(len(undecided) + 1)
    ]
    spreads = [False, True] if settings.shard is None else [settings.shard]
    return [
        settings.model_copy(update=saving | {"micro_batch_tokens": tokens, "shard": spread})
        for spread, saving, tokens in product(spreads, savings, sizes)
    ]


def savings(job: Job, batching: Batching, available: int) -> Iterator[Finding]:
    """Yield what saves memory and takes time though the job does not say so, and why."""
    given = job_options(job, "local", LocalOptions)
    why = (
        f"to keep them would take about {batching.otherwise_bytes / 1e9:.1f} GB, and "
        f"{available / 1e9:.1f} GB are free."
    )
    chosen = [
        f"{what} ({name})"
        for name, what in COMPUTED_AGAIN.items()
        if getattr(batching.settings, name) and getattr(given, name) == "auto"
    ]
    if chosen:
        what = f"{' and '.join(chosen)} are computed again in the backward pass"
        yield note("computed-again", f"{what}, which takes more time: {why}")
    if batching.settings.shard and given.shard == "auto":
        over = f"the frozen weights are spread over {batching.settings.processes} processes (shard)"
        what = f"{over}, and a layer is gathered when it is computed"
        yield note("sharded", f"{what}, which takes more time: {why}")
