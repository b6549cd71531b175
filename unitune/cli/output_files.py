"""Files that the user names for a command's result: `-o`.

`check_output` refuses, before anything is done, to overwrite what the command reads and any file
that is not of the kind it writes; `replacing` then writes the file whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, cast

from unitune.errors import UserError
from unitune.workspace import filesystem


class Kind(StrEnum):
    """What a command writes."""

    PLAN = "a saved plan"
    ROWS = "a file of JSON Lines"
    PAGE = "a page of unitune"


# What stands in the first bytes of our pages
PAGE_MARK, MARK_WITHIN = b'<meta name="generator" content="unitune">', 4096
# Folders of links to what a process has opened, such as /dev/stdout
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
    """Refuse a file that a result must not replace.

    Args:
        output: Where the result is to go, if anywhere; what is no plain file, such as a pipe, may
            be written to.
        kind: Of the result; an empty file may become one of any kind.
        inputs: Files that the command reads.

    Raises:
        UserError: The result would replace an input, or a file of another kind.
    """
    if output is None:
        return
    if output.is_dir():
        raise UserError(f"{output} is a folder; name a file.")
    if not output.is_file():
        return
    if any(path.exists() and output.samefile(path) for path in inputs):
        raise UserError(f"{output} is what the command reads; name another file.")
    with output.open("rb") as file:
        if output.stat().st_size and not _is_of_kind(file, kind):
            raise UserError(
                f"{output} is not {kind}, and was not overwritten. Name another file, or delete "
                "that one first."
            )


@contextmanager
def replacing(output: Path) -> Generator[IO[bytes]]:
    """Open a file that takes its place when it is whole; a link there is replaced.

    Raises:
        OSError: It cannot be written; names the path that the user gave.
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
