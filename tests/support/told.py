"""A comparison of zero-shot with a candidate that is told its instructions, and rules for both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unitune.models import Request

PAIR: list[dict[str, Any]] = [
    {"type": "zero-shot"},
    {"type": "instructed", "role": "candidate", "instructions": "TOLD"},
]
PROMPTED = {"contenders": PAIR}
"""A comparison that needs no run."""


def told(request: Request) -> bool:
    return "TOLD" in request.messages[0].text


def number(request: Request) -> int:
    return int(request.messages[-1].text.split()[1])


def by_number(rule: Callable[..., str]) -> Callable[[str, Request], str]:
    """Answer by the number of a row, and by whether the instructions were given."""
    return lambda _model, request: rule(number(request), told=told(request))
