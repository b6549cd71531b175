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
from unitune.evaluate.result_files import VERDICT, read_comparison, write_verdict
from unitune.evaluate.results import Comparison
from unitune.job.contenders import NEWEST
from unitune.workspace.filesystem import private_folder
from unitune.workspace.home import COMPARISONS, home, make_home

SHOWN_COMPARISONS = 20  # default number of comparisons in a list
_ID = re.compile(r"c\d{6}-[0-9a-z]{12}")
HISTORY = "the history"


class ComparisonListing(NamedTuple):
    """Comparisons without their cases, newest first, and those that cannot be read."""

    comparisons: list[Comparison]
    unreadable: list[UnreadableRecord]


def keep(comparison: Comparison) -> Comparison:
    """Write a finished comparison to the history atomically, and return it with its id."""
    make_home(home())
    kept = comparison.model_copy(update={"id": comparison_id(time.time())})
    folder = history_folder(kept.id or "")
    draft = folder.with_name(f".{folder.name}")
    private_folder(draft)
    try:
        write_verdict(kept, draft)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return kept.model_copy(update={"folder": folder})


def history_folder(id_: str) -> Path:
    """Return the folder of a kept comparison."""
    return home() / COMPARISONS / id_


def comparison_ids(beginning: str = "") -> list[str]:
    """Return the ids of all kept comparisons with this prefix, newest first."""
    folder = home() / COMPARISONS
    names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    return sorted(
        (name for name in names if _ID.fullmatch(name) and name.startswith(beginning)), reverse=True
    )


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
