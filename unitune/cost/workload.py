"""How many tokens a job's rows are, as the tokenizer of one model counts them.

Rows are counted once for each tokenizer, however many backends a plan has, and only lengths
are kept: what a vendor makes of them (limits, epochs) is computed in `unitune.cost.billing`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from unitune.cost.tokens import Count, TokenCounter
from unitune.data.dataset import Dataset
from unitune.data.example import Example
from unitune.data.number_table import NumberTable
from unitune.data.split import Splits
from unitune.workspace.progress import counted


@dataclass(frozen=True)
class Lengths:
    """Tokens of many rows, one after another: of each row the fewest, expected and most."""

    low: Sequence[int]
    expected: Sequence[int]
    high: Sequence[int]

    @classmethod
    def of(cls, counts: Iterable[Count]) -> Lengths:
        """Collect counts."""
        table = NumberTable(3)
        for count in counts:
            table.append(count.low, count.expected, count.high)
        return cls(*map(table.column, range(3)))

    def __len__(self) -> int:
        return len(self.expected)

    def __iter__(self) -> Iterator[Count]:
        return map(Count, self.low, self.expected, self.high)

    @cached_property
    def total(self) -> Count:
        """Tokens of all rows."""
        return Count(sum(self.low), sum(self.expected), sum(self.high))

    @cached_property
    def longest(self) -> Count:
        """Tokens of the longest row."""
        columns = (self.low, self.expected, self.high)
        return Count(*(max(column, default=0) for column in columns))

    @property
    def mean(self) -> Count:
        """Tokens of a row on average, rounded outwards."""
        rows, total = max(len(self), 1), self.total
        return Count(total.low // rows, round(total.expected / rows), -(-total.high // rows))

    def __add__(self, other: Lengths) -> Lengths:
        return Lengths.of(length + added for length, added in zip(self, other, strict=True))


@dataclass(frozen=True, slots=True)
class Tally:
    """The rows of one file."""

    totals: Lengths  # what a training sees of each row in one epoch
    prompts: Lengths  # what a request for each row's answer sends
    answers: Lengths  # what a model writes to give each row's answer

    def __len__(self) -> int:
        return len(self.totals)


@dataclass(frozen=True, slots=True)
class Workload:
    """A job's rows, counted by one tokenizer; no test rows are an empty tally."""

    basis: str  # what it was counted with
    assumptions: tuple[str, ...]  # why counts are ranges
    train: Tally
    validation: Tally
    test: Tally


def measure(splits: Splits, counter: TokenCounter) -> Workload:
    """Count a job's rows."""
    return Workload(
        basis=counter.basis,
        assumptions=counter.assumptions,
        train=tally(splits.train, counter),
        validation=tally(splits.validation, counter),
        test=tally(splits.test or (), counter),
    )


def tally(rows: Dataset | Sequence[Example], counter: TokenCounter) -> Tally:
    """Count rows, one by one; nothing of a row is kept but its lengths."""
    table = NumberTable(9)
    for row in counted(rows, "counting tokens", len(rows)):
        tokens = counter.row(row)
        counts = (tokens.total, tokens.prompt, tokens.answer)
        table.append(
            *(each for count in counts for each in (count.low, count.expected, count.high))
        )
    totals, prompts, answers = (
        Lengths(*map(table.column, range(first, first + 3))) for first in (0, 3, 6)
    )
    return Tally(totals, prompts, answers)
