"""Check what happens to local trainings whose project is deleted or moved."""

from __future__ import annotations

import json
from http import HTTPStatus
from pathlib import Path

import pytest

from unitune.backends.exactly_once import run_id
from unitune.backends.protocol import State
from unitune.errors import BackendError, DuplicateRunError
from unitune.ledger import Ledger, RunRecord
from unitune.ledger.finding import find_record
from unitune.models import TunedModel
from unitune.workspace.home import artifacts, home
from unitune_local.backend import LocalBackend


def test_a_training_whose_folder_is_gone_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="it was deleted or moved with its project") as raised:
        LocalBackend().poll(str(tmp_path / "runs" / "r1" / "r1-1"), "")
    assert raised.value.status == HTTPStatus.GONE


def test_a_moved_project_has_its_trainings_and_models_at_their_new_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNITUNE_DIR", raising=False)
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    id_ = run_id(1_800_000_000.0)
    job = artifacts() / "runs" / id_ / f"{id_}-1"
    model = TunedModel(backend="local", name=str(job / "adapter"), base="tiny")
    record = RunRecord(
        *(id_, "demo", "local", "tiny", "sft", "f" * 64, 1.0, 1.0, State.SUCCEEDED),
        job_id=str(job),
        model=model,
    )
    Ledger(home()).add(record)
    job.mkdir(parents=True)
    result = {"state": "succeeded", "model": model.model_dump(mode="json")}
    (job / "result.json").write_text(json.dumps(result), encoding="utf-8")
    (job / "spec.json").touch()

    project.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    found = find_record(Ledger(home()), id_)

    moved = tmp_path / "moved" / ".unitune" / "runs" / id_ / f"{id_}-1"
    assert found.job_id == str(moved)
    assert found.model is not None
    assert found.model.name == str(moved / "adapter")
    assert LocalBackend().poll(str(moved), "").state is State.SUCCEEDED


def test_a_training_that_was_deleted_can_be_launched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    job = tmp_path / "job"
    job.mkdir()
    records = [
        RunRecord(
            *(run_id(1_800_000_000.0 + at), "demo", "local", "tiny", "sft", "f" * 64, 1.0, 1.0),
            state=State.SUCCEEDED,
            job_id=str(job),
        )
        for at in range(2)
    ]
    Ledger(home()).add(records[0])
    with pytest.raises(DuplicateRunError):
        Ledger(home()).add(records[1])
    job.rmdir()
    Ledger(home()).add(records[1])


def test_a_job_folder_that_came_along_is_never_polled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock, process id and result belong to somebody else."""
    monkeypatch.delenv("UNITUNE_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    id_ = run_id(1_800_000_000.0)
    job = tmp_path / ".unitune" / "runs" / id_ / f"{id_}-1"
    job.mkdir(parents=True)
    (job / "spec.json").touch()
    (job / "rendezvous-1").touch()
    (tmp_path / ".unitune" / "project").write_text("0" * 32, encoding="utf-8")

    def unexpected(*_: object) -> None:
        pytest.fail("the folder was used")

    for verb in ("poll", "cancel", "pause", "resume", "find"):
        monkeypatch.setattr(LocalBackend, verb, unexpected)
    ledger = Ledger(home())
    assert ledger.newest(None) == ledger.newest(None, everywhere=True) == []
    assert ledger.standings() == []
    assert ledger.run_ids() == []
