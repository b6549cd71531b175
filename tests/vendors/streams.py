"""Answers in pieces, as vendors stream them: a word at a time, made from the whole answer.

Sources: openai/openai-openapi 2.3.0, CreateChatCompletionStreamResponse; anthropic 2.14.0,
types/raw_message_stream_event.py; google-genai 3.6.1, which reads `streamGenerateContent`; botocore
1.44, service-2.json of bedrock-runtime, ConverseStreamOutput, and eventstream.py for the encoding.
"""

from __future__ import annotations

import json
import re
import struct
from binascii import crc32
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from pydantic import JsonValue

from unitune.testing.loopback import VendorResponse

EVENTS = {"Content-Type": "text/event-stream; charset=utf-8"}


def pieces(text: str) -> list[str]:
    """Return words with the spaces before them."""
    return re.findall(r"\s*\S+", text)


def server_sent(events: Iterable[Mapping[str, Any]], *, last: str = "") -> VendorResponse:
    """Return events as a body; each is named by its `type`, where it has one."""
    lines = [
        (f"event: {event['type']}\n" if "type" in event else "") + f"data: {json.dumps(event)}\n\n"
        for event in events
    ]
    return VendorResponse("".join([*lines, last]).encode(), headers=EVENTS)


def completion(body: Mapping[str, Any], whole: JsonValue) -> VendorResponse:
    """Return a chat completion in chunks, its usage where the request wants it."""
    answer = cast("dict[str, Any]", whole)
    choice, message = answer["choices"][0], answer["choices"][0]["message"]
    same = {
        "id": answer["id"],
        "object": "chat.completion.chunk",
        "created": answer["created"],
        "model": answer["model"],
    }
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": piece} for piece in pieces(message["content"] or "")]
    deltas += [{"refusal": piece} for piece in pieces(message.get("refusal") or "")]
    ends = [None] * len(deltas) + [choice["finish_reason"]]
    chunks = [
        {**same, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
        for delta, end in zip([*deltas, {}], ends, strict=True)
    ]
    if body.get("stream_options") == {"include_usage": True}:
        chunks.append({**same, "choices": [], "usage": answer["usage"]})
    return server_sent(chunks, last="data: [DONE]\n\n")


def message(answer: Mapping[str, Any]) -> VendorResponse:
    """Return a message of Anthropic's as events."""
    usage = answer["usage"]
    ends = {name: answer[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    nothing: dict[str, Any] = {"content": [], **dict.fromkeys(ends)}
    begun = {**answer, **nothing, "usage": {**usage, "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}, {"type": "ping"}]
    for index, block in enumerate(answer["content"]):
        at = {"index": index}
        empty = {"type": "text", "text": ""}
        events.append({"type": "content_block_start", **at, "content_block": empty})
        for piece in pieces(block["text"]):
            delta = {"type": "text_delta", "text": piece}
            events.append({"type": "content_block_delta", **at, "delta": delta})
        events.append({"type": "content_block_stop", **at})
    counted = {"output_tokens": usage["output_tokens"]}
    events.append({"type": "message_delta", "delta": ends, "usage": counted})
    return server_sent([*events, {"type": "message_stop"}])


def content(whole: JsonValue) -> VendorResponse:
    """Return an answer of Gemini's as events; all count, and the last says how it ended."""
    answer = cast("dict[str, Any]", whole)
    candidate = answer["candidates"][0]
    texts = [piece for part in candidate["content"]["parts"] for piece in pieces(part["text"])]
    events = [
        {
            **answer,
            "candidates": [
                {
                    "index": 0,
                    "content": {"role": "model", "parts": [{"text": text}]},
                    **({"finishReason": candidate["finishReason"]} if last else {}),
                }
            ],
        }
        for text, last in zip(texts, [False] * (len(texts) - 1) + [True], strict=True)
    ]
    return server_sent(events)


def converse(whole: JsonValue) -> VendorResponse:
    """Return a response of Converse as ConverseStream gives it."""
    answer = cast("dict[str, Any]", whole)

    def events() -> Iterator[tuple[str, dict[str, Any]]]:
        yield "messageStart", {"role": "assistant"}
        for index, block in enumerate(answer["output"]["message"]["content"]):
            for piece in pieces(block["text"]):
                delta = {"contentBlockIndex": index, "delta": {"text": piece}}
                yield "contentBlockDelta", delta
            yield "contentBlockStop", {"contentBlockIndex": index}
        yield "messageStop", {"stopReason": answer["stopReason"]}
        yield "metadata", {"usage": answer["usage"], "metrics": answer["metrics"]}

    body = b"".join(_aws_event(name, content) for name, content in events())
    return VendorResponse(body, headers={"Content-Type": "application/vnd.amazon.eventstream"})


def _aws_event(name: str, content: Mapping[str, Any]) -> bytes:
    """Return a message of AWS's event stream: lengths, headers, payload, and their checksums."""
    given = {
        ":message-type": "event",
        ":event-type": name,
        ":content-type": "application/json",
    }
    headers = b"".join(
        bytes([len(key)]) + key.encode() + b"\x07" + struct.pack("!H", len(text)) + text.encode()
        for key, text in given.items()
    )
    payload = json.dumps(content).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    checked = prelude + struct.pack("!I", crc32(prelude)) + headers + payload
    return checked + struct.pack("!I", crc32(checked))
