"""CSV and TSV to records: a header, then one record a row.

The csv module reads the quotes, strictly. A record may run over several lines; its line is where it
begins. After a row that cannot be read, reading goes on with the very next line, so that a quote
that is never closed does not swallow the rows behind it.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from io import BufferedReader
from typing import NamedTuple

from unitune.data.records import BadRow, CheckHeader, Line, Record, lines_of, without_blanks
from unitune.findings import Finding, error

_QUOTING = (
    "Put a value that holds a quote, the separator or a line break in quotes, and write a quote "
    'inside it twice ("").'
)
_REASONS = {
    "end of data": "its last quote is never closed",
    "field limit": f"a value has more than {csv.field_size_limit():,} characters, so that a quote "
    "is probably not closed; longer values need a JSON Lines file",
    "expected after": "something stands between a closing quote and the separator",
    "new-line character": "a carriage return stands alone, not followed by a line feed",
}
"""By words in the csv module's errors."""


class _TableRow(NamedTuple):
    number: int
    values: list[str]
    problems: list[Finding]

    @property
    def is_blank(self) -> bool:
        return not self.values and not self.problems


def table_records(
    stream: BufferedReader, check_header: CheckHeader, *, delimiter: str
) -> Iterator[Record | Finding]:
    """Read a table: a header, then one record a row."""
    header: list[str] | None = None
    for row in without_blanks(_table_rows(stream, delimiter)):
        if isinstance(row, Finding):
            yield row
        elif header is not None:
            yield from row.problems or [_table_record(row, header)]
        else:
            header = row.values
            problems = row.problems or [*_header_problems(header, delimiter, check_header)]
            yield from (problem.at(line=row.number) for problem in problems)
            if problems:
                return


def _table_rows(stream: BufferedReader, delimiter: str) -> Iterator[_TableRow]:
    unread, again, taken = lines_of(stream), list[Line](), list[Line]()

    def texts() -> Iterator[str]:
        while line := again.pop() if again else next(unread, None):
            taken.append(line)
            yield line.text

    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    while True:
        taken.clear()
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as failure:
            yield _TableRow(taken[0].number, [], [_unreadable(taken, str(failure))])
            again.extend(reversed(taken[1:]))
            reader = csv.reader(texts(), delimiter=delimiter, strict=True)
            continue
        yield _TableRow(taken[0].number, values, [line.problem for line in taken if line.problem])


def _unreadable(taken: list[Line], failure: str) -> Finding:
    first, last = taken[0].number, taken[-1].number
    where = f"the row that begins here and runs to line {last}" if last > first else "the row"
    why = next((reason for words, reason in _REASONS.items() if words in failure), failure)
    return error("broken-row", f"{where} cannot be read: {why}.", _QUOTING).at(line=first)


def _table_record(row: _TableRow, header: list[str]) -> Record | Finding:
    if len(row.values) != len(header):
        values = "1 value" if len(row.values) == 1 else f"{len(row.values)} values"
        return error(
            "column-count",
            f"the row has {values} where the header names {len(header)}.",
            "Give every column a value, and put values that hold the separator in quotes.",
        ).at(line=row.number)
    return Record(row.number, dict(zip(header, row.values, strict=True)), from_table=True)


def _header_problems(
    header: list[str], delimiter: str, check_header: CheckHeader
) -> Iterator[Finding]:
    other = next((mark for mark in ";\t,|" if mark != delimiter and mark in header[0]), None)
    if len(header) == 1 and other:
        yield error(
            "separator",
            f"the header is one column, {header[0]!r}, and seems to be separated by {other!r}; "
            "no row was read.",
            "Write .csv files with commas and .tsv files with tabs.",
        )
        return
    if repeated := [name for name, count in Counter(header).items() if count > 1]:
        what = f"the header names {', '.join(map(repr, repeated))} more than once; no row was read."
        yield error("repeated-column", what, "Give each column a name of its own.")
    try:
        check_header(header)
    except BadRow as misfit:
        yield from misfit.findings
