"""What earlier bills of the same model say about the next estimate.

A bill tells where in our range of tokens the truth lay: at its low end if a vendor does not charge
the tail of the chat template, at its high end if it does, and likewise for characters a token where
no tokenizer was available. Three bills that agree narrow the range to what they have shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from statistics import median

from pydantic import BaseModel, ConfigDict

from unitune.cost.tokens import Count

LEAST_BILLS = 3
"""Fewer show no pattern."""


class Lesson(BaseModel):
    """What one bill has shown."""

    model_config = ConfigDict(frozen=True)
    basis: str
    """What the tokens were counted with."""
    place: Decimal | None
    """Where between low (0) and high (1) the tokens of one epoch lay; None: there was no range."""
    epochs_beside: int | None
    """Epochs more than expected, where the vendor chose them."""


def narrowed_tokens(counted: Count, lessons: Sequence[Lesson]) -> Count:
    """Return the tokens of one epoch, as far as earlier bills narrow them."""
    width = counted.high - counted.low
    places = [lesson.place for lesson in lessons if lesson.place is not None]
    return _narrowed(counted, [counted.low + round(width * place) for place in places])


def narrowed_epochs(charged: Count, lessons: Sequence[Lesson]) -> Count:
    """Return the epochs, as far as earlier choices of the vendor narrow them."""
    beside = [lesson.epochs_beside for lesson in lessons if lesson.epochs_beside is not None]
    return _narrowed(charged, [charged.expected + more for more in beside])


def _narrowed(count: Count, seen: Sequence[int]) -> Count:
    """Return the range of what was seen; a bill outside of the range shows that it was wrong."""
    if count.exact or len(seen) < LEAST_BILLS:
        return count
    if min(seen) < count.low or max(seen) > count.high:
        return count
    return Count(min(seen), round(median(seen)), max(seen))
