"""Print results to standard output, and progress and errors to standard error.

Lines are wrapped only for a terminal or if COLUMNS is set, so that logs and grep see whole lines.
Printed text is never markup. Control characters are replaced in text for people, also in logs;
JSON escapes them, and other data stays unchanged in a file or a pipe. Files that users pass with
``-o`` are checked and written here, too.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Container, Generator, Iterable, Mapping
from contextlib import contextmanager
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from unitune.errors import Leak, OverBudget, UserError
from unitune.files import filesystem
from unitune.security.redaction import CONTROLS, printable

if TYPE_CHECKING:
    from pydantic import BaseModel

    from unitune.findings import Finding, Severity

SEVERITY_STYLES: dict[Severity, str] = {"error": "red", "warning": "yellow", "note": "cyan"}
MIN_FOLDED_WIDTH = 8  # columns; narrower folded text is unreadable
MAX_WIDTH = 2_000  # columns; lines are padded, so a huge COLUMNS would exhaust the memory
TRAILING_BLANKS = re.compile(r" +(?=\n)")


class Terminal(Console):
    """Console that prints strings literally: no markup, highlighting, emoji or controls."""

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        given: dict[str, Any] = {"markup": False, "highlight": False, "emoji": False, **options}
        super().__init__(stderr=stderr, **given)
        is_limited = self.is_terminal or os.environ.get("COLUMNS")
        if not is_limited or self.width > MAX_WIDTH:  # a set width no longer follows the terminal
            self.width = MAX_WIDTH

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; in a log, without the trailing blanks of tables."""
        if self.is_terminal:
            super().print(*objects, **options)
            return
        with self.capture() as printed:
            super().print(*objects, **options)
        self.file.write(TRAILING_BLANKS.sub("", printed.get()))
        self.file.flush()

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as text with visible control characters."""
        return super().render_str(printable(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Return the segments of a renderable with visible control characters."""
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
    """Print one JSON object, serialised as pydantic does; on one line if `indent` is None."""
    from pydantic_core import to_json

    print_json_text(to_json(value, indent=indent).decode())


def print_json_text(text: str) -> None:
    """Print JSON with control characters, and those its encoding lacks, as JSON escapes."""
    # A buffer in memory has no encoding and takes every character.
    utf = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    _write((CONTROL if utf else NOT_ASCII).sub(_json_escape, text))


CONTROL = re.compile(f"[{''.join(map(re.escape, map(chr, sorted(CONTROLS))))}]")
NOT_ASCII = re.compile(r"[^\t\n\x20-\x7e]")


def _json_escape(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1] if match[0] != "\x7f" else "\\u007f"


def print_raw(text: str, end: str = "\n") -> None:
    """Print a text unchanged to a file or a pipe, and with visible controls to a terminal."""
    _write(printable(text) if sys.stdout.isatty() else text, end)


def _write(text: str, end: str = "\n") -> None:
    print(text, end=end, flush=True)  # noqa: T201 - the one place for text that rich must not wrap


def confirmed(question: str, *, err: bool = True) -> bool:
    """Ask a yes-or-no question, on standard error if `err`; the end of input counts as no."""
    try:
        return typer.confirm(printable(question), err=err)
    except typer.Abort:
        return False


def print_findings(findings: Iterable[Finding]) -> None:
    """Print findings to standard output, most severe first, each one once."""
    from unitune.render.terminal import finding_rows

    for row in finding_rows(findings):
        console().print(row)


def print_finding_lines(findings: Iterable[Finding], more: int = 0) -> None:
    """Print findings to standard error, one line each, without repeating the same advice."""
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
    """Exit if there are errors: 5 for a leak, 6 if all concern the budget, else 2."""
    from unitune.cost.budget import BUDGET_CODES

    codes = {finding.code for finding in findings if finding.severity == "error"}
    if "leak" in codes:
        raise typer.Exit(Leak.exit_code)
    if codes:
        raise typer.Exit((OverBudget if codes <= BUDGET_CODES else UserError).exit_code)


def new_table(*headings: str, right: Container[str] = (), fold: Container[str] = ()) -> Table:
    """Return an empty table without rules.

    Columns named in `right` are aligned to the right; texts of those in `fold` may be wrapped.
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
    """Print a table; if the terminal is too narrow, print one cell per line and cut nothing."""
    if fits(table):
        console().print(table)
        return
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        for column, cell in zip(table.columns, cells, strict=True):
            text = cell if isinstance(cell, Text) else Text(str(cell))
            line = Text.assemble((f"{column.header} ", "dim"), text)
            console().print(
                line, soft_wrap=True
            )  # text wrapped by the terminal can be copied whole


def fits(table: Table) -> bool:
    """Return whether a table fits on the terminal once its foldable columns are wrapped."""
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


class Kind(StrEnum):
    """Kind of file that a command writes."""

    PLAN = "a saved plan"
    ROWS = "a file of JSON Lines"
    PAGE = "a page of unitune"


# Found in the first bytes of unitune's pages
PAGE_MARK, MARK_WITHIN = b'<meta name="generator" content="unitune">', 4096
# Folders of links to open files of the process, such as /dev/stdout
STREAMS = (Path("/dev"), Path("/dev/fd"))


def _is_of_kind(file: IO[bytes], kind: Kind) -> bool:
    if kind is Kind.PAGE:
        return PAGE_MARK in file.read(MARK_WITHIN)
    text = file.readline() if kind is Kind.ROWS else file.read()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    keys = set(cast("dict[str, object]", value) if isinstance(value, dict) else ())
    return bool(keys) and (kind is Kind.ROWS or {"job", "backend", "findings", "bound"} <= keys)


def check_output(output: Path | None, kind: Kind, inputs: Iterable[Path]) -> None:
    """Refuse an output file that must not be overwritten, before any work is done.

    Args:
        output: File for the result, if any; a pipe or device is always allowed.
        kind: Kind of the result; an empty file may be replaced by any kind.
        inputs: Files that the command reads.

    Raises:
        UserError: The result would replace an input, or a file of another kind.
    """
    if output is None:
        return
    if output.is_dir():
        raise UserError(f"{output} is a folder; pass a file.")
    if not output.is_file():
        return
    if any(path.exists() and output.samefile(path) for path in inputs):
        raise UserError(f"{output} is an input of the command; pass another file.")
    with output.open("rb") as file:
        if output.stat().st_size and not _is_of_kind(file, kind):
            raise UserError(
                f"{output} is not {kind}, so it was not overwritten. Pass another file, or delete "
                "this one first."
            )


@contextmanager
def replacing(output: Path) -> Generator[IO[bytes]]:
    """Open a temporary file that replaces `output` when it is complete; a link is replaced.

    Raises:
        OSError: It cannot be written; the error has the path that the user gave.
    """
    try:
        if output.exists() and not output.is_file():
            with output.open("wb") as stream:  # /dev/null and pipes cannot be replaced
                yield stream
            return
        target = output.resolve() if output.absolute().parent in STREAMS else output
        with filesystem.replacing(target) as draft:
            yield draft.buffer
    except OSError as error:
        error.filename = str(output)
        raise
