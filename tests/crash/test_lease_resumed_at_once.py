"""Two processes that resume one interrupted run at once, again and again: one acts each time."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from crash.forks import Fork, Gate
from crash.killing import a_job, jobs_at_the_vendor

from unitune.backends.protocol import Launch, State
from unitune.ledger import Ledger
from unitune.run.run import Run, launch
from unitune.testing import FakeBackend


@pytest.fixture
def run(place: Path) -> Run:
    """A run that has been resumed once, so that forks find the statements of a resume compiled."""
    made = launch(a_job(place, {}))
    interrupt_next_attempt(Ledger(place / "ledger"), made)
    return made.resume()


def interrupt_next_attempt(ledger: Ledger, run: Run) -> None:
    """Leave the run as a process does that dies within the create call of an attempt."""
    with ledger.acting(run.id) as record:
        attempt = record.attempt + 1
        ledger.write(replace(record, state=State.SUBMITTING, attempt=attempt, job_id=None))


def resume_and_count(run: Run, gate: Gate) -> str:
    """Resume the run when the gate opens; return the job, and how many create calls that took."""
    calls: list[str] = []
    real = FakeBackend.submit

    def counted(backend: FakeBackend, launch: Launch) -> str:
        calls.append(launch.key)
        return real(backend, launch)

    FakeBackend.submit = counted
    gate.wait()
    job_id = run.resume().job_id
    return f"{job_id} {len(calls)}"


@pytest.mark.parametrize("times", [8, pytest.param(100, marks=pytest.mark.exhaustive)])
def test_of_two_processes_that_resume_a_run_at_once_one_acts_each_time(
    run: Run, tmp_path: Path, times: int
) -> None:
    ledger = Ledger(tmp_path / "ledger")
    jobs = set(jobs_at_the_vendor(tmp_path))
    for _ in range(times):
        interrupt_next_attempt(ledger, run)
        gate = Gate()
        both = [Fork(partial(resume_and_count, run, gate)) for _ in range(2)]
        gate.open(forks=2)
        told = sorted(fork.result().split() for fork in both)
        (made,) = set(jobs_at_the_vendor(tmp_path)) - jobs
        jobs.add(made)
        assert told == [[made, "0"], [made, "1"]]
        assert made == ledger.record(run.id).job_id
    assert times + 2 == len(jobs)
    assert times + 2 == (tmp_path / "vendor" / f"{run.id}.creates").stat().st_size
