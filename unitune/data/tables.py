"""Read CSV and TSV files as records, with a detected delimiter and encoding.

Title lines above the header and totals at the end are skipped, for sheets too. After an unreadable
row, reading resumes at the next line, so that an unclosed quote does not swallow the rest.

Excel writes Windows-1252 as "CSV". A file with a valid UTF-8 character beyond ASCII stays UTF-8.
Any other file is read as Windows-1252 if its text looks like a language of that encoding.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from io import BufferedReader
from itertools import chain, islice
from statistics import median
from typing import Any, cast

from unitune.data.records import (
    BadRow,
    CheckHeader,
    Flat,
    Line,
    Record,
    TableRow,
    lines_of,
    without_blanks,
)
from unitune.findings import Finding, error, note
from unitune.text import clip

MOST_BYTES = 1 << 20  # of a line examined at once
# Share of odd letters beyond ASCII, and of letters beyond ASCII among all, that are allowed
MOST_ODD, MOST_FOREIGN = 0.02, 0.25
_WORD = re.compile(r"[^\W\d_]+")
# A sign or a capital beyond ASCII between two small letters, except an apostrophe
_ODD = re.compile(
    r"(?<=[a-z\u00df-\u00f6\u00f8-\u00ff])[^\x00-\x7f\u00ad\u00b7\u2018\u2019\u00df-\u00f6\u00f8-\u00ff"
    r"\u0153\u0161\u017e](?=[a-z\u00df-\u00f6\u00f8-\u00ff])"
)
_IF_WRONG = 'If that word is wrong, save the file as UTF-8 (Excel: "CSV UTF-8").'
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")


class _Transcoded(io.RawIOBase):
    """Transcode text to UTF-8; broken input becomes invalid UTF-8."""

    def __init__(self, stream: BufferedReader, encoding: str) -> None:
        self._stream = stream
        errors = "surrogatepass" if encoding.startswith("utf") else "strict"
        self._decoder = codecs.getincrementaldecoder(encoding)(errors)
        self._waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._waiting:
            chunk = self._stream.read(1 << 14)
            try:
                text = self._decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError:
                self._decoder.reset()
                text = "\udfff"  # half a character, which UTF-8 cannot encode
            self._waiting = text.encode("utf-8", "surrogatepass")
            if not chunk:
                break
        given = self._waiting[: len(buffer)]
        buffer[: len(given)] = given
        self._waiting = self._waiting[len(given) :]
        return len(given)


def transcoded(stream: BufferedReader, encoding: str) -> BufferedReader:
    """Return a stream that transcodes a text to UTF-8."""
    return cast("BufferedReader", BufferedReader(_Transcoded(stream, encoding)))


def _decoded(raw: bytes, encoding: str) -> str | None:
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        return None


def as_utf8(stream: BufferedReader) -> tuple[BufferedReader, list[Finding]]:
    """Return a text as UTF-8, with a note if it was Windows-1252; a pipe is returned unchanged."""
    if not stream.seekable():
        return stream, []
    handle = stream.fileno()  # so that the stream and its progress stay at the start
    before = os.lseek(handle, 0, os.SEEK_CUR)
    os.lseek(handle, 0, os.SEEK_SET)
    found = _windows_1252(BufferedReader(io.FileIO(handle, closefd=False)))
    os.lseek(handle, before, os.SEEK_SET)
    return (transcoded(stream, "cp1252") if found else stream), [found] if found else []


def _windows_1252(stream: BufferedReader) -> Finding | None:
    first: Finding | None = None
    letters = beyond = odd = 0
    for number, raw in enumerate(iter(lambda: stream.readline(MOST_BYTES), b""), start=1):
        if raw.isascii():
            continue
        text = _decoded(raw, "cp1252")
        if text is None or _decoded(raw, "utf-8") is not None or _CONTROL.search(raw):
            return None
        words = _WORD.findall(text)
        foreign = [word for word in words if not word.isascii()]
        if first is None:
            word = next(iter(foreign), text.strip()[:20])
            what = f"the file is not UTF-8 and was read as Windows-1252, e.g. {word!r} here."
            first = note("windows-1252", what, _IF_WRONG).at(line=number)
        letters += sum(map(len, words))
        beyond += sum(not letter.isascii() for word in foreign for letter in word)
        odd += len(_ODD.findall(text))
    if odd > MOST_ODD * max(beyond, 1) or beyond > MOST_FOREIGN * max(letters, 1):
        return None
    return first


# Delimiters to detect, if the job names none
DELIMITERS: Mapping[str, str] = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# Bytes examined for the delimiter: as many as a buffer holds
SAMPLE_BYTES = 8192
SAMPLE_ROWS = 20  # rows searched for the header
_TOTAL = re.compile(
    r"(?:grand |sub-?)?(?:totals?|sum|summe|gesamt(?:summe)?|insgesamt|totale|somme|suma|totaal)\W*"
    r"|(?:average|mean|mittelwert|durchschnitt|count|anzahl)\W*",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[-+(]?[\d.,' ]+[%)]?")
_QUOTING = (
    "Quote a value that contains a quote, the delimiter or a line break, and write a quote inside "
    "it "
    'twice ("").'
)
_REASONS = {
    "end of data": "its last quote is never closed",
    "field limit": f"a value has more than {csv.field_size_limit():,} characters, so a quote "
    "is probably not closed; longer values need a JSON Lines file",
    "expected after": "there is text between a closing quote and the delimiter",
    "new-line character": "a carriage return is not followed by a line feed",
}


def table_records(
    stream: BufferedReader, check_header: CheckHeader, *, usual: str, delimiter: str | None = None
) -> Iterator[Record | Finding]:
    """Read a table: a header, then one record per row.

    `usual` is the delimiter if neither the job nor the content shows one.
    """
    stream, decoded = as_utf8(stream)
    yield from decoded
    mark = delimiter or _delimiter(stream.peek(SAMPLE_BYTES)[:SAMPLE_BYTES], usual)
    rows = (
        row
        for row in without_blanks(_table_rows(stream, mark))
        if isinstance(row, Finding) or not _names_separator(row)
    )
    file_format = f"a table separated by {DELIMITERS.get(mark, repr(mark))}"
    yield from records_of(rows, check_header, file_format)


def _names_separator(row: TableRow) -> bool:
    return row.number == 1 and "".join(row.values[:1]).lower().startswith("sep=")


def records_of(
    rows: Iterator[TableRow | Finding],
    check_header: CheckHeader,
    file_format: str,
    *,
    ragged: bool = False,
) -> Iterator[Record | Finding]:
    """Yield the records of a table's rows; `ragged` rows may end early, as in a sheet."""
    sample = list(islice(rows, SAMPLE_ROWS))
    table = [row for row in sample if isinstance(row, TableRow)]
    if not table:
        yield from (item for item in sample if isinstance(item, Finding))
        return
    titles = _title_lines([row.values for row in table])
    header = table[titles]
    if titles:
        lines = "1 line above it was" if titles == 1 else f"{titles} lines above it were"
        what = f"the header was found here; {lines} skipped."
        yield note("title-lines", what).at(line=header.number)
    problems = header.problems or [*header_problems(header.values, check_header)]
    yield from (problem.at(line=header.number) for problem in problems)
    if not problems:
        below = (row for row in chain(sample, rows) if row not in table[: titles + 1])
        yield from _records(below, header.values, file_format, ragged=ragged)


