"""Chat completions at OpenAI: a scripted answer in the vendor's form, cut where it must be.

Models that think (the o-series, and GPT-5 and later) take no temperature but their own and no
`max_tokens`, and spend tokens of the limit on what nobody sees.

Sources: openai/openai-openapi 2.3.0, CreateChatCompletionRequest; the refusals are quoted in public
issues (QwenLM/qwen-code 224, johny-b/llmcomp 69) and in OpenAI's forum.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from pydantic import JsonValue

from unitune.testing.vendor_setup import Refused
from vendors.bodies import last_question
from vendors.openai.rows import ROLES

Finish = Literal["content_filter", "refusal"]
ARGUMENTS = {
    "frequency_penalty",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "model",
    "n",
    "parallel_tool_calls",
    "presence_penalty",
    "reasoning_effort",
    "response_format",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
}
THINKING = re.compile(r"(ft:)?(o\d|gpt-[5-9])")
LIMITS = ("max_completion_tokens", "max_tokens")


@dataclass(frozen=True, slots=True)
class Manner:
    """How a model answers."""

    replies: Mapping[str, str]  # answers by the last user message
    otherwise: str  # any other answer
    # unusual ends of answers by the last user message
    finishes: Mapping[str, Finish]
    thinks: int | None = None  # hidden tokens before each answer; None: it does not think


def completion(body: Mapping[str, Any], manner: Manner) -> JsonValue:
    """Return the answer to a request."""
    _check(body, thinks=manner.thinks is not None)
    question = last_question(body["messages"])
    words = manner.replies.get(question, manner.otherwise).split(" ")
    limit = next((int(body[name]) for name in LIMITS if body.get(name) is not None), None)
    hidden = min(manner.thinks or 0, limit or manner.thinks or 0)
    answer_words = words if limit is None else words[: limit - hidden]
    ends = manner.finishes.get(question)
    prompt = sum(len(str(message.get("content") or "").split()) for message in body["messages"])
    reason = "content_filter" if ends == "content_filter" else "stop"
    return {
        "id": "chatcmpl-loopback",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "finish_reason": "length" if len(answer_words) < len(words) else reason,
                "message": {
                    "role": "assistant",
                    "content": None if ends else " ".join(answer_words),
                    "refusal": "I cannot help with that." if ends == "refusal" else None,
                },
                "logprobs": None,
            }
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": hidden + len(answer_words),
            "total_tokens": prompt + hidden + len(answer_words),
            "completion_tokens_details": {"reasoning_tokens": hidden},
        },
    }


def _check(body: Mapping[str, Any], *, thinks: bool) -> None:
    for name in sorted(body.keys() - ARGUMENTS):
        raise Refused(400, f"Unrecognized request argument supplied: {name}")
    _check_messages(body.get("messages"))
    _check_tools(body.get("tools", []))
    if thinks:
        _check_thinking(body)
    temperature = body.get("temperature", 1)
    if not isinstance(temperature, int | float) or not 0 <= temperature <= 2:
        raise Refused(400, "Invalid 'temperature': 0 to 2", param="temperature")
    for name in LIMITS:
        limit = body.get(name)
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            message = f"Invalid '{name}': integer below minimum value. Expected a value >= 1."
            raise Refused(400, message, code="integer_below_min_value", param=name)


def _check_thinking(body: Mapping[str, Any]) -> None:
    """Refuse what a model that thinks does not take."""
    if body.get("max_tokens") is not None:
        message = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead."
        )
        raise Refused(400, message, code="unsupported_parameter", param="max_tokens")
    temperature = body.get("temperature", 1)
    if temperature != 1:
        message = (
            f"Unsupported value: 'temperature' does not support {temperature:g} with this model. "
            "Only the default (1) value is supported."
        )
        raise Refused(400, message, code="unsupported_value", param="temperature")


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "Invalid 'messages': empty array", param="messages")
    for message in cast("list[Any]", messages):
        if (
            not isinstance(message, dict)
            or cast("dict[str, Any]", message).get("role") not in ROLES
        ):
            raise Refused(400, "Invalid value for 'messages.role'", param="messages")
    for open_calls in _unanswered(cast("list[dict[str, Any]]", messages)):
        raise Refused(
            400,
            "An assistant message with 'tool_calls' must be followed by tool messages responding "
            "to each 'tool_call_id'. The following tool_call_ids did not have response messages: "
            f"{', '.join(sorted(open_calls))}",
            param="messages",
        )


def _unanswered(messages: list[dict[str, Any]]) -> Iterator[set[str]]:
    """Yield the calls of tools that no message answers before another turn, or the end."""
    open_calls = set[str]()
    for message in messages:
        if message["role"] == "tool":
            open_calls.discard(str(message.get("tool_call_id")))
            continue
        if open_calls:
            yield open_calls
        open_calls = {str(call.get("id")) for call in message.get("tool_calls") or ()}
    if open_calls:
        yield open_calls


def _check_tools(tools: Any) -> None:
    if not isinstance(tools, list):
        raise Refused(400, "Invalid type for 'tools': expected an array", param="tools")
    for number, tool in enumerate(cast("list[Any]", tools)):
        given = cast("dict[str, Any]", tool) if isinstance(tool, dict) else {}
        if given.get("type") != "function":
            message = f"Invalid value for 'tools[{number}].type': supported is 'function'."
            raise Refused(400, message, param=f"tools[{number}].type")
        function = given.get("function")
        if not isinstance(function, dict) or not cast("dict[str, Any]", function).get("name"):
            message = f"Missing required parameter: 'tools[{number}].function.name'."
            raise Refused(400, message, param=f"tools[{number}].function.name")
