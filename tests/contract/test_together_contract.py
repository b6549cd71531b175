"""The Together backend keeps the contract of every backend, on the real SDK and a loopback."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import pytest

pytest.importorskip("together", reason="needs the extra `together`")

from pydantic import JsonValue
from vendors.together.vendor import KEY, TogetherVendor

from unitune.backends import registry
from unitune.testing.contract import BackendContract
from unitune.testing.loopback import Server, ServerBehavior, serve
from unitune_providers.together import endpoints as together_endpoints
from unitune_providers.together import files as together_files


class TestTogether(BackendContract):
    name = "together"
    model: ClassVar[str] = "Qwen/Qwen3-0.6B"
    poll_seconds = 0.01

    create = r"/fine-tunes$"
    deploy_options: ClassVar[Mapping[str, JsonValue]] = {"config": "cr_one"}

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def server(cls) -> Iterator[Server]:
        """Together on loopback, in the environment."""
        with (
            serve(TogetherVendor(ServerBehavior())) as server,
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setenv("TOGETHER_BASE_URL", server.url)
            patch.setenv("TOGETHER_API_KEY", KEY)
            patch.setattr(together_files, "LOOK_SECONDS", 0.001)
            patch.setattr(together_endpoints, "LOOK_SECONDS", 0.001)
            registry.backend.cache_clear()
            yield server
        registry.backend.cache_clear()
