"""OpenAI's backend keeps the contract, through its real SDK against a server on loopback."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import pytest
from pydantic import JsonValue
from vendors.openai.vendor import KEY, OpenAIVendor

from unitune.backends import registry
from unitune.job.job import Tuning
from unitune.testing.contract import ROWS, BackendContract
from unitune.testing.loopback import Server, ServerBehavior, serve


class TestOpenAIBackend(BackendContract):
    name = "openai"
    model = "gpt-4.1-mini-2025-04-14"
    tuning: ClassVar[Tuning] = Tuning(epochs=2, batch_size=4, seed=7)
    options: ClassVar[Mapping[str, JsonValue]] = {"learning_rate_multiplier": 1.5}
    rows: ClassVar[Sequence[str]] = (*ROWS, *ROWS)  # OpenAI takes ten at least
    poll_seconds = 0.001
    create = r"/fine_tuning/jobs$"

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def server(cls) -> Iterator[Server]:
        """OpenAI on loopback, in the environment."""
        with (
            serve(OpenAIVendor(ServerBehavior(steps=6))) as server,
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
            patch.setenv("OPENAI_API_KEY", KEY)
            registry.backend.cache_clear()
            yield server
        registry.backend.cache_clear()
