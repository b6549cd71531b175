"""Anthropic on loopback: messages, counts of their tokens, and batches of messages.

    with serve(AnthropicVendor(behavior)) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)

All Claudes answer the same way (`ServerBehavior`), alone and in a batch; a question in `refused` is
refused as Claude's classifiers do, and the models that take no temperature say so.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest, VendorResponse
from unitune.testing.omissions import Shape
from unitune.testing.vendor_setup import Refused, RoutedVendor, ServerBehavior, existing, route
from vendors import shapes, streams
from vendors.bodies import text_of

KEY = "sk-ant-loopback"
DAY_SECONDS = 86_400
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
}
TAKEN = frozenset(
    {
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
    }
)
UNCOUNTED = frozenset({"max_tokens", "metadata", "stop_sequences", "temperature", "top_k", "top_p"})
"""What says how a request is to be answered, and is no part of a count."""
MODEL = re.compile(
    r"claude-((opus|sonnet|haiku|fable|mythos)-\d(-\d)?|3(-\d)?-(opus|sonnet|haiku))(-\d{8}|-latest)?"
    r"|claude-mythos-preview"
)
"""Names as Anthropic makes them; any other model is not found.

Source: anthropic 2.13.0, types/model.py.
"""
NO_TEMPERATURE = re.compile(r"claude-(opus-4-[7-9]|(opus|sonnet|haiku|fable|mythos)-[5-9])")
"""Models that refuse a temperature, as reported in public issues (2026-05 to 2026-11)."""


@dataclass(slots=True)
class Batch:
    """Messages that are answered together, in Anthropic's time."""

    id: str
    requests: list[Mapping[str, Any]]
    created: float = field(default_factory=time.time)
    looks: int = 0
    cancelled: bool = False
    archived: bool = False


class AnthropicVendor(RoutedVendor):
    """Anthropic, with one key.

    Args:
        behavior: How it behaves; a batch is done after `queued_polls` looks.
        refused: Questions that are refused.
        expires: Questions that a batch does not come to within its day.
    """

    key = KEY
    key_headers: ClassVar[Mapping[str, str]] = {"x-api-key": "", "authorization": "Bearer "}
    prefix = shapes.ANTHROPIC_PATH
    wrong_key = "invalid x-api-key"
    unreadable = "invalid request: {error}"

    def __init__(
        self,
        behavior: ServerBehavior | None = None,
        refused: frozenset[str] = frozenset(),
        expires: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(behavior)
        self.refused = refused
        self.expires = expires
        self.batches: dict[str, Batch] = {}
        self._numbers = itertools.count(1)
        self._lists = 0

    def answer(self, request: VendorRequest) -> VendorResponse:
        """Answer a request, with an id that errors repeat."""
        request_id = self._id("req")
        response = super().answer(request)
        content = response.content
        if response.status >= 400 and isinstance(content, dict):
            content = {**content, "request_id": request_id}
        headers = {**response.headers, "request-id": request_id}
        return replace(response, content=content, headers=headers)

    def check_key(self, request: VendorRequest) -> None:
        super().check_key(request)
        if "anthropic-version" not in request.headers:
            raise Refused(400, "anthropic-version: header is required")

    def error(self, refusal: Refused) -> dict[str, JsonValue]:
        error: JsonValue = {"type": TYPES[refusal.status], "message": refusal.message}
        return {"type": "error", "error": error}

    def shapes(self) -> Sequence[Shape]:
        return shapes.anthropic()

    @route("POST", "")
    def create_message(self, request: VendorRequest) -> JsonValue | VendorResponse:
        answer = self._message(request.json)
        return streams.message(answer) if request.json.get("stream") else answer

    @route("POST", "/count_tokens")
    def count_tokens(self, request: VendorRequest) -> JsonValue:
        body = request.json
        for name in body.keys() & UNCOUNTED:
            raise Refused(400, f"{name}: Extra inputs are not permitted")
        _check_message_request({**body, "max_tokens": 1})
        return {"input_tokens": _input_tokens(body)}

    @route("POST", "/batches")
    def create_batch(self, request: VendorRequest) -> JsonValue:
        entries: list[Mapping[str, Any]] = request.json.get("requests", [])
        names = [str(entry.get("custom_id", "")) for entry in entries]
        if not entries or len(set(names)) < len(names):
            raise Refused(400, "requests: custom_id must be unique, and there must be one")
        for name in names:
            if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name):
                raise Refused(400, f"requests: custom_id {name!r} is not allowed")
        batch = Batch(self._id("msgbatch"), entries)
        self.batches[batch.id] = batch
        return self._batch_json(batch, request)

    @route("GET", "/batches")
    def list_batches(self, request: VendorRequest) -> JsonValue:
        """Return a page of batches, the newest first."""
        lag = self.behavior.list_lag_seconds
        listed = [batch for batch in self.batches.values() if time.time() - batch.created >= lag]
        listed.reverse()
        after = request.first("after_id")
        start = 1 + [batch.id for batch in listed].index(after) if after else 0
        end = start + request.number("limit", 20)
        page = listed[max(0, start - self.behavior.lists_repeat) : end]
        last = page[-1].id if page else None
        self._lists += 1
        if self.behavior.lists_repeat and self._lists % 2:
            page.reverse()
        return {
            "data": [self._batch_json(batch, request) for batch in page],
            "has_more": end < len(listed),
            "first_id": page[0].id if page else None,
            "last_id": last,
        }

    @route("GET", "/batches/{batch_id}")
    def batch(self, request: VendorRequest, batch_id: str) -> JsonValue:
        batch = existing(self.batches, batch_id, "batch")
        batch.looks += 1
        return self._batch_json(batch, request)

    @route("GET", "/batches/{batch_id}/results")
    def batch_results(self, _: VendorRequest, batch_id: str) -> bytes:
        """Return a line for each request, in another order: Anthropic promises none."""
        batch = existing(self.batches, batch_id, "batch")
        if not self._ended(batch):
            raise Refused(404, f"batch {batch.id} has no results yet")
        lines = [
            json.dumps({"custom_id": entry["custom_id"], "result": self._result(entry, batch)})
            for entry in reversed(batch.requests)
        ]
        return "".join(f"{line}\n" for line in lines).encode()

    @route("POST", "/batches/{batch_id}/cancel")
    def cancel_batch(self, request: VendorRequest, batch_id: str) -> JsonValue:
        batch = existing(self.batches, batch_id, "batch")
        if self._ended(batch):
            raise Refused(400, f"Batch {batch.id} cannot be canceled: it has ended")
        batch.cancelled = True
        return self._batch_json(batch, request)

    def _message(self, body: Mapping[str, Any]) -> dict[str, JsonValue]:
        _check_message_request(body)
        question = text_of(body["messages"][-1]["content"])
        refused = question in self.refused
        reply = self.behavior.replies.get(question, self.behavior.otherwise)
        words = [] if refused else reply.split(" ")
        text = " ".join(words[: body["max_tokens"]])
        content: list[JsonValue] = [] if refused else [{"type": "text", "text": text}]
        cut = len(words) > body["max_tokens"]
        details: dict[str, JsonValue] = {"type": "refusal", "category": None}
        return {
            "id": self._id("msg"),
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": content,
            "stop_reason": "refusal" if refused else "max_tokens" if cut else "end_turn",
            "stop_sequence": None,
            "stop_details": {**details, "explanation": "It is against the rules."}
            if refused
            else None,
            "usage": {
                "input_tokens": _input_tokens(body),
                "output_tokens": len(text.split()),
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
            },
        }

    def _batch_json(self, batch: Batch, request: VendorRequest) -> dict[str, JsonValue]:
        ended = self._ended(batch)
        results = [self._result(entry, batch)["type"] for entry in batch.requests] if ended else []
        kinds = ("succeeded", "errored", "canceled", "expired")
        counts: dict[str, JsonValue] = {kind: results.count(kind) for kind in kinds}
        working = "canceling" if batch.cancelled else self.behavior.state or "in_progress"
        address = f"http://{request.headers['host']}/v1/messages/batches/{batch.id}"
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": "ended" if ended else working,
            "request_counts": {**counts, "processing": 0 if ended else len(batch.requests)},
            "created_at": _when(batch.created),
            "expires_at": _when(batch.created + DAY_SECONDS),
            "ended_at": _when(time.time()) if ended else None,
            "cancel_initiated_at": _when(batch.created) if batch.cancelled else None,
            "archived_at": _when(time.time()) if batch.archived else None,
            "results_url": f"{address}/results" if ended and not batch.archived else None,
        }

    def _result(self, entry: Mapping[str, Any], batch: Batch) -> dict[str, JsonValue]:
        if batch.cancelled:
            return {"type": "canceled"}
        if text_of(entry["params"]["messages"][-1]["content"]) in self.expires:
            return {"type": "expired"}
        try:
            return {"type": "succeeded", "message": self._message(entry["params"])}
        except Refused as refusal:
            return {"type": "errored", "error": self.error(refusal)}

    def _ended(self, batch: Batch) -> bool:
        return batch.looks > self.behavior.queued_polls

    def _id(self, kind: str) -> str:
        return f"{kind}_{next(self._numbers):024d}"


