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
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from pydantic import JsonValue

from unitune.testing.loopback import UNREADABLE, VendorRequest, VendorResponse, thinned
from unitune.testing.vendor_setup import ServerBehavior
from vendors import shapes

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


class Refusal(Exception):
    """What Anthropic says no with.

    Args:
        status: HTTP status.
        message: In Anthropic's words, more or less.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    @property
    def content(self) -> dict[str, JsonValue]:
        """The error as Anthropic writes it."""
        return {"type": "error", "error": {"type": TYPES[self.status], "message": self.message}}


@dataclass(slots=True)
class Batch:
    """Messages that are answered together, in Anthropic's time."""

    id: str
    requests: list[Mapping[str, Any]]
    created: float = field(default_factory=time.time)
    looks: int = 0
    cancelled: bool = False
    archived: bool = False


class AnthropicVendor:
    """Anthropic, with one key.

    Args:
        behavior: How it behaves; a batch is done after `queued_polls` looks.
        refused: Questions that are refused.
        expires: Questions that a batch does not come to within its day.
    """

    def __init__(
        self,
        behavior: ServerBehavior | None = None,
        refused: frozenset[str] = frozenset(),
        expires: frozenset[str] = frozenset(),
    ) -> None:
        self.behavior = behavior or ServerBehavior()
        self.refused = refused
        self.expires = expires
        self.batches: dict[str, Batch] = {}
        self._numbers = itertools.count(1)
        self._lists = 0

    def answer(self, asked: VendorRequest) -> VendorResponse:
        """Answer a request, changing state as Anthropic would."""
        headers = {"request-id": self._id("req")}
        try:
            _check_headers(asked)
            content = self._content(asked)
        except Refusal as refusal:
            return _refused(refusal, headers)
        except UNREADABLE as problem:
            return _refused(Refusal(400, f"invalid request: {problem}"), headers)
        answer = VendorResponse(content, 200, headers)
        return thinned(self.behavior.omits, answer, asked, shapes.anthropic)

    def _content(self, asked: VendorRequest) -> JsonValue | bytes:
        place, method = asked.path.removeprefix("/v1/messages"), asked.method
        if method == "POST" and place in ("", "/count_tokens"):
            return self._count(asked.json) if place else self._message(asked.json)
        if (method, place) == ("POST", "/batches"):
            return self._create(asked)
        if (method, place) == ("GET", "/batches"):
            return self._list(asked)
        found = re.fullmatch(r"/batches/([^/]+)(/results|/cancel)?", place)
        batch = self.batches.get(found[1]) if found else None
        if found is None or batch is None:
            raise Refusal(404, f"{method} {asked.path} is not here")
        match (method, found[2]):
            case ("GET", None):
                batch.looks += 1
                return self._told(batch, asked)
            case ("GET", "/results"):
                return self._results(batch)
            case ("POST", "/cancel"):
                if self._ended(batch):
                    raise Refusal(400, f"Batch {batch.id} cannot be canceled: it has ended")
                batch.cancelled = True
                return self._told(batch, asked)
            case _:
                raise Refusal(404, f"{method} {asked.path} is not here")

    def _message(self, request: Mapping[str, Any]) -> dict[str, JsonValue]:
        _check_request(request)
        question = _texts(request["messages"][-1]["content"])
        refused = question in self.refused
        words = (
            []
            if refused
            else self.behavior.replies.get(question, self.behavior.otherwise).split(" ")
        )
        said = words[: request["max_tokens"]]
        text, cut = " ".join(said), len(said) < len(words)
        content: list[JsonValue] = [] if refused else [{"type": "text", "text": text}]
        details: dict[str, JsonValue] = {"type": "refusal", "category": None}
        return {
            "id": self._id("msg"),
            "type": "message",
            "role": "assistant",
            "model": request["model"],
            "content": content,
            "stop_reason": "refusal" if refused else "max_tokens" if cut else "end_turn",
            "stop_sequence": None,
            "stop_details": {**details, "explanation": "It is against the rules."}
            if refused
            else None,
            "usage": {
                "input_tokens": _input_tokens(request),
                "output_tokens": len(text.split()),
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
            },
        }

    def _count(self, request: Mapping[str, Any]) -> dict[str, JsonValue]:
        for name in request.keys() & UNCOUNTED:
            raise Refusal(400, f"{name}: Extra inputs are not permitted")
        _check_request({**request, "max_tokens": 1})
        return {"input_tokens": _input_tokens(request)}

    def _create(self, asked: VendorRequest) -> dict[str, JsonValue]:
        requests: list[Mapping[str, Any]] = asked.json.get("requests", [])
        names = [str(one.get("custom_id", "")) for one in requests]
        if not requests or len(set(names)) < len(names):
            raise Refusal(400, "requests: custom_id must be unique, and there must be one")
        for name in names:
            if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name):
                raise Refusal(400, f"requests: custom_id {name!r} is not allowed")
        batch = Batch(self._id("msgbatch"), requests)
        self.batches[batch.id] = batch
        return self._told(batch, asked)

    def _list(self, asked: VendorRequest) -> dict[str, JsonValue]:
        """Return a page of batches, the newest first."""
        lag = self.behavior.list_lag_seconds
        shown = [one for one in self.batches.values() if time.time() - one.created >= lag]
        shown.reverse()
        after = asked.first("after_id")
        start = 1 + [one.id for one in shown].index(after) if after else 0
        end = start + asked.number("limit", 20)
        page = shown[max(0, start - self.behavior.lists_repeat) : end]
        last = page[-1].id if page else None
        self._lists += 1
        if self.behavior.lists_repeat and self._lists % 2:
            page.reverse()
        return {
            "data": [self._told(one, asked) for one in page],
            "has_more": end < len(shown),
            "first_id": page[0].id if page else None,
            "last_id": last,
        }

    def _told(self, batch: Batch, asked: VendorRequest) -> dict[str, JsonValue]:
        ended = self._ended(batch)
        results = [self._result(one, batch)["type"] for one in batch.requests] if ended else []
        kinds = ("succeeded", "errored", "canceled", "expired")
        counts: dict[str, JsonValue] = {kind: results.count(kind) for kind in kinds}
        working = "canceling" if batch.cancelled else self.behavior.state or "in_progress"
        address = f"http://{asked.headers['host']}/v1/messages/batches/{batch.id}"
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

    def _results(self, batch: Batch) -> bytes:
        """Return a line for each request, in another order: Anthropic promises none."""
        if not self._ended(batch):
            raise Refusal(404, f"batch {batch.id} has no results yet")
        lines = [
            json.dumps({"custom_id": one["custom_id"], "result": self._result(one, batch)})
            for one in reversed(batch.requests)
        ]
        return "".join(f"{line}\n" for line in lines).encode()

    def _result(self, one: Mapping[str, Any], batch: Batch) -> dict[str, JsonValue]:
        if batch.cancelled:
            return {"type": "canceled"}
        if _texts(one["params"]["messages"][-1]["content"]) in self.expires:
            return {"type": "expired"}
        try:
            return {"type": "succeeded", "message": self._message(one["params"])}
        except Refusal as refusal:
            return {"type": "errored", "error": refusal.content}

    def _ended(self, batch: Batch) -> bool:
        return batch.looks > self.behavior.queued_polls

    def _id(self, kind: str) -> str:
        return f"{kind}_{next(self._numbers):024d}"


