"""Claude, to be asked: a baseline or judge beside what is tuned elsewhere.

Anthropic tunes no models, so every verb of a training refuses, with the dated reason that stands in
the offer (``anthropic.yaml``). Questions go through the SDK's async client, which belongs to the
event loop in which it is first used; a loop that ends closes it.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn, cast

import anthropic
from anthropic import AsyncAnthropic, omit
from anthropic.types import Message as Answer
from anthropic.types import MessageParam, ToolParam
from pydantic import JsonValue

from unitune import registry
from unitune.backend import Guarantee, Launch
from unitune.data.example import Message
from unitune.errors import BackendError, UnituneError, Unreachable, Unsupported, UserError
from unitune.models import ChatModel, Reply, Request, TunedModel

NAME = "anthropic"
ANSWER_SECONDS = 300.0
"""Longest wait for one answer."""
SECRETS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
RETRIES = 4
"""Repeats of one question, after 408, 409, 429, 5xx or no answer."""
FINISHES = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}
ADVICE = {
    401: "Check ANTHROPIC_API_KEY.",
    404: "Check the model's name; `claude-` and what docs.claude.com lists.",
    429: "Wait, or raise the limit at Anthropic.",
}
"""What to do next, by status."""
NO_ARGUMENTS: JsonValue = {"type": "object", "properties": {}}


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
            raise UserError("Claude cannot be asked without a key. Set ANTHROPIC_API_KEY.")
        return ClaudeChatModel(model)


class ClaudeChatModel:
    """A Claude that answers one request at a time.

    Args:
        model: Anthropic's name of it.
    """

    def __init__(self, model: str) -> None:
        self.fingerprint = f"{NAME}:{model}"
        self._model = model
        self._takes_temperature = True
        self._clients: dict[asyncio.AbstractEventLoop, AsyncAnthropic] = {}
        self._held: dict[asyncio.AbstractEventLoop, AsyncGenerator[AsyncAnthropic]] = {}

    async def reply(self, request: Request) -> Reply:
        """Answer one request; a failure is in the reply's `error`."""
        started = time.perf_counter()
        try:
            answer = await self._ask(request)
        except (KeyError, ValueError) as problem:
            return _failed(f"{self._model} cannot be asked this: {problem}", started)
        except anthropic.AnthropicError as error:
            return _failed(str(ours(error, f"ask {self._model}")), started)
        return _read(answer, time.perf_counter() - started)

    def close(self) -> None:
        """Close what is open in loops that rest; one that runs or has ended closes its own."""
        # A loop that runs may be about to end, and would cut a closing short that begins now.
        for loop in [loop for loop in self._held if not loop.is_running()]:
            held = self._held.pop(loop)
            del self._clients[loop]
            if not loop.is_closed():
                loop.run_until_complete(held.aclose())

    async def _ask(self, request: Request) -> Answer:
        warm = self._takes_temperature
        try:
            return await self._send(request, warm=warm)
        except anthropic.BadRequestError as error:
            # Claude 4.7 and later refuse any temperature but their own ("`temperature` is
            # deprecated for this model"); which do is not told before.
            if not warm or "temperature" not in error.message:
                raise
            self._takes_temperature = False
        return await self._send(request, warm=False)

    async def _send(self, request: Request, *, warm: bool) -> Answer:
        client = await self._client()
        system = "\n\n".join(_system(request.messages))
        return await client.messages.create(
            model=self._model,
            max_tokens=request.max_tokens,
            messages=turns(request.messages),
            system=system or omit,
            stop_sequences=list(request.stop) or omit,
            tools=[_tool(tool) for tool in request.tools] if request.tools else omit,
            # The SDK has no name for it since newer models take none; older ones still do.
            extra_body={"temperature": request.temperature} if warm else None,
        )

    async def _client(self) -> AsyncAnthropic:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            held = _held_client()
            self._clients[loop] = await anext(held)
            self._held[loop] = held
        return self._clients[loop]


def new_client() -> AsyncAnthropic:
    """Return a client with the key, address and proxy that the environment names."""
    return AsyncAnthropic(timeout=ANSWER_SECONDS, max_retries=RETRIES)


