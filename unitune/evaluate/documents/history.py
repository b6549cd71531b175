"""Keep every finished comparison in a folder of its own, ``.unitune/comparisons/ID/``.

Its files are named here, also a person's notes on cases, ``notes.jsonl``.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from unitune.backends.exactly_once import comparison_id
from unitune.data.example import digest
from unitune.documents import Frozen
from unitune.errors import NotFoundError, UnreadableRecord, UserError
from unitune.evaluate.documents.records import CaseResult
from unitune.evaluate.documents.results import Comparison
from unitune.evaluate.inference.journal import heal, write_whole
from unitune.files.filesystem import content_of, no_link, private_folder, replacing, sha256
from unitune.job.contenders import NEWEST
from unitune.job.job import Job
from unitune.security.json_fields import whole_text
from unitune.workspace.home import (
    COMPARISONS,
    EVALUATION,
    artifact_folder,
    artifacts,
    home,
    make_folder,
    make_home,
)
from unitune.workspace.own_files import locked

VERDICT = "verdict.json"
CASES = "cases.jsonl"  # written with the verdict: a `CaseResult` per line
_CASE = TypeAdapter(CaseResult)
# Subfolder for results of a preview
FIRST_LOOK = "first-look"
# Written next to the verdict by `unitune.report.files`
REPORTS = ("report.html", "summary.md", "junit.xml")


def report_folder(comparison: Comparison, folder: Path) -> Path:
    """Return the folder for verdict and report."""
    return folder / FIRST_LOOK if comparison.omitted_cases else folder


def results_folder(out: str | os.PathLike[str] | None, job: Job, run: str | None) -> Path:
    """Return the folder for the answers of a comparison: `out`, or that of the run or job.

    Raises:
        UserError: The folder has files with the same names that are not from a comparison.
    """
    if not out:
        folder = folder_of_run(run) if run else folder_of_job(job)
        make_folder(folder)
        return folder
    folder = Path(out)
    _refuse_link(folder)
    taken = [name for name in (*REPORTS, VERDICT) if (folder / name).exists()]
    if taken and not (folder / "rows.jsonl").exists():
        raise UserError(
            f"{folder / taken[0]} is not from a comparison and will not be overwritten. Choose "
            "another folder for the results."
        )
    return folder


def folder_of_run(run: str) -> Path:
    """Return the folder for the evaluation of a run: in its own folder if that exists."""
    from unitune.ledger import Ledger  # noqa: PLC0415 - slow to import

    folder = Ledger(home()).run_folder(run)
    return (folder if folder.is_dir() else artifacts() / "runs" / run) / EVALUATION


def folder_of_job(job: Job) -> Path:
    """Return the folder for the answers to a job; it may not be there yet."""
    folder, project = job.folder.resolve(), artifacts().resolve().parent
    if folder.is_relative_to(project):
        return artifacts() / "evaluations" / folder.relative_to(project) / job.name
    return artifacts() / "evaluations" / f"{job.name}-{digest(str(folder))[:8]}"


def _refuse_link(folder: Path) -> None:
    if folder.is_symlink():
        raise UserError(
            f"{folder} is a symbolic link to {folder.readlink()}, and results are not written "
            "through links. Name the folder itself."
        )


def write_verdict(comparison: Comparison, folder: Path) -> None:
    """Write ``cases.jsonl`` and then ``verdict.json``, each atomically."""
    _refuse_link(folder)
    make_folder(folder)
    with replacing(folder / CASES) as file:
        for case in comparison.cases:
            # A scorer's reason may quote a model's JSON, which may have unpaired surrogates.
            fields = _CASE.dump_python(case, mode="json", exclude_defaults=True)
            file.write(whole_text(json.dumps(fields, ensure_ascii=False)) + "\n")
    with replacing(folder / VERDICT) as file:
        file.write(comparison.verdict_json())


def read_comparison(folder: Path, *, cases: bool = True) -> Comparison:
    """Return a written comparison, perhaps without cases. Raises OSError or ValidationError."""
    comparison = Comparison.model_validate_json(content_of(folder / VERDICT))
    with suppress(FileNotFoundError):
        lines = content_of(folder / CASES).split(b"\n") if cases else ()
        read = tuple(_CASE.validate_json(line) for line in lines if line)
        comparison = comparison.model_copy(update={"cases": read})
    return comparison


SHOWN_COMPARISONS = 20  # default number of comparisons in a list
_ID = re.compile(r"c\d{6}-[0-9a-z]{12}")
HISTORY = "the history"
KNOWN = "known-comparisons"  # in the state folder: hashes and folder of each comparison


class ComparisonListing(NamedTuple):
    """Comparisons without their cases, newest first, and those that cannot be read."""

    comparisons: list[Comparison]
    unreadable: list[UnreadableRecord]


def keep(comparison: Comparison) -> Comparison:
    """Write a finished comparison into the history, whole or not at all; return it with its id."""
    id_ = comparison_id(time.time())
    kept = comparison.model_copy(update={"id": id_})
    folder = artifact_folder(COMPARISONS) / id_
    draft = folder.with_name(f".{folder.name}")
    private_folder(draft)
    make_home(home())
    private_folder(home() / KNOWN)
    try:
        write_verdict(kept, draft)
        with replacing(home() / KNOWN / id_) as file:
            file.write(f"{_hashes(draft)}\n{folder}")
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return kept.model_copy(update={"folder": folder})


def history_folder(id_: str) -> Path:
    """Return the folder of a kept comparison: in this project, or where it was kept."""
    folder, known = artifacts() / COMPARISONS / id_, home() / KNOWN / id_
    if folder.is_dir() or not known.exists():
        return folder
    return Path(known.read_text("utf-8").partition("\n")[2])


def _hashes(folder: Path) -> str:
    return f"{sha256(folder / VERDICT)} {sha256(folder / CASES)}"


def comparison_ids(beginning: str = "") -> list[str]:
    """Return the ids of the project's comparisons that begin so, the newest first.

    Comparisons that the user's state folder does not know came with the project, and are left out.
    """
    folder, known = artifacts() / COMPARISONS, home() / KNOWN
    ids = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    own = (id_ for id_ in ids if _ID.fullmatch(id_) and (known / id_).exists())
    return sorted((id_ for id_ in own if id_.startswith(beginning)), reverse=True)


def comparisons(limit: int | None = None) -> list[Comparison]:
    """Return the comparisons of this folder's history without their cases, newest first.

    A comparison that cannot be read is logged.

    Args:
        limit: Maximum number of comparisons to read; None for all.
    """
    listing = comparison_listing(limit)
    for problem in listing.unreadable:
        logging.getLogger("unitune").warning("%s", problem)
    return listing.comparisons


def comparison_listing(limit: int | None = None) -> ComparisonListing:
    """Return up to `limit` kept comparisons, and those that cannot be read."""
    read = list(islice(_read_all(), limit))
    return ComparisonListing(
        [each for each in read if isinstance(each, Comparison)],
        [each for each in read if isinstance(each, UnreadableRecord)],
    )


def newest_of(fits: Callable[[Comparison], bool]) -> Comparison | None:
    """Return the newest comparison that fits, without its cases."""
    read = (each for each in _read_all() if isinstance(each, Comparison))
    return next(filter(fits, read), None)


def newest_of_run(run: str) -> Comparison | None:
    """Return the newest comparison of a run's model, without its cases."""
    return newest_of(lambda each: run in {of.run for of in each.contenders})


