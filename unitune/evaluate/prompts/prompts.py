"""How a case is put to a model: the row's own messages, with instructions and shots around them.

`Prompt.messages` is all that turns a case into a question. Instructions go to the end of the
system prompt, so that a prompt which all rows share stays the beginning of every request; shots
are answered rows of train, as user and assistant turns before the question: the same for every
case, or each case's nearest.

`instructions_from` writes instructions out of answers of train alone, for a job that has none.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile
from typing import cast

from unitune.data.example import Example, Message
from unitune.evaluate.prompts.shots import Neighbours
from unitune.scorers.json_text import read_json

SYSTEM_ROLES = ("system", "developer")

MOST_LISTED = 30
"""Distinct answers, or values of a key, up to which they are listed as a choice."""
MOST_LABEL_BYTES = 80
"""A longer value is a text and no label; listing it would teach nothing and cost every request."""
MOST_SAMPLES = 5
"""Answers shown where they are no labels: enough to show the manner, short enough to read."""
MOST_SAMPLE_BYTES = 2000
"""All samples together, some 500 tokens: more belongs into shots. The first is always shown."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """Shots of each case's own: so many of its nearest neighbours, the nearest last."""

    neighbours: Neighbours
    count: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """One way to put a case to a model.

    Args:
        label: In words, for effort and progress: ``8 shots with instructions``.
        instructions: Added to the end of the system prompt; none when empty.
        shots: Answered rows shown before the question.
    """

    label: str
    instructions: str = ""
    shots: tuple[Example, ...] | Nearest = ()

    def messages(self, case: Example) -> tuple[Message, ...]:
        """Return the messages of a request: the case's own with what this prompt adds.

        The system prompt is the case's own; those of the shots are left out.
        """
        system, question = _split(case.prompt)
        shown = (turn for shot in self._shots_of(case) for turn in _turns(shot))
        return (*_instructed(system, self.instructions), *shown, *question)

    @property
    def shot_count(self) -> int:
        """How many rows are shown."""
        return self.shots.count if isinstance(self.shots, Nearest) else len(self.shots)

    def _shots_of(self, case: Example) -> tuple[Example, ...]:
        if isinstance(self.shots, Nearest):
            return self.shots.neighbours.nearest(case, self.shots.count)
        return self.shots


OWN_MESSAGES = Prompt(label="the row's own messages")
"""The case as it stands in the file."""


def instructions_from(train: Iterable[Example]) -> str:
    """Write instructions from the answers of train alone.

    Returns:
        A sentence on the format, with the distinct answers (up to 30) listed; for JSON objects the
        keys with their values (up to 30 a key); for texts that differ a few of them as samples.
    """
    answers = [answer.strip() for example in train if (answer := example.answer)]
    objects = _objects(answers)
    if objects:
        return _for_objects(objects)
    labels = _by_frequency(answers)
    if len(labels) <= MOST_LISTED and all(map(_is_label, labels)):
        return "Answer with exactly one of these, and nothing else:\n" + _bullets(labels)
    manner = "Answer in the manner and at the length of these samples, and add nothing:\n"
    return manner + _bullets(_typical(answers))


def _split(messages: Sequence[Message]) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """Return the leading system messages, and the rest."""
    system = tuple(takewhile(lambda message: message.role in SYSTEM_ROLES, messages))
    return system, tuple(messages[len(system) :])


def _instructed(system: tuple[Message, ...], instructions: str) -> tuple[Message, ...]:
    if not instructions:
        return system
    if not system:
        return (Message(role="system", content=instructions),)
    last = system[-1]
    text = f"{last.text}\n\n{instructions}" if last.text else instructions
    return (*system[:-1], replace(last, content=text))


def _turns(shot: Example) -> tuple[Message, ...]:
    """Return a row as turns that are shown: its question, then its answer."""
    _, question = _split(shot.prompt)
    last = shot.messages[-1]
    answer = (
        replace(last, weight=None)
        if last.role == "assistant" and shot.expected is None
        else Message(role="assistant", content=shot.answer)
    )
    return (*question, answer)


def _objects(answers: Sequence[str]) -> list[dict[str, object]]:
    """Return the answers as JSON objects; nothing unless every one of them is an object."""
    objects: list[dict[str, object]] = []
    for answer in answers:
        try:
            read_json(answer)
            value: object = json.loads(answer)
        except ValueError:
            return []
        if not isinstance(value, dict):
            return []
        objects.append(cast("dict[str, object]", value))
    return objects


def _for_objects(objects: Sequence[dict[str, object]]) -> str:
    keys = list(dict.fromkeys(key for value in objects for key in value))
    lines = [_key_line(key, objects) for key in keys]
    return (
        "Answer with one JSON object and nothing else: no words around it, no code fence. "
        "Its keys, in this order, and their values:\n" + "\n".join(lines)
    )


def _key_line(key: str, objects: Sequence[dict[str, object]]) -> str:
    given = [value[key] for value in objects if key in value]
    values = _by_frequency(json.dumps(value, ensure_ascii=False) for value in given)
    labels = [value for value in values if _is_label(value)]
    name = json.dumps(key, ensure_ascii=False)
    optional = "" if len(given) == len(objects) else " (only where it applies)"
    if len(values) <= MOST_LISTED and len(labels) == len(values):
        return f"- {name}{optional}: one of {', '.join(labels)}"
    if not labels:
        return f"- {name}{optional}: a text"
    # Values that seldom come back are texts rather than labels: a few show their manner.
    shown = MOST_LISTED if 2 * len(values) <= len(given) else MOST_SAMPLES
    return f"- {name}{optional}: such as {', '.join(labels[:shown])}"


def _by_frequency(values: Iterable[str]) -> list[str]:
    """Return the distinct values, the commonest first, then in order of appearance."""
    return [value for value, _ in Counter(values).most_common()]


def _is_label(value: str) -> bool:
    return len(value.encode()) <= MOST_LABEL_BYTES and "\n" not in value


def _typical(answers: Sequence[str]) -> list[str]:
    """Return distinct answers around the median length, within the bytes that samples may take."""
    distinct = sorted(dict.fromkeys(answers), key=len)
    start = max(0, (len(distinct) - MOST_SAMPLES) // 2)
    samples = distinct[start : start + MOST_SAMPLES]
    sizes = accumulate(len(sample.encode()) for sample in samples)
    return [
        sample
        for at, (sample, size) in enumerate(zip(samples, sizes, strict=True))
        if at == 0 or size <= MOST_SAMPLE_BYTES
    ]


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