def ours(error: anthropic.AnthropicError, doing: str) -> UnituneError:
    """Return our error for one of the SDK's; the one place where they are known.

    Args:
        error: As the SDK raised it.
        doing: What was being done, as in "Anthropic could not DOING".
    """
    who = f"Anthropic could not {doing}"
    if isinstance(error, anthropic.APIStatusError):
        status, advice = error.status_code, ADVICE.get(error.status_code, "")
        words = f"{who}: {_said(error)} (HTTP {status}).{' ' + advice if advice else ''}"
        return BackendError(words, status=status, request_id=error.request_id)
    if isinstance(error, anthropic.APITimeoutError):
        return Unreachable(f"{who}: no answer in time.")
    if isinstance(error, anthropic.APIConnectionError | anthropic.APIResponseValidationError):
        reason = type(error.__cause__ or error).__name__
        return Unreachable(f"{who}: no whole answer ({reason}).")
    return UserError(f"{who}: {error}. Set ANTHROPIC_API_KEY.")


def turns(messages: Sequence[Message]) -> list[MessageParam]:
    """Return the messages that are no system prompt, as Anthropic takes them.

    Args:
        messages: In canonical form.

    Raises:
        ValueError: A tool call's arguments are no JSON.
        KeyError: A tool call lacks a part.
    """
    taken = [
        {
            "role": "assistant" if message.role == "assistant" else "user",
            "content": list(_blocks(message)),
        }
        for message in messages
        if message.role not in ("system", "developer")
    ]
    return cast("list[MessageParam]", taken)


def _refuse(doing: str) -> NoReturn:
    reason = registry.offer(NAME).refusal(NAME)
    raise Unsupported(f"{NAME} cannot {doing}: {reason}")


async def _held_client() -> AsyncGenerator[AsyncAnthropic]:
    client = new_client()
    try:
        yield client
    finally:
        await client.close()


def _system(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        if message.role in ("system", "developer") and message.text:
            yield message.text


def _blocks(message: Message) -> Iterator[dict[str, JsonValue]]:
    if message.role == "tool":
        called = message.tool_call_id or ""
        yield {"type": "tool_result", "tool_use_id": called, "content": message.text}
        return
    if message.text:
        yield {"type": "text", "text": message.text}
    for call in message.tool_calls or ():
        function = cast("Mapping[str, Any]", call["function"])
        arguments = json.loads(function["arguments"] or "{}")
        yield {
            "type": "tool_use",
            "id": call["id"],
            "name": function["name"],
            "input": arguments,
        }


def _tool(tool: Mapping[str, JsonValue]) -> ToolParam:
    function = cast("Mapping[str, Any]", tool["function"])
    schema = cast("Any", function.get("parameters") or NO_ARGUMENTS)
    taken: ToolParam = {"name": function["name"], "input_schema": schema}
    if function.get("description"):
        taken["description"] = function["description"]
    return taken


def _read(answer: Answer, seconds: float) -> Reply:
    usage, word = answer.usage, answer.stop_reason or "end_turn"
    text = "".join(block.text for block in answer.content if block.type == "text")
    if word == "refusal" and not text and answer.stop_details is not None:
        text = answer.stop_details.explanation or ""
    cached = (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
    return Reply(
        text=text,
        finish_reason=FINISHES.get(word, word),
        prompt_tokens=usage.input_tokens + cached,
        completion_tokens=usage.output_tokens,
        seconds=seconds,
    )


def _failed(words: str, started: float) -> Reply:
    return Reply(error=words, finish_reason="error", seconds=time.perf_counter() - started)


def _said(error: anthropic.APIStatusError) -> str:
    """Return Anthropic's own words; its errors are ``{error: {type, message}}``."""
    body: Any = error.body
    try:
        words = body["error"]["message"]
    except (KeyError, TypeError):
        words = error.message
    # In case that a gateway repeats a key:
    for secret in filter(None, map(os.environ.get, SECRETS)):
        words = str(words).replace(secret, "***")
    return str(words).rstrip(". ")
