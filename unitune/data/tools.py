"""Run the tools that a model calls in a dialogue: the user's functions and recorded results.

A call without a result gets ``{"error": "…"}``, as a runtime would answer.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

from pydantic import JsonValue

from unitune.data.example import Example, Message, digest
from unitune.data.load import read_records
from unitune.errors import JobError
from unitune.findings import Finding
from unitune.job.dialogue import Dialogue, names_function
from unitune.scorers.functions import UserFunction
from unitune.scorers.trajectory import turns_after_question
from unitune.security.json_fields import whole_text
from unitune.text import clip

EMPTY_ARGUMENTS = "{}"


class ToolResult(NamedTuple):
    """Result of a tool call, as sent to the model."""

    content: str
    is_error: bool = False

    @classmethod
    def error(cls, why: str) -> Self:
        """Return an error as a runtime would."""
        return cls(json.dumps({"error": why[:1000]}, ensure_ascii=False), True)


@dataclass(frozen=True, slots=True)
class Tools:
    """Tools of a dialogue, ready to be called."""

    functions: Mapping[str, Callable[..., object]]
    recorded: Mapping[str, Mapping[str, str]]  # by tool and arguments
    fingerprint: str  # of the functions' files and the recorded results

    @classmethod
    def of(cls, dialogue: Dialogue, folder: Path) -> Self:
        """Return the tools of a job. Raises JobError like `check_tools`, and for failed imports."""
        check_tools(dialogue, folder)
        functions, recorded = dict[str, Callable[..., object]](), dict[str, dict[str, str]]()
        material: dict[str, JsonValue] = {}
        for name, source in dialogue.tools.items():
            if (function := _function(name, source, folder)) is not None:
                functions[name] = loaded = function.load()
                if inspect.iscoroutinefunction(loaded):
                    raise JobError(
                        f"the tool {name!r}: {source} is async. Name a function without async."
                    )
                material[name] = [source, function.source()]
            else:
                recorded[name] = _read_recorded(name, folder / source)
                material[name] = {**recorded[name]}
        return cls(functions, recorded, digest(material)[:16])

    def result(self, case: Example, call: Mapping[str, JsonValue]) -> ToolResult:
        """Return the result of a call in a case's dialogue."""
        named = _function_of(call)
        name, written = named.get("name", ""), named.get("arguments") or EMPTY_ARGUMENTS
        if (arguments := arguments_of(written)) is None:
            return ToolResult.error(f"the arguments are not a JSON object: {clip(written)}")
        if name in self.functions:
            return _called(self.functions[name], arguments)
        key = _key(arguments)
        for results in (self.recorded.get(name, {}), _results_in(case).get(name, {})):
            if key in results:
                return ToolResult(results[key])
        known = {*self.recorded, *_results_in(case), *_names(case.tools or ())}
        if name not in known:
            return ToolResult.error(f"unknown tool {name!r}")
        return ToolResult.error(f"no result is recorded for {name}({written})")


def check_tools(dialogue: Dialogue | None, folder: Path, cases: Iterable[Example] = ()) -> None:
    """Raise JobError for missing functions or unreadable files, without running any code.

    With cases, also for tools that no case offers.
    """
    if dialogue is None:
        return
    offered = set[str]().union(*(_names(case.tools or ()) for case in cases))
    if cases and (strange := sorted(dialogue.tools.keys() - offered)):
        raise JobError(
            f"evaluate.dialogue.tools names {strange[0]!r}, but no test case offers this tool "
            f"in its `tools`. Offered: {', '.join(sorted(offered)) or 'none'}."
        )
    for name, source in dialogue.tools.items():
        if (function := _function(name, source, folder)) is not None:
            function.check()
        else:
            _read_recorded(name, folder / source)


def opening(case: Example) -> Example:
    """Return a case as its dialogue begins: up to the last user message, with its last answer."""
    expected = turns_after_question(case.messages)
    question = case.messages[: len(case.messages) - len(expected)]
    answer = [turn for turn in expected[-1:] if turn.role == "assistant"]
    begun = {"messages": (*question, *answer), "id": case.case_id}
    return case.model_copy(update=begun) if question else case


def each_answer(case: Example) -> Iterator[Example]:
    """Yield a case up to each answer of its expected trajectory."""
    start = len(case.messages) - len(turns_after_question(case.messages))
    for at, turn in enumerate(case.messages[start:], start + 1):
        if turn.role == "assistant" and at < len(case.messages):
            yield case.model_copy(update={"messages": case.messages[:at], "expected": None})
    yield case


