"""Send batches with OpenAI's API: many requests in one file, within a day, at half the price.

A batch is found by its metadata. Answers and failures come in separate files. The name of the file
of requests contains the batch's key and its hash, so that it is uploaded only once. The vendor
drops files after 30 days.

Sources: openai/openai-openapi 2.3.0 of 2026-08-21, /batches; openai 3.57.0, files.create (30 days);
OpenAI's batch guide, a copy (lines of the files); openai/openai-openapi issue 302 (a failed
request's line has the error in its response's body).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from typing import Literal

from pydantic import JsonValue

from unitune.backends import event_loop
from unitune.backends.capabilities import BatchStatus
from unitune.backends.kit.api import created_id
from unitune.backends.kit.chat_completions import (
    LEAST_TOKENS,
    SAMPLING,
    Dialect,
    Refusal,
    read_reply,
)
from unitune.backends.kit.errors import ErrorResponse, Vendor, complaint
from unitune.backends.kit.hosted import cancel_unless_ended, check_size
from unitune.backends.retry import retry_read
from unitune.errors import BackendError, Unsupported
from unitune.models import ChatModel, Reply, Request, TunedModel
from unitune.security.json_fields import Fields
from unitune_providers.openai.jobs import METADATA_KEY
from unitune_providers.openai.options import Options
from unitune_providers.openai.wire import Server, WireBackend

ENDPOINT = "/v1/chat/completions"
MOST_REQUESTS = 50_000
# Size of one file; OpenAI documents 200 MB without the unit's size
MOST_BYTES = 200_000_000
# How far the vendor's clock may be behind ours when searching for batches; an ample guess
CLOCK_SECONDS = 3600.0
LEARN_SECONDS = 60.0  # longest wait for the short answer that shows unsupported settings
# States by the vendor's words; any other is running
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
STOPPABLE = ("validating", "in_progress")
# Metadata of a batch: settings that its model refuses and that its requests omit
LEFT_OUT = "left_out"
EXPIRED = "batch_expired"
NO_REASON = "no reason given"
OK = 200


class BatchingBackend(WireBackend[Options]):
    """A vendor with batches; methods of `unitune.backends.capabilities.Batches`."""

    capabilities = ("Batches",)

    def submit_batch(
        self, key: str, model: str | TunedModel, requests: Mapping[str, Request]
    ) -> str:
        server, name = self._at(model if isinstance(model, str) else model.name)
        if server.named:
            raise Unsupported(
                f"{name} is on {server.endpoint.url}, a server named in a job, which may not "
                "support batches. Run without --batch."
            )
        dialect = self.dialect(name)
        content = _requests_file(self.name, name, dialect, requests)
        if not dialect.proven:
            # A setting that the model refuses would fail all requests; a short request shows it.
            short = next(iter(requests.values())).model_copy(update={"max_tokens": LEAST_TOKENS})
            event_loop.run(_learn(self.chat(name), short))
            content = _requests_file(self.name, name, dialect, requests)
        file = f"unitune-{key}-{sha256(content).hexdigest()[:16]}.jsonl"
        fixed = next(iter(requests.values())).fixed
        left_out = [part for part in SAMPLING if part in dialect.left_out and part not in fixed]
        body: dict[str, JsonValue] = {
            "completion_window": "24h",
            "endpoint": ENDPOINT,
            "input_file_id": server.upload_once(file, BytesIO(content), "batch"),
            "metadata": {
                METADATA_KEY: key,
                **({LEFT_OUT: " ".join(left_out)} if left_out else {}),
            },
        }
        created = server.post("batches", action="create the batch", body=body)
        return created_id(created, server.endpoint)

    def find_batch(self, key: str, since: float) -> list[str]:
        """Return the batches with a key, reading the list until it is older than `since`."""
        listed = self.server().listed("batches", action="list batches")
        recent = _down_to(since - CLOCK_SECONDS, listed)
        same = [batch for batch in recent if batch.fields("metadata").text(METADATA_KEY) == key]
        return [name for batch in same if (name := batch.text("id"))]

    def poll_batch(self, batch_id: str) -> BatchStatus:
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
        server = self.server()
        batch = _shown(server, batch_id)
        action = f"answer as {batch.text('model') or 'the model'}"
        files = (batch.text("error_file_id"), batch.text("output_file_id"))
        left_out = tuple((batch.fields("metadata").text(LEFT_OUT) or "").split())
        return {
            name: replace(_reply(row, server.endpoint.vendor, action), left_out=left_out)
            for file in files
            if file
            for name, row in _answers(server, file)
        }

    def cancel_batch(self, batch_id: str) -> None:
        server = self.server()

        def is_stoppable() -> bool:
            return _shown(server, batch_id).text("status") in STOPPABLE

        def cancel() -> Fields:
            action = f"cancel batch {batch_id}"
            return server.post("batches", batch_id, "cancel", action=action)

        if is_stoppable():
            cancel_unless_ended(cancel, is_stoppable)


def _requests_file(
    vendor: str, model: str, dialect: Dialect, requests: Mapping[str, Request]
) -> bytes:
    lines = [
        {
            "custom_id": custom_id,
            "method": "POST",
            "url": ENDPOINT,
            "body": dialect.body(model, request),
        }
        for custom_id, request in requests.items()
    ]
    # ASCII, so that no reader mistakes a character such as U+2028 for a line end.
    content = "".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in lines).encode()
    check_size(vendor, len(lines), len(content), most=MOST_REQUESTS, most_bytes=MOST_BYTES)
    return content


async def _learn(chat: ChatModel, request: Request) -> None:
    """Send a request so that its model's dialect learns; the batch reports failures."""
    with suppress(TimeoutError):
        async with chat, asyncio.timeout(LEARN_SECONDS):
            await chat.reply(request)


