"""Which answered rows of train a few-shot prompt shows.

One seeded sequence of rows for each draw; its first k rows are the k shots, so that more shots
only add rows. Each next row is the one whose answer shows most of what was shown least: a new
label before a label a second time, and, in JSON answers, a new value of a key before one that
stood in an earlier shot. The order among equals is by hash of seed and row, the same on every
machine and independent of the order of the file.

Not here: how many shots, which is chosen on dev (`unitune.evaluate.prompts.build`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import cast

from unitune.data.example import Example, digest

POOL = 2000
"""Rows that are considered; a seeded sample of a larger file. Keeps drawing under a second."""


def draw(train: Iterable[Example], count: int, seed: int) -> tuple[Example, ...]:
    """Choose rows to show, spread over the answers.

    Returns:
        The rows in the order in which they are shown.
    """
    pool = _shuffled(train, seed)[:POOL]
    facets = [_facets(example.answer or "") for example in pool]
    shown: Counter[str] = Counter()
    left = list(range(len(pool)))
    drawn: list[Example] = []
    while left and len(drawn) < count:
        best = min(left, key=lambda at: sum(shown[facet] for facet in facets[at]) / len(facets[at]))
        left.remove(best)
        shown.update(facets[best])
        drawn.append(pool[best])
    return tuple(drawn)


def size_bytes(shots: Iterable[Example]) -> int:
    """Return the length of all texts of some shots, in UTF-8 bytes."""
    return sum(len(message.text.encode()) for shot in shots for message in shot.messages)


def _shuffled(train: Iterable[Example], seed: int) -> list[Example]:
    """Return one row for each distinct question, in seeded order."""
    rows = sorted(train, key=lambda example: digest([seed, example.case_id]))
    return list({example.input_key: example for example in rows}.values())


def _facets(answer: str) -> tuple[str, ...]:
    """Return what an answer shows: the values of its keys for a JSON object, else itself."""
    try:
        value: object = json.loads(answer)
    except ValueError:
        return (answer.strip(),)
    if isinstance(value, dict) and value:
        return tuple(json.dumps(pair) for pair in cast("dict[str, object]", value).items())
    return (answer.strip(),)
