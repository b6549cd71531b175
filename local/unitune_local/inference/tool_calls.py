"""Read tool calls in the text of an answer.

A local model writes calls as its chat template does. Two forms are read: JSON between
``<tool_call>`` and ``</tool_call>`` (Hermes, Qwen, SmolLM3), and an answer that consists of such an
object (Llama 3).

Sources: huggingface.co/docs/transformers, chat templates of Qwen2.5, Qwen3 and Llama 3.2
(2026-11-28).
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic import JsonValue

from unitune.models import ToolCalls, function_call

OPEN = "<tool_call>"
BLOCK = re.compile(rf"{OPEN}\s*(.*?)\s*</tool_call>", re.DOTALL)
ARGUMENTS = ("arguments", "parameters")  # the latter in Llama 3

Tools = Sequence[dict[str, JsonValue]]


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """Text of an answer, and its tool calls."""

    text: str
    calls: ToolCalls = ()


def read_calls(text: str, tools: Tools) -> ToolAnswer:
    """Separate an answer's calls from its text, if all of them call these tools."""
    if not tools:
        return ToolAnswer(text)
    blocks = BLOCK.findall(text)
    calls = [_call(block, tools) for block in blocks or [text]]
    if not all(calls):
        return ToolAnswer(text)
    rest = text[: text.index(OPEN)].rstrip() if blocks else ""
    return ToolAnswer(rest, tuple(call for call in calls if call))


def call_begins(text: str) -> int:
    """Return where a call begins or may begin in a growing answer, or its length."""
    if text.lstrip().startswith("{"):
        return 0
    place = text.find(OPEN)
    if place < 0:
        begun = (size for size in range(len(OPEN) - 1, 0, -1) if text.endswith(OPEN[:size]))
        place = len(text) - next(begun, 0)
    return len(text[:place].rstrip())


def _call(text: str, tools: Tools) -> dict[str, JsonValue] | None:
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    names = [cast("Any", tool.get("function") or {}).get("name") for tool in tools]
    if not isinstance(content, dict):
        return None
    call = cast("dict[str, JsonValue]", content)
    name = call.get("name")
    given = next((call[key] for key in ARGUMENTS if key in call), "")
    if not isinstance(name, str) or name not in names or not isinstance(given, dict | str):
        return None
    return function_call(name, given, f"call_{secrets.token_hex(12)}")
