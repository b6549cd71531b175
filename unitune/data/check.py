"""What there is to say about data files before anything is spent on them.

`check_file` and `check` look at one file, `check_job` at all files of a job and at what stands in
more than one of them; `read_job` does the same and keeps the rows, split. Rows are streamed, and
some 70 bytes of hashes are kept of each, so a big file needs little memory; cases and validation
rows are kept while the training file streams past them, and a plan's training rows wait on disk
(`unitune.data.spool`).
Beyond the findings of `unitune.data.load`: equal rows, equal inputs with different answers, ids
given twice, test and validation rows that stand in train, a train file too small to cut.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example
from unitune.data.histogram import Lengths
from unitune.data.load import read
from unitune.data.overlap import RUN_WORDS, Kind, Search, SharedCase
from unitune.data.repeats import Repeats
from unitune.data.rows import Use
from unitune.data.seen import BATCH_ROWS
from unitune.data.split import Inputs, Splits, seed_of, split, too_few_rows, validation_rows
from unitune.data.spool import Spool
from unitune.errors import DataError
from unitune.findings import Finding, error, note, shown, warning
from unitune.job.job import Data, Job

Purpose = Literal["train", "validation", "test"]

READ_BY_SOME = "parallel_tool_calls"
"""OpenAI's own key of a row, which is trained with where it is taken."""
ABOUT_CASES = ("leak", "repeated-id")
"""Codes of errors about test cases whose rows can be read all the same."""
MOST_OWN_KEYS = 20
"""So many keys of one's own are named."""


class FileReport(BaseModel):
    """One data file in figures."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    """Path, as it was given or as the job gives it."""
    purpose: Purpose | None = None
    """What the job uses it for; None outside a job."""
    rows: int
    """Rows that can be used."""
    messages: int
    """Messages in all rows together."""
    roles: dict[str, int]
    """Messages by role."""
    duplicates: int
    """Rows that equal an earlier one in all but their id."""
    contradictions: int
    """Rows that answer an earlier row's input differently."""
    shared: dict[Kind, int] = {}
    """Rows whose question stands in an earlier file of the job, by the way it was found."""
    characters: Lengths | None
    """Length of the rows; tokens depend on the model, and `unitune plan` counts them."""

    @property
    def histogram(self) -> list[tuple[str, int]]:
        """Ranges of characters, as a person writes them, with the rows in each."""
        return [(bar.label, bar.count) for bar in self.characters.bins] if self.characters else []


class DataReport(BaseModel):
    """What a check found; printed by `unitune check`, with ``--json`` as it stands here."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: Literal[1] = 1
    files: tuple[FileReport, ...]
    findings: tuple[Finding, ...]
    """File by file, each in the order of its lines; what concerns several files comes last."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that must be mended before a launch."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def __str__(self) -> str:
        """A line for each file and each finding."""
        files = [f"{file.name}: {file.rows:,} rows" for file in self.files]
        return "\n".join((*files, *(f"{each.severity}: {each}" for each in self.findings)))

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


@dataclass(slots=True)
class _Tally:
    """One file, as far as it has been read.

    Args:
        name: Of the file, for the findings.
        purpose: What the job uses it for.
        inputs: Takes in what the rows ask, where some of them may be held out.
    """

    name: str
    purpose: Purpose | None = None
    inputs: Inputs | None = None
    findings: list[Finding] = field(default_factory=list[Finding])
    shared: Counter[Kind] = field(default_factory=Counter[Kind])
    _lengths: array[int] = field(default_factory=lambda: array("Q"))
    _roles: Counter[str] = field(default_factory=Counter[str])
    _repeats: Repeats = field(default_factory=Repeats)
    _codes: Counter[str] = field(default_factory=Counter[str])

    def read(self, items: Iterable[Row | Finding]) -> Iterator[Row]:
        """Take in rows and findings, and hand the rows on."""
        batch: list[Row | Finding] = []
        for item in items:
            batch.append(item)
            if len(batch) == BATCH_ROWS:
                yield from self._take(batch)
                batch = []
        yield from self._take(batch)

    def _take(self, batch: list[Row | Finding]) -> list[Row]:
        """Take in some rows and findings, and return the rows."""
        rows = [item for item in batch if isinstance(item, Row)]
        asked = [row.example.input_key for row in rows]
        if self.inputs is not None:
            self.inputs.extend(asked)
        repeated = self._repeats.found(rows, asked, ids_are_cases=self.purpose == "test")
        for item in batch:
            if isinstance(item, Finding):
                self.findings.append(item)
                continue
            self._count(item.example)
            for finding in next(repeated):
                self._codes[finding.code] += 1
                self.findings.append(finding.at(file=self.name, line=item.line))
        return rows

    def report(self) -> FileReport:
        """Return the figures."""
        return FileReport(
            name=self.name,
            purpose=self.purpose,
            rows=len(self._lengths),
            messages=self._roles.total(),
            roles=dict(self._roles),
            duplicates=self._codes["duplicate"],
            contradictions=self._codes["contradiction"],
            shared=dict(self.shared),
            characters=Lengths.of(self._lengths),
        )

    def _count(self, example: Example) -> None:
        messages = (*example.messages, *(example.non_preferred_output or ()))
        self._lengths.append(sum(len(message.text) for message in messages))
        self._roles.update(message.role for message in messages)


