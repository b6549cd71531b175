"""The runs of a sweep: each launched once, within a budget for all of them."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from unitune.backends import registry
from unitune.backends.protocol import State
from unitune.errors import BackendError, Mismatch, OverBudget, UserError
from unitune.job.job import Job, Tuning
from unitune.ledger import Ledger, budgeting
from unitune.planning.plan import plan
from unitune.run import launching
from unitune.run.run import find_run, launch, launch_sweep, runs
from unitune.run.watching import watch_all
from unitune.testing.fake import FakeBackend
from unitune.workspace.home import home

from .conftest import MakeJob, Priced, ended, high

GRID: Any = {"learning_rate": [0.1, 0.2], "lora": {"rank": [8, 16]}}
VALUES: Any = {"lora": {"rank": [8, 16]}}


def swept(job: Job, values: Any = VALUES) -> Job:
    return job.model_copy(update={"tuning": Tuning.model_validate(values)})


def trained(folder: Path) -> list[Path]:
    """Jobs that the vendor has."""
    return sorted(folder.glob("vendor/*/job.json"))


@pytest.mark.parametrize(("place", "waited"), [("this-machine", 2), ("cluster", 0)])
def test_runs_wait_for_each_other_on_this_machine_alone(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, place: str, waited: int
) -> None:
    known = registry.offer
    offer = known("fake").model_copy(update={"trains_on": place})
    monkeypatch.setattr(registry, "offer", lambda name: offer if name == "fake" else known(name))
    values: Any = {"lora": {"rank": [4, 8, 16]}}
    launched = list(launch_sweep(swept(make_job({}), values)))
    assert waited == sum(run.state.ended for run in launched)


def test_each_combination_is_a_run_named_by_its_values(priced: Priced, workplace: Path) -> None:
    launched = list(launch_sweep(swept(priced(), GRID)))
    assert [run.name for run in launched] == [
        "demo learning_rate=0.1, lora.rank=8",
        "demo learning_rate=0.1, lora.rank=16",
        "demo learning_rate=0.2, lora.rank=8",
        "demo learning_rate=0.2, lora.rank=16",
    ]
    assert [(run.job.tuning.learning_rate, run.job.tuning.lora.rank) for run in launched] == [
        (0.1, 8),
        (0.1, 16),
        (0.2, 8),
        (0.2, 16),
    ]
    assert len({run.fingerprint for run in launched}) == len(trained(workplace)) == 4
    assert {run.job.name for run in launched} == {"demo"}
    assert launched[0].job.sweep == {}


def test_the_same_call_launches_nothing_again(priced: Priced, workplace: Path) -> None:
    first = list(launch_sweep(swept(priced())))
    assert [run.id for run in first] == [run.id for run in launch_sweep(swept(priced()))]
    assert len(trained(workplace)) == 2


def test_it_goes_on_where_it_stopped(priced: Priced, workplace: Path) -> None:
    begun = next(launch_sweep(swept(priced())))
    assert begun.id == next(launch_sweep(swept(priced()))).id
    assert len(list(launch_sweep(swept(priced())))) == 2
    assert len(trained(workplace)) == 2


def test_a_launch_that_was_interrupted_is_finished(
    priced: Priced, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(launching, "advance", lambda _ledger, record: record)
        interrupted = next(launch_sweep(swept(priced())))
    assert State.PLANNED is interrupted.state
    assert trained(workplace) == []
    finished = list(launch_sweep(swept(priced())))
    assert interrupted.id == finished[0].id
    assert [run.state for run in finished] == [State.QUEUED] * 2
    assert len(trained(workplace)) == 2


def test_a_run_that_failed_is_launched_anew(priced: Priced) -> None:
    job = swept(priced(script={"steps": 4, "fail_at_step": 2}))
    failed = [ended(run) for run in launch_sweep(job)]
    assert [run.state for run in failed] == [State.FAILED] * 2
    assert {run.id for run in failed}.isdisjoint(run.id for run in launch_sweep(job))


def test_a_plain_launch_says_how_a_sweep_is_launched(priced: Priced) -> None:
    with pytest.raises(UserError, match=r"a sweep of 2 runs \(lists of lora\.rank\)"):
        launch(swept(priced()))
    (run,) = launch_sweep(priced())
    assert run.name == "demo"


def test_the_budget_is_held_against_the_sum_before_the_first_launch(priced: Priced) -> None:
    whole = high(swept(priced()))
    too_little = swept(priced(str(whole - Decimal("0.01"))))
    with pytest.raises(OverBudget, match="the sweep of 2 runs may cost"):
        launch_sweep(too_little)
    assert runs() == []
    assert len(list(launch_sweep(swept(priced(str(whole)))))) == 2


def test_each_run_has_its_share_of_the_budget(priced: Priced) -> None:
    """Whatever becomes of each, together they keep to it; dearer runs have more of it."""
    job = swept(priced(), {"epochs": [1, 3]})
    whole = 2 * high(job)
    launched = list(launch_sweep(job, budget=whole))
    shares = [run.job.budget.usd for run in launched if run.job.budget]
    assert whole * Decimal("0.99") <= sum(shares) <= whole
    assert round(shares[1] / shares[0], 1) == 3
    ledger = Ledger(home())
    approvals = [budgeting.approval_of(ledger, run.id) for run in launched]
    assert shares == [approval.budget_usd for approval in approvals if approval]


def test_runs_that_are_launched_do_not_count_twice_against_the_project(
    priced: Priced, workplace: Path
) -> None:
    job = swept(priced())
    (workplace / "budget.yaml").write_text(f"project_usd: {high(job)}\n", encoding="utf-8")
    next(launch_sweep(job))
    assert len(list(launch_sweep(job))) == 2
    with pytest.raises(OverBudget, match="the project's budget"):
        launch_sweep(swept(priced(), {"seed": [3, 4]}))


def test_an_unknown_price_is_no_budget_kept(priced: Priced) -> None:
    with pytest.raises(OverBudget, match="fake's price for the sweep of 2 runs is unknown"):
        launch_sweep(swept(priced("5", price="")))
    launched = list(launch_sweep(swept(priced("5", price="")), allow_unpriced=True))
    assert [run.job.budget.usd for run in launched if run.job.budget] == [Decimal("2.5")] * 2


def test_a_saved_plan_launches_its_runs_and_only_them(priced: Priced) -> None:
    job = swept(priced())
    planned = plan(job)
    with pytest.raises(Mismatch, match=r"job: tuning\.lora\.rank was"):
        launch_sweep(swept(priced(), {"lora": {"rank": [8, 32]}}), plan=planned)
    launched = list(launch_sweep(job, plan=planned))
    highs = [run.estimate.launch_usd.high for run in launched if run.estimate]  # pyright: ignore[reportOptionalMemberAccess]
    assert highs == [run.job.budget.usd for run in launched if run.job.budget]


def test_on_this_machine_a_run_waits_for_the_one_before(make_job: MakeJob) -> None:
    """The fake without a price trains here."""
    job = swept(make_job({"steps": 2, "steps_per_poll": 2}), {"seed": [1, 2]})
    states = [[run.state for run in runs()] for _ in launch_sweep(job)]
    assert states == [[State.QUEUED], [State.QUEUED, State.SUCCEEDED]]


def test_a_training_that_was_paused_goes_on(make_job: MakeJob) -> None:
    """As where a machine was switched off: its worker is gone, and the run stands still."""
    job = swept(make_job({"steps": 4, "steps_per_poll": 2, "pause_at_step": 2}))
    paused = [ended(run).id for run in launch_sweep(job)]
    assert [find_run(run_id).state for run_id in paused] == [State.PAUSED] * 2
    assert paused == [ended(run).id for run in launch_sweep(job)]
    assert [find_run(run_id).state for run_id in paused] == [State.SUCCEEDED] * 2


def test_a_refused_launch_ends_the_sweep_and_the_next_call_goes_on(
    priced: Priced, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = FakeBackend.submit

    def refuse_second(self: FakeBackend, launch: Any) -> str:
        if launch.job.tuning.lora.rank == 16:
            raise BackendError("no such rank", status=400)
        return submit(self, launch)

    with monkeypatch.context() as patch:
        patch.setattr(FakeBackend, "submit", refuse_second)
        with pytest.raises(BackendError, match="no such rank"):
            list(launch_sweep(swept(priced())))
    assert [run.state for run in runs()] == [State.FAILED, State.QUEUED]
    again = [run.name for run in launch_sweep(swept(priced()))]
    assert again == ["demo lora.rank=8", "demo lora.rank=16"]


def test_only_the_runs_of_a_sweep_are_watched(priced: Priced) -> None:
    other = launch(priced())
    launched = [run.id for run in launch_sweep(swept(priced()))]
    seen = {run.id for run in watch_all(0.001, only=launched)}
    assert set(launched) == seen
    assert other.id not in seen
