"""Detect a file's format by content and name, also in compressed files and UTF-16, and read it."""

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
from pathlib import PurePath
from typing import Any, TypeAlias, cast

from unitune.data.binary_tables import arrow_records, package, parquet_records, sheet_records
from unitune.data.encodings import transcoded
from unitune.data.json_values import json_values
from unitune.data.records import BadRow, CheckHeader, Record, encoding_findings, json_lines
from unitune.data.tables import table_records
from unitune.findings import Finding, error

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
