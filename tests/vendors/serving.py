"""All vendors by name: `play` serves one on loopback and leads its backend there.

For tests and benchmarks that go through every hosted backend. What a vendor needs around it (a key,
a bucket, a small base model, its wire path of the create call) stands in `VendorSetup`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import cast
from unittest.mock import patch

from unitune.backends import registry
from unitune.testing.kills import VendorState
from unitune.testing.loopback import Server, ServerBehavior, serve
from unitune_providers.vertex.cloud import Patience
from vendors.bedrock import vendor as bedrock
from vendors.bedrock.storage import S3Storage, s3_storage
from vendors.openai import vendor as openai
from vendors.together import vendor as together
from vendors.vertex import vendor as vertex


@dataclass(frozen=True, slots=True)
class VendorSetup:
    """A vendor that can be played.

    Args:
        model: A base model that it tunes.
        create: Regular expression of the path of its create call, a POST.
        waits: How long its backend waits for a vendor that is this near: values by module and name.
        open: Serves it, and returns the environment in which its backend finds it.
        state: Counts what the vendor has.
    """

    model: str
    create: str
    waits: Mapping[str, object]
    open: Callable[[ExitStack, ServerBehavior], tuple[Server, dict[str, str]]]
    state: Callable[[Server], VendorState]


@dataclass(frozen=True, slots=True)
class ServedVendor:
    """A vendor that is being played."""

    setup: VendorSetup
    server: Server

    def state(self) -> VendorState:
        """Count the vendor's jobs and files in its own books."""
        return self.setup.state(self.server)


@contextmanager
def serve_vendor(name: str, behavior: ServerBehavior | None = None) -> Generator[ServedVendor]:
    """Serve a vendor while the body runs, with this process's environment leading there.

    Args:
        name: A backend's: openai, together, vertex or bedrock.
        behavior: How it behaves.
    """
    setup = VENDORS[name]
    with ExitStack() as stack:
        server, environment = setup.open(stack, behavior or ServerBehavior())
        stack.enter_context(patch.dict(os.environ, environment))
        for place, value in setup.waits.items():
            stack.enter_context(patch(f"unitune_providers.{place}", value))
        registry.backend.cache_clear()
        stack.callback(registry.backend.cache_clear)
        yield ServedVendor(setup, server)


def _openai(stack: ExitStack, behavior: ServerBehavior) -> tuple[Server, dict[str, str]]:
    server = stack.enter_context(serve(openai.OpenAIVendor(behavior)))
    # In its own place: of any other address it is not known whether it keeps metadata.
    stack.enter_context(patch("unitune_providers.openai.backend.OPENAI_URL", f"{server.url}/v1"))
    return server, {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": openai.KEY}


def _together(stack: ExitStack, behavior: ServerBehavior) -> tuple[Server, dict[str, str]]:
    server = stack.enter_context(serve(together.TogetherVendor(behavior)))
    return server, {"TOGETHER_BASE_URL": server.url, "TOGETHER_API_KEY": together.KEY}


def _vertex(stack: ExitStack, behavior: ServerBehavior) -> tuple[Server, dict[str, str]]:
    server = stack.enter_context(serve(vertex.VertexVendor(behavior)))
    return server, vertex.environment(server.url)


def _bedrock(stack: ExitStack, behavior: ServerBehavior) -> tuple[Server, dict[str, str]]:
    storage = stack.enter_context(s3_storage(bedrock.BUCKET))
    server = stack.enter_context(serve(bedrock.BedrockVendor(storage, behavior)))
    return server, bedrock.environment(server.url, storage.url)


def _openai_state(server: Server) -> VendorState:
    vendor = cast("openai.OpenAIVendor", server.vendor)
    return VendorState(len(vendor.jobs), len(vendor.files.stored))


def _together_state(server: Server) -> VendorState:
    vendor = cast("together.TogetherVendor", server.vendor)
    return VendorState(len(vendor.jobs.all), len(vendor.files.all))


def _vertex_state(server: Server) -> VendorState:
    vendor = cast("vertex.VertexVendor", server.vendor)
    return VendorState(len(vendor.jobs), len(vendor.storage.objects))


def _bedrock_state(server: Server) -> VendorState:
    vendor = cast("bedrock.BedrockVendor", server.vendor)
    return VendorState(len(vendor.jobs), cast("S3Storage", vendor.storage).count(bedrock.BUCKET))


VENDORS = {
    "openai": VendorSetup(
        model="gpt-4.1-mini-2025-04-14",
        create=r"/fine_tuning/jobs$",
        waits={},
        open=_openai,
        state=_openai_state,
    ),
    "together": VendorSetup(
        model="Qwen/Qwen3-8B",
        create=r"/fine-tunes$",
        waits={"together.files.LOOK_SECONDS": 0.001, "together.endpoints.LOOK_SECONDS": 0.001},
        open=_together,
        state=_together_state,
    ),
    "vertex": VendorSetup(
        model="gemini-3.5-flash-lite",
        create=r"/tuningJobs$",
        waits={"vertex.cloud.PATIENCE": Patience(2.0, 2, 0.01, 5.0, 5.0, 0.01)},
        open=_vertex,
        state=_vertex_state,
    ),
    "bedrock": VendorSetup(
        model="amazon.nova-micro-v1:0:128k",
        create=r"/model-customization-jobs$",
        waits={},
        open=_bedrock,
        state=_bedrock_state,
    ),
}
