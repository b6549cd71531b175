"""Batches on OpenAI's wire: many requests in one file, answered within a day, for half the price.

A batch is found again by its metadata. Its requests are the very bodies that chat sends, and its
answers are read as chat reads them (`unitune_providers.openai.chat`); they come in two files, one
of answers and one of failures. The file of requests is named by the batch's key and its hash, so
that it is sent once even where the create call had no answer. Nothing is deleted: the vendor itself
drops the files of batches after 30 days, so answers must be fetched before that.

Only `OpenAIBackend` has them; the offers of the other vendors of this wire say why those have not.

Sources: openai/openai-openapi 2.3.0 of 2026-08-21, /batches; openai 3.57.0, files.create (30 days);
OpenAI's batch guide, a copy (lines of the files); openai/openai-openapi issue 302 (a failed
request's line has the error in its response's body).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from typing import Literal

import openai
from httpx2 import Response
from openai import omit
from pydantic import BaseModel, JsonValue, ValidationError

from unitune.backends.capabilities import BatchStatus
from unitune.backends.kit.chat_completions import LEAST_TOKENS, SAMPLING, Refusal, read_reply
from unitune.backends.kit.errors import ErrorResponse, complaint
from unitune.errors import BackendError, Unsupported
from unitune.models import Reply, Request, TunedModel
from unitune.security.json_fields import Fields, Unreadable, read_json
from unitune_providers.openai import files
from unitune_providers.openai.server import (
    PAGE,
    SDK_ERRORS,
    Server,
    client,
    dialect,
    everything,
    fields_of,
    id_of,
    once,
    split,
)
from unitune_providers.openai.wire import METADATA_KEY, WireBackend
from unitune_providers.unreadable import readable

CREATE_SECONDS = 60.0
"""Longest wait for the answer to a create call; after that its outcome is open."""
ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
MOST_REQUESTS = 50_000
MOST_BYTES = 200_000_000
"""Of one file: OpenAI says 200 MB, and not whether it counts in 1,000 or 1,024."""
CLOCK_SECONDS = 3600.0
"""How far the vendor's clock may be behind ours when batches are looked for; a guess, and ample."""
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
"""Our words by the vendor's; any other is at work."""
STOPPABLE = ("validating", "in_progress")
EXPIRED = "batch_expired"
NO_REASON = "the vendor gives no reason"
OK = 200


class Answered(BaseModel):
    """What the endpoint said to one request."""

    status_code: int
    body: JsonValue = None


class Unanswered(BaseModel):
    """Why a request did not reach the endpoint."""

    code: str | None = None
    message: str | None = None


class Line(BaseModel):
    """One line of a file of answers or failures."""

    custom_id: str
    response: Answered | None = None
    error: Unanswered | None = None


class BatchingWire(WireBackend):
    """A vendor that answers in batches: the verbs of `unitune.backends.capabilities.Batches`."""

    def submit_batch(
        self, key: str, model: str | TunedModel, requests: Mapping[str, Request]
    ) -> str:
        """Hand requests in; the create call is sent once, whatever happens.

        Raises:
            Unsupported: A model on a server that a job named, or too many requests; nothing was
                sent.
            BackendError: The vendor refused (4xx), or failed and may have made the batch (5xx).
            Unreachable: No answer came; it may have made the batch.
        """
        at = split(model if isinstance(model, str) else model.name)
        if at.url is not None:
            raise Unsupported(
                f"{at.ref} is on {at.url}, which a job named, and whether batches are answered "
                "there is not known. Run without --batch."
            )
        server = self.server()
        content = _content(server, at.ref, requests)
        if _learned(server, at.ref, next(iter(requests.values()))):
            content = _content(server, at.ref, requests)
        name = f"unitune-{key}-{sha256(content).hexdigest()[:16]}.jsonl"
        file_id = files.hand_over_once(server, name, BytesIO(content), "batch")
        with server.errors("create the batch"), readable(server.backend, "create the batch"):
            made = once(server, CREATE_SECONDS).batches.with_raw_response.create(
                completion_window="24h",
                endpoint=ENDPOINT,
                input_file_id=file_id,
                metadata={METADATA_KEY: key},
            )
            return id_of(made)

    def find_batch(self, key: str, since: float) -> list[str]:
        """Return the batches that carry a key, reading the list until it is older than that.

        Raises:
            BackendError: The vendor could not list its batches.
        """
        server = self.server()
        with server.errors("list batches"):
            batches = client(server).batches.with_raw_response
            listed = everything(lambda after: batches.list(after=after or omit, limit=PAGE))
            recent = _down_to(since - CLOCK_SECONDS, listed)
            carrying = [one for one in recent if one.fields("metadata").text(METADATA_KEY) == key]
            return [name for one in carrying if (name := one.text("id"))]

    def poll_batch(self, batch_id: str) -> BatchStatus:
        """Look at a batch.

        Raises:
            BackendError: There is no such batch (404), or the vendor failed.
        """
        server = self.server()
        batch = _shown(server, batch_id)
        raw = batch.text("status") or "no status"
        state = STATES.get(raw, "running")
        counts = batch.fields("request_counts")
        done = [counts.whole(name) for name in ("completed", "failed")]
        return BatchStatus(
            state=state,
            raw=raw,
            done=sum(number or 0 for number in done) if any(n is not None for n in done) else None,
            error=server.safe(_why(batch)) if state == "failed" else None,
        )

    def fetch_batch(self, batch_id: str) -> dict[str, Reply]:
        """Return the answers of a batch that has ended, by the ids of their requests.

        Raises:
            BackendError: There is no such batch (404), its files are gone or cannot be read, or
                the vendor failed.
        """
        server = self.server()
        batch = _shown(server, batch_id)
        asked = f"answer as {batch.text('model') or 'the model'}"
        both = (batch.text("error_file_id"), batch.text("output_file_id"))
        names = [name for name in both if name]
        lines = [line for name in names for line in _lines(server, name)]
        missing = _left_out(server, batch)
        return {
            line.custom_id: replace(_reply(line, server, asked), left_out=missing) for line in lines
        }

    def cancel_batch(self, batch_id: str) -> None:
        """Ask for a batch's end; one that has ended is no error.

        Raises:
            BackendError: There is no such batch (404), or the vendor failed.
        """
        server = self.server()
        try:
            if _shown(server, batch_id).text("status") in STOPPABLE:
                with server.errors(f"cancel batch {batch_id}"):
                    client(server).batches.cancel(batch_id)
        except BackendError:
            # It may have ended between the look and the call.
            if _shown(server, batch_id).text("status") in STOPPABLE:
                raise