def _down_to(oldest: float, listed: Iterable[Fields]) -> Iterator[Fields]:
    """Yield batches, newest first, until a whole page is older; pages may be in another order."""
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
    reasons = [
        f"{f'line {line}: ' if (line := error.whole('line')) is not None else ''}"
        f"{error.text('message') or 'no reason'}"
        f"{f' [{code}]' if (code := error.text('code')) else ''}"
        for error in batch.fields("errors").items("data")
    ]
    return "; ".join(reasons) or NO_REASON


def _answers(server: Server, file_id: str) -> Iterator[tuple[str, Fields]]:
    vendor, action = server.endpoint.vendor.name, f"read file {file_id}"
    try:
        rows = retry_read(lambda: list(server.lines("files", file_id, "content", action=action)))
    except BackendError as error:
        if not error.is_not_found:
            raise
        raise BackendError(
            f"{vendor} no longer has {file_id}, a file of the batch's answers, because it drops "
            "them after 30 days. Send the requests again."
        ) from error
    for number, row in enumerate(rows, 1):
        if not (name := row.text("custom_id")):
            raise BackendError(f"row {number} of {vendor}'s file {file_id} has no request id.")
        yield name, row


def _reply(row: Fields, vendor: Vendor, action: str) -> Reply:
    response, status = row.fields("response"), row.fields("response").whole("status_code")
    if status is None:
        code = row.fields("error").text("code")
        words = (row.fields("error").text("message") or NO_REASON).rstrip(". ")
        failure = vendor.failed(action, ValueError(f"{words} [{code}]" if code else words))
        advice = " Send it again, or run without --batch." if code == EXPIRED else ""
        return Reply(finish_reason="error", error=f"{failure}{advice}")
    body = response.fields("body").all
    if status == OK:
        return read_reply(body, None)
    if Refusal.read(status, body).is_filtered:
        return Reply(finish_reason="content_filter")
    refused = vendor.refused(action, ErrorResponse(status, {}, complaint(body)))
    return Reply(finish_reason="error", error=str(refused))
