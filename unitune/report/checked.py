"""Describe a check of data files: their rows, the findings, and the rows to review."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from unitune.data.overlap import by_kind
from unitune.data.report import Cause, DataReport, FileReport, Purpose, Quality, ShownRow
from unitune.render.charts import Axis
from unitune.render.html import environment, page, resource
from unitune.render.sections import (
    Bullets,
    Cell,
    Column,
    Document,
    Fact,
    Facts,
    Findings,
    Interval,
    Section,
    Table,
    Tone,
)
from unitune.render.typography import counted
from unitune.report.files import PACKAGE

# Causes to review, with the code of the findings that they repeat
LISTED_AS = {"near-duplicates": "duplicate", "contradictions": "contradiction"}
SHOWN_ISSUES = 2  # maximum issues per cause; the page lists all
QUESTION_LETTERS, ANSWER_LETTERS = 40, 24  # visible characters of a row
# Limit for the answers whose counts are drawn: the most frequent and, beyond the limit, the rarest
MOST_ANSWERS = 100
PURPOSES: dict[Purpose, str] = {
    "train": "to train on",
    "validation": "to choose prompts on",
    "test": "for the test",
}


def describe(report: DataReport, name: str = "", more: str = "") -> Document:
    """Return the document of a check.

    Args:
        report: Result of the check.
        name: Name of the checked file; if empty, that of its first data file.
        more: Sentence on how to see all rows to review; may be empty.
    """
    quality = report.quality
    causes = quality.causes if quality else ()
    listed = {LISTED_AS[cause.code] for cause in causes if cause.code in LISTED_AS}
    listed.add("test-cut")  # the first lines have its numbers
    others = [each for each in report.findings if each.code not in listed]
    counts = Counter(each.severity for each in others)
    tone: Tone = "bad" if report.errors else "doubtful" if counts["warning"] else "good"
    remarks = [each for each in others if each.severity != "error"]
    sections = [
        Section("", [Facts([*_files(report)])]),
        Section("", [Findings(remarks)]),
        *(Section(_title(cause), [cause.fix, _issues(cause)]) for cause in causes),
        *([Section("", [more])] if more and causes else []),
        Section("", [Findings(report.errors)]),
    ]
    if quality and quality.answers:
        sections.append(Section("Rows by answer", [_answers(quality.answers)], on_page=True))
    return Document(
        title=_headline(report, counts),
        about=(name or (report.files[0].name if report.files else "check"),),
        text=_compared(quality) if quality else "",
        tone=tone,
        sections=tuple(sections),
    )


def _headline(report: DataReport, counts: Counter[str]) -> str:
    rows = sum(cause.total for cause in report.quality.causes) if report.quality else 0
    found = [counted(counts[kind], kind) for kind in ("error", "warning") if counts[kind]]
    found += [f"{counted(rows, 'row')} to review"] if rows else []
    if not found:
        return "Nothing wrong"
    return f"{'' if report.errors else 'No errors, '}{', '.join(found)}"


def _compared(quality: Quality) -> str:
    apart = f" ({quality.cases:,} of them for the test)" if quality.cases else ""
    which = "All" if quality.is_whole else "The first"
    return (
        f"{which} {counted(quality.rows, 'row')}{apart} were compared with one another. Only "
        "a person can decide whether a row is right. The most doubtful are first."
    )


def _files(report: DataReport) -> Iterator[Fact]:
    train = next((file for file in report.files if file.purpose == "train"), None)
    for file in report.files:
        is_part = file.purpose == "test" and train is not None and file.name == train.name
        lines = [] if is_part else [*_file(file)]
        if file.shared:
            kinds = by_kind(Counter(file.shared).elements())
            where = "other rows of the file" if is_part else "an earlier file of the job"
            lines.append(f"{'test cases ' if is_part else ''}also in {where}: {kinds}")
        if lines:
            yield Fact(file.name, "\n".join(lines))


def _file(file: FileReport) -> Iterator[str]:
    kept = [f"{count:,} {PURPOSES[purpose]}" for purpose, count in file.parts.items() if count]
    yield f"{counted(file.rows, 'row')}{': ' + ', '.join(kept) if len(kept) > 1 else ''}"
    used = sum(source.used for source in file.sources)
    for each in file.sources:
        share = f"{each.used / max(used, 1):.1%}"
        yield f"{each.name}: {each.used:,} of {counted(each.rows, 'row')} ({share} of the training)"
    if file.read_as:
        yield f"read as {file.read_as}"
    if file.images:
        yield counted(file.images, "image")
    if lengths := file.characters:
        yield f"characters in a row: median {lengths.median:,}, longest {lengths.longest:,}"


def _title(cause: Cause) -> str:
    apart = f" ({cause.cases:,} in the test)" if cause.cases else ""
    return f"{cause.total:,} {cause.title}{apart}"


def _issues(cause: Cause) -> Bullets:
    items: list[Cell] = []
    for issue in cause.issues[:SHOWN_ISSUES]:
        others = [f"next to {_row(other)}" for other in issue.related[:1]]
        items.append(Cell(_row(issue.row), "\n".join([issue.why, *others])))
    return Bullets(items)


def _row(row: ShownRow) -> str:
    answer = f" → {_beginning(row.answer, ANSWER_LETTERS)}" if row.answer else ""
    place = f"{Path(row.file).name}:{row.line}"
    return f"{place} {_beginning(row.question, QUESTION_LETTERS)}{answer}"


def _beginning(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1].rstrip()}…"


def _answers(rows: dict[str, int]) -> Table:
    listed = [*rows.items()]
    left_out = ""
    if len(listed) > MOST_ANSWERS:
        listed = listed[: MOST_ANSWERS // 2] + listed[-MOST_ANSWERS // 2 :]
        left_out = "; the most frequent and the rarest"
    most = float(max(rows.values()))
    return Table(
        ["Answer", "#Rows", Column("Drawn", axis=Axis(0, most, (0, most)))],
        [[answer, f"{count:,}", Interval(count, 0, count)] for answer, count in listed],
        f"{counted(len(rows), 'different answer')}{left_out}.",
        name="balance",
    )


OPEN_ISSUES = 10  # open issues per cause; the others are folded


def render(report: DataReport, name: str) -> str:
    """Return the rows to review as one HTML page that needs no other files and no network.

    It blocks scripts and escapes all texts of rows.
    """
    document = describe(report, name)
    return page(
        environment(PACKAGE).get_template("quality.html.j2"),
        resource("style.css") + resource("quality.css", PACKAGE),
        document=document,
        answers=[each for each in document.sections if each.on_page],
        report=report,
        causes=report.quality.causes if report.quality else (),
        open_issues=OPEN_ISSUES,
    )
