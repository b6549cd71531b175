"""What becomes of a launch, for each guarantee of a vendor and each way a create call can go."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from crash.killing import jobs_at_the_vendor
from support.records import interrupted_in_its_upload

from unitune.backends.capabilities import JobDescription
from unitune.backends.protocol import Guarantee, State
from unitune.errors import BackendError, Unreachable, UserError
from unitune.job.job import Job
from unitune.run.run import Run, find_run, launch, runs
from unitune.run.watching import watch_all
from unitune.testing import FakeBackend

from .conftest import Clock, MakeJob

ALL = tuple(Guarantee)
REPEATABLE = (Guarantee.OWN_ID, Guarantee.TOKEN)


def launched(job: Job, guarantee: Guarantee, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(FakeBackend, "guarantee", guarantee)
    return launch(job)


def states_of(run: Run) -> list[State]:
    return [transition.state for transition in run.transitions()]


@pytest.mark.parametrize("guarantee", ALL)
@pytest.mark.parametrize("fault", ["none", "lose answer", "server error"])
def test_a_create_call_that_took_effect_is_adopted(
    workplace: Path,
    make_job: MakeJob,
    monkeypatch: pytest.MonkeyPatch,
    guarantee: Guarantee,
    fault: str,
) -> None:
    run = launched(make_job({"submits": [fault]}), guarantee, monkeypatch)
    assert states_of(run) == [State.PLANNED, State.UPLOADING, State.SUBMITTING, State.QUEUED]
    assert jobs_at_the_vendor(workplace) == [run.job_id]


@pytest.mark.parametrize("guarantee", REPEATABLE)
def test_a_lost_request_is_sent_again_where_that_is_safe(
    workplace: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, guarantee: Guarantee
) -> None:
    run = launched(make_job({"submits": ["lose request"]}), guarantee, monkeypatch)
    assert State.QUEUED is run.state
    assert jobs_at_the_vendor(workplace) == [run.job_id]


@pytest.fixture
def lost(make_job: MakeJob, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose create call got lost where sending it again could make two jobs."""
    del clock
    return launched(make_job({"submits": ["lose request"]}), Guarantee.SUFFIX_ONLY, monkeypatch)


def test_a_lost_request_leaves_an_uncertain_run_where_sending_again_could_make_two_jobs(
    workplace: Path, lost: Run
) -> None:
    run = lost
    assert State.UNCERTAIN is run.state
    assert jobs_at_the_vendor(workplace) == []
    assert State.UNCERTAIN is run.refresh().state
    assert [event.kind for event in run.watch()] == ["message"] * 2
    with pytest.raises(UserError, match="--adopt ITS_ID"):
        run.resume()
    with pytest.raises(UserError, match="cannot be cancelled yet"):
        run.cancel()
    assert State.UNCERTAIN is run.state


def test_resubmitting_an_uncertain_run_makes_its_one_job_under_the_next_key(
    workplace: Path, lost: Run
) -> None:
    run = lost.resume(resubmit=True)
    assert (State.QUEUED, f"{run.id}-2", None) == (run.state, run.launch_key, run.error)
    assert jobs_at_the_vendor(workplace) == [run.job_id]


