"""Check data files, alone or as a job uses them, in little memory."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

from unitune.data.dataset import Dataset, Row, Spool, SpooledRows
from unitune.data.families import Repeats
from unitune.data.load import SOURCE, Files, Reading, source_of
from unitune.data.overlap import RUN_WORDS, Kind, Search, SharedCase
from unitune.data.privacy.redaction import Redaction, masked
from unitune.data.privacy.screen import Screen
from unitune.data.questions import normal
from unitune.data.report import DataReport, FileReport, Lengths, Purpose, SourceRows
from unitune.data.rows import RATED_ROW
from unitune.data.split import (
    MOST_LABELS,
    Cut,
    Parts,
    Splits,
    cut_findings,
    missing_labels,
    mixed,
    seed_of,
    without_repeated,
)
from unitune.errors import DataError
from unitune.findings import Finding, error, note, shown, warning
from unitune.job.dialogue import Dialogue
from unitune.job.job import Job
from unitune.workspace.progress import counted

# Errors about test cases that do not make the rows unusable
ABOUT_CASES = ("leak", "repeated-id")
MOST_ALIKE = 10_000  # findings of one code kept per file; the rest are only counted
MOST_OWN_KEYS = 20
_AFTER_A_LEAK = {
    "refuse": "Remove the row from one of the files, or set `evaluate.leaks` to `drop` "
    "(leave such cases out) or `allow` (keep them).",
    "drop": "The case is left out and counted (`evaluate.leaks: drop`).",
    "allow": "The case is kept, and the verdict reports it (`evaluate.leaks: allow`).",
}
_AFTER_AN_OVERLAP = "Remove it from one of the files: choices made on trained rows look too good."


@dataclass(slots=True)
class _File:
    files: Files
    purpose: Purpose | None = None
    cut: Cut | None = None
    is_part: bool = False
    reading: Reading = field(default_factory=Reading)
    shared: Counter[Kind] = field(default_factory=Counter[Kind])
    parts: dict[Purpose, int] = field(default_factory=dict[Purpose, int])
    sources: tuple[SourceRows, ...] = ()
    _rows: int = 0
    _weighted: int = 0
    _images: int = 0
    _lengths: Counter[int] = field(default_factory=Counter[int])
    _codes: Counter[str] = field(default_factory=Counter[str])
    _roles: Counter[str] = field(default_factory=Counter[str])
    _repeats: Repeats = field(default_factory=Repeats)
    # Each with the number of rows before it
    _findings: list[tuple[int, Finding]] = field(default_factory=list[tuple[int, Finding]])

    @classmethod
    def of(cls, job: Job, purpose: Purpose) -> list[_File]:
        if not job.data.files(purpose):
            return []
        return [cls(Files.of(job, purpose), purpose, Cut(job) if purpose == "train" else None)]

    @property
    def name(self) -> str:
        return self.files.name

    def rows_of(self, job: Job, screen: Screen) -> Iterator[Row]:
        use = job.rows_for
        if self.purpose == "test":
            use = "case" if job.evaluate.needs_expected else "any"
        items = self.files.read(job.data, use, self.reading)
        yield from self.take(screen.rows(items, self.files))

    def take(self, items: Iterable[Row | Finding]) -> Iterator[Row]:
        for item in items:
            if isinstance(item, Finding):
                self._keep(self._rows, item)
                continue
            self._repeats.add(item, item.example.input_key)
            if self.cut is not None:
                self.cut.add(item.example)
            turns = (*item.example.messages, *(item.example.non_preferred_output or ()))
            self._rows += 1
            self._images += len(item.example.images)
            self._weighted += item.example.weight != 1
            self._lengths[sum(len(turn.text) for turn in turns)] += 1
            self._roles.update(turn.role for turn in turns)
            yield item
        for at, finding in self._repeats.findings(
            self.files.words, ids_are_cases=self.purpose == "test"
        ):
            if finding.severity == "error" or not self.is_part:
                self._keep(at, self.files.placed(finding))
        if self.purpose == "test" and self._weighted:
            what = f"{self._weighted:,} rows have a weight, but all test cases count the same."
            self._findings.append((self._rows, note("unused-weight", what).at(file=self.name)))
        for code, count in self._codes.items():
            if (more := count - MOST_ALIKE) > 0:
                left_out = note(
                    "more-findings",
                    f"{more:,} more rows with {code!r} are counted but not listed.",
                    f"Fix the {MOST_ALIKE:,} listed rows and check again.",
                )
                self._findings.append((self._rows, left_out.at(file=self.name)))

    def _keep(self, at: int, finding: Finding) -> None:
        self._codes[finding.code] += 1
        if self._codes[finding.code] <= MOST_ALIKE:
            self._findings.append((at, finding))

    @property
    def findings(self) -> list[Finding]:
        return [finding for _, finding in sorted(self._findings, key=lambda each: each[0])]

    def report(self) -> FileReport:
        return FileReport(
            name=self.name,
            purpose=self.purpose,
            read_as=str(self.reading),
            rows=self._rows,
            messages=self._roles.total(),
            roles=dict(self._roles),
            duplicates=self._codes["duplicate"],
            contradictions=self._codes["contradiction"],
            shared=dict(self.shared),
            characters=Lengths.of(self._lengths),
            images=self._images,
            parts=self.parts,
            sources=self.sources,
        )


def check_file(path: str | os.PathLike[str]) -> DataReport:
    """Return figures and findings about one file, whose rows are rated if the first one is."""
    file = _File(Files([str(path)]))
    items = file.files.read(None, "case", file.reading)
    first = list(islice(items, 1))
    if first and isinstance(first[0], Finding) and first[0].code == RATED_ROW:
        first[0] = first[0].model_copy(update={"severity": "note"})
        file.reading = Reading()
        items = file.files.read(None, "kto", file.reading)
    for _ in file.take(Screen().rows(chain(first, items), file.files)):
        pass
    return DataReport(files=(file.report(),), findings=tuple(file.findings))


@dataclass(frozen=True, slots=True)
class JobRows:
    """Rows of a job, and None for unusable rows or without redaction."""

    report: DataReport
    leaks: tuple[SharedCase, ...]
    usable: Splits | None
    redaction: Redaction | None = None
    dialogue: Dialogue | None = None  # None if a case has one answer

    @property
    def splits(self) -> Splits:
        """The rows by purpose; raises `DataError` if a file cannot be used."""
        if self.usable is None:
            unusable = tuple(each for each in self.report.errors if each.code not in ABOUT_CASES)
            raise DataError("\n".join(shown(unusable, "`unitune check`")), unusable)
        return self.usable


def _parts(job: Job, train: _File, rows: SpooledRows) -> tuple[Parts | Finding, list[Finding]]:
    """Return a training file's rows by purpose, or why they cannot be cut, and more findings."""
    assert train.cut is not None, "it is a training file"
    parts = train.cut.parts()
    if isinstance(parts, Finding):
        return parts, []
    parts, findings = without_repeated(job, train.name, rows, parts)
    if job.data.mixture:
        numbers = {source.label: at for at, source in enumerate(job.data.mixture)}
        origins = array("L", (numbers[source_of(row.example) or ""] for row in rows))
        chosen, train.sources = mixed(job.data.mixture, origins, parts.train, seed_of(job))
        parts = parts._replace(train=chosen)
    left, out, cases = map(len, parts)
    train.parts = {"train": left, "validation": out, "test": cases}
    return parts, findings


