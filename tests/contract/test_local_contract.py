"""The local backend keeps the contract of every backend, on a tiny model and a real worker."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs the extra `local`")

from support.tiny_model import save_tiny_model
from support.warm import WARM_SUBPROCESS

from unitune.job.job import Tuning
from unitune.testing.contract import BackendContract
from unitune_local.training import worker


class TestLocal(BackendContract):
    name = "local"
    tuning = Tuning(epochs=1)
    options = {"threads": 1}  # noqa: RUF012 - the contract's class attribute
    slow_tuning = Tuning(epochs=100_000)


@pytest.fixture(scope="module", autouse=True)
def _tiny_base(tmp_path_factory: pytest.TempPathFactory) -> None:
    TestLocal.model = str(save_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module", autouse=True)
def _warm_workers() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "subprocess", WARM_SUBPROCESS)
        yield


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNITUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
