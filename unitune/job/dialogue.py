"""Define dialogues: test cases of several turns, with the results of called tools."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from unitune.documents import Spec


def names_function(source: str) -> bool:
    """Return whether a tool's source names a Python function, not a file of recorded results."""
    return ":" in source and not source.endswith(".jsonl")


class Dialogue(Spec):
    """Several turns per test case: the model calls tools, gets their results and answers.

    A case begins with the row's messages up to the last user message. It ends with an answer
    without a tool call, or at `max_turns`. The row's own later messages are the expected trajectory
    (scorer `trajectory`), and their tool results are recorded results.
    """

    tools: dict[str, Annotated[str, Field(min_length=1)]] = Field(default={})
    """Results by tool name: a Python function (``tools.py:get_weather``), which is called with the
    call's arguments, or JSON Lines of recorded results (``{"arguments": {…}, "result": …}``),
    relative to the job's folder. Otherwise the results recorded in the case's own row are used.
    Any other call gets an error as its result."""
    max_turns: Annotated[int, Field(ge=1, le=100)] = 10
    """Largest number of answers per case; the tools that the last one calls are not run."""
