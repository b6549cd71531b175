"""What commands say of a launch that was interrupted, is uncertain, or came to a second job."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import Command
from support.job_files import write_job, write_rows

from unitune.backends import registry
from unitune.backends.protocol import Guarantee, Launch
from unitune.errors import Unreachable
from unitune.job.job import Job
from unitune.run.run import Run, launch, runs
from unitune.testing import FakeBackend

MakeJob = Callable[..., Path]


@pytest.fixture
def make_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeJob:
    """Write a job for a vendor that is found again by its suffix alone, and shows jobs at once."""
    monkeypatch.setenv("UNITUNE_FAKE_DIR", str(tmp_path / "vendor"))
    monkeypatch.setattr(FakeBackend, "guarantee", Guarantee.SUFFIX_ONLY)
    offer = registry.offer("fake").model_copy(update={"settle_seconds": 0})
    monkeypatch.setattr(registry, "offer", lambda _: offer)

    def make(*submits: str) -> Path:
        for name in ("train", "validation"):
            write_rows(tmp_path / f"{name}.jsonl", [{"prompt": name, "completion": "a"}])
        data = {"train": "train.jsonl", "validation": "validation.jsonl"}
        return write_job(tmp_path, data=data, options={"fake": {"submits": submits}})

    return make


def the_run() -> Run:
    (run,) = runs()
    return run


@pytest.mark.parametrize("options", [["--detach"], ["--quiet"]])
def test_a_run_whose_launch_is_uncertain_exits_with_4_and_says_what_to_do(
    unitune: Command, make_job: MakeJob, options: list[str]
) -> None:
    outcome = unitune("run", str(make_job("lose request")), *options)

    assert outcome.code == 4
    assert ([the_run().id] if options == ["--detach"] else []) == outcome.out.split()
    assert f"unitune runs resume {the_run().id} --adopt ITS_ID" in outcome.err


def test_watching_an_interrupted_launch_says_that_resume_goes_on_with_it(
    unitune: Command, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> object:
        raise Unreachable("gone.")

    with monkeypatch.context() as broken:
        broken.setattr(FakeBackend, "upload", gone)
        with pytest.raises(Unreachable):
            launch(Job.load(make_job()))
    run = the_run()
    outcome = unitune("runs", "watch", run.id)

    assert outcome.code == 4
    assert "Its launch was interrupted (uploading), and no process is working on it" in outcome.err
    assert f"unitune runs resume {run.id}" in outcome.err
    assert unitune("runs", "resume", run.id, "--quiet").code == 0


def test_a_second_job_is_told_by_every_command_and_cancelled_by_its_id(
    unitune: Command, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FakeBackend.submit

    def delivered_twice(backend: FakeBackend, launch: Launch) -> str:
        real(backend, launch)
        return real(backend, launch)

    monkeypatch.setattr(FakeBackend, "submit", delivered_twice)
    started = unitune("run", str(make_job()), "--detach")
    run = the_run()
    (second,) = run.duplicates
    cancelling = f"unitune runs cancel {run.id} --job {second}"

    assert (0, run.id) == (started.code, started.out.strip())
    assert "".join(cancelling.split()) in "".join(started.err.split())
    shown = unitune("runs", "show", run.id).out
    assert cancelling.rsplit(maxsplit=1)[-1] in "".join(shown.split())
    assert json.loads(unitune("runs", "show", run.id, "--json").out)["duplicate_jobs"] == [second]
    assert f"{second} is cancelled" in unitune(
        "runs", "cancel", run.id, "--job", second
    ).out.replace("\n", "")
    assert FakeBackend().poll(second, "").raw == "cancelling"
    watched = unitune("runs", "watch", run.id, "--quiet").err
    assert "".join(cancelling.split()) in "".join(watched.split())


def test_a_job_that_is_not_the_runs_second_one_is_not_cancelled(
    unitune: Command, make_job: MakeJob
) -> None:
    unitune("run", str(make_job()), "--detach")
    own = str(the_run().job_id)

    assert unitune("runs", "cancel", the_run().id, "--job", own).code == 2
    assert unitune("runs", "cancel", the_run().id, "--job", "no-such-job").code == 2
    assert FakeBackend().poll(own, "").raw == "queued"
