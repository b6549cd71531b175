"""Check and write the files that users pass with ``-o``."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, cast

from unitune.errors import UserError
from unitune.files import filesystem


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