def _refused(refusal: Refusal, headers: Mapping[str, str]) -> VendorResponse:
    return VendorResponse(
        {**refusal.content, "request_id": headers["request-id"]}, refusal.status, headers
    )


def _check_headers(asked: VendorRequest) -> None:
    bearer = asked.headers.get("authorization") == f"Bearer {KEY}"
    if asked.headers.get("x-api-key") != KEY and not bearer:
        raise Refusal(401, "invalid x-api-key")
    if "anthropic-version" not in asked.headers:
        raise Refusal(400, "anthropic-version: header is required")


def _check_request(request: Mapping[str, Any]) -> None:
    for name in request.keys() - TAKEN:
        raise Refusal(400, f"{name}: Extra inputs are not permitted")
    for name in ("model", "max_tokens", "messages"):
        if not request.get(name):
            raise Refusal(400, f"{name}: Field required")
    if not isinstance(request["max_tokens"], int) or request["max_tokens"] < 1:
        raise Refusal(400, "max_tokens: Input should be greater than or equal to 1")
    for number, message in enumerate(request["messages"]):
        _check_message(number, message)
    if not MODEL.fullmatch(str(request["model"])):
        raise Refusal(404, f"model: {request['model']}")
    if "temperature" in request and NO_TEMPERATURE.match(request["model"]):
        raise Refusal(400, "`temperature` is deprecated for this model.")
    if not 0 <= request.get("temperature", 1) <= 1:
        raise Refusal(400, "temperature: range: 0..1")
    for number, tool in enumerate(request.get("tools", [])):
        _check_tool(number, tool)


def _check_message(number: int, message: Mapping[str, Any]) -> None:
    # Whether the first turn must be the user's is not told alike by all reports, so it need not.
    if message.get("role") not in ("user", "assistant"):
        raise Refusal(400, f"messages.{number}: unexpected role {message.get('role')!r}")
    if not message.get("content"):
        raise Refusal(400, f"messages.{number}: content must not be empty")


def _check_tool(number: int, tool: Mapping[str, Any]) -> None:
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", tool.get("name", "")):
        wanted = "String should match pattern '^[a-zA-Z0-9_-]{1,128}$'"
        raise Refusal(400, f"tools.{number}.custom.name: {wanted}")
    if tool.get("input_schema", {}).get("type") != "object":
        raise Refusal(400, f"tools.{number}.custom.input_schema.type: Field required")


def _input_tokens(request: Mapping[str, Any]) -> int:
    parts = [request.get(name, "") for name in ("system", "tools", "messages")]
    return len(json.dumps(parts).split())


def _texts(content: str | list[dict[str, JsonValue]]) -> str:
    if isinstance(content, str):
        return content
    return "".join(cast("str", block.get("text", "")) for block in content)


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
