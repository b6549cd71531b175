"""The backend `tinker` keeps the contract, with its real SDK at a Tinker on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("torch", reason="needs the extra `local`")
pytest.importorskip("tinker", reason="needs the extra `tinker`")

from support.tiny_model import save_tiny_model
from support.warm import WARM_SUBPROCESS
from vendors.tinker import KEY
from vendors.tinker.vendor import TinkerVendor

from unitune.job.job import Tuning
from unitune.testing.contract import BackendContract
from unitune.testing.loopback import serve
from unitune_local.training import worker


class TestTinker(BackendContract):
    name = "tinker"
    tuning = Tuning(epochs=1)
    slow_tuning = Tuning(epochs=2000)


@pytest.fixture(scope="module", autouse=True)
def _tinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    TestTinker.model = str(save_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))
    with (
        serve(TinkerVendor(models={TestTinker.model: 512})) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("TINKER_BASE_URL", server.url)
        patch.setenv("TINKER_API_KEY", KEY)
        patch.setenv("UNITUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(worker, "subprocess", WARM_SUBPROCESS)
        yield
