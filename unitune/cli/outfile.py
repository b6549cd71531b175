"""Files that the user names for a command's result: `-o`.

`check_place` refuses, before anything is done, to overwrite what the command reads and any file
that is not of the kind it writes; `replacing` then writes the file whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from unitune.errors import UserError
from unitune.workspace import filesystem


@dataclass(frozen=True, slots=True)
class Kind:
    """What a command writes.

    Args:
        name: For people.
        fits: Whether the file of some open stream is of the kind.
    """

    name: str
    fits: Callable[[IO[bytes]], bool]


def _is_plan(file: IO[bytes]) -> bool:
    return {"job", "backend", "findings", "bound"} <= _object(file.read()).keys()


def _is_page(file: IO[bytes]) -> bool:
    return file.read(32).lstrip().lower().startswith(b"<!doctype html")


def _is_rows(file: IO[bytes]) -> bool:
    return bool(_object(file.readline()))


def _object(text: bytes) -> dict[str, object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


PLAN = Kind("a saved plan", _is_plan)
PAGE = Kind("an HTML page", _is_page)
ROWS = Kind("a file of JSON Lines", _is_rows)


def check_place(output: Path, kind: Kind, inputs: Iterable[Path]) -> None:
    """Refuse a place where something stands that a result must not replace.

    Args:
        output: Where the result is to go; what is no plain file, such as a pipe, may be written to.
        kind: Of the result; an empty file may become one of any kind.
        inputs: Files that the command reads.

    Raises:
        UserError: The result would replace an input, or a file of another kind.
    """
    if output.is_dir():
        raise UserError(f"{output} is a folder; name a file.")
    if not output.is_file():
        return
    for given in inputs:
        if given.exists() and output.samefile(given):
            raise UserError(f"{output} is what the command reads; name another file for -o.")
    with output.open("rb") as file:
        fits = kind.fits(file)
    if output.stat().st_size and not fits:
        raise UserError(
            f"{output} is not {kind.name}, and was not overwritten. Name another file for -o, or "
            "delete that one first."
        )


@contextmanager
def replacing(output: Path) -> Generator[IO[bytes]]:
    """Give a file to write that takes its place when it is whole; a link there is replaced.

    Raises:
        OSError: It cannot be written; names the place.
    """
    target = output.resolve() if Path("/dev") in output.absolute().parents else output
    try:
        if target.exists() and not target.is_file():
            with target.open("wb") as device:  # /dev/null and the like cannot be replaced
                yield device
            return
        with filesystem.replacing(target) as draft:
            yield draft.buffer
    except OSError as error:
        error.filename = str(output)
        raise
