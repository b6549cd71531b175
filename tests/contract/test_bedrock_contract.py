"""The bedrock backend keeps the contract, through boto3, against servers on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("boto3", reason="needs the extra `bedrock`")


from vendors.bedrock.storage import s3_storage
from vendors.bedrock.vendor import BUCKET, BedrockVendor, environment

from unitune.backends import registry
from unitune.job.job import Tuning
from unitune.testing.contract import BackendContract
from unitune.testing.loopback import Server, ServerBehavior, serve

BEHAVIOR = ServerBehavior(replies={"What is the colour of snow?": "white"})


class TestBedrock(BackendContract):
    name = "bedrock"
    model = "amazon.nova-micro-v1:0:128k"
    tuning = Tuning(epochs=2, learning_rate=1e-5)
    options = {"learning_rate_warmup_steps": 5}  # noqa: RUF012 - the contract's class attribute
    poll_seconds = 0.001

    create = r"/model-customization-jobs$"

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def server(cls) -> Iterator[Server]:
        """Bedrock and S3 on loopback, in the environment."""
        registry.backend.cache_clear()
        with (
            s3_storage(BUCKET) as storage,
            serve(BedrockVendor(storage, BEHAVIOR)) as server,
            pytest.MonkeyPatch.context() as patch,
        ):
            for name, value in environment(server.url, storage.url).items():
                patch.setenv(name, value)
            yield server
        registry.backend.cache_clear()
