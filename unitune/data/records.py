"""Read a file's bytes as records: lines of text and JSON Lines.

Bytes that are not UTF-8 become lone surrogates, so that quotes are still counted correctly.
"""

from __future__ import annotations

import codecs
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from typing import NamedTuple, NoReturn, TypeAlias, TypeVar

from pydantic import JsonValue

from unitune.findings import Finding, error, note, warning
from unitune.text import clip

Flat: TypeAlias = dict[str, JsonValue]  # a table row or JSON object: values by name
# Raises `BadRow` if a table with these columns cannot be read
CheckHeader: TypeAlias = Callable[[list[str]], None]

MOST_BYTES = 1 << 26  # per line: ten times the longest context of any model
SEEN_BYTES = 256  # last bytes of a chunk: UTF-16 text has a zero there
# Nesting depth of lists and objects; pydantic fails at about 250
MAX_DEPTH = 100
# Digits of a whole number; Python's own limit of 4,300 fails only when the number is written
MAX_DIGITS = 1000

_TOO_DEEP = (
    "too-deep",
    f"lists and objects are nested more than {MAX_DEPTH} levels deep.",
    "Flatten the row, or write the deep part as a string.",
)
_ONE_OBJECT = "A row is one JSON object, with names and strings in double quotes."


class BadRow(ValueError):
    """Row or table header that cannot be read; its findings have no line yet."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__(*map(str, findings))
        self.findings = findings


def bad(code: str, message: str, fix: str) -> BadRow:
    """Return a `BadRow` with one finding."""
    return BadRow(error(code, message, fix))


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file: its first line and its values by name (strings if `from_table`)."""

    line: int
    value: Flat
    from_table: bool = False
    file_format: str = "JSON Lines"


class Line(NamedTuple):
    """A line with its end, and a problem if its text cannot be used."""

    number: int
    text: str
    problem: Finding | None = None

    @property
    def is_blank(self) -> bool:
        """True if the line is empty."""
        return self.problem is None and not self.text.strip()


class TableRow(NamedTuple):
    """Values of a row, its first line, and problems that make it unusable."""

    number: int
    values: list[str]
    problems: list[Finding]

    @property
    def is_blank(self) -> bool:
        """True if the row is empty."""
        return not "".join(self.values).strip() and not self.problems


T = TypeVar("T", Line, TableRow)


def encoding_findings(stream: BufferedReader) -> list[Finding]:
    """Return a note about a UTF-8 byte order mark or an error about UTF-16 without one."""
    whole = stream.peek()
    head = whole[:4]
    if head.startswith(codecs.BOM_UTF8):
        what = "the file begins with a byte order mark, which was skipped."
        return [note("byte-order-mark", what).at(line=1)]
    # UTF-16 text without a mark has a zero in every second byte.
    zeros = [byte == 0 for byte in head]
    ends = b"\0" in whole[-SEEN_BYTES:]  # otherwise only the first line is UTF-16
    if not ends or zeros not in ([True, False] * 2, [False, True] * 2):
        return []
    what = "the file is UTF-16 without a byte order mark and was not read."
    encoding = "UTF-16BE" if zeros[0] else "UTF-16LE"
    fix = f"Save it as UTF-8, e.g. `iconv -f {encoding} -t UTF-8 FILE > NEW`."
    return [error("encoding", what, fix).at(line=1)]


def json_lines(stream: BufferedReader) -> Iterator[Record | Finding]:
    """Read JSON Lines: one object per line."""
    for line in without_blanks(lines_of(stream)):
        if isinstance(line, Finding):
            yield line
        elif line.problem:
            yield line.problem
        else:
            yield from json_row(line.text.rstrip(), line.number)


def json_row(text: str, line: int) -> Iterator[Record | Finding]:
    """Parse one row, with findings at its line."""
    try:
        value, repeated = _object(text)
    except BadRow as broken:
        yield from (finding.at(line=line) for finding in broken.findings)
        return
    for key in repeated:
        what = f"the key {clip(key)} appears more than once in an object; the last one counts."
        yield warning("repeated-key", what, "Keep only one.").at(line=line)
    yield Record(line, value)


