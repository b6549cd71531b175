"""Delete what a run left: its model and files at the vendor, its folder and its records.

`inventory` lists it beforehand. Reports and comparisons are kept by default, as are objects that
another run uses. If something cannot be deleted, the run stays in the ledger and the call can be
repeated.
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from unitune.backends import registry
from unitune.backends.capabilities import Deletes
from unitune.backends.protocol import State
from unitune.backends.retry import retry_rate_limited
from unitune.errors import UnituneError, Unsupported, UserError
from unitune.ledger import Ledger, RunRecord
from unitune.ledger.model_versions import standing_aliases
from unitune.workspace.home import COMPARISONS, EVALUATION, artifacts

RATE_LIMIT_SECONDS = 60.0  # how long a rate-limited deletion is retried


@dataclass(frozen=True, slots=True)
class _Item:
    name: str
    delete: Callable[[], None]


def inventory(ledger: Ledger, record: RunRecord, *, reports: bool = False) -> list[str]:
    """List what `delete` would delete; see `unitune.run.handle.Run.inventory`."""
    items = _items(ledger, record, reports=reports)
    kept = (
        f"(run {other.id}, {other.method} of {other.name}, continues from this run: its model is "
        "kept but cannot be trained again)"
        for other in ledger.continuations(record.id)
    )
    version = ledger.version_of_run(record.id)
    lost = [f"(its model is {version}; a rollback to it will not be possible)"] if version else []
    return [*(item.name for item in items), "the run's record in the ledger", *lost, *kept]


def delete(
    ledger: Ledger, record: RunRecord, *, force: bool = False, reports: bool = False
) -> list[str]:
    """Delete what a run left behind; see `unitune.run.handle.Run.delete`."""
    folder = ledger.run_folder(record.id)
    left: list[str] = []
    for item in _items(ledger, record, reports=reports):
        try:
            item.delete()
        except UnituneError as error:
            left.append(f"{item.name} was not deleted: {error}")
        except OSError as error:
            left.append(f"{item.name} was not deleted: {error}.")
    if not folder.exists() and record.host not in ("", socket.gethostname()):
        left.append(
            f"the run's files are on the machine {record.host!r}, which launched it: delete "
            f"runs/{record.id} in its .unitune folder there."
        )
    if force or not left:
        ledger.delete(record)
    return left


def _items(ledger: Ledger, record: RunRecord, *, reports: bool) -> list[_Item]:
    if not record.state.ended:
        raise UserError(
            f"run {record.id} is {record.state} and cannot be deleted before it has ended. Cancel "
            f"it with `unitune runs cancel {record.id}`."
        )
    if version := ledger.version_of_run(record.id):
        for move in standing_aliases(ledger.alias_moves(version.model)).values():
            if move.number == version.number:
                raise UserError(
                    f"run {record.id} cannot be deleted while {move} points to its model, "
                    f"{version}. Promote another (unitune models promote RUN --as "
                    f"{move.alias}), roll "
                    f"back (unitune models rollback {move}), or remove it (unitune models "
                    f"unalias {move})."
                )
    for deployment in ledger.deployments():
        if deployment.run_id == record.id and deployment.ended is None:
            raise UserError(
                f"run {record.id} cannot be deleted while deployment {deployment.id} is running. "
                f"Take it down with `unitune deployments down {deployment.id}`."
            )
    for other in ledger.continuations(record.id):
        if not other.state.ended:
            raise UserError(
                f"run {record.id} cannot be deleted while run {other.id}, which continues from its "
                f"model, is {other.state}. Wait for it (unitune runs watch {other.id}) or "
                "cancel it."
            )
    items = [*_model(ledger, record), *_uploads(ledger, record)]
    folder = ledger.run_folder(record.id)
    if folder.exists():
        trained = record.model is not None and _is_in_folder(ledger, record, record.model.name)
        keeps = (folder / EVALUATION).exists() and not reports
        name = (
            f"the folder {folder}{', with the tuned model' if trained else ''}"
            f"{f', except its {EVALUATION}' if keeps else ''}"
        )
        items.append(_Item(name, partial(_delete_folder, folder, keep_evaluation=keeps)))
    kept = _comparisons(record.id) if reports else []
    items += [_Item(f"the comparison {each.name}", partial(shutil.rmtree, each)) for each in kept]
    return items


def _comparisons(run_id: str) -> list[Path]:
    """Return the folders of the comparisons in the history that are about a run."""
    mark = f'\n  "run": {json.dumps(run_id)},'  # not that of a contender, which stands deeper
    verdicts = sorted((artifacts() / COMPARISONS).glob("*/verdict.json"))
    return [file.parent for file in verdicts if mark in file.read_text("utf-8", "replace")]


def _model(ledger: Ledger, record: RunRecord) -> Iterator[_Item]:
    model = record.model
    if model is None or _is_in_folder(ledger, record, model.name):
        return
    if any(other.model == model for other in ledger.records() if other.id != record.id):
        return
    at_vendor = partial(_at_vendor, record, lambda backend: backend.delete_model(model))
    yield _Item(f"the model {model.name} at {record.backend}", at_vendor)


def _uploads(ledger: Ledger, record: RunRecord) -> Iterator[_Item]:
    for ref in sorted({upload.ref for upload in ledger.uploads(record.id).values()}):
        used = set(ledger.runs_with_upload(ref)) - {record.id}
        if not used and not _is_in_folder(ledger, record, ref):
            name = f"the file {ref} at {record.backend}"
            yield _Item(name, partial(_delete_upload, ledger, record, ref))


def _delete_upload(ledger: Ledger, record: RunRecord, ref: str) -> None:
    for other in ledger.records():
        beginning = other.state in (State.PLANNED, State.UPLOADING) and other.id != record.id
        if beginning and other.backend == record.backend:
            # Uploads are found by hash, so the other run may just have found this one.
            raise UserError(
                f"run {other.id} is being launched and may use it. Continue it with `unitune "
                f"runs resume {other.id}`, or cancel it."
            )
    _at_vendor(record, lambda backend: backend.delete_file(ref))


def _at_vendor(record: RunRecord, delete: Callable[[Deletes], None]) -> None:
    backend = registry.backend(record.backend)
    if not isinstance(backend, Deletes):
        raise Unsupported("unitune cannot delete it. Delete it in the vendor's console.")
    retry_rate_limited(partial(delete, backend), RATE_LIMIT_SECONDS)


def _delete_folder(folder: Path, *, keep_evaluation: bool) -> None:
    if not keep_evaluation:
        shutil.rmtree(folder)
        return
    for entry in folder.iterdir():
        if entry.name != EVALUATION:
            is_folder = entry.is_dir() and not entry.is_symlink()
            shutil.rmtree(entry) if is_folder else entry.unlink()


def _is_in_folder(ledger: Ledger, record: RunRecord, name: str) -> bool:
    return Path(name).resolve().is_relative_to(ledger.run_folder(record.id).resolve())
