"""The process that ends a deployment does so whatever happens to the ledger, the clock, or it."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("boto3", reason="needs the extra `bedrock`")

from crash.postgres import STORES, a_store, the_server
from support.served import at_the_vendor, trained, wait_until
from support.warm import WARM_SUBPROCESS, warm_run
from vendors.serving import ServedVendor, serve_vendor

from unitune.errors import LockTimeout, UnituneError, Unreachable
from unitune.ledger import DeploymentRecord, Ledger
from unitune.ledger.holders import Holder, this_process
from unitune.run import deploying, deployment, reaper
from unitune.run.deploying import deploy, deployments, without_reaper
from unitune.run.run import Run
from unitune.workspace.home import home

DELETE = r"/custom-model-deployments"
LOOKED = "looks again"
QUICK_REAPER = f"""
import sys, time
from unitune.run import reaper
reaper.LOOK_SECONDS, reaper.TRY_AGAIN_SECONDS = 0.1, 0.5
reaper._keep_log(sys.argv[1])
pause = time.sleep
def sleep(seconds):
    reaper.log.info("{LOOKED}")
    pause(seconds)
time.sleep = sleep
reaper.reap(sys.argv[1], None)
"""
on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("store", ["postgresql"], indirect=True)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with a_store(request.param) as url:
        monkeypatch.setenv("UNITUNE_LEDGER", url)
        yield request.param


@pytest.fixture
def vendor(store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ServedVendor]:
    del store
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    monkeypatch.setattr(deployment, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(reaper, "subprocess", WARM_SUBPROCESS)
    with serve_vendor("bedrock") as served:
        yield served


@pytest.fixture
def left() -> Iterator[list[Holder]]:
    """Processes that were left behind; none outlives its test, whose ledger goes with it."""
    left: list[Holder] = []
    yield left
    for process in left:
        if process.life == "running":
            os.kill(process.pid, signal.SIGKILL)


@pytest.fixture(autouse=True)
def noted(left: list[Holder], monkeypatch: pytest.MonkeyPatch) -> None:
    real = deploying.leave_reaper

    def leave(folder: Path, deployment_id: str, *arguments: Any) -> None:
        real(folder, deployment_id, *arguments)
        left.append(note_reaper(folder, deployment_id))

    monkeypatch.setattr(deploying, "leave_reaper", leave)


def note_reaper(folder: Path, deployment_id: str) -> Holder:
    found = reaper.reaper_of(folder, deployment_id)
    assert found is not None
    return found.holder


@pytest.fixture
def run(vendor: ServedVendor, tmp_path: Path) -> Run:
    return trained(vendor, tmp_path)


@pytest.fixture
def no_reaper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploying, "_leave_reaper", lambda *_: None)


def record_of(made: deploying.Deployment) -> DeploymentRecord:
    return Ledger(home()).deployment(made.id)


def change(made: deploying.Deployment, **values: object) -> None:
    """Write something else into the ledger, as whoever brings a ledger of their own can."""
    Ledger(home()).write_deployment(replace(record_of(made), **values))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = warm_run(
        [sys.executable, "-m", "unitune", *arguments], env={**os.environ, "COLUMNS": "200"}
    )
    assert done.returncode == 0, done.stderr
    return done


def quick_reaper(deployment_id: str) -> subprocess.Popen[bytes]:
    """Start a reaper that looks often, and return when it has read the ledger."""
    process = subprocess.Popen([sys.executable, "-c", QUICK_REAPER, deployment_id])
    log = reaper.log_file(home(), deployment_id)
    wait_until(lambda: log.exists() and LOOKED in log.read_text(encoding="utf-8"))
    return process


@on_sqlite
@pytest.mark.usefixtures("no_reaper")
def test_a_reaper_outlives_a_home_that_is_away_for_a_while(run: Run, tmp_path: Path) -> None:
    made = deploy(run, ttl=8)
    watching = quick_reaper(made.id)
    (tmp_path / "home").rename(tmp_path / "away")
    missed = reaper.log_file(tmp_path / "away", made.id)
    wait_until(lambda: "no longer exists" in missed.read_text(encoding="utf-8"))
    assert not (tmp_path / "home").exists()
    (tmp_path / "away").rename(tmp_path / "home")
    assert at_the_vendor(run, made.id)
    assert watching.wait(30) == 0
    assert at_the_vendor(run, made.id) is None
    ended = record_of(made).ended
    assert ended is not None
    assert made.until <= datetime.fromtimestamp(ended, UTC)
    log = reaper.log_file(tmp_path / "home", made.id)
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@on_postgresql
@pytest.mark.usefixtures("no_reaper")
def test_a_reaper_outlives_a_restart_of_the_server_under_it(run: Run) -> None:
    made = deploy(run, ttl=8)
    watching = quick_reaper(made.id)
    the_server().restart(away_seconds=1)
    assert at_the_vendor(run, made.id)
    assert watching.wait(30) == 0
    assert at_the_vendor(run, made.id) is None
    assert record_of(made).ended is not None


@on_sqlite
@pytest.mark.usefixtures("no_reaper")
def test_a_reaper_that_finds_no_ledger_at_the_end_takes_the_deployment_down_all_the_same(
    run: Run, tmp_path: Path
) -> None:
    made = deploy(run, ttl=6)
    watching = quick_reaper(made.id)
    (tmp_path / "home").rename(tmp_path / "away")
    wait_until(lambda: at_the_vendor(run, made.id) is None)
    assert watching.poll() is None
    (tmp_path / "away").rename(tmp_path / "home")
    assert watching.wait(30) == 0
    assert record_of(made).ended is not None


@on_sqlite
@pytest.mark.usefixtures("no_reaper")
def test_a_reaper_survives_every_kind_of_error_and_looks_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = deploy(run, ttl=0.01)
    faults: list[Exception] = [
        UnituneError("the ledger cannot be used: disk I/O error"),
        Unreachable("the ledger cannot be reached"),
        OSError(errno.EIO, os.strerror(errno.EIO)),
        MemoryError(),
        TimeoutError("no connection left in the pool"),
        KeyError("id"),
    ]
    told = len(faults)
    real = Ledger.deployment

    def failing(ledger: Ledger, deployment_id: str) -> DeploymentRecord:
        if faults:
            raise faults.pop()
        return real(ledger, deployment_id)

    monkeypatch.setattr(Ledger, "deployment", failing)
    pauses: list[float] = []
    monkeypatch.setattr(reaper.time, "sleep", pauses.append)
    reaper.reap(made.id, None)
    assert pauses[:told] == [1, 2, 4, 8, 16, 32]
    assert at_the_vendor(run, made.id) is None


@on_sqlite
@pytest.mark.usefixtures("no_reaper")
def test_a_deployment_that_the_ledger_has_forgotten_is_taken_down_in_time(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older copy of the ledger was put back: nobody else knows of the deployment."""
    made = deploy(run, ttl=2)
    known, real = [record_of(made)], Ledger.deployment

    def forgetful(ledger: Ledger, deployment_id: str) -> DeploymentRecord:
        return known.pop() if known else real(ledger, f"{deployment_id}0")

    monkeypatch.setattr(Ledger, "deployment", forgetful)
    monkeypatch.setattr(reaper, "LOOK_SECONDS", 0.1)
    begun = time.monotonic()
    reaper.reap(made.id, None)
    assert time.monotonic() - begun > 1
    assert at_the_vendor(run, made.id) is None


