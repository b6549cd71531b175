"""Short ways to score one answer, for tests of scorers."""

from __future__ import annotations

from typing import Any

from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example
from unitune.evaluate.scoring.scorers import build
from unitune.scorers.interface import Attempt, Score, Scorer, Setting


def case(expected: str | None, **keys: Any) -> Example:
    """A case with this expected answer and keys of its own."""
    messages = keys.pop("messages", [{"role": "user", "content": "q"}])
    return Example.model_validate({"messages": messages, "expected": expected, **keys})


def attempt(answer: str, expected: str, **keys: Any) -> Attempt:
    """An answer to such a case."""
    return Attempt(case(expected, **keys), answer)


def score(
    spec: Scorer, answer: str, expected: str, setting: Setting | None = None, **keys: Any
) -> Score:
    """What a scorer says of an answer."""
    return build(spec, setting).score(attempt(answer, expected, **keys))


def dataset(*expected: str, **keys: Any) -> Dataset:
    """Cases with these expected answers, one a line."""
    rows = (Row(line, case(answer, **keys)) for line, answer in enumerate(expected, start=1))
    return Dataset("test.jsonl", tuple(rows))
