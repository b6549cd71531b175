"""Every hosted backend and every fault: one job at the vendor, the right state, and what to do.

The faults spoil the create call of a launch through the vendor's real SDK. Where the vendor's kind
cannot promise one job (a suffix is all that carries the key), the run may be held as uncertain.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("openai", reason="needs the vendors' extras")
pytest.importorskip("together", reason="needs the vendors' extras")
pytest.importorskip("google.genai", reason="needs the vendors' extras")
pytest.importorskip("boto3", reason="needs the vendors' extras")

from vendors.serving import VENDORS, ServedVendor, serve_vendor

from unitune.backends import registry
from unitune.backends.offer import Offer
from unitune.backends.protocol import SAFE_TO_REPEAT, Guarantee, State
from unitune.cli.runviews import print_run
from unitune.errors import BackendError, UnituneError, Unreachable, UserError
from unitune.job.job import Data, Job
from unitune.runs.run import Run, launch, runs
from unitune.testing.loopback import (
    OF_VENDORS,
    REFUSED_AFTER,
    TOOK_EFFECT,
    Fault,
    ServerBehavior,
)

SETTLE_SECONDS = 1.5
ENDING = (State.CANCELLING, State.CANCELLED)
PATIENCE = (
    "openai.wire.CREATE_SECONDS",
    "openai.server.READ_SECONDS",
    "together.client.TIMEOUT_SECONDS",
    "bedrock.clients.READ_SECONDS",
)
"""How long each SDK waits for an answer, by module of the vendor; Vertex AI's is `play`'s."""


@pytest.fixture(params=sorted(VENDORS))
def vendor(request: pytest.FixtureRequest) -> Iterator[ServedVendor]:
    request.getfixturevalue("quick")
    with serve_vendor(request.param) as served:
        yield served


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home of its own, and a settle time that a test can wait for."""
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    original = registry.offer

    def offer(name: str) -> Offer:
        return original(name).model_copy(update={"settle_seconds": SETTLE_SECONDS})

    monkeypatch.setattr(registry, "offer", offer)
    for name in PATIENCE:
        monkeypatch.setattr(f"unitune_providers.{name}", 1.0)


def job(folder: Path, served: ServedVendor) -> Job:
    name = next(name for name, part in VENDORS.items() if part is served.setup)
    rows = "".join(
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"What is {number} times two?"},
                    {"role": "assistant", "content": str(2 * number)},
                ]
            }
        )
        + "\n"
        for number in range(60)
    )
    (folder / "train.jsonl").write_text(rows, encoding="utf-8")
    return Job(
        name="matrix",
        model=served.setup.model,
        backend=name,
        data=Data(train="train.jsonl"),
        folder=folder,
    )


def jobs_of(run: Run) -> list[str]:
    return registry.backend(run.backend_name).find(run.launch_key, run.folder)


def launched(wanted: Job) -> Run:
    """Launch, and resume once as the message says when no clear answer came."""
    try:
        return launch(wanted)
    except Unreachable as problem:
        told = str(problem)
    (run,) = runs()
    assert f"unitune resume {run.id}" in told
    return run.resume()


@pytest.mark.parametrize("fault", sorted(TOOK_EFFECT | {Fault.SERVER_ERROR}))
def test_after_a_fault_of_the_create_call_there_is_one_job(
    vendor: ServedVendor, fault: Fault, tmp_path: Path
) -> None:
    vendor.server.inject_fault(fault, "POST", vendor.setup.create)
    run = launched(job(tmp_path, vendor))
    if is_suffix_only(run) and fault is Fault.SERVER_ERROR:
        assert State.UNCERTAIN is run.state
        assert [] == jobs_of(run)
        assert f"unitune resume {run.id} --resubmit" in str(run.error)
        run.resume(resubmit=True)
    assert [run.job_id] == jobs_of(run)
    assert run.state in (State.QUEUED, State.VALIDATING, State.RUNNING)


def test_a_rate_limit_is_waited_out(vendor: ServedVendor, tmp_path: Path) -> None:
    vendor.server.inject_fault(Fault.RATE_LIMITED, "POST", vendor.setup.create)
    run = launch(job(tmp_path, vendor))
    assert [run.job_id] == jobs_of(run)


@pytest.mark.parametrize("fault", sorted(REFUSED_AFTER))
def test_a_refusal_of_a_create_call_that_took_effect_makes_no_second_job(
    vendor: ServedVendor, fault: Fault, tmp_path: Path
) -> None:
    vendor.server.inject_fault(fault, "POST", vendor.setup.create)
    run = launch(job(tmp_path, vendor))
    assert [run.job_id] == jobs_of(run)
    assert 1 == vendor.state().jobs
    assert [] == run.duplicates


