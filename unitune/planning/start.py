"""Find the tuned model that a job's training continues from (`start`), without calling a vendor."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import JsonValue

from unitune.backends.exactly_once import DIGITS
from unitune.backends.offer import Offer, Terms
from unitune.backends.protocol import State
from unitune.data.example import digest
from unitune.errors import UnreadableRecord, UserError
from unitune.files.filesystem import sha256
from unitune.findings import Finding, error
from unitune.job.job import Job
from unitune.models import OTHER_BASE, Start, TunedModel, VersionName
from unitune.workspace.home import home

if TYPE_CHECKING:
    from unitune.ledger import RunRecord

# A run's id or a prefix of it that contains the day
RUN_ID = re.compile(rf"r\d{{6}}(-[{DIGITS}]{{0,12}})?")
# Files that decide how a tuned model answers: adapter weights and configuration, or a model's
MODEL_FILES = ("adapter_*", "*.safetensors", "config.json")
LIST = "`unitune runs` lists the runs."


class ResolvedStart(NamedTuple):
    """Model that a job continues from, and findings about it."""

    start: Start | None = None
    findings: tuple[Finding, ...] = ()


def find_start(job: Job, offer: Offer, terms: Terms) -> ResolvedStart:
    """Return the model that a job continues from, if any."""
    if job.start is None:
        return ResolvedStart()
    if job.method not in terms.continues:
        can = f" It can with method {', '.join(terms.continues)}." if terms.continues else ""
        what = (
            f"{offer.name} cannot continue from a tuned model with method {job.method} and "
            f"{job.base_model}."
        )
        return _refused("unsupported-start", f"{what}{can}", "Leave `start` out.")
    if RUN_ID.fullmatch(job.start) or VersionName.parse(job.start):
        return _of_run(job.start, job, offer)
    folder = (job.folder / Path(job.start).expanduser()).resolve()
    if offer.is_own:
        return _of_folder(folder, job)
    if folder.is_dir():
        what = f"start is the folder {folder}, but {offer.name} continues only from its own models."
        return _refused("start-folder", what, "Name a run, or a model by the vendor's name.")
    return ResolvedStart(Start(model=_model(job.start, job)))


def _of_run(name: str, job: Job, offer: Offer) -> ResolvedStart:
    from unitune.ledger import Ledger  # noqa: PLC0415 - imports SQLAlchemy
    from unitune.ledger.finding import find_record  # noqa: PLC0415 - imports SQLAlchemy

    try:
        record = find_record(Ledger(home()), name)
    except (UserError, UnreadableRecord) as problem:
        return _refused("start-unknown", f"start {name!r}: {problem}", LIST)
    if record.model is None or record.state is not State.SUCCEEDED:
        return _unfinished(record)
    start = Start(run=record.id, model=record.model)
    if record.backend != offer.name and not (offer.is_own and Path(record.model.name).is_dir()):
        what = (
            f"start is run {record.id}, which was trained on {record.backend}, but {offer.name} "
            "continues only from its own models."
        )
        return _refused(
            "start-other-backend", what, "Name a run of the same backend, or train there.", start
        )
    if record.model.base_fingerprint is None and record.base_model != job.base_model:
        what = f"start is run {record.id} of {record.base_model}, but model is {job.base_model}."
        return _refused(OTHER_BASE, what, "Use the same base model for both.", start)
    return ResolvedStart(start)


def _unfinished(record: RunRecord) -> ResolvedStart:
    what = f"start is run {record.id}, which has no model: it is {record.state}"
    if not record.state.ended:
        stands = record.state in (State.PAUSED, State.UNCERTAIN)
        fix = f"Wait until it ends: unitune runs {'resume' if stands else 'watch'} {record.id}"
        return _refused("start-unfinished", f"{what} (last known state).", fix)
    again = (
        f"Run `unitune runs resume {record.id}` to retry. " if record.state is State.FAILED else ""
    )
    fix = f"{again}Or name another run: unitune runs"
    return _refused("start-unfinished", f"{what}.", fix)


def _of_folder(folder: Path, job: Job) -> ResolvedStart:
    if not folder.is_dir():
        what = f"start {job.start!r} is neither a run id nor a folder ({folder})."
        return _refused("start-unknown", what, LIST)
    return ResolvedStart(Start(model=_model(str(folder), job), content=digest(_hashes(folder))))


def _model(name: str, job: Job) -> TunedModel:
    return TunedModel(backend=job.backend, name=name, base=job.base_model)


def _refused(code: str, what: str, fix: str, start: Start | None = None) -> ResolvedStart:
    return ResolvedStart(start, (error(code, what, fix),))


def model_fingerprint(model: TunedModel) -> str:
    """Return a hash of what decides how a tuned model answers, as far as it is known here.

    For a model in a folder it covers the adapter's files, otherwise the vendor's model id. A vendor
    that changes the model behind an id goes unnoticed.
    """
    folder = Path(model.name)
    hashes = _hashes(folder) if folder.is_absolute() else {}
    return digest(hashes or [model.backend, model.name])


def _hashes(folder: Path) -> dict[str, JsonValue]:
    files = sorted({each for name in MODEL_FILES for each in folder.glob(name) if each.is_file()})
    return {each.name: sha256(each) for each in files}
