"""The bedrock backend keeps the contract, through boto3, against servers on loopback."""

from __future__ import annotations

import pytest

pytest.importorskip("boto3", reason="needs the extra `bedrock`")

from vendors.serving import VENDORS

from unitune.job.job import Tuning
from unitune.testing.contract import BackendContract


class TestBedrock(BackendContract):
    name = "bedrock"
    setup = VENDORS["bedrock"]
    tuning = Tuning(epochs=2, learning_rate=1e-5, warmup=5)
