"""A training on a rented machine in full: real workers, whose launcher is killed in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra `local`")
pytest.importorskip("huggingface_hub", reason="needs the extra `hf-jobs`")
pytest.importorskip("fsspec", reason="needs the extra `skypilot`")

from support.served import wait_until
from support.tiny_model import save_tiny_model, write_rows
from vendors.hf_jobs import HfJobsVendor, hf_jobs_setup
from vendors.skypilot import SkyPilotVendor, skypilot_setup

from unitune.backends.protocol import State
from unitune.job.job import Job
from unitune.run.run import launch, runs
from unitune.testing.loopback import Fault
from unitune.testing.vendor_setup import serve_vendor

pytestmark = pytest.mark.heavy

JOB = """
name: rented
model: {model}
backend: {backend}
data: {{train: train.jsonl, validation: 0.25}}
tuning: {{epochs: 3, batch_size: 8}}
options: {{{backend}: {{checkpoint_every_steps: 1, threads: 1, dtype: float32}}}}
"""
LAUNCH = """
import unitune
from unitune.run import creating

creating.CREATE_SECONDS = 1  # no other process acts for a run in this time
unitune.launch(unitune.Job.load("unitune.yaml"))
"""
PATIENCE_SECONDS = 60


SETUPS = {"hf-jobs": hf_jobs_setup(runs=True), "skypilot": skypilot_setup(runs=True)}


@pytest.fixture(params=SETUPS)
def vendor(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HfJobsVendor | SkyPilotVendor]:
    """Jobs that run their command as processes here, and a project that launches there."""
    model = save_tiny_model(tmp_path / "tiny")
    project = tmp_path / "project"
    project.mkdir()
    write_rows(project / "train.jsonl", 24)
    job = JOB.format(model=model, backend=request.param)
    (project / "unitune.yaml").write_text(job, encoding="utf-8")
    monkeypatch.chdir(project)
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("UNITUNE_CACHE", str(tmp_path / "cache"))
    with serve_vendor(SETUPS[request.param]) as served:
        made = served.server.vendor
        assert isinstance(made, HfJobsVendor | SkyPilotVendor)
        yield made


def test_a_launcher_that_is_killed_loses_and_doubles_nothing(
    vendor: HfJobsVendor | SkyPilotVendor,
) -> None:
    with subprocess.Popen([sys.executable, "-c", LAUNCH]) as launcher:
        wait_until(lambda: bool(vendor.jobs), PATIENCE_SECONDS)
        os.kill(launcher.pid, signal.SIGKILL)
    (run,) = runs()
    assert run.resume().wait(0.1).state is State.SUCCEEDED, run.error
    assert len(vendor.jobs) == 1
    steps = [event.number("step") for event in run.events() if event.kind == "step"]
    assert steps == [*range(1, 10)]
    assert run.model.ask("hello?")
    logs = [log.read_text("utf-8") for log in vendor.storage.glob("*.log")]
    assert len(logs) == 1
    assert "_loopback" not in logs[0]


def test_a_second_job_on_a_machine_ends_before_it_trains(tmp_path: Path) -> None:
    """Such as by a launch that a proxy delivered twice."""
    write_rows(tmp_path / "train.jsonl", 24)
    job = JOB.format(model=save_tiny_model(tmp_path / "tiny"), backend="skypilot")
    (tmp_path / "unitune.yaml").write_text(job, encoding="utf-8")
    with serve_vendor(SETUPS["skypilot"]) as served, pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
        served.server.inject_fault(Fault.TWICE, "POST", "/launch$")
        run = launch(Job.load("unitune.yaml"))
        assert run.wait(0.1).state is State.SUCCEEDED, run.error
        vendor = served.server.vendor
        assert isinstance(vendor, SkyPilotVendor)
        (machine,) = vendor.jobs.values()
        done = ["SUCCEEDED", "SUCCEEDED"]
        wait_until(lambda: machine.words(vendor.behavior) == done, PATIENCE_SECONDS)
        said = [log.read_text("utf-8") for log in vendor.storage.glob("*.log")]
    assert sorted("this one ends" in each for each in said) == [False, True]
    steps = [event.number("step") for event in run.events() if event.kind == "step"]
    assert steps == [*range(1, 10)]
