"""Asking models at Bedrock through Converse: base models, and deployments of tuned ones.

botocore has no asynchronous client, so requests run in threads of the model's own. Messages are
written as Bedrock's training rows write them: a conversation in turns, with the system prompt
apart; a row that was a prompt and its completion was one user's message and the answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

from pydantic import JsonValue

from unitune.data.example import Message
from unitune.errors import UnituneError
from unitune.models import ChatModel, Reply, Request, function_call
from unitune_providers.bedrock.clients import CHAT_THREADS, Clients, our_errors
from unitune_providers.bedrock.options import own_name

if TYPE_CHECKING:
    from mypy_boto3_bedrock_runtime.type_defs import (
        ContentBlockTypeDef,
        ConverseRequestTypeDef,
        ConverseResponseTypeDef,
        MessageTypeDef,
        ToolTypeDef,
    )

PROFILE = "UNITUNE_BEDROCK_PROFILE"
"""Which inference profile answers for base models that need one: us, global, …"""
NEEDS_PROFILE = ("amazon.nova-2-", "meta.llama3-2-", "meta.llama3-3-")
"""Base models that answer only through a profile in the regions that can tune them.

Source: docs.aws.amazon.com, Amazon Nova 2 developer guide, Core inference, read 2026-11-25; for
Llama, Bedrock's model cards as copied in public repositories, read 2026-11-25.
"""
VARIANT = re.compile(r"^([a-z0-9-]+\.[a-z0-9.-]+:\d+):\d+k$")
"""A base model's name for tuning ends in the length of its context; by that it does not answer."""
FINISHES = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}
NO_ARGUMENTS: JsonValue = {"type": "object", "properties": {}}


class BedrockChatModel(ChatModel):
    """A model that answers one request at a time.

    Args:
        clients: How it is reached.
        model_id: What Converse calls it.
        fingerprint: Of the model that answers, whatever deployment it stands behind.
    """

    def __init__(self, clients: Clients, model_id: str, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._runtime = clients.runtime
        self._model_id = model_id
        self._threads: ThreadPoolExecutor | None = None

    async def reply(self, request: Request) -> Reply:
        """Answer one request; a failure is in the reply's `error`."""
        loop = asyncio.get_running_loop()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(CHAT_THREADS, thread_name_prefix="bedrock")
        return await loop.run_in_executor(self._threads, self._reply, request)

    async def aclose(self) -> None:
        """End the threads; the connections belong to all models."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)

    def _reply(self, request: Request) -> Reply:
        try:
            question = converse_request(self._model_id, request)
        except (KeyError, ValueError) as problem:
            words = f"{self._model_id} cannot be asked this: {problem}"
            return Reply(error=words, finish_reason="error")
        started = time.perf_counter()
        try:
            with our_errors(f"ask {self._model_id}"):
                answer = self._runtime.converse(**question)
        except UnituneError as error:
            return Reply.failed(error, time.perf_counter() - started)
        return _read(answer, time.perf_counter() - started)


def answering_id(base: str) -> str:
    """Return the name by which a base model answers.

    Args:
        base: Its name for tuning, or any other that Converse takes.
    """
    base = own_name(base)
    found = VARIANT.match(base)
    if found is None:
        return base
    profile = os.environ.get(PROFILE, "us" if base.startswith(NEEDS_PROFILE) else "")
    return f"{profile}.{found[1]}" if profile else found[1]


def converse_request(model_id: str, request: Request) -> ConverseRequestTypeDef:
    """Return a request as Converse takes it; a seed has no place there.

    Args:
        model_id: What Converse calls the model.
        request: In canonical form.

    Raises:
        ValueError: A tool call's arguments are no JSON.
        KeyError: A tool or tool call lacks a part.
    """
    turns = [one for one in request.messages if one.role not in ("system", "developer")]
    system = [one.text for one in request.messages if one.role in ("system", "developer")]
    asked: ConverseRequestTypeDef = {
        "modelId": model_id,
        "messages": _turns(turns),
        "inferenceConfig": {"maxTokens": request.max_tokens, "temperature": request.temperature},
    }
    if any(system):
        asked["system"] = [{"text": text} for text in system if text]
    if request.stop:
        asked["inferenceConfig"] = {
            **asked["inferenceConfig"],
            "stopSequences": list(request.stop),
        }
    if request.tools:
        asked["toolConfig"] = {"tools": [_tool(tool) for tool in request.tools]}
    return asked


def _turns(messages: list[Message]) -> list[MessageTypeDef]:
    """Return messages in which user and assistant take turns, as Converse insists."""
    turns: list[MessageTypeDef] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = list(_blocks(message))
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] = [*turns[-1]["content"], *blocks]
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return turns


def _blocks(message: Message) -> Iterator[ContentBlockTypeDef]:
    if message.role == "tool":
        result: Any = {"toolUseId": message.tool_call_id or "", "content": [{"text": message.text}]}
        yield {"toolResult": result}
        return
    if message.text:
        yield {"text": message.text}
    for call in message.tool_calls or ():
        function = cast("Mapping[str, Any]", call["function"])
        use: Any = {
            "toolUseId": call["id"],
            "name": function["name"],
            "input": json.loads(function["arguments"] or "{}"),
        }
        yield {"toolUse": use}


def _tool(tool: Mapping[str, JsonValue]) -> ToolTypeDef:
    function = cast("Mapping[str, Any]", tool["function"])
    schema = cast("JsonValue", function.get("parameters") or NO_ARGUMENTS)
    spec: Any = {"name": function["name"], "inputSchema": {"json": schema}}
    if function.get("description"):
        spec["description"] = function["description"]
    return {"toolSpec": spec}


def _read(answer: ConverseResponseTypeDef, seconds: float) -> Reply:
    usage = answer["usage"]
    blocks = answer["output"].get("message", {}).get("content", [])
    word: str = answer["stopReason"]
    return Reply(
        text="".join(block.get("text", "") for block in blocks),
        finish_reason=FINISHES.get(word, word),
        prompt_tokens=usage.get("inputTokens"),
        completion_tokens=usage.get("outputTokens"),
        thought=any("reasoningContent" in block for block in blocks),
        seconds=seconds,
        tool_calls=tuple(
            function_call(use["name"], cast("JsonValue", use["input"]), use["toolUseId"])
            for block in blocks
            if (use := block.get("toolUse"))
        )
        or None,
    )
