"""Claude, to be asked: a baseline or judge beside what is tuned elsewhere."""

from unitune_providers.anthropic.backend import AnthropicBackend

__all__ = ["AnthropicBackend"]
