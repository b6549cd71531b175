"""The Together backend keeps the contract of every backend, on the real SDK and a loopback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

pytest.importorskip("together", reason="needs the extra `together`")

from unitune import registry
from unitune.abilities import Deploys
from unitune.backend import Backend
from unitune.testing.contract import BackendContract, Training, ask
from unitune.testing.loopback import Conduct, serve
from unitune_providers.loopback.together.vendor import KEY, TogetherVendor
from unitune_providers.together import endpoints as together_endpoints
from unitune_providers.together import files as together_files


class TestTogether(BackendContract):
    name = "together"
    model: ClassVar[str] = "Qwen/Qwen3-0.6B"
    poll_seconds = 0.01

    def test_tuned_and_untuned_models_reply(self, backend: Backend, training: Training) -> None:
        """A tuned model answers from its endpoint alone, so this one brings it up first."""
        assert isinstance(backend, Deploys)
        ref = backend.deploy(training.model, "contract", {"config": "cr_one"})
        while (seen := backend.deployed(ref, training.model)).state == "starting":
            pass
        assert None is ask(backend, self.model).error
        assert None is ask(backend, seen.model).error
        assert ask(backend, training.model).error


@pytest.fixture(scope="class", autouse=True)
def _loopback() -> Iterator[None]:
    with serve(TogetherVendor(Conduct())) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOGETHER_BASE_URL", server.url)
        patch.setenv("TOGETHER_API_KEY", KEY)
        patch.setattr(together_files, "LOOK_SECONDS", 0.001)
        patch.setattr(together_endpoints, "LOOK_SECONDS", 0.001)
        registry.backend.cache_clear()
        yield
        registry.backend.cache_clear()
