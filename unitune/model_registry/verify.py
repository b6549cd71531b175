"""`verify`: the gate of a registered version once more, on answers that are given now.

A vendor may change the model behind an id, and files may change on a disk. So the files of the
adapter are held against those that were registered, every contender is asked again, and, case by
case, the answers are held against those on which the version was promoted.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping

from pydantic import JsonValue

from unitune.errors import UnreadableRecord, UserError
from unitune.evaluate.compare import run_comparison
from unitune.evaluate.diff import ContenderDiff, diff
from unitune.evaluate.gate_record import gate_records
from unitune.evaluate.history import find_comparison, history_folder
from unitune.evaluate.inference.engine import CompareOptions, Notify, ignore
from unitune.evaluate.results import Comparison
from unitune.job.contenders import Tuned
from unitune.job.job import Job
from unitune.ledger import Ledger, RunRecord
from unitune.ledger.finding import find_record, find_version, record_of
from unitune.ledger.model_versions import ModelVersion
from unitune.model_registry.versions import refuse_changed_model
from unitune.models import VersionName
from unitune.planning.preflight import ResolvedJob, preflight
from unitune.planning.start import model_fingerprint
from unitune.run.run import Run
from unitune.security.spec import Closed
from unitune.workspace.home import home, make_home

# Answers of a verification that was interrupted longer ago say nothing about now
KEPT_SECONDS = 6 * 3600.0


class Verification(Closed):
    """What a verification has shown."""

    schema_version: int = 1
    name: str
    """As it was given."""
    version: str
    """The version that it stands for, such as ``triage:3``."""
    exit_code: int
    """Of the gate."""
    comparison: Comparison
    """Of now, which is in the history."""
    since: str | None
    """Id of the comparison that the answers are held against; None: none is on this machine."""
    change: ContenderDiff | None
    """The version's answers now against those then, case by case."""


def verify(  # noqa: PLR0913 - each has a name and a default
    name: str,
    job: Job | ResolvedJob,
    *,
    deploy_seconds: float | None = None,
    deploy_options: Mapping[str, JsonValue] | None = None,
    batch: bool = False,
    allow_unpriced: bool = False,
    progress: Notify | None = None,
    announce: Callable[[str], None] | None = None,
) -> Verification:
    """Run the gate of a job again for a version of a registered model, with answers given now.

    Killed at any moment, the same call goes on for some hours with the answers that are there.

    Args:
        name: Such as ``triage@production`` or ``triage:3``.
        job: Has the gate, and a tuned candidate: the version takes its place.
        deploy_seconds: As of `unitune.compare`, and so are all that follow.
        deploy_options: Likewise.
        batch: Likewise.
        allow_unpriced: Likewise.
        progress: Likewise.
        announce: Likewise.

    Raises:
        NotFoundError: There is no such version, or its run is deleted.
        UserError: The job has no gate, or its candidate is no tuned model, or another.
        Mismatch: The files of the model are not those that were registered.
    """
    ledger, parsed = Ledger(home()), VersionName.parse(name)
    if parsed is None:
        raise UserError(
            f"{name!r} names no version; write NAME@ALIAS or NAME:3, such as triage@production."
        )
    version = find_version(ledger, parsed)
    record = record_of(ledger, version)
    resolved = preflight(job)
    _refuse(resolved.job, ledger, record.id)
    refuse_changed_model(version, model_fingerprint(version.tuned_model))
    since = _judged_before(ledger, version, record)
    make_home(home())
    folder = home() / "verifications" / record.id
    if folder.exists() and time.time() - folder.stat().st_mtime > KEPT_SECONDS:
        shutil.rmtree(folder)
    options = CompareOptions(
        out=folder,
        deploy_seconds=deploy_seconds,
        deploy_options=deploy_options or {},
        batch=batch,
        verifies=True,
        allow_unpriced=allow_unpriced,
        progress=progress or ignore,
        announce=announce or ignore,
    )
    now = run_comparison(resolved, Run(ledger, record), options)
    shutil.rmtree(folder)  # the history has what it holds
    now = now.model_copy(update={"folder": history_folder(now.id or "")})
    changes = diff(since, now).contenders if since else ()
    return Verification(
        name=name,
        version=str(version),
        exit_code=now.exit_code,
        comparison=now,
        since=since and since.id,
        change=next((each for each in changes if each.name == now.candidate), None),
    )


def _refuse(job: Job, ledger: Ledger, run_id: str) -> None:
    if job.evaluate.gate is None:
        raise UserError(
            f"job {job.name!r} has no gate to verify. Add one: evaluate.gate: {{mode: improve}}."
        )
    for spec in job.evaluate.contenders:
        if spec.role != "candidate":
            continue
        if not isinstance(spec, Tuned):
            raise UserError(
                f"the candidate of job {job.name!r} is {spec.type}; a verification needs a tuned "
                "one, whose place the version takes."
            )
        if spec.run is not None and find_record(ledger, spec.run).id != run_id:
            raise UserError(
                f"the candidate of job {job.name!r} is run {spec.run}, and run {run_id} is to be "
                "verified. Leave the candidate's `run` out."
            )


def _judged_before(ledger: Ledger, version: ModelVersion, record: RunRecord) -> Comparison | None:
    """Return the comparison by which a version was promoted, else the newest, where it is here."""
    moves = ledger.alias_moves(version.model)
    promoted = [each.comparison for each in moves if each.number == version.number]
    newest = [each.comparison for each in gate_records(ledger, record)[:1]]
    id_ = next(filter(None, (*reversed(promoted), *newest)), None)
    try:
        return find_comparison(id_) if id_ else None
    except (UserError, UnreadableRecord):
        return None
