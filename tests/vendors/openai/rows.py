"""What OpenAI accepts as training rows: a check of a whole file, as its validation would make it.

The published description (2.3.0) has no schemas of rows, so these follow the documentation: chat
rows with messages and tools, preference triples, and reinforcement rows with keys of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, cast

from vendors.bodies import text_of

LEAST_ROWS = 10
KINDS = ("jpeg", "png", "webp")
IMAGE_TOKENS = 425  # of an image of up to 1024 x 512 in detail
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
CHAT_KEYS = {"messages", "tools", "parallel_tool_calls", "functions"}
INPUT_KEYS = {"messages", "tools", "parallel_tool_calls"}
TRIPLE_KEYS = {"input", "preferred_output", "non_preferred_output"}
MESSAGE_KEYS = {"role", "content", "name", "tool_calls", "tool_call_id", "weight", "refusal"}

Row = dict[str, Any]
Problems = Iterator[str]


def problem_in(content: bytes, method: str, least: int = LEAST_ROWS) -> str | None:
    """Return the first thing that is wrong with a file, in the vendor's manner; None if nothing."""
    lines = [line for line in content.decode("utf-8", "replace").splitlines() if line.strip()]
    if len(lines) < least:
        return f"Training file has {len(lines)} example(s), but must have at least {least} examples"
    for number, line in enumerate(lines, start=1):
        problem = _problem_in_line(line, CHECKS[method])
        if problem is not None:
            return f"Invalid file format. Line {number}: {problem}"
    return None


def rows_and_tokens(content: bytes) -> tuple[int, int]:
    """Return the rows of a file, and its tokens at four bytes each, three around a message."""
    lines = [line for line in content.decode("utf-8", "replace").splitlines() if line.strip()]
    messages = [_messages_in(line) for line in lines]
    contents = [message.get("content") or "" for row in messages for message in row]
    texts = [text_of(content) for content in contents]
    images = sum('"image_url"' in json.dumps(part) for each in contents for part in each)
    around = 3 * sum(map(len, messages)) + IMAGE_TOKENS * images
    return len(lines), around + sum((len(text.encode()) + 3) // 4 for text in texts)


def _messages_in(line: str) -> list[Row]:
    """Return all messages of a row, of whatever method; none where it is no row."""
    try:
        row = cast("Row", json.loads(line))
        parts = [*row.get("messages", ()), *row.get("input", {}).get("messages", ())]
        parts += [*row.get("preferred_output", ()), *row.get("non_preferred_output", ())]
        return [message for message in parts if isinstance(message, dict)]
    except (ValueError, AttributeError, TypeError):
        return []


def _problem_in_line(line: str, check: Callable[[Row], Problems]) -> str | None:
    try:
        row = json.loads(line)
    except ValueError:
        return "not valid JSON"
    if not isinstance(row, dict):
        return "not a JSON object"
    return next(check(cast("Row", row)), None)


def _chat(row: Row) -> Problems:
    yield from _unknown(row, CHAT_KEYS)
    yield from _conversation(row)
    last = row["messages"][-1]
    if last["role"] != "assistant":
        yield "last message must be from the assistant"


def _triple(row: Row) -> Problems:
    yield from _unknown(row, TRIPLE_KEYS)
    if not isinstance(row.get("input"), dict):
        yield "missing input"
    yield from _unknown(row["input"], INPUT_KEYS)
    yield from _conversation(row["input"])
    for key in ("preferred_output", "non_preferred_output"):
        outputs = row.get(key)
        if not isinstance(outputs, list) or not outputs:
            yield f"missing {key}"
        for message in cast("list[Row]", outputs):
            yield from _message(message)
            if message["role"] != "assistant":
                yield f"{key} must be from the assistant"


def _reinforcement(row: Row) -> Problems:
    yield from _conversation(row)
    if row["messages"][-1]["role"] != "user":
        yield "last message must be from the user"


def _conversation(row: Row) -> Problems:
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        yield "missing messages"
    for message in cast("list[Any]", messages):
        yield from _message(message)
    tools = row.get("tools", [])
    if not isinstance(tools, list) or not all(_is_tool(tool) for tool in cast("list[Any]", tools)):
        yield "tools must be functions"


def _message(message: Any) -> Problems:
    if not isinstance(message, dict):
        yield "a message is not an object"
    message = cast("Row", message)
    yield from _unknown(message, MESSAGE_KEYS)
    role = message.get("role")
    if role not in ROLES:
        yield f"unknown role {role!r}"
    content = message.get("content")
    if content is None and not (role == "assistant" and message.get("tool_calls")):
        yield f"{role} message without content"
    if not (content is None or isinstance(content, str | list)):
        yield "content must be text or parts"
    for part in cast("list[Any]", content) if isinstance(content, list) else ():
        yield from _part(part, role)
    if "weight" in message and (role != "assistant" or message["weight"] not in (0, 1)):
        yield "weight must be 0 or 1, on an assistant message"
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        yield "tool message without tool_call_id"


def _part(part: Any, role: object) -> Problems:
    """Yield what the guide to vision fine-tuning does not allow."""
    part = cast("Row", part) if isinstance(part, dict) else {}
    if part.get("type") not in ("text", "image_url"):
        yield "a part is neither text nor image_url"
    if part["type"] == "text":
        return
    image = cast("Row", part["image_url"])
    yield from _unknown(image, {"url", "detail"})
    if role != "user":
        yield "only user messages may have images"
    if not image["url"].startswith(("https://", *(f"data:image/{kind};base64," for kind in KINDS))):
        yield "an image is neither embedded nor at an address"


def _is_tool(tool: Any) -> bool:
    return isinstance(tool, dict) and cast("Row", tool).get("type") == "function"


def _unknown(row: Row, known: set[str]) -> Problems:
    for key in row.keys() - known:
        yield f"unexpected key {key!r}"


CHECKS: dict[str, Callable[[Row], Problems]] = {
    "supervised": _chat,
    "dpo": _triple,
    "reinforcement": _reinforcement,
}
"""By method; each yields what is wrong, the worst first, and no more is read after that."""
