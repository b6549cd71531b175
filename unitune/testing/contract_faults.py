"""Test launches with faults: there is one job at the vendor, the right state and clear advice.

Each transport fault is injected into the create call of a launch and into later calls. A process is
killed at every step of a launch, a cancel and a delete. If the vendor cannot guarantee one job
(`Guarantee.SUFFIX_ONLY`), the run may end uncertain. Skipped if the test has no `setup`.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from unitune.backends import registry, retry
from unitune.backends.capabilities import Deletes
from unitune.backends.offer import Offer
from unitune.backends.protocol import SAFE_TO_REPEAT, Guarantee, State
from unitune.errors import BackendError, UnituneError, Unreachable, UserError
from unitune.job.job import Data, Job
from unitune.run.run import Run, launch, runs
from unitune.testing import kills
from unitune.testing.contract_base import ContractBase, row_of
from unitune.testing.loopback import OF_VENDORS, REFUSED_AFTER, TOOK_EFFECT, Fault
from unitune.testing.vendor_setup import ServedVendor, serve_vendor

SETTLE_SECONDS = 1.5  # replaces the offer's own, so that a test can wait for it
# Time that the backend waits for an answer, if `VendorSetup.timeouts` names its timeouts
IMPATIENCE_SECONDS = 1.0
REASON = "row 7 is not valid here"


def _sleep_briefly(seconds: float) -> None:
    time.sleep(seconds / 20)


class FaultContract(ContractBase):
    """Tests with transport faults and killed processes."""

    @pytest.fixture
    def vendor(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ServedVendor]:
        """Serve a vendor for one test, with its own ledger and short timeouts."""
        if self.setup is None:
            pytest.skip(f"{self.name} has no vendor: its test names no `setup`")
        monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
        original = registry.offer

        def offer(name: str) -> Offer:
            return original(name).model_copy(update={"settle_seconds": SETTLE_SECONDS})

        monkeypatch.setattr(registry, "offer", offer)
        for name in self.setup.timeouts:
            monkeypatch.setattr(name, IMPATIENCE_SECONDS)
        with serve_vendor(self.setup) as vendor:
            yield vendor

    @classmethod
    def launchable(cls, folder: Path, number: int = 0) -> Job:
        """Write rows that differ for each number into a folder, and return a job with them."""
        rows = "".join(
            row_of(f"What is {row} plus {number}?", str(row + number)) for row in range(60)
        )
        (folder / "train.jsonl").write_text(rows, encoding="utf-8")
        return cls.job(folder).model_copy(update={"data": Data(train="train.jsonl")})

    @pytest.mark.parametrize("fault", sorted(TOOK_EFFECT | {Fault.SERVER_ERROR}))
    def test_after_a_fault_of_the_create_call_there_is_one_job(
        self, vendor: ServedVendor, fault: Fault, tmp_path: Path
    ) -> None:
        """After an unclear answer, the job is searched for; the call is never repeated blindly."""
        vendor.server.inject_fault(fault, "POST", vendor.setup.create)
        run = launch_and_resume(self.launchable(tmp_path))
        if is_suffix_only(run) and fault is Fault.SERVER_ERROR:
            assert run.state is State.UNCERTAIN
            assert jobs_of(run) == []
            assert f"unitune runs resume {run.id} --resubmit" in str(run.error)
            run.resume(resubmit=True)
        assert jobs_of(run) == [run.job_id]
        assert run.state in (State.QUEUED, State.VALIDATING, State.RUNNING)

    def test_rate_limit_is_waited_out(self, vendor: ServedVendor, tmp_path: Path) -> None:
        vendor.server.inject_fault(Fault.RATE_LIMITED, "POST", vendor.setup.create)
        run = launch(self.launchable(tmp_path))
        assert jobs_of(run) == [run.job_id]

    @pytest.mark.parametrize("fault", sorted(REFUSED_AFTER))
    def test_refusal_of_a_create_call_that_took_effect_makes_no_second_job(
        self, vendor: ServedVendor, fault: Fault, tmp_path: Path
    ) -> None:
        """A proxy may send a call twice and return the refusal of the second."""
        vendor.server.inject_fault(fault, "POST", vendor.setup.create)
        run = launch(self.launchable(tmp_path))
        assert jobs_of(run) == [run.job_id]
        assert vendor.state().jobs == 1
        assert run.duplicates == []

    def test_create_call_delivered_twice_is_reported_and_can_be_cancelled(
        self, vendor: ServedVendor, tmp_path: Path
    ) -> None:
        """A second job of one launch costs money; the user is informed and can cancel it."""
        vendor.server.inject_fault(Fault.TWICE, "POST", vendor.setup.create)
        run = launch(self.launchable(tmp_path))
        surplus = reported_duplicates(run, vendor)
        assert len(surplus) == (0 if creates_single_job(run) else 1)
        for job_id in surplus:
            run.cancel_duplicate(job_id)
            state = registry.backend(run.backend_name).poll(job_id, "").state
            assert state in (State.CANCELLING, State.CANCELLED)
        with pytest.raises(UserError, match=r"is run .* own"):
            run.cancel_duplicate(str(run.job_id))
        with pytest.raises(UserError, match="does not carry the key"):
            run.cancel_duplicate("no-such-job")
        assert not run.refresh().state.ended

    def test_create_call_that_arrives_after_the_settle_time_is_reported_by_the_end(
        self, vendor: ServedVendor, tmp_path: Path
    ) -> None:
        vendor.server.late_seconds = SETTLE_SECONDS + 1
        vendor.server.inject_fault(Fault.LATE, "POST", vendor.setup.create)
        run = launch_and_resume(self.launchable(tmp_path))
        at_once = vendor.state().jobs
        time.sleep(1.5)
        assert run.refresh().wait(0.01).state is State.SUCCEEDED
        surplus = reported_duplicates(run, vendor)
        assert len(surplus) == (0 if creates_single_job(run) or is_suffix_only(run) else 1)
        assert at_once == (0 if is_suffix_only(run) else 1)

    @pytest.mark.parametrize("fault", sorted(OF_VENDORS - {Fault.EXPIRED_KEY}))
    def test_fault_while_watching_is_waited_out(
        self,
        vendor: ServedVendor,
        fault: Fault,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(retry, "sleep", _sleep_briefly)
        run = launch(self.launchable(tmp_path))
        vendor.server.inject_fault(fault, "GET", "", times=2)
        assert run.wait(0.01).state is State.SUCCEEDED
        steps = [event.number("step") or 0 for event in run.events() if event.kind == "step"]
        assert steps == sorted(set(steps))

    def test_key_that_expires_while_watching_ends_the_watch_and_not_the_run(
        self, vendor: ServedVendor, tmp_path: Path
    ) -> None:
        run = launch(self.launchable(tmp_path))
        vendor.server.inject_fault(Fault.EXPIRED_KEY, "GET", "")
        with pytest.raises(BackendError, match=r"key|Sign in"):
            run.wait(0.01)
        assert run.wait(0.01).state is State.SUCCEEDED

    def test_expired_key_creates_nothing_and_says_so(
        self, vendor: ServedVendor, tmp_path: Path
    ) -> None:
        vendor.server.inject_fault(Fault.EXPIRED_KEY, "POST", vendor.setup.create, times=3)
        with pytest.raises(BackendError, match=r"key|Sign in") as error:
            launch(self.launchable(tmp_path))
        assert error.value.status == 401
        (run,) = runs()
        assert run.state is State.FAILED
        assert jobs_of(run) == []

    def test_job_that_lists_show_late_is_adopted_once(
        self, vendor: ServedVendor, tmp_path: Path
    ) -> None:
        vendor.behavior.list_lag_seconds = 0.7
        vendor.behavior.lists_repeat = True
        vendor.server.inject_fault(Fault.ERROR_AFTER, "POST", vendor.setup.create)
        run = launch_and_resume(self.launchable(tmp_path))
        vendor.behavior.list_lag_seconds = 0
        assert jobs_of(run) == [run.job_id]

    def test_unknown_state_is_kept_and_polled_on(
        self, vendor: ServedVendor, tmp_path: Path
    ) -> None:
        run = launch(self.launchable(tmp_path))
        vendor.behavior.state = "brand_new"
        for _ in range(3):
            run.refresh()
        assert run.state is State.UNKNOWN
        assert "brand_new" in run.raw.lower()
        vendor.behavior.state = None
        assert run.wait(0.01).state is State.SUCCEEDED

    def test_file_that_fails_validation_fails_the_run_in_the_vendors_words(
        self, vendor: ServedVendor, tmp_path: Path
    ) -> None:
        """The vendor may report it when it receives the file or when the job reads it."""
        vendor.behavior.rejects_files = REASON
        with pytest.raises(UnituneError, match=REASON):
            launch(self.launchable(tmp_path)).wait(0.01)
        (run,) = runs()
        assert run.state is State.FAILED
        assert REASON in str(run.error)

    @pytest.mark.usefixtures("vendor")
    def test_whole_run_succeeds_and_is_deleted(self, tmp_path: Path) -> None:
        run = launch(self.launchable(tmp_path)).wait(0.01)
        assert run.state is State.SUCCEEDED
        assert run.tuned_model is not None
        left = run.delete(force=True)
        assert runs() == []
        if isinstance(registry.backend(self.name), Deletes):
            assert not any("file" in sentence for sentence in left), left

    def test_process_killed_at_any_step_leaves_one_job(
        self, vendor: ServedVendor, tmp_path: Path
    ) -> None:
        """A separate process is used, so that its forks have no threads but the server's."""
        del vendor
        command = [sys.executable, "-P", "-m", "unitune.testing.kills", inspect.getfile(type(self))]
        done = subprocess.run(  # noqa: S603 - our own interpreter
            [*command, type(self).__qualname__, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        seen = [json.loads(line) for line in done.stdout.splitlines()]
        assert {kill["act"] for kill in seen} == {str(act) for act in kills.Act}
        assert [kill for kill in seen if kill["verdict"] in ("lost", "doubled")] == []


def jobs_of(run: Run) -> list[str]:
    """Return the jobs with a run's key."""
    return registry.backend(run.backend_name).find(run.launch_key, run.folder)


def launch_and_resume(job: Job) -> Run:
    """Launch, and resume once if the answer was unclear, as the message advises."""
    try:
        return launch(job)
    except Unreachable as error:
        message = str(error)
    (run,) = runs()
    assert f"unitune runs resume {run.id}" in message
    return run.resume()


def reported_duplicates(run: Run, vendor: ServedVendor) -> list[str]:
    """Return the surplus jobs of a run; check that each is reported with advice."""
    jobs = jobs_of(run)
    assert vendor.state().jobs == len(jobs)
    surplus = [job_id for job_id in jobs if job_id != run.job_id]
    warnings = [str(event.data["text"]) for event in run.events() if event.kind == "warning"]
    for job_id in surplus:
        assert any(f"unitune runs cancel {run.id} --job {job_id}" in text for text in warnings)
    assert surplus == run.duplicates
    return surplus


def is_suffix_only(run: Run) -> bool:
    """Return whether only the name of a run's job contains its key."""
    return registry.backend(run.backend_name).guarantee is Guarantee.SUFFIX_ONLY


def creates_single_job(run: Run) -> bool:
    """Return whether two create calls with one key make one job."""
    return registry.backend(run.backend_name).guarantee in SAFE_TO_REPEAT
