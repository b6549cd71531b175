"""A deployment is asked for, has an end, and ends: by its time, with its process, after a crash."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("together", reason="needs the vendors' extras")
pytest.importorskip("boto3", reason="needs the vendors' extras")

from support.served import at_the_vendor, served_job, trained, wait_until
from support.warm import WARM_SUBPROCESS
from vendors.serving import ServedVendor, serve_vendor
from vendors.together import vendor as together

import unitune
from unitune import main as cli
from unitune.backends import exactly_once, registry
from unitune.errors import BackendError, JobError, NotFoundError, UserError
from unitune.evaluate.compare import compare
from unitune.job.job import Data, Evaluate
from unitune.ledger import DeploymentRecord, Ledger
from unitune.ledger.holders import this_process
from unitune.models import TunedModel
from unitune.run import deploying, deployment, reaper
from unitune.run.deploying import deploy, find_deployment, standing
from unitune.run.deployment import answering, deployments
from unitune.run.run import Run, launch
from unitune.testing.loopback import Fault
from unitune.workspace.home import home

OPTIONS = {"together": {"config": "cr_one"}, "bedrock": {}, "azure": {}, "nebius": {}}
DEPLOY = {
    "together": ("POST", r"/deployments$"),
    "bedrock": ("POST", r"/custom-model-deployments"),
    "azure": ("PUT", r"/deployments/"),
    "nebius": ("POST", r"/v0/models$"),
}
"""Method and path of the call that brings a model up, by vendor."""


@pytest.fixture(params=sorted(OPTIONS))
def vendor(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[ServedVendor]:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    monkeypatch.setattr(deployment, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(reaper, "subprocess", WARM_SUBPROCESS)
    with serve_vendor(request.param) as served:
        yield served


@pytest.fixture
def no_reaper(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The deployments that a process would have been left behind for."""
    left: list[str] = []
    monkeypatch.setattr(deploying, "_leave_reaper", lambda _, record, __: left.append(record.id))
    return left


@pytest.fixture
def run(vendor: ServedVendor, tmp_path: Path) -> Run:
    return trained(vendor, tmp_path)


def requested(run: Run) -> TunedModel:
    """What requests for the run's model go to."""
    assert run.tuned_model is not None
    return answering(run.id, run.tuned_model)


def options(run: Run) -> dict[str, str]:
    return OPTIONS[run.backend_name]


@pytest.mark.usefixtures("no_reaper")
def test_a_model_answers_from_its_deployment_until_it_is_taken_down(run: Run) -> None:
    with pytest.raises(UserError, match=f"unitune deployments up {run.id} --ttl 2h"):
        requested(run)
    made = deploy(run, options=options(run)).wait()
    assert (made.state, made.stands) == ("ready", True)
    assert made.tuned_model == requested(run) != run.tuned_model
    assert [one.id for one in deployments(standing=True)] == [made.id]
    assert made.id == find_deployment(run.id).id

    find_deployment(made.id).take_down()

    assert at_the_vendor(run, made.id) is None
    assert deployments(standing=True) == []
    assert [one.state for one in deployments()] == ["gone"]


@pytest.mark.usefixtures("no_reaper")
def test_the_runs_model_is_asked_while_its_deployment_stands(run: Run) -> None:
    none_ready = f"unitune deployments up {run.id} --ttl 2h"
    with pytest.raises(UserError, match=none_ready):
        run.model.ask("7?")
    with deploy(run, ttl="30m", options=options(run)) as made:
        assert made.state == "ready"
        assert run.model.ask("7?")
        assert asyncio.run(run.model.reply("7?")).text
    assert at_the_vendor(run, made.id) is None
    with pytest.raises(BackendError, match="did not answer"):
        run.model.ask("7?")
    with pytest.raises(UserError, match=none_ready):
        run.model.ask("7?")


def test_a_time_that_is_none_deploys_nothing(run: Run, vendor: ServedVendor) -> None:
    times: tuple[Any, ...] = ("2 weeks", "0h", "", 0, -1.0, timedelta(0))
    for ttl in times:
        with pytest.raises(UserError, match="write a time such as 30m, 2h or 1d"):
            deploy(run, ttl=ttl)
    assert vendor.server.received(*DEPLOY[run.backend_name]) == []


@pytest.mark.usefixtures("no_reaper")
def test_training_and_comparing_deploy_nothing(run: Run, vendor: ServedVendor) -> None:
    with pytest.raises(UserError):
        requested(run)
    assert vendor.server.received(*DEPLOY[run.backend_name]) == []


