"""`promote --deploy`: the deployment of an alias follows it, or it is told that it does not."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("boto3", reason="needs the vendors' extras")

from crash.forks import Fork
from support.command_line import Command
from support.served import trained
from vendors.bedrock.vendor import BedrockVendor
from vendors.fireworks import FireworksVendor
from vendors.serving import VENDORS, ServedVendor, serve_vendor

from unitune.backends import exactly_once, registry
from unitune.cost.budget import HostingBudget
from unitune.errors import BackendError, OverBudget, Unsupported, UserError
from unitune.job.job import Data
from unitune.ledger import DeploymentRecord, Ledger
from unitune.models import TunedModel
from unitune.registry import deployments as swapping
from unitune.registry import versions
from unitune.registry.deployments import mismatches
from unitune.registry.versions import promote, rollback
from unitune.run import deploying, deployment
from unitune.run.deploying import deploy
from unitune.run.deployment import answering, deployments
from unitune.run.run import Run, find_run, launch
from unitune.testing.loopback import Fault
from unitune.workspace.home import home

pytestmark = pytest.mark.heavy

AT_ONE_VENDOR = pytest.mark.parametrize("vendor", ["bedrock"], indirect=True)
"""For what is the same whoever the vendor is."""
MOVES = ("deployment.swapping", "deployment.ready", "alias.promote")


@dataclass(frozen=True)
class Switch:
    """How a vendor puts another model into a deployment.

    Args:
        method: Of the request.
        path: Of the request.
        served: Returns the model that the one deployment answers with, at the vendor itself.
        fail: Lets the next switch come to nothing.
        failure: What is then shown.
        options: With which a deployment is brought up.
    """

    method: str
    path: str
    served: Callable[[Any], str]
    fail: Callable[[Any], None]
    failure: str
    options: dict[str, bool] = field(default_factory=dict[str, bool])


def bedrock_fails(vendor: BedrockVendor) -> None:
    vendor.deployments[0].update_fails = True


def served_by_bedrock(vendor: BedrockVendor) -> str:
    (standing,) = vendor.deployments
    return standing.model_arn


def fireworks_fails(vendor: FireworksVendor) -> None:
    next(iter(vendor.deployments.values())).merge_fails = True


def served_by_fireworks(vendor: FireworksVendor) -> str:
    (standing,) = vendor.deployments.values()
    return standing.answering(vendor.behavior).model


SWITCHES = {
    "bedrock": Switch(
        "PATCH",
        r"/custom-model-deployments/",
        served_by_bedrock,
        bedrock_fails,
        "Active, UpdateFailed",
    ),
    "fireworks": Switch(
        "POST",
        r"/deployedModels$",
        served_by_fireworks,
        fireworks_fails,
        "READY, .*DEPLOYING the addon cannot be merged",
        {"hot_reload": True},
    ),
}


def no_reaper(_ledger: Ledger, _record: DeploymentRecord, _parent: str | None) -> None:
    """Leave no process behind: each test takes less time than any deployment."""


@pytest.fixture(params=sorted(SWITCHES))
def vendor(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[ServedVendor]:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for module in (deployment, swapping):
        monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(deploying, "_leave_reaper", no_reaper)
    offer = registry.offer(request.param).model_copy(update={"settle_seconds": 0.1})
    monkeypatch.setattr(registry, "offer", {request.param: offer}.__getitem__)
    with serve_vendor(request.param) as served:
        yield served


@pytest.fixture
def pair(vendor: ServedVendor, tmp_path: Path) -> tuple[Run, Run]:
    """Two runs; the first is in production, and deployed."""
    old = trained(vendor, tmp_path)
    job = old.job.model_copy(update={"folder": tmp_path, "data": Data(train="train.jsonl")})
    new = launch(job, allow_duplicate=True).wait(0.01)
    promote(old, "production", without_gate="a test")
    deploy(old, options=switch_of(vendor).options).wait()
    return old, new


def switch_of(vendor: ServedVendor) -> Switch:
    return next(SWITCHES[name] for name in SWITCHES if VENDORS[name] is vendor.setup)


def served_model(vendor: ServedVendor) -> str:
    return switch_of(vendor).served(vendor.server.vendor)


def switches(vendor: ServedVendor) -> int:
    """How often another model was requested, the first one included."""
    return len(vendor.server.received(switch_of(vendor).method, switch_of(vendor).path))


def inject_fault(vendor: ServedVendor, fault: Fault) -> None:
    """Let the next request of another model meet a fault."""
    vendor.server.inject_fault(fault, switch_of(vendor).method, switch_of(vendor).path)


def requested(run: Run) -> TunedModel:
    assert run.tuned_model is not None
    return answering(run.id, run.tuned_model)


def model_of(run: Run) -> str:
    assert run.tuned_model is not None
    return run.tuned_model.name


UNPRICED = HostingBudget(unpriced=True)
"""Bedrock's deployments for on-demand inference have no price that is known here."""


