"""Send requests to base models and deployments at Bedrock with the Converse API.

botocore has no asynchronous client, so requests run in threads. Messages have the format of
Bedrock's training rows; a row of prompt and completion becomes a user's message and its answer.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any, cast

from pydantic import JsonValue

from unitune.backends.kit.requests import chat_span
from unitune.data.example import Message
from unitune.errors import BackendError, UnituneError
from unitune.models import ChatModel, Reply, Request, function_call
from unitune.security.json_fields import Fields, Unreadable
from unitune.workspace.user_settings import variable
from unitune_providers.bedrock.clients import AWS, CHAT_THREADS, Clients, aws_errors, call
from unitune_providers.bedrock.jobs import offered_name
from unitune_providers.formats.bedrock import image_block

# Variable with the inference profile for base models that need one: us, global, …
PROFILE = "UNITUNE_BEDROCK_PROFILE"
# Base models that answer only through a profile in the regions that can tune them. Source:
# docs.aws.amazon.com, Amazon Nova 2 developer guide, Core inference, read 2026-11-25; for Llama,
# Bedrock's model cards as copied in public repositories, read 2026-11-25.
NEEDS_PROFILE = ("amazon.nova-2-", "meta.llama3-2-", "meta.llama3-3-")
# The name of a base model for tuning ends in its context length, which inference does not accept
VARIANT = re.compile(r"^([a-z0-9-]+\.[a-z0-9.-]+:\d+):\d+k$")
FINISHES = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}
NO_ARGUMENTS: JsonValue = {"type": "object", "properties": {}}
# Statuses of a model that does not stream, or of a missing permission to stream
CANNOT_STREAM = (400, 403, 404)


class BedrockChatModel(ChatModel):
    """A model behind the Converse API."""

    def __init__(self, clients: Clients, model_id: str, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._runtime = clients.runtime
        self._model_id = model_id
        self._action = f"answer as {model_id}"
        self._threads: ThreadPoolExecutor | None = None

    async def reply(self, request: Request) -> Reply:
        """Answer one request; report a failure in the reply's `error`."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(CHAT_THREADS, thread_name_prefix="bedrock")
        loop = asyncio.get_running_loop()
        with chat_span("bedrock", "", self._model_id, request) as answered:
            return answered(await loop.run_in_executor(self._threads, self._reply, request))

    async def stream_reply(self, request: Request) -> AsyncGenerator[str | Reply]:
        """Yield the answer's text, as it arrives or at once, and then the reply."""
        pieces = self._streamed(request)
        try:
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                yield piece
        finally:
            with suppress(ValueError):  # it still runs in its thread and ends with its next piece
                pieces.close()

    async def aclose(self) -> None:
        """End the threads; all models share the connections."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)

    def _reply(self, request: Request) -> Reply:
        started = time.perf_counter()
        try:
            converse = converse_request(self._model_id, request)
            response = call(self._action, self._runtime.converse, **converse)
        except (UnituneError, KeyError, ValueError) as error:
            return self._failed(error, started)
        return self._read(response, started)

    def _streamed(self, request: Request) -> Generator[str | Reply]:
        started, answer = time.perf_counter(), StreamedConverse()
        try:
            converse = converse_request(self._model_id, request)
            with aws_errors(self._action):
                response = self._runtime.converse_stream(**converse)
                with closing(response["stream"]) as events:
                    for event in events:
                        if text := answer.add(Fields(event)):
                            yield text
        except BackendError as error:
            cannot_stream = error.status in CANNOT_STREAM and not answer.begun
            reply = self._reply(request) if cannot_stream else Reply.failed(error)
            if reply.text:
                yield reply.text
            yield reply
        except (UnituneError, KeyError, ValueError) as error:
            yield self._failed(error, started)
        else:
            yield self._read(Fields(answer.whole()), started)

    def _read(self, response: Fields, started: float) -> Reply:
        seconds = time.perf_counter() - started
        no_message = AWS.unreachable(self._action, Unreadable("the response has no message"))
        return read_reply(response, seconds) or Reply.failed(no_message, seconds)

    def _failed(self, error: Exception, started: float) -> Reply:
        if isinstance(error, UnituneError):
            return Reply.failed(error, time.perf_counter() - started)
        words = f"{self._model_id} cannot accept this request: {error}"
        return Reply(error=words, finish_reason="error")


class StreamedConverse:
    """A response of ConverseStream, assembled to one of Converse."""

    def __init__(self) -> None:
        self.begun = False
        self._blocks: dict[int, dict[str, JsonValue]] = {}
        self._ends: dict[str, JsonValue] = {}

    def add(self, event: Fields) -> str:
        """Add the next event and return its text."""
        self.begun = True
        self._ends.update(event.fields("messageStop").all)
        self._ends.update(event.fields("metadata").all)
        start, delta = event.fields("contentBlockStart"), event.fields("contentBlockDelta")
        block = self._blocks.setdefault(start.whole("contentBlockIndex") or 0, {})
        block.update(start.fields("start").all)
        block = self._blocks.setdefault(delta.whole("contentBlockIndex") or 0, {})
        new = delta.fields("delta")
        if new.fields("reasoningContent").all:
            block["reasoningContent"] = {}
        if piece := new.fields("toolUse").text("input"):
            use = Fields(block).fields("toolUse")
            block["toolUse"] = {**use.all, "input": (use.text("input") or "") + piece}
        text = new.text("text") or ""
        if text:
            block["text"] = (Fields(block).text("text") or "") + text
        return text

    def whole(self) -> object:
        """Return the response in Converse's format; without a message if it did not end."""
        if "stopReason" not in self._ends:
            return {}
        blocks = [self._blocks[index] for index in sorted(self._blocks) if self._blocks[index]]
        return {**self._ends, "output": {"message": {"content": blocks}}}