@pytest.mark.usefixtures("no_reaper")
def test_what_it_has_cost_is_price_times_time(run: Run) -> None:
    made = deploy(run, options=options(run))
    ledger = Ledger(home())
    record = ledger.deployment(made.id)
    ledger.write_deployment(
        type(record)(
            **{name: getattr(record, name) for name in record.__slots__}
            | {"usd_per_hour": Decimal("1.70"), "created": time.time() - 5400}
        )
    )
    assert float(find_deployment(made.id).usd_spent or 0) == 2.55
    made = find_deployment(made.id).take_down()
    assert float(made.usd_spent or 0) == 2.55


@pytest.mark.usefixtures("no_reaper")
def test_every_look_takes_down_what_is_overdue(run: Run) -> None:
    made = deploy(run, ttl=0.01, options=options(run))
    time.sleep(0.02)
    assert deployments(standing=True) == []
    assert at_the_vendor(run, made.id) is None


@pytest.mark.usefixtures("no_reaper")
def test_a_refused_deployment_does_not_stand(run: Run) -> None:
    with pytest.raises(JobError):
        deploy(run, options={"no-such-option": "1"})
    (one,) = deployments()
    assert (one.state, one.stands) == ("failed", False)


@pytest.mark.usefixtures("no_reaper")
def test_a_deployment_that_is_refused_half_way_leaves_nothing(
    run: Run, vendor: ServedVendor
) -> None:
    if run.backend_name == "together":
        with pytest.raises(JobError, match="several configurations"):
            deploy(run)
    vendor.server.inject_fault(Fault.EXPIRED_KEY, *DEPLOY[run.backend_name])
    with pytest.raises(BackendError):
        deploy(run, options=options(run))
    assert deployments(standing=True) == []
    assert [None] * len(deployments()) == [at_the_vendor(run, one.id) for one in deployments()]


@pytest.mark.usefixtures("no_reaper")
def test_what_a_refused_deployment_left_and_cannot_be_removed_is_listed(
    run: Run, vendor: ServedVendor
) -> None:
    vendor.server.inject_fault(Fault.EXPIRED_KEY, *DEPLOY[run.backend_name])
    vendor.server.inject_fault(Fault.EXPIRED_KEY, "DELETE", "")
    with pytest.raises(BackendError):
        deploy(run, options=options(run))
    left = [one.id for one in deployments() if at_the_vendor(run, one.id)]
    assert left == [one.id for one in deployments(standing=True)]
    for one in left:
        find_deployment(one).take_down()
        assert at_the_vendor(run, one) is None


@pytest.mark.usefixtures("no_reaper")
def test_a_block_brings_a_model_up_by_the_options_that_it_is_given(run: Run) -> None:
    with standing(run, 3600, options=options(run)):
        assert run.tuned_model != requested(run)
    assert deployments(standing=True) == []