def read_job(job: Job) -> JobRows:
    """Read, check and split all rows of a job."""
    test = job.data.test
    screen = Screen(job.data)
    for file in _File.of(job, "train") if screen.redaction else ():
        for _ in screen.rows(file.files.read(job.data, job.rows_for, file.reading), file.files):
            pass  # placeholders are numbered in train first, whatever the test is
    held = [*_File.of(job, "validation"), *_File.of(job, "test")]
    rows = [tuple(file.rows_of(job, screen)) for file in held]
    searches = [Search(some) for some in rows]
    train = next(iter(_File.of(job, "train")), None)
    spool, own_keys, answers = Spool(), Counter[str](), Counter[str]()
    name = train.name if train else ""
    for row in train.rows_of(job, screen) if train else ():
        own_keys.update((row.example.model_extra or {}).keys())
        if len(answers) <= MOST_LABELS:
            answers[normal(row.example.answer or "")] += 1
        for search in searches:
            search.compare_row(row, name)
        spool.add(row)
    parts, about_cut = _parts(job, train, spool.rows) if train and spool.rows else (None, [])
    if train and isinstance(test, float) and isinstance(parts, Parts):
        cases = _cases(job, train.files, spool.rows.picked(parts.test.data))
        held.append(_File(train.files, "test", is_part=True))
        rows.append(tuple(held[-1].take(cases)))
        searches.append(Search(rows[-1]))
        about_cut += missing_labels(name, answers, rows[-1])
        others = spool.rows.picked(parts.not_test.data)
        searches[-1].compare_rows(counted(others, "looking for leaks", len(others)), train.name)
    for search in searches[1:]:
        search.compare_rows(counted(rows[0], "looking for leaks", len(rows[0])), held[0].name)
    shared = [search.shared_cases() for search in searches]
    files = [*([train] if train else []), *held]
    across = [*cut_findings(job, name, parts), *_own_keys(job, train, own_keys)] if train else []
    across += about_cut
    for file, cases in zip(held, shared, strict=True):
        file.shared.update(case.kind for case in cases)
        across += [_shared_finding(job, file, case, files) for case in cases]
    report = DataReport(
        files=tuple(file.report() for file in files),
        findings=(*(finding for file in files for finding in file.findings), *across),
    )
    usable = all(finding.code in ABOUT_CASES for finding in report.errors)
    sets = {
        file.purpose: Dataset(Path(file.name).name, some, file.files.places)
        for file, some in zip(held, rows, strict=True)
    }
    if "validation" in sets and job.evaluate.leaks == "drop":
        lines = {case.line for case in shared[0]}
        left = tuple(row for row in rows[0] if row.line not in lines)
        sets["validation"] = replace(sets["validation"], rows=left)
    return JobRows(
        report,
        tuple(_named(leak, files) for leak in (shared[-1] if "test" in sets else ())),
        _splits(train, spool, parts, sets.get("validation"), sets.get("test")) if usable else None,
        screen.redaction,
        job.evaluate.dialogue,
    )


