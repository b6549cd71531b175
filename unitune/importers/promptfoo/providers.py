"""Which models promptfoo asks, in unitune's words."""

from __future__ import annotations

from pydantic import JsonValue

from unitune.importers.suite import Base

BACKENDS = {
    "openai": "openai",
    "azure": "azure",
    "azureopenai": "azure",
    "anthropic": "anthropic",
    "bedrock": "bedrock",
    "vertex": "vertex",
    "togetherai": "together",
}
"""By the beginning of a provider's id."""


def base_of(providers: JsonValue) -> Base | None:
    """Return the first model that a backend of unitune knows by the same name."""
    for identity in map(_identity, _listed(providers)):
        vendor, _, rest = identity.partition(":")
        model = rest.rpartition(":")[2] if vendor != "bedrock" else rest
        if vendor in BACKENDS and model:
            return Base(BACKENDS[vendor], model)
    return None


def max_tokens_of(providers: JsonValue) -> int | None:
    """Return the longest answer that the first provider with a limit gives."""
    for provider in _listed(providers):
        config = provider.get("config") if isinstance(provider, dict) else None
        limit = config.get("max_tokens") if isinstance(config, dict) else None
        if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
            return limit
    return None


def _listed(providers: JsonValue) -> list[JsonValue]:
    return providers if isinstance(providers, list) else [providers]


def _identity(provider: JsonValue) -> str:
    if isinstance(provider, dict):
        provider = provider.get("id") or next(iter(provider), "")
    return provider if isinstance(provider, str) else ""
