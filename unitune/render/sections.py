"""Sections of a document: sentences, facts, tables and charts, described once for every renderer.

`unitune.render.terminal`, `unitune.render.markdown` and `unitune.render.html` each draw any
`Document`. Texts are plain: a renderer escapes them and gives them their typography.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from unitune.findings import Finding, Severity
from unitune.render.charts import Axis, CaseStrip, DrawnCurve, IntervalChart

Tone = Literal["", "good", "bad", "doubtful", "quiet", "accent"]


class Fact(NamedTuple):
    """A figure with its name and what it means, for readers who know no statistics."""

    term: str
    value: str
    meaning: str = ""
    link: str = ""  # address that the value leads to, on a page


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts as a list, or as large figures on a page; the first of leading figures are largest."""

    rows: Sequence[Fact]
    style: Literal["list", "figures", "leading"] = "list"


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of a table cell."""

    text: str
    note: str = ""  # smaller, next to or below the text
    tone: Tone = ""
    strong: bool = False
    more: str = ""  # further text for a page alone
    link: str = ""


class Interval(NamedTuple):
    """A value and its range, drawn on the axis of its column."""

    value: float
    low: float
    high: float
    tone: Tone = ""


class Column(NamedTuple):
    """Heading and layout of a table column."""

    title: str
    number: bool = False
    on_page: bool = False  # left out of terminals and Markdown
    axis: Axis | None = None  # its cells are `Interval`s
    whole: bool = False  # never broken over lines in a terminal


SEVERITY_TONES: dict[Severity, Tone] = {"error": "bad", "warning": "doubtful", "note": "accent"}
Row: TypeAlias = Sequence[str | Cell | Interval]


@dataclass(frozen=True, slots=True)
class Table:
    """A table, its first column naming the rows.

    A column may be given as its title alone, which begins with ``#`` for numbers; a line break in
    a title is one in the heading.
    """

    columns: Sequence[str | Column]
    rows: Sequence[Row]
    caption: str = ""
    on_page: bool = False  # left out of terminals
    most: int | None = None  # rows shown in a terminal
    name: str = "plain"  # style on a page

    @property
    def heads(self) -> list[Column]:
        """The columns with their layouts."""
        return [
            Column(each.removeprefix("#"), number=each.startswith("#"))
            if isinstance(each, str)
            else each
            for each in self.columns
        ]


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its caption."""

    chart: DrawnCurve | IntervalChart | CaseStrip
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list of sentences."""

    items: Sequence[str | Cell]


@dataclass(frozen=True, slots=True)
class Findings:
    """Errors, warnings and notes; the same finding is drawn once."""

    findings: Sequence[Finding]


@dataclass(frozen=True, slots=True)
class Folded:
    """Parts behind a line that opens them; a terminal shows them open."""

    title: str
    parts: Sequence[Part]
    on_page: bool = False  # left out of terminals


Part: TypeAlias = str | Facts | Table | Figure | Bullets | Findings | Folded


@dataclass(frozen=True, slots=True)
class Section:
    """Parts under a heading."""

    title: str
    parts: Sequence[Part]
    on_page: bool = False  # left out of terminals, folded in Markdown
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A document as a reader sees it: the answer first, then the sections behind it."""

    title: str  # the answer in one sentence
    about: Sequence[str] = ()  # what it is about, beginning with the job's name
    figures: Sequence[str] = ()  # the answer in figures, for experts; not on a page
    text: str = ""  # a few sentences of reasons
    state: Cell | None = None  # of a gate or a launch
    notes: Sequence[str] = ()  # what to know before trusting the answer
    sections: Sequence[Section] = ()
    tone: Tone = ""


def text_of(cell: str | Cell | Interval) -> Cell:
    """Return a cell as text; that of a drawn interval is empty."""
    if isinstance(cell, Interval):
        return Cell("")
    return Cell(cell) if isinstance(cell, str) else cell
