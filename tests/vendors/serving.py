"""All vendors by name: `play` serves one on loopback and leads its backend there.

For tests and benchmarks that go through every hosted backend. What a vendor needs around it (a key,
a bucket, a small base model, its wire path of the create call) stands in `Part`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import cast
from unittest.mock import patch

from unitune.backends import registry
from unitune.testing.kills import Stock
from unitune.testing.loopback import Conduct, Server, serve
from unitune_providers.vertex.cloud import Patience
from vendors.bedrock import vendor as bedrock
from vendors.bedrock.storage import S3Storage, s3_storage
from vendors.openai import vendor as openai
from vendors.together import vendor as together
from vendors.vertex import vendor as vertex


@dataclass(frozen=True, slots=True)
class Part:
    """A vendor that can be played.

    Args:
        model: A base model that it tunes.
        create: Regular expression of the path of its create call, a POST.
        waits: How long its backend waits for a vendor that is this near: values by module and name.
        open: Serves it, and returns the environment in which its backend finds it.
        stock: Counts what the vendor has.
    """

    model: str
    create: str
    waits: Mapping[str, object]
    open: Callable[[ExitStack, Conduct], tuple[Server, dict[str, str]]]
    stock: Callable[[Server], Stock]


@dataclass(frozen=True, slots=True)
class Playing:
    """A vendor that is being played."""

    part: Part
    server: Server

    def stock(self) -> Stock:
        """Count the vendor's jobs and files in its own books."""
        return self.part.stock(self.server)


@contextmanager
def play(name: str, conduct: Conduct | None = None) -> Generator[Playing]:
    """Serve a vendor while the body runs, with this process's environment leading there.

    Args:
        name: A backend's: openai, together, vertex or bedrock.
        conduct: How it behaves.
    """
    part = PARTS[name]
    with ExitStack() as stack:
        server, environment = part.open(stack, conduct or Conduct())
        stack.enter_context(patch.dict(os.environ, environment))
        for place, value in part.waits.items():
            stack.enter_context(patch(f"unitune_providers.{place}", value))
        registry.backend.cache_clear()
        stack.callback(registry.backend.cache_clear)
        yield Playing(part, server)


def _openai(stack: ExitStack, conduct: Conduct) -> tuple[Server, dict[str, str]]:
    server = stack.enter_context(serve(openai.OpenAIVendor(conduct)))
    # In its own place: of any other address it is not known whether it keeps metadata.
    stack.enter_context(patch("unitune_providers.openai.backend.OPENAI_URL", f"{server.url}/v1"))
    return server, {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": openai.KEY}


def _together(stack: ExitStack, conduct: Conduct) -> tuple[Server, dict[str, str]]:
    server = stack.enter_context(serve(together.TogetherVendor(conduct)))
    return server, {"TOGETHER_BASE_URL": server.url, "TOGETHER_API_KEY": together.KEY}


def _vertex(stack: ExitStack, conduct: Conduct) -> tuple[Server, dict[str, str]]:
    server = stack.enter_context(serve(vertex.VertexVendor(conduct)))
    return server, vertex.environment(server.url)


def _bedrock(stack: ExitStack, conduct: Conduct) -> tuple[Server, dict[str, str]]:
    storage = stack.enter_context(s3_storage(bedrock.BUCKET))
    server = stack.enter_context(serve(bedrock.BedrockVendor(storage, conduct)))
    return server, bedrock.environment(server.url, storage.url)


def _openai_stock(server: Server) -> Stock:
    vendor = cast("openai.OpenAIVendor", server.vendor)
    return Stock(len(vendor.jobs), len(vendor.files.stored))


def _together_stock(server: Server) -> Stock:
    vendor = cast("together.TogetherVendor", server.vendor)
    return Stock(len(vendor.jobs.all), len(vendor.files.all))


def _vertex_stock(server: Server) -> Stock:
    vendor = cast("vertex.VertexVendor", server.vendor)
    return Stock(len(vendor.jobs), len(vendor.storage.objects))


def _bedrock_stock(server: Server) -> Stock:
    vendor = cast("bedrock.BedrockVendor", server.vendor)
    return Stock(len(vendor.jobs), cast("S3Storage", vendor.storage).count(bedrock.BUCKET))


PARTS = {
    "openai": Part(
        model="gpt-4.1-mini-2025-04-14",
        create=r"/fine_tuning/jobs$",
        waits={},
        open=_openai,
        stock=_openai_stock,
    ),
    "together": Part(
        model="Qwen/Qwen3-8B",
        create=r"/fine-tunes$",
        waits={"together.files.LOOK_SECONDS": 0.001, "together.endpoints.LOOK_SECONDS": 0.001},
        open=_together,
        stock=_together_stock,
    ),
    "vertex": Part(
        model="gemini-3.5-flash-lite",
        create=r"/tuningJobs$",
        waits={"vertex.cloud.PATIENCE": Patience(2.0, 2, 0.01, 5.0, 5.0, 0.01)},
        open=_vertex,
        stock=_vertex_stock,
    ),
    "bedrock": Part(
        model="amazon.nova-micro-v1:0:128k",
        create=r"/model-customization-jobs$",
        waits={},
        open=_bedrock,
        stock=_bedrock_stock,
    ),
}
