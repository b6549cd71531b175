"""Keep a person's notes on cases in ``notes.jsonl``, next to a comparison's other files."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from unitune.documents import Frozen
from unitune.errors import UserError
from unitune.evaluate.inference.journal import heal, write_whole
from unitune.files.filesystem import content_of, no_link
from unitune.workspace.locks import locked

NOTES = "notes.jsonl"
LONGEST_NOTE = 4_000  # characters
WAIT_SECONDS = 2.0  # for another process that writes a note
_BEGINNING = b'{"case":'


class Note(Frozen):
    """Note of a person on a case."""

    case: str
    text: str
    created: str
    """ISO date and time in UTC."""


def read_notes(folder: Path) -> dict[str, str]:
    """Return the notes in a comparison's folder by case, skipping invalid lines."""
    try:
        lines = content_of(folder / NOTES).split(b"\n")
    except OSError:
        return {}
    notes: dict[str, str] = {}
    for line in lines:
        with suppress(ValidationError):
            note = Note.model_validate_json(line)
            notes[note.case] = note.text
    return {case: text for case, text in notes.items() if text}


def write_note(folder: Path, case: str, text: str) -> None:
    """Write a note on a case, replacing the previous one; an empty text deletes it.

    Raises:
        UserError: It is too long, or the file is a symbolic link.
        Mismatch: The file has other content.
        LockTimeout: Another process is writing.
    """
    text = "\n".join(text.split("\r\n")).strip()
    if len(text) > LONGEST_NOTE:
        raise UserError(
            f"the note on case {case} has {len(text):,} characters; {LONGEST_NOTE:,} are allowed. "
            "Shorten it."
        )
    note = Note(case=case, text=text, created=datetime.now(UTC).isoformat(timespec="seconds"))
    path = folder / NOTES
    with (
        locked(path, str(path), WAIT_SECONDS),
        open(path, "a+b", buffering=0, opener=no_link) as file,
    ):
        heal(file, _BEGINNING, Note.model_validate_json, "note", "Move the file away.")
        write_whole(file, f"{note.model_dump_json()}\n".encode())
