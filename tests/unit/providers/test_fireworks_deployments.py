"""Deployments at Fireworks: with hot reload another model takes a model's place, and else none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fireworks
import pytest
from crash.forks import Fork
from support.served import trained
from vendors.fireworks import ACCOUNT, BASE, KEY, DeployedModel, FireworksVendor
from vendors.serving import ServedVendor, serve_vendor

from unitune.errors import OverBudget, Unsupported
from unitune.job.job import Data
from unitune.ledger import Ledger
from unitune.models import TunedModel
from unitune.registry import deployments as swapping
from unitune.registry.deployments import mismatches
from unitune.registry.versions import promote
from unitune.run import deploying, deployment
from unitune.run.deploying import deploy
from unitune.run.deployment import deployments
from unitune.run.run import Run, find_run, launch
from unitune.testing.loopback import Fault
from unitune.testing.vendor_setup import Progress
from unitune.workspace.home import home
from unitune_providers.fireworks import FireworksBackend

LOADS = r"/deployedModels$"
HOT = {"hot_reload": True}


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ServedVendor]:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for module in (deployment, swapping):
        monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    # Each test takes less time than any deployment.
    monkeypatch.setattr(deploying, "_leave_reaper", lambda *_: None)
    with serve_vendor("fireworks") as served:
        yield served


@pytest.fixture
def sdk(vendor: ServedVendor) -> Iterator[fireworks.Fireworks]:
    """The vendor's own client, which tries nothing twice."""
    url = vendor.server.url
    with fireworks.Fireworks(
        api_key=KEY, account_id=ACCOUNT, base_url=url, max_retries=0
    ) as client:
        yield client


def model_of(run: Run) -> TunedModel:
    assert run.tuned_model is not None
    return run.tuned_model


def later(run: Run, folder: Path) -> Run:
    """Another run of the same job."""
    job = run.job.model_copy(update={"folder": folder, "data": Data(train="train.jsonl")})
    return launch(job, allow_duplicate=True).wait(0.01)


def test_requests_are_those_of_the_sdk(
    vendor: ServedVendor, sdk: fireworks.Fireworks, tmp_path: Path
) -> None:
    """A create call and a load of ours, beside those that the SDK sends for the same."""
    backend, model = FireworksBackend(), model_of(trained(vendor, tmp_path))

    def until_ready(name: str) -> str:
        while (read := sdk.deployments.get(name)).state != "READY":
            assert read.state == "CREATING"
        return str(read.name)

    sdk.deployments.create(
        base_model=BASE,
        deployment_id="theirs",
        deployment_shape="default",
        min_replica_count=1,
        max_replica_count=2,
        enable_hot_reload_latest_addon=True,
    )
    theirs = until_ready("theirs")
    sdk.lora.load(model=model.name, deployment=theirs, replace_merged_addon=True)
    assert (
        backend.deploy(model, "ours", {**HOT, "max_replicas": 2})
        == f"accounts/{ACCOUNT}/deployments/ours"
    )
    backend.swap_model(until_ready("ours"), model)

    for path in (r"/deployments$", LOADS):
        first, second = vendor.server.received("POST", path)
        assert (first.path, sent(first)) == (second.path, sent(second))


def sent(request: Any) -> tuple[object, object]:
    """The query and the body of a request, whatever the name of its deployment."""
    body = {**request.json}
    if "deployment" in body:
        body["deployment"] = body["deployment"].rpartition("/")[0]
    query = {name: value for name, value in request.query.items() if name != "deploymentId"}
    return query, body


def test_the_double_refuses_what_the_vendor_refuses(
    vendor: ServedVendor, sdk: fireworks.Fireworks, tmp_path: Path
) -> None:
    """SDK: "must be specified for hot reload deployments"; the rest: fw-ai/cookbook 76821fa."""
    model = model_of(trained(vendor, tmp_path)).name
    shown = {"min_replica_count": 1, "deployment_shape": "default"}
    with pytest.raises(fireworks.BadRequestError, match="cannot both be enabled"):
        sdk.deployments.create(
            base_model=BASE, enable_addons=True, enable_hot_reload_latest_addon=True, **shown
        )
    create = sdk.deployments.create
    merged = create(base_model=model, deployment_id="merged", **shown).name or ""
    hot = create(
        base_model=BASE, deployment_id="hot", enable_hot_reload_latest_addon=True, **shown
    ).name
    assert hot
    with pytest.raises(fireworks.BadRequestError, match="not ready"):
        sdk.lora.load(model=model, deployment=hot, replace_merged_addon=True)
    for name in ("merged", "hot") * 2:
        sdk.deployments.get(name)
    with pytest.raises(fireworks.BadRequestError, match="no hot reload"):
        sdk.lora.load(model=model, deployment=merged, replace_merged_addon=True)
    with pytest.raises(fireworks.BadRequestError, match="must be specified"):
        sdk.lora.load(model=model, deployment=hot)
    sdk.lora.load(model=model, deployment=hot, replace_merged_addon=True)
    with pytest.raises(fireworks.ConflictError):
        sdk.lora.load(model=model, deployment=hot, replace_merged_addon=True)
    assert [each.model for each in sdk.lora.list() if each.deployment == hot] == [BASE, model]


