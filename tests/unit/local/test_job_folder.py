from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.tuned_here import local_job

from unitune.backends.options import job_options
from unitune.errors import JobError
from unitune_local.job_folder import EventLog, JobFolder, Result, read_events
from unitune_local.options import LocalOptions
from unitune_local.training import worker


def test_events_are_read_from_cursor_to_cursor(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.write("step", {"step": 1, "loss": 0.5})
    first = read_events(tmp_path / "events.jsonl", "")
    log.write("message", {"text": "hello"})
    second = read_events(tmp_path / "events.jsonl", first.cursor)
    assert [event.key for event in first.events] == ["step-1"]
    assert [event.key for event in second.events] == ["message-1"]
    assert read_events(tmp_path / "events.jsonl", second.cursor).events == ()


def test_a_torn_last_line_is_not_read_and_is_healed(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventLog(path).write("step", {"step": 1, "loss": 0.5})
    with path.open("a", encoding="utf-8") as file:
        file.write('{"key": "step-2", "ki')
    torn = read_events(path, "")
    EventLog(path).write("step", {"step": 2, "loss": 0.25})
    assert [event.key for event in torn.events] == ["step-1"]
    assert [event.key for event in read_events(path, torn.cursor).events] == ["step-2"]


def test_a_step_done_again_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventLog(path).write("step", {"step": 1, "loss": 0.5})
    again = EventLog(path).write("step", {"step": 1, "loss": 0.75})
    assert again.data["loss"] == 0.5
    assert len(read_events(path, "").events) == 1


def test_a_result_comes_back_as_written(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    assert folder.result() is None
    folder.finish(Result(state="failed", error="no"))
    assert Result(state="failed", error="no") == folder.result()
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_polling_needs_no_torch() -> None:
    code = "import unitune_local.backend, sys; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_value_that_is_not_allowed_is_named() -> None:
    with pytest.raises(JobError, match=r"options\.local\.device is 'tpu'"):
        job_options(local_job(options={"device": "tpu"}), "local", LocalOptions)


@pytest.mark.parametrize(
    ("busy", "policy"), [(5.0, "active"), (50.0, "passive"), (100.0, "passive")]
)
def test_threads_spin_only_while_there_are_idle_cores_for_them(
    monkeypatch: pytest.MonkeyPatch, busy: float, policy: str
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: busy)  # noqa: ARG005 - its name
    assert policy == worker._wait_policy(2)
