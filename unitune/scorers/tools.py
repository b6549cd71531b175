"""The scorer `tool_calls`: does the answer call what was expected, with the same arguments?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, cast

from pydantic import JsonValue

from unitune.findings import clip
from unitune.scorers.interface import Attempt, Case, Score, Scorer
from unitune.scorers.interface import ToolCalls as Calls
from unitune.scorers.json_text import Json, read_json


class Call(NamedTuple):
    """A call by its content: the function's name and its arguments as values."""

    name: str
    arguments: Json


class ToolCalls(Scorer):
    """The answer calls the expected tools with the expected arguments.

    Why: a program acts on the calls, so text beside them does not matter and a call too many does.
    Arguments are compared as JSON, numbers by value. Where no call is expected, none is right. It
    leaves out arguments that mean the same (``Paris`` and ``Paris, France``; a default that is
    written out), and calls that a model writes into its text.
    """

    type: Literal["tool_calls"] = "tool_calls"
    name: str = "tool_calls"
    ordered: bool = False
    """Whether the order of several calls counts."""
    arguments: bool = True
    """Whether arguments are compared; else names alone."""

    def judge(self, attempt: Attempt) -> Score:
        right = self._same(attempt.tool_calls, expected_calls(attempt.case))
        return Score(float(right), "" if right else f"called {_shown(attempt.tool_calls)}")

    def refusal(self, case: Case) -> str | None:
        for call in expected_calls(case):
            try:
                self._read(call)
            except ValueError as error:
                return f"the arguments of the expected call {clip(call)} are not JSON: {error}"
        return None

    def indulgence(self, case: Case) -> str | None:
        if case.tools or expected_calls(case):
            return None
        return "no case offers a tool or expects a call, and an answer without a call is right"

    def _same(self, given: Calls, expected: Calls) -> bool:
        wanted = [self._read(call) for call in expected]
        try:
            made = [self._read(call) for call in given]
        except ValueError:
            return False
        if self.ordered:
            return made == wanted
        return len(made) == len(wanted) and all(made.count(c) == wanted.count(c) for c in wanted)

    def _read(self, call: Mapping[str, JsonValue]) -> Call:
        function = cast("dict[str, str]", call.get("function") or {})
        arguments = read_json(function.get("arguments") or "{}") if self.arguments else None
        return Call(function.get("name", ""), arguments)


def expected_calls(case: Case) -> Calls:
    """Return the calls of a case's last turn; none where it is not an assistant's."""
    last = case.messages[-1]
    return (last.tool_calls or ()) if last.role == "assistant" else ()


def _shown(calls: Calls) -> str:
    functions = (cast("dict[str, str]", call.get("function") or {}) for call in calls)
    shown = (f"{call.get('name', '?')}({call.get('arguments', '')})" for call in functions)
    return clip(", ".join(shown), 200) if calls else "nothing"
