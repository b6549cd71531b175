"""A vendor's own price of a training, as a second opinion beside ours.

It is asked for with the very files that a launch would use, so they are handed over first, under
the name of their hash: a launch finds them there. This lets rows leave the machine, so it is never
called but on request.
"""

from __future__ import annotations

import hashlib
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

from unitune.backends import registry
from unitune.backends.capabilities import Quotes
from unitune.backends.conversion import wire_text
from unitune.backends.protocol import Launch, Upload
from unitune.data.split import load_splits
from unitune.errors import Unsupported
from unitune.job.job import Job
from unitune.planning.feasibility import on_its_own_name

KEY = "unitune-quote"
"""In the place of a launch key; nothing is created under it."""


def quote(job: Job) -> Decimal:
    """Return what a vendor says that a training would cost, in US dollars.

    Args:
        job: What to tune and how.

    Raises:
        Unsupported: The vendor gives no price of its own.
        MissingExtra: The backend's packages are not installed.
        BackendError: It refused the files, or did not answer.
    """
    job = on_its_own_name(job, registry.offer(job.backend))
    backend = registry.backend(job.backend)
    if not isinstance(backend, Quotes):
        raise Unsupported(f"{job.backend} gives no price of its own before a launch.")
    splits = load_splits(job)
    parts = {"train.jsonl": splits.train, "validation.jsonl": splits.validation}
    with TemporaryDirectory() as place:
        folder, uploads = Path(place), dict[str, Upload]()
        for name, rows in parts.items():
            if len(rows):
                content = wire_text(job, rows).encode()
                (folder / name).write_bytes(content)
                sha256 = hashlib.sha256(content).hexdigest()
                uploads[name] = backend.upload(folder / name, sha256)
        launch = Launch(
            key=KEY,
            job=job,
            training=uploads["train.jsonl"],
            validation=uploads.get("validation.jsonl"),
            folder=folder,
        )
        return backend.quote(launch)
