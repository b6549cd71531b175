"""Serve doubles of vendors to requests that wait for nothing."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import pytest
from vendors import anthropic
from vendors.anthropic import AnthropicVendor
from vendors.vertex.vendor import VertexVendor, environment

from unitune.testing.loopback import Server, serve


@contextmanager
def served_vertex(vendor: VertexVendor, patch: pytest.MonkeyPatch) -> Generator[Server]:
    """Serve Vertex AI, with limits of 0.6 s."""
    for limit in ("api.TIMEOUT_SECONDS", "api.UPLOAD_SECONDS", "chat.ANSWER_SECONDS"):
        patch.setattr(f"unitune.backends.kit.{limit}", 0.6)
    patch.setattr("unitune.backends.retry.sleep", lambda _: None)
    patch.setattr("unitune_providers.vertex.backend.OPERATION_POLL_SECONDS", 0.01)
    with serve(vendor) as server:
        for name, value in environment(server.url).items():
            patch.setenv(name, value)
        yield server


@contextmanager
def served_anthropic(
    vendor: AnthropicVendor, patch: pytest.MonkeyPatch, attempts: int = 1
) -> Generator[Server]:
    """Serve Anthropic, with limits of 1 s and so many attempts to read."""
    for name in ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_PROFILE", "ANTHROPIC_CUSTOM_HEADERS"):
        patch.delenv(name, raising=False)
    patch.setattr("unitune.backends.retry.READ_ATTEMPTS", attempts)
    patch.setattr("unitune.backends.retry.sleep", lambda _: None)
    for limit in ("api.TIMEOUT_SECONDS", "chat.ANSWER_SECONDS"):
        patch.setattr(f"unitune.backends.kit.{limit}", 1.0)
    patch.setenv("ANTHROPIC_API_KEY", anthropic.KEY)
    with serve(vendor) as server:
        patch.setenv("ANTHROPIC_BASE_URL", server.url)
        yield server
