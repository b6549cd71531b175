"""The backend `anthropic`: it answers, one question at a time or many together, and cannot tune.

The dated reason why stands in the offer (``anthropic.yaml``). Beside this file: `chat` (the wire)
and `batches`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import ClassVar

from unitune.backends.capabilities import BatchStatus
from unitune.backends.credentials import environment_address
from unitune.backends.kit.chat_model import Endpoint
from unitune.backends.kit.hosted import HostedBackend, NoOptions
from unitune.errors import Unreachable, Unsupported
from unitune.models import ChatModel, Reply, Request, TunedModel
from unitune_providers.anthropic import batches
from unitune_providers.anthropic.chat import ClaudeChatModel, question

TOKEN = "ANTHROPIC_AUTH_TOKEN"  # noqa: S105 - a variable's name
VERSION = "2023-06-01"
"""Of the wire (anthropic 2.13.0, _client.py)."""


class AnthropicBackend(HostedBackend[NoOptions]):
    """Answers."""

    name: ClassVar[str] = "anthropic"
    address = "https://api.anthropic.com"
    address_variable = "ANTHROPIC_BASE_URL"
    key_variable = "ANTHROPIC_API_KEY"
    advice: ClassVar[Mapping[int, str]] = {
        404: "Check the model's name; `claude-` and what docs.claude.com lists."
    }

    def endpoint(self, path: str = "") -> Endpoint:
        """Return Anthropic's address with a key, or with the token that stands in for one."""
        url = environment_address(self.address_variable) or self.address
        return self.endpoint_at(f"{url}{path}", TOKEN if _token() else self.key_variable)

    def headers(self, key: str) -> dict[str, str]:
        """As of `HostedBackend`."""
        secret = {"Authorization": f"Bearer {key}"} if key == _token() else {"x-api-key": key}
        return {**secret, "anthropic-version": VERSION}

    def chat(self, model: str | TunedModel) -> ChatModel:
        """Return a Claude to ask.

        Raises:
            Unsupported: The model is a tuned one, and there are none.
            UserError: No key is set.
        """
        name = self._untuned(model)
        return ClaudeChatModel(self.endpoint(), name)

    def count_tokens(self, model: str | TunedModel, request: Request) -> int:
        """Return Anthropic's own count of a request's input, which it gives for nothing.

        An estimate, from which the input that is billed may differ a little.

        Source:
            docs.anthropic.com, build-with-claude/token-counting (read 2026-11-25).

        Raises:
            Unsupported: The model is a tuned one, or cannot take the request.
            BackendError: Anthropic refused.
        """
        name = self._untuned(model)
        try:
            full_body = question(name, request)
        except (KeyError, ValueError) as problem:
            raise Unsupported(f"{name} cannot take this request: {problem}") from problem
        body = {
            part: full_body[part]
            for part in ("model", "messages", "system", "tools")
            if part in full_body
        }
        path = ("v1", "messages", "count_tokens")
        action = f"count tokens for {name}"
        counted = self.api.post(*path, action=action, body=body, changes_nothing=True)
        if (tokens := counted.whole("input_tokens")) is None:
            raise Unreachable(f"anthropic could not {action}: it names no count.")
        return tokens

    def submit_batch(
        self, key: str, model: str | TunedModel, requests: Mapping[str, Request]
    ) -> str:
        """Submit requests as one batch; see `batches.submit`."""
        del key  # stands in the requests' ids
        return batches.submit(self.api, self._untuned(model), requests)

    def find_batch(self, key: str, since: float) -> list[str]:
        """Return the batches with this key, or all that may have it; see `batches.find`."""
        return batches.find(self.api, key, since)

    def poll_batch(self, batch_id: str) -> BatchStatus:
        """Return how a batch stands; requests are counted only once all have ended."""
        return batches.poll(self.api, batch_id)

    def fetch_batch(self, batch_id: str) -> Mapping[str, Reply]:
        """Return the answers of a batch that has ended, by the ids of their requests.

        Raises:
            BackendError: It goes on, or its answers are no longer kept.
        """
        return batches.fetch(self.api, batch_id)

    def cancel_batch(self, batch_id: str) -> None:
        """Ask for the end of a batch; one that has ended is no error."""
        batches.cancel(self.api, batch_id)

    def _untuned(self, model: str | TunedModel) -> str:
        if isinstance(model, TunedModel):
            raise self.tunes_nothing()
        return model


def _token() -> str:
    return os.environ.get(TOKEN, "").strip()
