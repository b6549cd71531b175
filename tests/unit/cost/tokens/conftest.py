from __future__ import annotations

from unitune.cost.tokens import Count, TokenCounter
from unitune.data.example import Example, Message


def text_tokens(counter: TokenCounter, text: str) -> Count:
    """Return the tokens of a text as an answer, which has no framing."""
    turns = (("user", ""), ("assistant", text))
    messages = tuple(Message(role=role, content=content) for role, content in turns)
    return counter.row(Example(messages=messages)).answer