def with_call_ids(
    calls: Iterable[Mapping[str, JsonValue]], turn: int
) -> tuple[dict[str, JsonValue], ...]:
    """Return calls with an id each; Mistral's chat templates require nine letters or digits."""
    return tuple(
        {**call, "id": call.get("id") or f"call{turn:02}{at:03}"} for at, call in enumerate(calls)
    )


def sendable(turn: Message) -> Message:
    """Return an answer to send back; arguments that are not a JSON object are left out."""
    calls = [
        call
        if arguments_of(cast("Any", call["function"]).get("arguments") or EMPTY_ARGUMENTS)
        is not None
        else {**call, "function": {**cast("Any", call["function"]), "arguments": EMPTY_ARGUMENTS}}
        for call in turn.tool_calls or ()
    ]
    return replace(turn, tool_calls=tuple(calls) or None)


def results_as_turns(
    calls: Sequence[Mapping[str, JsonValue]], results: Sequence[ToolResult]
) -> list[Message]:
    """Return results as messages that refer to their calls."""
    return [
        Message(role="tool", tool_call_id=str(call["id"]), content=result.content)
        for call, result in zip(calls, results, strict=True)
    ]


def arguments_of(written: object) -> dict[str, JsonValue] | None:
    """Return a call's arguments; None if they are not a JSON object."""
    try:
        value: object = json.loads(written) if isinstance(written, str) else written
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, JsonValue]", value) if isinstance(value, dict) else None


def _key(arguments: Mapping[str, JsonValue]) -> str:
    """Return arguments as text that is equal for equal values: 20 and 20.0, in any key order."""
    whole = json.loads(json.dumps(arguments), parse_float=_number)
    return json.dumps(whole, sort_keys=True, ensure_ascii=False)


def _number(text: str) -> float:
    value = float(text)
    return int(value) if value.is_integer() else value


def _called(function: Callable[..., object], arguments: Mapping[str, JsonValue]) -> ToolResult:
    try:
        returned = function(**arguments)
        text = returned if isinstance(returned, str) else json.dumps(returned, ensure_ascii=False)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code may raise anything
        return ToolResult.error(whole_text(f"{type(error).__name__}: {error}"))
    return ToolResult(whole_text(text))


def _results_in(case: Example) -> dict[str, dict[str, str]]:
    """Return the results recorded in a row, by tool and arguments; the first of equal calls."""
    recorded: dict[str, dict[str, str]] = {}
    waiting: list[tuple[str, Mapping[str, str]]] = []  # calls without a result, with their ids
    for turn in case.messages:
        waiting += [(str(call.get("id")), _function_of(call)) for call in turn.tool_calls or ()]
        own = turn.tool_call_id  # without an id, it is the result of the first call that waits
        answered = [each for each in waiting if not own or each[0] == own]
        if turn.role == "tool" and answered:
            waiting.remove(answered[0])
            called = answered[0][1]
            arguments = arguments_of(called.get("arguments") or EMPTY_ARGUMENTS)
            if arguments is not None:
                results = recorded.setdefault(called.get("name", ""), {})
                results.setdefault(_key(arguments), turn.text)
    return recorded


def _function_of(call: Mapping[str, JsonValue]) -> Mapping[str, str]:
    function = call.get("function")
    return cast("Mapping[str, str]", function if isinstance(function, dict) else {})


def _names(tools: Iterable[Mapping[str, JsonValue]]) -> set[str]:
    functions = (tool.get("function") for tool in tools)
    return {str(each.get("name")) for each in functions if isinstance(each, dict)}


def _function(name: str, source: str, folder: Path) -> UserFunction | None:
    """Return the function that a source names; None if it is a file of recorded results."""
    return UserFunction(source, folder, f"the tool {name!r}") if names_function(source) else None


def _read_recorded(name: str, path: Path) -> dict[str, str]:
    how = 'Write one {"arguments": {…}, "result": …} per line, or name a function: FILE.py:NAME.'
    results: dict[str, str] = {}
    for item in read_records(path):
        place = f"{path}:{item.line}" if item.line else str(path)
        if isinstance(item, Finding):
            if item.severity == "error":
                why = f"cannot be read: {item.message} {item.fix}"
                raise JobError(f"{place}: the results of the tool {name!r} {why} {how}")
            continue
        arguments = arguments_of(item.value.get("arguments"))
        if arguments is None or "result" not in item.value:
            shown = clip(json.dumps(item.value, ensure_ascii=False))
            raise JobError(f"{place} is not a recorded result of the tool {name!r}: {shown}. {how}")
        content = item.value["result"]
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        if results.setdefault(_key(arguments), text) != text:
            raise JobError(
                f"{place} has another result of {name} for the same arguments as an "
                "earlier line. Keep one of them."
            )
    return results
