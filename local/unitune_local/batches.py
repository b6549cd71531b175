"""From rows to batches: which rows make a step, and how their tokens are laid out for the model.

`epoch_batches` is a pure function of lengths, seed and epoch, so that a step's number alone says
which rows it takes, and a resumed run goes on with the same ones. Rows of like length come
together. A step's rows are cut into micro-batches that fit into memory, whose losses add up.

A micro-batch is `packed` (rows end to end, the tokens that they all begin with computed once; see
`unitune_local.attention`) or, for models whose attention is not plain causal, `padded`. Both ask
for logits only where there is loss, and give the same loss and gradients.

Lengths are made multiples of a number, because a CPU's kernels in bfloat16 are made for each length
anew (`unitune_local.settings.Settings.length_multiple`).

Shapes: B rows, S longest row, T tokens of the packed sequence, N trained tokens, C columns of a
padded batch in which any row has loss, V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from unitune_local.attention import Layout, lay_out

WINDOW = 8
"""Batches whose rows are sorted by length together: enough to even out lengths, few enough that
the order stays random over the epoch."""


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """A row as the model sees it.

    Args:
        ids: Token ids.
        trained: Which of them carry loss.
        weight: Weight of the row in the loss.
        line: Line of the data file, for messages.
    """

    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    weight: float
    line: int

    @property
    def trained_tokens(self) -> int:
        """Number of tokens that carry loss; the first token has nothing to be predicted from."""
        return sum(self.trained[1:])


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch, ready for the model.

    Args:
        ids: Input ids: (1, T) when packed, (B, S) when padded.
        positions: Place of each token in its row, when packed.
        layout: Where the rows stand, when packed.
        attention_mask: Which tokens are real, when padded.
        keep: Positions whose logits are wanted: (N,) when packed, (C,) when padded.
        picks: For each trained token its row of the flattened logits, when padded.
        targets: The trained tokens.
        weights: Their weights.
        tokens: Real tokens of all rows.
    """

    ids: Tensor
    keep: Tensor
    targets: Tensor  # (N,)
    weights: Tensor  # (N,)
    tokens: int
    positions: Tensor | None = None  # (1, T)
    layout: Layout | None = None
    attention_mask: Tensor | None = None  # (B, S)
    picks: Tensor | None = None  # (N,)

    @property
    def computed_tokens(self) -> int:
        """Tokens that the model computes."""
        return self.ids.numel()

    def to(self, device: torch.device) -> Batch:
        """Return the same micro-batch on a device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: value.to(device) for name, value in values.items() if hasattr(value, "to")}
        return replace(self, **moved)


def epoch_batches(
    lengths: Sequence[int], batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """Return the rows of each optimiser step of an epoch; every row stands in exactly one.

    Args:
        lengths: Tokens of each row.
        batch_size: Rows of a step; the last step may have fewer.
        seed: Of the run.
        epoch: Counted from 0; each has an order of its own.
    """
    order = list(range(len(lengths)))
    draw = random.Random(f"{seed}/{epoch}")  # noqa: S311 - an order, not a secret
    draw.shuffle(order)
    window = batch_size * WINDOW
    grouped = [
        index
        for start in range(0, len(order), window)
        for index in sorted(order[start : start + window], key=lambda index: lengths[index])
    ]
    batches = [grouped[at : at + batch_size] for at in range(0, len(grouped), batch_size)]
    draw.shuffle(batches)
    return batches


def micro_batches(
    rows: Sequence[TrainingRow], most_tokens: int, *, share: bool
) -> list[list[TrainingRow]]:
    """Cut a step's rows into parts of at most so many computed tokens, one row at least."""
    parts: list[list[TrainingRow]] = []
    for row in rows:
        if parts and _computed([*parts[-1], row], share=share) <= most_tokens:
            parts[-1].append(row)
        else:
            parts.append([row])
    return parts


def _computed(rows: Sequence[TrainingRow], *, share: bool) -> int:
    prefix = shared_prefix(rows) if share else 0
    return prefix + sum(len(row.ids) - prefix for row in rows)


