"""What earlier bills of the same model say about the next one.

A bill tells where in our range of tokens the truth lay: at its low end if a vendor does not charge
the tail of the chat template, at its high end if it does, and likewise for characters a token where
no tokenizer was at hand. Three bills that agree narrow the range to what they have shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from statistics import median

from pydantic import BaseModel, ConfigDict

from unitune.cost.tokens import Count

LEAST_BILLS = 3
"""Fewer show no pattern."""


class Lesson(BaseModel):
    """What one bill has shown.

    A bill that lies outside the range teaches nothing but that the range was wrong.
    """

    model_config = ConfigDict(frozen=True)
    basis: str
    """What the tokens were counted with."""
    place: Decimal | None
    """Where between low (0) and high (1) the tokens of one epoch lay; None: there was no range."""
    epochs_beside: int | None
    """Epochs more than expected, where the vendor chose them."""


@dataclass(frozen=True, slots=True)
class Narrowing:
    """The lessons of earlier bills.

    Args:
        lessons: Of the same backend and model, counted with the same tokenizer.
    """

    lessons: tuple[Lesson, ...]

    @classmethod
    def of(cls, lessons: Iterable[Lesson], basis: str) -> Narrowing | None:
        """Return what can be learnt, if anything.

        Args:
            lessons: Of earlier runs of the same backend and model.
            basis: What the tokens are counted with now.
        """
        found = tuple(one for one in lessons if one.basis == basis)
        return cls(found) if len(found) >= LEAST_BILLS else None

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What was learnt, as a sentence."""
        return (f"narrowed by the bills of {len(self.lessons)} earlier runs of this model",)

    def tokens(self, epoch: Count) -> Count:
        """Return the tokens of one epoch, as far as earlier bills narrow them."""
        places = [one.place for one in self.lessons if one.place is not None]
        if len(places) < LEAST_BILLS or not all(0 <= place <= 1 for place in places):
            return epoch
        width = epoch.high - epoch.low
        low = epoch.low + math.floor(width * min(places))
        high = epoch.low + math.ceil(width * max(places))
        middle = epoch.low + round(width * median(places))
        return Count(low, min(max(middle, low), high), high)

    def epochs(self, charged: Count) -> Count:
        """Return the epochs, as far as earlier choices of the vendor narrow them."""
        beside = [one.epochs_beside for one in self.lessons if one.epochs_beside is not None]
        if charged.exact or len(beside) < LEAST_BILLS:
            return charged
        seen = [charged.expected + more for more in beside]
        if min(seen) < charged.low or max(seen) > charged.high:
            return charged
        return Count(min(seen), round(median(seen)), max(seen))
