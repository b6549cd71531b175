"""Run the gate of a registered version again with new answers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping

from pydantic import JsonValue

from unitune.documents import Closed
from unitune.errors import UnreadableRecord, UserError
from unitune.evaluate.compare import run_comparison
from unitune.evaluate.documents.diff import ContenderDiff, diff
from unitune.evaluate.documents.history import find_comparison, history_folder
from unitune.evaluate.documents.results import Comparison
from unitune.evaluate.inference.engine import CompareOptions, Notify, ignore
from unitune.evaluate.prompts.tuned_run import gate_records
from unitune.job.contenders import Tuned
from unitune.job.job import Job
from unitune.ledger import Ledger, RunRecord
from unitune.ledger.finding import find_record, find_version, record_of
from unitune.ledger.model_versions import ModelVersion
from unitune.models import VersionName
from unitune.planning.preflight import ResolvedJob, preflight
from unitune.planning.start import model_fingerprint
from unitune.registry.versions import refuse_changed_model
from unitune.run.run import Run
from unitune.workspace.home import home, make_home

# Answers of a verification interrupted longer ago are not reused
KEPT_SECONDS = 6 * 3600.0


class Verification(Closed):
    """Result of a verification."""

    schema_version: int = 1
    name: str
    """Name as given."""
    version: str
    """Version it refers to, such as ``triage:3``."""
    exit_code: int
    """Exit code of the gate."""
    comparison: Comparison
    """New comparison, which is in the history."""
    since: str | None
    """Id of the comparison used as reference; None if none is on this machine."""
    change: ContenderDiff | None
    """Changes of the version's answers since then, case by case."""


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
    """Run a job's gate again for a version of a registered model, with new answers.

    If the call is killed, the same call reuses its answers for some hours.

    Args:
        name: Version, such as ``triage@production`` or ``triage:3``.
        job: Job with the gate and a tuned candidate, which the version replaces.
        deploy_seconds: As `unitune.compare`, like all that follow.
        deploy_options: As `unitune.compare`.
        batch: As `unitune.compare`.
        allow_unpriced: As `unitune.compare`.
        progress: As `unitune.compare`.
        announce: As `unitune.compare`.

    Raises:
        NotFoundError: The version does not exist, or its run is deleted.
        UserError: The job has no gate, or its candidate is not tuned or is another run.
        Mismatch: The model's files differ from the registered ones.
    """
    ledger, parsed = Ledger(home()), VersionName.parse(name)
    if parsed is None:
        raise UserError(
            f"{name!r} is not a version. Use NAME@ALIAS or NAME:3, such as triage@production."
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
    shutil.rmtree(folder)  # the history has its content
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
            f"job {job.name!r} has no gate to verify. Add evaluate.gate: {{mode: improve}}."
        )
    for spec in job.evaluate.contenders:
        if spec.role != "candidate":
            continue
        if not isinstance(spec, Tuned):
            raise UserError(
                f"the candidate of job {job.name!r} is {spec.type}, but a verification needs a "
                "tuned one, which the version replaces."
            )
        if spec.run is not None and find_record(ledger, spec.run).id != run_id:
            raise UserError(
                f"the candidate of job {job.name!r} is run {spec.run}, but run {run_id} is to be "
                "verified. Remove the candidate's `run`."
            )


def _judged_before(ledger: Ledger, version: ModelVersion, record: RunRecord) -> Comparison | None:
    moves = ledger.alias_moves(version.model)
    promoted = [each.comparison for each in moves if each.number == version.number]
    newest = [each.comparison for each in gate_records(ledger, record)[:1]]
    id_ = next(filter(None, (*reversed(promoted), *newest)), None)
    try:
        return find_comparison(id_) if id_ else None
    except (UserError, UnreadableRecord):
        return None
