"""Implement `unitune runs audit`: show, export and verify the audit log."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from unitune.cli.options import Json
from unitune.cli.output import console, new_table, print_raw, print_table
from unitune.errors import UserError

SHOWN_HASH = 8  # characters of a hash that are shown; an export has all of them


def _parse_day(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a day such as 2026-11-01.") from None


Since = Annotated[
    datetime | None,
    typer.Option(metavar="DATE", parser=_parse_day, help="First day to show (UTC)."),
]
Verify = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Verify an export against the ledger."),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="File for the log.")
]


def audit(
    *, since: Since = None, verify: Verify = None, output: Output = None, json: Json = False
) -> None:
    """Show the audit log: launches, ends, costs, promotions and deletions.

    A launch is recorded with its data and prices. Each entry has the hash of the previous one, so
    a changed entry is detected: in an export (JSON Lines, --json or --output), and in the ledger
    with any older export (--verify). The actor is UNITUNE_USER, or account and machine. Exits 5 if
    an entry has changed.

    [dim]$ unitune runs audit --since 2026-11-01
    $ unitune runs audit --output audit.jsonl
    $ unitune runs audit --verify audit.jsonl[/dim]
    """
    from unitune.files.filesystem import content_of, replacing
    from unitune.ledger import Ledger
    from unitune.ledger.audit import check_chain, export_lines, held_against, read_export
    from unitune.workspace.home import home

    if verify is not None and (since or output or json):
        raise UserError("--verify checks a file; leave out --since, --output and --json.")
    log = check_chain(Ledger(home()).audit_log(), "the ledger")
    if verify is not None:
        exported = check_chain(read_export(content_of(verify), str(verify)), str(verify))
        held_against(exported, log)
        console().print(f"{verify}: {len(exported):,} entries, all unchanged and in the ledger.")
        return
    start = since.timestamp() if since else 0.0
    entries = [entry for entry in log if entry.time >= start]
    # A copy stored elsewhere proves later that no entry up to this one was changed or removed.
    anchor = f"Entry {log[-1].number} has the hash {log[-1].sha256}" if log else ""
    if output is not None:
        with replacing(output) as file:
            file.writelines(export_lines(entries))
        console().print(f"{output}: {len(entries):,} entries.")
        console().print(anchor, style="dim")
    elif json:
        print_raw("".join(export_lines(entries)), end="")
    elif not entries:
        console().print("The audit log is empty.")
    else:
        names = ("", "time (UTC)", "action", "subject", "who", "hash")
        table = new_table(*names, right={""}, fold={"who"})
        for entry in entries:
            time = datetime.fromtimestamp(entry.time, UTC).strftime("%Y-%m-%d %H:%M")
            hash_ = entry.sha256[:SHOWN_HASH]
            table.add_row(str(entry.number), time, entry.action, entry.subject, entry.who, hash_)
        print_table(table)
        console().print(anchor, style="dim")
