"""Claude as a baseline or judge beside models that are tuned elsewhere."""

from unitune_providers.anthropic.backend import AnthropicBackend

__all__ = ["AnthropicBackend"]
