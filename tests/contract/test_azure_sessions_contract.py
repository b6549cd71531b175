"""The backend `azure-sessions` keeps the contract, at Azure's sessions on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("torch", reason="needs the extra `azure-sessions`")

from support.steps import contract_served
from vendors.azure_sessions import AzureSessionsVendor, environment

from unitune.job.job import Tuning
from unitune.testing.contract import BackendContract


class TestAzureSessions(BackendContract):
    name = "azure-sessions"
    tuning = Tuning(epochs=1)
    slow_tuning = Tuning(epochs=2000)


@pytest.fixture(scope="module", autouse=True)
def _azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    models = tmp_path_factory.mktemp("models")
    with contract_served(TestAzureSessions, AzureSessionsVendor, environment, models):
        yield
