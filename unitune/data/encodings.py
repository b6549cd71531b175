"""Read Windows-1252, which Excel writes as "CSV", as UTF-8.

A file with a valid UTF-8 character beyond ASCII stays UTF-8. Any other file is read as Windows-1252
if its text looks like a language of that encoding.
"""

from __future__ import annotations

import codecs
import io
import os
import re
from io import BufferedReader
from typing import Any, cast

from unitune.findings import Finding, note

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
