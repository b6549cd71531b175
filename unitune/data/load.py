"""Read data files: `read` streams rows, `load` collects them.

    bytes ─► records (`file_formats`) ─► examples (`rows`, by shape) ─► Row | Finding

Every row becomes a `Row` or an error with file and line; no content makes `read` raise.
A list of files, or the files of a pattern, are read as one with continuous line numbers.
"""

from __future__ import annotations

import glob
import os
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from unitune.data import mapping
from unitune.data.binary_tables import (
    SCHEME,
    hub_records,
    is_saved_dataset,
    saved_records,
    source_name,
)
from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example
from unitune.data.file_formats import READERS, records_in, undamaged
from unitune.data.mapping import Mapping as RowMapping
from unitune.data.privacy.redaction import masked
from unitune.data.questions import normal
from unitune.data.records import BadRow, CheckHeader, Record
from unitune.data.rows import Use, examples, is_mapped
from unitune.data.shapes import Shape, shape_named, shape_of
from unitune.errors import DataError, nearest
from unitune.files.filesystem import opened
from unitune.findings import Finding, error, note
from unitune.job.data import FilePurpose
from unitune.job.job import Data, Job
from unitune.workspace.progress import counted_file

SHOWN_FINDINGS = 5  # findings in an error message; `unitune check` shows all
MOST_KEYS = 20  # keys kept and listed, because a file may have any number


@dataclass(slots=True)
class Reading:
    """Form of a file, as far as it has been read."""

    mapping: RowMapping | None = None
    shape: Shape | None = None
    _formats: Counter[str] = field(default_factory=Counter[str])
    _shapes: Counter[str] = field(default_factory=Counter[str])
    _keys: dict[str, dict[str, None]] = field(default_factory=dict[str, dict[str, None]])
    _own: dict[str, None] = field(default_factory=dict[str, None])

    def add(self, record: Record, example: Example) -> None:
        """Add a row that was read."""
        shape = self.shape or shape_of(record.value)
        mapped = self.mapping is not None and is_mapped(record, self.mapping)
        label = "rows mapped by the job" if mapped or shape is None else shape.label
        self._formats[record.file_format] += 1
        self._shapes[label] += 1
        own = (example.model_extra or {}).keys()
        beside = {*own, "id"}
        if len(self._own) < MOST_KEYS:
            self._own |= dict.fromkeys(own)
        if len(keys := self._keys.setdefault(label, {})) < MOST_KEYS:
            keys |= dict.fromkeys(key for key in record.value if key not in beside)

    def __str__(self) -> str:
        """Return one line for people."""
        shapes = (
            f"{label} from {', '.join(map(masked, self._keys[label]))}"
            for label, _ in self._shapes.most_common()
        )
        own = f"; metadata {', '.join(map(masked, self._own))}" if self._own else ""
        return f"{' and '.join(self._formats)}: {' and '.join(shapes)}{own}" if self._shapes else ""


def read(
    path: str | os.PathLike[str],
    data: Data | None = None,
    use: Use = "case",
    reading: Reading | None = None,
) -> Iterator[Row | Finding]:
    """Read a file row by row, in constant memory.

    Args:
        path: A data file, a folder saved by `datasets`, or a data set, ``hf://owner/name``.
        data: The job's data section with columns or a template; None for the file's own keys.
        use: Purpose of the rows, which decides what each must have.
        reading: Record of how the file was read, filled on the way.
    """
    usable, errors, name = 0, 0, source_name(path)
    dropped: list[Finding] = []
    for item in _rows(name, data, use, reading or Reading()):
        if isinstance(item, Row):
            usable += 1
            yield item
        elif data and data.unusable == "drop" and item.is_about_row:
            dropped.append(item)
        else:
            errors += item.severity == "error"
            shown = item.model_copy(update={"message": masked(item.message)})
            yield shown.at(file=name)
    if dropped and not usable:
        yield from (item.at(file=name) for item in dropped[:SHOWN_FINDINGS])
    elif dropped:
        yield _left_out(dropped).at(file=name)
    elif not usable and not errors:
        problem = error("empty-file", "the file has no rows.", "Add at least one row.")
        yield problem.at(file=name)


def _left_out(dropped: Sequence[Finding]) -> Finding:
    rows = len({finding.line for finding in dropped})
    count = (
        "1 row cannot be used and was" if rows == 1 else f"{rows:,} rows cannot be used and were"
    )
    firsts = {finding.code: finding.line for finding in reversed(dropped)}
    causes = Counter(finding.code for finding in dropped).items()
    named = ", ".join(f"{code} ({many:,}, first in line {firsts[code]})" for code, many in causes)
    what = f"{count} left out (`data.unusable: drop`): {named}."
    return note("rows-left-out", what)