def strict_json(text: str) -> tuple[JsonValue, list[str]]:
    """Parse one JSON value; refuse NaN, overflowing floats and numbers of over 1,000 digits.

    Returns the value and the keys repeated in one object; raises ValueError or RecursionError.
    """
    repeated: list[str] = []

    def once_each(pairs: list[tuple[str, JsonValue]]) -> Flat:
        made = dict(pairs)
        if len(made) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            repeated.extend(key for key, count in counts.items() if count > 1)
        return made

    value: JsonValue = json.loads(
        text,
        object_pairs_hook=once_each,
        parse_float=_finite,
        parse_int=_short,
        parse_constant=_refuse,
    )
    return value, repeated


def json_or_none(text: str) -> JsonValue:
    """Return the value that `strict_json` parses, or None."""
    try:
        return strict_json(text)[0]
    except (ValueError, RecursionError):
        return None


def lines_of(stream: BufferedReader) -> Iterator[Line]:
    """Yield the lines of a file from its start."""
    offset = 0
    pieces = iter(lambda: stream.readline(MOST_BYTES + 1), b"")
    for number, raw in enumerate(pieces, start=1):
        if len(raw) > MOST_BYTES:
            what = f"the line has more than {MOST_BYTES >> 20} MiB; the rest was not read."
            problem = error("line-too-long", what, "End each row with a line break.")
            yield Line(number, "", problem.at(line=number))
            return
        mark = len(codecs.BOM_UTF8) if number == 1 and raw.startswith(codecs.BOM_UTF8) else 0
        yield text_line(number, raw[mark:], offset + mark)
        offset += len(raw)


def text_line(number: int, raw: bytes, offset: int) -> Line:
    """Decode a line, or a row of several lines."""
    problem = None
    try:
        text = raw.decode("utf-8")
        if "\0" in text:
            problem = error(
                "nul-byte",
                f"there is a NUL byte at offset {offset + raw.index(0):,} of the file.",
                "Remove it. Interrupted copies leave such bytes, so check for missing rows.",
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


def without_blanks(items: Iterator[T]) -> Iterator[T | Finding]:
    """Skip blank lines or rows, then report how many there were."""
    count = first = 0
    for item in items:
        if item.is_blank:
            first, count = first or item.number, count + 1
        else:
            yield item
    if count:
        lines = "1 blank line was" if count == 1 else f"{count:,} blank lines were"
        yield note("blank-lines", f"{lines} skipped, the first here.").at(line=first)


def _object(text: str) -> tuple[Flat, list[str]]:
    try:
        value, repeated = strict_json(text)
    except RecursionError:
        raise bad(*_TOO_DEEP) from None
    except ValueError as failure:
        why = str(failure)
        if isinstance(failure, json.JSONDecodeError):
            near = clip(text[max(0, failure.pos - 15) : failure.pos + 15])
            below = f" of its line {failure.lineno}" if failure.lineno > 1 else ""
            why = f"at column {failure.colno}{below}, near {near}: {failure.msg}"
        raise bad("broken-json", f"not valid JSON: {why}.", _ONE_OBJECT) from None
    if not isinstance(value, dict):
        given = text if len(text) <= 40 else f"{text[:40]}…"
        raise bad("not-an-object", f"the row is {given}, not an object.", _ONE_OBJECT)
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise bad(*_TOO_DEEP)
    half = "\\ud" in text or "\\uD" in text  # prefix of every escaped surrogate
    if half and (broken := _unpaired_surrogate(value)):
        raise bad(
            "unpaired-surrogate",
            f"the escape \\u{ord(broken):04x} is half of a character.",
            "Write the whole character or both halves of the pair. The text was probably cut off.",
        )
    return value, repeated


def _depth(value: JsonValue) -> int:
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        here, depth = waiting.pop()
        deepest = max(deepest, depth)
        inner = here.values() if isinstance(here, dict) else here
        if isinstance(inner, str | int | float | None):
            continue
        waiting.extend((item, depth + 1) for item in inner)
    return deepest


def _unpaired_surrogate(value: JsonValue) -> str | None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as failure:
        return failure.object[failure.start]
    return None


def _short(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"the number {digits[:20]}… has {len(digits):,} digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:20]} is too large")
    return number


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")
