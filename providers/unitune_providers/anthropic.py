"""Send requests to Claude at Anthropic, one at a time or in batches; tuning is not offered.

A batch has neither a name nor metadata, so it is recognised by the ids of its requests, which come
back only with its answers. All calls except the create call are repeated.

Sources: anthropic 2.13.0, types/message_create_params.py, message.py, _client.py and
resources/messages/batches.py, types/raw_message_stream_event.py;
platform.claude.com/docs/en/build-with-claude, batch-processing (limits, billing, 24 hours, 29 days)
and token-counting (read 2026-11-25).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, cast

from pydantic import JsonValue

from unitune.backends.capabilities import BatchStatus
from unitune.backends.kit.api import by_last_id, created_id
from unitune.backends.kit.chat import StreamingChatModel
from unitune.backends.kit.chat_completions import Refusal, refuses
from unitune.backends.kit.errors import Endpoint, ErrorResponse
from unitune.backends.kit.hosted import (
    BAD_REQUEST,
    HostedBackend,
    NoOptions,
    cancel_unless_ended,
    cannot_take,
    check_size,
)
from unitune.data.example import Message
from unitune.errors import BackendError, Unreachable, Unsupported
from unitune.models import ChatModel, Reply, Request, TunedModel, function_call
from unitune.security.json_fields import Fields, read_json

BATCHES = ("v1", "messages", "batches")
REQUESTS_MOST = 100_000
BYTES_MOST = 256_000_000
CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
PAGE_SIZE = 100
# Possible drift of Anthropic's clock since a batch was announced; its offset is read from answers
MARGIN_SECONDS = 60.0
# Status by the type of an error, as failed requests of a batch have none
STATUS = {"authentication_error": 401, "not_found_error": 404, "rate_limit_error": 429}
ENDED = "ended"
NOT_REACHED = {
    "expired": "Anthropic did not process it within the 24 hours of its batch and does not bill "
    "it. Send it in a new batch, or without --batch.",
    "canceled": "The batch was cancelled before Anthropic processed it; it is not billed. Send it "
    "in a new batch, or without --batch.",
}
FINISHES = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}
NO_ARGUMENTS: JsonValue = {"type": "object", "properties": {}}
THOUGHTS = ("thinking", "redacted_thinking")
COUNTED = ("model", "messages", "system", "tools")  # fields that form the input of a request


class AnthropicBackend(HostedBackend[NoOptions]):
    """Backend that only answers."""

    name: ClassVar[str] = "anthropic"
    capabilities = ("CountsTokens", "Batches")
    address = "https://api.anthropic.com"
    address_variable = "ANTHROPIC_BASE_URL"
    key_variable = "ANTHROPIC_API_KEY"
    headers_variable = "ANTHROPIC_CUSTOM_HEADERS"
    key_header = "x-api-key"
    token_variable = "ANTHROPIC_AUTH_TOKEN"  # noqa: S105 - a variable's name
    headers: ClassVar[Mapping[str, str]] = {"anthropic-version": "2023-06-01"}
    advice: ClassVar[Mapping[int, str]] = {
        404: "Check the model's name in the list at docs.claude.com; it begins with `claude-`."
    }

    def chat(self, model: str | TunedModel) -> ChatModel:
        name = self._untuned(model)
        return ClaudeChatModel(self.endpoint(), name)

    def count_tokens(self, model: str | TunedModel, request: Request) -> int:
        """Return Anthropic's estimate of the input tokens, which is free."""
        name = self._untuned(model)
        try:
            message = message_body(name, request)
        except (KeyError, ValueError) as problem:
            raise Unsupported(f"{name} cannot accept this request: {problem}") from problem
        body = {part: message[part] for part in COUNTED if part in message}
        path, action = ("v1", "messages", "count_tokens"), f"count tokens for {name}"
        counted = self.api.post(*path, action=action, body=body, changes_nothing=True)
        if (tokens := counted.whole("input_tokens")) is None:
            raise Unreachable(f"anthropic could not {action}: the response has no count.")
        return tokens

    def submit_batch(
        self, key: str, model: str | TunedModel, requests: Mapping[str, Request]
    ) -> str:
        """Create a batch with one call; the request ids contain the key.

        A short request first shows whether the model has a temperature; a batch would show it late.
        """
        del key
        name, api = self._untuned(model), self.api
        bodies = {id_: _batched_body(id_, name, request) for id_, request in requests.items()}
        around = len(json.dumps({"custom_id": "", "params": {}})) * len(bodies)
        size = len(json.dumps(bodies, ensure_ascii=False).encode()) + around
        check_size("Anthropic", len(bodies), size, most=REQUESTS_MOST, most_bytes=BYTES_MOST)
        if not self._takes_temperature(name, next(iter(requests.values()))):
            for body in bodies.values():
                del body["temperature"]
        rows: list[JsonValue] = [{"custom_id": id_, "params": bodies[id_]} for id_ in bodies]
        created = api.post(*BATCHES, action="create the batch", body={"requests": rows})
        return created_id(created, api.endpoint)

    def find_batch(self, key: str, since: float) -> list[str]:
        """Return the batches with this key or, without any, those that may have it.

        Only an ended batch shows its key, in its request ids. A single running batch is most likely
        ours; if not, its answers have other ids and nothing is billed twice. If there are several,
        the caller reports them.
        """
        certain, undecided = list[str](), list[str]()
        for batch in self._recent(since):
            batch_id, name = batch.text("id") or "", self._a_request_of(batch)
            if name is None:
                undecided.append(batch_id)
            elif name.rpartition("-")[0] == key:
                certain.append(batch_id)
        return certain or undecided

    def poll_batch(self, batch_id: str) -> BatchStatus:
        """Return the status of a batch; its counts are known only once it has ended."""
        batch = self.api.get(*BATCHES, batch_id, action=f"read batch {batch_id}")
        word = batch.text("processing_status") or "no status"
        if word != ENDED:
            return BatchStatus("running", word)
        if batch.text("results_url") is None:
            gone = (
                f"The answers of batch {batch_id} are gone, because Anthropic keeps them for 29 "
                "days. Send the requests in a new batch, or without --batch."
            )
            return BatchStatus("failed", word, error=gone)
        counts = batch.fields("request_counts")
        ends = [counts.whole(name) or 0 for name in ("succeeded", "errored", "canceled", "expired")]
        return BatchStatus("ended", word, done=sum(ends) if counts.all else None)

    def fetch_batch(self, batch_id: str) -> Mapping[str, Reply]:
        status = self.poll_batch(batch_id)
        if status.state == "running":
            raise BackendError(f"Batch {batch_id} is {status.raw}. Wait until it has ended.")
        if status.error is not None:
            raise BackendError(status.error)
        results = self._results(batch_id)
        return {row.text("custom_id") or "": self._reply(row.fields("result")) for row in results}

    def cancel_batch(self, batch_id: str) -> None:
        cancel_unless_ended(
            lambda: self.api.post(*BATCHES, batch_id, "cancel", action=f"cancel {batch_id}"),
            lambda: self.poll_batch(batch_id).state == "running",
        )

    def _untuned(self, model: str | TunedModel) -> str:
        if isinstance(model, TunedModel):
            raise self.tunes_nothing()
        return model

    def _takes_temperature(self, model: str, request: Request) -> bool:
        hello = (Message(role="user", content="Hello"),)
        short = Request(messages=hello, max_tokens=1, temperature=request.temperature)
        body, path = message_body(model, short), ("v1", "messages")
        try:
            self.api.post(*path, action=f"answer as {model}", body=body, changes_nothing=True)
        except BackendError as error:
            refusal = Refusal(error.status or 0, str(error))
            if error.status == BAD_REQUEST and refuses(refusal, request, "temperature"):
                return False
            if not error.is_ambiguous:
                raise
            # Not ambiguous for the caller, who would search for a batch and find another.
            words = f"{error} No batch was submitted. Try again."
            raise BackendError(words, request_id=error.request_id) from error
        return True

    def _recent(self, since: float) -> Iterator[Fields]:
        """Yield the batches created since then or without a time."""
        api, action = self.api, "list batches"
        headers = api.request("GET", *BATCHES, action=action).headers
        oldest = since + _seconds_ahead(headers) - MARGIN_SECONDS
        paging, query = by_last_id(parameter="after_id"), {"limit": PAGE_SIZE}
        for batch in api.pages(*BATCHES, action=action, next_page=paging, query=query):
            if (batch.time("created_at") or oldest) < oldest:
                return
            yield batch

    def _a_request_of(self, batch: Fields) -> str | None:
        batch_id, word = batch.text("id"), batch.text("processing_status")
        if word != ENDED or not batch.text("results_url") or not batch_id:
            return None
        with closing(self._results(batch_id)) as rows:
            return next((row.text("custom_id") for row in rows), None)

    def _results(self, batch_id: str) -> Generator[Fields]:
        action = f"send the answers of {batch_id}"
        return self.api.lines(*BATCHES, batch_id, "results", action=action)

    def _reply(self, result: Fields) -> Reply:
        kind = result.text("type") or "nothing"
        if kind == "succeeded" and (reply := read_answer(result.fields("message"))) is not None:
            return reply
        words = NOT_REACHED.get(kind, f"Anthropic returned an unknown result, {kind!r}.")
        if kind == "errored":
            error = result.fields("error").fields("error")
            name = error.text("type") or ""
            response = ErrorResponse(STATUS.get(name, 0), {}, f"{error.text('message')} [{name}]")
            words = str(self.endpoint().vendor.refused("answer", response))
        return Reply(error=words, finish_reason="error")