def load(path: str | os.PathLike[str], data: Data | None = None, use: Use = "case") -> Dataset:
    """Read a whole file.

    Args:
        path: As for `read`.
        data: The job's data section, as for `read`.
        use: Purpose of the rows: a method (sft, dpo, rft), a test case, or any.

    Raises:
        DataError: The file cannot be read or has an unusable row; carries all findings.
    """
    checked = "the job file" if data else str(path)
    return Dataset(Path(path).name, usable_rows(read(path, data, use), str(path), checked))


def usable_rows(items: Iterable[Row | Finding], path: str, checked: str) -> tuple[Row, ...]:
    """Return the rows among items; raises `DataError` with all findings for an error."""
    rows: list[Row] = []
    findings: list[Finding] = []
    for item in items:
        rows.append(item) if isinstance(item, Row) else findings.append(item)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        count = "1 error" if len(errors) == 1 else f"{len(errors):,} errors"
        lines = [f"{path}: {count}; the file cannot be used."]
        lines += [f"  {finding}" for finding in errors[:SHOWN_FINDINGS]]
        if (more := len(errors) - SHOWN_FINDINGS) > 0:
            lines.append(f"  … and {more:,} more; run `unitune check` on {checked} to see all.")
        raise DataError("\n".join(lines), tuple(findings))
    return tuple(rows)


def read_records(path: str | os.PathLike[str]) -> Iterator[Record | Finding]:
    """Yield a file's records, and findings with file and line, without interpreting keys."""
    name = source_name(path)
    for item in _records(name, lambda _: None):
        yield item.at(file=name) if isinstance(item, Finding) else item


def _rows(name: str, data: Data | None, use: Use, reading: Reading) -> Iterator[Row | Finding]:
    try:
        by_job = reading.mapping = mapping.mapping_of(data)
        reading.shape = shape_named(data.format) if data and data.format else None
    except BadRow as broken:
        yield from broken.findings
        return
    by_name = mapping.ByUsualNames(reading.shape)
    left_out: dict[str, None] = {}
    delimiter = data.delimiter if data else None
    labels = {normal(label): label for label in data.labels} if data else {}
    for record in _records(name, (by_job or by_name).check_header, delimiter):
        if isinstance(record, Finding):
            yield record
            continue
        mapped = by_job or (by_name if record.from_table else None)
        for item in examples(record, mapped, use, reading.shape, folder_of(name)):
            if isinstance(item, Finding):
                yield item.at(line=record.line)
                continue
            item = _with_label(item, labels)  # noqa: PLW2901
            if data and data.reasoning == "drop":
                item = _without_reasoning(item)  # noqa: PLW2901
            if len(left_out) < MOST_KEYS:
                left_out |= dict.fromkeys(_unmapped(record, item, by_job))
            reading.add(record, item)
            yield Row(record.line, item)
    if left_out:
        yield note(
            "columns-left-out",
            "not mapped, so neither trained on nor uploaded: "
            f"{', '.join(map(repr, list(left_out)[:MOST_KEYS]))}.",
            "Name them under `data.columns` or in `data.template` if the model should see them.",
        )


def folder_of(name: str) -> Path | None:
    """Return the folder whose images the rows of a data file may name; None for a Hub data set."""
    path = Path(name)
    return None if name.startswith(SCHEME) else path if path.is_dir() else path.parent


def _with_label(example: Example, labels: Mapping[str, str]) -> Example:
    label = labels.get(normal(example.answer or "")) if labels else None
    if label is None or label == example.answer:
        return example
    if example.expected is not None:
        return example.model_copy(update={"expected": label})
    *prompt, last = example.messages
    return example.model_copy(update={"messages": (*prompt, replace(last, content=label))})


def _without_reasoning(example: Example) -> Example:
    turns = (example.messages, example.non_preferred_output or ())
    if not any(turn.reasoning_content for some in turns for turn in some):
        return example
    messages, worse = (
        tuple(replace(turn, reasoning_content=None) for turn in some) for some in turns
    )
    return example.model_copy(update={"messages": messages, "non_preferred_output": worse or None})


def _unmapped(record: Record, example: Example, by_job: mapping.Mapping | None) -> Iterable[str]:
    if by_job and is_mapped(record, by_job):
        return (key for key in record.value if key not in by_job.reads and key != "id")
    return (example.model_extra or {}) if record.from_table else ()


