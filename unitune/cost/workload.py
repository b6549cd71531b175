"""Count the tokens of a job's rows with one tokenizer, keeping only lengths."""

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
    """Lowest, expected and highest token counts of many rows."""

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
        """Mean tokens of a row, rounded outwards."""
        rows, total = max(len(self), 1), self.total
        return Count(total.low // rows, round(total.expected / rows), -(-total.high // rows))

    def __add__(self, other: Lengths) -> Lengths:
        return Lengths.of(length + added for length, added in zip(self, other, strict=True))


@dataclass(frozen=True, slots=True)
class Tally:
    """Token counts of one file's rows."""

    totals: Lengths  # input of a training per row and epoch
    prompts: Lengths  # input of a request for each row's answer
    answers: Lengths  # each row's answer

    def __len__(self) -> int:
        return len(self.totals)


@dataclass(frozen=True, slots=True)
class Workload:
    """Token counts of a job's rows by one tokenizer. Without test rows, that tally is empty."""

    basis: str  # name of the tokenizer
    assumptions: tuple[str, ...]  # reasons why counts are ranges
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
    """Count rows one by one, keeping only their lengths."""
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