def test_a_create_call_that_was_delivered_twice_is_told_at_once_and_can_be_cancelled(
    vendor: ServedVendor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vendor.server.inject_fault(Fault.TWICE, "POST", vendor.setup.create)
    run = launch(job(tmp_path, vendor))
    surplus = told_of(run, vendor)
    assert len(surplus) == (0 if makes_one_job(run) else 1)
    print_run(run)
    shown = without_breaks(capsys.readouterr().out)
    assert all(one in shown for one in surplus)
    for one in surplus:
        run.cancel_duplicate(one)
        assert registry.backend(run.backend_name).poll(one, "").state in ENDING
    with pytest.raises(UserError, match=r"is run .* own"):
        run.cancel_duplicate(str(run.job_id))
    with pytest.raises(UserError, match="does not carry the key"):
        run.cancel_duplicate("no-such-job")
    assert not run.refresh().state.ended


def test_a_create_call_that_arrives_after_the_settle_time_is_told_by_the_end(
    vendor: ServedVendor, tmp_path: Path
) -> None:
    vendor.server.late_seconds = SETTLE_SECONDS + 1
    vendor.server.inject_fault(Fault.LATE, "POST", vendor.setup.create)
    run = launched(job(tmp_path, vendor))
    at_once = vendor.state().jobs
    time.sleep(1.5)
    assert State.SUCCEEDED is run.refresh().wait(0.01).state
    surplus = told_of(run, vendor)
    assert len(surplus) == (0 if makes_one_job(run) or is_suffix_only(run) else 1)
    assert at_once == (0 if is_suffix_only(run) else 1)


def told_of(run: Run, vendor: ServedVendor) -> list[str]:
    """Return the surplus jobs of a run, each of which must be told, with what to do."""
    jobs = jobs_of(run)
    assert vendor.state().jobs == len(jobs)
    surplus = [one for one in jobs if one != run.job_id]
    warnings = [str(one.data["text"]) for one in run.events() if one.kind == "warning"]
    for one in surplus:
        assert any(f"unitune cancel {run.id} --job {one}" in text for text in warnings)
    assert surplus == run.duplicates
    return surplus


def is_suffix_only(run: Run) -> bool:
    return registry.backend(run.backend_name).guarantee is Guarantee.SUFFIX_ONLY


def makes_one_job(run: Run) -> bool:
    return registry.backend(run.backend_name).guarantee in SAFE_TO_REPEAT


def without_breaks(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("fault", sorted(OF_VENDORS - {Fault.EXPIRED_KEY}))
def test_a_fault_while_watching_is_waited_out(
    vendor: ServedVendor, fault: Fault, tmp_path: Path
) -> None:
    run = launch(job(tmp_path, vendor))
    vendor.server.inject_fault(fault, "GET", "", times=2)
    assert State.SUCCEEDED is run.wait(0.01).state
    losses = [event.data["step"] for event in run.events() if event.kind == "step"]
    assert sorted(set(losses)) == losses


def test_a_key_that_expires_while_watching_ends_the_watch_and_not_the_run(
    vendor: ServedVendor, tmp_path: Path
) -> None:
    run = launch(job(tmp_path, vendor))
    vendor.server.inject_fault(Fault.EXPIRED_KEY, "GET", "")
    with pytest.raises(BackendError, match=r"key|Sign in"):
        run.wait(0.01)
    assert State.SUCCEEDED is run.wait(0.01).state


def test_an_expired_key_creates_nothing_and_says_so(vendor: ServedVendor, tmp_path: Path) -> None:
    vendor.server.inject_fault(Fault.EXPIRED_KEY, "POST", vendor.setup.create, times=3)
    with pytest.raises(BackendError, match=r"key|Sign in") as told:
        launch(job(tmp_path, vendor))
    assert 401 == told.value.status
    (run,) = runs()
    assert State.FAILED is run.state
    assert [] == jobs_of(run)


def test_a_job_that_lists_show_late_is_adopted_once(vendor: ServedVendor, tmp_path: Path) -> None:
    behavior_of(vendor).list_lag_seconds = 0.7
    behavior_of(vendor).lists_repeat = True
    vendor.server.inject_fault(Fault.ERROR_AFTER, "POST", vendor.setup.create)
    run = launched(job(tmp_path, vendor))
    behavior_of(vendor).list_lag_seconds = 0
    assert [run.job_id] == jobs_of(run)


def test_an_unknown_state_is_kept_and_polled_on(vendor: ServedVendor, tmp_path: Path) -> None:
    run = launch(job(tmp_path, vendor))
    behavior_of(vendor).state = "brand_new"
    for _ in range(3):
        run.refresh()
    assert State.UNKNOWN is run.state
    assert "brand_new" in run.raw.lower()
    behavior_of(vendor).state = None
    assert State.SUCCEEDED is run.wait(0.01).state


def test_a_file_that_fails_validation_fails_the_run_in_the_vendors_words(
    vendor: ServedVendor, tmp_path: Path
) -> None:
    behavior_of(vendor).rejects_files = "row 7 is not to our taste"
    with pytest.raises(UnituneError, match="row 7 is not to our taste"):
        launch(job(tmp_path, vendor)).wait(0.01)
    (run,) = runs()
    assert State.FAILED is run.state
    assert "row 7 is not to our taste" in str(run.error)


def test_a_whole_run_succeeds_and_is_deleted(vendor: ServedVendor, tmp_path: Path) -> None:
    run = launch(job(tmp_path, vendor)).wait(0.01)
    assert State.SUCCEEDED is run.state
    assert run.model is not None
    left = run.delete(force=True)
    assert [] == runs()
    assert not any("file" in sentence for sentence in left), left


def behavior_of(served: ServedVendor) -> ServerBehavior:
    return served.server.vendor.behavior  # pyright: ignore[reportAttributeAccessIssue]
