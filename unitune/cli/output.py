"""Where words go: results to standard output, progress and errors to standard error.

With ``--json`` standard output carries one JSON object and nothing else; with ``--quiet`` only the
result. Colours and widths are rich's affair (it honours NO_COLOR and pipes).

Whatever is printed is text: no markup, no emoji, no escape sequence, whoever wrote it. Styles come
by `Text.assemble` and styles of columns. What people read has its control characters replaced
wherever it goes, since logs are shown on terminals, too. Data stays what it is: JSON by escapes
that mean the same, and other texts as they are in a file or a pipe.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from functools import cache
from typing import Any

import typer
from pydantic import BaseModel, JsonValue
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from unitune.cost.budget import BUDGET_CODES
from unitune.errors import Leak, OverBudget, UserError
from unitune.findings import Finding, Severity, also, grouped
from unitune.security.printable import CONTROLS, printable

COLOURS: dict[Severity, str] = {"error": "red", "warning": "yellow", "note": "cyan"}
SHOWN_FINDINGS = 12
"""So many of one kind of finding fill a screen; `--json` has them all."""
LEAST_FOLDED = 8
"""Columns of a terminal below which a text that may be folded cannot be read any more."""


WIDEST = 2_000
"""Columns: lines are filled with blanks, so a COLUMNS of 20 digits would take the memory."""


class Terminal(Console):
    """A console on which texts do nothing but appear."""

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        given: dict[str, Any] = {"markup": False, "highlight": False, "emoji": False, **options}
        super().__init__(stderr=stderr, **given)
        if self.width > WIDEST:  # noqa: PLR1730 - once set, it does not follow the terminal's
            self.width = WIDEST

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


def print_json(value: BaseModel | dict[str, JsonValue], *, indent: int | None = 2) -> None:
    """Print one JSON object, all of it.

    Args:
        value: What it is.
        indent: None: on one line.
    """
    if isinstance(value, BaseModel):
        text = value.model_dump_json(indent=indent)
    else:
        text = json.dumps(value, indent=indent, ensure_ascii=False)
    print_json_text(text)


def print_json_text(text: str) -> None:
    """Print JSON so that no terminal obeys it and any encoding carries it; it means the same."""
    # None: a buffer in memory, which takes every character.
    utf = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    _write(escaped_json(text) if utf else NOT_ASCII.sub(_json_escape, text))


def escaped_json(text: str) -> str:
    """Return JSON in which control characters are escapes, as they may stand in strings alone."""
    return CONTROL.sub(_json_escape, text)


CONTROL = re.compile(f"[{''.join(map(re.escape, map(chr, sorted(CONTROLS))))}]")
NOT_ASCII = re.compile(r"[^\t\n\x20-\x7e]")


def _json_escape(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1] if found[0] != "\x7f" else "\\u007f"


def print_raw(text: str) -> None:
    """Print a text as it is, for a file or a pipe; a terminal is not to obey it."""
    _write(printable(text) if sys.stdout.isatty() else text)


def _write(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the one place for what rich must not wrap


def confirmed(question: str, *, err: bool = True) -> bool:
    """Ask a person; who ends the input instead of answering says no.

    Args:
        question: What yes agrees to.
        err: Whether it is asked on standard error.
    """
    try:
        return typer.confirm(printable(question), err=err)
    except typer.Abort:
        return False


def print_findings(findings: tuple[Finding, ...]) -> None:
    """Print what is wrong, the gravest first."""
    order = list(COLOURS)
    for severity in order:
        chosen = grouped(finding for finding in findings if finding.severity == severity)
        for finding, count in chosen[:SHOWN_FINDINGS]:
            row = Table.grid(padding=(0, 1))
            row.add_column(width=7, style=COLOURS[severity])
            row.add_column(overflow="fold")
            row.add_row(
                severity,
                Text.assemble(
                    (f"{finding.place} " if finding.place else "", "dim"),
                    f"{finding.message}{also(count)}",
                    (f"\n{finding.fix}" if finding.fix else "", "dim"),
                ),
            )
            console().print(row)
        if len(chosen) > SHOWN_FINDINGS:
            console().print(
                f"        … and {len(chosen) - SHOWN_FINDINGS} more {severity}s; "
                "--json lists them all"
            )


def exit_for_errors(findings: tuple[Finding, ...]) -> None:
    """Exit when there are errors: 5 for a leak, 6 when only the budget speaks against, else 2."""
    codes = {finding.code for finding in findings if finding.severity == "error"}
    if "leak" in codes:
        raise typer.Exit(Leak.exit_code)
    if codes:
        raise typer.Exit((OverBudget if codes <= BUDGET_CODES else UserError).exit_code)


def print_table(table: Table) -> None:
    """Print a table; where it is too narrow for that, row below row, and nothing is cut.

    Args:
        table: One whose columns that must not be broken, such as ids, have `no_wrap`.
    """
    if _least_width(table) <= console().width:
        console().print(table)
        return
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        for column, cell in zip(table.columns, cells, strict=True):
            text = cell if isinstance(cell, Text) else Text(str(cell))
            line = Text.assemble((f"{column.header} ", "dim"), text)
            console().print(line, soft_wrap=True)  # what the terminal breaks is copied whole


def _least_width(table: Table) -> int:
    widths = (
        max(console().measure(cell).maximum for cell in (column.header, *column.cells))
        if column.no_wrap
        else LEAST_FOLDED
        for column in table.columns
    )
    return sum(widths) + 2 * (len(table.columns) - 1)


def facts(rows: dict[str, str]) -> Table:
    """Return a two-column table of names and values."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def duration(seconds: float) -> str:
    """Return seconds as a person says them: ``45 s``, ``3 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def gigabytes(count: int) -> str:
    """Return bytes in GB (10⁹ bytes)."""
    return f"{count / 1e9:.1f} GB"
