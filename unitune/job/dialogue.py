"""Define dialogues: test cases of several turns, with the results of called tools.

A simulated user replies as in tau-bench (arXiv 2406.12045, 2024): it has a goal that the assistant
must find out, and ends the dialogue itself.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from unitune.documents import Spec
from unitune.scorers.judge import ColumnText, NamedModel

# Words of a simulated user that end a dialogue: its goal is reached, or cannot be reached
REACHED, GIVEN_UP = "###STOP###", "###GIVE-UP###"
UserText: TypeAlias = Annotated[str, Field(min_length=1)] | ColumnText


def names_function(source: str) -> bool:
    """Return whether a tool's source names a Python function, not a file of recorded results."""
    return ":" in source and not source.endswith(".jsonl")


class SimulatedUser(NamedModel):
    """Chat model that plays the user and replies to every answer without a tool call.

    The row's last user message is its first one. It sees the conversation, but no tool calls,
    results or system prompts. It ends the dialogue when its goal is reached or out of reach.
    """

    goal: UserText
    """Goal of the user, with all that it knows. ``{column: goal}`` takes it from each row."""
    persona: UserText | None = None
    """Description of the user and of its way of writing, or the column with it."""
    max_turns: Annotated[int, Field(ge=1, le=100)] = 5
    """Largest number of messages per case, in addition to those of the row."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Sampling temperature of the user."""
    max_tokens: Annotated[int, Field(ge=1)] = 512
    """Longest message in tokens."""

    @property
    def name(self) -> str:
        """Its name in records, plans and `evaluate.prices`."""
        return "simulated_user"


class Dialogue(Spec):
    """Several turns per test case: the model calls tools, gets their results and answers.

    A case begins with the row's messages up to the last user message. It ends with an answer
    without a tool call, by the simulated user, or at `max_turns`. The row's own later messages are
    the expected trajectory (scorer `trajectory`), and their tool results are recorded results.
    """

    tools: dict[str, Annotated[str, Field(min_length=1)]] = Field(default={})
    """Results by tool name: a Python function (``tools.py:get_weather``), which is called with the
    call's arguments, or JSON Lines of recorded results (``{"arguments": {…}, "result": …}``),
    relative to the job's folder. Otherwise the results recorded in the case's own row are used.
    Any other call gets an error as its result."""
    max_turns: Annotated[int, Field(ge=1, le=100)] = 10
    """Largest number of answers per case; the tools that the last one calls are not run."""
    user: SimulatedUser | None = None
    """Simulated user that replies to answers; by default the first answer ends a case."""
