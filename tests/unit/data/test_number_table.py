"""Numbers of rows come back as they were kept, whether they are in memory or in a file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitune.data import dataset
from unitune.data.dataset import NumberTable, by_hash, later_and_first
from unitune.data.split import Inputs

NUMBERS = st.integers(0, 2**64 - 1)
FEW = st.sampled_from([0, 1, 2**63, 2**64 - 1])
PAIRS = st.lists(st.tuples(NUMBERS | FEW, NUMBERS), max_size=40)


@pytest.fixture(autouse=True)
def few_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "BLOCK_ROWS", 3)
    monkeypatch.setattr(dataset, "PART_ROWS", 5)


def table_of(rows: list[tuple[int, int]]) -> NumberTable:
    table = NumberTable(2)
    for row in rows:
        table.append(*row)
    return table


@given(PAIRS)
def test_rows_come_back(rows: list[tuple[int, int]]) -> None:
    table = table_of(rows)
    assert len(rows) == len(table)
    assert rows == [tuple(table[at]) for at in range(len(rows))]
    for at, column in enumerate((table.column(0), table.column(1))):
        expected = [row[at] for row in rows]
        assert expected == list(column) == list(chain(*column.blocks()))
        assert expected[1::2] == list(column[1::2])
        assert expected[-2:] == list(column[-2:])


def test_a_column_has_the_rows_that_come_after_it() -> None:
    table = table_of([])
    column = table.column(1)
    for row in range(7):
        table.append(row, 2 * row)
    assert (len(column), list(column), column[-1]) == (7, [0, 2, 4, 6, 8, 10, 12], 12)
    with pytest.raises(IndexError):
        _ = column[7]


@given(PAIRS)
def test_parts_have_every_row_and_whole_ranges(rows: list[tuple[int, int]]) -> None:
    parts = list(by_hash(table_of(rows).column(0)))
    placed = sorted(
        pair for at, hashes in parts for pair in zip(at.tolist(), hashes.tolist(), strict=True)
    )
    assert list(enumerate(row[0] for row in rows)) == placed
    ends = [(hashes.min(), hashes.max()) for _, hashes in parts if len(hashes)]
    assert ends == sorted(ends)
    assert all(high < low for (_, high), (low, _) in pairwise(ends))


@given(PAIRS)
def test_a_repeated_number_is_known_by_its_first_row(rows: list[tuple[int, int]]) -> None:
    first: dict[int, int] = {}
    expected = [
        (at, first[number])
        for at, (number, _) in enumerate(rows)
        if first.setdefault(number, at) != at
    ]
    assert expected == list(later_and_first(table_of(rows).column(0)))


def _choice(inputs: list[str], rows: int, clusters: Iterator[str] | None) -> list[bool] | None:
    chooser = Inputs(1, clustered=clusters is not None)
    for each in inputs:
        chooser.add(each, next(clusters) if clusters else None)
    held = chooser.held_out(rows, np.arange(len(inputs)) % 3 > 0)
    return held if held is None else held.tolist()


@given(st.lists(st.sampled_from("abcdefghijklmno"), min_size=1, max_size=40), st.integers(1, 20))
def test_a_choice_by_parts_is_that_of_all_rows_together(inputs: list[str], rows: int) -> None:
    in_parts = _choice(inputs, rows, None)
    assert in_parts == _choice(inputs, rows, iter(inputs))  # clusters are compared in one part


def test_its_file_ends_with_the_table() -> None:
    class Owner:
        pass

    owner = Owner()
    file = dataset.temporary_file(owner)
    del owner
    assert file.closed
