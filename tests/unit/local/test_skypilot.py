"""SkyPilot: what is sent, held against its package; machines that go, secrets, limits, bills."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fsspec", reason="needs the extra `skypilot`")
pytest.importorskip("torch", reason="needs the extra `local`")

from vendors.rented import LAUNCHED, rented_launch
from vendors.skypilot import BODIES, KEY, SkyPilotVendor, skypilot_setup

from unitune.backends.exactly_once import LAUNCH_KEY
from unitune.backends.protocol import State
from unitune.errors import BackendError, JobError, UserError
from unitune.testing.loopback import Fault
from unitune.testing.vendor_setup import ServedVendor, serve_vendor
from unitune_local.skypilot import SkyPilotBackend

# Of skypilot 0.14.1, sky/skylet/constants.py
CLUSTER_NAME = "[a-zA-Z]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?"
PYTHON = os.environ.get("UNITUNE_SKYPILOT_PYTHON", "")
THEIRS = """
import json, sys
from sky.schemas.api import responses
from sky.server.requests import payloads, requests
from sky.skylet import constants, job_lib
from sky.utils import dag_utils, status_lib

given = json.load(sys.stdin)
kinds = {
    "launch": payloads.LaunchBody,
    "status": payloads.StatusBody,
    "queue": payloads.QueueBody,
    "cost_report": payloads.CostReportBody,
    "cancel": payloads.CancelBody,
    "down": payloads.StopOrDownBody,
    "api/cancel": payloads.RequestCancelBody,
}
seen = {}
for path, body in given["bodies"]:
    made = kinds[path](**body)
    seen[path] = sorted(set(body) - set(kinds[path].model_fields))
    if path == "launch":
        (read,) = dag_utils.load_dag_from_yaml_str(made.task).tasks
        (resources,) = read.resources
        autostop = resources.autostop_config
        told = {
            "envs": read.envs,
            "secrets": {name: each.get_secret_value() for name, each in read.secrets.items()},
            "run": read.run, "name": read.name,
            "down": autostop.down, "idle": autostop.idle_minutes, "enabled": autostop.enabled,
            "spot": resources.use_spot, "retry": made.retry_until_up,
        }
unknown = {
    path: sorted(set(names) - set(kinds[path].model_fields))
    for path, names in given["double"].items()
}
answers = {
    "cluster": (responses.StatusResponse, given["cluster"]),
    "job": (responses.ClusterJobRecord, given["job"]),
    "request": (payloads.RequestPayload, given["request"]),
}
for name, (kind, fields) in answers.items():
    kind(**{**fields, "handle": None} if name == "cluster" else fields)
    unknown[name] = sorted(set(fields) - set(kind.model_fields))
