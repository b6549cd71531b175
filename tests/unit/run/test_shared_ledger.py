"""One ledger for two machines: a run launched on the one is watched and gone on with on the other.

Each machine is a home folder of its own here, with a host name of its own; the vendor is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from crash.postgres import new_database
from support.records import interrupted_in_its_upload

from unitune.backends.protocol import State
from unitune.errors import DuplicateRunError, RunFailed, Unreachable, UserError
from unitune.ledger import Ledger
from unitune.run.run import find_run, launch, runs

from .conftest import MakeJob

GoTo = Callable[[str], None]


@pytest.fixture
def go_to(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> GoTo:
    """Go on as another machine."""

    def go(machine: str) -> None:
        monkeypatch.setenv("UNITUNE_DIR", str(workplace / machine))
        monkeypatch.setattr("socket.gethostname", lambda: machine)

    return go


@pytest.fixture(autouse=True)
def shared(go_to: GoTo, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A ledger on a server, seen from the first machine."""
    with new_database() as url:
        monkeypatch.setenv("UNITUNE_LEDGER", url)
        go_to("a")
        yield


def test_a_run_is_watched_from_another_home(make_job: MakeJob, go_to: GoTo) -> None:
    run = launch(make_job({}))
    go_to("b")
    (seen,) = runs()
    assert [event.key for event in seen.watch(0.001)][-1] == "validation"
    assert State.SUCCEEDED is seen.state
    go_to("a")
    assert [event.key for event in seen.events()] == [event.key for event in run.watch(0.001)]
    assert seen.tuned_model == run.tuned_model


def test_a_run_has_its_job_and_names_its_folder_everywhere(
    workplace: Path, make_job: MakeJob, go_to: GoTo
) -> None:
    run = launch(make_job({"steps": 7}))
    go_to("b")
    seen = find_run(run.id)
    assert run.job.options == seen.job.options
    assert workplace / "b" / "runs" / run.id == seen.folder
    assert not seen.folder.exists()


def test_a_launch_that_handed_its_rows_over_is_finished_from_another_home(
    workplace: Path, make_job: MakeJob, go_to: GoTo
) -> None:
    with pytest.raises(Unreachable):
        launch(make_job({"submits": ["lose request"] * 2}))
    go_to("b")
    (run,) = runs()
    assert State.SUBMITTING is run.state
    assert State.SUCCEEDED is run.resume().wait(0.001).state
    assert [str(job.parent) for job in workplace.glob("vendor/*/job.json")] == [run.job_id]


def test_a_failed_run_begins_its_next_attempt_from_another_home(
    make_job: MakeJob, go_to: GoTo
) -> None:
    with pytest.raises(RunFailed):
        launch(make_job({"fail_at_step": 2})).wait(0.001)
    go_to("b")
    (run,) = runs()
    assert State.SUCCEEDED is run.resume().wait(0.001).state
    assert run.attempt == 2


def test_a_launch_that_still_has_rows_to_hand_over_names_the_machine_that_has_them(
    make_job: MakeJob, go_to: GoTo
) -> None:
    run = interrupted_in_its_upload(make_job({}))
    go_to("b")
    with pytest.raises(UserError, match=rf"on the machine 'a'.*unitune runs resume {run.id}"):
        find_run(run.id).resume()
    go_to("a")
    assert State.QUEUED is run.resume().state


def test_the_same_training_on_two_machines_is_a_twin(make_job: MakeJob, go_to: GoTo) -> None:
    first = launch(make_job({}))
    go_to("b")
    with pytest.raises(DuplicateRunError, match=first.id):
        launch(make_job({}))
    assert len(runs()) == 1


def test_without_the_variable_each_home_has_its_own_ledger(
    workplace: Path, make_job: MakeJob, go_to: GoTo, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(make_job({}))
    monkeypatch.setenv("UNITUNE_LEDGER", "")
    go_to("b")
    assert runs() == []
    assert Ledger(workplace / "a").records() == []
