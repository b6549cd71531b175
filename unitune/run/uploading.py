"""Handing a run's rows over to its backend, each file once, whichever process and attempt does it.

Files are known by their hash: what the ledger has as handed over, or the backend has from another
run, is not handed over again.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from unitune.backends import registry
from unitune.backends.protocol import State
from unitune.backends.retry import retry_rate_limited
from unitune.errors import UserError
from unitune.ledger import Ledger, RunRecord

WIRE = "wire"
"""Folder within a run's for its rows in the backend's own format, where that is not canonical."""
PATIENCE_SECONDS = 120.0
"""How long an upload bears that the vendor is asked too often."""


def files_to_hand_over(ledger: Ledger, record: RunRecord) -> list[Path]:
    """Return a run's files that stand here; none when all were handed over, wherever they stand.

    Raises:
        UserError: They still have to be handed over, and stand on another machine or are gone.
    """
    folder = ledger.run_folder(record.id)
    folder = folder / WIRE if (folder / WIRE).exists() else folder
    training, validation = folder / "train.jsonl", folder / "validation.jsonl"
    if training.exists():
        return [file for file in (training, validation) if file.exists()]
    if not _all_handed_over(ledger, record):
        raise _missing(ledger, record)
    return []


def hand_over(ledger: Ledger, record: RunRecord, files: Sequence[Path]) -> None:
    """Hand files over, except those that the ledger knows to be there."""
    backend = registry.backend(record.backend)
    known = ledger.uploads(record.id)
    for path in files:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        if path.name not in known or known[path.name].sha256 != sha256:
            upload = retry_rate_limited(partial(backend.upload, path, sha256), PATIENCE_SECONDS)
            ledger.add_upload(record, path.name, replace(upload, sha256=sha256))


def _all_handed_over(ledger: Ledger, record: RunRecord) -> bool:
    """Return whether a create call of the run was announced, in whichever attempt."""
    return any(seen.state is State.SUBMITTING for seen in ledger.transitions(record.id))


def _missing(ledger: Ledger, record: RunRecord) -> UserError:
    """Say where the files are, or that they are gone."""
    if record.host not in ("", socket.gethostname()):
        return UserError(
            f"run {record.id} cannot go on here: it still has to hand over its files, which stand "
            f"on the machine {record.host!r}. Go on there with `unitune resume {record.id}`, or "
            f"end it with `unitune cancel {record.id}` and launch the job file again."
        )
    return UserError(
        f"run {record.id} cannot go on, because it still has to hand over its rows and "
        f"{ledger.run_folder(record.id)} has no train.jsonl any more. End it with `unitune cancel "
        f"{record.id}` and launch the job file again."
    )
