"""A training on this machine that a client has started keeps to the client's ledger."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra `local`")

from support.served import wait_until
from support.tiny_model import save_tiny_model, write_rows
from support.warm import WARM_SUBPROCESS

import unitune
from unitune import Client, Data, Job, Tuning
from unitune.errors import WaitTimeout
from unitune.workspace import user_config
from unitune.workspace.user_config import Notify, UserConfig
from unitune_local.training import worker

REPORT = """
import os, sys
told = os.environ["UNITUNE_DIR"], os.environ["UNITUNE_RUN"], os.environ["UNITUNE_STATE"]
open(sys.argv[1], "a").write(" ".join(told))
"""
PATIENCE_SECONDS = 120


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNITUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(worker, "subprocess", WARM_SUBPROCESS)


def job_of(folder: Path, epochs: int) -> Job:
    write_rows(folder / "train.jsonl", 40)
    return Job(
        name="local",
        model=str(save_tiny_model(folder / "tiny")),
        backend="local",
        data=Data(train="train.jsonl"),
        tuning=Tuning(epochs=epochs, batch_size=8),
        options={"local": {"threads": 1, "dtype": "float32"}},
        folder=folder,
    )


def test_the_processes_of_a_training_know_the_clients_ledger(tmp_path: Path) -> None:
    """Only they are left to see the end, which they record and report."""
    reports = tmp_path / "reports"
    command = (sys.executable, "-c", REPORT, str(reports))
    user_config.write(UserConfig(notify=Notify(command=command)))
    client = Client(home="own", keys={"openai": "sk-secret-0123456789"})
    run = client.launch(job_of(tmp_path, 1))
    wait_until(reports.exists, PATIENCE_SECONDS)
    wait_until(lambda: bool(reports.read_text("utf-8")), PATIENCE_SECONDS)
    assert reports.read_text("utf-8") == f"{tmp_path / 'own'} {run.id} succeeded"
    assert run.wait(0.05).model.ask("?") is not None
    run.model.close()
    assert run.folder.is_relative_to(tmp_path / "own")
    assert unitune.runs(everywhere=True) == []


def test_a_training_continues_after_a_wait_that_ends_early(tmp_path: Path) -> None:
    run = Client(home="own").launch(job_of(tmp_path, 100_000))
    with pytest.raises(WaitTimeout):
        run.wait(0.05, timeout=0.1)
    wait_until(
        lambda: any(event.kind == "step" for event in run.refresh().events()), PATIENCE_SECONDS
    )
    run.cancel()
    assert run.wait(0.05).state is unitune.types.State.CANCELLED