@on_sqlite
@pytest.mark.usefixtures("no_reaper")
def test_a_ledger_that_vanishes_while_it_is_read_has_not_forgotten_the_deployment(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = deploy(run, ttl=3)
    there, away = tmp_path / "home", tmp_path / "away"
    real, reads = Ledger.deployment, [made.id]

    def vanishing(ledger: Ledger, deployment_id: str) -> DeploymentRecord:
        if reads:
            reads.pop()
        elif at_the_vendor(run, made.id):
            there.rename(away)
        return real(ledger, deployment_id)

    def put_back() -> None:
        wait_until(lambda: at_the_vendor(run, made.id) is None)
        away.rename(there)

    monkeypatch.setattr(Ledger, "deployment", vanishing)
    monkeypatch.setattr(reaper, "LOOK_SECONDS", 0.1)
    puts_back = threading.Thread(target=put_back)
    puts_back.start()
    reaper.reap(made.id, None)
    puts_back.join()
    assert record_of(made).ended is not None


@on_sqlite
@pytest.mark.usefixtures("no_reaper")
def test_a_reaper_leaves_a_deployment_that_no_ledger_ever_had(run: Run) -> None:
    assert run
    reaper.reap("r261126-000000000000-d1", None)


@pytest.mark.usefixtures("no_reaper")
def test_a_pid_that_another_process_has_now_is_not_taken_for_the_parent(run: Run) -> None:
    made = deploy(run, ttl=3600)
    reaper.reap(made.id, replace(this_process(), started="1"))
    assert at_the_vendor(run, made.id) is None


@pytest.mark.parametrize("hours", [2, -2])
def test_a_clock_that_is_set_takes_nothing_down_and_leaves_nothing_standing(
    run: Run, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """The reaper counts seconds; only a server's clock speaks for several machines."""
    real = time.time
    made = deploy(run, ttl=3600)
    monkeypatch.setattr(deploying, "_unfinished", lambda _: None)  # a second one beside it
    soon = deploy(run, ttl=4)
    monkeypatch.setattr(time, "time", lambda: real() + 3600 * hours)
    assert made.id in [one.id for one in deployments(standing=True)]
    wait_until(lambda: at_the_vendor(run, soon.id) is None)
    wait_until(lambda: [one.id for one in deployments(standing=True)] == [made.id])
    made.take_down()


def test_of_two_deploys_at_once_one_is_told_that_it_lost(
    run: Run, vendor: ServedVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, meet = deploying._planned, threading.Barrier(2)
    left: list[str] = []

    def together(*arguments: object) -> DeploymentRecord:
        record = planned(*arguments)
        meet.wait()
        return record

    monkeypatch.setattr(deploying, "_planned", together)
    monkeypatch.setattr(deploying, "_leave_reaper", lambda _, record, __: left.append(record.id))
    told: list[object] = []

    def deploy_one() -> None:
        try:
            told.append(deploy(run, ttl=60).id)
        except UnituneError as error:
            told.append(error)

    both = [threading.Thread(target=deploy_one) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    (won,) = (one for one in told if isinstance(one, str))
    (lost,) = (one for one in told if isinstance(one, LockTimeout))
    assert "damaged" not in str(lost)
    assert left == [one.id for one in deployments()] == [won]
    assert len(vendor.server.received("POST", DELETE)) == 1


@on_sqlite
@pytest.mark.usefixtures("no_reaper")
@pytest.mark.parametrize(
    "forged", [{"ref": "arn:aws:bedrock:::x/PRODUCTION"}, {"name": "production"}], ids=str
)
def test_what_this_ledger_is_not_seen_to_have_put_up_is_left_alone(
    run: Run, vendor: ServedVendor, caplog: pytest.LogCaptureFixture, forged: dict[str, str]
) -> None:
    made = deploy(run, ttl=3600)
    if "name" in forged:
        assert run.tuned_model is not None
        ref = deploying.host_of(run.backend_name).deploy(run.tuned_model, forged["name"], {})
        forged = {**forged, "ref": ref}
    change(made, **forged, until=0.0)
    (one,) = deployments()
    assert one.stands
    assert vendor.server.received("DELETE", "") == []
    assert "unitune did not create it" in caplog.text


@on_sqlite
@pytest.mark.usefixtures("no_reaper")
def test_what_is_gone_at_the_vendor_is_written_down_as_gone(run: Run, vendor: ServedVendor) -> None:
    made = deploy(run, ttl=3600)
    deploying.host_of(run.backend_name).undeploy(str(record_of(made).ref))
    change(made, until=0.0)
    assert not deployments()[0].stands
    assert len(vendor.server.received("DELETE", "")) == 1


@on_sqlite
@pytest.mark.usefixtures("no_reaper")
def test_a_line_tells_of_each_that_was_overdue(run: Run) -> None:
    made = deploy(run, ttl=3600)
    change(made, until=0.0)
    told = command("deployments", "--json").stderr
    assert told.splitlines() == [f"deployment {made.id} was overdue and was taken down at bedrock"]


def test_a_reaper_that_has_ended_is_missed_and_started_again(run: Run, left: list[Holder]) -> None:
    made = deploy(run, ttl=3600, while_pid=os.getpid())
    assert made.reaper is not None
    assert made.reaper.life == "running"
    assert without_reaper() == []
    os.kill(made.reaper.holder.pid, signal.SIGKILL)
    wait_until(lambda: [one.id for one in without_reaper()] == [made.id])
    advice = f"unitune deployments down {made.id}"
    assert advice in command("deployments").stderr
    assert advice in command("doctor").stdout
    assert "is watched again" in command("deployments", "--reap").stderr
    left.append(note_reaper(home(), made.id))
    assert without_reaper() == []
    assert advice not in command("deployments").stderr
    assert made.reaper is not None
    assert this_process().text == made.reaper.parent
    made.take_down()
    assert made.reaper is None


@on_sqlite
@pytest.mark.usefixtures("no_reaper")
def test_on_one_machine_a_deployment_without_a_reaper_is_told(run: Run) -> None:
    made = deploy(run, ttl=3600)
    assert [one.id for one in without_reaper()] == [made.id]


@on_postgresql
@pytest.mark.usefixtures("no_reaper")
def test_of_what_another_machine_has_put_up_nothing_is_said(run: Run) -> None:
    deploy(run, ttl=3600)
    assert without_reaper() == []


@on_sqlite
@pytest.mark.usefixtures("no_reaper")
def test_what_comes_up_after_its_time_is_taken_down_again(
    run: Run, vendor: ServedVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = type(deploying.host_of("bedrock")).deploy

    def late(*arguments: object) -> str:
        (planned,) = Ledger(home()).deployments()
        Ledger(home()).write_deployment(replace(planned, state="gone", ended=planned.until))
        return real(*arguments)

    monkeypatch.setattr(type(deploying.host_of("bedrock")), "deploy", late)
    with pytest.raises(UnituneError, match="after its end time"):
        deploy(run, ttl=60)
    assert at_the_vendor(run, f"{run.id}-d1") is None
    assert vendor.server
