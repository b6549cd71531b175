"""Group rows into steps and lay out their tokens for the model.

A micro-batch is `packed` (see `unitune_local.data.attention`) or, for models whose attention is not
plain causal, `padded`; both give the same loss and gradients. The worse answer of a preference row
follows the better one but does not see it, and has the positions of an answer right after the
prompt.

Shapes: B rows, S longest row, T tokens of the packed sequence, N trained tokens, C columns of a
padded batch in which any row has loss, V vocabulary.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, NamedTuple, TypeAlias

import torch
from pydantic import PlainSerializer
from torch import Tensor

from unitune.data.example import Example
from unitune_local.data.attention import Layout, lay_out

# Number of batches whose rows are sorted by length together: enough to even out lengths, few enough
# to keep the order random over the epoch
WINDOW = 8


# A number for each token of a row
Tokens: TypeAlias = Annotated[Sequence[int], PlainSerializer(list)]


class Fork(NamedTuple):
    """Start of the two answers of a preference row."""

    better: int
    worse: int


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """A row as token ids."""

    ids: Tokens = field(hash=False)
    trained: Tokens = field(hash=False)  # loss mask: 1 or 0 for each token
    weight: float
    line: int  # line of the data file, for messages
    # For a preference row, whose ids are prompt, better answer and worse answer
    fork: Fork | None = None
    # Log-probabilities of both answers by the base model, for losses that need them
    reference: tuple[float, float] | None = None
    is_good: bool | None = None  # for a rated row, whose second answer is another row's
    # For a prompt with sampled answers: the row that they are scored by
    case: Example | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Store tokens in 5 bytes each, where a tuple takes 8 to 40."""
        if not isinstance(self.ids, array):
            object.__setattr__(self, "ids", array("i", self.ids))
        if not isinstance(self.trained, bytes):
            object.__setattr__(self, "trained", bytes(self.trained))

    @property
    def trained_tokens(self) -> int:
        """Number of tokens with loss; the first token cannot be predicted."""
        return sum(self.trained[1:])

    @property
    def prompt_length(self) -> int:
        """Number of tokens before the first one with loss; all of them without any."""
        return (*self.trained, True).index(True)

    @property
    def predictors(self) -> Iterator[int]:
        """Position of the token that predicts each trained token."""
        for at in range(1, len(self.ids)):
            if self.trained[at]:
                yield self.fork.better - 1 if self.fork and at == self.fork.worse else at - 1

    @property
    def positions(self) -> list[int]:
        """Position of each token."""
        if self.fork is None:
            return [*range(len(self.ids))]
        answer = range(self.fork.better, self.fork.better + len(self.ids) - self.fork.worse)
        return [*range(self.fork.worse), *answer]

    def followed_by(self, answer: Sequence[int], learnt: Sequence[int] = ()) -> TrainingRow:
        """Return the row followed by an answer that carries loss, or only its `learnt` tokens."""
        trained = (*self.trained, *(learnt or (True,) * len(answer)))
        return replace(self, ids=(*self.ids, *answer), trained=trained)

    @property
    def conversations(self) -> list[TrainingRow]:
        """The row, or the two conversations of a preference row, each with one answer."""
        if self.fork is None:
            return [self]
        (better, worse), ids, trained = self.fork, self.ids, self.trained
        first = replace(self, ids=ids[:worse], trained=trained[:worse], fork=None)
        other = (*ids[:better], *ids[worse:])
        return [first, replace(first, ids=other, trained=(*trained[:better], *trained[worse:]))]


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch, packed or padded, ready for the model."""

    ids: Tensor  # (1, T) when packed, (B, S) when padded
    keep: Tensor  # (N,) when packed, (C,) when padded: positions whose logits are computed
    targets: Tensor  # (N,), the trained tokens
    weights: Tensor  # (N,)
    # Number of each trained token's answer; a preference row has two, the better one first
    answers: Tensor  # (N,)
    tokens: int  # number of real tokens in all rows
    positions: Tensor | None = None  # (1, T) when packed: position of each token in its row
    layout: Layout | None = None
    attention_mask: Tensor | None = None  # (B, S) when padded: which tokens are real
    picks: Tensor | None = None  # (N,) when padded: each trained token's row of flattened logits
    most_logits: int | None = None  # trained tokens whose logits are held at once; None: all
    # Dtype that float32 weights are computed in; None: their own
    autocast: torch.dtype | None = None

    @property
    def computed_tokens(self) -> int:
        """Number of tokens that the model computes."""
        return self.ids.numel()

    def to(self, device: torch.device) -> Batch:
        """Return the same micro-batch on a device."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        moved = {name: value.to(device) for name, value in values.items() if hasattr(value, "to")}
        return replace(self, **moved)


