"""Detect a file's format by content and name, also in compressed files and UTF-16, and read it.

JSON may also be a list of objects, or objects over several lines. Each element is parsed alone, so
a broken one costs only itself.
"""

from __future__ import annotations

import codecs
import errno
import gzip
import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from io import BufferedReader
from itertools import chain, islice
from pathlib import PurePath
from typing import Any, NamedTuple, TypeAlias, cast

from unitune.data.binary_tables import arrow_records, package, parquet_records, sheet_records
from unitune.data.records import (
    MOST_BYTES,
    BadRow,
    CheckHeader,
    Record,
    encoding_findings,
    json_lines,
    json_row,
    text_line,
)
from unitune.data.tables import table_records, transcoded
from unitune.findings import Finding, error

_CHUNK = 1 << 18
_BLANK = re.compile(rb"[ \t\r\n]*+")
# A string ends with its line at the latest, so a missing quote affects one line only.
_TO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\\n]++|\\.)*+(?:"|(?=\n)))*+', re.DOTALL)
_SCALAR = re.compile(rb'"(?:[^"\\\n]++|\\.)*+"?|[^,\[\]{}\s"]++', re.DOTALL)
_LIST = "Write a list as [{…}, {…}], with one comma between objects."
_NEVER_CLOSED = error(
    "broken-json",
    "the row never ends: a bracket or quote is not closed. The rest was not read.",
    "Close it. The file was probably cut off.",
)


class _Element(NamedTuple):
    item: int
    line: int
    content: list[Record | Finding]  # without a line yet


class _Source:
    def __init__(self, stream: BufferedReader) -> None:
        self._stream = stream
        self._offset = 0
        self.held = bytearray()
        self.line = 1
        while len(self.held) < len(codecs.BOM_UTF8) and self.more():
            pass
        if self.held.startswith(codecs.BOM_UTF8):
            self.take(len(codecs.BOM_UTF8))

    def more(self) -> bool:
        chunk = self._stream.read(_CHUNK)
        self.held += chunk
        return bool(chunk)

    def take(self, length: int) -> None:
        self.line += self.held.count(b"\n", 0, length)
        self._offset += length
        del self.held[:length]

    def skip_blanks(self) -> bytes:
        """Skip blanks and return those after the last line break."""
        skipped = b""
        while True:
            match = _BLANK.match(self.held)
            skipped += match[0] if match else b""
            self.take(len(match[0]) if match else 0)
            if self.held or not self.more():
                return skipped[skipped.rfind(b"\n") :] if b"\n" in skipped else b""

    def length(self) -> int | None:
        """Return the length of the next value; None if it never ends."""
        depth = end = 0
        if self.held[0] not in b"[{":
            while (match := _SCALAR.match(self.held)) and match.end() == len(self.held):
                if not self.more():
                    break
            return match.end() if match else 1
        while end <= MOST_BYTES:
            match = _TO_BRACKET.match(self.held, end)
            end = match.end() if match else end
            if end == len(self.held) or self.held[end] == ord('"'):
                if not self.more():
                    return None
                continue
            depth += 1 if self.held[end] in b"[{" else -1
            end += 1
            if depth <= 0:
                return end
        return None

    def rows(self, length: int) -> list[Record | Finding]:
        line = text_line(self.line, bytes(self.held[:length]), self._offset)
        return [line.problem] if line.problem else [*json_row(line.text, self.line)]


def json_values(stream: BufferedReader) -> Iterator[Record | Finding]:
    """Read a JSON list of objects, or several objects in a row."""
    elements = _elements(_Source(stream))
    first = list(islice(elements, 2))
    by_line = len({1, *(element.line for element in first)}) > 1
    layout = "a JSON list" if by_line else "a JSON list on one line (rows are numbered)"
    for element in chain(first, elements):
        number = element.line if by_line else element.item
        for each in element.content:
            if isinstance(each, Finding):
                yield each.at(line=number)
            else:
                yield Record(number, each.value, file_format=layout)


def _elements(source: _Source) -> Iterator[_Element]:
    source.skip_blanks()
    is_list = source.held.startswith(b"[")
    source.take(int(is_list))
    indent, item = source.skip_blanks(), 1
    while source.held and not (is_list and source.held.startswith(b"]")):
        line = source.line
        content, length = _row(source, indent)
        yield _Element(item, line, content)
        if length is None:
            return
        source.take(length)
        indent, item = source.skip_blanks(), item + 1
        if is_list and source.held.startswith(b","):
            source.take(1)
            indent = source.skip_blanks()
            if source.held.startswith(b"]"):
                yield _problem(item, source, "there is a comma after the last row.")
        elif is_list and source.held and not source.held.startswith(b"]"):
            yield _problem(item, source, "a comma is missing before this row.")
    if is_list:
        yield from _ending(source, item)


def _row(source: _Source, indent: bytes) -> tuple[list[Record | Finding], int | None]:
    """Parse the next element and return its length; None if the rest cannot be read."""
    length = source.length()
    content: list[Record | Finding] = source.rows(length) if length else [_NEVER_CLOSED]
    if any(isinstance(each, Finding) and each.severity == "error" for each in content):
        following = source.held.find(indent + b"{", 1) if indent else -1
        if 0 < following < (length or len(source.held)):
            length = len(source.held[:following].rstrip(b", \t\r\n"))
            content = source.rows(length)
    return content, length


def _ending(source: _Source, item: int) -> Iterator[_Element]:
    if not source.held:
        yield _problem(item, source, "the file ends before the list does. It was probably cut off.")
        return
    source.take(1)
    source.skip_blanks()
    if source.held:
        what = "there is text after the list. The rest was not read."
        yield _problem(item, source, what)


def _problem(item: int, source: _Source, what: str) -> _Element:
    return _Element(item, source.line, [error("broken-json", what, _LIST)])


Reader: TypeAlias = Callable[[BufferedReader, CheckHeader], Iterator[Record | Finding]]
_OVER_LINES = re.compile(rb"\[|\{[ \t\r]*\n")
OLD_EXCEL = b"\xd0\xcf\x11\xe0"
PEEKED = 512
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # first, because it begins with UTF-16's
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def json_records(stream: BufferedReader, _: CheckHeader) -> Iterator[Record | Finding]:
    """Read JSON: objects on lines, in a list, or over several lines."""
    head = stream.peek().removeprefix(codecs.BOM_UTF8).lstrip()
    return (json_values if _OVER_LINES.match(head) else json_lines)(stream)


def text_records(stream: BufferedReader, check_header: CheckHeader) -> Iterator[Record | Finding]:
    """Read a text as JSON or as a table: Excel saves "Unicode text" as .txt."""
    if stream.peek().removeprefix(codecs.BOM_UTF8).lstrip().startswith((b"{", b"[")):
        return json_records(stream, check_header)
    return table_records(stream, check_header, usual="\t")


def _zstd(stream: BufferedReader) -> Any:
    module = "compression.zstd" if find_spec("compression") else "backports.zstd"
    return package(module, "files compressed by zstd").ZstdFile(stream)


TEXT: Mapping[str, Reader] = {
    ".jsonl": json_records,
    ".ndjson": json_records,
    ".json": json_records,
    ".csv": partial(table_records, usual=","),
    ".tsv": partial(table_records, usual="\t"),
    ".txt": text_records,
}
# By file suffix; another format needs one such function
READERS: Mapping[str, Reader] = {
    **TEXT,
    ".parquet": parquet_records,
    ".arrow": arrow_records,
    ".xlsx": sheet_records,
}
BINARY: Mapping[bytes, Reader] = {
    b"PAR1": parquet_records,
    b"ARROW1": arrow_records,
    b"\xff\xff\xff\xff": arrow_records,
    b"PK\x03\x04": sheet_records,
}
COMPRESSED: Mapping[bytes, Callable[[BufferedReader], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"\x28\xb5\x2f\xfd": _zstd,
}


class _Decompressed(io.RawIOBase):
    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return self._file.readinto(buffer)
        except Exception as failure:  # each package raises its own errors
            raise OSError(errno.EINVAL, f"its compression is damaged ({failure})") from failure


def _not_text(stream: BufferedReader, name: str) -> Finding | None:
    head = stream.peek(PEEKED)[:PEEKED]
    if head.startswith(OLD_EXCEL):
        what = "the file is an Excel 97-2003 workbook."
        return error("not-text", what, "Save it as .xlsx, or as CSV UTF-8.")
    if PurePath(name).suffix.lower() not in TEXT or encoding_findings(stream) or _is_text(head):
        return None
    return error("not-text", "the file is not text.", "Export the rows as CSV UTF-8 or JSONL.")


def _is_text(head: bytes) -> bool:
    controls = sum(byte < 32 and byte not in b"\t\n\r\f" for byte in head)
    if controls <= len(head) / 10:
        return True
    with suppress(UnicodeDecodeError):  # control characters are valid in UTF-8
        codecs.utf_8_decode(head)  # a truncated last character is fine
        return b"\0" not in head
    return False


def undamaged(records: Iterator[Record | Finding]) -> Iterator[Record | Finding]:
    """Yield a package's records, then an error if the file is damaged; raises `OSError`."""
    try:
        yield from records
    except (BadRow, OSError):
        raise
    except Exception as failure:  # noqa: BLE001 - each package raises its own errors
        yield error("broken-file", f"the file is damaged: {failure}.", "Create or copy it again.")


def records_in(
    stream: BufferedReader,
    name: str,
    check_header: CheckHeader,
    delimiter: str | None = None,
) -> Iterator[Record | Finding]:
    """Read a file's records; raises `BadRow` without a package, and `OSError`."""
    head, suffix = stream.peek(16), PurePath(name).suffix.lower()
    for magic, opened in COMPRESSED.items():
        if head.startswith(magic):
            within = cast("BufferedReader", BufferedReader(_Decompressed(opened(stream))))
            yield from records_in(within, PurePath(name).stem, check_header, delimiter)
            return
    marked = next((encoding for mark, encoding in _MARKS.items() if head.startswith(mark)), None)
    binary = next((reader for magic, reader in BINARY.items() if head.startswith(magic)), None)
    if binary:
        yield from undamaged(binary(stream, check_header))
    elif marked:
        yield from records_in(transcoded(stream, marked), name, check_header, delimiter)
    elif delimiter:
        yield from table_records(stream, check_header, usual=delimiter, delimiter=delimiter)
    elif problem := _not_text(stream, name):
        yield problem
    elif suffix in TEXT or head.lstrip().startswith((b"{", b"[")):
        findings = encoding_findings(stream)
        yield from findings
        if all(finding.severity != "error" for finding in findings):
            yield from TEXT.get(suffix, json_records)(stream, check_header)
    elif suffix in READERS:
        what = f"the name ends in {suffix!r}, but the content is not of that format."
        yield error("broken-file", what, "Create or copy it again, or rename it.")
    else:
        yield error(
            "unknown-format",
            f"files ending in {suffix!r} are not supported.",
            f"Convert or rename the file to one of {', '.join(READERS)}, optionally compressed "
            "by gzip or zstd.",
        )
