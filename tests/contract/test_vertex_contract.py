"""The vertex backend keeps the contract, through Google's own SDKs, against its loopback server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import ClassVar

import pytest

pytest.importorskip("google.genai", reason="needs the extra `vertex`")
pytest.importorskip("google.cloud.storage", reason="needs the extra `vertex`")

from vendors.vertex.vendor import VertexVendor, environment

from unitune.backends import registry
from unitune.job.job import Tuning
from unitune.testing.contract import COLOURS, BackendContract
from unitune.testing.loopback import Server, ServerBehavior, serve


def wire_row(thing: str, colour: str) -> str:
    question = {"role": "user", "parts": [{"text": f"What is the colour of {thing}?"}]}
    answer = {"role": "model", "parts": [{"text": colour}]}
    return json.dumps({"contents": [question, answer]}) + "\n"


class TestVertex(BackendContract):
    name = "vertex"
    model = "gemini-3.5-flash-lite"
    tuning = Tuning(epochs=2)
    slow_tuning = Tuning(epochs=100)
    rows: ClassVar[Sequence[str]] = [wire_row(*pair) for pair in COLOURS.items()]
    poll_seconds = 0.001
    create = r"/tuningJobs$"

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def server(cls) -> Iterator[Server]:
        """Vertex AI and Cloud Storage on loopback, in the environment."""
        behavior = ServerBehavior(replies={"What is the colour of snow?": "white"})
        with serve(VertexVendor(behavior)) as server, pytest.MonkeyPatch.context() as patch:
            for name, value in environment(server.url).items():
                patch.setenv(name, value)
            registry.backend.cache_clear()
            yield server
        registry.backend.cache_clear()
