"""Batches on OpenAI's wire: many requests in one file, answered within a day, for half the price.

A batch is found by its metadata. Its requests are the very bodies that chat sends, and its answers
are read as chat reads them (`unitune.backends.kit.chat_completions`); they come in two files, one
of answers and one of failures. The file of requests is named by the batch's key and its hash, so
that it is sent once even where the create call had no answer. Nothing is deleted: the vendor itself
drops the files of batches after 30 days, so answers must be fetched before that.

Only `OpenAIBackend` has them; the offers of the other vendors of this wire say why those have not.

Sources: openai/openai-openapi 2.3.0 of 2026-08-21, /batches; openai 3.57.0, files.create (30 days);
OpenAI's batch guide, a copy (lines of the files); openai/openai-openapi issue 302 (a failed
request's line has the error in its response's body).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from itertools import islice
from typing import Literal

from unitune.backends import event_loop
from unitune.backends.capabilities import BatchStatus
from unitune.backends.kit.api import created_id
from unitune.backends.kit.chat_completions import LEAST_TOKENS, SAMPLING, read_reply
from unitune.backends.kit.errors import ErrorResponse, Vendor, complaint
from unitune.backends.retry import retry_read
from unitune.errors import BackendError, Unsupported
from unitune.models import ChatModel, Reply, Request, TunedModel
from unitune.security.json_fields import Fields
from unitune_providers.openai.jobs import METADATA_KEY
from unitune_providers.openai.options import Options
from unitune_providers.openai.server import Server
from unitune_providers.openai.wire import WireBackend

ENDPOINT = "/v1/chat/completions"
MOST_REQUESTS = 50_000
MOST_BYTES = 200_000_000
"""Of one file: OpenAI says 200 MB, and not whether it counts in 1,000 or 1,024."""
CLOCK_SECONDS = 3600.0
"""How far the vendor's clock may be behind ours when batches are looked for; a guess, and ample."""
LEARN_SECONDS = 60.0
"""Longest wait for the short answer that shows what a model refuses."""
STATES: dict[str, Literal["running", "ended", "failed"]] = {
    "validating": "running",
    "in_progress": "running",
    "finalizing": "running",
    "cancelling": "running",
    "completed": "ended",
    "expired": "ended",
    "cancelled": "ended",
    "failed": "failed",
}
"""Our words by the vendor's; with any other the batch is at work."""
STOPPABLE = ("validating", "in_progress")
EXPIRED = "batch_expired"
NO_REASON = "the vendor gives no reason"
OK = 200


class BatchingBackend(WireBackend[Options]):
    """A vendor that answers in batches: the verbs of `unitune.backends.capabilities.Batches`."""

    def submit_batch(
        self, key: str, model: str | TunedModel, requests: Mapping[str, Request]
    ) -> str:
        """Submit requests; the create call is sent once, whatever happens."""
        server, name = self._at(model if isinstance(model, str) else model.name)
        if server.named:
            raise Unsupported(
                f"{name} is on {server.endpoint.url}, which a job named, and whether batches are "
                "answered there is not known. Run without --batch."
            )
        content = self._requests_file(name, requests)
        if not self.dialect(name).proven:
            # What the model refuses would meet all requests; a short one shows what that is.
            short = next(iter(requests.values())).model_copy(update={"max_tokens": LEAST_TOKENS})
            event_loop.run(_learn(self.chat(name), short))
            content = self._requests_file(name, requests)
        file = f"unitune-{key}-{sha256(content).hexdigest()[:16]}.jsonl"
        created = server.post(
            "batches",
            action="create the batch",
            body={
                "completion_window": "24h",
                "endpoint": ENDPOINT,
                "input_file_id": server.upload_once(file, BytesIO(content), "batch"),
                "metadata": {METADATA_KEY: key},
            },
        )
        return created_id(created, server.endpoint)

    def find_batch(self, key: str, since: float) -> list[str]:
        """Return the batches that carry a key, reading the list until it is older than `since`."""
        listed = self.server().listed("batches", action="list batches")
        recent = _down_to(since - CLOCK_SECONDS, listed)
        same = [batch for batch in recent if batch.fields("metadata").text(METADATA_KEY) == key]
        return [name for batch in same if (name := batch.text("id"))]

    def poll_batch(self, batch_id: str) -> BatchStatus:
        """Return how a batch stands."""
        server = self.server()
        batch = _shown(server, batch_id)
        raw = batch.text("status") or "no status"
        state = STATES.get(raw, "running")
        counts = [batch.fields("request_counts").whole(name) for name in ("completed", "failed")]
        known = [count for count in counts if count is not None]
        return BatchStatus(
            state=state,
            raw=raw,
            done=sum(known) if known else None,
            error=server.endpoint.vendor.safe(_why(batch)) if state == "failed" else None,
        )

    def fetch_batch(self, batch_id: str) -> dict[str, Reply]:
        """Return the answers of a batch that has ended, by the ids of their requests."""
        server = self.server()
        batch = _shown(server, batch_id)
        action = f"answer as {batch.text('model') or 'the model'}"
        files = (batch.text("error_file_id"), batch.text("output_file_id"))
        missing = _left_out(server, batch)
        return {
            name: replace(_reply(row, server.endpoint.vendor, action), left_out=missing)
            for file in files
            if file
            for name, row in _answers(server, file)
        }

    def cancel_batch(self, batch_id: str) -> None:
        """Ask for the end of a batch; one that has ended is no error."""
        server = self.server()
        try:
            if _shown(server, batch_id).text("status") in STOPPABLE:
                server.post("batches", batch_id, "cancel", action=f"cancel batch {batch_id}")
        except BackendError:
            # It may have ended between the look and the call.
            if _shown(server, batch_id).text("status") in STOPPABLE:
                raise

    def _requests_file(self, model: str, requests: Mapping[str, Request]) -> bytes:
        if not 1 <= len(requests) <= MOST_REQUESTS:
            raise Unsupported(
                f"there are {len(requests):,} requests, and a batch of {self.name} takes 1 to "
                f"{MOST_REQUESTS:,}. Ask in parts, or run without --batch."
            )
        dialect = self.dialect(model)
        content = bytearray()
        for custom_id, request in requests.items():
            body = dialect.body(model, request)
            line = {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}
            # ASCII, so that no reader takes a character such as U+2028 for the end of a line.
            content += json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"
            if len(content) > MOST_BYTES:
                raise Unsupported(
                    f"the requests from {custom_id} on are too many: a batch of {self.name} takes "
                    f"{MOST_BYTES // 1_000_000} MB. Ask in parts, or run without --batch."
                )
        return bytes(content)


