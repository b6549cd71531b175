"""Implement `unitune data convert`: convert rows from one format to another.

Rows are spooled to a temporary file, so that memory stays small and a refused row leaves no
half-written output. Refused and dropped rows are reported on standard error.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from unitune.cli.output import (
    Kind,
    aside,
    check_output,
    console,
    facts,
    print_finding_lines,
    print_json_text,
    replacing,
)
from unitune.cli.streams import output_failed
from unitune.errors import DataError, NotFoundError, UserError

if TYPE_CHECKING:
    from unitune.backends.formats import Converted
    from unitune.data.privacy.redaction import Redaction
    from unitune.findings import Finding

SHOWN_ROWS = 20  # refused rows that are listed; the others are counted


RedactMap = Annotated[
    Path | None,
    typer.Option(
        "--redact",
        metavar="MAP",
        help="Replace personal data with <EMAIL_1> etc.; MAP keeps (or adds to) the originals.",
    ),
]
RestoreMap = Annotated[
    Path | None,
    typer.Option("--restore", metavar="MAP", help="Restore the personal data stored in MAP."),
]
PhoneRegion = Annotated[
    str | None,
    typer.Option(
        metavar="COUNTRY",
        help="Country of phone numbers without a + prefix, e.g. DE (default: US).",
    ),
]


@dataclass(slots=True)
class Summary:
    """Counts and findings of a conversion."""

    converted: int = 0
    refused: int = 0
    # Findings of the first refused rows, and all warnings and notes
    findings: list[Finding] = field(default_factory=list["Finding"])
    # Number of rows that lost a key that no training reads, by key
    left_out: Counter[str] = field(default_factory=Counter[str])


def convert(
    data: Annotated[
        Path | None, typer.Argument(metavar="DATA", help="Data file.", show_default=False)
    ] = None,
    *,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="FORMAT", help="Format to write (default: canonical JSON Lines)."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="FORMAT", help="Format of DATA, if the detected one is wrong."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="File for the rows (default: standard output)."
        ),
    ] = None,
    redact: RedactMap = None,
    restore: RestoreMap = None,
    phone_region: PhoneRegion = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="Leave out rows that cannot be converted.")
    ] = False,
    list_formats: Annotated[bool, typer.Option("--list", help="List the formats.")] = False,
) -> None:
    """Convert a data file to another format, or to canonical JSON Lines.

    The format is detected from the content; pass --from if the detected one is wrong. A row that
    the target format cannot represent is refused with the reason, and nothing is written unless
    --drop leaves such rows out. --redact continues an existing map.

    [dim]$ unitune data convert train.jsonl --to vertex-sft -o vertex.jsonl
    $ unitune data convert sharegpt.json -o train.jsonl
    $ unitune data convert alpaca.parquet --to anthropic
    $ unitune data convert train.jsonl --redact map.json -o redacted.jsonl
    $ unitune data convert --list[/dim]
    """
    from unitune.backends.formats import convert_file
    from unitune.cli.progress import working
    from unitune.data.privacy.redaction import replacements

    if list_formats:
        _print_formats(console())
        return
    if data is None:
        raise UserError(
            "pass a data file: `unitune data convert DATA --to FORMAT`. `unitune data "
            "convert --list` shows the formats."
        )
    check_output(output, Kind.ROWS, [data])
    redaction = _redaction(redact, restore, phone_region, output)
    change = redaction and (redaction.restore_row if restore else redaction.redact_row)
    try:
        items = convert_file(data, to=to, source=source, change=change)
    except NotFoundError:
        _print_formats(aside())
        raise
    with TemporaryFile() as rows:
        with working("converting rows", quiet=False):
            summary = _write_rows(items, rows)
        _print_summary(summary, drop=drop)
        if summary.refused and not drop:
            raise typer.Exit(UserError.exit_code)
        if not summary.converted:
            raise DataError(f"no row of {data} can be converted; nothing was written.")
        if redact and redaction:
            redaction.save(redact)
        _deliver(rows, output)
    if redact and redaction:
        words = replacements(redaction.replaced) or "nothing"
        aside().print(f"Replaced: {words}. The map is in {redact}; keep it on this machine.")
    if output is not None:
        aside().print(f"Wrote {summary.converted:,} rows to {output}.")


def _redaction(
    redact: Path | None, restore: Path | None, phone_region: str | None, output: Path | None
) -> Redaction | None:
    from unitune.data.privacy.redaction import Redaction

    if redact and restore:
        raise UserError("pass either --redact or --restore, not both.")
    if (path := redact or restore) and output and path.absolute() == output.absolute():
        raise UserError(f"{output} is the map; write the rows to another file.")
    if restore:
        return Redaction.load(restore)
    if not redact:
        return None
    if phone_region and not re.fullmatch("[A-Z]{2}", phone_region):
        raise UserError(
            f"--phone-region {phone_region} is not an ISO country code such as US or DE."
        )
    known = Redaction.load(redact) if redact.exists() else Redaction()
    return Redaction(region=phone_region or known.region, values=known.values)


def _print_formats(out: Console) -> None:
    from unitune.backends.formats import format_names, wire_format

    formats = [wire_format(name) for name in format_names()]
    out.print(facts({form.name: form.summary for form in formats}))


def _write_rows(items: Iterable[Converted | Finding], rows: IO[bytes]) -> Summary:
    from unitune.backends.formats import Converted

    summary = Summary()
    for item in items:
        if isinstance(item, Converted):
            rows.write(f"{item.text}\n".encode())
            summary.converted += 1
            summary.left_out.update(item.left_out)
        elif item.severity != "error":
            summary.findings.append(item)
        elif item.line is None:
            raise DataError(str(item), (item,))
        else:
            summary.refused += 1
            if summary.refused <= SHOWN_ROWS:
                summary.findings.append(item)
    return summary


def _print_summary(summary: Summary, *, drop: bool) -> None:
    from unitune.render.typography import counted

    print_finding_lines(summary.findings, more=summary.refused - SHOWN_ROWS)
    total = f"of {counted(summary.converted + summary.refused, 'row')}"
    if summary.refused and drop:
        aside().print(f"Left out {summary.refused:,} {total}.")
    elif summary.refused:
        aside().print(
            f"{summary.refused:,} {total} cannot be converted; nothing was written. Correct them, "
            "or pass --drop to leave them out."
        )
    for key, count in summary.left_out.items():
        aside().print(f"{counted(count, 'row')} had `{key}`, which no training reads: left out.")


def _deliver(rows: IO[bytes], output: Path | None) -> None:
    """Copy rows to standard output, or to a file that is written completely or not at all."""
    rows.seek(0)
    if output is not None:
        with replacing(output) as file:
            shutil.copyfileobj(rows, file)
    elif sys.stdout.isatty():
        for line in rows:
            print_json_text(line.decode().removesuffix("\n"))
    else:
        try:
            shutil.copyfileobj(rows, sys.stdout.buffer)  # bytes: UTF-8 whatever the terminal has
            sys.stdout.buffer.flush()
        except OSError as error:
            output_failed(error)
