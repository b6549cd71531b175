"""Draw documents in a terminal, as rich renderables.

Everything fits 80 columns and is readable without colour. Texts are not interpreted as markup, and
their control characters are replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.style import Style
from rich.table import Column as GridColumn
from rich.table import Table as Grid
from rich.text import Text

from unitune.findings import Finding, grouped
from unitune.findings import Group as FindingGroup
from unitune.render.charts import Axis, DrawnCurve
from unitune.render.sections import (
    SEVERITY_TONES,
    Bullets,
    Cell,
    Column,
    Document,
    Fact,
    Facts,
    Figure,
    Findings,
    Folded,
    Interval,
    Part,
    Section,
    Table,
    Tone,
    text_of,
)
from unitune.render.terminal_curves import LEAST_WIDTH, RATE_ROWS, ROWS, curve_text
from unitune.security.redaction import one_line

STYLES: dict[Tone, str] = {
    "": "",
    "good": "green",
    "bad": "red",
    "doubtful": "yellow",
    "quiet": "dim",
    "accent": "cyan",
}
SHOWN_FINDINGS = 12  # maximum per severity; `--json` lists all
TEXT_WIDTH = 100  # columns of a document as text
VALUE_WIDTH = 24  # columns for a fact's value next to its meaning
NAME_WIDTH = 24  # columns for a name before notes move below the texts
# Minimum columns of a readable folded text
MIN_FOLDED_WIDTH = 8
BAR = 19  # columns of a drawn interval


def view(document: Document, files: Iterable[Path] = ()) -> Group:
    """Return a document for a terminal, with the paths of files with details."""
    strong = f"bold {STYLES[document.tone]}".strip()
    lines: list[RenderableType] = []
    if figures := [plain(each) for each in document.figures]:
        figures[0].stylize(strong, 0, figures[0].plain.find("  "))
        lines = [*figures, Text(), plain(f"{document.title}. {document.text}")]
    else:
        job, *about = document.about
        lines = [Text.assemble(plain(job, "bold"), *(plain(f"  {each}") for each in about)), Text()]
        lines += [plain(document.title, strong)]
        lines += [plain(document.text)] if document.text else []
    lines += [Text.assemble(("Note: ", "yellow"), plain(note)) for note in document.notes]
    if document.state is not None:
        lines += [*([Text()] if figures else []), cell_text(document.state, ": ")]
    for section in document.sections:
        if parts := list(section_lines(section)):
            lines += [Text(), *parts]
    if paths := file_lines(files):
        lines += [Text(), *paths]
    return Group(*lines)


def text(document: Document) -> str:
    """Return a document as text without colours."""
    file = StringIO()
    Console(file=file, width=TEXT_WIDTH).print(view(document))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def section_lines(section: Section) -> Iterator[RenderableType]:
    """Yield the parts of a section below its heading; nothing for a section of pages only."""
    parts = () if section.on_page else section.parts
    shown = [(part, lines) for part in parts if (lines := list(_part(part)))]
    if shown and section.title:
        yield plain(section.title, f"bold {STYLES[section.tone]}".strip())
    for at, (part, lines) in enumerate(shown):
        yield from [*([Text()] if at and not isinstance(part, str | Figure) else []), *lines]


def _part(part: Part) -> Iterator[RenderableType]:
    match part:
        case str():
            yield plain(part, "dim")
        case Facts(rows):
            yield facts_grid(rows)
        case Table() if part.rows and not part.on_page:
            yield from [plain(part.caption, "dim")] if part.caption else []
            yield TableView(part)
        case Figure(DrawnCurve() as curve, caption):
            yield CurveView(curve, caption)
        case Bullets(items):
            yield from (bullet(text_of(item)) for item in items)
        case Findings(findings):
            yield from finding_rows(findings)
        case Folded(title, parts, on_page=False):
            yield plain(title)
            yield from (line for each in parts for line in _part(each))
        case _:
            pass


def facts_grid(rows: Iterable[Fact]) -> Grid:
    """Return facts in columns: terms, values and, if any, meanings."""
    listed = list(rows)
    explained = any(fact.meaning for fact in listed)
    grid = Grid.grid(padding=(0, 2))
    grid.add_column(style="dim", max_width=26, overflow="fold")
    grid.add_column(max_width=VALUE_WIDTH if explained else None, overflow="fold")
    for fact in listed:
        meaning = [lines_of(fact.meaning)] if explained else []
        grid.add_row(plain(fact.term), lines_of(fact.value), *meaning)
    return grid


def bullet(item: Cell) -> Padding:
    """Return an item of a list, with further lines indented like the first."""
    return Padding(_marked("•", 1, "", cell_text(item, "\n")), (0, 0, 0, 2), expand=False)


def _marked(mark: str, width: int, style: str, text: Text) -> Grid:
    line = Grid.grid(padding=(0, 1))
    line.add_column(width=width, style=style)
    line.add_column(overflow="fold")
    line.add_row(mark, text)
    return line


def finding_rows(findings: Iterable[Finding]) -> Iterator[RenderableType]:
    """Yield findings without repetitions, the most severe first."""
    listed = tuple(findings)
    for severity, tone in SEVERITY_TONES.items():
        groups = grouped(finding for finding in listed if finding.severity == severity)
        for group in groups[:SHOWN_FINDINGS]:
            yield _FindingRow(group, STYLES[tone])
        if (more := len(groups) - SHOWN_FINDINGS) > 0:
            yield plain(f"        … and {more} more {severity}s; --json lists them all")


def cell_text(cell: Cell, between: str) -> Text:
    """Return a cell with its note next to or below it."""
    style = f"{'bold ' if cell.strong else ''}{STYLES[cell.tone]}".strip()
    note = lines_of(cell.note, "dim") if cell.note else None
    return Text.assemble(lines_of(cell.text, style), *([between, note] if note else []))


def lines_of(text: str, style: str = "") -> Text:
    """Return a text of several lines."""
    return Text("\n").join(plain(line, style) for line in text.split("\n"))


def plain(text: str, style: str | Style = "") -> Text:
    """Return text on one line; control characters and line breaks become U+FFFD."""
    return Text(one_line(text), style=style)


def file_lines(paths: Iterable[Path]) -> list[Text]:
    """Return a line per existing file; paths below the current folder are relative.

    In terminals that support links, a click opens the file.
    """
    here = Path.cwd()
    return [
        plain(
            str(path.relative_to(here) if path.is_relative_to(here) else path),
            Style(dim=True, link=path.absolute().as_uri()),
        )
        for path in paths
        if path.exists()
    ]


@dataclass(frozen=True)
class _FindingRow:
    """Finding with its advice on a line below; in a log, both are on one line."""

    group: FindingGroup
    style: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        finding, between = self.group.finding, "\n" if options.is_terminal else " "
        location = lines_of(f"{finding.location} " if finding.location else "", "dim")
        fix = lines_of(f"{between}{finding.fix}" if finding.fix else "", "dim")
        text = Text.assemble(location, lines_of(f"{finding.message}{self.group.more}"), fix)
        yield _marked(finding.severity, 7, self.style, text)


@dataclass(frozen=True)
class TableView:
    """Table in the first layout that fits: notes on the line, notes below, a line per cell."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for between, folded in ((" ", NAME_WIDTH), ("\n", MIN_FOLDED_WIDTH)):
            grid = self._grid(between)
            widths = (_width(console, column, folded) for column in grid.columns)
            if sum(widths) + 2 * (len(grid.columns) - 1) <= options.max_width:
                yield grid
                return
        for row in self._rows():
            for column, cell in row:
                if not isinstance(cell, Interval):
                    heading = (f"{' '.join(column.title.split())} ", "dim")
                    yield Text.assemble(heading, cell_text(text_of(cell), " "))

    def _rows(self) -> Iterator[list[tuple[Column, str | Cell | Interval]]]:
        for row in self.table.rows[: self.table.most]:
            pairs = zip(self.table.heads, row, strict=True)
            yield [(column, cell) for column, cell in pairs if not column.on_page]

    def _grid(self, between: str) -> Grid:
        grid = Grid(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        columns = [column for column in self.table.heads if not column.on_page]
        text_between = between.replace(" ", ", ")  # a log has no colours to separate them
        height = max(column.title.count("\n") for column in columns)
        for column in columns:
            title = "\n" * (height - column.title.count("\n")) + column.title
            ends = f"0 %{'100 %':>{BAR - 3}}"
            grid.add_column(
                lines_of("\n" * height + ends if column.axis else title),
                justify="right" if column.number else "left",
                no_wrap=column.whole
                or bool(column.axis)
                or (column.number and len(column.title) <= NAME_WIDTH),
                overflow="fold",
            )
        for row in self._rows():
            cells = (
                bar(column.axis, cell)
                if isinstance(cell, Interval) and column.axis
                else cell_text(text_of(cell), between if column.number else text_between)
                for column, cell in row
            )
            grid.add_row(*cells)
        if (more := len(self.table.rows) - (self.table.most or len(self.table.rows))) > 0:
            grid.add_row(plain(f"… {more:,} more in the report", "dim"))
        return grid


def _width(console: Console, column: GridColumn, folded: int) -> int:
    """Return the width of a column when its texts fold at a width."""
    widest = max(console.measure(cell).maximum for cell in (column.header, *column.cells))
    return widest if column.no_wrap else min(widest, folded)


@dataclass(frozen=True)
class CurveView:
    """Curve with its caption below an empty line, on a terminal that is wide enough."""

    curve: DrawnCurve
    caption: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.is_terminal and options.max_width >= LEAST_WIDTH:
            rows = RATE_ROWS if self.curve.figure == "learning rate" else ROWS
            yield Text()
            yield curve_text(self.curve, options.max_width, rows)
            if self.caption:
                yield plain(self.caption, "dim")


def bar(axis: Axis, interval: Interval) -> Text:
    """Return an interval drawn on an axis."""
    ends = (interval.low, interval.value, interval.high)
    left, middle, right = (round(axis.position(end) / 100 * (BAR - 1)) for end in ends)
    drawn = "\u2501" * (middle - left) + "\u25cf" + "\u2501" * (right - middle)
    around = "\u00b7" * left, "\u00b7" * (BAR - 1 - right)
    return Text.assemble((around[0], "dim"), (drawn, STYLES[interval.tone]), (around[1], "dim"))