async def _learn(chat: ChatModel, request: Request) -> None:
    """Send a request for what its model's dialect learns; a failure is the batch's to tell."""
    with suppress(TimeoutError):
        async with chat, asyncio.timeout(LEARN_SECONDS):
            await chat.reply(request)


def _down_to(oldest: float, listed: Iterable[Fields]) -> Iterator[Fields]:
    """Yield batches, the newest first, until a page's worth of them is older than a time.

    One old batch is not enough: a page may come in another order.
    """
    old = 0
    for batch in listed:
        created = batch.number("created_at")
        old = old + 1 if created is not None and created < oldest else 0
        if old >= Server.page:
            return
        yield batch


def _shown(server: Server, batch_id: str) -> Fields:
    return server.get("batches", batch_id, action=f"show batch {batch_id}")


def _why(batch: Fields) -> str:
    """Return why a batch failed, in the vendor's words."""
    reasons = [
        f"{f'line {line}: ' if (line := error.whole('line')) is not None else ''}"
        f"{error.text('message') or 'no reason'}"
        f"{f' [{code}]' if (code := error.text('code')) else ''}"
        for error in batch.fields("errors").items("data")
    ]
    return "; ".join(reasons) or NO_REASON


def _rows(server: Server, file_id: str, most: int | None = None) -> list[Fields] | None:
    """Return the rows of a file, or the first of them; None where the file is gone."""

    def read() -> list[Fields]:
        action = f"read file {file_id}"
        with closing(server.lines("files", file_id, "content", action=action)) as rows:
            return list(islice(rows, most))

    try:
        return retry_read(read)
    except BackendError as error:
        if not error.is_not_found:
            raise
        return None


def _left_out(server: Server, batch: Fields) -> tuple[str, ...]:
    """Return the settings that a batch was sent without, by the file of its requests."""
    requests = _rows(server, batch.text("input_file_id") or "none", most=1)
    body = (requests[0] if requests else Fields({})).fields("body").all
    return tuple(name for name in SAMPLING if body and name not in body)


def _answers(server: Server, file_id: str) -> Iterator[tuple[str, Fields]]:
    """Yield the rows of a file of answers or failures, each with the id of its request."""
    vendor, rows = server.endpoint.vendor.name, _rows(server, file_id)
    if rows is None:
        raise BackendError(
            f"{vendor} no longer has {file_id}, a file of the batch's answers: it drops them after "
            "30 days. Ask again."
        )
    for number, row in enumerate(rows, 1):
        name = row.text("custom_id")
        if not name:
            raise BackendError(f"row {number} of {vendor}'s file {file_id} names no request.")
        yield name, row


def _reply(row: Fields, vendor: Vendor, action: str) -> Reply:
    """Return one answer or failure, as chat would have."""
    response, status = row.fields("response"), row.fields("response").whole("status_code")
    if status is None:
        code = row.fields("error").text("code")
        words = (row.fields("error").text("message") or NO_REASON).rstrip(". ")
        failure = vendor.failed(action, ValueError(f"{words} [{code}]" if code else words))
        advice = " Ask again, or run without --batch." if code == EXPIRED else ""
        return Reply(finish_reason="error", error=f"{failure}{advice}")
    body = response.fields("body").all
    if status == OK:
        return read_reply(body, None)
    refused = vendor.refused(action, ErrorResponse(status, {}, complaint(body)))
    return Reply(finish_reason="error", error=str(refused))