@pytest.mark.usefixtures("no_reaper")
def test_compare_hands_its_options_to_the_deployment(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "unitune.yaml"
    (tmp_path / "test.jsonl").write_text(
        (tmp_path / "train.jsonl").read_text(encoding="utf-8").replace("?", " is it?"), "utf-8"
    )
    job = run.job.model_copy(
        update={"folder": tmp_path, "data": Data(train="train.jsonl", test="test.jsonl")}
    )
    job.save(file)
    given = [part for pair in options(run).items() for part in ("--option", "=".join(pair))]
    paid = ("--budget", "50", "--allow-unpriced")
    named = ("--run", run.id, "--deploy", "1h", *given, *paid)
    command = ["unitune", "compare", str(file), *named, "--json"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        cli.main()
    printed = capsys.readouterr()
    contenders = json.loads(printed.out)["contenders"]
    assert {one["errors"] for one in contenders} == {0}, printed.err
    assert deployments(standing=True) == []


@pytest.mark.usefixtures("no_reaper")
def test_compare_deploys_each_run_that_needs_it_once(run: Run, tmp_path: Path) -> None:
    """The third contender is the first's model once more, with a prompt."""
    files = {"folder": tmp_path, "data": Data(train="train.jsonl")}
    other = launch(run.job.model_copy(update=files), allow_duplicate=True).wait(0.01)
    cases = (tmp_path / "train.jsonl").read_text("utf-8").replace("?", " is it?")
    (tmp_path / "test.jsonl").write_text(cases, "utf-8")
    contenders = [
        {"type": "zero-shot"},
        {"type": "tuned", "run": run.id},
        {"type": "tuned", "run": other.id, "role": "reference"},
        {"type": "tuned", "run": run.id, "role": "reference", "prompt": "baseline", "name": "p"},
    ]
    job = run.job.model_copy(
        update={
            "folder": tmp_path,
            "data": Data(train="train.jsonl", test="test.jsonl"),
            "evaluate": Evaluate.model_validate({"contenders": contenders}),
        }
    )
    compare(job, deploy_seconds=3600, deploy_options=options(run), allow_unpriced=True)
    assert deployments(standing=True) == []
    assert sorted([run.id, other.id]) == sorted(str(each.run_id) for each in deployments())


@pytest.mark.usefixtures("no_reaper")
@pytest.mark.parametrize("fault", [Fault.ERROR_AFTER, Fault.CUT, Fault.SERVER_ERROR])
def test_a_create_call_without_a_clear_response_is_sent_again_under_the_same_name(
    run: Run, vendor: ServedVendor, fault: Fault
) -> None:
    vendor.server.inject_fault(fault, *DEPLOY[run.backend_name])
    made = deploy(run, options=options(run)).wait()
    assert [one.id for one in deployments(standing=True)] == [made.id]
    made.take_down()
    assert at_the_vendor(run, made.id) is None


@pytest.mark.usefixtures("no_reaper")
def test_one_that_nobody_heard_of_again_is_found_by_its_name(
    run: Run, vendor: ServedVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exactly_once, "CREATE_CALLS", 1)
    vendor.server.inject_fault(Fault.ERROR_AFTER, *DEPLOY[run.backend_name])
    with pytest.raises(BackendError):
        deploy(run, options=options(run))
    (one,) = deployments(standing=True)
    assert (one.state, at_the_vendor(run, one.id) is not None) == ("planned", True)
    one.take_down()
    assert at_the_vendor(run, one.id) is None

    method, _ = DEPLOY[run.backend_name]
    vendor.server.inject_fault(Fault.SERVER_ERROR, method, "", times=9)
    with pytest.raises(BackendError):
        deploy(run, options=options(run))
    (lost,) = deployments(standing=True)
    if at_the_vendor(run, lost.id) is None:
        with pytest.raises(BackendError, match="may still start"):
            lost.take_down()
    offer = registry.offer(run.backend_name).model_copy(update={"settle_seconds": 0})
    monkeypatch.setattr(registry, "offer", lambda _: offer)
    assert lost.take_down().state == "gone"


@pytest.mark.usefixtures("no_reaper")
@pytest.mark.parametrize("killed_in", ["exactly_once", "write"])
def test_deploy_continues_where_it_was_killed(
    run: Run, vendor: ServedVendor, monkeypatch: pytest.MonkeyPatch, killed_in: str
) -> None:
    """Killed before the create call, or between it and the note in the ledger."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dies:
        dies.setattr(deploying, killed_in, killed)
        with pytest.raises(KeyboardInterrupt):
            deploy(run, options=options(run))
    (begun,) = deployments(standing=True)
    assert begun.state == "planned"

    made = deploy(run, options=options(run)).wait()

    assert (begun.id, begun.until) == (made.id, made.until)
    assert [one.id for one in deployments()] == [made.id]
    assert made.id == deploy(run, options=options(run)).id, "one that is ready is continued, too"
    assert len(vendor.server.received(*DEPLOY[run.backend_name])) == 1


@pytest.mark.usefixtures("no_reaper")
def test_a_deployment_that_is_gone_is_not_continued(run: Run) -> None:
    first = deploy(run, options=options(run)).wait()
    ref = Ledger(home()).deployment(first.id).ref
    deploying.host_of(run.backend_name).undeploy(str(ref))  # behind unitune's back
    second = deploy(run, options=options(run)).wait()
    assert sorted((one.id, one.state) for one in deployments()) == [
        (first.id, "gone"),
        (second.id, "ready"),
    ]


@pytest.mark.usefixtures("no_reaper")
def test_a_deployment_that_ends_with_its_process_is_not_continued(run: Run) -> None:
    with standing(run, 3600, options=options(run)):
        (of_block,) = deployments(standing=True)
        reaper.leave_reaper(home(), of_block.id, 3600, this_process().text)
        of_user = deploy(run, options=options(run))
        assert of_block.id != of_user.id
    assert [one.id for one in deployments(standing=True)] == [of_user.id]


@pytest.mark.usefixtures("no_reaper")
def test_undeploy_takes_down_all_that_a_run_has_up(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as before:
        before.setattr(deploying, "_unfinished", lambda _: None)
        made = [deploy(run, options=options(run)).wait() for _ in range(3)]
    made[2].take_down()
    assert made[1].id == find_deployment(run.id).id, "one that is gone is not the answer"
    monkeypatch.setattr(sys, "argv", ["unitune", "deployments", "down", run.id])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (None, 0)
    printed = capsys.readouterr().out
    assert [f"{one.id} is gone" in printed for one in made] == [True, True, False]
    assert [at_the_vendor(run, one.id) for one in made] == [None] * 3


@pytest.mark.usefixtures("no_reaper")
def test_undeploy_takes_down_the_others_where_one_is_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as before:
        before.setattr(deploying, "_unfinished", lambda _: None)
        first, second = (deploy(run, options=options(run)).wait() for _ in range(2))
    real = deployment.remove

    def remove(record: DeploymentRecord, age_seconds: float) -> None:
        if record.id == second.id:
            raise BackendError("the vendor says no")
        real(record, age_seconds)

    monkeypatch.setattr(deployment, "remove", remove)
    monkeypatch.setattr(sys, "argv", ["unitune", "deployments", "down", run.id])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 4
    assert "the vendor says no" in capsys.readouterr().err
    assert [one.id for one in deployments(standing=True)] == [second.id]
    assert first.id


@pytest.mark.usefixtures("no_reaper")
def test_a_name_that_fits_several_runs_takes_nothing_down(run: Run, tmp_path: Path) -> None:
    files = {"folder": tmp_path, "data": Data(train="train.jsonl")}
    other = launch(run.job.model_copy(update=files), allow_duplicate=True).wait(0.01)
    for each in (run, other):
        deploy(each, options=options(each))
    with pytest.raises(UserError, match="matches deployments of several runs"):
        find_deployment("r")


def test_a_process_of_its_own_ends_it_in_time(run: Run) -> None:
    made = deploy(run, ttl=1.0, options=options(run))
    wait_until(lambda: at_the_vendor(run, made.id) is None)
    wait_until(lambda: Ledger(home()).deployment(made.id).ended is not None)
    ended = Ledger(home()).deployment(made.id).ended or 0
    assert made.until <= datetime.fromtimestamp(ended, UTC)


@pytest.mark.parametrize("vendor", ["together"], indirect=True)
def test_the_reaper_of_a_client_has_its_ledger_and_its_key(
    vendor: ServedVendor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client = unitune.Client(home=tmp_path / "client", keys={"together": together.KEY})
    monkeypatch.delenv("TOGETHER_API_KEY")
    run = client.launch(served_job(vendor, tmp_path)).wait(0.01)
    made = client.deploy(run, ttl=1.0, options=OPTIONS["together"])
    ledger = Ledger(tmp_path / "client")
    wait_until(lambda: ledger.deployment(made.id).ended is not None)
    assert [each.state for each in client.deployments()] == ["gone"]
    assert deployments() == []


only_bedrock = pytest.mark.parametrize("vendor", ["bedrock"], indirect=True)
"""Together must be told a configuration, which a block cannot."""
HELD = """
import sys, time
from unitune.run.deploying import standing
from unitune.run.run import find_run
with standing(find_run(sys.argv[1]), 3600):
    print("up", flush=True)
    time.sleep(600)
"""


@only_bedrock
def test_after_a_killed_evaluation_its_deployment_is_taken_down(run: Run) -> None:
    evaluation = subprocess.Popen(
        [sys.executable, "-c", HELD, run.id], stdout=subprocess.PIPE, text=True
    )
    assert evaluation.stdout is not None
    assert evaluation.stdout.readline().strip() == "up"
    (standing_one,) = deployments(standing=True)
    evaluation.send_signal(signal.SIGKILL)
    evaluation.communicate()
    wait_until(lambda: at_the_vendor(run, standing_one.id) is None)


def test_the_reaper_goes_on_while_the_vendor_fails(
    run: Run,
    vendor: ServedVendor,
    monkeypatch: pytest.MonkeyPatch,
    no_reaper: list[str],
) -> None:
    made = deploy(run, ttl=0.01, options=options(run))
    assert no_reaper == [made.id]
    monkeypatch.setattr(reaper, "TRY_AGAIN_SECONDS", 0.01)
    for method in ("DELETE", "PATCH"):
        vendor.server.inject_fault(Fault.EXPIRED_KEY, method, "")
    reaper.reap(made.id, this_process())
    assert at_the_vendor(run, made.id) is None


@pytest.mark.usefixtures("no_reaper")
def test_a_block_leaves_what_stood(run: Run) -> None:
    made = deploy(run, options=options(run)).wait()
    with standing(run, 3600):
        assert made.tuned_model == requested(run)
    assert at_the_vendor(run, made.id) is not None


@only_bedrock
@pytest.mark.usefixtures("no_reaper")
def test_a_block_takes_down_what_it_brought_up(run: Run) -> None:
    with standing(run, 3600):
        assert run.tuned_model != requested(run)
    assert deployments(standing=True) == []


def test_an_unknown_deployment_is_said_to_be_so(vendor: ServedVendor) -> None:
    assert vendor.server
    with pytest.raises(NotFoundError, match="unitune deployments"):
        find_deployment("r-none")
