"""What becomes of a training whose other processes end; none of them trains here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event

import pytest

from unitune_local.job_folder import EventLog, JobFolder, Result, read_events
from unitune_local.parallel import processes
from unitune_local.parallel.processes import Rescue

PATIENCE_SECONDS = 60
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(__import__("os").getpid())])
print(child.pid, flush=True)
child.wait()
"""
CHILD = """
import sys, time
from unitune_local.parallel.processes import end_with
end_with(int(sys.argv[1]))
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return JobFolder(tmp_path)


def start(folder: JobFolder, script: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Start a process that runs a script as the second of two, and return how it was lost."""
    told, ended = list[str](), Event()

    def lost(what: str) -> None:
        told.append(what)
        ended.set()

    monkeypatch.setattr(processes, "COMMAND", (sys.executable, "-c", script))
    processes.start_ranks(folder, 2, lost)
    assert ended.wait(PATIENCE_SECONDS)
    return told[0]


def test_a_process_that_was_killed_is_named(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import os; os.kill(os.getpid(), 9)"
    text = "process 2 of 2 was killed by signal 9, perhaps out of memory"
    assert text == start(folder, script, monkeypatch)


def test_a_process_that_failed_says_why(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys; print('starting'); sys.exit('OutOfMemoryError: 2 GiB wanted')"
    log = folder.path / "rank-1.log"
    text = f"process 2 of 2 failed: OutOfMemoryError: 2 GiB wanted See {log}."
    assert text == start(folder, script, monkeypatch)


def test_a_lost_process_ends_the_worker_which_saves_its_last_step(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []
    saved: list[str] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    ending = Rescue(folder, EventLog(folder.events))
    ending.ready(lambda: saved.append("the last whole step"))
    ending.end("process 2 of 2 is gone")
    assert folder.result() is None
    assert folder.interrupted_by() == "process 2 of 2 is gone"
    told = [event.data["text"] for event in read_events(folder.events, "").events]
    assert told == ["interrupted: process 2 of 2 is gone"]
    assert saved == ["the last whole step"]
    assert codes == [1]


def test_a_training_that_was_to_be_cancelled_is_cancelled_by_an_interruption(
    folder: JobFolder,
) -> None:
    folder.cancel.touch()
    Rescue(folder, EventLog(folder.events)).interrupt("the worker was asked to end")
    assert Result(state="cancelled") == folder.result()


def test_a_worker_that_cannot_save_says_why_it_ends(folder: JobFolder) -> None:
    def full() -> None:
        raise OSError("no space left")

    ending = Rescue(folder, EventLog(folder.events))
    ending.ready(full)
    ending.interrupt("no space left")
    assert folder.interrupted_by() == "no space left"


def test_a_process_ends_when_its_parent_was_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    assert parent.returncode == -signal.SIGKILL
    end = time.monotonic() + PATIENCE_SECONDS
    while is_running(child):
        assert time.monotonic() < end, "it is left behind"
        time.sleep(0.05)


def is_running(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text(encoding="utf-8").split()[2]
    except FileNotFoundError:
        return False