def test_without_hot_reload_the_model_stays(vendor: ServedVendor, tmp_path: Path) -> None:
    old = trained(vendor, tmp_path)
    new = later(old, tmp_path)
    promote(old, "production", without_gate="a test")
    made = deploy(old).wait()
    ref = f"accounts/{ACCOUNT}/deployments/{made.id}"
    assert made.tuned_model.name == f"{model_of(old).name}#{ref}"
    with pytest.raises(Unsupported, match=r"--option hot_reload=true.*unitune deployments down"):
        promote(new, "production", without_gate="a test", deploy=100)
    assert find_run("served@production").id == old.id
    assert [(each.run_id, each.state) for each in deployments(standing=True)] == [(old.id, "ready")]
    assert vendor.server.received("POST", LOADS) == []


@pytest.mark.parametrize("fault", [Fault.ERROR_AFTER, Fault.CONFLICT_AFTER, Fault.TWICE, Fault.CUT])
def test_whoever_looks_goes_on_where_a_killed_process_stopped(
    vendor: ServedVendor, tmp_path: Path, fault: Fault
) -> None:
    """Nothing answers before the tuned model does, which the base would do."""
    run = trained(vendor, tmp_path)
    Fork(lambda: deploy(run, options=HOT).id).result()
    (made,) = deployments(standing=True)
    assert (made.state, vendor.server.received("POST", LOADS)) == ("starting", [])
    vendor.server.inject_fault(fault, "POST", LOADS)
    made.wait()
    assert made.tuned_model.name == f"accounts/{ACCOUNT}/deployments/{made.id}"
    assert isinstance(vendor.server.vendor, FireworksVendor)
    (standing,) = vendor.server.vendor.deployments.values()
    assert [each.model for each in standing.models] == [BASE, model_of(run).name]


def test_answers_are_known_by_the_model_that_gave_them(
    vendor: ServedVendor, tmp_path: Path
) -> None:
    """The name stays, so an answer in the cache must not be taken for the next model's.

    And whoever has waited gets an answer, though the first request after a merge meets a 404.
    """
    old = trained(vendor, tmp_path)
    new = later(old, tmp_path)
    promote(old, "production", without_gate="a test")
    name = deploy(old, options=HOT).wait().tuned_model.name
    assert vendor.behavior.otherwise == old.model.ask("?")
    backend = FireworksBackend()
    with pytest.raises(OverBudget, match=r"may cost \$40\.00"):  # 2 h on one GB300 at $20
        promote(new, "production", without_gate="a test", deploy=39)
    assert backend.chat(name).fingerprint == f"fireworks:{model_of(old).name}"
    promote(new, "production", without_gate="a test", deploy=41)
    assert vendor.behavior.otherwise == new.model.ask("?")
    assert backend.chat(name).fingerprint == f"fireworks:{model_of(new).name}"
    assert [*mismatches(Ledger(home()), "served")] == []


def test_what_was_changed_by_hand_is_not_taken_for_ready(
    vendor: ServedVendor, tmp_path: Path
) -> None:
    """Of two models it is not known which one answers; without any the base does."""
    made = deploy(trained(vendor, tmp_path), options=HOT).wait()
    assert isinstance(vendor.server.vendor, FireworksVendor)
    (standing,) = vendor.server.vendor.deployments.values()
    other = DeployedModel(9, f"accounts/{ACCOUNT}/models/other", Progress(polls=9))
    standing.models.append(other)
    assert made.refresh().state == "swapping"
    del standing.models[1:]
    assert made.refresh().state == "failed"
    assert len(vendor.server.received("POST", LOADS)) == 1
