"""What is wrong with the tool calls of a row: no function, broken arguments, or no such tool."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from pydantic import JsonValue

from unitune.data.example import Example
from unitune.data.records import strict_json
from unitune.findings import Finding, clip, error, warning

_WRITE = (
    'Write {"id": "1", "type": "function", "function": {"name": …, "arguments": "{…}"}}, the '
    "arguments as an object in JSON text."
)


def tool_findings(example: Example) -> Iterator[Finding]:
    """Yield what is wrong with the calls of an example, each with its place in the row."""
    declared = [_function(tool).get("name") for tool in example.tools or ()]
    for at, message in enumerate(chain(example.messages, example.non_preferred_output or ())):
        for number, call in enumerate(message.tool_calls or ()):
            place = f"messages[{at}].tool_calls[{number}]"
            function = _function(call)
            name, arguments = function.get("name"), function.get("arguments", "{}")
            if not isinstance(name, str) or not name:
                yield error("broken-call", f"{place} names no function.", _WRITE)
            elif not _is_object(arguments):
                what = f"the arguments of {place}, {name!r}, are no object in JSON: "
                yield error("broken-call", f"{what}{clip(str(arguments))}.", _WRITE)
            elif declared and name not in declared:
                yield warning(
                    "undeclared-tool",
                    f"{place} calls {name!r}, which is none of the row's tools.",
                    "Declare it under `tools`, or correct the name: a model learns to call it.",
                )


def _function(entry: dict[str, JsonValue]) -> dict[str, JsonValue]:
    function = entry.get("function")
    return function if isinstance(function, dict) else {}


def _is_object(arguments: JsonValue) -> bool:
    if not isinstance(arguments, str):
        return isinstance(arguments, dict)
    try:
        value, _ = strict_json(arguments or "{}")
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)
