"""CSV and TSV to records: a header, then one record a row.

What separates the columns is seen from the header and the rows behind it, since Excel writes
semicolons in much of the world; a first line ``sep=;``, by which Excel knows it, is no row. The csv
module reads the quotes, strictly. A record may run over several lines; its line is where it begins.
After a row that cannot be read, reading goes on with the very next line, so that a quote that is
never closed does not swallow the rows behind it.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import BufferedReader

from unitune.data.records import (
    BadRow,
    CheckHeader,
    Line,
    Record,
    TableRow,
    lines_of,
    without_blanks,
)
from unitune.findings import Finding, error

DELIMITERS: Mapping[str, str] = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
"""What columns are separated by, where the job does not say it."""
SAMPLE_BYTES = 8192
"""In which the delimiter is looked for: as many as a buffer holds before a file is read."""
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


def table_records(
    stream: BufferedReader, check_header: CheckHeader, *, usual: str, delimiter: str | None = None
) -> Iterator[Record | Finding]:
    """Read a table: a header, then one record a row.

    Args:
        stream: At its start.
        check_header: Refuses columns that do not fit.
        usual: What separates columns in files of this name, where the content does not show it.
        delimiter: What separates them here, if the job says so.
    """
    mark = delimiter or _delimiter(stream.peek(SAMPLE_BYTES)[:SAMPLE_BYTES], usual)
    header: list[str] | None = None
    for row in without_blanks(_table_rows(stream, mark)):
        if isinstance(row, Finding):
            yield row
        elif header is not None:
            yield from row.problems or [_table_record(row, header, mark)]
        elif row.number > 1 or not "".join(row.values[:1]).lower().startswith("sep="):
            header = row.values
            problems = row.problems or [*header_problems(header, check_header)]
            yield from (problem.at(line=row.number) for problem in problems)
            if problems:
                return


def _delimiter(sample: bytes, usual: str) -> str:
    """Return what separates the columns, as the beginning of a file shows it.

    It stands in the header; of several that do, it is the one that gives the most rows as many
    values as the header, of equals the one that makes the most columns, and then the usual one.
    """
    text = sample.removeprefix(codecs.BOM_UTF8).decode(errors="replace").lstrip("\r\n")
    if named := re.match(r"sep=(.)\r?$", text, re.IGNORECASE | re.MULTILINE):
        return named[1]
    whole = text[: text.rfind("\n") + 1] or text  # without the line that the sample cuts
    widths = {mark: _widths(whole, mark) for mark in dict.fromkeys((usual, *DELIMITERS))}
    fits = {
        mark: (sum(width == each[0] for width in each) / len(each), each[0])
        for mark, each in widths.items()
        if each and each[0] > 1
    }
    return max(fits, key=lambda mark: fits[mark]) if fits else usual


def _widths(text: str, delimiter: str) -> list[int]:
    widths: list[int] = []
    with suppress(csv.Error):  # of the sample's last row, which may be cut
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            widths += [len(row)] if row else []
    return widths


def _table_rows(stream: BufferedReader, delimiter: str) -> Iterator[TableRow]:
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
            yield TableRow(taken[0].number, [], [_unreadable(taken, str(failure))])
            again.extend(reversed(taken[1:]))
            reader = csv.reader(texts(), delimiter=delimiter, strict=True)
            continue
        yield TableRow(taken[0].number, values, [line.problem for line in taken if line.problem])


def _unreadable(taken: list[Line], failure: str) -> Finding:
    first, last = taken[0].number, taken[-1].number
    where = f"the row that begins here and runs to line {last}" if last > first else "the row"
    why = next((reason for words, reason in _REASONS.items() if words in failure), failure)
    return error("broken-row", f"{where} cannot be read: {why}.", _QUOTING).at(line=first)


def _table_record(row: TableRow, header: list[str], delimiter: str) -> Record | Finding:
    if len(row.values) != len(header):
        values = "1 value" if len(row.values) == 1 else f"{len(row.values)} values"
        return error(
            "column-count",
            f"the row has {values} where the header names {len(header)}.",
            "Give every column a value, and put values that hold the separator in quotes.",
        ).at(line=row.number)
    separated = f"a table separated by {DELIMITERS.get(delimiter, repr(delimiter))}"
    values = zip(header, row.values, strict=True)
    return Record(row.number, dict(values), from_table=True, file_format=separated)


def header_problems(header: list[str], check_header: CheckHeader) -> Iterator[Finding]:
    """Report a header that names a column twice, or does not fit."""
    if repeated := [name for name, count in Counter(header).items() if count > 1]:
        what = f"the header names {', '.join(map(repr, repeated))} more than once; no row was read."
        yield error("repeated-column", what, "Give each column a name of its own.")
    try:
        check_header(header)
    except BadRow as misfit:
        yield from misfit.findings
