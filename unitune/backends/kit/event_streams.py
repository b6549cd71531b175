"""Read server-sent events and assemble streamed answers.

A streamed answer becomes the body that the request would have had without streaming, so one reader
per API reads both.

Source: WHATWG HTML, 9.2.6 Interpreting an event stream; openai/openai-openapi 2.3.0,
CreateChatCompletionStreamResponse.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from operator import itemgetter
from typing import Protocol, cast

from pydantic import JsonValue

from unitune.backends.kit.chat_completions import THOUGHTS, content_text
from unitune.security.json_fields import Fields, read_json

EVENT_STREAM = "text/event-stream"
DONE = "[DONE]"  # last event of a stream in OpenAI's format; not JSON


class StreamedAnswer(Protocol):
    """A streamed answer."""

    ended: bool  # whether the last event was received

    def add(self, event: Fields) -> str:
        """Add the next event and return its text."""
        ...

    def whole(self) -> object:
        """Return the events in the form of an answer that was not streamed."""
        ...


async def json_events(pieces: AsyncIterable[bytes]) -> AsyncGenerator[Fields]:
    """Yield the JSON objects of an event stream; raise `Unreadable` if one is not JSON."""
    data: list[str] = []
    async for line in _lines(pieces):
        if line:
            name, _, value = line.partition(":")
            data += [value.removeprefix(" ")] if name == "data" else []
            continue
        text, data = "\n".join(data), []
        if text and text.strip() != DONE:
            yield Fields(read_json(text))


async def _lines(pieces: AsyncIterable[bytes]) -> AsyncGenerator[str]:
    """Yield lines without their ends (LF, or CR LF), and an empty one after the last."""
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode(errors="replace")
    yield rest.decode(errors="replace")
    yield ""


class StreamedCompletion:
    """A streamed chat completion."""

    def __init__(self) -> None:
        self.ended = False
        self._message: dict[str, JsonValue] = {"role": "assistant", "content": None}
        self._calls: list[tuple[int, dict[str, JsonValue]]] = []
        self._finish: str | None = None
        self._error: JsonValue = None
        self._usage: JsonValue = None

    def add(self, event: Fields) -> str:
        self._usage = event.all.get("usage") or self._usage
        choices = (each for each in event.items("choices") if not each.whole("index"))
        choice = next(choices, Fields(None))
        self._error = choice.all.get("error") or self._error
        delta = choice.fields("delta")
        self._finish = choice.text("finish_reason") or self._finish
        self.ended = self._finish is not None
        for name in ("refusal", *THOUGHTS):
            self._append(name, delta.text(name))
        for call in delta.items("tool_calls"):
            self._add_call(call)
        text = content_text(delta) or ""
        self._append("content", text)
        return text or ("" if self._message["content"] else delta.text("refusal") or "")

    def whole(self) -> object:
        calls = [call for _, call in sorted(self._calls, key=itemgetter(0))]
        message = {**self._message, **({"tool_calls": calls} if calls else {})}
        choice = {
            "index": 0, "message": message, "finish_reason": self._finish, "error": self._error
        }  # fmt: skip
        return {"choices": [choice], "usage": self._usage}

    def _append(self, name: str, text: str | None) -> None:
        if text:
            self._message[name] = cast("str", self._message.get(name) or "") + text

    def _add_call(self, piece: Fields) -> None:
        """Add a piece of a call: its name comes first, its arguments bit by bit.

        A piece with a name and a new id begins another call, even if servers number every call 0,
        as older versions of Ollama do.
        """
        index, name, new = piece.whole("index") or 0, piece.text("id"), piece.fields("function")
        call = next((each for at, each in reversed(self._calls) if at == index), None)
        if call is None or (name and new.text("name") and call.get("id", name) != name):
            call: dict[str, JsonValue] | None = {"type": "function", "function": {}}
            self._calls.append((index, call))
        if name:
            call.setdefault("id", name)
        function = cast("dict[str, str]", call["function"])
        for part in ("name", "arguments"):
            function[part] = function.get(part, "") + (new.text(part) or "")
