"""Hugging Face Jobs: what is sent, held against its SDK; secrets, limits, buckets and bills."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("huggingface_hub", reason="needs the extra `hf-jobs`")
pytest.importorskip("torch", reason="needs the extra `local`")

import huggingface_hub as hub
from huggingface_hub import _jobs_api as sdk  # pyright: ignore[reportPrivateUsage]
from support.tiny_model import write_rows
from vendors.hf_buckets import BucketVendor
from vendors.hf_jobs import ACCOUNT, FIELDS, KEY, HfJobsVendor, Job, hf_jobs_setup
from vendors.rented import LAUNCHED, rented_launch

from unitune.backends.protocol import State
from unitune.cost.machine_hours import machine_hours, parameters_in
from unitune.cost.tokens import Count
from unitune.errors import BackendError, JobError, Unreachable, UserError
from unitune.testing.contract_base import reply_once, sha256_of
from unitune.testing.loopback import serve
from unitune.testing.vendor_setup import ServedVendor, ServerBehavior, serve_vendor
from unitune_local.hf_jobs import HfJobsBackend
from unitune_local.remote.launch import RemoteLaunch
from unitune_local.remote.storage import Storage
from unitune_local.remote.training import run


@pytest.fixture
def served() -> Iterator[ServedVendor]:
    with serve_vendor(hf_jobs_setup()) as served:
        yield served


@pytest.fixture(autouse=True)
def _sdk_may_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own environment keeps the SDK offline."""
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)


def vendor_of(served: ServedVendor) -> HfJobsVendor:
    vendor = served.server.vendor
    assert isinstance(vendor, HfJobsVendor)
    return vendor


launch = partial(rented_launch, "hf-jobs")


def sent(served: ServedVendor) -> dict[str, Any]:
    return served.server.received("POST", rf"/api/jobs/{ACCOUNT}$")[-1].json


def test_what_is_sent_is_what_the_sdk_sends(served: ServedVendor, tmp_path: Path) -> None:
    HfJobsBackend().submit(launch(tmp_path))
    ours = sent(served)
    theirs = sdk._create_job_spec(  # pyright: ignore[reportPrivateUsage]
        image=ours["dockerImage"],
        command=ours["command"],
        env=ours["environment"],
        secrets=ours["secrets"],
        flavor=ours["flavor"],
        timeout=ours["timeoutSeconds"],
        labels=ours["labels"],
    )
    assert ours == theirs
    assert sdk.JobHardware(ours["flavor"])


def test_the_sdk_reads_and_runs_jobs_at_the_double(served: ServedVendor, tmp_path: Path) -> None:
    """The double would otherwise only agree with our own reading of the API."""
    api = hub.HfApi(endpoint=served.server.url, token=KEY)
    own = HfJobsBackend().submit(launch(tmp_path))
    other = api.run_job(image="python:3.12", command=["true"], labels={"unitune-launch": "r-2"})
    found = list(api.list_jobs(namespace=ACCOUNT, labels={"unitune-launch": LAUNCHED}))
    assert [job.id for job in found] == [own]
    assert found[0].labels == {"unitune-launch": LAUNCHED}
    assert found[0].status.stage == sdk.JobStage.SCHEDULING
    assert {job.id for job in api.list_jobs(namespace=ACCOUNT)} == {own, other.id}
    api.cancel_job(job_id=other.id)
    assert api.inspect_job(job_id=other.id).status.stage == sdk.JobStage.CANCELED
    assert {each.unit_label for each in api.list_jobs_hardware()} == {"minute"}
    stages = {each.value for each in sdk.JobStage}
    assert stages == set(HfJobsBackend.states)
    fields = set(sdk.JobInfo(**_info()).__dict__)
    known = {"docker_image", "labels", "status", "durations", "flavor", "owner"}
    assert known < fields


def _info() -> dict[str, Any]:
    return Job("1", {"command": [], "arguments": [], "environment": {}, "flavor": "h200"}).info(
        ServerBehavior()
    )


def test_the_double_knows_the_fields_of_the_sdk() -> None:
    everything = sdk._create_job_spec(  # pyright: ignore[reportPrivateUsage]
        image="a",
        command=["b"],
        env={"c": "d"},
        secrets={"e": "f"},
        flavor="h200",
        timeout="1h",
        name="g",
        volumes=[hub.Volume(type="bucket", source="a/b", mount_path="/c")],
        expose=[1],
        ssh=True,
        network_group="n",
        resource_group_id="r",
        attempts=2,
    )
    assert everything.keys() <= FIELDS
    assert FIELDS - everything.keys() == {"spaceId"}