def _read_all() -> Iterator[Comparison | UnreadableRecord]:
    for id_ in comparison_ids():
        try:
            yield _read(id_)
        except UnreadableRecord as problem:
            yield problem


def _read(id_: str, *, cases: bool = False) -> Comparison:
    folder = history_folder(id_)
    try:
        if _hashes(folder) != (home() / KNOWN / id_).read_text("utf-8").partition("\n")[0]:
            raise UnreadableRecord(f"the comparison {id_}", VERDICT, "it was changed", HISTORY)
        return read_comparison(folder, cases=cases).model_copy(update={"folder": folder})
    except OSError as error:
        raise UnreadableRecord(f"the comparison {id_}", VERDICT, str(error), HISTORY) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or VERDICT
        raise UnreadableRecord(f"the comparison {id_}", where, first["msg"], HISTORY) from error


def find_comparison(id_or_prefix: str = NEWEST) -> Comparison:
    """Return a kept comparison with its cases, by its id, a unique prefix of it, or the newest.

    Raises:
        NotFoundError: No comparison's id has this prefix.
        UserError: Several ids have it, or the history is empty.
        UnreadableRecord: Its files are damaged or of another version.
    """
    ids = comparison_ids("" if id_or_prefix == NEWEST else id_or_prefix)
    if not ids and _ID.fullmatch(id_or_prefix) and (home() / KNOWN / id_or_prefix).exists():
        ids = [id_or_prefix]  # of another project
    if id_or_prefix == NEWEST and not ids:
        raise UserError("the history has no comparison yet. Run: unitune compare unitune.yaml")
    if not ids:
        known = comparison_ids()[:SHOWN_COMPARISONS]
        hint = "`unitune comparisons` lists them."
        raise NotFoundError("comparison", id_or_prefix, known, hint)
    if len(ids) > 1 and id_or_prefix not in (NEWEST, ids[0]):
        listed = ", ".join(ids[:SHOWN_COMPARISONS])
        raise UserError(
            f"{id_or_prefix!r} matches several comparisons: {listed}. Use a longer prefix."
        )
    return _read(ids[0], cases=True)


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


def checked_note(case: str, text: str) -> str:
    """Return a note with plain line ends and no outer space. Raises UserError if it is too long."""
    text = "\n".join(text.split("\r\n")).strip()
    if len(text) > LONGEST_NOTE:
        raise UserError(
            f"the note on case {case} has {len(text):,} characters; {LONGEST_NOTE:,} are allowed. "
            "Shorten it."
        )
    return text


def write_note(folder: Path, case: str, text: str) -> None:
    """Write a note on a case, replacing the previous one; an empty text deletes it.

    Raises:
        UserError: It is too long, or the file is a symbolic link.
        Mismatch: The file has other content.
        LockTimeout: Another process is writing.
    """
    text = checked_note(case, text)
    note = Note(case=case, text=text, created=datetime.now(UTC).isoformat(timespec="seconds"))
    path = folder / NOTES
    with (
        locked(path, str(path), WAIT_SECONDS),
        open(path, "a+b", buffering=0, opener=no_link) as file,
    ):
        heal(file, _BEGINNING, Note.model_validate_json, "note", "Move the file away.")
        write_whole(file, f"{note.model_dump_json()}\n".encode())