class ClaudeChatModel(StreamingChatModel):
    """A Claude model that answers one request at a time."""

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        super().__init__(endpoint, "/v1/messages", model, f"anthropic:{model}")
        self._takes_temperature = True

    def body(self, request: Request) -> dict[str, object]:
        body: dict[str, object] = {**message_body(self._model, request)}
        if not self._takes_temperature and "temperature" not in request.fixed:
            del body["temperature"]
        return body

    def learn(self, body: dict[str, object], request: Request, refusal: Refusal) -> bool:
        """Leave out the temperature, which Claude 4.7 and later refuse (shown by refusals only)."""
        if "temperature" not in body or not refuses(refusal, request, "temperature"):
            return False
        self._takes_temperature = False
        del body["temperature"]
        return True

    def streamed(self) -> StreamedMessage:
        return StreamedMessage()

    def read(self, body: dict[str, object], answer: object, seconds: float) -> Reply | None:
        reply = read_answer(Fields(answer), seconds)
        left_out = () if "temperature" in body else ("temperature",)
        return reply and replace(reply, left_out=left_out)


class StreamedMessage:
    """A streamed message (`unitune.backends.kit.chat_completions.StreamedAnswer`)."""

    def __init__(self) -> None:
        self.ended = False
        self._message: dict[str, JsonValue] = {}
        self._usage: dict[str, JsonValue] = {}
        self._blocks: dict[int, dict[str, JsonValue]] = {}
        self._arguments: dict[int, str] = {}

    def add(self, event: Fields) -> str:
        delta, index = event.fields("delta"), event.whole("index") or 0
        match event.text("type"):
            case "message_start":
                self._message = {**event.fields("message").all}
                self._usage.update(event.fields("message").fields("usage").all)
            case "content_block_start":
                self._blocks[index] = {**event.fields("content_block").all}
                return self._append(index, "")
            case "content_block_delta":
                arguments = delta.text("partial_json") or ""
                self._arguments[index] = self._arguments.get(index, "") + arguments
                return self._append(index, delta.text("text") or "")
            case "message_delta":
                self._message.update(delta.all)
                self._usage.update(event.fields("usage").all)
            case "message_stop":
                self.ended = True
            case _:
                pass
        return ""

    def whole(self) -> object:
        for index, arguments in self._arguments.items():
            if arguments:
                self._blocks[index]["input"] = cast("JsonValue", read_json(arguments))
        blocks = [self._blocks[index] for index in sorted(self._blocks)]
        return {**self._message, "content": blocks, "usage": self._usage}

    def _append(self, index: int, text: str) -> str:
        block = self._blocks.setdefault(index, {"type": "text"})
        if block.get("type") != "text":
            return ""
        block["text"] = (Fields(block).text("text") or "") + text
        return text


