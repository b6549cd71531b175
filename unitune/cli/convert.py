"""The command `unitune convert`: rows from one format into another.

Rows go to standard output or to a file, and only when all of them could be converted or the user
allowed to drop the others: they are spooled into a temporary file first, so that memory
stays small and a refused row leaves nothing half written. What was refused, dropped or left out
is printed to standard error.
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

from unitune.cli.output import aside, console, facts, print_finding_lines, print_json_text
from unitune.cli.output_files import Kind, check_output, replacing
from unitune.cli.streams import output_failed
from unitune.errors import DataError, NotFoundError, UserError

if TYPE_CHECKING:
    from unitune.backends.formats import Converted
    from unitune.data.privacy.redaction import Redaction
    from unitune.findings import Finding

SHOWN_ROWS = 20  # refused rows that are named; more of them are counted


RedactMap = Annotated[
    Path | None,
    typer.Option(
        "--redact",
        metavar="MAP",
        help="Put <EMAIL_1> and the like in place of personal data; MAP keeps what they stand for. "
        "One that is there is gone on with.",
    ),
]
RestoreMap = Annotated[
    Path | None,
    typer.Option("--restore", metavar="MAP", help="Put personal data back, as MAP has it."),
]
PhoneRegion = Annotated[
    str | None,
    typer.Option(
        metavar="COUNTRY", help="Whose phone numbers --redact knows without +: US by default, DE, …"
    ),
]


@dataclass(slots=True)
class Summary:
    """What a conversion did beside writing its rows."""

    converted: int = 0
    refused: int = 0
    # About the first of the refused, and the warnings and notes
    findings: list[Finding] = field(default_factory=list["Finding"])
    # Rows that lost a key that no training reads, by key
    left_out: Counter[str] = field(default_factory=Counter[str])


def convert(
    data: Annotated[
        Path | None, typer.Argument(metavar="DATA", help="A data file.", show_default=False)
    ] = None,
    *,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="FORMAT", help="Write this format; canonical rows without it."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="FORMAT", help="Read DATA as this format."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where the rows go; standard output by default."
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
    """Write the rows of any data file in another format, or as canonical JSON Lines.

    What the file is is seen from its content; --from says it where that is wrong. A row that the
    other side has no place for is refused, with the reason; then nothing is written, unless --drop
    leaves such rows out.

    [dim]$ unitune convert train.jsonl --to vertex-sft -o vertex.jsonl
    $ unitune convert sharegpt.json -o train.jsonl
    $ unitune convert alpaca.parquet --to anthropic
    $ unitune convert train.jsonl --redact map.json -o redacted.jsonl
    $ unitune convert --list[/dim]
    """
    from unitune.backends.formats import convert_file
    from unitune.cli.progress import working
    from unitune.data.privacy.redaction import replacements

    if list_formats:
        _print_formats(console())
        return
    if data is None:
        raise UserError(
            "name a data file: `unitune convert DATA --to FORMAT`. `unitune convert --list` shows "
            "the formats."
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
            raise DataError(f"{data} has no row that can be converted; nothing was written.")
        if redact and redaction:
            redaction.save(redact)
        _deliver(rows, output)
    if redact and redaction:
        words = replacements(redaction.replaced) or "nothing"
        aside().print(f"Replaced: {words}. {redact} has the map; it belongs on this machine alone.")
    if output is not None:
        aside().print(f"Wrote {summary.converted:,} rows to {output}.")


def _redaction(
    redact: Path | None, restore: Path | None, phone_region: str | None, output: Path | None
) -> Redaction | None:
    from unitune.data.privacy.redaction import Redaction

    if redact and restore:
        raise UserError("give either --redact or --restore, not both.")
    if (path := redact or restore) and output and path.absolute() == output.absolute():
        raise UserError(f"{output} is the map, and cannot be the file of rows, too.")
    if restore:
        return Redaction.load(restore)
    if not redact:
        return None
    if phone_region and not re.fullmatch("[A-Z]{2}", phone_region):
        raise UserError(
            f"--phone-region {phone_region} is no ISO code of a country, e.g. US or DE."
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
            "or leave them out with --drop."
        )
    for key, count in summary.left_out.items():
        aside().print(f"{counted(count, 'row')} had `{key}`, which no training reads: left out.")


def _deliver(rows: IO[bytes], output: Path | None) -> None:
    """Copy rows to a file, which is there whole or not at all, or to standard output."""
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
