"""Chat completions at OpenAI: a scripted answer in the vendor's form, cut where it must be."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal, cast

from pydantic import JsonValue

from unitune_providers.loopback.openai.checks import Refused
from unitune_providers.loopback.openai.rows import ROLES

Finish = Literal["content_filter", "refusal"]
ARGUMENTS = {
    "model",
    "messages",
    "tools",
    "temperature",
    "seed",
    "stop",
    "max_tokens",
    "max_completion_tokens",
}


def completion(
    body: Mapping[str, Any],
    replies: Mapping[str, str],
    otherwise: str,
    finishes: Mapping[str, Finish],
) -> JsonValue:
    """Return the answer to a request.

    Args:
        body: Of the request.
        replies: Texts by the last user message.
        otherwise: Text where there is none.
        finishes: How an answer ends that is no plain one, by the last user message.

    Raises:
        Refused: The request is not what the vendor takes.
    """
    _check(body)
    question = _question(body["messages"])
    words = replies.get(question, otherwise).split(" ")
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    said = words[:limit] if limit else words
    ends: Finish | None = finishes.get(question)
    text = " ".join(said)
    asked = sum(len(str(message.get("content") or "").split()) for message in body["messages"])
    reason = "content_filter" if ends == "content_filter" else "stop"
    return {
        "id": "chatcmpl-loopback",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "finish_reason": "length" if len(said) < len(words) else reason,
                "message": {
                    "role": "assistant",
                    "content": None if ends else text,
                    "refusal": "I cannot help with that." if ends == "refusal" else None,
                },
                "logprobs": None,
            }
        ],
        "usage": {
            "prompt_tokens": asked,
            "completion_tokens": len(said),
            "total_tokens": asked + len(said),
        },
    }


def _check(body: Mapping[str, Any]) -> None:
    for name in sorted(body.keys() - ARGUMENTS):
        raise Refused(f"Unrecognized request argument supplied: {name}")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused("Invalid 'messages': empty array", param="messages")
    for message in cast("list[Any]", messages):
        if (
            not isinstance(message, dict)
            or cast("dict[str, Any]", message).get("role") not in ROLES
        ):
            raise Refused("Invalid value for 'messages.role'", param="messages")
    if not 0 <= body.get("temperature", 1) <= 2:
        raise Refused("Invalid 'temperature': 0 to 2", param="temperature")


def _question(messages: list[dict[str, Any]]) -> str:
    asked = [message.get("content") for message in messages if message["role"] == "user"]
    last = asked[-1] if asked else ""
    if isinstance(last, list):
        parts = cast("list[dict[str, Any]]", last)
        return "".join(str(part.get("text", "")) for part in parts)
    return str(last or "")