def message_body(model: str, request: Request) -> dict[str, JsonValue]:
    """Return a request in Anthropic's format; raise ValueError or KeyError if it is invalid."""
    prompts = ("system", "developer")
    system = [turn.text for turn in request.messages if turn.role in prompts and turn.text]
    turns: list[JsonValue] = [
        {"role": "assistant" if turn.role == "assistant" else "user", "content": [*_blocks(turn)]}
        for turn in request.messages
        if turn.role not in prompts
    ]
    return {
        "model": model,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "messages": turns,
        **({"system": "\n\n".join(system)} if system else {}),
        **({"stop_sequences": list(request.stop)} if request.stop else {}),
        **({"tools": [_tool(tool) for tool in request.tools]} if request.tools else {}),
        **({"output_config": {"format": answer}} if (answer := _answer_format(request)) else {}),
    }


def _answer_format(request: Request) -> JsonValue:
    schema = request.response_schema
    return None if schema is None else {"type": "json_schema", "schema": schema}


def _seconds_ahead(headers: Mapping[str, str]) -> float:
    try:
        return parsedate_to_datetime(headers["date"]).timestamp() - time.time()
    except (KeyError, ValueError):
        return 0.0


def _batched_body(request_id: str, model: str, request: Request) -> dict[str, JsonValue]:
    if not CUSTOM_ID.fullmatch(request_id):
        raise Unsupported(
            f"The request id {request_id!r} is invalid; use 1 to 64 letters, digits, _ and -."
        )
    try:
        return message_body(model, request)
    except (KeyError, ValueError) as problem:
        raise cannot_take(model, request_id, problem) from problem


