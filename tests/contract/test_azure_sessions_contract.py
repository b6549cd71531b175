"""The backend `azure-sessions` keeps the contract, at Azure's sessions on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("torch", reason="needs the extra `azure-sessions`")

from support.tiny_model import save_tiny_model
from support.warm import WARM_SUBPROCESS
from vendors.azure_sessions import KEY, AzureSessionsVendor

from unitune.job.job import Tuning
from unitune.testing.contract import BackendContract
from unitune.testing.loopback import serve
from unitune_local.training import worker


class TestAzureSessions(BackendContract):
    name = "azure-sessions"
    tuning = Tuning(epochs=1)
    slow_tuning = Tuning(epochs=2000)


@pytest.fixture(scope="module", autouse=True)
def _azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    TestAzureSessions.model = str(save_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))
    with (
        serve(AzureSessionsVendor(models={TestAzureSessions.model: 512})) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("AZURE_AI_PROJECT_ENDPOINT", server.url)
        patch.setenv("AZURE_AI_API_KEY", KEY)
        patch.setenv("UNITUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(worker, "subprocess", WARM_SUBPROCESS)
        yield
