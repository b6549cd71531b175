"""Resolve the names of runs and registered models, and find what a run continues from."""

from __future__ import annotations

from typing import NamedTuple

from unitune.backends.protocol import State
from unitune.errors import NotFoundError, UnreadableRecord, UserError
from unitune.job.contenders import NEWEST
from unitune.ledger.ledger import SHOWN_RUNS, Ledger
from unitune.ledger.model_versions import ModelVersion, standing_aliases
from unitune.ledger.records import RunRecord
from unitune.models import VersionName

LIST_MODELS = "To list them: unitune models"


def find_record(ledger: Ledger, name: str) -> RunRecord:
    """Return the run that a name identifies.

    Args:
        ledger: The ledger.
        name: Id of a run or its unique beginning, `NEWEST` for the project's newest run, or a
            version of a registered model: ``NAME:3`` or ``NAME@ALIAS``.

    Raises:
        NotFoundError: No run has this name.
        UserError: Several runs have it, or the project has no run.
    """
    if (version_name := VersionName.parse(name)) is not None:
        return record_of(ledger, find_version(ledger, version_name))
    ledger.project()  # if it was moved, the paths of its runs change
    if name == NEWEST:
        if (newest := ledger.newest_id()) is None:
            raise UserError(
                "this project has no run yet. Start one: unitune run unitune.yaml. To list the "
                "runs of other projects: unitune runs --all"
            )
        return ledger.record(newest)
    ids = ledger.run_ids(name) if name else []
    if name in ids:
        ids = [name]
    if not ids:
        known = ledger.run_ids(most=SHOWN_RUNS)
        raise NotFoundError("run", name, known, hint="To list them: unitune runs --all")
    if len(ids) > 1:
        listed = ", ".join(ids[:SHOWN_RUNS])
        more = f" and {len(ids) - SHOWN_RUNS:,} more" if len(ids) > SHOWN_RUNS else ""
        raise UserError(f"several runs begin with {name!r}: {listed}{more}. Give more of the id.")
    return ledger.record(ids[0])


def find_version(ledger: Ledger, name: VersionName) -> ModelVersion:
    """Return the version of a registered model with a name; NotFoundError without one."""
    versions = {version.number: version for version in ledger.versions(name.model)}
    if not versions:
        raise NotFoundError("registered model", name.model, ledger.model_names(), LIST_MODELS)
    if name.number is not None:
        if name.number not in versions:
            raise NotFoundError("version", str(name), map(str, versions.values()))
        return versions[name.number]
    aliases = standing_aliases(ledger.alias_moves(name.model))
    if name.alias not in aliases:
        raise NotFoundError("alias", str(name), map(str, aliases.values()), LIST_MODELS)
    if (number := aliases[name.alias].number) not in versions:
        raise UnreadableRecord(f"alias {name}", "move", f"version {number} does not exist")
    return versions[number]


def record_of(ledger: Ledger, version: ModelVersion) -> RunRecord:
    """Return the run of a version; NotFoundError if it is deleted."""
    try:
        return ledger.record(version.run_id)
    except NotFoundError:
        raise NotFoundError(
            "run for", str(version), (), f"It was run {version.run_id}, which is deleted."
        ) from None


class Link(NamedTuple):
    """A training of the chain; only its name is known if the ledger lacks it."""

    name: str  # id of the run, or the model's name at its backend
    method: str | None = None
    state: State | None = None


class Lineage(NamedTuple):
    """The chain of trainings of a run."""

    ancestors: tuple[Link, ...]
    """Trainings that it continues from, the first one first."""
    continuations: tuple[Link, ...]
    """Runs that continue from it, newest first."""


def lineage(ledger: Ledger, record: RunRecord) -> Lineage:
    """Return the chain of trainings of a run."""
    after = tuple(map(_link, ledger.continuations(record.id)))
    before: list[Link] = []  # nearest first
    while (start := record.start) is not None:
        if start.run is None:
            before.append(Link(start.model.name))
            break
        try:
            record = ledger.record(start.run)
        except NotFoundError:
            before.append(Link(start.run))
            break
        before.append(_link(record))
    return Lineage(tuple(reversed(before)), after)


def _link(record: RunRecord) -> Link:
    return Link(record.id, record.method, record.state)
