"""The worker on a rented machine: claims, lost processes, and attempts that follow each other."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra `local`")
pytest.importorskip("fsspec", reason="needs the extra `hf-jobs`")

from unitune_local.remote import worker
from unitune_local.remote.launch import RemoteLaunch
from unitune_local.remote.storage import Storage

KEY = "r261201-000000000000-1"


@pytest.fixture
def launch(tmp_path: Path) -> RemoteLaunch:
    job = {
        "name": "rented",
        "model": str(tmp_path / "no-model"),
        "backend": "hf-jobs",
        "data": {"train": "train.jsonl"},
        "options": {"hf-jobs": {"max_failures": 2}},
    }
    (tmp_path / "rows.jsonl").write_text("", encoding="utf-8")
    file = {"ref": "rows.jsonl", "sha256": ""}
    given = {"storage": str(tmp_path), "job": job, "training": file, "validation": None}
    return RemoteLaunch.model_validate({"key": KEY, **given})


@pytest.fixture(autouse=True)
def _no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "CLAIM_SECONDS", 0.3)


def test_of_two_jobs_at_once_one_trains(launch: RemoteLaunch) -> None:
    claims = dict[str, str]()

    def claim(name: str) -> None:
        claims[name] = worker.first_claim(Storage(launch.storage), KEY, name)

    threads = [threading.Thread(target=claim, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(claims.values())) == 1
    (first,) = set(claims.values())
    assert worker.first_claim(Storage(launch.storage), KEY, "late") == first
    assert worker.first_claim(Storage(launch.storage), KEY, first) == first


def test_a_second_job_ends_before_it_trains(
    launch: RemoteLaunch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    worker.first_claim(Storage(launch.storage), KEY, "first")
    monkeypatch.setenv("JOB_ID", "second")

    def train(_: RemoteLaunch) -> str:
        pytest.fail("it trains")

    monkeypatch.setattr(worker, "train", train)
    assert worker.main(launch) == 0
    assert f"job first trains by the launch {KEY}" in capsys.readouterr().out


def test_a_lost_process_is_started_again_until_it_makes_no_progress(
    launch: RemoteLaunch, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = list[int]()

    def lost(_: RemoteLaunch) -> str:
        starts.append(1)
        return "CUDA error: the GPU has fallen off the bus"

    monkeypatch.setattr(worker, "train", lost)
    assert worker.main(launch) == 1
    assert len(starts) == 3
    result = json.loads(Storage(launch.storage).read(f"jobs/{KEY}/result.json"))
    assert result["state"] == "failed"
    assert "failed 3 times without a new checkpoint; the last error: CUDA error" in result["error"]


def test_the_last_line_of_a_process_is_why_it_was_lost(
    launch: RemoteLaunch, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import sys; print('torch.OutOfMemoryError: CUDA out of memory.\\n'); sys.exit(1)"
    real = subprocess.Popen

    def popen(command: list[str], **given: object) -> object:
        return real([command[0], "-c", program], **given)  # pyright: ignore[reportCallIssue, reportArgumentType]

    monkeypatch.setattr(subprocess, "Popen", popen)
    assert worker.train(launch) == "torch.OutOfMemoryError: CUDA out of memory."
