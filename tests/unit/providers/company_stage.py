"""A vendor as it is called from inside a company's network."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import httpx
import pytest
from vendors import fireworks, hf_jobs, skypilot
from vendors.anthropic import KEY as ANTHROPIC_KEY
from vendors.azure_sessions import KEY as AZURE_KEY
from vendors.bedrock import vendor as bedrock
from vendors.company import Company
from vendors.openai.vendor import KEY
from vendors.tinker import KEY as TINKER_KEY
from vendors.together import vendor as together

from unitune.backends import credentials, registry
from unitune.backends.kit import connection
from unitune.backends.kit.chat import open_server
from unitune.models import Reply
from unitune.testing.contract_base import reply_once
from unitune.workspace.user_settings import current
from unitune_local.steps.vendor import Contract, Found, StepVendor, connect

GPT = "gpt-4.1-mini-2025-04-14"
LLAMA = "meta-llama/Meta-Llama-3.1-8B-Instruct"
MODELS = {
    "openai": GPT,
    "azure": GPT,
    "azure-sessions": "Qwen/Qwen3.8-27B",
    "together": "Qwen/Qwen3-8B",
    "fireworks": fireworks.BASE,
    "tinker": "Qwen/Qwen3-8B",
    "nebius": LLAMA,
    "mantle": "openai.gpt-oss-20b",
    "anthropic": "claude-sonnet-4-5",
    "vertex": "gemini-3.5-flash-lite",
    "bedrock": "amazon.nova-micro-v1:0:128k",
    "hf-jobs": "Qwen/Qwen3-0.6B",
    "skypilot": "Qwen/Qwen3-0.6B",
    "server": GPT,
}
HOSTS = {
    "openai": "api.openai.com",
    "azure": "res-1.openai.azure.com",
    "azure-sessions": "account-1.services.ai.azure.com",
    "together": "api.together.ai",
    "fireworks": "api.fireworks.ai",
    "tinker": "tinker.thinkingmachines.dev",
    "nebius": "api.tokenfactory.nebius.com",
    "mantle": "bedrock-mantle.us-east-1.api.aws",
    "anthropic": "api.anthropic.com",
    "vertex": "us-central1-aiplatform.googleapis.com",
    "bedrock": "bedrock-runtime.us-east-1.amazonaws.com",
    "hf-jobs": "huggingface.co",
    "skypilot": "sky.example.com",
    "server": "llm.example.com",
}
AWS = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
AWS_KEYS = {"AWS_ACCESS_KEY_ID": bedrock.KEY, "AWS_SECRET_ACCESS_KEY": "s"}
KEYS = {
    "openai": {"OPENAI_API_KEY": KEY},
    "azure": {"AZURE_OPENAI_API_KEY": KEY},
    "azure-sessions": {"AZURE_AI_API_KEY": AZURE_KEY},
    "together": {"TOGETHER_API_KEY": together.KEY},
    "fireworks": {"FIREWORKS_API_KEY": fireworks.KEY},
    "tinker": {"TINKER_API_KEY": TINKER_KEY},
    "nebius": {"NEBIUS_API_KEY": KEY},
    "mantle": {"AWS_BEARER_TOKEN_BEDROCK": KEY},
    "anthropic": {"ANTHROPIC_API_KEY": ANTHROPIC_KEY},
    "vertex": {"GOOGLE_APPLICATION_CREDENTIALS": "{folder}/user.json"},
    "bedrock": AWS_KEYS,
    "hf-jobs": {"HF_TOKEN": hf_jobs.KEY},
    "skypilot": {"SKYPILOT_SERVICE_ACCOUNT_TOKEN": skypilot.KEY},
    "server": {"LLM_API_KEY": KEY},
}
SETTINGS = {
    "skypilot": {"SKYPILOT_API_SERVER_ENDPOINT": "https://sky.example.com"},
    "azure": {"AZURE_OPENAI_ENDPOINT": "https://res-1.openai.azure.com"},
    "azure-sessions": {
        "AZURE_AI_PROJECT_ENDPOINT": "https://account-1.services.ai.azure.com/api/projects/p"
    },
    "fireworks": {"FIREWORKS_ACCOUNT_ID": fireworks.ACCOUNT},
    "mantle": AWS,
    "bedrock": AWS,
    "vertex": {"GOOGLE_CLOUD_PROJECT": "my-project", "GOOGLE_CLOUD_LOCATION": "us-central1"},
}
ADDRESSES = {
    "openai": {"OPENAI_BASE_URL": "{url}/v1"},
    "azure": {"AZURE_OPENAI_ENDPOINT": "{url}"},
    "azure-sessions": {"AZURE_AI_PROJECT_ENDPOINT": "{url}/api/projects/p"},
    "together": {"TOGETHER_BASE_URL": "{url}"},
    "fireworks": {"FIREWORKS_BASE_URL": "{url}"},
    "tinker": {"TINKER_BASE_URL": "{url}/services/tinker-prod"},
    "nebius": {"NEBIUS_BASE_URL": "{url}/v1"},
    "mantle": {"AWS_BEDROCK_BASE_URL": "{url}/v1"},
    "anthropic": {"ANTHROPIC_BASE_URL": "{url}"},
    "vertex": {"UNITUNE_VERTEX_BASE_URL": "{url}"},
    "bedrock": {"AWS_ENDPOINT_URL": "{url}"},
    "hf-jobs": {"HF_ENDPOINT": "{url}"},
    "skypilot": {"SKYPILOT_API_SERVER_ENDPOINT": "{url}"},
    "server": {},
}
GOOGLE_USER = {
    "type": "authorized_user",
    "client_id": "c",
    "client_secret": "s",
    "refresh_token": "r",
}


@dataclass
class Stage:
    """One vendor, called from inside the company's network."""

    vendor: str
    company: Company
    folder: Path
    patch: pytest.MonkeyPatch
    clients: list[httpx.Client] = field(default_factory=list[httpx.Client])

    def set(self, variables: dict[str, str]) -> None:
        for name, value in variables.items():
            self.patch.setenv(name, value.format(url=self.company.url, folder=self.folder))

    def begin_anew(self) -> None:
        """Close what was opened, as the end of a process does."""
        for client in self.clients:
            client.close()
        self.clients.clear()
        current().backends.clear()
        kept_keys, kept_clients = cast("Any", credentials), cast("Any", connection)
        kept_keys._printed.clear()
        new_client = kept_clients._client.__wrapped__

        @cache
        def kept(*arguments: Any) -> httpx.Client:
            self.clients.append(new_client(*arguments))
            return self.clients[-1]

        kept.__wrapped__ = new_client
        self.patch.setattr(connection, "_client", kept)

    def through_proxy(self) -> None:
        self.patch.setenv("HTTPS_PROXY", self.company.proxy)
        self.patch.setenv("SSL_CERT_FILE", str(self.company.certificate))

    def ask(self) -> Reply:
        """Ask a question as evaluation does."""
        if self.vendor == "server":
            key = credentials.key_for("LLM_API_KEY", self.address, "the contender")
            return reply_once(open_server(f"{self.address}/v1", GPT, key=key))
        if self.vendor in ("hf-jobs", "skypilot"):  # their models answer on this machine
            return Reply(text=str(registry.backend(self.vendor).find("r-1", self.folder)))
        if self.vendor == "azure-sessions":  # whose tokenizer is on the Hub
            session = self.steps()
            session.begin(None)
            session.finish("success")
            return Reply(text="opened")
        return reply_once(registry.backend(self.vendor).chat(MODELS[self.vendor]))

    def steps(self) -> StepVendor:
        """Return the adapter of a vendor of steps, as its worker makes it."""
        backend: Any = registry.backend(self.vendor)
        contract = Contract(key="r1-1", base=MODELS[self.vendor])
        return connect(backend.adapter, contract, credentials.key_in(backend.key_variable))

    def call(self) -> None:
        """Call the vendor as a launch does, and as evaluation does."""
        if self.vendor not in ("server", "anthropic", "hf-jobs", "skypilot"):  # which have no lists
            backend: Any = registry.backend(self.vendor)
            if self.vendor in ("azure-sessions", "tinker"):  # which have no jobs
                if self.vendor == "tinker":  # whose worker uses the SDK
                    backend.vendor_api(None).get("get_server_capabilities", action="list models")
                assert self.steps().find() == Found()
            else:
                backend.list_jobs("")
        assert self.ask().error is None

    @property
    def address(self) -> str:
        is_direct = "NO_PROXY" in os.environ
        return self.company.url if is_direct else f"https://{HOSTS[self.vendor]}"

    def sent(self, name: str) -> set[str | None]:
        """What a header had in all requests to the vendor."""
        hosts = (HOSTS[self.vendor], "bedrock.us-east-1.amazonaws.com")
        return {each.headers.get(name) for each in self.company.seen if each.host in hosts}


def azure_identity(patch: pytest.MonkeyPatch, token_for: Callable[[str], str]) -> None:
    """Let a stand-in for azure-identity give tokens."""

    class Credential:
        def __init__(self, **settings: str) -> None:
            trusted = connection.certificate_file("REQUESTS_CA_BUNDLE")
            assert settings == ({"connection_verify": trusted} if trusted else {})

        def get_token(self, scope: str) -> Any:
            return type("AccessToken", (), {"token": token_for(scope)})

    module = ModuleType("azure.identity")
    module.DefaultAzureCredential = Credential  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
    patch.setitem(sys.modules, "azure", ModuleType("azure"))
    patch.setitem(sys.modules, "azure.identity", module)
