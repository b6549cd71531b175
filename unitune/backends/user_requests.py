"""Write the requests to a simulated user, and read its replies.

The user sees the conversation with swapped roles: what it wrote before is the assistant's, and the
texts of the model under test are the user's. It sees no tool calls, results or system prompts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from unitune.data.example import Example, Message
from unitune.errors import JobError
from unitune.job.dialogue import GIVEN_UP, REACHED, SimulatedUser, UserText
from unitune.models import Request
from unitune.scorers.judge import ColumnText

# Many models require that the other side begins
GREETING = "Hello! How can I help you?"
_SWAPPED: dict[str, Literal["user", "assistant"]] = {"user": "assistant", "assistant": "user"}
_RULES = f"""Rules:
- Write this person's next message and nothing else: one message, short, in this person's own words.
- Say only what the assistant needs next. Do not give away the whole goal at once.
- Use no facts but those above. If the assistant asks for another one, you do not know it.
- When the goal is reached, write {REACHED} and nothing else.
- If the assistant refuses, or cannot reach the goal, write {GIVEN_UP} and nothing else."""


def check_user(user: SimulatedUser | None, rows: Iterable[Example]) -> None:
    """Raise JobError if a row has no text in a column that a simulated user reads."""
    texts = {"goal": user.goal, "persona": user.persona} if user else {}
    for row in rows:
        for name, text in texts.items():
            if isinstance(text, ColumnText) and not text.of(row):
                raise JobError(
                    f"evaluate.dialogue.user takes its {name} from the column {text.column!r}, but "
                    f"the row {row.case_id} has no text there. Add it to the row, or write one "
                    f"{name} for all rows."
                )


def user_request(
    user: SimulatedUser, case: Example, turns: Iterable[Message], *, seed: int = 0
) -> Request:
    """Return the request for the next message to a model whose last turn is an answer.

    Args:
        user: The simulated user.
        case: Row as its dialogue begins (`unitune.data.tools.opening`).
        turns: Turns after it.
        seed: Number of the repeat, which varies sampled messages.
    """
    persona = f"Who this person is: {_text(user.persona, case)}\n" if user.persona else ""
    system = (
        "You play a person who talks to an assistant. The messages you get are the assistant's.\n\n"
        f"{persona}This person's goal: {_text(user.goal, case)}\n\n{_RULES}"
    )
    return Request(
        messages=(Message(role="system", content=system), *_swapped([*case.prompt, *turns])),
        max_tokens=user.max_tokens,
        temperature=user.temperature,
        seed=seed,
    )


def fault_of(user: SimulatedUser, text: str, finish_reason: str, error: str | None) -> str | None:
    """Return why a reply is not a message, or None."""
    why = error
    if why is None and finish_reason == "length":
        why = f"its message was cut off; raise max_tokens of the user above {user.max_tokens}"
    elif why is None and finish_reason != "stop":
        why = f"it ended its message with {finish_reason!r}"
    elif why is None and not text.strip():
        why = "its message is empty"
    return why and f"the simulated user failed: {why}"


def _text(text: UserText, case: Example) -> str:
    return text if isinstance(text, str) else text.of(case)


def _swapped(turns: Iterable[Message]) -> list[Message]:
    seen: list[Message] = []
    for turn in turns:
        role, text = _SWAPPED.get(turn.role), turn.shown
        if role is None or not text.strip():
            continue
        if not seen and role == "assistant":
            seen.append(Message(role="user", content=GREETING))
        if seen and seen[-1].role == role:
            text = f"{seen.pop().text}\n\n{text}"
        seen.append(Message(role=role, content=text))
    return seen