def check_file(path: str | os.PathLike[str], data: Data | None = None) -> DataReport:
    """Look at one file.

    Args:
        path: JSON Lines, CSV or TSV.
        data: The job's data, for its columns or template.

    Returns:
        Figures and findings; a file that cannot be read is a finding too.
    """
    return _report_on(str(Path(path)), read(path, data))


def check(dataset: Dataset) -> DataReport:
    """Look at rows that are read already, or were made in Python."""
    return _report_on(dataset.name, dataset.rows)


def check_job(job: Job) -> DataReport:
    """Look at all files of a job, and at what stands in more than one of them.

    A test case that stands in train is an error when `evaluate.leaks` is refuse, else a warning.

    Args:
        job: Its data, and the seed of its split.
    """
    return _check(job, _Files.of(job))[0]


@dataclass(frozen=True, slots=True)
class JobRows:
    """The rows of a job, read, checked and split in one pass.

    Args:
        report: Figures and findings.
        leaks: Test cases that stand in training or validation rows.
        usable: The rows by what they are for; None where a file cannot be used.
    """

    report: DataReport
    leaks: tuple[SharedCase, ...]
    usable: Splits | None

    @property
    def splits(self) -> Splits:
        """The rows by what they are for.

        Raises:
            DataError: A file cannot be used, or train is too small to leave rows on both sides.
        """
        if self.usable is None:
            unusable = [one for one in self.report.errors if one.code not in ABOUT_CASES]
            raise DataError("\n".join(shown(unusable)), tuple(unusable))
        return self.usable


def read_job(job: Job) -> JobRows:
    """Read, check and split all rows of a job.

    Args:
        job: Its data, and the seed of its split.
    """
    files, spool = _Files.of(job), Spool()
    report, leaks = _check(job, files, spool)
    if any(finding.code not in ABOUT_CASES for finding in report.errors):
        return JobRows(report, leaks, None)
    sets = {tally.purpose: Dataset(Path(tally.name).name, rows) for tally, rows in files.held}
    train = files.train and Dataset(Path(files.train.name).name, spool.rows)
    inputs = files.train and files.train.inputs
    splits = split(job, train, sets.get("validation"), sets.get("test"), inputs)
    return JobRows(report, leaks, splits)


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of a job.

    Args:
        train: Nothing of it is read yet.
        held: Validation and test, as far as there are files of them, with their rows.
    """

    train: _Tally | None
    held: tuple[tuple[_Tally, tuple[Row, ...]], ...]

    @classmethod
    def of(cls, job: Job) -> _Files:
        """Read the files that a job holds back."""
        held: list[_Tally] = []
        if isinstance(job.data.validation, str):
            held.append(_tally(job, "validation", job.data.validation))
        if job.data.test:
            held.append(_tally(job, "test", job.data.test))
        return cls(
            None if job.data.train is None else _tally(job, "train", job.data.train),
            tuple((tally, tuple(_rows(job, tally))) for tally in held),
        )


def _check(
    job: Job, files: _Files, kept: Spool | None = None
) -> tuple[DataReport, tuple[SharedCase, ...]]:
    """Look at a job's files; rows of train are kept only where a place is given for them."""
    held = [tally for tally, _ in files.held]
    searches = [Search(rows) for _, rows in files.held]
    across: list[Finding] = []
    own: Counter[str] = Counter()
    if files.train is not None:
        for row in _rows(job, files.train):
            own.update(list(row.example.model_extra or ()))
            for search in searches:
                search.look_at(row, files.train.name)
            if kept is not None:
                kept.add(row)
        across.extend(_cut_findings(job, files.train))
        across.extend(_own_keys(job, files.train.name, own))
    for search in searches[1:]:
        search.look_in(files.held[0][1], held[0].name)
    tallies = [*([files.train] if files.train else []), *held]
    shared = [search.found() for search in searches]
    for tally, cases in zip(held, shared, strict=True):
        across.extend(_shared_findings(job, tally, cases, tallies))
    report = DataReport(
        files=tuple(tally.report() for tally in tallies),
        findings=(*(found for tally in tallies for found in tally.findings), *across),
    )
    leaks = shared[-1] if job.data.test else ()
    return report, tuple(_by_name(leak) for leak in leaks)


