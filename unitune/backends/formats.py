"""Convert rows to and from the wire formats of vendors, without a vendor's SDK.

A `Format` is found by its entry point in the group ``unitune.formats``. A row that it cannot
represent raises `UnrepresentableRow` and becomes an error finding with file and line. `wire_lines`
converts rows in memory, `convert_file` files of any size.
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
from unitune.data.example import Example, explain
from unitune.data.load import folder_of, read, read_records
from unitune.data.records import BadRow, Record
from unitune.data.rows import with_images
from unitune.data.shapes import read_wire
from unitune.errors import DataError
from unitune.findings import Finding, error

WireRow = dict[str, JsonValue]


class UnrepresentableRow(ValueError):
    """A row with content that the target format cannot represent."""


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of row of one vendor."""

    name: str  # name for `unitune data convert --to`, such as ``openai-chat``
    summary: str  # one line for people
    encode: Callable[[Example], WireRow]  # convert from canonical to wire
    decode: Callable[[Mapping[str, JsonValue]], Example]  # convert from wire to canonical
    keys: tuple[str, ...] = ()  # keys of a row that it reads, if it refuses others
    # Whether a row has this format, if that is recognisable and differs from canonical
    fits: Callable[[Mapping[str, JsonValue]], bool] | None = None
    reasoning: bool = False  # whether answers may have `reasoning_content`


def format_names() -> list[str]:
    """Return the sorted names of all installed wire formats."""
    return registry.names("formats")


@cache
def wire_format(name: str) -> Format:
    """Return a wire format by name, without importing an SDK, or raise `NotFoundError`."""
    return registry.entry("formats", name).load()


@dataclass(frozen=True, slots=True)
class Converted:
    """One row in its new format."""

    line: int  # line in the source file
    text: str  # a line of JSON Lines, without line end
    left_out: tuple[str, ...] = ()  # keys that no training reads and the format cannot represent


def wire_lines(dataset: Dataset, format_name: str | None) -> Iterator[str | Finding]:
    """Yield a dataset's rows as lines in a format, or errors for rows that it cannot represent."""
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
    """Convert a file's rows to another format, one by one.

    Args:
        path: A data file of any kind.
        to: Target format; None for canonical.
        source: Source format; None to detect it.
        change: A further change of each row.

    Yields:
        Converted rows, and findings with file and line, in the file's order.

    Raises:
        NotFoundError: No installed package has a format.
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
    """Return rows as the text of a backend's file, or raise `DataError`."""
    lines: list[str] = []
    findings: list[Finding] = []
    for item in wire_lines(dataset, format_name):
        lines.append(item) if isinstance(item, str) else findings.append(item)
    if findings:
        raise DataError(
            f"{dataset.name} has {len(findings)} rows that are not allowed in {format_name}. The "
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
            f"{form.name} cannot represent this row: {problem}.",
            "Change or remove the row, or choose another backend.",
        )
        return finding.at(file=str(path), line=item.line)
    text, tools = to_json(row).decode(), to_json(item.example.tools).decode()
    left_out = [key for key in item.example.scoring_keys if key not in row]
    if '"strict":' in tools and '"strict":' not in text:  # a setting inside a tool
        left_out.append("strict")
    if '"detail":' not in text and any(image.detail for image in item.example.images):
        left_out.append("detail")
    return Converted(item.line, text, tuple(left_out))


def _wire_row(form: Format, example: Example) -> WireRow:
    turns = (*example.messages, *(example.non_preferred_output or ()))
    if not form.reasoning and any(turn.reasoning_content for turn in turns):
        raise UnrepresentableRow(
            "it has reasoning_content; set data.reasoning: drop to leave it out"
        )
    return form.encode(example)


def _decoded(form: Format, item: Record | Finding, path: str | os.PathLike[str]) -> Row | Finding:
    if isinstance(item, Finding):
        return item
    try:
        example = Example.model_validate(read_wire(form, item.value))
        return Row(item.line, with_images(example, folder_of(str(path))))
    except BadRow as problem:
        finding = problem.findings[0]
    except ValidationError as failure:
        finding = explain(failure, item.value)[0]
    return finding.at(file=str(path), line=item.line)
