"""A worker that dies while it starts is an error, unless it had begun and can be resumed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unitune.errors import BackendError
from unitune_local.job_folder import JobFolder, read_events
from unitune_local.training import worker

pytestmark = pytest.mark.heavy  # kills processes

DIES = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
BEGINS = """
import sys
from pathlib import Path

from unitune.workspace.own_files import locked
from unitune_local.job_folder import EventLog, JobFolder

folder = JobFolder(Path(sys.argv[1]))
with locked(folder.lock, "training", 5):
    EventLog(folder.events).write("message", {"text": "worker started"})
"""


def start(folder: Path, module: str) -> JobFolder:
    (folder / "a_worker.py").write_text(module, encoding="utf-8")
    job = JobFolder(folder)
    worker.start_process(job, "a_worker", {**os.environ, "PYTHONPATH": str(folder)})
    return job


def test_a_worker_killed_before_it_begins_is_an_error_with_its_status(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"failed to start: it ended with status -9\. See "):
        start(tmp_path, DIES)


def test_a_worker_killed_after_it_began_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LOOK_SECONDS", 5.0)  # it begins and dies between two looks
    for started in (1, 2):
        job = start(tmp_path, BEGINS + DIES)
        assert len(read_events(job.events, "").events) == started