def shared_prefix(rows: Sequence[TrainingRow]) -> int:
    """Return how many tokens all rows begin with, none of them trained and none a row's last.

    One row alone shares nothing.
    """
    if len(rows) < 2:
        return 0
    # What the smallest and the largest row have in common, all rows between them have.
    first, last = min(row.ids for row in rows), max(row.ids for row in rows)
    limit = min(_untrained_start(row) for row in rows)
    same = (start == end for start, end in zip(first[:limit], last[:limit], strict=True))
    return next((place for place, equal in enumerate(same) if not equal), limit)


def _untrained_start(row: TrainingRow) -> int:
    first = row.trained.index(True) if True in row.trained else len(row.ids)
    return min(first, len(row.ids) - 1)


def rounded(length: int, multiple: int) -> int:
    """Return the least multiple that is no shorter."""
    return -(-length // multiple) * multiple


def packed(rows: Sequence[TrainingRow], *, share: bool, multiple: int = 1) -> Batch:
    """Lay rows end to end, after the prefix that they share."""
    prefix = shared_prefix(rows) if share else 0
    ids, places = list(rows[0].ids[:prefix]), list(range(prefix))
    keep: list[int] = []
    for row in rows:
        # Where token `place` of the row stands in the sequence is `shift + place`, but what
        # predicts the first own token is the last token of the prefix.
        shift = len(ids) - prefix
        keep += [
            place - 1 + (shift if place > prefix else 0)
            for place in range(1, len(row.ids))
            if row.trained[place]
        ]
        ids += row.ids[prefix:]
        places += range(prefix, len(row.ids))
    own = [len(row.ids) - prefix for row in rows]
    tail = rounded(len(ids), multiple) - len(ids)
    ids += ids[-1:] * tail
    places += places[-1:] * tail
    return Batch(
        ids=torch.tensor([ids]),  # (1, T)
        positions=torch.tensor([places]),  # (1, T)
        layout=lay_out(prefix, own, rounded(max(own), multiple), tail),
        keep=torch.tensor(keep, dtype=torch.long),  # (N,)
        targets=_targets(rows),
        weights=_weights(rows),
        tokens=sum(len(row.ids) for row in rows),
    )


def padded(rows: Sequence[TrainingRow], *, multiple: int = 1) -> Batch:
    """Lay rows side by side, padded at the end to the longest."""
    longest = rounded(max(len(row.ids) for row in rows), multiple)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)  # (B, S)
    real = torch.zeros(len(rows), longest, dtype=torch.long)  # (B, S)
    for at, row in enumerate(rows):
        ids[at, : len(row.ids)] = torch.tensor(row.ids)
        real[at, : len(row.ids)] = 1
    cells = [
        (at, place - 1)
        for at, row in enumerate(rows)
        for place in range(1, len(row.ids))
        if row.trained[place]
    ]
    columns = sorted({place for _, place in cells})
    column_of = {place: column for column, place in enumerate(columns)}
    picks = [at * len(columns) + column_of[place] for at, place in cells]
    return Batch(
        ids=ids,
        attention_mask=real,
        keep=torch.tensor(columns, dtype=torch.long),  # (C,)
        picks=torch.tensor(picks, dtype=torch.long),  # (N,)
        targets=_targets(rows),
        weights=_weights(rows),
        tokens=int(real.sum()),
    )


def _targets(rows: Sequence[TrainingRow]) -> Tensor:
    return torch.tensor(
        [token for row in rows for token, on in _pairs(row) if on], dtype=torch.long
    )  # (N,)


def _weights(rows: Sequence[TrainingRow]) -> Tensor:
    return torch.tensor([row.weight for row in rows for _, on in _pairs(row) if on])  # (N,)


def _pairs(row: TrainingRow) -> zip[tuple[int, bool]]:
    """Return each token that can be predicted, and whether it carries loss."""
    return zip(row.ids[1:], row.trained[1:], strict=True)
