"""Bytes to lines of text: encodings, byte order marks, NUL bytes.

A line that is not clean UTF-8 keeps its place and says what is wrong with it, so that one bad byte
never hides the rest of a file. Its bad bytes stand in the text as lone surrogates, which lets a
table reader keep counting quotes across it. What the text means is not known here.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedReader

from unitune.findings import Finding, error, note

# UTF-32's little-endian mark begins with UTF-16's, so it stands first.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


MOST_BYTES = 1 << 26
"""Of a line: ten times what the longest context of any model holds."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file.

    Args:
        number: Counted from 1.
        text: With its line end.
        problem: Why the text cannot be used, placed on its line.
    """

    number: int
    text: str
    problem: Finding | None = None


@dataclass(slots=True)
class Blanks:
    """Blank lines met so far: how many, and where the first was."""

    count: int = 0
    first: int = 0

    def add(self, line: int) -> None:
        """Count one more."""
        self.first = self.first or line
        self.count += 1

    def note(self) -> Iterator[Finding]:
        """Yield one note for all of them, if there were any."""
        if self.count:
            lines = "1 blank line was" if self.count == 1 else f"{self.count:,} blank lines were"
            yield note("blank-lines", f"{lines} skipped, the first here.").at(line=self.first)


@dataclass(slots=True)
class Lines:
    """The lines of an open file, read as they are needed.

    Args:
        stream: At its start; may be a pipe.
        findings: About the file as a whole.
        readable: Whether lines can be read at all; if not, there are none.
    """

    stream: BufferedReader
    findings: list[Finding] = field(default_factory=list[Finding])
    readable: bool = True
    _offset: int = 0

    @classmethod
    def of(cls, stream: BufferedReader) -> Lines:
        """Read the first bytes of a file and leave the rest for later."""
        head = stream.peek(4)[:4]
        lines = cls(stream)
        if encoding := _foreign_encoding(head):
            lines.readable = False
            what = f"the file is {encoding}, seen at byte 0; nothing of it was read."
            fix = f"Save it as UTF-8, e.g. `iconv -f {encoding} -t UTF-8 FILE > NEW`."
            lines.findings.append(error("encoding", what, fix).at(line=1))
        elif head.startswith(codecs.BOM_UTF8):
            lines._offset = len(stream.read(len(codecs.BOM_UTF8)))
            what = "the file begins with a byte order mark, skipped."
            lines.findings.append(note("byte-order-mark", what).at(line=1))
        return lines

    def __iter__(self) -> Iterator[Line]:
        offset = self._offset
        pieces = iter(lambda: self.stream.readline(MOST_BYTES + 1), b"")
        for number, raw in enumerate(pieces if self.readable else (), start=1):
            if len(raw) > MOST_BYTES:
                what = (
                    f"the line has more than {MOST_BYTES >> 20} MiB; nothing from here on was read."
                )
                problem = error("line-too-long", what, "End each row with a line break.")
                yield Line(number, "", problem.at(line=number))
                return
            yield _line(number, raw, offset)
            offset += len(raw)


def _foreign_encoding(head: bytes) -> str | None:
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    # Without a mark, UTF-16 text shows by a zero in every second byte.
    zeros = [byte == 0 for byte in head]
    return "UTF-16" if zeros in ([True, False] * 2, [False, True] * 2) else None


def _line(number: int, raw: bytes, offset: int) -> Line:
    problem = None
    try:
        text = raw.decode("utf-8")
        if "\0" in text:
            problem = error(
                "nul-byte",
                f"there is a NUL byte at offset {offset + raw.index(0):,} of the file.",
                "Remove it; an interrupted copy leaves such bytes, so look whether rows are "
                "missing.",
            )
    except UnicodeDecodeError as failure:
        text = raw.decode("utf-8", "surrogateescape")
        problem = error(
            "encoding",
            f"byte 0x{raw[failure.start]:02X} at offset {offset + failure.start:,} of the file "
            "is not UTF-8.",
            "Save the file as UTF-8, e.g. `iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW`.",
        )
    return Line(number, text, problem and problem.at(line=number))
