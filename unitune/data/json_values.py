"""Read JSON that is not one object per line: a list of objects, or objects over several lines.

Each element is parsed alone, so a broken one costs only itself.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from io import BufferedReader
from itertools import chain, islice
from typing import NamedTuple

from unitune.data.records import MOST_BYTES, Record, json_row, text_line
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