print(json.dumps({
    "seen": seen, "unknown": unknown, "told": told,
    "jobs": [each.value for each in job_lib.JobStatus],
    "clusters": [each.value for each in status_lib.ClusterStatus],
    "active": [each.value for each in requests.RequestStatus.active_statuses()],
    "name": constants.CLUSTER_NAME_VALID_REGEX,
}))
"""


@pytest.fixture
def served() -> Iterator[ServedVendor]:
    with serve_vendor(skypilot_setup()) as served:
        yield served


def vendor_of(served: ServedVendor) -> SkyPilotVendor:
    vendor = served.server.vendor
    assert isinstance(vendor, SkyPilotVendor)
    return vendor


launch = partial(rented_launch, "skypilot")


def task(served: ServedVendor) -> dict[str, Any]:
    return json.loads(served.server.received("POST", "/launch$")[-1].json["task"])


def test_every_machine_is_deleted_when_idle_and_every_training_has_a_limit(
    served: ServedVendor, tmp_path: Path
) -> None:
    options = {"infra": "gcp/us-central1", "use_spot": True, "autostop_minutes": 5}
    backend = SkyPilotBackend()
    backend.submit(launch(tmp_path, options={"skypilot": {**options, "accelerators": "T4:1"}}))
    body = served.server.received("POST", "/launch$")[-1].json
    kept = {name: value for name, value in body.items() if name != "task"}
    assert kept == {
        "cluster_name": LAUNCHED,
        "retry_until_up": False,
        "idle_minutes_to_autostop": 5,
        "down": True,
    }
    assert task(served)["resources"] == {
        "accelerators": "T4:1",
        "infra": "gcp/us-central1",
        "image_id": "docker:registry.example.com/unitune:0.1.0-cuda",
        "use_spot": True,
        "autostop": {"idle_minutes": 5, "down": True},
    }
    worker = "python -P -m unitune_local.remote.worker"
    assert task(served)["run"].endswith(f"\nexec timeout 86400 {worker}")
    backend.submit(launch(tmp_path, f"{LAUNCHED[:-1]}2", budget={"usd": 9, "hours": 2.5}))
    assert "exec timeout 9000 " in task(served)["run"]
    hours = {"skypilot": {"timeout_hours": 0.5, "accelerators": None}}
    backend.submit(launch(tmp_path, f"{LAUNCHED[:-1]}3", options=hours))
    assert "exec timeout 1800 " in task(served)["run"]
    assert "accelerators" not in task(served)["resources"]


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize(
    "wrong", [{"accelerators": "L4:8"}, {"infra": "a b"}, {"image": "x"}, {"autostop_minutes": 0}]
)
def test_options_that_cost_more_than_they_train_are_refused(
    wrong: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(JobError):
        SkyPilotBackend().validate_options(launch(tmp_path, options={"skypilot": wrong}).job)


def test_secrets_are_no_part_of_the_environment(
    served: ServedVendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNITUNE_JOB_SECRETS", "AWS_SECRET_ACCESS_KEY, HF_TOKEN")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret")
    monkeypatch.setenv("HF_TOKEN", "hf-secret")
    SkyPilotBackend().submit(launch(tmp_path))
    sent = task(served)
    assert sent["secrets"] == {"AWS_SECRET_ACCESS_KEY": "aws-secret", "HF_TOKEN": "hf-secret"}
    assert "-secret" not in str(sent["envs"]) + sent["run"]
    assert KEY not in str(sent)


def test_a_server_of_ones_own_needs_no_token(
    served: ServedVendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SKYPILOT_SERVICE_ACCOUNT_TOKEN")
    with pytest.raises(BackendError) as refused:  # the double has one
        SkyPilotBackend().find(LAUNCHED, tmp_path)
    assert refused.value.status == 401
    assert "authorization" not in served.server.requests[-1].headers


@pytest.mark.usefixtures("served")
def test_storage_is_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = launch(tmp_path).job
    monkeypatch.delenv("UNITUNE_STORAGE")
    with pytest.raises(UserError, match="Set the environment variable UNITUNE_STORAGE"):
        SkyPilotBackend().validate_options(job)


def test_without_an_image_a_job_installs_this_version_and_the_storages_driver(
    served: ServedVendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNITUNE_IMAGE")
    made = launch(tmp_path)
    monkeypatch.setattr("unitune.workspace.install._origin", lambda: ("-e ", "/home/ana/unitune"))
    with pytest.raises(JobError, match="set UNITUNE_IMAGE"):
        SkyPilotBackend().validate_options(made.job)
    git = "git+https://example.com/unitune@v1"
    monkeypatch.setattr("unitune.workspace.install._origin", lambda: ("", git))
    monkeypatch.setattr("unitune_local.skypilot.DRIVERS", {"": "s3fs"})
    SkyPilotBackend().submit(made)
    assert "image_id" not in task(served)["resources"]
    assert (
        f"uv run --no-project --python=3.12 '--with=unitune[local,skypilot] @ {git}' --with=s3fs "
        "python -P -m unitune_local.remote.worker" in task(served)["run"]
    )


def test_second_launch_reuses_the_machine(served: ServedVendor, tmp_path: Path) -> None:
    backend, made = SkyPilotBackend(), launch(tmp_path)
    served.server.inject_fault(Fault.TWICE, "POST", "/launch$")
    assert {backend.submit(made) for _ in range(3)} == {LAUNCHED}
    assert backend.find(LAUNCHED, tmp_path) == [LAUNCHED]
    assert backend.find(f"{LAUNCHED[:-1]}2", tmp_path) == []
    (machine,) = vendor_of(served).jobs.values()
    assert len(machine.tasks) == 2, "the proxy's, whose worker finds the first one's claim"


def test_a_machine_that_has_gone_leaves_its_result(served: ServedVendor, tmp_path: Path) -> None:
    backend, vendor = SkyPilotBackend(), vendor_of(served)
    job = backend.submit(launch(tmp_path))
    while not (status := backend.poll(job, "")).state.ended:
        assert status.billed_usd is None
    assert status.billed_usd == Decimal("0.0133")
    vendor.jobs[job].is_down = True
    vendor.requests.clear()  # as the server does after a day
    again = backend.poll(job, "")
    assert (again.state, again.model) == (State.SUCCEEDED, status.model)
    assert backend.find(job, tmp_path) == [job]


def test_a_machine_that_is_taken_back_fails_the_run(served: ServedVendor, tmp_path: Path) -> None:
    backend, vendor = SkyPilotBackend(), vendor_of(served)
    job = backend.submit(launch(tmp_path))
    while backend.poll(job, "").state is not State.RUNNING:
        pass
    vendor.jobs[job].is_down = True
    status = backend.poll(job, "")
    assert status.state is State.FAILED
    assert "taken back by the cloud" in str(status.error)


def test_another_server_does_not_fail_a_run(served: ServedVendor, tmp_path: Path) -> None:
    """It does not know the cluster; the run may be training at the first one."""
    backend, vendor = SkyPilotBackend(), vendor_of(served)
    job = backend.submit(launch(tmp_path))
    vendor.jobs.clear()
    vendor.requests.clear()
    with pytest.raises(BackendError, match=f"does not know cluster {job}") as unknown:
        backend.poll(job, "")
    assert unknown.value.is_not_found


def test_a_launch_that_fails_says_why(served: ServedVendor, tmp_path: Path) -> None:
    vendor_of(served).refuses = "Cloud access is not set up. Run: \x1b[1msky check\x1b[0m"
    backend = SkyPilotBackend()
    job = backend.submit(launch(tmp_path))
    status = backend.poll(job, "")
    assert status.state is State.FAILED
    assert status.error == (
        "SkyPilot could not rent the machine: Cloud access is not set up. Run: sky check."
    )


def test_cancelled_training_has_no_machine(served: ServedVendor, tmp_path: Path) -> None:
    backend, vendor = SkyPilotBackend(), vendor_of(served)
    job = backend.submit(launch(tmp_path))
    backend.poll(job, "")
    backend.cancel(job)
    backend.cancel(job)
    assert vendor.jobs[job].is_down
    assert backend.poll(job, "").state is State.CANCELLED


def test_launch_keys_are_names_of_clusters() -> None:
    assert LAUNCH_KEY.fullmatch(LAUNCHED)
    assert re.fullmatch(CLUSTER_NAME, LAUNCHED)


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="UNITUNE_SKYPILOT_PYTHON names no Python with skypilot")
def test_requests_and_the_double_are_those_of_skypilots_package(
    served: ServedVendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNITUNE_JOB_SECRETS", "HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "hf-secret")
    backend, vendor = SkyPilotBackend(), vendor_of(served)
    job = backend.submit(launch(tmp_path, model="Qwen/Qwen3-\u00e9\U0001f600"))
    while not backend.poll(job, "").state.ended:
        pass
    backend.submit(launch(tmp_path, f"{LAUNCHED[:-1]}2"))
    backend.cancel(f"{LAUNCHED[:-1]}2")
    posted = [each for each in served.server.requests if each.method == "POST"]
    machine = vendor.jobs[job]
    double: Any = vendor
    given = {
        "bodies": [(each.path.lstrip("/"), each.json) for each in posted],
        "double": {path: sorted(names) for path, names in BODIES.items()},
        "cluster": double._cluster(machine),
        "job": double._queue({"cluster_name": job})[0],
        "request": double._payload(next(iter(vendor.requests.values())), whole=True),
    }
    assert {path for path, _ in given["bodies"]} == set(BODIES)
    done = subprocess.run(
        [PYTHON, "-c", THEIRS],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "SKYPILOT_DISABLE_USAGE_COLLECTION": "1", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout.splitlines()[-1])
    assert {path: [] for path in BODIES} == theirs["seen"]
    assert [*filter(None, theirs["unknown"].values())] == []
    told = theirs["told"]
    assert (told["down"], told["idle"], told["enabled"]) == (True, 10, True)
    assert (told["spot"], told["retry"]) == (False, False)
    assert told["secrets"] == {"HF_TOKEN": "hf-secret"}
    assert set(theirs["jobs"]) | {"LAUNCHING"} == set(backend.states)
    assert {"UP", "INIT", "STOPPED", "AUTOSTOPPING"} < set(theirs["clusters"])
    assert theirs["active"] == ["PENDING", "WAITING", "RUNNING"]
    assert theirs["name"] == CLUSTER_NAME
