"""CSV and TSV to records: a header, then one record a row.

The csv module reads the quotes, strictly. A record may run over several lines; it is placed where
it begins. After a row that cannot be read, reading goes on with the very next line, so that a quote
that is never closed does not swallow the rows behind it.
"""

from __future__ import annotations

import csv
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from unitune.data.lines import Blanks, Line
from unitune.data.mapping import Mapping
from unitune.data.records import Record
from unitune.findings import Finding, error

_QUOTING = (
    "Put a value that holds a quote, the separator or a line break in quotes, and write a quote "
    'inside it twice ("").'
)
# The csv module's errors in our words.
_WORDS = {
    "end of data": "its last quote is never closed",
    "field limit": f"a value has more than {csv.field_size_limit():,} characters, so that a quote "
    "is probably not closed; longer values need a JSON Lines file",
    "expected after": "something stands between a closing quote and the separator",
    "new-line character": "a carriage return stands alone, not followed by a line feed",
}


class _Tape:
    """Lines as the csv module takes them, with those of the current record kept for a rewind."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = iter(lines)
        self._again: deque[Line] = deque()
        self.taken: list[Line] = []

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.taken.append(line)
        return line.text

    def rewind(self) -> None:
        """Give out again every line of the current record but the first."""
        self._again.extendleft(reversed(self.taken[1:]))


@dataclass(frozen=True, slots=True)
class _Row:
    """What the csv module made of one record: its values, and what is wrong with its text."""

    line: int
    values: list[str]
    findings: list[Finding]

    @property
    def blank(self) -> bool:
        """Whether the line was empty."""
        return not self.values and not self.findings


def table_records(
    lines: Iterable[Line], delimiter: str, mapping: Mapping
) -> Iterator[Record | Finding]:
    """Read a table.

    Args:
        lines: Lines of the file.
        delimiter: Comma or tab.
        mapping: Held against the header, so that a wrong name is told once and not for each row.

    Yields:
        Records and findings in the file's order; findings carry their line.
    """
    header: list[str] | None = None
    blanks = Blanks()
    for row in _rows(lines, delimiter):
        if row.blank:
            blanks.add(row.line)
        elif header is not None:
            yield from row.findings or [_record(row, header)]
        else:
            header = row.values
            findings = row.findings or list(_header_findings(header, delimiter, mapping))
            yield from (finding.at(line=row.line) for finding in findings)
            if findings:
                return
    yield from blanks.note()


def _rows(lines: Iterable[Line], delimiter: str) -> Iterator[_Row]:
    tape = _Tape(lines)
    reader = csv.reader(tape, delimiter=delimiter, strict=True)
    while True:
        tape.taken.clear()
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as failure:
            yield _unreadable(tape.taken, failure)
            tape.rewind()
            continue
        problems = [line.problem for line in tape.taken if line.problem]
        yield _Row(tape.taken[0].number, values, problems)


def _unreadable(taken: list[Line], failure: csv.Error) -> _Row:
    first, last = taken[0].number, taken[-1].number
    where = f"the row that begins here and runs to line {last}" if last > first else "the row"
    words = str(failure)
    why = next((ours for theirs, ours in _WORDS.items() if theirs in words), words)
    finding = error("broken-row", f"{where} cannot be read: {why}.", _QUOTING)
    return _Row(first, [], [finding.at(line=first)])


def _record(row: _Row, header: list[str]) -> Record | Finding:
    if len(row.values) != len(header):
        values = "1 value" if len(row.values) == 1 else f"{len(row.values)} values"
        return error(
            "column-count",
            f"the row has {values} where the header names {len(header)}.",
            "Give every column a value, and put values that hold the separator in quotes.",
        ).at(line=row.line)
    return Record(row.line, dict(zip(header, row.values, strict=True)), from_table=True)


def _header_findings(header: list[str], delimiter: str, mapping: Mapping) -> Iterator[Finding]:
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
        names = ", ".join(repr(name) for name in repeated)
        yield error(
            "repeated-column",
            f"the header names {names} more than once; no row was read.",
            "Give each column a name of its own.",
        )
    if misfit := mapping.misfit(header):
        yield misfit
