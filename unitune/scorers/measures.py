"""What is measured of answers beside their quality: length, latency, cost, consistency.

A measure takes all answers of one contender to one case, one for each repeat, and gives a figure
of that case, or None where it is not known. Figures have units and no best direction that holds for
every task, so no verdict rests on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Literal

from unitune.scorers.interface import Entry, Measured


class Measure(Entry):
    """What all measures share."""

    needs_expected = False

    def figure(self, answers: Sequence[Measured]) -> float | None:
        """Return the measure of one case.

        Args:
            answers: Of one contender to one case, one a repeat, without those in error.
        """
        figures = [self.of_answer(answer) for answer in answers]
        known = [figure for figure in figures if figure is not None]
        return fmean(known) if known and len(known) == len(figures) else None

    def of_answer(self, answer: Measured) -> float | None:
        raise NotImplementedError


class Length(Measure):
    """How long the answer is.

    Why: a tuned model that is as good and shorter is cheaper and quicker to read. It leaves out
    whether the length is right.
    """

    type: Literal["length"] = "length"
    name: str = "length"
    unit: Literal["characters", "words", "tokens"] = "words"
    """words: between spaces. tokens: as the backend counted them."""

    def of_answer(self, answer: Measured) -> float | None:
        if self.unit == "tokens":
            return answer.tokens
        return float(len(answer.text if self.unit == "characters" else answer.text.split()))


class Latency(Measure):
    """Seconds from the request to the whole answer."""

    type: Literal["latency"] = "latency"
    name: str = "latency"

    def of_answer(self, answer: Measured) -> float | None:
        return answer.seconds


class Cost(Measure):
    """US dollars of an answer, from its tokens and `evaluate.prices`.

    Why: quality has its price, and few-shot prompts pay for their shots in every request. It leaves
    out training, hosting, discounts for cached tokens and for batches, and taxes.
    """

    type: Literal["cost"] = "cost"
    name: str = "cost"

    def of_answer(self, answer: Measured) -> float | None:
        return answer.usd


class Consistency(Measure):
    """How often repeats of one case give the same answer.

    The share of pairs of repeats that agree. Why: a model that is right four times of five may be
    so by chance on every case, or always on four of five; users meet only the first as unreliable.
    Pairs, and not the share of the most frequent answer, because that share is the greater the
    fewer repeats there are. It leaves out whether the answer is right, and answers that say the
    same in other words: texts are compared as they stand, outer whitespace aside.
    """

    type: Literal["consistency"] = "consistency"
    name: str = "consistency"

    def figure(self, answers: Sequence[Measured]) -> float | None:
        n = len(answers)
        if n < 2:
            return None
        counts = Counter(answer.text.strip() for answer in answers)
        return sum(count * (count - 1) for count in counts.values()) / (n * (n - 1))
