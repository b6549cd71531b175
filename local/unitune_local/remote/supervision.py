"""Start a training on another machine again until it has ended or makes no progress."""

from __future__ import annotations

from collections.abc import Callable

from unitune_local.job_folder import Result
from unitune_local.remote.folder import RemoteFolder
from unitune_local.remote.launch import RemoteLaunch
from unitune_local.remote.storage import Storage


def supervise(launch: RemoteLaunch, start: Callable[[int], str]) -> int:
    """Start a training until it has ended, and return the exit status: 0 if it has a model.

    Failures are counted since the last checkpoint, as a long training may lose more nodes in all.

    Args:
        launch: The launch whose result the training writes into the storage.
        start: Starts the training for the given time (1, 2, …) and waits. Returns why it was lost,
            or an empty text if it ended.
    """
    lost = _started(launch, start)
    with RemoteFolder(launch) as folder:
        folder.fetch()
        if folder.local.result() is None:
            times = launch.options.max_failures + 1
            reason = f"it failed {times} times without a new checkpoint; the last error: {lost}"
            folder.finish(Result(state="failed", error=reason))
        result = folder.local.result()
    return 0 if result is not None and result.state == "succeeded" else 1


def _started(launch: RemoteLaunch, start: Callable[[int], str]) -> str:
    there, failures, saved, number = Storage(launch.storage), 0, set[str](), 0
    while True:
        number += 1
        if not (lost := start(number)):
            return ""
        before, saved = saved, there.names(f"jobs/{launch.key}/checkpoints")
        failures = failures + 1 if saved == before else 1
        if failures > launch.options.max_failures:
            return lost
