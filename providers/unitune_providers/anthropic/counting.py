"""Anthropic's own count of a question's tokens.

Source: docs.anthropic.com, build-with-claude/token-counting (read 2026-11-25, in translations: an
estimate, from which the input that is billed may differ a little); anthropic 2.13.0,
resources/messages/messages.py.
"""

from __future__ import annotations

from anthropic import omit

from unitune.errors import Unsupported
from unitune.models import Request
from unitune_providers.anthropic.chat import question
from unitune_providers.anthropic.client import errors, new_sync_client


def count(model: str, request: Request) -> int:
    """Return how many tokens a request's input is.

    Raises:
        Unsupported: It cannot be asked.
        UserError: No key is set.
        BackendError: Anthropic refused.
        Unreachable: It gave no answer.
    """
    try:
        asked = question(model, request)
    except (KeyError, ValueError) as problem:
        raise Unsupported(f"{model} cannot be asked this: {problem}") from problem
    with new_sync_client() as client, errors(f"count tokens for {model}"):
        counted = client.messages.count_tokens(
            model=model,
            messages=asked["messages"],
            system=asked.get("system", omit),
            tools=asked.get("tools", omit),
        )
    return counted.input_tokens
