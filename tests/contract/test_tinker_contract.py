"""The backend `tinker` keeps the contract, with its real SDK at a Tinker on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("torch", reason="needs the extra `local`")
pytest.importorskip("tinker", reason="needs the extra `tinker`")

from support.steps import contract_served
from vendors.tinker.vendor import TinkerVendor, environment

from unitune.job.job import Tuning
from unitune.testing.contract import BackendContract


class TestTinker(BackendContract):
    name = "tinker"
    tuning = Tuning(epochs=1)
    slow_tuning = Tuning(epochs=2000)


@pytest.fixture(scope="module", autouse=True)
def _tinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    models = tmp_path_factory.mktemp("models")
    with contract_served(TestTinker, TinkerVendor, environment, models):
        yield
