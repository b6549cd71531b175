"""How each hosted vendor is served on loopback: a key, a bucket, a small base, the create call."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from unitune.testing import vendor_setup
from unitune.testing.loopback import Server
from unitune.testing.vendor_setup import ServedVendor, ServerBehavior, VendorSetup, VendorState
from vendors import anthropic, fireworks
from vendors.bedrock import vendor as bedrock
from vendors.bedrock.storage import s3_storage
from vendors.openai import azure, nebius
from vendors.openai import vendor as openai
from vendors.together import vendor as together
from vendors.vertex import vendor as vertex

NEBIUS_BASE = "meta-llama/Meta-Llama-3.1-8B-Instruct"


@contextmanager
def _bedrock(behavior: ServerBehavior) -> Generator[bedrock.BedrockVendor]:
    with s3_storage(bedrock.BUCKET) as storage:
        yield bedrock.BedrockVendor(storage, behavior)


# So that lists of a few jobs have several pages
SHORT_PAGES = {"unitune_providers.openai.wire.Server.page": 2}


def _openai_patches(server: Server) -> dict[str, object]:
    # Of any other address than the vendor's own it is not known whether it keeps metadata.
    return {**SHORT_PAGES, "unitune_providers.openai.backend.OPENAI_URL": f"{server.url}/v1"}


VENDORS = {
    "openai": VendorSetup(
        vendor=openai.OpenAIVendor,
        environment=lambda server: {
            "OPENAI_BASE_URL": f"{server.url}/v1",
            "OPENAI_API_KEY": openai.KEY,
        },
        create=r"/fine_tuning/jobs$",
        model="gpt-4.1-mini-2025-04-14",
        patches=_openai_patches,
        timeouts=("unitune.backends.kit.api.TIMEOUT_SECONDS",),
    ),
    "azure": VendorSetup(
        vendor=azure.AzureVendor,
        environment=azure.environment,
        create=r"/fine_tuning/jobs$",
        model="gpt-4.1-mini-2025-04-14",
        patches=lambda _: SHORT_PAGES,
        timeouts=("unitune.backends.kit.api.TIMEOUT_SECONDS",),
    ),
    "nebius": VendorSetup(
        vendor=partial(nebius.NebiusVendor, bases=(NEBIUS_BASE,)),
        environment=lambda server: {
            "NEBIUS_BASE_URL": f"{server.url}/v1",
            "NEBIUS_API_KEY": openai.KEY,
        },
        create=r"/fine_tuning/jobs$",
        model=NEBIUS_BASE,
        patches=lambda _: SHORT_PAGES,
        timeouts=("unitune.backends.kit.api.TIMEOUT_SECONDS",),
    ),
    "together": VendorSetup(
        vendor=together.TogetherVendor,
        environment=lambda server: {
            "TOGETHER_BASE_URL": server.url,
            "TOGETHER_API_KEY": together.KEY,
        },
        create=r"/fine-tunes$",
        model="Qwen/Qwen3-8B",
        patches=lambda _: {
            "unitune.backends.kit.hosted.FILE_POLL_SECONDS": 0.001,
            "unitune_providers.together.backend.POLL_SECONDS": 0.001,
        },
        timeouts=("unitune.backends.kit.api.TIMEOUT_SECONDS",),
    ),
    "fireworks": VendorSetup(
        vendor=fireworks.FireworksVendor,
        environment=lambda server: {
            "FIREWORKS_BASE_URL": server.url,
            "FIREWORKS_API_KEY": fireworks.KEY,
            "FIREWORKS_ACCOUNT_ID": fireworks.ACCOUNT,
        },
        create=r"/supervisedFineTuningJobs$",
        model=fireworks.BASE,
        timeouts=("unitune.backends.kit.api.TIMEOUT_SECONDS",),
    ),
    "vertex": VendorSetup(
        vendor=vertex.VertexVendor,
        environment=lambda server: vertex.environment(server.url),
        create=r"/tuningJobs$",
        model="gemini-3.5-flash-lite",
        state=lambda vendor: VendorState(len(vendor.jobs), len(vendor.storage.objects)),
        patches=lambda _: {
            "unitune_providers.vertex.backend.OPERATION_POLL_SECONDS": 0.01,
            "unitune_providers.vertex.backend.PAGE_SIZE": 2,
            "unitune_providers.vertex.cloud.PAGE_SIZE": 2,
        },
        timeouts=("unitune.backends.kit.api.TIMEOUT_SECONDS",),
    ),
    "bedrock": VendorSetup(
        vendor=_bedrock,
        environment=lambda server: bedrock.environment(server.url, server.vendor.storage.url),  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType] - BedrockVendor's
        create=r"/model-customization-jobs$",
        model="amazon.nova-micro-v1:0:128k",
        state=lambda vendor: VendorState(len(vendor.jobs), vendor.storage.count(bedrock.BUCKET)),
        timeouts=("unitune_providers.bedrock.clients.READ_SECONDS",),
    ),
}
"""All hosted backends that tune, by name."""
ANTHROPIC = VendorSetup(
    vendor=anthropic.AnthropicVendor,
    environment=lambda server: {
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_API_KEY": anthropic.KEY,
        "ANTHROPIC_AUTH_TOKEN": "",
        "ANTHROPIC_CUSTOM_HEADERS": "",
    },
    create=r"/v1/messages/batches$",
    model="claude-haiku-4-5",
    patches=lambda _: {"unitune_providers.anthropic.PAGE_SIZE": 2},
    timeouts=("unitune.backends.kit.api.TIMEOUT_SECONDS",),
)


def serve_vendor(
    name: str, behavior: ServerBehavior | None = None
) -> AbstractContextManager[ServedVendor]:
    """Serve the vendor of a backend while the body runs; see `unitune.testing.vendor_setup`."""
    return vendor_setup.serve_vendor(VENDORS[name], behavior)
