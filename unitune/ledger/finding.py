"""Which run a name stands for: by `find_record` every command and every job finds its runs."""

from __future__ import annotations

from unitune.errors import NotFoundError, UnreadableRecord, UserError
from unitune.job.contenders import NEWEST
from unitune.ledger.ledger import Ledger
from unitune.ledger.model_versions import ModelVersion, standing_aliases
from unitune.ledger.records import RunRecord
from unitune.models import VersionName

SHOWN_RUNS = 50  # runs that a list or a message shows by default
LIST_MODELS = "`unitune models` lists them."


def find_record(ledger: Ledger, name: str) -> RunRecord:
    """Return the run that a name stands for.

    Args:
        ledger: Where it is looked for.
        name: A run's id or an unambiguous beginning of it, `NEWEST`, or a version of a registered
            model: ``NAME:3``, or ``NAME@ALIAS``.

    Raises:
        NotFoundError: It stands for none.
        UserError: For several; or the newest is asked for, and there is none at all.
    """
    if (version_name := VersionName.parse(name)) is not None:
        return record_of(ledger, find_version(ledger, version_name))
    if name == NEWEST:
        if not (newest := ledger.run_ids(most=1)):
            raise UserError("there is no run yet. Start one: unitune run unitune.yaml")
        return ledger.record(newest[0])
    ids = ledger.run_ids(name) if name else []
    if name in ids:
        ids = [name]
    if not ids:
        known = ledger.run_ids(most=SHOWN_RUNS)
        raise NotFoundError("run", name, known, hint="`unitune runs` lists them.")
    if len(ids) > 1:
        listed = ", ".join(ids[:SHOWN_RUNS])
        more = f" and {len(ids) - SHOWN_RUNS:,} more" if len(ids) > SHOWN_RUNS else ""
        raise UserError(f"{name!r} is the beginning of several runs: {listed}{more}. Give more.")
    return ledger.record(ids[0])


def find_version(ledger: Ledger, name: VersionName) -> ModelVersion:
    """Return the version of a registered model that a name stands for, whose run may be deleted.

    Raises:
        NotFoundError: There is no such model, version or alias.
    """
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
        raise UnreadableRecord(f"alias {name}", "move", f"there is no version {number}")
    return versions[number]


def record_of(ledger: Ledger, version: ModelVersion) -> RunRecord:
    """Return the run whose model a version is.

    Raises:
        NotFoundError: It is deleted.
    """
    try:
        return ledger.record(version.run_id)
    except NotFoundError:
        raise NotFoundError(
            "run any more for", str(version), (), f"It was run {version.run_id}, which is deleted."
        ) from None
