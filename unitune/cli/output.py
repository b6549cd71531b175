"""Where words go: results to standard output, progress and complaints to standard error.

With ``--json`` standard output carries one JSON object and nothing else; with ``--quiet`` only the
result. Colours and widths are rich's affair (it honours NO_COLOR and pipes); it must not read the
`:100:` of a file's line as an emoji.
"""

from __future__ import annotations

from functools import cache

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unitune.cost.budget import BUDGET_CODES
from unitune.data.findings import Finding, Severity, also, grouped
from unitune.errors import Leak, OverBudget, UserError

COLOURS: dict[Severity, str] = {"error": "red", "warning": "yellow", "note": "cyan"}
SHOWN_FINDINGS = 12
"""So many of one kind of finding fill a screen; `--json` has them all."""


@cache
def console() -> Console:
    """Return the console for results."""
    return Console(highlight=False, emoji=False)


@cache
def aside() -> Console:
    """Return the console for progress and complaints."""
    return Console(stderr=True, highlight=False, emoji=False)


def print_json(value: BaseModel) -> None:
    """Print one JSON object, all of it."""
    typer.echo(value.model_dump_json(indent=2))


def print_findings(findings: tuple[Finding, ...]) -> None:
    """Print what is wrong, the gravest first."""
    order = list(COLOURS)
    for severity in order:
        chosen = grouped(finding for finding in findings if finding.severity == severity)
        for finding, count in chosen[:SHOWN_FINDINGS]:
            place = f"[dim]{escape(finding.place)}[/dim] " if finding.place else ""
            fix = f"\n[dim]{escape(finding.fix)}[/dim]" if finding.fix else ""
            row = Table.grid(padding=(0, 1))
            row.add_column(width=7, style=COLOURS[severity])
            row.add_column(overflow="fold")
            row.add_row(severity, f"{place}{escape(finding.message)}{also(count)}{fix}")
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
