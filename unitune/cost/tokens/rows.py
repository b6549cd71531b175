"""Counting a whole file, row by row, in constant memory.

Rows of canonical JSON Lines are counted without the checks that `unitune.data.load.read` makes of
each, and where a row is plain without even an `Example`. What is wrong with a file is told by those
checks; here a row that cannot be read is left out, as `read` leaves it out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import JsonValue, ValidationError
from pydantic_core import from_json

from unitune.cost.tokens.by_encoding import EncodingCounter
from unitune.cost.tokens.count import RowCount
from unitune.cost.tokens.counter import TokenCounter
from unitune.data.dataset import Row
from unitune.data.example import Example
from unitune.data.lines import Line
from unitune.data.load import JSON_LINES, read
from unitune.data.mapping import mapping_of
from unitune.data.records import Record, json_records
from unitune.data.rows import examples
from unitune.job.job import Data


def count_rows(
    path: str | os.PathLike[str], counter: TokenCounter, data: Data | None = None
) -> Iterator[RowCount]:
    """Count a file's rows as they are read.

    Args:
        path: JSON Lines, CSV or TSV; UTF-8.
        counter: Of the model that they are for.
        data: The job's data, for its columns or template; None: the file's own keys.

    Yields:
        The tokens of each row that can be read, in the file's order.

    Raises:
        OSError: The file cannot be opened.
    """
    file = Path(path)
    if file.suffix.lower() not in JSON_LINES or mapping_of(data) is not None:
        found = read(file, data, use="any")
        yield from (counter.row(item.example) for item in found if isinstance(item, Row))
        return
    plain = counter.plain if isinstance(counter, EncodingCounter) else _never
    with file.open("rb") as lines:
        for line in lines:
            if (count := plain(_parsed(line))) is not None:
                yield count
            else:
                yield from map(counter.row, _examples(line))


def _never(record: JsonValue) -> None:
    del record


def _parsed(line: bytes) -> JsonValue:
    try:
        return from_json(line)
    except ValueError:
        return None


def _examples(line: bytes) -> Iterator[Example]:
    try:
        yield Example.model_validate_json(line)
    except ValidationError:
        yield from _otherwise(line)


def _otherwise(raw: bytes) -> Iterator[Example]:
    """Yield the rows of a line that is not in the canonical form."""
    line = Line(0, raw.decode("utf-8-sig", "replace"))
    for record in json_records([line]):
        if isinstance(record, Record):
            found = examples(record, None, "any")
            yield from (item for item in found if isinstance(item, Example))
