"""One worker's part of a training on a Ray cluster: from a launch to an adapter in the storage."""

from __future__ import annotations

import os
import platform
import traceback
from pathlib import Path

from unitune.errors import UnituneError
from unitune_local import store
from unitune_local.job_folder import Result
from unitune_local.ray.launch import RayLaunch
from unitune_local.ray.remote_folder import RemoteFolder, SentLog
from unitune_local.settings import DataFile, Spec
from unitune_local.training import prepare, run_training

PASSING = (RuntimeError, OSError)
"""What torch raises when another worker is lost, and what a disk or a network does."""


def run(launch: RayLaunch) -> None:
    """Train from the newest checkpoint in the storage, and store how it ended.

    What is wrong with the job is its result. What may pass is raised: Ray starts workers anew.
    """
    with RemoteFolder(launch) as folder:
        folder.fetch()
        if folder.local.result() is not None:
            return  # a worker was lost after that
        log = SentLog(folder)
        where = f"worker started on {platform.node()}, process {os.getpid()}"
        log.write("message", {"text": where})
        try:
            _write_spec(launch, folder)
            model = run_training(folder.local, log)
        except Exception as error:
            if isinstance(error, PASSING) or getattr(error, "is_retryable", False):
                raise
            traceback.print_exc()
            named = isinstance(error, UnituneError)
            reason = str(error) if named else f"{type(error).__name__}: {error}"
            folder.finish(Result(state="failed", error=reason))
        else:
            folder.finish(Result(state="succeeded", model=model))


def _write_spec(launch: RayLaunch, folder: RemoteFolder) -> None:
    """Write the spec for this node; settings stay those of the node that was the first."""
    for file in filter(None, (launch.training, launch.validation)):
        folder.storage.fetch(file.ref, folder.files / file.ref)
    local = launch.local(folder.files)
    if folder.local.spec.exists():
        spec = Spec.model_validate_json(folder.local.spec.read_text(encoding="utf-8"))
    else:
        spec = prepare(local)
    files = {"training": local.training, "validation": local.validation}
    here = {
        name: file and DataFile(path=Path(file.ref), sha256=file.sha256)
        for name, file in files.items()
    }
    spec = spec.model_copy(update={"base_path": store.resolve(spec.base), **here})
    folder.local.spec.write_text(spec.model_dump_json(indent=2), encoding="utf-8")
    folder.send(folder.local.spec)
