"""The end of a run's traces: its model and files at the vendor, its folder, its rows.

`inventory` says beforehand what that is. The reports of its evaluation stay unless they are asked
for, because verdicts outlive models. What cannot be deleted is said, in a sentence each, and keeps
the run in the ledger, so that the same call can be made again: what is gone already is no error.
What another run uses stays.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from unitune.backends import registry
from unitune.backends.capabilities import Deletes
from unitune.backends.protocol import State
from unitune.backends.retry import retry_rate_limited
from unitune.errors import UnituneError, UserError
from unitune.ledger import Ledger, RunRecord
from unitune.models import TunedModel
from unitune.workspace.home import EVALUATION

PATIENCE_SECONDS = 60.0
"""How long one deletion bears that the vendor is asked too often."""


def inventory(ledger: Ledger, record: RunRecord, *, reports: bool = False) -> list[str]:
    """Return what `delete` would delete, a line each.

    Args:
        ledger: Where the run is written down.
        record: Of a run that has ended.
        reports: With the reports of its evaluation.

    Raises:
        UserError: The run has not ended, or a deployment of its model stands.
    """
    _refuse_before_its_end(record)
    _refuse_while_deployed(ledger, record)
    folder, model = ledger.run_folder(record.id), _own_model(ledger, record)
    things = [] if model is None else [f"the model {model.name} at {record.backend}"]
    things += [f"the file {ref} at {record.backend}" for ref in _own_uploads(ledger, record)]
    if folder.exists():
        trained = record.model is not None and _goes_with_folder(ledger, record, record.model.name)
        stays = (folder / EVALUATION).exists() and not reports
        things.append(
            f"the folder {folder}{', with the tuned model' if trained else ''}"
            f"{f', but for its {EVALUATION}' if stays else ''}"
        )
    return [*things, "the run's place in the ledger"]


def delete(
    ledger: Ledger, record: RunRecord, *, force: bool = False, reports: bool = False
) -> list[str]:
    """Delete what a run left behind; the caller acts for the run.

    Args:
        ledger: Where the run is written down.
        record: Of a run that has ended.
        force: Forget the run even if something is left.
        reports: Delete the reports of its evaluation, too.

    Returns:
        A sentence for each thing that could not be deleted; the run is then still in the ledger,
        unless forced.

    Raises:
        UserError: The run has not ended, or a deployment of its model stands.
    """
    _refuse_before_its_end(record)
    _refuse_while_deployed(ledger, record)
    left = [*_model_left(ledger, record), *_uploads_left(ledger, record)]
    left += _files_left(ledger, record, reports=reports)
    if force or not left:
        ledger.delete(record)
    return left


def _refuse_before_its_end(record: RunRecord) -> None:
    if not record.state.ended:
        raise UserError(
            f"run {record.id} is {record.state} and cannot be deleted before it has ended. End it "
            f"with `unitune cancel {record.id}`."
        )


def _refuse_while_deployed(ledger: Ledger, record: RunRecord) -> None:
    for deployment in ledger.deployments():
        if deployment.run_id == record.id and deployment.ended is None:
            raise UserError(
                f"run {record.id} cannot be deleted while deployment {deployment.id} stands. Take "
                f"it down with `unitune undeploy {deployment.id}`."
            )


def _own_model(ledger: Ledger, record: RunRecord) -> TunedModel | None:
    """Return the model at the vendor, unless another run has the same one."""
    model = record.model
    if model is None or _goes_with_folder(ledger, record, model.name):
        return None
    if any(other.model == model for other in ledger.records() if other.id != record.id):
        return None
    return model


def _own_uploads(ledger: Ledger, record: RunRecord) -> list[str]:
    """Return the uploads that no other run uses."""
    refs = {upload.ref for upload in ledger.uploads(record.id).values()}
    return [
        ref
        for ref in sorted(refs)
        if not set(ledger.runs_with_upload(ref)) - {record.id}
        and not _goes_with_folder(ledger, record, ref)
    ]


def _model_left(ledger: Ledger, record: RunRecord) -> Iterator[str]:
    """Delete the model."""
    model = _own_model(ledger, record)
    if model is not None:
        what = f"the model {model.name} at {record.backend}"
        yield from _tried(record, what, lambda backend: backend.delete_model(model))


def _uploads_left(ledger: Ledger, record: RunRecord) -> Iterator[str]:
    """Delete the uploads."""
    for ref in _own_uploads(ledger, record):
        what = f"the file {ref} at {record.backend}"
        beginning = _about_to_upload(ledger, record)
        if beginning is not None:
            # Uploads are found by their hash: it may just have found this one, and not said so.
            yield (
                f"{what} stays: run {beginning} is being launched and may use it. Let it go on "
                f"with `unitune resume {beginning}`, or cancel it."
            )
            continue
        yield from _tried(record, what, partial(_delete_file, ref))


def _delete_file(ref: str, backend: Deletes) -> None:
    backend.delete_file(ref)


def _about_to_upload(ledger: Ledger, record: RunRecord) -> str | None:
    """Return another run of the same backend that is handing over its files."""
    early = (State.PLANNED, State.UPLOADING)
    found = (
        other.id
        for other in ledger.records()
        if other.state in early and other.backend == record.backend and other.id != record.id
    )
    return next(found, None)


def _files_left(ledger: Ledger, record: RunRecord, *, reports: bool) -> Iterator[str]:
    """Delete the run's folder, and the reports of its evaluation only where that was asked for."""
    folder = ledger.run_folder(record.id)
    if not folder.exists() and record.host not in ("", socket.gethostname()):
        yield (
            f"the run's files stay on the machine {record.host!r}, which launched it: delete "
            f"runs/{record.id} in its .unitune folder there."
        )
    try:
        if folder.exists() and (reports or not (folder / EVALUATION).exists()):
            shutil.rmtree(folder)
        for entry in folder.iterdir() if folder.exists() else ():
            if entry.name != EVALUATION:
                shutil.rmtree(entry) if _is_folder(entry) else entry.unlink()
    except OSError as error:
        yield f"the folder {folder} stays: {error}."


def _is_folder(entry: Path) -> bool:
    return entry.is_dir() and not entry.is_symlink()


def _tried(record: RunRecord, what: str, act: Callable[[Deletes], None]) -> Iterator[str]:
    """Let the backend delete something; say why it stays if it does."""
    try:
        backend = registry.backend(record.backend)
        if isinstance(backend, Deletes):
            retry_rate_limited(partial(act, backend), PATIENCE_SECONDS)
        else:
            yield f"{what} stays: unitune cannot delete there. Delete it by the vendor's own means."
    except UnituneError as error:
        yield f"{what} stays: {error}"


def _goes_with_folder(ledger: Ledger, record: RunRecord, name: str) -> bool:
    """Return whether something is a file of the run's folder, as a local model is."""
    return Path(name).resolve().is_relative_to(ledger.run_folder(record.id).resolve())
