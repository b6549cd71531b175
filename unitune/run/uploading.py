"""Uploading a run's rows to its backend, each file once, whichever process and attempt does it.

Files are known by their hash: what the ledger has as uploaded, or the backend has from another run,
is not uploaded again.
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
RATE_LIMIT_SECONDS = 120.0
"""How long an upload is repeated while it is refused for its rate."""


def files_to_upload(ledger: Ledger, record: RunRecord) -> list[Path]:
    """Return a run's files that are here; none when all were uploaded, wherever they are.

    Raises:
        UserError: They still have to be uploaded, and are on another machine or gone.
    """
    folder = ledger.run_folder(record.id)
    folder = folder / WIRE if (folder / WIRE).exists() else folder
    training, validation = folder / "train.jsonl", folder / "validation.jsonl"
    if training.exists():
        return [file for file in (training, validation) if file.exists()]
    if any(seen.state is State.SUBMITTING for seen in ledger.transitions(record.id)):
        return []  # a create call was announced, in whichever attempt, so all were uploaded
    raise _missing(ledger, record)


def upload(ledger: Ledger, record: RunRecord, files: Sequence[Path]) -> None:
    """Upload files, except those that the ledger knows to be there."""
    backend = registry.backend(record.backend)
    known = ledger.uploads(record.id)
    for path in files:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        if path.name not in known or known[path.name].sha256 != sha256:
            send = partial(backend.upload, path, sha256)
            uploaded = retry_rate_limited(send, RATE_LIMIT_SECONDS)
            ledger.add_upload(record, path.name, replace(uploaded, sha256=sha256))


def _missing(ledger: Ledger, record: RunRecord) -> UserError:
    """Say where the files are, or that they are gone."""
    if record.host not in ("", socket.gethostname()):
        return UserError(
            f"run {record.id} cannot go on here: it still has to upload its files, which are "
            f"on the machine {record.host!r}. Go on there with `unitune resume {record.id}`, or "
            f"end it with `unitune cancel {record.id}` and launch the job file again."
        )
    return UserError(
        f"run {record.id} cannot go on, because it still has to upload its rows and "
        f"{ledger.run_folder(record.id)} has no train.jsonl any more. End it with `unitune cancel "
        f"{record.id}` and launch the job file again."
    )
