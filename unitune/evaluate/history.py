"""Keep every finished comparison in a folder of its own, ``.unitune/comparisons/ID/``."""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from unitune.backends.launch_keys import comparison_id
from unitune.errors import NotFoundError, UnreadableRecord, UserError
from unitune.evaluate.result_files import CASES, VERDICT, read_comparison, write_verdict
from unitune.evaluate.results import Comparison
from unitune.files.filesystem import private_folder, replacing, sha256
from unitune.job.contenders import NEWEST
from unitune.workspace.home import COMPARISONS, artifact_folder, artifacts, home, make_home

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


def newest_of(job: str, backend: str, base_model: str) -> Comparison | None:
    """Return the newest comparison of a job on a backend and base, without its cases."""
    for each in _readable():
        if (each.job, each.backend, each.base_model) == (job, backend, base_model):
            return each
    return None


def newest_of_run(run: str) -> Comparison | None:
    """Return the newest comparison of a run's model, without its cases."""
    read = _readable()
    return next((each for each in read if run in {of.run for of in each.contenders}), None)


def _readable() -> Iterator[Comparison]:
    return (each for each in _read_all() if isinstance(each, Comparison))


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
