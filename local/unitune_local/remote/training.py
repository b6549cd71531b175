"""Train as one worker on another machine, from a launch to an adapter in the storage.

The first worker writes a permanent error as the result. A transient error is raised, and all
workers are started again (`unitune_local.remote.worker`).
"""

from __future__ import annotations

import os
import platform
import traceback
from functools import partial
from pathlib import Path
from typing import Any

from unitune.errors import JobError, UnituneError
from unitune_local.job_folder import REFERENCE_FILE, Result, drop_note
from unitune_local.models import store
from unitune_local.parallel.processes import OutOfMemory, RankLost
from unitune_local.parallel.ranks import ALONE, Ranks
from unitune_local.remote.folder import RemoteFolder, SentLog
from unitune_local.remote.launch import VARIABLE, RemoteLaunch
from unitune_local.spec import DataFile, Spec
from unitune_local.training.run import finish, limited, note_in, prepare, train_rank

# Errors of a lost worker or GPU, or of a disk or network that does not respond
PASSING = (RankLost, RuntimeError, OSError)


def run(launch: RemoteLaunch, ranks: Ranks = ALONE) -> None:
    """Train from the newest checkpoint in the storage, and store the outcome."""
    with RemoteFolder(launch) as folder:
        folder.fetch()
        if folder.local.result() is not None:
            return  # a worker was lost after the end
        try:
            _train(launch, ranks, folder)
        except Exception as error:
            if isinstance(error, OutOfMemory) and error.limit is not None:
                folder.local.limit_micro_batches(error.limit)
                folder.send(folder.local.smaller_batches)
                folder.storage.remove(f"{folder.name}/checkpoints/{REFERENCE_FILE}")
                raise  # all workers are then started again
            if isinstance(error, PASSING) or getattr(error, "is_retryable", False):
                raise
            traceback.print_exc()
            if ranks.is_first:
                named = isinstance(error, UnituneError)
                reason = str(error) if named else f"{type(error).__name__}: {error}"
                folder.finish(Result(state="failed", error=reason))
            if ranks.size > 1:  # the others wait for this one until they are ended
                raise


def _train(launch: RemoteLaunch, ranks: Ranks, folder: RemoteFolder) -> None:
    note = drop_note
    if ranks.is_first:
        is_exact = folder.local.micro_batch_limit() is None
        note = partial(note_in, SentLog(folder), exact=is_exact)
    places = ranks.gather(f"{platform.node()} (process {os.getpid()})")
    note("message", {"text": f"training on {', '.join(places)}"})
    spec = _spec(launch, ranks, folder)
    trained = train_rank(spec, ranks, folder.local.checkpoints, note, lambda: False)
    if trained is not None and ranks.is_first:
        model = finish(trained, spec, folder.local.adapter, note)
        folder.finish(Result(state="succeeded", model=model))


def _spec(launch: RemoteLaunch, ranks: Ranks, folder: RemoteFolder) -> Spec:
    """Return the specification that the first start stored, with the paths of this node."""
    for file in filter(None, (launch.training, launch.validation, launch.start)):
        folder.storage.fetch(file.ref, folder.files / file.ref)
    local = launch.local(folder.files)

    def decided() -> str:
        if not folder.local.spec.exists():
            spec = prepare(local)
            if ranks.size > spec.settings.batch_size:
                raise JobError(
                    f"options.ray.processes is {ranks.size}, but a batch only has "
                    f"{spec.settings.batch_size} rows to share. Use at most that many processes."
                )
            settings = spec.settings.model_copy(update={"processes": ranks.size})
            spec = spec.model_copy(update={"settings": settings})
            if ranks.size == 1:
                _continue_attempt(launch.key, folder, spec)
            folder.local.spec.write_text(spec.model_dump_json(indent=2), encoding="utf-8")
            folder.send(folder.local.spec)
        return folder.local.spec.read_text(encoding="utf-8")

    spec = Spec.model_validate_json(ranks.first(decided))
    files = {"training": local.training, "validation": local.validation}
    here = {
        name: file and DataFile(path=Path(file.ref), sha256=file.sha256)
        for name, file in files.items()
    }
    start = None
    if spec.start is not None and local.start is not None:
        start = spec.start.model_copy(update={"path": Path(local.start.model.name)})
    base = store.resolve(spec.base)
    spec = spec.model_copy(update={"base_path": base, "start": start, **here})
    return limited(spec, folder.local)


def _continue_attempt(key: str, folder: RemoteFolder, spec: Spec) -> None:
    """Take over the checkpoints of the attempt before, such as one that met its time limit."""
    run, _, attempt = key.rpartition("-")
    if not attempt.isdecimal():
        return
    before = f"jobs/{run}-{int(attempt) - 1}"
    stored = folder.storage.read(f"{before}/spec.json")
    if stored and _comparable(Spec.model_validate_json(stored)) == _comparable(spec):
        folder.storage.fetch(f"{before}/checkpoints", folder.local.checkpoints)


def _comparable(spec: Spec) -> dict[str, Any]:
    """Return a specification without what differs between machines."""
    paths = {name: {"path"} for name in ("training", "validation", "start")}
    return spec.model_dump(exclude={"basis": True, "base_path": True, "folder": True, **paths})


if __name__ == "__main__":
    run(RemoteLaunch.model_validate_json(os.environ[VARIABLE]))