def test_key_is_a_secret_and_no_part_of_the_environment(
    served: ServedVendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNITUNE_JOB_SECRETS", "AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret")
    monkeypatch.setenv("UNITUNE_HF_JOB_TOKEN", "hf_of_jobs")
    HfJobsBackend().submit(launch(tmp_path))
    body = sent(served)
    assert body["secrets"] == {"AWS_SECRET_ACCESS_KEY": "aws-secret", "HF_TOKEN": "hf_of_jobs"}
    assert "aws-secret" not in str(body["environment"])
    assert KEY not in str(body)


@pytest.mark.usefixtures("served")
def test_no_token_is_repeated_in_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITUNE_HF_JOB_TOKEN", "hf_of_jobs_0123456789")
    monkeypatch.setenv("HF_TOKEN", "hf_own_0123456789")
    monkeypatch.setattr(HfJobsVendor, "wrong_key", "hf_own_0123456789, hf_of_jobs_0123456789")
    monkeypatch.setenv("UNITUNE_HF_NAMESPACE", ACCOUNT)
    with pytest.raises(BackendError) as refused:
        HfJobsBackend().submit(launch(tmp_path))
    assert refused.value.status == 401
    assert "0123456789" not in str(refused.value)


def test_a_job_file_chooses_neither_image_nor_secrets() -> None:
    """Someone else's job file could otherwise send the user's token to an image of theirs."""
    options = HfJobsBackend.options.model_fields
    assert not {"image", "secrets", "env", "command", "namespace"} & options.keys()


def test_every_job_has_a_time_limit(served: ServedVendor, tmp_path: Path) -> None:
    backend, limits = HfJobsBackend(), list[float]()
    jobs: list[dict[str, Any]] = [
        {},
        {"model": "acme/unsized"},
        {"budget": {"usd": 9, "hours": 2.5}},
        {"options": {"hf-jobs": {"timeout_hours": 0.75}}},
        {"options": {"hf-jobs": {"flavor": "cpu-basic"}}},
    ]
    for number, job in enumerate(jobs, start=1):
        backend.submit(launch(tmp_path, f"{LAUNCHED[:-1]}{number}", **job))
        limits.append(sent(served)["timeoutSeconds"] / 3600)
    assert limits == [1, 24, 2.5, 0.75, 24]
    h200 = {"hf-jobs": {"flavor": "h200"}}
    backend.submit(launch(tmp_path, f"{LAUNCHED[:-1]}8", budget={"usd": 2}, options=h200))
    assert sent(served)["timeoutSeconds"] / 60 == 24, "$2 pay for 24 minutes at $5 an hour"
    backend.submit(launch(tmp_path, f"{LAUNCHED[:-1]}9", rows=1_000_000))
    assert 5 < sent(served)["timeoutSeconds"] / 3600 < 50


def test_hours_are_by_hand() -> None:
    """6 operations for 10^9 parameters and 10^6 tokens at 0.3 of 121 * 10^12 a second: 165 s."""
    hours = machine_hours(10**9, Count.of(10**6), Decimal(121))
    assert float(hours.expected) == pytest.approx(4 / 60 + 165.3 / 3600, rel=1e-3)
    assert float(hours.high) == pytest.approx(12 / 60 + 5 * 165.3 / 3600, rel=1e-3)
    sizes = {
        "Qwen/Qwen3-0.6B": 600_000_000,
        "smollm2-135m-instruct": 135_000_000,
        "Qwen/Qwen3-30B-A3B": 3_000_000_000,
        "qwen3-0p6b": 600_000_000,
        "acme/unsized": None,
    }
    assert {name: parameters_in(name) for name in sizes} == sizes


def test_bill_is_the_list_price_of_started_minutes(served: ServedVendor, tmp_path: Path) -> None:
    backend = HfJobsBackend()
    job = backend.submit(launch(tmp_path))
    while not (status := backend.poll(job, "")).state.ended:
        assert status.billed_usd is None
    vendor_of(served).jobs[job].progress.polls = 61
    assert backend.poll(job, "").billed_usd == Decimal("0.0400")  # 121 s: 3 minutes of $0.013333


def test_a_second_job_of_a_launch_shows_the_one_that_trains(
    served: ServedVendor, tmp_path: Path
) -> None:
    """The second one has ended without a result, as the first one has claimed the launch."""
    backend, vendor = HfJobsBackend(), vendor_of(served)
    first, second = (backend.submit(launch(tmp_path)) for _ in range(2))
    assert backend.find(LAUNCHED, tmp_path) == [first, second]
    vendor.storage = tmp_path / "elsewhere"  # nothing is stored
    vendor.jobs[second].progress.polls = 99
    vendor.jobs[first].progress.polls = 2
    assert backend.poll(second, "").state is State.RUNNING
    vendor.jobs[first].canceled = True
    lost = backend.poll(second, "")
    assert lost.state is State.FAILED
    assert "no result found in" in str(lost.error)


def test_without_an_image_a_job_installs_this_version_or_the_plan_refuses(
    served: ServedVendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNITUNE_IMAGE")
    made = launch(tmp_path)
    monkeypatch.setattr("unitune.workspace.install._origin", lambda: ("-e ", "/home/ana/unitune"))
    with pytest.raises(JobError, match="set UNITUNE_IMAGE"):
        HfJobsBackend().validate_options(made.job)
    git = "git+https://example.com/unitune@v1"
    monkeypatch.setattr("unitune.workspace.install._origin", lambda: ("", git))
    HfJobsBackend().submit(made)
    worker = ["python", "-P", "-m", "unitune_local.remote.worker"]
    assert sent(served)["command"] == [
        "uv",
        "run",
        "--with",
        f"unitune[local,hf-jobs] @ {git}",
        *worker,
    ]


def test_bucket_is_created_private_and_a_public_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", KEY)
    monkeypatch.delenv("UNITUNE_STORAGE", raising=False)
    with serve(BucketVendor(tmp_path)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        backend = HfJobsBackend()
        assert backend.storage.address == f"hf://buckets/{ACCOUNT}/unitune"
        assert server.vendor.private is True  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        assert hub.HfApi(endpoint=server.url, token=KEY).bucket_info(f"{ACCOUNT}/unitune").private
        server.vendor.private = False  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(UserError, match="is not private, but would hold your rows"):
            _ = backend.storage


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketVendor]:
    """A bucket whose content the SDK's own client stores."""
    monkeypatch.setenv("HF_TOKEN", KEY)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    vendor = BucketVendor(tmp_path)
    vendor.private = True
    with serve(vendor) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield vendor


def test_a_bucket_is_a_storage(bucket: BucketVendor, tmp_path: Path) -> None:
    there, file = Storage(f"hf://buckets/{ACCOUNT}/unitune"), tmp_path / "file"
    assert (there.exists("jobs/a"), there.names("jobs"), there.read("jobs/a")) == (
        False,
        set(),
        b"",
    )
    for content in (b"0123456789", b"other"):  # nothing is read from a listing of before
        file.write_bytes(content)
        there.put(file, "jobs/a/b")
        assert there.read("jobs/a/b") == content
        assert there.read("jobs/a/b", 3) == content[3:]
        assert there.size("jobs/a/b") == len(content)
    there.put(file, "jobs/ab")
    assert there.names("jobs") == {"a", "ab"}
    assert [*bucket.hashes] == ["jobs/a/b", "jobs/ab"], "no draft is left"
    there.fetch("jobs/a", tmp_path / "copy")
    assert (tmp_path / "copy" / "b").read_bytes() == b"other"
    there.remove("jobs/a")
    there.remove("jobs/a")
    assert there.names("jobs") == {"ab"}
    assert not there.exists("jobs/a/b")


def test_a_bucket_that_refuses_or_fails_is_an_error_of_ours(
    bucket: BucketVendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitune_local.remote.storage.FIRST_PAUSE_SECONDS", 0.0)
    there, file = Storage(f"hf://buckets/{ACCOUNT}/unitune"), tmp_path / "file"
    file.write_bytes(b"x")
    bucket.key = "another"
    with pytest.raises(Unreachable, match=r"could not write hf://buckets/ana/unitune/a \(\w+"):
        there.put(file, "a")
    with pytest.raises(Unreachable, match="could not list"):
        there.names("a")


def test_a_worker_trains_from_a_bucket_and_its_model_answers_here(
    bucket: BucketVendor, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is in this process, as the stand-in for Xet admits one process at a time."""
    monkeypatch.setenv("UNITUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("UNITUNE_IMAGE", "unitune:cpu")
    monkeypatch.setenv("UNITUNE_STORAGE", "")
    backend = HfJobsBackend()
    path = write_rows(tmp_path / "rows.jsonl", 24)
    uploaded = backend.upload(path, sha256_of(path))
    assert backend.upload(path, sha256_of(path)) == uploaded
    made = launch(
        tmp_path,
        model=str(tiny_model),
        tuning={"epochs": 1, "batch_size": 8},
        options={"hf-jobs": {"checkpoint_every_steps": 1}},
    )
    id_ = backend.submit(replace(made, training=uploaded))
    job = bucket.jobs[id_]
    assert job.launch["storage"] == f"hf://buckets/{ACCOUNT}/unitune"
    assert job.spec["environment"]["HF_ENDPOINT"] == os.environ["HF_ENDPOINT"]
    run(RemoteLaunch.model_validate(job.launch))
    bucket.runs, job.progress.polls = True, 99  # nothing is stored by the double
    status = backend.poll(id_, "")
    assert status.state is State.SUCCEEDED, status.error
    assert [event.number("step") for event in status.events if event.kind == "step"] == [1, 2, 3]
    assert status.model is not None
    assert reply_once(backend.chat(status.model)).error is None
    backend.delete_model(status.model)
    assert [name for name in bucket.hashes if name.startswith("jobs/")] == []