def answering_id(base: str) -> str:
    """Return the name of a base model for inference."""
    base = offered_name(base)
    if (variant := VARIANT.match(base)) is None:
        return base
    profile = variable(PROFILE, "us" if base.startswith(NEEDS_PROFILE) else "")
    return f"{profile}.{variant[1]}" if profile else variant[1]


def converse_request(model_id: str, request: Request) -> dict[str, Any]:
    """Return a request in Converse's format; raise ValueError or KeyError if it is invalid."""
    turns = [turn for turn in request.messages if turn.role not in ("system", "developer")]
    system = [turn.text for turn in request.messages if turn.role in ("system", "developer")]
    settings: dict[str, Any] = {
        "maxTokens": request.max_tokens,
        "temperature": request.temperature,
    }
    if request.stop:
        settings["stopSequences"] = list(request.stop)
    converse = {"modelId": model_id, "messages": _turns(turns), "inferenceConfig": settings}
    if any(system):
        converse["system"] = [{"text": text} for text in system if text]
    if request.tools:
        converse["toolConfig"] = {"tools": [_tool(tool) for tool in request.tools]}
    if request.response_schema is not None:
        schema = {"name": "answer", "schema": json.dumps(request.response_schema)}
        answer = {"type": "json_schema", "structure": {"jsonSchema": schema}}
        converse["outputConfig"] = {"textFormat": answer}
    return converse


def _turns(messages: list[Message]) -> list[dict[str, Any]]:
    """Merge neighbouring messages of one role, as Converse requires alternating roles."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = list(_blocks(message))
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return turns


def _blocks(message: Message) -> Iterator[dict[str, Any]]:
    if message.role == "tool":
        content = [{"text": message.text}]
        yield {"toolResult": {"toolUseId": message.tool_call_id or "", "content": content}}
        return
    for place, piece in enumerate(message.pieces):
        if isinstance(piece, str):
            yield from ([{"text": piece}] if piece else [])
            continue
        block = cast("dict[str, Any]", image_block(f"part {place}", piece))
        source = block["image"]["source"]
        if "bytes" in source:
            source["bytes"] = piece.content
        yield block
    for tool_call in message.tool_calls or ():
        function = cast("Mapping[str, Any]", tool_call["function"])
        arguments = json.loads(function["arguments"] or "{}")
        use = {"toolUseId": tool_call["id"], "name": function["name"], "input": arguments}
        yield {"toolUse": use}


def _tool(tool: Mapping[str, JsonValue]) -> dict[str, Any]:
    function = cast("Mapping[str, Any]", tool["function"])
    schema = function.get("parameters") or NO_ARGUMENTS
    spec = {"name": function["name"], "inputSchema": {"json": schema}}
    if function.get("description"):
        spec["description"] = function["description"]
    return {"toolSpec": spec}


def read_reply(response: Fields, seconds: float) -> Reply | None:
    """Read a response of Converse; return None if it has no message."""
    output, usage = response.fields("output"), response.fields("usage")
    if "message" not in output.all:
        return None
    blocks = output.fields("message").items("content")
    tool_calls = [
        function_call(use.text("name") or "", use.all.get("input"), use.text("toolUseId") or "")
        for block in blocks
        if (use := block.fields("toolUse")).all
    ]
    word = response.text("stopReason") or "unknown"
    return Reply(
        text="".join(block.text("text") or "" for block in blocks),
        finish_reason=FINISHES.get(word, word),
        prompt_tokens=usage.whole("inputTokens"),
        completion_tokens=usage.whole("outputTokens"),
        thought=any("reasoningContent" in block.all for block in blocks),
        reasoning="".join(map(_reasoning, blocks)) or None,
        seconds=seconds,
        tool_calls=tuple(tool_calls) or None,
    )


def _reasoning(block: Fields) -> str:
    return block.fields("reasoningContent").fields("reasoningText").text("text") or ""
