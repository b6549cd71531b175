"""Wire formats: a vendor's rows as pure functions, found by name without the vendor's SDK.

A `Format` turns a canonical row into a vendor's row and back. What it cannot represent raises
`UnrepresentableRow` and becomes an error finding with file and line, so that nothing is lost
silently. Entry points in the group ``unitune.formats`` name `Format` objects; they stand beside
their vendors' backends. `wire_lines` works on rows that are read, `convert_file` on files of any
size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

from pydantic import JsonValue, ValidationError
from pydantic_core import to_json

from unitune.backends import registry
from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example
from unitune.data.load import read, read_records
from unitune.data.records import BadRow, Record
from unitune.data.validation_errors import explain
from unitune.data.wire import read_wire
from unitune.errors import DataError
from unitune.findings import Finding, error

WireRow = dict[str, JsonValue]


class UnrepresentableRow(ValueError):
    """A row says something that the other side has no place for; the message says what."""


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of row on one vendor's wire.

    Args:
        name: As `unitune convert --to` takes it: ``openai-chat``.
        summary: One line for people.
        encode: From canonical to wire.
        decode: From wire to canonical.
        keys: The keys of a row that it reads, where it refuses others: those are own keys.
        fits: Whether a row is of this format, where that can be seen and canonical rows are not.
    """

    name: str
    summary: str
    encode: Callable[[Example], WireRow]
    decode: Callable[[Mapping[str, JsonValue]], Example]
    keys: tuple[str, ...] = ()
    fits: Callable[[Mapping[str, JsonValue]], bool] | None = None


def format_names() -> list[str]:
    """Return the names of all wire formats that installed packages bring, sorted."""
    return registry.names("formats")


@cache
def wire_format(name: str) -> Format:
    """Return the wire format of this name; no SDK is imported.

    Raises:
        NotFoundError: No installed package brings it.
    """
    return registry.entry("formats", name).load()


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
        format_name: As `format_names` lists them; None: canonical JSON Lines.

    Yields:
        Lines with their ends, and an error for each row that the format cannot carry.

    Raises:
        NotFoundError: No installed package brings the format.
    """
    if format_name is None:
        yield from (row.line + "\n" for row in dataset)
        return
    form = wire_format(format_name)
    for row in dataset.rows:
        item = _encoded(form, row, dataset.name)
        yield item if isinstance(item, Finding) else f"{item.text}\n"


def convert_file(
    path: str | os.PathLike[str],
    *,
    to: str | None = None,
    source: str | None = None,
    change: Callable[[Example], Example] | None = None,
) -> Iterator[Converted | Finding]:
    """Write a file's rows in another format, one by one.

    Args:
        path: A data file of any kind.
        to: The format that they get; None: canonical.
        source: The format that they have; None: it is seen.
        change: What is to be done to each row besides.

    Yields:
        Converted rows, and findings with file and line, in the file's order.

    Raises:
        NotFoundError: No installed package brings a format.
    """
    form = wire_format(to) if to else None
    items = read(path, use="any")
    if source:
        wire = wire_format(source)
        items = (_decoded(wire, item, path) for item in read_records(path))
    if change is not None:
        items = (
            replace(item, example=change(item.example)) if isinstance(item, Row) else item
            for item in items
        )
    return (_encoded(form, item, path) for item in items)


def wire_text(dataset: Dataset, format_name: str | None) -> str:
    """Return rows as lines of the file that a backend takes; see `wire_lines`.

    Raises:
        DataError: A row cannot be carried.
    """
    lines: list[str] = []
    findings: list[Finding] = []
    for item in wire_lines(dataset, format_name):
        lines.append(item) if isinstance(item, str) else findings.append(item)
    if findings:
        raise DataError(
            f"{dataset.name} has {len(findings)} rows that are not allowed in {format_name}; the "
            f"first: {findings[0]}",
            tuple(findings),
        )
    return "".join(lines)


def _encoded(
    form: Format | None, item: Row | Finding, path: str | os.PathLike[str]
) -> Converted | Finding:
    if isinstance(item, Finding):
        return item
    if form is None:
        return Converted(item.line, item.example.line)
    try:
        row = _wire_row(form, item.example)
    except UnrepresentableRow as problem:
        finding = error(
            "cannot-carry",
            f"{form.name} cannot hold this row: {problem}.",
            "Change the row, leave it out, or choose a backend that can.",
        )
        return finding.at(file=str(path), line=item.line)
    text, tools = to_json(row).decode(), to_json(item.example.tools).decode()
    left_out = [key for key in item.example.beside if key not in row]
    if '"strict":' in tools and '"strict":' not in text:  # a tool's own setting
        left_out.append("strict")
    return Converted(item.line, text, tuple(left_out))


def _wire_row(form: Format, example: Example) -> WireRow:
    turns = (*example.messages, *(example.non_preferred_output or ()))
    if any(turn.reasoning_content for turn in turns):
        raise UnrepresentableRow("it has reasoning_content; data.reasoning: drop leaves it out")
    return form.encode(example)


def _decoded(form: Format, item: Record | Finding, path: str | os.PathLike[str]) -> Row | Finding:
    if isinstance(item, Finding):
        return item
    try:
        return Row(item.line, Example.model_validate(read_wire(form, item.value)))
    except BadRow as problem:
        finding = problem.findings[0]
    except ValidationError as failure:
        finding = explain(failure, item.value)[0]
    return finding.at(file=str(path), line=item.line)