def _check_message_request(body: Mapping[str, Any]) -> None:
    for name in body.keys() - TAKEN:
        raise Refused(400, f"{name}: Extra inputs are not permitted")
    for name in ("model", "max_tokens", "messages"):
        if not body.get(name):
            raise Refused(400, f"{name}: Field required")
    if not isinstance(body["max_tokens"], int) or body["max_tokens"] < 1:
        raise Refused(400, "max_tokens: Input should be greater than or equal to 1")
    for number, message in enumerate(body["messages"]):
        _check_message(number, message)
    if not MODEL.fullmatch(str(body["model"])):
        raise Refused(404, f"model: {body['model']}")
    if "temperature" in body and NO_TEMPERATURE.match(body["model"]):
        raise Refused(400, "`temperature` is deprecated for this model.")
    if not 0 <= body.get("temperature", 1) <= 1:
        raise Refused(400, "temperature: range: 0..1")
    for number, tool in enumerate(body.get("tools", [])):
        _check_tool(number, tool)


def _check_message(number: int, message: Mapping[str, Any]) -> None:
    # Whether the first turn must be the user's differs between reports, so it need not.
    if message.get("role") not in ("user", "assistant"):
        raise Refused(400, f"messages.{number}: unexpected role {message.get('role')!r}")
    if not message.get("content"):
        raise Refused(400, f"messages.{number}: content must not be empty")


def _check_tool(number: int, tool: Mapping[str, Any]) -> None:
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", tool.get("name", "")):
        rule = "String should match pattern '^[a-zA-Z0-9_-]{1,128}$'"
        raise Refused(400, f"tools.{number}.custom.name: {rule}")
    if tool.get("input_schema", {}).get("type") != "object":
        raise Refused(400, f"tools.{number}.custom.input_schema.type: Field required")


def _input_tokens(body: Mapping[str, Any]) -> int:
    parts = [body.get(name, "") for name in ("system", "tools", "messages")]
    return len(json.dumps(parts).split())


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