def epoch_batches(
    lengths: Sequence[int], batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """Return the row numbers of each optimiser step of an epoch, as a pure function."""
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


class Batches:
    """Rows of each optimiser step; the order of an epoch is computed once."""

    def __init__(self, rows: Sequence[TrainingRow], batch_size: int, seed: int) -> None:
        self._rows, self._batch_size, self._seed = rows, batch_size, seed
        self._lengths = [len(row.ids) for row in rows]
        self._epoch, self._order = -1, list[list[int]]()

    def of(self, step: int) -> list[TrainingRow]:
        """Return the rows of a step, counted from 1."""
        epoch, place = divmod(step - 1, -(-len(self._rows) // self._batch_size))
        if epoch != self._epoch:
            self._order = epoch_batches(self._lengths, self._batch_size, self._seed, epoch)
            self._epoch = epoch
        return [self._rows[index] for index in self._order[place]]


def shares(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Return the rows of a step that each of several processes computes, in order.

    Rows are assigned from the longest on, each to the process with the fewest tokens so far.
    """
    parts: list[list[int]] = [[] for _ in range(count)]
    tokens = [0] * count
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        least = tokens.index(min(tokens))
        parts[least].append(place)
        tokens[least] += lengths[place]
    return [sorted(part) for part in parts]


def spread_rows(rows: Sequence[TrainingRow], count: int) -> list[list[TrainingRow]]:
    """Return the rows that each of several processes computes."""
    places = shares([len(row.ids) for row in rows], count)
    return [[rows[place] for place in share] for share in places]


def micro_batches(
    rows: Sequence[TrainingRow], most_tokens: int, *, share: bool
) -> list[list[TrainingRow]]:
    """Split a step's rows into parts of at most so many computed tokens, at least one row each."""
    parts: list[list[TrainingRow]] = []
    for row in rows:
        more = [*parts[-1], row] if parts else [row]
        if parts and computed_tokens(more, share=share) <= most_tokens:
            parts[-1].append(row)
        else:
            parts.append([row])
    return parts


def computed_tokens(rows: Sequence[TrainingRow], *, share: bool) -> int:
    """Return the tokens of a micro-batch of these rows, without padding."""
    prefix = shared_prefix(rows) if share else 0
    return prefix + sum(len(each.ids) - prefix for each in rows)


def shared_prefix(rows: Sequence[TrainingRow]) -> int:
    """Return the length of the rows' shared untrained prefix; 0 for a single row."""
    return min([common_length([row.ids for row in rows]), *(row.prompt_length for row in rows)])


def common_length(rows: Sequence[Sequence[int]]) -> int:
    """Return the length of the rows' common beginning, without any row's last token."""
    if len(rows) < 2:
        return 0
    # Where the smallest and the largest row agree, all rows agree.
    tuples = [tuple(row) for row in rows]
    pairs = zip(min(tuples), max(tuples), strict=False)
    shortest = min(map(len, rows))
    different = (place for place, (first, last) in enumerate(pairs) if first != last)
    return min(next(different, shortest), shortest - 1)


def rounded(length: int, multiple: int) -> int:
    """Return the smallest multiple that is at least as long."""
    return -(-length // multiple) * multiple


def packed(rows: Sequence[TrainingRow], *, share: bool, multiple: int = 1) -> Batch:
    """Lay out rows end to end, after the prefix that they share."""
    prefix = shared_prefix(rows) if share else 0
    ids, positions = list(rows[0].ids[:prefix]), list(range(prefix))
    keep: list[int] = []
    for row in rows:
        shift = len(ids) - prefix  # shift of positions after the prefix
        keep += [at + shift if at >= prefix else at for at in row.predictors]
        ids += row.ids[prefix:]
        positions += row.positions[prefix:]
    own = [len(row.ids) - prefix for row in rows]
    forks = [row.fork and Fork(*(start - prefix for start in row.fork)) for row in rows]
    tail = rounded(len(ids), multiple) - len(ids)
    ids += ids[-1:] * tail
    positions += positions[-1:] * tail
    return Batch(
        torch.tensor([ids]),  # (1, T)
        torch.tensor(keep, dtype=torch.long),  # (N,)
        *_losses_of(rows),
        tokens=sum(len(row.ids) for row in rows),
        positions=torch.tensor([positions]),  # (1, T)
        layout=lay_out(prefix, own, rounded(max(own), multiple), tail, forks),
    )


def padded(rows: Sequence[TrainingRow], *, multiple: int = 1) -> Batch:
    """Lay out conversations side by side, padded to the longest."""
    sides = [side for row in rows for side in row.conversations]
    longest = rounded(max(len(side.ids) for side in sides), multiple)
    ids = torch.zeros(len(sides), longest, dtype=torch.long)  # (B, S)
    real = torch.zeros(len(sides), longest, dtype=torch.long)  # (B, S)
    for at, side in enumerate(sides):
        ids[at, : len(side.ids)] = torch.tensor(side.ids)
        real[at, : len(side.ids)] = 1
    cells = [(at, column) for at, side in enumerate(sides) for column in side.predictors]
    columns = sorted({column for _, column in cells})
    column_of = {column: at for at, column in enumerate(columns)}
    picks = [at * len(columns) + column_of[column] for at, column in cells]
    return Batch(
        ids,
        torch.tensor(columns, dtype=torch.long),  # (C,)
        *_losses_of(rows),
        tokens=int(real.sum()),
        attention_mask=real,
        picks=torch.tensor(picks, dtype=torch.long),  # (N,)
    )


def _losses_of(rows: Sequence[TrainingRow]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the trained tokens, their weights and the numbers of their answers."""
    targets, weights, answers = list[int](), list[float](), list[int]()
    sides = [side for row in rows for side in row.conversations]
    for answer, side in enumerate(sides):
        trained = [token for token, on in zip(side.ids[1:], side.trained[1:], strict=True) if on]
        targets += trained
        weights += [side.weight] * len(trained)
        answers += [answer] * len(trained)
    return (
        torch.tensor(targets, dtype=torch.long),  # (N,)
        torch.tensor(weights),  # (N,)
        torch.tensor(answers, dtype=torch.long),  # (N,)
    )
