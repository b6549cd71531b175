"""Data in a vendor's format: each row through a `Format`, with a finding for each that will not go.

What a format cannot carry is an error finding with file and line; rows are only left out when the
caller asks for it, and counted. `wire_lines` works on rows that are read, `encode_file` and
`decode_file` on files of any size. The formats themselves stand beside their vendors' backends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic_core import to_json

from unitune.backends import registry
from unitune.backends.formats import Format, UnrepresentableRow, WireRow
from unitune.data.dataset import Dataset, Row
from unitune.data.load import read, read_records
from unitune.data.records import Record
from unitune.errors import DataError
from unitune.findings import Finding, error
from unitune.job.job import Job


@dataclass(frozen=True, slots=True)
class Converted:
    """One row in its new form.

    Args:
        line: Of the file that it came from.
        text: A line of JSON Lines, without its end.
        left_out: Keys that no training reads and the format has no place for.
    """

    line: int
    text: str
    left_out: tuple[str, ...] = ()


def wire_lines(dataset: Dataset, format_name: str | None) -> Iterator[str | Finding]:
    """Write a dataset's rows as lines of the file that a backend takes, one by one.

    Args:
        dataset: Canonical rows.
        format_name: As `registry.format_names` lists them; None: canonical JSON Lines.

    Yields:
        Lines with their ends, and an error for each row that the format cannot carry.

    Raises:
        NotFoundError: No installed package brings the format.
    """
    if format_name is None:
        yield from (row.line + "\n" for row in dataset)
        return
    form = registry.wire_format(format_name)
    for row in dataset.rows:
        try:
            yield _line(form.encode(row.example)) + "\n"
        except UnrepresentableRow as problem:
            yield _cannot_carry(form, problem).at(file=dataset.name, line=row.line)


def encode_file(path: str | os.PathLike[str], format_name: str) -> Iterator[Converted | Finding]:
    """Write a file's rows in a format, one by one.

    Args:
        path: Canonical JSON Lines, or a table with the usual columns; rows for any method.
        format_name: As `registry.format_names` lists them.

    Yields:
        Converted rows, and findings with file and line, in the file's order.

    Raises:
        NotFoundError: No installed package brings the format.
    """
    form = registry.wire_format(format_name)
    return (_encoded(form, item, path) for item in read(path, use="any"))


def decode_file(path: str | os.PathLike[str], format_name: str) -> Iterator[Converted | Finding]:
    """Read a file of a vendor's rows into canonical ones, one by one.

    Args:
        path: JSON Lines in the format.
        format_name: As `registry.format_names` lists them.

    Yields:
        Converted rows, and findings with file and line, in the file's order.

    Raises:
        NotFoundError: No installed package brings the format.
    """
    form = registry.wire_format(format_name)
    return (_decoded(form, item, path) for item in read_records(path))


def wire_text(job: Job, dataset: Dataset) -> str:
    """Return rows as the job's backend takes them: canonical, unless its offer names a format.

    Raises:
        DataError: A row cannot be carried.
    """
    name = registry.offer(job.backend).terms(job.base_model).formats.get(job.method)
    lines: list[str] = []
    findings: list[Finding] = []
    for item in wire_lines(dataset, name):
        lines.append(item) if isinstance(item, str) else findings.append(item)
    if findings:
        raise DataError(
            f"{dataset.name} has {len(findings)} rows that {job.backend} cannot take; the first: "
            f"{findings[0]}",
            tuple(findings),
        )
    return "".join(lines)


def _encoded(
    form: Format, item: Row | Finding, path: str | os.PathLike[str]
) -> Converted | Finding:
    if isinstance(item, Finding):
        return item
    try:
        row = form.encode(item.example)
    except UnrepresentableRow as problem:
        return _cannot_carry(form, problem).at(file=str(path), line=item.line)
    left_out = tuple(key for key in item.example.beside if key not in row)
    return Converted(item.line, _line(row), left_out)


def _decoded(
    form: Format, item: Record | Finding, path: str | os.PathLike[str]
) -> Converted | Finding:
    if isinstance(item, Finding):
        return item
    try:
        return Converted(item.line, form.decode(item.value).line)
    except UnrepresentableRow as problem:
        finding = error(
            "cannot-read",
            f"this is no row of {form.name} that can be read: {problem}.",
            "Change the row, leave it out, or name the format that it has.",
        )
        return finding.at(file=str(path), line=item.line)


def _cannot_carry(form: Format, problem: UnrepresentableRow) -> Finding:
    return error(
        "cannot-carry",
        f"{form.name} cannot carry this row: {problem}.",
        "Change the row, leave it out, or choose a backend that can.",
    )


def _line(row: WireRow) -> str:
    return to_json(row).decode()
