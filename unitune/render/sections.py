"""Define the sections of a document, independent of the renderer.

`unitune.render.terminal`, `unitune.render.markdown` and `unitune.render.html` each draw any
`Document`. Texts are plain; renderers escape them and apply typography.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from unitune.findings import Finding, Severity
from unitune.render.charts import Axis, CaseStrip, DrawnCurve, IntervalChart

Tone = Literal["", "good", "bad", "doubtful", "quiet", "accent"]


class Fact(NamedTuple):
    """Figure with its name and its meaning, for readers without statistics."""

    term: str
    value: str
    meaning: str = ""
    link: str = ""  # target of the value's link on a page


@dataclass(frozen=True, slots=True)
class Facts:
    """List of facts, or large figures on a page; the first of leading figures are largest."""

    rows: Sequence[Fact]
    style: Literal["list", "figures", "leading"] = "list"


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of a table cell."""

    text: str
    note: str = ""  # smaller text next to or below the text
    tone: Tone = ""
    strong: bool = False
    more: str = ""  # further text, only on a page
    link: str = ""


class Interval(NamedTuple):
    """Value and its range, drawn on the axis of its column."""

    value: float
    low: float
    high: float
    tone: Tone = ""


class Column(NamedTuple):
    """Heading and layout of a table column."""

    title: str
    number: bool = False
    on_page: bool = False  # omitted from terminals and Markdown
    axis: Axis | None = None  # axis of the column's `Interval` cells
    whole: bool = False  # not broken over lines in a terminal


SEVERITY_TONES: dict[Severity, Tone] = {"error": "bad", "warning": "doubtful", "note": "accent"}
Row: TypeAlias = Sequence[str | Cell | Interval]


@dataclass(frozen=True, slots=True)
class Table:
    """Table whose first column names the rows.

    A column may be given as its title, which begins with ``#`` for numbers. A line break in the
    title breaks the heading.
    """

    columns: Sequence[str | Column]
    rows: Sequence[Row]
    caption: str = ""
    on_page: bool = False  # omitted from terminals
    most: int | None = None  # maximum rows in a terminal
    name: str = "plain"  # style on a page

    @property
    def heads(self) -> list[Column]:
        """Columns with their layouts."""
        return [
            Column(each.removeprefix("#"), number=each.startswith("#"))
            if isinstance(each, str)
            else each
            for each in self.columns
        ]


@dataclass(frozen=True, slots=True)
class Figure:
    """Chart with its caption."""

    chart: DrawnCurve | IntervalChart | CaseStrip
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Bullets:
    """List of sentences."""

    items: Sequence[str | Cell]


@dataclass(frozen=True, slots=True)
class Findings:
    """Errors, warnings and notes, without repetitions."""

    findings: Sequence[Finding]


@dataclass(frozen=True, slots=True)
class Folded:
    """Parts folded below a line; a terminal shows them open."""

    title: str
    parts: Sequence[Part]
    on_page: bool = False  # omitted from terminals


Part: TypeAlias = str | Facts | Table | Figure | Bullets | Findings | Folded


@dataclass(frozen=True, slots=True)
class Section:
    """Parts under a heading."""

    title: str
    parts: Sequence[Part]
    on_page: bool = False  # omitted from terminals, folded in Markdown
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Document:
    """Document as a reader sees it: the answer first, then the sections with its reasons."""

    title: str  # the answer in one sentence
    about: Sequence[str] = ()  # subject of the document, beginning with the job's name
    figures: Sequence[str] = ()  # the answer in figures, for experts; not on a page
    text: str = ""  # reasons in a few sentences
    state: Cell | None = None  # state of a gate or a launch
    notes: Sequence[str] = ()  # caveats of the answer
    sections: Sequence[Section] = ()
    tone: Tone = ""


def text_of(cell: str | Cell | Interval) -> Cell:
    """Return a cell as text; a drawn interval has none."""
    if isinstance(cell, Interval):
        return Cell("")
    return Cell(cell) if isinstance(cell, str) else cell
