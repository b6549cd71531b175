"""Reading a data file: `read` streams it row by row, `load` collects it whole.

    bytes ─► lines ─► records (JSON Lines or a table) ─► examples ─► Row | Finding

`read_records` ends before the examples, for rows that are not in the canonical form. Every row
comes out either as a `Row` or as an error that names file and line; a bad row never hides the next
one, and no content of a file makes `read` raise. Duplicates and other errors that only show across
rows are the business of `unitune.data.check`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

from unitune.data.dataset import Dataset, Row
from unitune.data.lines import Lines
from unitune.data.mapping import ByUsualNames, Mapping, mapping_of
from unitune.data.records import Record, json_records
from unitune.data.rows import Use, examples, is_mapped
from unitune.data.tables import table_records
from unitune.errors import DataError, nearest
from unitune.findings import Finding, error, note
from unitune.job.job import Data
from unitune.workspace.filesystem import opened

JSON_LINES = (".jsonl", ".ndjson", ".json")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*JSON_LINES, *DELIMITERS)
SHOWN_FINDINGS = 5
"""So many fit an error message; `unitune check` shows them all."""
T = TypeVar("T")
_MAX_NAMES = 20
"""Keys remembered for the note on what was left out: a file may have any number."""


def read(
    path: str | os.PathLike[str], data: Data | None = None, use: Use = "case"
) -> Iterator[Row | Finding]:
    """Read a file row by row, in constant memory.

    Args:
        path: JSON Lines (.jsonl, .ndjson, .json), CSV or TSV; UTF-8.
        data: The job's data, for its columns or template; None: the file's own keys.
        use: What the rows are for, and so what each must have.

    Yields:
        Usable rows, and findings with file and line, in the file's order; what concerns the whole
        file comes first or last.
    """
    file, usable, errors = Path(path), 0, 0
    for item in _items(file, data, use):
        if isinstance(item, Row):
            usable += 1
            yield item
        else:
            errors += item.severity == "error"
            yield item.at(file=str(file))
    if not usable and not errors:
        yield error("empty-file", "there are no rows.", "Put at least one row in it.").at(
            file=str(file)
        )


def load(path: str | os.PathLike[str], data: Data | None = None, use: Use = "case") -> Dataset:
    """Read a whole file.

    Args:
        path: JSON Lines, CSV or TSV; UTF-8.
        data: The job's data, for its columns or template.
        use: What the rows are for: a method (sft, dpo, rft), a case to be judged on, or any.

    Raises:
        DataError: The file cannot be read or holds a row that cannot be used; carries all findings.
    """
    rows: list[Row] = []
    findings: list[Finding] = []
    for item in read(path, data, use):
        rows.append(item) if isinstance(item, Row) else findings.append(item)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        count = "1 error" if len(errors) == 1 else f"{len(errors):,} errors"
        lines = [f"{path}: {count}; the file cannot be used as it is."]
        lines += [f"  {finding}" for finding in errors[:SHOWN_FINDINGS]]
        if (more := len(errors) - SHOWN_FINDINGS) > 0:
            checked = "the job file" if data else path
            lines.append(f"  … and {more:,} more; `unitune check` on {checked} shows all.")
        raise DataError("\n".join(lines), tuple(findings))
    return Dataset(Path(path).name, tuple(rows))


def read_records(path: str | os.PathLike[str]) -> Iterator[Record | Finding]:
    """Read a JSON Lines file without asking what its keys mean.

    Args:
        path: JSON Lines; UTF-8.

    Yields:
        One object a line, and findings with file and line, in the file's order.
    """
    file = Path(path)
    if file.suffix.lower() in DELIMITERS:
        problem = error("unknown-format", "a table is no JSON Lines.", "Write one object a line.")
        yield problem.at(file=str(file))
        return
    for item in _opened(file, lambda lines: chain(lines.findings, json_records(lines))):
        yield item.at(file=str(file)) if isinstance(item, Finding) else item


def _items(file: Path, data: Data | None, use: Use) -> Iterator[Row | Finding]:
    mapping = mapping_of(data)
    if isinstance(mapping, Finding):
        yield mapping
        return
    yield from _opened(file, lambda lines: _rows(lines, file.suffix.lower(), mapping, use))


def _opened(file: Path, items: Callable[[Lines], Iterator[T | Finding]]) -> Iterator[T | Finding]:
    try:
        if problem := _unreadable(file):
            yield problem
            return
        with opened(file) as stream:
            yield from items(Lines.of(stream))
    except OSError as failure:
        yield error(
            "unreadable-file",
            f"the file cannot be read: {failure.strerror or failure}.",
            "Check that it is there and that you may read it.",
        )


def _unreadable(file: Path) -> Finding | None:
    if file.is_dir():
        held = sorted(entry.name for entry in file.iterdir() if entry.suffix in SUFFIXES)
        listed = f"It holds {', '.join(held[:8])}." if held else "It holds no data files."
        return error("not-a-file", "this is a directory.", f"Name one file. {listed}")
    if not file.exists():
        siblings = islice(file.parent.glob("*"), 1000)
        near = nearest(file.name, [other.name for other in siblings if other.suffix in SUFFIXES])
        guess = f"Did you mean {near!r}?" if near else "Check the name and the folder."
        return error("missing-file", "there is no such file.", guess)
    if file.suffix.lower() not in SUFFIXES:
        return error(
            "unknown-format",
            f"files that end in {file.suffix!r} are not read.",
            f"Use one of {', '.join(SUFFIXES)}, and convert or rename the file.",
        )
    return None


def _rows(lines: Lines, suffix: str, mapping: Mapping | None, use: Use) -> Iterator[Row | Finding]:
    yield from lines.findings
    if suffix in DELIMITERS:
        mapping = mapping or ByUsualNames()
        records = table_records(lines, DELIMITERS[suffix], mapping)
    else:
        records = json_records(lines)
    left_out: dict[str, None] = {}
    for record in records:
        if isinstance(record, Finding):
            yield record
            continue
        for item in examples(record, mapping, use):
            is_finding = isinstance(item, Finding)
            yield item.at(line=record.line) if is_finding else Row(record.line, item)
        if mapping and len(left_out) < _MAX_NAMES and is_mapped(record, mapping):
            unread = (key for key in record.value if key not in mapping.reads and key != "id")
            left_out |= dict.fromkeys(unread)
    if left_out:
        yield note(
            "columns-left-out",
            "not mapped, and so not part of any row: "
            f"{', '.join(map(repr, list(left_out)[:_MAX_NAMES]))}.",
            "Name them under `data.columns` or in `data.template` if the model should see them.",
        )
