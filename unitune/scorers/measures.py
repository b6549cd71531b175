"""Measure answers apart from quality: length, latency, cost and consistency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Literal

from unitune.scorers.interface import Entry, Measured


class Measure(Entry):
    """Base of all measures."""

    needs_expected = False

    def figure(self, answers: Sequence[Measured]) -> float | None:
        """Return the measure of one case from a contender's answers, without failed ones."""
        figures = [self.of_answer(answer) for answer in answers]
        known = [figure for figure in figures if figure is not None]
        return fmean(known) if known and len(known) == len(figures) else None

    def of_answer(self, answer: Measured) -> float | None:
        raise NotImplementedError


class Length(Measure):
    """Length of the answer.

    Why: an equally good but shorter answer is cheaper and quicker to read. It leaves out whether
    the length is right.
    """

    type: Literal["length"] = "length"
    name: str = "length"
    unit: Literal["characters", "words", "tokens"] = "words"
    """words: separated by spaces. tokens: as counted by the backend."""

    def of_answer(self, answer: Measured) -> float | None:
        if self.unit == "tokens":
            return answer.tokens
        return float(len(answer.text if self.unit == "characters" else answer.text.split()))


class Latency(Measure):
    """Seconds from the request to the complete answer."""

    type: Literal["latency"] = "latency"
    name: str = "latency"

    def of_answer(self, answer: Measured) -> float | None:
        return answer.seconds


class Cost(Measure):
    """Cost of an answer in US dollars, from its tokens and `evaluate.prices`.

    Why: few-shot prompts pay for their examples in every request. It leaves out training, hosting,
    discounts for cached tokens and batches, and taxes.
    """

    type: Literal["cost"] = "cost"
    name: str = "cost"

    def of_answer(self, answer: Measured) -> float | None:
        return answer.usd


class Consistency(Measure):
    """Agreement of repeated answers to one case.

    The share of pairs of repeats that agree. Why: being right four times of five may be chance on
    every case or certainty on four of five cases. Pairs are used because the share of the most
    frequent answer depends on the number of repeats. It leaves out whether the answer is right, and
    equivalent wording: texts are compared exactly, apart from outer whitespace.
    """

    type: Literal["consistency"] = "consistency"
    name: str = "consistency"

    def figure(self, answers: Sequence[Measured]) -> float | None:
        n = len(answers)
        if n < 2:
            return None
        counts = Counter(answer.text.strip() for answer in answers)
        return sum(count * (count - 1) for count in counts.values()) / (n * (n - 1))
