"""A vendor's own price of a training, as a second opinion beside ours.

It is computed from the very files that a launch would use, so they are uploaded first, under the
name of their hash: a launch finds them there. Rows leave the machine, so this runs only on request.
"""

from __future__ import annotations

import hashlib
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

from unitune.backends.capabilities import Quotes
from unitune.backends.conversion import wire_text
from unitune.backends.protocol import Launch, Upload
from unitune.errors import Unsupported
from unitune.job.job import Job
from unitune.planning.preflight import ResolvedJob, preflight

KEY = "unitune-quote"
"""In place of a launch key; nothing is created under it."""


def quote(job: Job | ResolvedJob) -> Decimal:
    """Return a vendor's own price of a training, in US dollars.

    Raises:
        Unsupported: The vendor gives no price of its own.
        MissingExtra: The backend's packages are not installed.
        BackendError: It refused the files, or did not answer.
    """
    resolved = preflight(job)
    job, backend, splits = resolved.job, resolved.backend, resolved.splits
    if not isinstance(backend, Quotes):
        raise Unsupported(f"{job.backend} gives no price of its own before a launch.")
    parts = {"train.jsonl": splits.train, "validation.jsonl": splits.validation}
    with TemporaryDirectory() as temporary:
        folder, uploads = Path(temporary), dict[str, Upload]()
        for name, rows in parts.items():
            if len(rows):
                content = wire_text(job, rows).encode()
                (folder / name).write_bytes(content)
                sha256 = hashlib.sha256(content).hexdigest()
                uploads[name] = backend.upload(folder / name, sha256)
        training, validation = uploads["train.jsonl"], uploads.get("validation.jsonl")
        return backend.quote(Launch(KEY, job, training, validation, folder))