def _learned(server: Server, model: str, request: Request) -> bool:
    """Ask one short question where a model has not answered yet: what it refuses would meet all.

    Its failure is the batch's to tell, and never leaves open whether there is one.

    Returns:
        Whether it refuses something that it can do without.

    Raises:
        JobError: It refuses what the job itself has set.
    """
    known = dialect(server, model, old_limit=False)
    learned = False
    short = request.model_copy(update={"max_tokens": LEAST_TOKENS})
    body = known.body(model, short)
    while not known.proven:
        try:
            answer = client(server).post("/chat/completions", cast_to=Response, body=body)
            known.read(body, read_json(answer.content))
        except openai.APIStatusError as error:
            refusal = Refusal.read(error.status_code, error.body)
            if not known.learn(body, short, refusal):
                break
            learned = True
        except SDK_ERRORS.all:
            break
    return learned


def _content(server: Server, model: str, requests: Mapping[str, Request]) -> bytes:
    """Return the file of requests."""
    if not 1 <= len(requests) <= MOST_REQUESTS:
        raise Unsupported(
            f"there are {len(requests):,} requests, and a batch of {server.backend} takes 1 to "
            f"{MOST_REQUESTS:,}. Ask in parts, or run without --batch."
        )
    lines: list[bytes] = []
    size = 0
    for custom_id, request in requests.items():
        body = dialect(server, model, old_limit=False).body(model, request)
        line = {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}
        # ASCII, so that no reader takes a character such as U+2028 for the end of a line.
        lines.append(json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n")
        size += len(lines[-1])
        if size > MOST_BYTES:
            raise Unsupported(
                f"the requests from {custom_id} on are too many: a batch of {server.backend} takes "
                f"{MOST_BYTES // 1_000_000} MB. Ask in parts, or run without --batch."
            )
    return b"".join(lines)


def _down_to(oldest: float, listed: Iterable[Fields]) -> Iterator[Fields]:
    """Yield batches, the newest first, until a page's worth of them is older than a time.

    One old batch is not enough: a page may come in another order.
    """
    old = 0
    for batch in listed:
        created = batch.number("created_at")
        old = old + 1 if created is not None and created < oldest else 0
        if old >= PAGE:
            return
        yield batch


def _shown(server: Server, batch_id: str) -> Fields:
    with server.errors(f"show batch {batch_id}"):
        return fields_of(client(server).batches.with_raw_response.retrieve(batch_id))


def _why(batch: Fields) -> str:
    """Return why a batch failed, in the vendor's words."""
    reasons = [
        f"{f'line {line}: ' if (line := one.whole('line')) is not None else ''}"
        f"{one.text('message') or 'no reason'}"
        f"{f' [{code}]' if (code := one.text('code')) else ''}"
        for one in batch.fields("errors").items("data")
    ]
    return "; ".join(reasons) or NO_REASON


def _left_out(server: Server, batch: Fields) -> tuple[str, ...]:
    """Return the settings that a batch was asked without, by the file of its requests."""
    asked = files.content(server, batch.text("input_file_id") or "none") or b""
    first = asked.partition(b"\n")[0] or b"{}"
    try:
        body = Fields(read_json(first)).fields("body").all
    except Unreadable:
        return ()
    return tuple(name for name in SAMPLING if body and name not in body)


def _lines(server: Server, file_id: str) -> list[Line]:
    content = files.content(server, file_id)
    if content is None:
        raise BackendError(
            f"{server.backend} no longer has {file_id}, a file of the batch's answers: it drops "
            "them after 30 days. Ask again."
        )
    try:
        # Not splitlines, which takes more for the end of a line than JSONL does.
        return [Line.model_validate_json(line) for line in content.split(b"\n") if line.strip()]
    except ValidationError as error:
        reason = server.safe(str(error.errors()[0]["msg"]))
        raise BackendError(
            f"{server.backend}'s file {file_id}, of the batch's answers, cannot be read: {reason}."
        ) from error


def _reply(line: Line, server: Server, asked: str) -> Reply:
    """Return one answer or failure, as chat would have."""
    if line.response is None:
        words = _unanswered(line.error or Unanswered(), server, asked)
        return Reply(finish_reason="error", error=words)
    status = line.response.status_code
    body = line.response.body if isinstance(line.response.body, dict) else {}
    if status == OK:
        return read_reply(body, None)
    refused = server.vendor.refused(asked, ErrorResponse(status, {}, complaint(body)))
    return Reply(finish_reason="error", error=str(refused))


def _unanswered(failure: Unanswered, server: Server, asked: str) -> str:
    said = (failure.message or NO_REASON).rstrip(". ")
    code = f" [{failure.code}]" if failure.code else ""
    advice = " Ask again, or run without --batch." if failure.code == EXPIRED else ""
    return server.safe(f"{server.backend} could not {asked}: {said}{code}.{advice}")
