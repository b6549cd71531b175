"""`Run.delete`: everything that a run left behind goes, or it is said what stays and why."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from pydantic import JsonValue
from support.records import a_deployment, interrupted_in_its_upload

from unitune.backends import registry
from unitune.backends.protocol import State
from unitune.errors import BackendError, Unsupported, UserError
from unitune.ledger import Ledger
from unitune.models import TunedModel
from unitune.run import deleting
from unitune.run.run import launch, runs
from unitune.testing import FakeBackend
from unitune.workspace.home import home

from .conftest import MakeJob


@dataclass
class Vendor(FakeBackend):
    """The fake, with models and files that can be deleted.

    Args:
        refuses: What it raises instead, once for each deletion.
        deleted: Names of files and models, in order.
    """

    refuses: list[Exception] = field(default_factory=list[Exception])
    deleted: list[str] = field(default_factory=list[str])

    def delete_file(self, ref: str) -> None:
        if self.refuses:
            raise self.refuses.pop(0)
        Path(ref).unlink(missing_ok=True)
        self.deleted.append(ref)

    def delete_model(self, model: TunedModel) -> None:
        if self.refuses:
            raise self.refuses.pop(0)
        shutil.rmtree(model.name, ignore_errors=True)
        self.deleted.append(model.name)


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch, store: str) -> Vendor:
    del store
    made = Vendor()
    monkeypatch.setattr(registry, "backend", lambda _: made)
    return made


@pytest.fixture
def ledger(vendor: Vendor) -> Ledger:
    del vendor
    return Ledger(home())


def uploads(workplace: Path) -> list[Path]:
    return sorted((workplace / "vendor" / "uploads").glob("*"))


def test_model_files_folder_and_rows_are_deleted(
    workplace: Path, make_job: MakeJob, vendor: Vendor, ledger: Ledger
) -> None:
    run = launch(make_job({})).wait(0.001)
    files = [str(file) for file in uploads(workplace)]
    assert len(files) == 2
    assert run.delete() == []
    assert vendor.deleted == [run.job_id, *files]
    assert not run.folder.exists()
    assert runs() == []
    assert ledger.events(run.id, 1) == []


@pytest.mark.parametrize("script", [{"fail_at_step": 1}, {"submits": ["refuse"]}])
def test_a_run_without_a_model_is_deleted_too(
    make_job: MakeJob, vendor: Vendor, script: dict[str, JsonValue]
) -> None:
    with pytest.raises(BackendError):
        launch(make_job(script)).wait(0.001)
    (run,) = runs()
    assert State.FAILED is run.state
    assert run.delete() == []
    assert len(vendor.deleted) == 2
    assert runs() == []


def test_what_would_be_deleted_is_said_beforehand_and_reports_stay(
    workplace: Path, make_job: MakeJob, vendor: Vendor
) -> None:
    run = launch(make_job({})).wait(0.001)
    report = run.folder / "evaluation" / "report.html"
    report.parent.mkdir()
    report.write_text("verdict")
    (run.folder / "link").symlink_to(workplace)
    files = [f"the file {file} at fake" for file in uploads(workplace)]
    model = f"the model {run.job_id} at fake"
    ledger = "the run's record in the ledger"
    folder = f"the folder {run.folder}"
    assert run.inventory(reports=True) == [model, *files, folder, ledger]
    assert run.inventory() == [model, *files, f"{folder}, except its evaluation", ledger]
    assert vendor.deleted == []
    assert run.delete() == []
    assert list(run.folder.iterdir()) == [report.parent]
    assert report.read_text() == "verdict"
    assert workplace.exists()


def test_reports_go_when_that_is_asked_for(make_job: MakeJob, vendor: Vendor) -> None:
    del vendor
    run = launch(make_job({})).wait(0.001)
    (run.folder / "evaluation").mkdir()
    assert run.delete(reports=True) == []
    assert not run.folder.exists()


def test_files_that_another_run_uses_stay_until_it_is_deleted_too(
    workplace: Path, make_job: MakeJob, vendor: Vendor
) -> None:
    first = launch(make_job({})).wait(0.001)
    second = launch(make_job({"steps": 2})).wait(0.001)
    assert first.delete() == []
    assert vendor.deleted == [first.job_id]
    assert len(uploads(workplace)) == 2
    assert second.delete() == []
    assert uploads(workplace) == []


@pytest.mark.usefixtures("vendor")
def test_a_file_stays_while_a_launch_may_be_about_to_find_it(
    workplace: Path, make_job: MakeJob
) -> None:
    run = launch(make_job({})).wait(0.001)
    launching = interrupted_in_its_upload(make_job({"steps": 2}))
    first, second = run.delete()
    for sentence in (first, second):
        assert f"was not deleted: run {launching.id} is being launched and may use it" in sentence
    assert len(uploads(workplace)) == 2
    launching.cancel()
    assert run.delete() == []
    assert uploads(workplace) == []


def test_a_model_that_another_run_has_as_well_stays(
    make_job: MakeJob, vendor: Vendor, ledger: Ledger
) -> None:
    run = launch(make_job({})).wait(0.001)
    other = launch(make_job({"steps": 2})).wait(0.001)
    with ledger.acting(other.id) as record:
        ledger.write(replace(record, model=run.tuned_model))
    assert run.delete() == []
    assert vendor.deleted == []


def test_what_cannot_be_deleted_is_said_and_keeps_the_run_for_another_try(
    make_job: MakeJob, vendor: Vendor
) -> None:
    run = launch(make_job({})).wait(0.001)
    vendor.refuses = [BackendError("not allowed.", status=403), Unsupported("by hand only.")]
    model, file = run.delete()
    assert model == f"the model {run.job_id} at fake was not deleted: not allowed."
    assert file.startswith("the file ")
    assert file.endswith(" at fake was not deleted: by hand only.")
    assert [left.id for left in runs()] == [run.id]
    assert run.delete() == []
    assert runs() == []


def test_a_forced_delete_forgets_the_run_and_says_what_stays(
    make_job: MakeJob, vendor: Vendor
) -> None:
    run = launch(make_job({})).wait(0.001)
    vendor.refuses = [BackendError("not allowed.", status=403)]
    assert run.delete(force=True) == [
        f"the model {run.job_id} at fake was not deleted: not allowed."
    ]
    assert runs() == []


def test_a_backend_that_cannot_delete_leaves_it_to_the_user(store: str, make_job: MakeJob) -> None:
    del store
    run = launch(make_job({})).wait(0.001)
    left = run.delete()
    assert len(left) == 3
    for sentence in left:
        assert "unitune cannot delete it. Delete it in the vendor's console." in sentence
    assert not run.folder.exists()
    assert [kept.id for kept in runs()] == [run.id]


def test_a_vendor_that_is_asked_too_often_is_waited_for(
    make_job: MakeJob, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    run = launch(make_job({})).wait(0.001)
    vendor.refuses = [BackendError("too often.", status=429, retry_after=7)]
    monkeypatch.setattr("unitune.backends.retry.sleep", slept.append)
    assert run.delete() == []
    assert slept == [7]


def test_a_folder_that_cannot_be_deleted_is_said(
    make_job: MakeJob, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    del vendor
    run = launch(make_job({})).wait(0.001)

    def refuse(_: Path) -> None:
        raise PermissionError("read-only file system")

    with monkeypatch.context() as broken:
        broken.setattr(deleting.shutil, "rmtree", refuse)
        broken.setattr(Vendor, "delete_model", lambda *_: None)
        assert run.delete() == [f"the folder {run.folder} was not deleted: read-only file system."]
    assert run.delete() == []


def test_files_on_another_machine_are_named(
    make_job: MakeJob, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    del vendor
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("socket.gethostname", lambda: "elsewhere")
        run = launch(make_job({})).wait(0.001)
    shutil.rmtree(run.folder)
    (left,) = run.delete()
    assert "the run's files are on the machine 'elsewhere'" in left
    assert f"delete runs/{run.id} in its .unitune folder there" in left


@pytest.mark.parametrize("script", [{"steps": 99}, {"pause_at_step": 1}])
def test_a_run_that_has_not_ended_is_not_deleted(
    make_job: MakeJob, vendor: Vendor, script: dict[str, JsonValue]
) -> None:
    run = launch(make_job(script))
    with pytest.raises(UserError, match=rf"before it has ended.*unitune runs cancel {run.id}"):
        run.delete(force=True)
    assert vendor.deleted == []
    assert [left.id for left in runs()] == [run.id]


def test_a_run_is_not_deleted_while_a_deployment_of_it_stands(
    make_job: MakeJob, vendor: Vendor, ledger: Ledger
) -> None:
    run = launch(make_job({})).wait(0.001)
    deployment = a_deployment(run_id=run.id)
    ledger.add_deployment(deployment, lambda _: None)
    with pytest.raises(UserError, match=rf"unitune deployments down {deployment.id}"):
        run.delete(force=True)
    assert vendor.deleted == []
    ledger.write_deployment(replace(deployment, state="gone", ended=time.time()))
    assert run.delete() == []
    assert [kept.run_id for kept in ledger.deployments()] == [None]