def moved(run: Run, deploy: HostingBudget | float = UNPRICED) -> int:
    return promote(run, "production", without_gate="a test", deploy=deploy).number


def test_a_promotion_moves_the_deployment_and_a_rollback_moves_it_back(
    vendor: ServedVendor, pair: tuple[Run, Run]
) -> None:
    old, new = pair
    (before,) = deployments(standing=True)
    assert moved(new) == 2
    assert served_model(vendor) == model_of(new)
    (after,) = deployments(standing=True)
    assert (after.id, after.run_id, after.state, after.until) == (
        *(before.id, new.id, "ready"),
        before.until,
    )
    assert requested(new).name == before.tuned_model.name
    with pytest.raises(UserError, match="unitune deployments up"):
        requested(old)
    log = Ledger(home()).audit_log()
    swapped, alias, ready = [each for each in log if each.action in MOVES][-3:]
    assert ("deployment.swapping", old.id) == (swapped.action, swapped.data["run_id"])
    assert (alias.action, alias.data["number"]) == ("alias.promote", 2)
    assert ("deployment.ready", new.id) == (ready.action, ready.data["run_id"])

    assert rollback("served@production", deploy=UNPRICED).number == 1
    assert served_model(vendor) == model_of(old)
    assert [each.run_id for each in deployments(standing=True)] == [old.id]
    assert [*mismatches(Ledger(home()), "served")] == []


@pytest.mark.parametrize("fault", [Fault.ERROR_AFTER, Fault.CUT, Fault.RATE_LIMITED])
def test_a_request_without_a_clear_answer_is_sent_again(
    vendor: ServedVendor, pair: tuple[Run, Run], fault: Fault
) -> None:
    inject_fault(vendor, fault)
    assert moved(pair[1]) == 2
    assert served_model(vendor) == model_of(pair[1])


def test_a_refusal_changes_nothing(vendor: ServedVendor, pair: tuple[Run, Run]) -> None:
    old, new = pair
    inject_fault(vendor, Fault.EXPIRED_KEY)
    with pytest.raises(BackendError):
        moved(new)
    assert served_model(vendor) == model_of(old)
    assert find_run("served@production").id == old.id
    assert [(each.run_id, each.state) for each in deployments(standing=True)] == [(old.id, "ready")]


def test_an_update_that_fails_at_the_vendor_leaves_the_alias(
    vendor: ServedVendor, pair: tuple[Run, Run]
) -> None:
    old, new = pair
    switch_of(vendor).fail(vendor.server.vendor)
    with pytest.raises(BackendError, match=switch_of(vendor).failure):
        moved(new)
    assert served_model(vendor) == model_of(old)
    assert find_run("served@production").id == old.id
    assert [(each.run_id, each.state) for each in deployments(standing=True)] == [(old.id, "ready")]


