"""Records of runs and deployments, and a run whose launch was interrupted."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from unitune.backends.exactly_once import run_id
from unitune.errors import Unreachable
from unitune.job.job import Job
from unitune.ledger import DeploymentRecord, RunRecord
from unitune.models import TunedModel
from unitune.run.run import Run, launch, runs
from unitune.testing import FakeBackend


def a_record(fingerprint: str = "f" * 64) -> RunRecord:
    """Return a new run of the fake."""
    now = time.time()
    return RunRecord(run_id(now), "demo", "fake", "tiny", "sft", fingerprint, now, now)


def a_deployment(**changes: Any) -> DeploymentRecord:
    """Return a deployment at the fake, without a price, that is ready from the first second on."""
    model = TunedModel(backend="fake", name="x", base="tiny")
    name = "unitune-demo"
    made = DeploymentRecord(name, None, "fake", name, model, "ready", "ref", None, 1.0, 2.0, None)
    return replace(made, **changes)


def interrupted_in_its_upload(job: Job) -> Run:
    """Launch a job whose vendor does not answer the upload, and return the run."""
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(FakeBackend, "upload", lambda *_: (_ for _ in ()).throw(Unreachable("gone")))
        with pytest.raises(Unreachable):
            launch(job)
    return runs()[0]
