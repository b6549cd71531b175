"""The scripted backend keeps the contract, so that what is tested on it holds for others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import pytest
from pydantic import JsonValue

from unitune.backends.protocol import Guarantee
from unitune.testing import BackendContract, FakeBackend


@pytest.fixture(autouse=True, scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The vendor's folder is no part of the one where the tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNITUNE_FAKE_DIR", str(tmp_path_factory.mktemp("vendor")))
        yield


class TestFakeBackend(BackendContract):
    name = "fake"
    options: ClassVar[Mapping[str, JsonValue]] = {
        "states": ["queued", "validating_files", "a_new_word", "running"],
        "steps": 5,
    }
    slow_options: ClassVar[Mapping[str, JsonValue]] = {"steps": 100_000}
    poll_seconds = 0.001


class TestFakeBackendOnTheClock(BackendContract):
    name = "fake"
    options: ClassVar[Mapping[str, JsonValue]] = {"seconds_per_step": 0.01}
    slow_options: ClassVar[Mapping[str, JsonValue]] = {"seconds_per_step": 60}
    poll_seconds = 0.005


class TestFakeBackendWithoutKeys(BackendContract):
    name = "fake"
    poll_seconds = 0.001
    slow_options: ClassVar[Mapping[str, JsonValue]] = {"steps": 100_000}

    @pytest.fixture(autouse=True)
    def findable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(FakeBackend, "guarantee", Guarantee.FINDABLE)