def test_what_is_not_known_is_told_until_a_look_says_what_is_so(
    vendor: ServedVendor,
    pair: tuple[Run, Run],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (old, new), before = pair, switches(vendor)
    monkeypatch.setattr(exactly_once, "CREATE_CALLS", 1)
    inject_fault(vendor, Fault.ERROR_AFTER)
    with caplog.at_level(logging.WARNING, "unitune"), pytest.raises(BackendError):
        moved(new)
    assert "is being moved away from served:1" in caplog.text
    assert "unitune deployments" in caplog.text
    assert find_run("served@production").id == old.id

    while deployments(standing=True)[0].refresh().state == "swapping":
        pass
    assert [each.run_id for each in deployments(standing=True)] == [new.id]
    (text,) = mismatches(Ledger(home()), "served")
    assert "serves served:2, but served@production points to version 1" in text

    assert moved(new) == 2
    assert before + 1 == switches(vendor)
    assert [*mismatches(Ledger(home()), "served")] == []


@pytest.mark.parametrize("killed_at", ["the vendor's switch", "the alias", "the last write"])
def test_the_same_command_ends_what_a_killed_process_began(
    vendor: ServedVendor, pair: tuple[Run, Run], monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    old, new = pair

    def die(*_: object, **__: object) -> Any:
        os._exit(9)

    with monkeypatch.context() as patch:
        if killed_at == "the vendor's switch":
            patch.setattr(swapping, "_wait", die)
        elif killed_at == "the alias":
            patch.setattr(Ledger, "move_alias", die)
        else:
            patch.setattr(versions, "_moved", die)
        Fork(lambda: moved(new)).result()
    (told,) = mismatches(Ledger(home()), "served")
    assert "is being moved away from served:1" in told
    expected = new if killed_at == "the last write" else old
    assert find_run("served@production").id == expected.id

    assert moved(new) == 2
    assert find_run("served@production").id == new.id
    assert served_model(vendor) == model_of(new)
    assert [*mismatches(Ledger(home()), "served")] == []


@AT_ONE_VENDOR
def test_a_promotion_that_leaves_the_deployment_says_so(
    pair: tuple[Run, Run], unitune: Command
) -> None:
    """In a warning at once, and in `unitune models` until it is mended."""
    _, new = pair
    done = unitune("models", "promote", new.id, "--as", "production", "--without-gate", "a test")
    assert done.code == 0
    shown = unitune("models", "served").out
    assert "serves served:1, but served@production points to version 2" in shown
    words = ("models", "promote", "served:2", "--as", "production", "--without-gate", "a test")
    assert "now serves it." in unitune(*words, "--deploy", "--allow-unpriced").out
    assert "serves served" not in unitune("models", "served").out
    assert f"now serves run {new.id}" in unitune("deployments").out
    wrong = unitune("models", "promote", "served:2", "--as", "production", "--budget", "5")
    assert (wrong.code, "Add --deploy" in wrong.err) == (2, True)


@AT_ONE_VENDOR
def test_a_deployment_of_another_alias_is_left_alone(
    vendor: ServedVendor, pair: tuple[Run, Run]
) -> None:
    old, new = pair
    promote(old, "stable", without_gate="a test")
    promote(new, "production", without_gate="a test")
    with pytest.raises(UserError, match="no deployment serves a model for served@production"):
        moved(new)
    assert served_model(vendor) == model_of(old)


@AT_ONE_VENDOR
def test_without_a_deployment_there_is_nothing_to_move(
    vendor: ServedVendor, pair: tuple[Run, Run]
) -> None:
    old, new = pair
    deployments(standing=True)[0].take_down()
    with pytest.raises(UserError, match=f"no deployment serves .*unitune deployments up {new.id}"):
        moved(new)
    deploy(new).wait()
    before = switches(vendor)
    assert moved(new) == 2, "it answers already"
    assert find_run("served@production").id == new.id
    assert before == switches(vendor)
    assert old.id != new.id


@AT_ONE_VENDOR
def test_the_rest_of_its_time_is_held_to_the_budget(
    vendor: ServedVendor, pair: tuple[Run, Run]
) -> None:
    old, new = pair
    ledger = Ledger(home())
    record = ledger.deployment(deployments(standing=True)[0].id)
    ledger.write_deployment(replace(record, usd_per_hour=Decimal(10)))
    with pytest.raises(OverBudget, match=r"the rest of the deployment's time may cost \$20\.00"):
        moved(new, 19)
    assert (find_run("served@production").id, model_of(old)) == (old.id, served_model(vendor))
    assert moved(new, 21) == 2


@AT_ONE_VENDOR
def test_backends_without_a_switch_say_what_to_do(
    vendor: ServedVendor, pair: tuple[Run, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = switches(vendor)
    with monkeypatch.context() as patch:
        patch.setattr(swapping, "SwapsModel", int)
        with pytest.raises(Unsupported, match="unitune deployments down"):
            moved(pair[1])
        patch.setattr(swapping, "Deploys", int)
        with pytest.raises(Unsupported, match="Omit --deploy"):
            moved(pair[1])
    assert before == switches(vendor)