def _records(
    name: str, check_header: CheckHeader, delimiter: str | None = None
) -> Iterator[Record | Finding]:
    file = Path(name)
    try:
        if name.startswith(SCHEME):
            yield from hub_records(name)
        elif problem := _unreadable(file):
            yield problem
        elif file.is_dir():
            yield from undamaged(saved_records(file))
        else:
            with opened(file) as stream:
                content = counted_file(stream, f"reading {file.name}")
                yield from records_in(content, file.name, check_header, delimiter)
    except BadRow as broken:
        yield from broken.findings
    except OSError as failure:
        yield error(
            "unreadable-file",
            f"the file cannot be read: {failure.strerror or failure}.",
            "Check that it exists and that you may read it.",
        )


def _unreadable(file: Path) -> Finding | None:
    if file.is_dir() and not is_saved_dataset(file):
        held = sorted(entry.name for entry in file.iterdir() if entry.suffix in READERS)
        listed = f"It holds {', '.join(held[:8])}." if held else "It holds no data files."
        return error("not-a-file", "this is a directory.", f"Name one file. {listed}")
    if not file.exists():
        siblings = islice(file.parent.glob("*"), 1000)
        near = nearest(file.name, [other.name for other in siblings if other.suffix in READERS])
        guess = f"Did you mean {near!r}?" if near else "Check the name and the folder."
        if share := re.fullmatch(r"(\d{1,2}(?:\.\d+)?) ?%", file.name):
            guess = f"To use {file.name} of the training rows, write {float(share[1]) / 100:g}."
        return error("missing-file", "the file does not exist.", guess)
    return None


SOURCE = "data_source"  # custom key of the rows of named sources and test sets


class Place(NamedTuple):
    """File and line of a row."""

    file: str
    line: int


class Files:
    """Data files read as one."""

    def __init__(self, paths: Sequence[str], names: Sequence[str | None] = ()) -> None:
        self.paths = tuple(paths)
        self._names = tuple(names) or (None,) * len(paths)
        self._before = [0]  # lines before each opened file

    @classmethod
    def of(cls, job: Job, purpose: FilePurpose) -> Files:
        """Return the files that a job uses for a purpose."""
        named = [
            (path, name)
            for name, file in job.data.named_files(purpose)
            for path in _fitting(job, file)
        ]
        return cls([path for path, _ in named], [name for _, name in named])

    @property
    def places(self) -> Callable[[int], Place] | None:
        """`place` if there are several files, otherwise None."""
        return self.place if len(self.paths) > 1 else None

    @property
    def name(self) -> str:
        """The path of the first file and the number of the others."""
        more = len(self.paths) - 1
        return f"{self.paths[0]} and {more:,} more" if more else self.paths[0]

    def read(self, data: Data | None, use: Use, reading: Reading) -> Iterator[Row | Finding]:
        """Read the rows of all files, and findings with file and line."""
        last = 0
        for at, (path, name) in enumerate(zip(self.paths, self._names, strict=True)):
            before = last
            if at:
                self._before.append(before)
            for item in read(path, data, use, reading):
                if not isinstance(item, Row):
                    yield item
                    continue
                last = before + item.line
                row = replace(item, line=last) if before else item
                if name is not None:
                    row = replace(row, example=row.example.model_copy(update={SOURCE: name}))
                yield row

    def place(self, line: int) -> Place:
        """Return the file and line of a row."""
        at = bisect_right(self._before, line - 1) - 1
        return Place(self.paths[max(at, 0)], line - self._before[max(at, 0)])

    def placed(self, finding: Finding) -> Finding:
        """Return a finding with its file, and its line if it is about a row."""
        if finding.line is None:
            return finding.at(file=self.name)
        file, line = self.place(finding.line)
        return finding.at(file=file, line=line)

    def words(self, line: int) -> str:
        """Return the place of a row in words: ``line 7 of b.jsonl``."""
        file, own = self.place(line)
        return f"line {own} of {Path(file).name}" if self.places else f"line {own}"


def source_of(example: Example) -> str | None:
    """Return the named source or test set of a row."""
    name = (example.model_extra or {}).get(SOURCE)
    return name if isinstance(name, str) else None


def _fitting(job: Job, name: str) -> list[str]:
    if source_name(name).startswith(SCHEME):
        return [name]
    path = job.path(name)
    shorter = Path(os.path.normpath(path))  # no a/../b
    if shorter.exists() and path.exists() and shorter.samefile(path):
        path = shorter
    if glob.has_magic(name) and not path.exists():
        matches = glob.glob(str(path), recursive=True)  # noqa: PTH207 - it may be absolute
        return sorted(matches) or [str(path)]
    return [str(path)]
