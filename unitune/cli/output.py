"""Results go to standard output, progress and errors to standard error.

With ``--json`` standard output carries one JSON object and nothing else; with ``--quiet`` only the
result. Colours are rich's affair (it honours NO_COLOR and pipes). Lines are broken for a terminal,
or where COLUMNS says so: in a log, and for grep, paths, sentences and rows of tables stay whole.

Whatever is printed is text: no markup, no emoji, no escape sequence, whoever wrote it. Styles come
by `Text.assemble` and styles of columns. What people read has its control characters replaced
wherever it goes, since logs are shown on terminals, too. Data stays what it is: JSON by escapes
that mean the same, and other texts as they are in a file or a pipe.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Container, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from unitune.errors import Leak, OverBudget, UserError
from unitune.security.redaction import CONTROLS, printable

if TYPE_CHECKING:
    from pydantic import BaseModel

    from unitune.findings import Finding, Severity

SEVERITY_STYLES: dict[Severity, str] = {"error": "red", "warning": "yellow", "note": "cyan"}
# Columns of a terminal below which a text that may be folded cannot be read any more
MIN_FOLDED_WIDTH = 8
# Columns: lines are filled with blanks, so a COLUMNS of 20 digits would take the memory
MAX_WIDTH = 2_000
TRAILING_BLANKS = re.compile(r" +(?=\n)")


class Terminal(Console):
    """A console on which texts do nothing but appear."""

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        given: dict[str, Any] = {"markup": False, "highlight": False, "emoji": False, **options}
        super().__init__(stderr=stderr, **given)
        is_limited = self.is_terminal or os.environ.get("COLUMNS")
        if not is_limited or self.width > MAX_WIDTH:  # once set, it does not follow the terminal's
            self.width = MAX_WIDTH

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; in a log without the blanks by which a table fills its lines."""
        if self.is_terminal:
            super().print(*objects, **options)
            return
        with self.capture() as printed:
            super().print(*objects, **options)
        self.file.write(TRAILING_BLANKS.sub("", printed.get()))
        self.file.flush()

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as a text, its control characters visible."""
        return super().render_str(printable(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Return the segments of a renderable; control characters of its texts are visible."""
        if isinstance(renderable, Text) and renderable.plain != printable(renderable.plain):
            renderable = renderable.copy()
            renderable.plain = printable(renderable.plain)
        return super().render(renderable, options)


@cache
def console() -> Console:
    """Return the console for results."""
    return Terminal()


@cache
def aside() -> Console:
    """Return the console for progress and errors."""
    return Terminal(stderr=True)


def print_json(value: BaseModel | Mapping[str, object], *, indent: int | None = 2) -> None:
    """Print one JSON object, all of it.

    Args:
        value: A document, or the fields of an object; models, dates and paths in it are written
            as pydantic writes them.
        indent: None: on one line.
    """
    from pydantic_core import to_json

    print_json_text(to_json(value, indent=indent).decode())


def print_json_text(text: str) -> None:
    """Print JSON so that no terminal obeys it and any encoding carries it; it means the same."""
    # None: a buffer in memory, which takes every character.
    utf = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    _write((CONTROL if utf else NOT_ASCII).sub(_json_escape, text))


CONTROL = re.compile(f"[{''.join(map(re.escape, map(chr, sorted(CONTROLS))))}]")
NOT_ASCII = re.compile(r"[^\t\n\x20-\x7e]")


def _json_escape(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1] if match[0] != "\x7f" else "\\u007f"


def print_raw(text: str, end: str = "\n") -> None:
    """Print a text as it is, for a file or a pipe; a terminal is not to obey it."""
    _write(printable(text) if sys.stdout.isatty() else text, end)


def _write(text: str, end: str = "\n") -> None:
    print(text, end=end, flush=True)  # noqa: T201 - the one place for what rich must not wrap


def confirmed(question: str, *, err: bool = True) -> bool:
    """Ask a person; who ends the input instead of answering says no.

    Args:
        question: What yes agrees to.
        err: Whether the prompt goes to standard error.
    """
    try:
        return typer.confirm(printable(question), err=err)
    except typer.Abort:
        return False


def print_findings(findings: Iterable[Finding]) -> None:
    """Print findings to standard output, the gravest first; the same finding once."""
    from unitune.render.terminal import finding_rows

    for row in finding_rows(findings):
        console().print(row)


def print_finding_lines(findings: Iterable[Finding], more: int = 0) -> None:
    """Print findings to standard error, a line each; the same advice once."""
    shown_fixes: set[str] = set()
    for finding in findings:
        fix = "" if finding.fix in shown_fixes else f" {finding.fix}"
        shown_fixes.add(finding.fix)
        line = Text.assemble(
            (f"{finding.severity:<7}", SEVERITY_STYLES[finding.severity]),
            (f" {finding.location}", "dim"),
            f" {finding.message}",
            (fix, "dim"),
        )
        aside().print(line, soft_wrap=True)
    if more > 0:
        aside().print(f"        … and {more:,} more")


def exit_for_errors(findings: Iterable[Finding]) -> None:
    """Exit when there are errors: 5 for a leak, 6 when only the budget speaks against, else 2."""
    from unitune.cost.budget import BUDGET_CODES

    codes = {finding.code for finding in findings if finding.severity == "error"}
    if "leak" in codes:
        raise typer.Exit(Leak.exit_code)
    if codes:
        raise typer.Exit((OverBudget if codes <= BUDGET_CODES else UserError).exit_code)


def new_table(*headings: str, right: Container[str] = (), fold: Container[str] = ()) -> Table:
    """Return an empty table without rules.

    Args:
        headings: Of its columns.
        right: Columns that are aligned to the right, as numbers are.
        fold: Columns whose texts may be broken; all others stay on one line.
    """
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in headings:
        table.add_column(
            heading,
            justify="right" if heading in right else "left",
            no_wrap=heading not in fold,
            overflow="fold",
        )
    return table


def print_table(table: Table) -> None:
    """Print a table; where the terminal is too narrow for it, row below row, and nothing is cut."""
    if fits(table):
        console().print(table)
        return
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        for column, cell in zip(table.columns, cells, strict=True):
            text = cell if isinstance(cell, Text) else Text(str(cell))
            line = Text.assemble((f"{column.header} ", "dim"), text)
            console().print(line, soft_wrap=True)  # what the terminal breaks is copied whole


def fits(table: Table) -> bool:
    """Whether a table stands on the terminal as it is, with what may fold folded."""
    widths = (
        max(console().measure(cell).maximum for cell in (column.header, *column.cells))
        if column.no_wrap
        else MIN_FOLDED_WIDTH
        for column in table.columns
    )
    return sum(widths) + 2 * (len(table.columns) - 1) <= console().width


def facts(rows: Mapping[str, str]) -> Table:
    """Return a two-column table of names and values."""
    from unitune.render.sections import Fact
    from unitune.render.terminal import facts_grid

    return facts_grid(Fact(*row) for row in rows.items())