@pytest.mark.usefixtures("clock")
def test_adopting_takes_a_job_that_the_backend_knows_and_no_other(
    workplace: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as hidden:
        hidden.setattr(FakeBackend, "find", lambda *_: [])
        lost = launched(make_job({"submits": ["lose answer"]}), Guarantee.SUFFIX_ONLY, hidden)
        (job,) = jobs_at_the_vendor(workplace)
        with pytest.raises(BackendError, match="no-such-job"):
            lost.resume(adopt="no-such-job")
        assert State.UNCERTAIN is lost.state
        lost.resume(adopt=job)
    assert (State.QUEUED, job, None) == (lost.state, lost.job_id, lost.error)


def test_a_job_of_another_run_is_not_adopted(make_job: MakeJob, lost: Run) -> None:
    other = launch(make_job({"steps": 2}))
    with pytest.raises(UserError, match=f"it is the job of run {other.id}.*--resubmit"):
        lost.resume(adopt=other.job_id)
    assert State.UNCERTAIN is lost.state
    other.cancel().wait(0.001)
    other.delete(force=True)
    with pytest.raises(UserError, match=f"carries the key '{other.launch_key}' of another run"):
        lost.resume(adopt=other.job_id)


@pytest.mark.parametrize(
    ("described", "reason"),
    [
        (
            JobDescription("by hand", "elsewhere/large"),
            "it trains 'elsewhere/large', but the run trains",
        ),
        (
            JobDescription(None, "tiny", "file-1"),
            "its training file is 'file-1', but the run's is '",
        ),
    ],
)
def test_a_job_that_trains_something_else_is_not_adopted(
    lost: Run, monkeypatch: pytest.MonkeyPatch, described: JobDescription, reason: str
) -> None:
    monkeypatch.setattr(FakeBackend, "describe_job", lambda *_: described)
    with pytest.raises(UserError, match=reason):
        lost.resume(adopt="job-1")
    assert State.UNCERTAIN is lost.state


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("act", ["refresh", "resume", "resubmit", "watch", "cancel", "watch_all"])
def test_an_uncertain_run_adopts_its_job_as_soon_as_the_list_shows_it(
    workplace: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    monkeypatch.setattr(FakeBackend, "guarantee", Guarantee.SUFFIX_ONLY)
    with monkeypatch.context() as late:
        late.setattr(FakeBackend, "find", lambda *_: [])
        run = launch(make_job({"submits": ["lose answer"]}))
        assert State.UNCERTAIN is run.refresh().state
    match act:
        case "refresh":
            run.refresh()
        case "resume":
            run.resume()
        case "resubmit":
            run.resume(resubmit=True)
        case "watch":
            list(run.watch(0.001))
        case "cancel":
            run.cancel()
        case _:
            list(watch_all(0.001))
    assert jobs_at_the_vendor(workplace) == [run.job_id or find_run(run.id).job_id]
    assert find_run(run.id).error is None


def test_adopt_and_resubmit_are_refused_for_a_run_that_is_not_uncertain(make_job: MakeJob) -> None:
    run = launch(make_job({"states": ["queued"] * 9}))
    with pytest.raises(UserError, match="only for uncertain runs"):
        run.resume(resubmit=True)
    with pytest.raises(UserError, match="only for uncertain runs"):
        run.resume(adopt="x")


@pytest.mark.parametrize("guarantee", ALL)
def test_a_refusal_fails_the_run_and_is_told(
    workplace: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, guarantee: Guarantee
) -> None:
    with pytest.raises(BackendError, match="refuses"):
        launched(make_job({"submits": ["refuse"]}), guarantee, monkeypatch)
    (run,) = runs()
    assert (run.state, run.error) == (State.FAILED, "the fake refuses this job.")
    assert jobs_at_the_vendor(workplace) == []


def test_options_that_the_backend_does_not_know_fail_the_run(make_job: MakeJob) -> None:
    with pytest.raises(UserError, match="stepps"):
        launch(make_job({"stepps": 3}))
    assert State.FAILED is runs()[0].state


def test_a_backend_that_stays_away_leaves_a_run_that_resume_finishes(
    workplace: Path, make_job: MakeJob
) -> None:
    with pytest.raises(Unreachable, match="unitune runs resume r"):
        launch(make_job({"submits": ["lose request", "lose request"]}))
    (run,) = runs()
    assert State.SUBMITTING is run.state
    assert run.interrupted
    run.resume()
    assert State.QUEUED is run.state
    assert jobs_at_the_vendor(workplace) == [run.job_id]


def test_an_upload_without_an_answer_is_repeated_by_resume(
    workplace: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    real = FakeBackend.upload

    def falls_silent_once(backend: FakeBackend, path: Path, sha256: str) -> object:
        sent.append(path.name)
        if sent == ["train.jsonl", "validation.jsonl"]:
            raise Unreachable("the network is gone.")
        return real(backend, path, sha256)

    monkeypatch.setattr(FakeBackend, "upload", falls_silent_once)
    with pytest.raises(Unreachable, match="unitune runs resume r"):
        launch(make_job({}))
    (run,) = runs()
    assert State.UPLOADING is run.state
    assert State.QUEUED is run.resume().state
    assert sent == ["train.jsonl", "validation.jsonl", "validation.jsonl"]
    assert jobs_at_the_vendor(workplace) == [run.job_id]


def test_two_jobs_with_the_key_are_left_to_the_user(
    workplace: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FakeBackend.submit

    def sends_twice(backend: FakeBackend, launch: object) -> str:
        real(backend, launch)
        return real(backend, launch)

    monkeypatch.setattr(FakeBackend, "submit", sends_twice)
    job = make_job({"submits": ["none", "lose answer"]})
    run = launched(job, Guarantee.FINDABLE, monkeypatch)
    first, second = jobs_at_the_vendor(workplace)
    assert State.UNCERTAIN is run.state
    assert first in str(run.error)
    assert second in str(run.error)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("guarantee", ALL)
def test_cancelling_an_interrupted_launch_leaves_no_job_that_trains(
    workplace: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, guarantee: Guarantee
) -> None:
    job = make_job({"submits": ["lose answer", "lose answer"], "steps": 99})
    with monkeypatch.context() as broken:
        broken.setattr(FakeBackend, "find", lambda *_: (_ for _ in ()).throw(Unreachable("gone")))
        with pytest.raises(Unreachable):
            launched(job, guarantee, broken)
    monkeypatch.setattr(FakeBackend, "guarantee", guarantee)
    (run,) = runs()
    assert State.SUBMITTING is run.state
    run.cancel().wait(0.001)
    assert State.CANCELLED is run.state
    assert jobs_at_the_vendor(workplace) == [run.job_id]


def test_cancelling_before_the_create_call_creates_nothing(
    workplace: Path, make_job: MakeJob
) -> None:
    run = interrupted_in_its_upload(make_job({}))
    assert State.CANCELLED is run.cancel().state
    assert jobs_at_the_vendor(workplace) == []
    with pytest.raises(UserError, match="cancelled"):
        run.resume()


def test_the_run_folder_holds_the_job_and_the_rows_as_handed_over(
    workplace: Path, make_job: MakeJob
) -> None:
    run = launch(make_job({}))
    kept = run.folder / "train.jsonl"
    assert len(kept.read_text(encoding="utf-8").splitlines()) == 6
    (workplace / "train.jsonl").unlink()
    assert run.job.base_model == "tiny"
    assert (workplace / "train.jsonl") == run.job.path(run.job.data.train).resolve()


def test_a_launch_whose_rows_are_handed_over_goes_on_without_its_folder(
    workplace: Path, make_job: MakeJob
) -> None:
    with pytest.raises(Unreachable):
        launch(make_job({"submits": ["lose request", "lose request"]}))
    (run,) = runs()
    shutil.rmtree(run.folder)
    assert State.QUEUED is run.resume().state
    assert jobs_at_the_vendor(workplace) == [run.job_id]


@pytest.mark.parametrize(
    ("host", "advice"),
    [
        ("", r"has no train\.jsonl.*cancel.*again"),
        ("elsewhere", r"on the machine 'elsewhere'.*cancel"),
    ],
)
def test_a_launch_that_misses_the_rows_it_must_still_hand_over_says_what_to_do(
    workplace: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, host: str, advice: str
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("socket.gethostname", lambda: host)
        run = interrupted_in_its_upload(make_job({}))
    shutil.rmtree(run.folder)
    with pytest.raises(UserError, match=advice):
        run.resume()
    assert State.UPLOADING is run.state
    assert State.CANCELLED is run.cancel().state
    assert jobs_at_the_vendor(workplace) == []


def test_a_run_is_followed_without_its_folder(make_job: MakeJob) -> None:
    run = launch(make_job({}))
    shutil.rmtree(run.folder)
    assert State.SUCCEEDED is run.wait(0.001).state
