"""Whether a job that the user names for an uncertain run can be that run's.

What plainly belongs to another run, or trains something else, is refused with the reason; a run
that took it would report another training as its own, and its real job would be lost.
"""

from __future__ import annotations

from collections.abc import Iterator

from unitune.backends import registry
from unitune.backends.capabilities import DescribesJobs, JobDescription
from unitune.backends.launch_keys import launch_key_in
from unitune.errors import UserError
from unitune.ledger import Ledger, RunRecord


def refuse_foreign_job(ledger: Ledger, record: RunRecord, job_id: str) -> None:
    """Refuse a job that cannot be the run's.

    Raises:
        UserError: Another run has it, or its key, base model or training file is not the run's.
        BackendError: The backend knows no such job.
    """
    owner = ledger.run_of_job(record.backend, job_id)
    if owner not in (None, record.id):
        raise _refusal(record, job_id, [f"it is the job of run {owner}"])
    backend = registry.backend(record.backend)
    if not isinstance(backend, DescribesJobs):
        backend.poll(job_id, "")  # an id that it does not know is refused
        return
    reasons = list(_differences(ledger, record, backend.describe_job(job_id)))
    if reasons:
        raise _refusal(record, job_id, reasons)


def _differences(ledger: Ledger, record: RunRecord, job: JobDescription) -> Iterator[str]:
    key = launch_key_in(job.key or "")
    if key and key.rpartition("-")[0] != record.id:
        yield f"it carries the key {key!r} of another run"
    if job.base_model and not _same_model(job.base_model, record.base_model):
        yield f"it trains {job.base_model!r}, and the run {record.base_model!r}"
    uploaded = ledger.uploads(record.id).get("train.jsonl")
    if job.training and uploaded and job.training != uploaded.ref:
        yield f"its training file is {job.training!r}, and the run's {uploaded.ref!r}"


def _same_model(name: str, other: str) -> bool:
    """Return whether two names may be of one model: vendors add dates, owners and paths."""
    name, other = name.casefold(), other.casefold()
    return name in other or other in name


def _refusal(record: RunRecord, job_id: str, reasons: list[str]) -> UserError:
    return UserError(
        f"job {job_id} cannot be that of run {record.id}: {'; '.join(reasons)}. Search "
        f"{record.backend} for a job with {record.launch_key!r} in its name: if there is one, "
        f"`unitune resume {record.id} --adopt ITS_ID`, else `unitune resume {record.id} "
        "--resubmit`."
    )
