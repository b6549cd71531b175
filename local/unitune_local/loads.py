"""What there is to compute: the tokens, logits and query-key pairs of batches, before any is run.

Rows are laid into the very micro-batches that the training would make (`unitune_local.batches`), so
that what padding costs and what a shared prefix saves is counted, not estimated. What computing
takes is said elsewhere: operations and bytes by `unitune_local.memory`, seconds by
`unitune_local.cost_model`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unitune_local.batches import (
    TrainingRow,
    epoch_batches,
    micro_batches,
    rounded,
    shared_prefix,
)
from unitune_local.loss import Form
from unitune_local.settings import Settings


@dataclass(frozen=True, slots=True)
class Load:
    """What a model has to compute.

    Args:
        computed: Tokens that go through the layers.
        logits: Tokens that go through the output head.
        pairs: Query-key pairs of attention.
        parts: Micro-batches.
    """

    computed: int = 0
    logits: int = 0
    pairs: int = 0
    parts: int = 0

    def __add__(self, other: Load) -> Load:
        return Load(
            self.computed + other.computed,
            self.logits + other.logits,
            self.pairs + other.pairs,
            self.parts + other.parts,
        )

    def __mul__(self, times: int) -> Load:
        return Load(
            self.computed * times, self.logits * times, self.pairs * times, self.parts * times
        )


def part_load(rows: Sequence[TrainingRow], form: Form) -> Load:
    """Return the load of one micro-batch."""
    if form.kind == "padded":
        longest = rounded(max(len(row.ids) for row in rows), form.multiple)
        columns = {place for row in rows for place, on in enumerate(row.trained[1:]) if on}
        count = len(rows)
        return Load(count * longest, count * len(columns), count * longest**2, 1)
    prefix = shared_prefix(rows) if form.share else 0
    own = [len(row.ids) - prefix for row in rows]
    longest = rounded(max(own), form.multiple)
    return Load(
        computed=rounded(prefix + sum(own), form.multiple),
        logits=sum(row.trained_tokens for row in rows),
        pairs=prefix**2 + len(rows) * longest * (prefix + longest),
        parts=1,
    )


def step_parts(rows: Sequence[TrainingRow], settings: Settings, form: Form) -> list[Load]:
    """Return the load of each micro-batch that an optimiser step's rows are cut into."""
    parts = micro_batches(rows, settings.micro_batch_tokens, share=form.share)
    return [part_load(part, form) for part in parts]


def total(loads: Iterable[Load]) -> Load:
    """Return what loads are together."""
    return sum(loads, start=Load())


def epoch_steps(
    rows: Sequence[TrainingRow], settings: Settings, epoch: int = 0
) -> list[list[TrainingRow]]:
    """Return the rows of each step of an epoch."""
    lengths = [len(row.ids) for row in rows]
    batches = epoch_batches(lengths, settings.batch_size, settings.seed, epoch)
    return [[rows[index] for index in batch] for batch in batches]


def epoch_parts(
    rows: Sequence[TrainingRow], settings: Settings, form: Form, epoch: int = 0
) -> list[list[Load]]:
    """Return the loads of each step of an epoch; later epochs draw other steps alike."""
    return [step_parts(step, settings, form) for step in epoch_steps(rows, settings, epoch)]


def new_sizes(steps: Iterable[Iterable[Load]], kept: int) -> list[int]:
    """Return for each step how many of its micro-batches compute a number of tokens that is new.

    Args:
        steps: The loads of each step's micro-batches.
        kept: How many numbers are remembered: those that were computed last.
    """
    known: dict[int, None] = {}
    counts: list[int] = []
    for parts in steps:
        counts.append(0)
        for part in parts:
            counts[-1] += part.computed not in known
            known.pop(part.computed, None)
            known[part.computed] = None
            if len(known) > kept:
                del known[next(iter(known))]
    return counts


def validation_load(rows: Sequence[TrainingRow], settings: Settings, form: Form) -> Load:
    """Return the load of one validation, which takes the rows by length."""
    return total(step_parts(sorted(rows, key=_length), settings, form))


def answers_load(prompts: Sequence[int], tokens: int) -> Load:
    """Return the load of answers that are computed anew for each token.

    Args:
        prompts: Tokens of each prompt.
        tokens: Tokens of each answer.
    """
    lengths = [length + tokens for length in prompts for _ in range(tokens)]
    return Load(
        sum(lengths), len(lengths), sum(length**2 for length in lengths), parts=len(lengths)
    )


def largest_parts(rows: Sequence[TrainingRow], settings: Settings) -> list[list[TrainingRow]]:
    """Return micro-batches that no other is expected to exceed in memory.

    They are cut from the longest rows and from those with the most trained tokens, which an epoch
    may bring together in one step.
    """
    found: list[list[TrainingRow]] = []
    for measure in (_length, _trained_tokens):
        step = sorted(sorted(rows, key=measure)[-settings.batch_size :], key=_length)
        found += micro_batches(step, settings.micro_batch_tokens, share=settings.share_prefix)
    return found


def _length(row: TrainingRow) -> int:
    return len(row.ids)


def _trained_tokens(row: TrainingRow) -> int:
    return row.trained_tokens