def _by_name(shared: SharedCase) -> SharedCase:
    """Return a shared case without the folder of its double, which a verdict does not tell."""
    return shared.model_copy(update={"train_file": Path(shared.train_file).name})


def _rows(job: Job, tally: _Tally) -> Iterator[Row]:
    return tally.read(read(tally.name, job.data, _use(job, tally)))


def _report_on(name: str, items: Iterable[Row | Finding]) -> DataReport:
    tally = _Tally(name)
    for _ in tally.read(items):
        pass
    return DataReport(files=(tally.report(),), findings=tuple(tally.findings))


def _tally(job: Job, purpose: Purpose, file: str) -> _Tally:
    cut = purpose == "train" and not isinstance(job.data.validation, str)
    return _Tally(str(job.path(file)), purpose, Inputs(seed_of(job)) if cut else None)


def _use(job: Job, tally: _Tally) -> Use:
    if tally.purpose == "test":
        return "case" if job.evaluate.needs_expected else "any"
    return job.method


def _cut_findings(job: Job, train: _Tally) -> Iterator[Finding]:
    """Say whether validation rows can be cut from train, and at what price."""
    if not train.inputs:
        return
    rows = len(train.inputs)
    held = train.inputs.held_out(validation_rows(job, rows))
    if held is None:
        yield too_few_rows(job, train.inputs).at(file=train.name)
        return
    out = int(held.sum())
    if out > rows - out:
        yield warning(
            "small-train",
            f"of {rows:,} rows {out:,} are held out to choose on, which leaves {rows - out:,} to "
            "train on.",
            "Add rows, or set `data.validation` to a file or a smaller fraction.",
        ).at(file=train.name)


def _own_keys(job: Job, file: str, counts: Counter[str]) -> Iterator[Finding]:
    """Say which keys of one's own no training reads; graders read them all."""
    del counts[READ_BY_SOME]
    if job.method == "rft" or not counts:
        return
    named = [f"{key!r} ({count:,})" for key, count in counts.most_common(MOST_OWN_KEYS)]
    more = len(counts) - len(named)
    yield note(
        "own-keys",
        f"keys of your own are not trained on and not uploaded, with the rows that have them: "
        f"{', '.join(named)}{f' and {more:,} more' if more else ''}.",
    ).at(file=file)


def _shared_findings(
    job: Job, tally: _Tally, found: Iterable[SharedCase], tallies: Iterable[_Tally]
) -> Iterator[Finding]:
    for shared in found:
        tally.shared[shared.kind] += 1
        other = next(each for each in tallies if each.name == shared.train_file)
        where = _where(shared, other)
        finding = _leak(job, where) if tally.purpose == "test" else _overlap(where)
        yield finding.at(file=tally.name, line=shared.line)


def _leak(job: Job, where: str) -> Finding:
    what_then = {
        "refuse": "Take the row out of one of the files, or let `evaluate.leaks: drop` leave such "
        "cases out, or `allow` keep them.",
        "drop": "It is left out and counted, as the job says (`evaluate.leaks: drop`).",
        "allow": "It is kept, and the verdict says so (`evaluate.leaks: allow`).",
    }
    severity = error if job.evaluate.leaks == "refuse" else warning
    return severity("leak", where, what_then[job.evaluate.leaks])


def _overlap(where: str) -> Finding:
    fix = (
        "Take it out of one of the files: what is chosen on rows that were learned looks too good."
    )
    return warning("overlap", where, fix)


def _where(shared: SharedCase, other: _Tally) -> str:
    place = f"{other.purpose}, {other.name}:{shared.train_line}"
    if shared.kind == "exact":
        if shared.same_answer:
            return f"the same question and answer stand in {place}."
        return f"the same question stands in {place}, with another answer."
    answer = "the same" if shared.same_answer else "another"
    if shared.kind == "near-duplicate":
        nearly = f"nearly the same question (similarity {shared.similarity:.2f})"
        return f"{nearly} stands in {place}, with {answer} answer."
    return (
        f"{shared.similarity:.0%} of the question's runs of {RUN_WORDS} words stand in {place}, "
        f"with {answer} answer."
    )