def _named(leak: SharedCase, files: Sequence[_File]) -> SharedCase:
    """Return a leak with the file name and line of its duplicate; the folder stays private."""
    double = next(file.files for file in files if file.name == leak.train_file)
    file, line = double.place(leak.train_line)
    return leak.model_copy(update={"train_file": Path(file).name, "train_line": line})


def _cases(job: Job, files: Files, rows: Iterable[Row]) -> Iterator[Row | Finding]:
    for row in rows:
        if job.evaluate.needs_expected and row.example.answer is None:
            missing = error(
                "missing-answer",
                "the row was cut for the test but has no expected answer.",
                "Add the answer as `expected`, or name a file of test cases under `data.test`.",
            )
            yield files.placed(missing.at(line=row.line))
        else:
            yield row


def _splits(
    train: _File | None,
    spool: Spool,
    parts: Parts | Finding | None,
    validation: Dataset | None,
    test: Dataset | None,
) -> Splits:
    nothing = Dataset("none", ())
    if train is None:
        return Splits(nothing, validation or nothing, test)
    assert isinstance(parts, Parts), "an empty or uncut file has an error"
    name, rows, places = Path(train.name).name, spool.rows, train.files.places
    cut = Dataset(f"{name} (held out)", rows.picked(parts.validation.data), places)
    left = Dataset(name, rows.picked(parts.train.data), places)
    return Splits(left, validation or cut or nothing, test)


def _own_keys(job: Job, train: _File, counts: Counter[str]) -> Iterator[Finding]:
    """Report custom keys that the training does not read. Graders read all keys."""
    del counts["parallel_tool_calls"]  # OpenAI's key, used by backends that support it
    del counts[SOURCE]
    if job.method == "rft" or not counts:
        return
    if any(finding.code == "columns-left-out" for finding in train.findings):
        return  # that finding already names them
    named = [
        f"{masked(key)!r} ({count:,} rows)" for key, count in counts.most_common(MOST_OWN_KEYS)
    ]
    more = len(counts) - len(named)
    yield note(
        "own-keys",
        f"custom keys are neither trained on nor uploaded: {', '.join(named)}"
        f"{f' and {more:,} more' if more else ''}.",
    ).at(file=train.name)


def _shared_finding(job: Job, file: _File, case: SharedCase, files: Sequence[_File]) -> Finding:
    double = next(other for other in files if other.name == case.train_file)
    at_file, at_line = double.files.place(case.train_line)
    what = {
        "exact": "the same question is",
        "near-duplicate": f"nearly the same question (similarity {case.similarity:.2f}) is",
        "n-gram": f"{100 * case.similarity:.0f} % of the question's runs of {RUN_WORDS} words are",
        "quoted": "the question is quoted word for word",
    }[case.kind]
    answer = "the same" if case.same_answer else "another"
    behind = "" if case.kind == "quoted" else f", with {answer} answer"
    where = f"{what} in {double.purpose}, {at_file}:{at_line}{behind}."
    severity, is_test = error if job.evaluate.leaks == "refuse" else warning, file.purpose == "test"
    fix = _AFTER_A_LEAK[job.evaluate.leaks]
    if file.is_part:
        fix = fix.replace("Remove the row from one of the files", "Remove one of the two rows")
    if not is_test and job.evaluate.leaks == "allow":
        fix = _AFTER_AN_OVERLAP
    finding = severity("leak" if is_test else "overlap", where, fix)
    return file.files.placed(finding.at(line=case.line))