def _records(
    rows: Iterator[TableRow | Finding], header: list[str], file_format: str, *, ragged: bool
) -> Iterator[Record | Finding]:
    totals: list[TableRow] = []
    for row in rows:
        if isinstance(row, Finding):
            yield row
        elif not row.problems and _is_total(row.values):
            totals.append(row)
        else:
            for each in (*totals, row):
                yield from each.problems or [_record(each, header, file_format, ragged=ragged)]
            totals.clear()
    if totals:
        lines = "a line that looks" if len(totals) == 1 else f"{len(totals)} lines that look"
        word = clip(_filled(totals[0].values)[0])
        what = f"skipped {lines} like a total at the end of the table, beginning with {word}."
        yield note("total-lines", what).at(line=totals[0].number)


def _filled(values: Sequence[str]) -> list[str]:
    return [text for value in values if (text := value.strip())]


def _title_lines(rows: Sequence[Sequence[str]]) -> int:
    """Return the number of rows above the header of a table.

    A title fills at most half as many cells as most rows, counted from the first used column. A
    header whose first column has no name, as pandas writes it, is not a title.
    """
    counts = [len(_filled(row)) for row in rows]
    if not any(counts):
        return 0
    first = min(at for row in rows for at, value in enumerate(row) if value.strip())
    usual = median(counts)
    for at, row in enumerate(rows):
        if counts[at] * 2 > usual or not "".join(row[first : first + 1]).strip():
            return at
    return 0


