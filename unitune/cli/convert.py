"""The command `unitune convert`: rows into a vendor's format, and back.

Rows go to standard output or to a file, and only when all of them could be converted or the user
said that the others may be dropped: they are spooled first, so that a refused row leaves nothing
half written. What was refused, dropped or left out is told on standard error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert(
    data: Annotated[
        Path | None, typer.Argument(metavar="DATA", help="A data file.", show_default=False)
    ] = None,
    *,
    to: Annotated[
        str | None, typer.Option("--to", metavar="FORMAT", help="Write DATA's rows in this format.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="FORMAT", help="Read DATA in this format, write canonical."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where the rows go, instead of out."),
    ] = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="Leave out rows that cannot be converted.")
    ] = False,
    list_formats: Annotated[bool, typer.Option("--list", help="List the formats.")] = False,
) -> None:
    """Write rows in a vendor's format, or read them from one.

    A row that the other side has no place for is refused, with the reason; then nothing is
    written, unless --drop leaves such rows out.

    [dim]$ unitune convert train.jsonl --to vertex-sft -o vertex.jsonl
    $ unitune convert vertex.jsonl --from vertex-sft
    $ unitune convert --list[/dim]
    """
    from tempfile import TemporaryFile

    from unitune.backends.conversion import decode_file, encode_file
    from unitune.cli.outfile import ROWS, check_place
    from unitune.cli.output import aside, console
    from unitune.cli.spool import deliver, print_formats, take
    from unitune.errors import DataError, NotFoundError, UserError

    if list_formats:
        print_formats(console())
        return
    if data is None or (to is None) == (source is None):
        raise UserError(
            "name a data file and one format: `unitune convert DATA --to FORMAT`, or `--from "
            "FORMAT` for the way back. `unitune convert --list` shows the formats."
        )
    if output is not None:
        check_place(output, ROWS, [data])
    try:
        items = encode_file(data, to) if to else decode_file(data, source or "")
    except NotFoundError:
        print_formats(aside())
        raise
    with TemporaryFile() as rows:
        told = take(items, rows)
        told.print_to_stderr(dropped=drop)
        if told.refused and not drop:
            raise typer.Exit(UserError.exit_code)
        if not told.converted:
            raise DataError(f"{data} has no row that can be converted; nothing was written.")
        deliver(rows, output)
    if output is not None:
        aside().print(f"Wrote {told.converted:,} rows to {output}.")
