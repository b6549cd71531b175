"""The scorer `tool_calls`: does the answer call what was expected, with the same arguments?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from pydantic import JsonValue

from unitune.data.example import Example
from unitune.evaluate.scorers.interface import Attempt, Kind, Score, Scorer, Setting
from unitune.evaluate.scorers.json_text import Json, read_json
from unitune.findings import clip
from unitune.job.scorers import ToolCalls
from unitune.models import ToolCalls as Calls


@dataclass(frozen=True, slots=True)
class Call:
    """A call by its content: the function's name and its arguments as values."""

    name: str
    arguments: Json


def same_calls(
    given: Calls,
    expected: Calls,
    *,
    ordered: bool = False,
    arguments: bool = True,
) -> bool:
    """Whether the same functions are called with the same arguments, no call more and none less.

    Why: a program acts on the calls, so text beside them does not matter and a call too many does.
    Arguments are compared as JSON, numbers by value. Where no call is expected, none is right. It
    leaves out arguments that mean the same (``Paris`` and ``Paris, France``; a default that is
    written out), and calls that a model writes into its text.

    Args:
        given: Calls of the answer.
        expected: Calls of the case's last turn.
        ordered: Whether the order of several calls counts.
        arguments: Whether arguments are compared; else names alone.

    Raises:
        ValueError: The arguments of an expected call are not JSON.
    """
    wanted = [read_call(call, arguments=arguments) for call in expected]
    try:
        found = [read_call(call, arguments=arguments) for call in given]
    except ValueError:
        return False
    if ordered:
        return found == wanted
    return len(found) == len(wanted) and all(found.count(c) == wanted.count(c) for c in wanted)


def read_call(call: Mapping[str, JsonValue], *, arguments: bool = True) -> Call:
    """Return a call of OpenAI's form by its content.

    Raises:
        ValueError: The arguments are not JSON.
    """
    function = cast("dict[str, str]", call.get("function") or {})
    if not arguments:
        return Call(function.get("name", ""), None)
    return Call(function.get("name", ""), read_json(function.get("arguments") or "{}"))


def expected_calls(case: Example) -> Calls:
    """Return the calls of a case's last turn; none where it is not an assistant's."""
    last = case.messages[-1]
    return (last.tool_calls or ()) if last.role == "assistant" else ()


def make_tool_calls(spec: ToolCalls, _: Setting) -> Scorer:
    """Return the scorer of `same_calls`."""

    def judge(attempt: Attempt) -> Score:
        right = same_calls(
            attempt.tool_calls,
            expected_calls(attempt.case),
            ordered=spec.ordered,
            arguments=spec.arguments,
        )
        return Score(float(right), "" if right else f"called {_shown(attempt.tool_calls)}")

    def refusal(case: Example) -> str | None:
        for call in expected_calls(case):
            try:
                read_call(call, arguments=spec.arguments)
            except ValueError as error:
                return f"the arguments of the expected call {clip(call)} are not JSON: {error}"
        return None

    return Scorer(spec, Kind.BINARY, judge, refusal, _no_call_possible)


def _no_call_possible(case: Example) -> str | None:
    if case.tools or expected_calls(case):
        return None
    return "no case offers a tool or expects a call, and an answer without a call is right"


def _shown(calls: Calls) -> str:
    functions = (cast("dict[str, str]", call.get("function") or {}) for call in calls)
    shown = (f"{one.get('name', '?')}({one.get('arguments', '')})" for one in functions)
    return clip(", ".join(shown), 200) if calls else "nothing"
