"""Bodies that several vendors' doubles read or give: forms, messages, chat completions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from email import message_from_bytes
from email.policy import HTTP
from typing import Any, NamedTuple

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest


class FormPart(NamedTuple):
    """A part of a multipart form; only files have a name."""

    filename: str
    content: bytes


def form_parts(request: VendorRequest) -> dict[str, FormPart]:
    """Return the parts of a multipart form, by name."""
    head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
    message = message_from_bytes(head + request.body, policy=HTTP)
    return {
        str(part.get_param("name", header="content-disposition")): FormPart(
            part.get_filename() or "", bytes(part.get_payload(decode=True))
        )
        for part in message.iter_parts()
    }


def text_of(content: str | Sequence[Mapping[str, Any]] | None) -> str:
    """Return the text of a message's content, which may come in parts."""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content or ())


def last_question(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of the user's last message; empty where there is none."""
    contents = [message.get("content") for message in messages if message.get("role") == "user"]
    return text_of(contents[-1]) if contents else ""


def chat_completion(body: Mapping[str, Any], text: str) -> JsonValue:
    """Return a chat completion on OpenAI's wire, cut at the request's limit; a word is a token."""
    words = text.split()
    limit = body.get("max_tokens") or body.get("max_completion_tokens") or len(words)
    prompt_tokens = sum(len(text_of(each.get("content")).split()) for each in body["messages"])
    choice: JsonValue = {
        "index": 0,
        "finish_reason": "length" if len(words) > limit else "stop",
        "message": {"role": "assistant", "content": " ".join(words[:limit])},
    }
    counts = {"prompt_tokens": prompt_tokens, "completion_tokens": min(len(words), limit)}
    return {
        "id": "chat-1",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [choice],
        "usage": {**counts, "total_tokens": sum(counts.values())},
    }
