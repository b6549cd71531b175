from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import JsonValue

from unitune.backends import registry
from unitune.backends.protocol import State, Status
from unitune.errors import (
    BackendError,
    DataError,
    DuplicateRunError,
    NotFoundError,
    RunFailed,
    Unreachable,
    Unsupported,
    UserError,
    WaitTimeout,
)
from unitune.job.job import Budget, Evaluate, Tuning
from unitune.ledger import Ledger
from unitune.planning.plan import plan
from unitune.planning.preflight import preflight
from unitune.run import handle, launching
from unitune.run.run import find_run, launch, runs
from unitune.scorers.json_text import JsonValid
from unitune.testing import FakeBackend
from unitune.workspace.home import home

from .conftest import Clock, MakeJob

KEYS = ["created", "step-1", "step-2", "step-3", "step-4", "validation"]


def test_watch_yields_every_event_once_until_the_end(make_job: MakeJob) -> None:
    run = launch(make_job({}))
    assert [event.key for event in run.watch(0.001)] == KEYS
    assert State.SUCCEEDED is run.state
    assert [event.key for event in run.watch(0.001)] == KEYS
    assert run.tuned_model is not None
    assert run.job_id == run.tuned_model.name


def test_watching_elsewhere_or_not_to_the_end_disturbs_nothing(make_job: MakeJob) -> None:
    run = launch(make_job({"steps_per_poll": 1}))
    assert next(run.watch(0.001)).key == "created"
    assert [event.key for event in find_run(run.id).watch(0.001)] == KEYS
    assert [event.key for event in run.watch(0.001)] == KEYS


def test_a_word_that_nobody_knows_is_kept_and_polling_goes_on(make_job: MakeJob) -> None:
    run = launch(make_job({"states": ["queued", "brand_new_word"]}))
    list(run.watch(0.001))
    seen = [(at.state, at.raw) for at in run.transitions() if at.raw]
    assert seen == [
        (State.QUEUED, "queued"),
        (State.UNKNOWN, "brand_new_word"),
        (State.RUNNING, "running"),
        (State.SUCCEEDED, "succeeded"),
    ]


def test_wait_raises_with_the_reason_of_a_failure(make_job: MakeJob) -> None:
    run = launch(make_job({"fail_at_step": 3}))
    with pytest.raises(RunFailed, match=r"the fake fails after step 2"):
        run.wait(0.001)
    assert State.FAILED is run.state


@pytest.mark.parametrize("timeout", [0, 0.2])
def test_wait_with_a_timeout_leaves_the_run_going(make_job: MakeJob, timeout: float) -> None:
    run, started = launch(make_job({"steps": 100_000})), time.monotonic()
    with pytest.raises(WaitTimeout, match=r"is (queued|running) and continues") as late:
        run.wait(60 if timeout else 0.01, timeout=timeout)
    assert isinstance(late.value, TimeoutError)
    assert timeout <= time.monotonic() - started < 30
    assert run.refresh().state is State.RUNNING
    seen = list(launch(make_job({}), allow_duplicate=True).watch(0.001, timeout=60))
    assert seen[-1].key == "validation"


def test_resuming_a_failed_run_begins_an_attempt_with_its_own_key_and_events(
    make_job: MakeJob,
) -> None:
    run = launch(make_job({"fail_at_step": 3}))
    with pytest.raises(RunFailed):
        run.wait(0.001)
    run.resume().wait(0.001)
    assert (State.SUCCEEDED, 2, f"{run.id}-2") == (run.state, run.attempt, run.launch_key)
    assert [event.key for event in run.events()] == KEYS


def test_a_paused_job_rests_until_it_is_resumed(make_job: MakeJob) -> None:
    run = launch(make_job({"pause_at_step": 3}))
    assert State.PAUSED is run.wait(0.001).state
    assert State.QUEUED is run.resume().state
    assert State.SUCCEEDED is run.wait(0.001).state
    assert [event.key for event in run.events()] == KEYS


def test_a_run_is_paused_and_goes_on(make_job: MakeJob) -> None:
    run = launch(make_job({"steps": 20, "steps_per_poll": 1})).refresh().refresh()
    assert State.RUNNING is run.state
    assert State.PAUSED is run.pause().state
    assert State.PAUSED is run.pause().wait(0.001).state
    assert State.SUCCEEDED is run.resume().wait(0.001).state
    with pytest.raises(UserError, match="is succeeded and cannot be paused"):
        run.pause()


def test_resume_looks_before_it_decides(make_job: MakeJob) -> None:
    run = launch(make_job({"states": [], "pause_at_step": 1}))
    assert State.QUEUED is run.state
    run.resume()
    assert State.SUCCEEDED is run.wait(0.001).state


