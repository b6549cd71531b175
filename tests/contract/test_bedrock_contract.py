"""The bedrock backend keeps the contract, through boto3, against servers on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

pytest.importorskip("boto3", reason="needs the extra `bedrock`")


from unitune import registry
from unitune.abilities import Deploys
from unitune.backend import Status
from unitune.job import Tuning
from unitune.testing.contract import BackendContract
from unitune.testing.loopback import Conduct, serve
from unitune_providers.loopback.bedrock.storage import s3_storage
from unitune_providers.loopback.bedrock.vendor import BUCKET, BedrockVendor, environment

CONDUCT = Conduct(replies={"What is the colour of snow?": "white"})


class TestBedrock(BackendContract):
    name = "bedrock"
    model = "amazon.nova-micro-v1:0:128k"
    tuning = Tuning(epochs=2, learning_rate=1e-5)
    options = {"learning_rate_warmup_steps": 5}  # noqa: RUF012 - the contract's class attribute
    poll_seconds = 0.001

    @classmethod
    def follow(cls, job_id: str) -> list[Status]:
        """Deploy what comes of a training, since Bedrock's tuned models answer only so."""
        statuses = super().follow(job_id)
        backend, model = registry.backend(cls.name), statuses[-1].model
        if model is not None and isinstance(backend, Deploys):
            ref = backend.deploy(model, f"d{time.time_ns()}", {})
            while backend.deployed(ref, model).state == "starting":
                time.sleep(cls.poll_seconds)
        return statuses


@pytest.fixture(scope="module", autouse=True)
def _aws() -> Iterator[None]:
    registry.backend.cache_clear()
    with (
        s3_storage(BUCKET) as storage,
        serve(BedrockVendor(storage, CONDUCT)) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in environment(server.url, storage.url).items():
            patch.setenv(name, value)
        yield
    registry.backend.cache_clear()