def _is_total(values: Sequence[str]) -> bool:
    """Return whether a row begins with a word such as Total and otherwise holds only numbers."""
    word, *others = _filled(values) or [""]
    return len(values) > 1 and bool(_TOTAL.fullmatch(word)) and all(map(_NUMBER.fullmatch, others))


def _delimiter(sample: bytes, usual: str) -> str:
    """Return the delimiter in the header that gives most rows as many values as the header.

    Ties go to the one with the most columns, then to the usual one.
    """
    text = sample.removeprefix(codecs.BOM_UTF8).decode(errors="replace").lstrip("\r\n")
    if named := re.match(r"sep=(.)\r?$", text, re.IGNORECASE | re.MULTILINE):
        return named[1]
    whole = text[: text.rfind("\n") + 1] or text  # without the truncated last line
    fits: dict[str, tuple[float, int]] = {}
    for mark in dict.fromkeys((usual, *DELIMITERS)):
        rows = _sample_rows(whole, mark)
        widths = [len(row) for row in rows[_title_lines(rows) :]]
        if widths and widths[0] > 1:
            fits[mark] = sum(width == widths[0] for width in widths) / len(rows), widths[0]
    return max(fits, key=lambda mark: fits[mark]) if fits else usual


def _sample_rows(text: str, delimiter: str) -> list[list[str]]:
    rows: list[list[str]] = []
    with suppress(csv.Error):  # the sample's last row may be truncated
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            rows += [row] if row else []
    return rows


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
    where = f"the row from here to line {last}" if last > first else "the row"
    why = next((reason for words, reason in _REASONS.items() if words in failure), failure)
    return error("broken-row", f"{where} cannot be read: {why}.", _QUOTING).at(line=first)


def _record(
    row: TableRow, header: list[str], file_format: str, *, ragged: bool
) -> Record | Finding:
    named = len(header) - next((at for at, name in enumerate(reversed(header)) if name), 0)
    values = row.values
    if ragged:
        values = [*values, *[""] * (len(header) - len(values))]
    if len(values) != len(header) or any(values[named:]):
        count = "1 value" if len(values) == 1 else f"{len(values)} values"
        return error(
            "column-count",
            f"the row has {count}, but the header names {named}.",
            "Give every column a name and a value, and quote values that contain the delimiter.",
        ).at(line=row.number)
    cells: Flat = {name: value for name, value in zip(header, values, strict=True) if name}
    return Record(row.number, cells, from_table=True, file_format=file_format)


def header_problems(header: list[str], check_header: CheckHeader) -> Iterator[Finding]:
    """Report a header that repeats a column or does not fit."""
    names = [name for name in header if name]
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        what = f"the header names {', '.join(map(repr, repeated))} more than once; no row was read."
        yield error("repeated-column", what, "Give each column a different name.")
    try:
        check_header(names)
    except BadRow as misfit:
        yield from misfit.findings
