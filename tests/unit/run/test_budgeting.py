"""Money is set aside once, held to every limit, watched in flight, and settled at the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from threading import Barrier

import pytest
from crash.forks import Fork, Gate
from crash.postgres import new_database
from pydantic import JsonValue
from support.known import known
from support.records import a_deployment

from unitune.backends import registry
from unitune.backends.capabilities import JobPage
from unitune.backends.protocol import Event, State, Status
from unitune.cost.budget import ProjectBudget, Spent, project_budget
from unitune.cost.documents import Estimate
from unitune.cost.spread import Spread
from unitune.errors import BackendError, Mismatch, OverBudget, Unreachable, UnreadableRecord
from unitune.job.job import Job, TrainingBudget, Tuning
from unitune.ledger import Books, Ledger, RunRecord, budgeting
from unitune.planning import saved
from unitune.planning.plan import plan
from unitune.report import runs as runs_report
from unitune.run import handle, launching, run, watching
from unitune.testing.fake import FakeBackend
from unitune.workspace.home import home
from unitune.workspace.user_settings import today

from .conftest import Clock, Priced, change_ledger, ended, high


def spent_in(ledger: Ledger) -> Spent:
    """Return what all runs and deployments of a ledger have cost."""
    return budgeting.spent(budgeting.books_of(ledger), today())


def reckoned(job: Job) -> Estimate:
    return known(plan(job).estimate)


def launch_usd(job: Job) -> Spread:
    return known(reckoned(job).launch_usd)


def limit(folder: Path, **usd: object) -> None:
    lines = "".join(f"{name}: {amount}\n" for name, amount in usd.items())
    (folder / "budget.yaml").write_text(lines, encoding="utf-8")


def approval_of(launched: run.Run) -> budgeting.Approval:
    return known(budgeting.approval_of(Ledger(home()), launched.id))


@pytest.fixture
def price_rises(priced: Priced, monkeypatch: pytest.MonkeyPatch) -> None:
    """The price doubles between the plan and the create call."""
    honest = launching.upload

    def rises(*given: object) -> None:
        honest(*given)  # pyright: ignore[reportArgumentType]
        priced(price="2000")

    monkeypatch.setattr(launching, "upload", rises)


def other(job: Job) -> Job:
    """Another training, of the same cost."""
    return job.model_copy(update={"tuning": Tuning(learning_rate=0.5)})


def test_the_budget_is_held_against_high_and_not_against_what_is_expected(priced: Priced) -> None:
    usd = launch_usd(priced())
    assert usd.expected < usd.high
    with pytest.raises(OverBudget, match="the job's budget"):
        run.launch(priced(str(usd.expected)))
    assert run.runs() == [], "nothing was written down"
    assert State.SUCCEEDED is run.launch(priced(str(usd.high))).wait(0).state
    (cost,) = Ledger(home()).costs()
    assert cost.reserved is not None


@pytest.mark.parametrize("name", ["month_usd", "project_usd"])
def test_a_budget_counts_the_money_of_all_projects_of_the_user(
    priced: Priced, workplace: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    job = priced()
    limit(workplace, **{name: high(job) * Decimal("1.5")})
    for project in ("first", "second"):
        (workplace / project).mkdir()
        shutil.copy(workplace / "train.jsonl", workplace / project)
        shutil.copy(workplace / "validation.jsonl", workplace / project)
    monkeypatch.chdir(workplace / "first")
    run.launch(job.model_copy(update={"folder": workplace / "first"}))
    monkeypatch.chdir(workplace / "second")
    elsewhere = other(job).model_copy(update={"folder": workplace / "second"})
    assert "over-budget" in [finding.code for finding in plan(elsewhere).errors]
    with pytest.raises(OverBudget, match="spent or reserved"):
        run.launch(elsewhere)
    assert run.runs() == []
    assert len(run.runs(everywhere=True)) == 1


def test_a_run_that_no_budget_limits_is_not_held_up_by_what_others_have_cost(
    priced: Priced, workplace: Path
) -> None:
    """What stands in the ledger of another run's money, whole or damaged, is not its affair."""
    job = priced(script={"steps": 100, "steps_per_poll": 10})
    run.launch(job)
    change_ledger("UPDATE costs SET approval = '{'")
    launched = run.launch(other(job))
    while launched.refresh().state is not State.RUNNING:
        pass
    limit(workplace, project_usd=1_000_000)
    with pytest.raises(UnreadableRecord, match="approval"):
        run.launch(other(other(job)))


