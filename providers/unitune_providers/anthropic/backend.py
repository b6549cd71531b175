"""The backend `anthropic`: it answers, one question at a time or many together, and cannot tune.

Anthropic tunes no models, so every verb of a training refuses, with the dated reason that stands in
the offer (``anthropic.yaml``). Beside this file: `client` (reaching Anthropic, its errors), `chat`
(a question and its answer on the wire), `counting` (its tokens) and `batches` (many of them
together).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, NoReturn

from unitune.backends import registry
from unitune.backends.capabilities import BatchStatus
from unitune.backends.protocol import Guarantee, Launch
from unitune.errors import Unsupported, UserError
from unitune.models import ChatModel, Reply, Request, TunedModel
from unitune_providers.anthropic import batches, counting
from unitune_providers.anthropic.chat import ClaudeChatModel
from unitune_providers.anthropic.client import NAME, NO_KEY, new_client
from unitune_providers.unreadable import reads_answers


@reads_answers
class AnthropicBackend:
    """Answers, and says why it cannot tune."""

    name: ClassVar[str] = NAME
    guarantee: ClassVar[Guarantee] = Guarantee.FINDABLE

    def upload(self, path: Path, sha256: str) -> NoReturn:  # noqa: ARG002 - nothing is uploaded
        """Refuse: there is nothing to hand rows over for."""
        _refuse(f"hand over {path.name}")

    def submit(self, launch: Launch) -> NoReturn:
        """Refuse to tune."""
        _refuse(f"tune {launch.job.base_model}")

    def find(self, launch_key: str, folder: Path) -> NoReturn:  # noqa: ARG002 - there are no jobs
        """Refuse: there are no jobs."""
        _refuse(f"look for the job of launch {launch_key}")

    def poll(self, job_id: str, cursor: str) -> NoReturn:  # noqa: ARG002 - there are no jobs
        """Refuse: there are no jobs."""
        _refuse(f"look at job {job_id}")

    def cancel(self, job_id: str) -> NoReturn:
        """Refuse: there are no jobs."""
        _refuse(f"cancel job {job_id}")

    def chat(self, model: str | TunedModel) -> ChatModel:
        """Return a Claude to ask.

        Raises:
            Unsupported: The model is a tuned one, and there are none.
            UserError: No key is set.
        """
        if isinstance(model, TunedModel):
            _refuse(f"ask the tuned model {model.name}")
        client = new_client()
        if not client.auth_headers and client.custom_auth is None:
            raise UserError(NO_KEY)
        return ClaudeChatModel(model)

    def count_tokens(self, model: str | TunedModel, request: Request) -> int:
        """Return Anthropic's own count of a request's input, which it gives for nothing.

        Raises:
            Unsupported: The model is a tuned one, or the request cannot be asked.
            UserError: No key is set.
            BackendError: Anthropic refused.
            Unreachable: It gave no answer.
        """
        if isinstance(model, TunedModel):
            _refuse(f"count for the tuned model {model.name}")
        return counting.count(model, request)

    def submit_batch(
        self, key: str, model: str | TunedModel, requests: Mapping[str, Request]
    ) -> str:
        """Hand requests in as one batch, with one request that is never repeated.

        Raises:
            Unsupported: The model is a tuned one, a request cannot be asked, or there are too many.
            BackendError: Anthropic refused.
            Unreachable: It gave no answer; there may be a batch, which `find_batch` finds.
        """
        if isinstance(model, TunedModel):
            _refuse(f"ask the tuned model {model.name}")
        return batches.submit(key, model, requests)

    def find_batch(self, key: str, since: float) -> list[str]:
        """Return the batches with this key, or all that may have it; see `batches.find`."""
        return batches.find(key, since)

    def poll_batch(self, batch_id: str) -> BatchStatus:
        """Return how a batch stands.

        Raises:
            BackendError: There is no such batch, or Anthropic refused.
            Unreachable: It gave no answer.
        """
        return batches.poll(batch_id)

    def fetch_batch(self, batch_id: str) -> Mapping[str, Reply]:
        """Return the answers of a batch that has ended, by the ids of their requests.

        Raises:
            BackendError: It goes on, or its answers are no longer kept.
            Unreachable: Anthropic gave no answer, or not the whole of it.
        """
        return batches.fetch(batch_id)

    def cancel_batch(self, batch_id: str) -> None:
        """Ask for the end of a batch; one that has ended is no error.

        Raises:
            BackendError: There is no such batch, or Anthropic refused.
            Unreachable: It gave no answer.
        """
        batches.cancel(batch_id)


def _refuse(doing: str) -> NoReturn:
    reason = registry.offer(NAME).refusal(NAME)
    raise Unsupported(f"{NAME} cannot {doing}: {reason}")