def _blocks(message: Message) -> Iterator[JsonValue]:
    if message.role == "tool":
        called = message.tool_call_id or ""
        yield {"type": "tool_result", "tool_use_id": called, "content": message.text}
        return
    for piece in message.pieces:
        if isinstance(piece, str):
            if piece:
                yield {"type": "text", "text": piece}
        elif piece.image is None:
            yield {"type": "image", "source": {"type": "url", "url": piece.url}}
        else:
            data = {"media_type": piece.image.media_type, "data": piece.url.partition(",")[2]}
            yield {"type": "image", "source": {"type": "base64", **data}}
    for call in message.tool_calls or ():
        function = cast("Mapping[str, Any]", call["function"])
        arguments = json.loads(function["arguments"] or "{}")
        yield {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments}


def _tool(tool: Mapping[str, JsonValue]) -> JsonValue:
    function = cast("Mapping[str, Any]", tool["function"])
    described = {"description": function["description"]} if function.get("description") else {}
    schema = function.get("parameters") or NO_ARGUMENTS
    return {"name": function["name"], "input_schema": schema, **described}


def read_answer(answer: Fields, seconds: float | None = None) -> Reply | None:
    """Read Claude's answer, without reasoning; return None if it is not a message."""
    if not isinstance(answer.all.get("content"), list):
        return None
    blocks, usage = answer.items("content"), answer.fields("usage")
    word = answer.text("stop_reason") or "end_turn"
    text = "".join(block.text("text") or "" for block in blocks if block.text("type") == "text")
    if word == "refusal" and not text:
        text = answer.fields("stop_details").text("explanation") or ""
    input_tokens = usage.whole("input_tokens")
    cached = [usage.whole(f"cache_{kind}_input_tokens") or 0 for kind in ("creation", "read")]
    calls = tuple(
        function_call(block.text("name") or "", block.all.get("input"), block.text("id"))
        for block in blocks
        if block.text("type") == "tool_use"
    )
    return Reply(
        text=text,
        finish_reason=FINISHES.get(word, word),
        prompt_tokens=None if input_tokens is None else input_tokens + sum(cached),
        completion_tokens=usage.whole("output_tokens"),
        thought=any(block.text("type") in THOUGHTS for block in blocks),
        reasoning="".join(block.text("thinking") or "" for block in blocks) or None,
        seconds=seconds,
        tool_calls=calls or None,
    )