def test_a_new_month_has_money_again(
    priced: Priced, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = priced()
    limit(workplace, month_usd=high(job))
    run.launch(job)
    following = (today().replace(day=1).toordinal() + 40, today())[0]
    monkeypatch.setenv("UNITUNE_TODAY", today().fromordinal(following).isoformat())
    run.launch(other(priced()))


def test_an_unknown_price_is_refused_under_a_budget_and_recorded_when_taken(priced: Priced) -> None:
    job = priced("1000", price="")
    with pytest.raises(OverBudget, match="fake's price for the training is unknown"):
        run.launch(job)
    assert approval_of(run.launch(job, allow_unpriced=True)).unpriced


def test_a_file_that_is_not_the_one_that_was_reckoned_is_never_submitted(
    priced: Priced, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are changed between the plan and the upload."""
    honest = launching.upload

    def changed(ledger: Ledger, record: object, files: list[Path]) -> None:
        row = files[0].read_text(encoding="utf-8").splitlines()[0] + "\n"
        files[0].write_text(row * 50, encoding="utf-8")
        honest(ledger, record, files)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(launching, "upload", changed)
    with pytest.raises(Mismatch, match=r"uploaded train\.jsonl is not the file"):
        run.launch(priced("1000"))
    (kept,) = run.runs()
    assert kept.job_id is None


@pytest.mark.usefixtures("price_rises")
def test_a_price_that_rose_since_the_plan_is_held_against_the_budget_before_the_create_call(
    priced: Priced,
) -> None:
    job = priced(str(high(priced("100000"))))
    with pytest.raises(OverBudget, match="the job's budget"):
        run.launch(job)
    (kept,) = run.runs()
    assert (kept.state, kept.job_id) == (State.UPLOADING, None)
    assert State.CANCELLED is kept.cancel().state


def test_of_two_launches_at_once_only_one_gets_the_last_money(
    priced: Priced, workplace: Path
) -> None:
    job = priced()
    limit(workplace, project_usd=high(job) * Decimal("1.5"))
    Ledger(home())
    gate, asked = Gate(), [job, other(job)]

    def race(mine: Job) -> str:
        gate.wait()
        return run.launch(mine).id

    forks = [Fork(lambda mine=mine: race(mine)) for mine in asked]
    gate.open(len(forks))
    results = [fork.result() for fork in forks]
    assert sum("OverBudget" in result for result in results) == 1, results
    assert sum(cost.reserved is not None for cost in Ledger(home()).costs()) == 1


def test_a_launch_killed_after_its_money_was_set_aside_sets_none_aside_again(
    priced: Priced, workplace: Path
) -> None:
    job = priced(script={"submits": ["die before"]})
    limit(workplace, project_usd=high(job))
    fork = Fork(lambda: run.launch(job).id)
    fork.result()
    (killed,) = run.runs()
    assert State.SUBMITTING is killed.state
    assert State.SUCCEEDED is killed.resume().wait(0).state
    assert len(Ledger(home()).costs()) == 1


def test_a_resumed_launch_is_held_to_its_budget_at_the_prices_of_now(priced: Priced) -> None:
    script: dict[str, JsonValue] = {"submits": ["lose request", "lose request"]}
    usd = high(priced())
    with pytest.raises(Unreachable):
        run.launch(priced(str(usd), script=script))
    (lost,) = run.runs()
    priced(price="2000")
    with pytest.raises(OverBudget, match="the job's budget"):
        lost.resume()
    assert lost.job_id is None

    priced()
    assert State.SUCCEEDED is lost.resume().wait(0).state, "its own money is not in its way"


@pytest.mark.usefixtures("price_rises")
def test_what_is_set_aside_is_the_price_of_the_create_call(priced: Priced) -> None:
    job = priced("100000")
    usd = high(job)
    run.launch(job)
    assert spent_in(Ledger(home())).project_usd == 2 * usd


def test_a_resumed_launch_is_paid_from_the_month_that_is_now(
    priced: Priced, workplace: Path
) -> None:
    script: dict[str, JsonValue] = {"submits": ["lose request", "lose request"]}
    job = priced(script=script)
    limit(workplace, month_usd=high(job))
    with pytest.raises(Unreachable):
        run.launch(job)
    (lost,) = run.runs()
    change_ledger("UPDATE costs SET reserved = ?", Ledger(home()).now() - 32 * 86400)
    assert spent_in(Ledger(home())).month_usd == Decimal(0)
    lost.resume()
    assert high(job) == spent_in(Ledger(home())).month_usd
    with pytest.raises(OverBudget, match="the month's budget"):
        run.launch(other(priced()))


def test_a_deployment_that_outlives_its_time_costs_until_now() -> None:
    """10 hours have passed, 2 were asked for."""
    now = datetime(2026, 11, 20, tzinfo=UTC).timestamp()
    times = {"created": now - 36_000, "until": now - 28_800}
    overdue = a_deployment(usd_per_hour=Decimal(100), **times)
    gone = budgeting.spent(Books((), (overdue,), now), date(2026, 11, 20))
    assert (Decimal(1000), Decimal(1000)) == (gone.month_usd, gone.project_usd)
    early = budgeting.spent(Books((), (overdue,), now - 36_000), date(2026, 11, 20))
    assert early.project_usd == Decimal(200), "set aside until its end"
    ended = replace(overdue, ended=now - 32_400)
    assert budgeting.spent(Books((), (ended,), now), date(2026, 11, 1)).month_usd == Decimal(100)


@pytest.mark.usefixtures("workplace")
def test_deployments_at_once_share_one_budget() -> None:
    ledger = Ledger(home())
    now = ledger.now()
    project = ProjectBudget(project_usd=Decimal(15))
    gate = Gate()

    def race(number: int) -> str:
        times = {"created": now + number, "until": now + number + 7200}
        record = a_deployment(id=f"d{number}", usd_per_hour=Decimal(5), **times)
        gate.wait()
        budgeting.add_deployment(Ledger(home()), record, project)
        return "made"

    forks = [Fork(lambda number=number: race(number)) for number in range(2)]
    gate.open(len(forks))
    results = [fork.result() for fork in forks]
    assert sum("made" in result for result in results) == 1, results
    assert spent_in(Ledger(home())).project_usd == Decimal(10)


@pytest.mark.usefixtures("workplace")
def test_a_deployment_of_unknown_price_needs_a_word_where_a_budget_holds() -> None:
    ledger, project = Ledger(home()), ProjectBudget(month_usd=Decimal(100))
    record = a_deployment(created=ledger.now(), until=ledger.now() + 60)
    with pytest.raises(OverBudget, match="fake's price for the deployment is unknown"):
        budgeting.add_deployment(ledger, record, project)
    assert ledger.deployments() == []
    budgeting.add_deployment(ledger, record, project, unpriced=True)
    assert spent_in(ledger).unknown == 1


def test_of_budgets_in_a_folder_and_above_the_least_holds(tmp_path: Path) -> None:
    inner = tmp_path / "project" / "job"
    inner.mkdir(parents=True)
    limit(tmp_path / "project", month_usd="0.01", project_usd=30)
    assert project_budget(inner).month_usd == Decimal("0.01")
    limit(inner, month_usd=100000, project_usd=20)
    assert (Decimal("0.01"), Decimal(20)) == (
        project_budget(inner).month_usd,
        project_budget(inner).project_usd,
    )


def test_what_was_refused_costs_nothing(priced: Priced, workplace: Path) -> None:
    job = priced(script={"submits": ["refuse"]})
    limit(workplace, project_usd=high(job))
    with pytest.raises(Exception, match="refuses this job"):
        run.launch(job)
    assert spent_in(Ledger(home())).project_usd == Decimal(0)
    assert State.SUCCEEDED is run.launch(other(priced())).wait(0).state


def test_a_second_attempt_finds_less_in_the_jobs_budget(priced: Priced) -> None:
    job = priced(script={"fail_at_step": 3}, failed="everything")
    job = job.model_copy(update={"budget": TrainingBudget(usd=high(job) * Decimal("1.2"))})
    launched = run.launch(job)
    ended(launched)
    assert State.FAILED is launched.state
    with pytest.raises(OverBudget, match="spent or reserved"):
        launched.resume()


def test_a_run_is_cancelled_when_its_steps_pass_what_is_left(
    priced: Priced, workplace: Path
) -> None:
    """The project's budget was lowered while it ran."""
    job = priced(script={"steps": 100, "steps_per_poll": 10})
    limit(workplace, project_usd=high(job))
    launched = run.launch(job)
    limit_now(launched, high(job) / 2)
    ended(launched)
    assert State.CANCELLED is launched.state
    (told,) = [event for event in launched.events() if event.key == launching.OVERRUN]
    assert "the project's budget" in str(told.data["text"])
    steps = [int(str(one.data["step"])) for one in launched.events() if one.kind == "step"]
    assert 50 < max(steps) <= 70, "at the next look after half the steps"


def limit_now(launched: run.Run, usd: Decimal) -> None:
    """Lower the limit that a run was launched under, as its ledger has it."""
    approval = approval_of(launched)
    project = approval.project.model_copy(update={"project_usd": usd})
    lowered = approval.model_copy(update={"project": project}).model_dump_json()
    change_ledger("UPDATE costs SET approval = ? WHERE run_id = ?", lowered, launched.id)


def test_a_run_by_the_hour_is_cancelled_one_look_before_its_limit(priced: Priced) -> None:
    """100 dollars an hour and a limit of 2: 72 seconds, of which the last 30 are not waited for."""
    script = {"steps": 1000, "seconds_per_step": 0.01}
    job = priced(price="100/hour", script=script)
    budget = TrainingBudget(usd=Decimal(2), hours=Decimal("0.01"))
    launched = run.launch(job.model_copy(update={"budget": budget}))
    while launched.refresh().state is State.QUEUED:
        pass
    ledger = Ledger(home())
    record = ledger.record(launched.id)
    assert record.state is State.RUNNING
    assert budgeting.overrun(ledger, record) is None
    later = ledger.now() + 7
    ledger.now = lambda: later
    told = known(budgeting.overrun(ledger, record))
    assert "its limit is 0.01 hours" in told, "36 seconds, less the 30 of a look"


@pytest.mark.parametrize("everything", [False, True], ids=["watch", "watch --all"])
def test_a_run_is_cancelled_for_its_cost_while_its_vendor_refuses_to_tell_how_it_stands(
    priced: Priced, clock: Clock, monkeypatch: pytest.MonkeyPatch, *, everything: bool
) -> None:
    """Asked too often, the vendor wants half an hour of quiet; the run may take 36 seconds."""
    job = priced(price="100/hour", script={"steps": 1000, "seconds_per_step": 0.1})
    budget = TrainingBudget(usd=Decimal(200), hours=Decimal("0.01"))
    launched = run.launch(job.model_copy(update={"budget": budget}))
    while launched.refresh().state is not State.RUNNING:
        clock.now += 1
    begun = clock.now
    told: list[float] = []
    cancel, poll = FakeBackend.cancel, FakeBackend.poll

    def refusing(backend: FakeBackend, job_id: str, cursor: str) -> Status:
        if told:
            return poll(backend, job_id, cursor)
        raise BackendError("slow down.", status=429, retry_after=1800)

    def cancelled(backend: FakeBackend, job_id: str) -> None:
        told.append(clock.now - begun)
        cancel(backend, job_id)

    for module in (handle, watching):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(FakeBackend, "poll", refusing)
    monkeypatch.setattr(FakeBackend, "cancel", cancelled)
    for _ in watching.watch_all() if everything else launched.watch():
        pass
    assert State.CANCELLED is launched.refresh().state
    assert told[0] <= 36


def test_epochs_that_the_vendor_adds_end_a_run_before_they_are_paid(
    priced: Priced, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = priced(script={"steps": 1000})
    launched = run.launch(priced(str(high(job)), script={"steps": 1000}))
    honest = FakeBackend.poll

    def many(self: FakeBackend, job_id: str, cursor: str) -> Status:
        seen = honest(self, job_id, cursor)
        return Status(seen.state, seen.raw, seen.events, seen.cursor, seen.model, epochs=20)

    monkeypatch.setattr(FakeBackend, "poll", many)
    ended(launched)
    assert State.CANCELLED is launched.state
    assert any("more epochs than estimated" in str(each.data) for each in launched.events())


def billed(monkeypatch: pytest.MonkeyPatch, tokens: int | None, usd: str | None = None) -> None:
    """Let the fake say what it bills."""
    honest = FakeBackend.poll

    def poll(self: FakeBackend, job_id: str, cursor: str) -> Status:
        seen = honest(self, job_id, cursor)
        money = Decimal(usd) if usd else None
        return Status(
            seen.state, seen.raw, seen.events, seen.cursor, seen.model, seen.error, tokens, money
        )

    monkeypatch.setattr(FakeBackend, "poll", poll)


def test_a_bill_stands_beside_its_estimate(priced: Priced, monkeypatch: pytest.MonkeyPatch) -> None:
    job = priced()
    counted = known(reckoned(job).epoch_tokens)
    tokens = 2 * (counted.expected + 6)  # a token more in each of the 6 rows
    usd = Decimal(tokens) * Decimal("1.1") / 1000
    billed(monkeypatch, tokens, str(usd))
    found = known(run.launch(job).wait(0).reconciliation)
    assert (tokens, usd, 2) == (found.bill.tokens, found.usd, found.epochs)
    assert found.framing_error == Decimal(1)
    assert abs(known(found.price_drift) - Decimal("0.1")) < Decimal("0.000001")
    assert not found.provisional
    assert usd == spent_in(Ledger(home())).project_usd


def test_a_cancelled_run_is_settled_by_the_vendors_rule_and_provisionally(priced: Priced) -> None:
    script = {"steps": 10, "steps_per_poll": 1}
    job = priced(script=script, cancelled="completed-steps")
    launched = run.launch(job)
    for _ in range(4):
        launched.refresh()
    launched.cancel()
    ended(launched)
    found = known(launched.reconciliation)
    assert (found.provisional, found.end) == (True, "cancelled")
    assert launch_usd(job).expected * known(found.bill.share) == found.usd


def test_what_is_cancelled_where_no_rule_is_known_has_an_unknown_cost(priced: Priced) -> None:
    launched = run.launch(priced(script={"steps": 50}))
    launched.cancel()
    ended(launched)
    assert known(launched.reconciliation).usd is None
    assert high(priced()) == spent_in(Ledger(home())).project_usd, "at most"


@pytest.mark.parametrize(
    ("tokens", "usd"), [(5, None), (10**18, None), (10**18, "1e15")], ids=["few", "many", "dear"]
)
def test_an_implausible_bill_is_shown_and_neither_booked_nor_learnt_from(
    priced: Priced, monkeypatch: pytest.MonkeyPatch, tokens: int, usd: str | None
) -> None:
    """6 rows are trained on."""
    billed(monkeypatch, tokens, usd)
    found = known(run.launch(priced()).wait(0).reconciliation)
    assert found.implausible
    assert (found.lesson, found.usd) == (None, None)
    assert high(priced()) == spent_in(Ledger(home())).project_usd, "at most"
    shown = runs_report.billed(found)
    assert f"{tokens:,} trained tokens" in shown
    assert "is implausible and is not booked" in shown


def test_a_stated_price_is_booked_beside_an_implausible_count(
    priced: Priced, monkeypatch: pytest.MonkeyPatch
) -> None:
    high_usd = high(priced())
    billed(monkeypatch, 10**18, str(high_usd))
    found = known(run.launch(priced()).wait(0).reconciliation)
    assert (True, high_usd, None) == (found.implausible, found.usd, found.lesson)


def test_a_minimum_charge_far_above_a_small_estimate_is_booked(
    priced: Priced, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together is reported to charge at least $4.00 for a job."""
    minimum = Decimal("9.99")
    assert minimum > 10 * high(priced())
    billed(monkeypatch, 60, str(minimum))
    found = known(run.launch(priced()).wait(0).reconciliation)
    assert found.usd == minimum
    assert not found.implausible


def test_counts_and_amounts_below_zero_are_unknown(
    priced: Priced, monkeypatch: pytest.MonkeyPatch
) -> None:
    billed(monkeypatch, -1_000_000, "-6.60")
    found = known(run.launch(priced()).wait(0).reconciliation)
    assert (found.bill.tokens, found.bill.usd, found.usd) == (None, None, None)
    assert spent_in(Ledger(home())).project_usd > 0


@pytest.mark.parametrize(("written", "charged"), [(0.0, 0), (4e9, 1)])
def test_a_failed_run_by_the_hour_is_charged_until_its_last_checkpoint(
    priced: Priced, monkeypatch: pytest.MonkeyPatch, written: float, charged: int
) -> None:
    """One checkpoint is older than the run, the other newer than all that it did."""
    honest = FakeBackend.poll

    def poll(self: FakeBackend, job_id: str, cursor: str) -> Status:
        seen = honest(self, job_id, cursor)
        saved = Event("saved", "checkpoint", written, {"step": 1})
        return replace(seen, events=(*seen.events, saved))

    monkeypatch.setattr(FakeBackend, "poll", poll)
    script = {"steps": 10, "steps_per_poll": 1, "fail_at_step": 5}
    job = priced(price="100/hour", script=script, failed="to-checkpoint")
    launched = run.launch(job)
    ended(launched)
    found = known(launched.reconciliation)
    assert known(found.bill.hours) * 100 * charged == found.usd


def test_three_bills_narrow_the_next_range_and_two_do_not(
    priced: Priced, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = known(reckoned(priced()).epoch_tokens)
    assert wide.low < wide.high
    truth = wide.low + (wide.high - wide.low) // 3
    billed(monkeypatch, 2 * truth)
    for number in range(3):
        assert wide == reckoned(priced()).epoch_tokens, f"after {number} bills"
        rate = 0.1 + number / 10
        run.launch(priced().model_copy(update={"tuning": Tuning(learning_rate=rate)})).wait(0)
    made = reckoned(priced())
    narrow = known(made.epoch_tokens)
    assert abs(narrow.low - truth) <= 1
    assert narrow.high - narrow.low <= 2
    assert wide == made.counted_tokens
    assert any("3 earlier runs" in line for line in made.assumptions)


def test_what_a_deleted_run_has_cost_stays_spent(
    priced: Priced, monkeypatch: pytest.MonkeyPatch
) -> None:
    billed(monkeypatch, 500)
    done = run.launch(priced()).wait(0)
    before = spent_in(Ledger(home()))
    done.delete(force=True)
    assert run.runs() == []
    assert before == spent_in(Ledger(home()))


@pytest.fixture
def saved_plan(priced: Priced, workplace: Path) -> Path:
    """The saved plan of a job that is saved, too."""
    job, job_file, file = priced(), workplace / "unitune.yaml", workplace / "plan.json"
    job.save(job_file)
    file.write_text(saved.saved_text(plan(job), file, job_file))
    return file


def test_a_saved_plan_is_launched_while_it_holds(priced: Priced, saved_plan: Path) -> None:
    found = saved.read(saved_plan)
    launched = run.launch(saved.job_of(found, saved_plan), plan=found).wait(0)
    assert State.SUCCEEDED is launched.state
    assert high(priced()) == approval_of(launched).budget_usd


def test_a_saved_plan_is_refused_with_what_has_changed(
    priced: Priced, workplace: Path, saved_plan: Path
) -> None:
    found = saved.read(saved_plan)
    priced(price="1001").model_copy(update={"tuning": Tuning(epochs=3)}).save(
        workplace / "unitune.yaml"
    )
    with (workplace / "train.jsonl").open("a", encoding="utf-8") as rows:
        rows.write('{"prompt": "new", "completion": "a"}\n')
    with pytest.raises(Mismatch) as refusal:
        run.launch(saved.job_of(found, saved_plan), plan=found)
    told = str(refusal.value)
    assert refusal.value.exit_code == 5
    assert "job: tuning.epochs was 'auto', is 3" in told
    assert "data: the rows in train.jsonl have changed" in told
    assert "price: training of * was $1000 a million tokens" in told
    assert run.runs() == []


def test_a_killed_watcher_leaves_a_cancel_that_the_next_one_sends(
    priced: Priced, workplace: Path
) -> None:
    job = priced(script={"steps": 1000, "steps_per_poll": 300})
    limit(workplace, project_usd=high(job))
    launched = run.launch(job)
    limit_now(launched, high(job) / 2)

    def die(self: FakeBackend, job_id: str) -> None:
        del self, job_id
        os.kill(os.getpid(), signal.SIGKILL)

    def watch_and_die() -> None:
        FakeBackend.cancel = die  # pyright: ignore[reportAttributeAccessIssue]
        ended(run.find_run(launched.id))

    Fork(watch_and_die).result()
    left = run.find_run(launched.id)
    assert State.CANCELLING is left.state
    ended(left)
    assert State.CANCELLED is left.state


class ListingFake(FakeBackend):
    """The fake as a vendor that lists its jobs, so that runs without news are not polled."""

    def list_jobs(self, cursor: str) -> JobPage:
        del cursor
        return JobPage({str(each.job_id): State.RUNNING for each in run.runs()})


def test_one_that_watches_all_ends_what_costs_too_much_though_the_list_shows_no_change(
    priced: Priced, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "backend", {"fake": ListingFake()}.__getitem__)
    job = priced(script={"steps": 100, "steps_per_poll": 10})
    limit(workplace, project_usd=high(job))
    launched = run.launch(job)
    limit_now(launched, high(job) / 2)
    assert State.CANCELLED is list(watching.watch_all(0))[-1].state


def test_more_threads_than_connections_set_their_money_aside(
    priced: Priced, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits for the one before it, and that one for no connection that they hold."""
    with new_database() as url:
        monkeypatch.setenv("UNITUNE_LEDGER", url)
        run.launch(priced("1000"))
        ledger = Ledger(home())
        (first,) = ledger.records()
        approval = json.loads(ledger.costs(first.id)[0].approval) | {"files": {}}
        # No id has a u, so none of these is the first one's.
        records = [replace(first, id=f"{first.id[:-3]}u{number:02}") for number in range(40)]
        for record in records:
            ledger.add(record, approval=json.dumps(approval), again=True)
        start = Barrier(len(records))

        def set_aside(record: RunRecord) -> None:
            start.wait(60)
            budgeting.reserve(ledger, record)

        with ThreadPoolExecutor(len(records)) as threads:
            list(threads.map(set_aside, records))
        assert all(cost.reserved is not None for cost in ledger.costs())