class Unpausable:
    name, guarantee = FakeBackend.name, FakeBackend.guarantee
    poll = FakeBackend.poll


def test_a_paused_job_of_a_backend_that_cannot_resume_says_so(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = launch(make_job({"pause_at_step": 2})).wait(0.001)
    monkeypatch.setattr(registry, "backend", lambda _: Unpausable())
    with pytest.raises(Unsupported, match=f"unitune runs cancel {run.id}"):
        run.resume()
    assert State.PAUSED is run.state


def test_a_backend_that_cannot_pause_says_so(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = launch(make_job({"steps": 99})).refresh()
    monkeypatch.setattr(registry, "backend", lambda _: Unpausable())
    with pytest.raises(Unsupported, match=f"can only cancel a job .unitune runs cancel {run.id}"):
        run.pause()


@pytest.mark.parametrize("script", [{}, {"steps": 10_000}])
def test_resume_leaves_a_running_or_succeeded_run_alone(
    make_job: MakeJob, script: dict[str, JsonValue]
) -> None:
    run = launch(make_job(script))
    for _ in range(6):
        run.refresh()
    before = run.state
    assert before in (State.SUCCEEDED, State.RUNNING)
    assert (before, 1) == (run.resume().state, run.attempt)


def test_cancel_ends_in_cancelled_and_can_be_asked_for_twice(make_job: MakeJob) -> None:
    run = launch(make_job({"steps": 10_000}))
    assert State.CANCELLING is run.cancel().state
    run.cancel().wait(0.001)
    assert State.CANCELLED is run.cancel().state


def test_a_run_that_has_ended_cannot_be_cancelled(make_job: MakeJob) -> None:
    run = launch(make_job({})).wait(0.001)
    with pytest.raises(UserError, match="has already succeeded"):
        run.cancel()


def test_a_job_that_ended_before_the_cancel_reached_it_is_seen_as_it_is(make_job: MakeJob) -> None:
    run = launch(make_job({}))
    for _ in range(9):
        FakeBackend().poll(str(run.job_id), "")
    assert State.SUCCEEDED is run.cancel().state


def test_a_run_whose_training_was_deleted_can_be_cancelled(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = launch(make_job({"steps": 99}))
    shutil.rmtree(run.folder)

    def gone(*_: object) -> None:
        raise BackendError("the training's folder does not exist", status=410)

    monkeypatch.setattr(FakeBackend, "cancel", gone)
    monkeypatch.setattr(FakeBackend, "poll", gone)
    with pytest.raises(BackendError, match="does not exist"):
        run.refresh()
    assert run.cancel().state is State.CANCELLED


def test_a_cancel_that_never_reached_the_backend_is_kept_and_sent_by_resume(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = launch(make_job({"steps": 10_000}))
    with monkeypatch.context() as broken:
        broken.setattr(FakeBackend, "cancel", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run.cancel()
    assert State.CANCELLING is find_run(run.id).refresh().state
    assert State.CANCELLED is run.resume().wait(0.001).state


def test_watch_bears_some_silence_and_then_gives_up(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = launch(make_job({}))
    asked: list[float] = []

    def silent(*_: object) -> None:
        asked.append(time.monotonic())
        raise Unreachable("no answer.")

    monkeypatch.setattr(handle, "MISSED_POLLS", 3)
    with monkeypatch.context() as broken:
        broken.setattr(FakeBackend, "poll", silent)
        with pytest.raises(Unreachable):
            list(run.watch(0.001))
    assert len(asked) == 4
    assert [event.key for event in run.watch(0.001)] == KEYS


@pytest.mark.parametrize("wish", [86_400.0, 99_999_999_999.0, float("inf"), float("nan"), -1.0])
def test_watch_sleeps_no_longer_than_a_few_seconds_at_a_time_whatever_the_vendor_asks_for(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, wish: float
) -> None:
    run = launch(make_job({}))
    clock = Clock()
    monkeypatch.setattr(handle, "time", clock)
    refusals = [BackendError("slow down.", status=429, retry_after=wish)]
    real = FakeBackend.poll

    def poll(backend: FakeBackend, job_id: str, cursor: str) -> Status:
        if refusals:
            raise refusals.pop()
        return real(backend, job_id, cursor)

    monkeypatch.setattr(FakeBackend, "poll", poll)
    monkeypatch.setattr(launching, "POLL_SECONDS", 0)
    assert State.SUCCEEDED is run.wait(0.5).state
    assert max(clock.slept) <= handle.SLOWEST_POLL_SECONDS
    assert (60 if wish == 86_400 else 0) <= sum(clock.slept) < 70


def test_watch_waits_for_a_launch_that_another_process_works_on(make_job: MakeJob) -> None:
    with pytest.raises(Unreachable):
        launch(make_job({"submits": ["lose request", "lose request"]}))
    (run,) = runs()
    with Ledger(home()).acting(run.id):
        assert not run.interrupted
    assert run.interrupted
    assert State.SUBMITTING is run.wait(0.001).state


def test_the_same_training_is_launched_once_unless_again(
    workplace: Path, make_job: MakeJob
) -> None:
    first = launch(make_job({}))
    with pytest.raises(DuplicateRunError, match=rf"{first.id}.*--allow-duplicate"):
        launch(make_job({}))
    assert [folder.name for folder in (workplace / ".unitune" / "runs").iterdir()] == [first.id]
    second = launch(make_job({}), allow_duplicate=True)
    assert [run.id for run in runs()] == [second.id, first.id]
    assert first.fingerprint == second.fingerprint


def test_the_fingerprint_is_of_what_a_training_learns_from(
    workplace: Path, make_job: MakeJob, settling: Callable[[float], None]
) -> None:
    settling(0)  # any backend has the fake's offer now
    job = make_job({})
    mine = preflight(job).fingerprint
    same = {
        "name": "other",
        "budget": Budget(usd=Decimal(1)),
        "evaluate": Evaluate(scorers=(JsonValid(),)),
        "options": {**job.options, "other": {"x": 1}},
        "model": {"fake": "tiny", "other": "big"},
    }
    for key, value in same.items():
        assert mine == preflight(job.model_copy(update={key: value})).fingerprint, key
    different = {
        "model": "big",
        "tuning": Tuning(epochs=2),
        "options": {"fake": {"steps": 5}},
        "backend": "other",
    }
    for key, value in different.items():
        assert mine != preflight(job.model_copy(update={key: value})).fingerprint, key
    by_score = job.model_copy(update={"tuning": Tuning(best_by="score")})
    changed = by_score.model_copy(update={"evaluate": Evaluate(scorers=(JsonValid(),))})
    assert preflight(by_score).fingerprint != preflight(changed).fingerprint, "which step is kept"
    rows = (workplace / "validation.jsonl").read_text(encoding="utf-8")
    (workplace / "validation.jsonl").write_text(rows.replace("answer 1", "x"), encoding="utf-8")
    assert mine != preflight(job).fingerprint


def test_a_run_is_found_by_an_unambiguous_beginning(make_job: MakeJob) -> None:
    one, two = launch(make_job({})), launch(make_job({"steps": 2}))
    assert one.id == find_run(one.id).id
    assert two.id == find_run(two.id[:-1]).id
    with pytest.raises(UserError, match=rf"{two.id}, {one.id}"):
        find_run(one.id[:5])
    with pytest.raises(NotFoundError, match="Did you mean"):
        find_run(one.id[:-1] + "!")
    with pytest.raises(NotFoundError, match="unitune runs"):
        find_run("")


def test_reading_commands_make_no_folder(workplace: Path) -> None:
    assert runs() == []
    with pytest.raises(NotFoundError):
        find_run("r251125")
    assert not (workplace / ".unitune").exists()


def test_what_the_offer_does_not_cover_is_refused_before_anything_is_written(
    workplace: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = registry.offer("fake").model_copy(update={"supported_settings": ("epochs",)})
    monkeypatch.setattr(registry, "offer", lambda _: offer)
    job = make_job({}).model_copy(update={"tuning": Tuning(epochs=1, batch_size=3)})
    with pytest.raises(Unsupported, match=r"tuning\.batch_size"):
        launch(job)
    assert not (workplace / ".unitune").exists()


def test_what_a_plan_calls_an_error_a_launch_refuses_in_the_same_words(
    workplace: Path, make_job: MakeJob
) -> None:
    """Two test rows with one id were trained on and paid, and compare then refused them."""
    rows = (
        '{"id": "a", "prompt": "one", "completion": "x"}',
        '{"id": "a", "prompt": "two", "completion": "y"}',
    )
    (workplace / "test.jsonl").write_text("\n".join(rows), encoding="utf-8")
    job = make_job({})
    job = job.model_copy(update={"data": job.data.model_copy(update={"test": "test.jsonl"})})
    (repeated,) = plan(job).errors
    assert repeated.code == "repeated-id"
    with pytest.raises(DataError) as refused:
        launch(job)
    assert str(repeated) == str(refused.value)
    assert runs() == []
