"""Read the general questions and the general text that show what tuning cost a model.

The questions have exact answers of a word or two. Their categories alternate, so that the first N
questions have all of them in nearly equal shares. They are easy and English: they leave out code,
long texts, safety and other languages.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TypeVar

from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example, Message
from unitune.documents import Frozen
from unitune.scorers.labels import find_label

FOLDER = Path(__file__).parent / "general"
# Added to each question; without it, small models write paragraphs that name much by chance
MANNER = "Answer in a few words."
# An untuned SmolLM2-135M is right in 143 of 300 with 24 tokens and in 139 with 16
MOST_TOKENS = 24

ModelT = TypeVar("ModelT", bound=Frozen)


class GeneralQuestion(Frozen):
    """General question with its accepted answers."""

    id: str
    """Category and number."""
    ask: str
    accept: tuple[str, ...]
    options: tuple[str, ...] = ()
    """Answers that the question offers; the first one that an answer names counts."""
    case: bool = False
    """True if upper and lower case matter."""

    @property
    def category(self) -> str:
        """Kind of the question."""
        return self.id.rpartition("-")[0]

    @property
    def message(self) -> Message:
        """The question as a user's message."""
        return Message(role="user", content=f"{self.ask} {MANNER}")

    def is_right(self, answer: str) -> bool:
        """Return whether an answer names an accepted one as a whole word."""
        known = self.options or self.accept
        return find_label(answer, known, ignore_case=not self.case, take="first") in self.accept


class Passage(Frozen):
    """Passage of the general text."""

    source: str
    text: str


@cache
def general_questions() -> tuple[GeneralQuestion, ...]:
    """Return all general questions in their order."""
    return _read("questions.jsonl", GeneralQuestion)


@cache
def general_text() -> tuple[Passage, ...]:
    """Return the passages of the general text."""
    return _read("text.jsonl", Passage)


def general_cases(count: int) -> Dataset:
    """Return the first general questions as cases, to forecast the time of their answers."""
    some = general_questions()[:count]
    rows = (Row(at, Example(messages=(each.message,), id=each.id)) for at, each in enumerate(some))
    return Dataset("questions.jsonl", tuple(rows))


def _read(name: str, kind: type[ModelT]) -> tuple[ModelT, ...]:
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    return tuple(kind.model_validate(json.loads(line)) for line in lines)
