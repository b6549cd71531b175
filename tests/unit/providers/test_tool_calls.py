"""Whatever a vendor calls a tool call, the reply has it in OpenAI's form."""

from __future__ import annotations

from typing import Any

import pytest

from unitune.models import Reply, function_call
from unitune.security.json_fields import Fields

ARGUMENTS = {"city": "Zürich", "days": 2}


def completions() -> Reply:
    from unitune.backends.kit.chat_completions import read_reply  # noqa: PLC0415

    call = {"id": "c1", "type": "function", "function": _function()}
    custom = {"id": "c2", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call, custom]}
    return read_reply(_completion(message), 1.0)


def anthropic() -> Reply:
    from unitune_providers.anthropic import read_answer  # noqa: PLC0415

    block = {"type": "tool_use", "id": "c1", "name": "weather", "input": ARGUMENTS}
    reply = read_answer(Fields({"content": [block], "stop_reason": "tool_use"}))
    assert reply is not None
    return reply


def bedrock() -> Reply:
    from unitune_providers.bedrock.chat import read_reply  # noqa: PLC0415

    block = {"toolUse": {"toolUseId": "c1", "name": "weather", "input": ARGUMENTS}}
    answer: Any = {
        "output": {"message": {"role": "assistant", "content": [block]}},
        "stopReason": "tool_use",
        "usage": {"inputTokens": 1, "outputTokens": 1},
    }
    reply = read_reply(Fields(answer), 1.0)
    assert reply is not None
    return reply


def vertex() -> Reply:
    from unitune_providers.vertex.chat import read_answer  # noqa: PLC0415

    call = {"id": "c1", "name": "weather", "args": ARGUMENTS}
    content = {"role": "model", "parts": [{"functionCall": call}]}
    reply = read_answer(Fields({"candidates": [{"content": content, "finishReason": "STOP"}]}))
    assert reply is not None
    return reply


def _function() -> dict[str, str]:
    return {"name": "weather", "arguments": '{"city": "Zürich", "days": 2}'}


def _completion(message: dict[str, Any]) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "tool_calls", "logprobs": None, "message": message}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
    }


@pytest.mark.parametrize("vendor", [completions, anthropic, bedrock, vertex])
def test_a_call_is_read_in_openais_form(vendor: Any) -> None:
    reply = vendor()
    assert reply.tool_calls == (function_call("weather", ARGUMENTS, "c1"),)
    assert not reply.text
    assert reply.error is None
