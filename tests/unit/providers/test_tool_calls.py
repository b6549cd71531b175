"""Whatever a vendor calls a tool call, the reply has it in OpenAI's form."""

from __future__ import annotations

from typing import Any

import pytest

from unitune.models import Reply, function_call

ARGUMENTS = {"city": "Zürich", "days": 2}


def completions() -> Reply:
    from unitune.backends.kit.chat_completions import read_reply  # noqa: PLC0415

    call = {"id": "c1", "type": "function", "function": _function()}
    custom = {"id": "c2", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call, custom]}
    return read_reply(_completion(message), 1.0)


def anthropic() -> Reply:
    from anthropic.types import Message  # noqa: PLC0415

    from unitune_providers.anthropic.chat import read_answer  # noqa: PLC0415

    block = {"type": "tool_use", "id": "c1", "name": "weather", "input": ARGUMENTS}
    answer = Message.model_validate(
        {
            "id": "m1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [block],
            "stop_reason": "tool_use",
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }
    )
    return read_answer(answer, 1.0)


def bedrock() -> Reply:
    from unitune_providers.bedrock.chat import _read  # noqa: PLC0415

    block = {"toolUse": {"toolUseId": "c1", "name": "weather", "input": ARGUMENTS}}
    answer: Any = {
        "output": {"message": {"role": "assistant", "content": [block]}},
        "stopReason": "tool_use",
        "usage": {"inputTokens": 1, "outputTokens": 1},
    }
    return _read(answer, 1.0)


def vertex() -> Reply:
    from google.genai import types  # noqa: PLC0415

    from unitune_providers.vertex.chat import read_answer  # noqa: PLC0415

    call = {"id": "c1", "name": "weather", "args": ARGUMENTS}
    content = {"role": "model", "parts": [{"functionCall": call}]}
    answer = {"candidates": [{"content": content, "finishReason": "STOP"}]}
    return read_answer(types.GenerateContentResponse.model_validate(answer), 1.0)


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
    assert (function_call("weather", ARGUMENTS, "c1"),) == reply.tool_calls
    assert not reply.text
    assert reply.error is None
