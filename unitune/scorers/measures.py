"""Measure answers apart from their mean score: length, latency, cost and reliability."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import comb
from statistics import fmean
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias, cast

from pydantic import Field, model_validator

from unitune.scorers.interface import Entry, Measured

# Harmless changes of a question
Change: TypeAlias = Literal["case", "whitespace", "option_order"]


class Measure(Entry):
    """Base of all measures."""

    needs_expected = False
    is_share: ClassVar[bool] = False
    """True if the measure of a case is from 0 to 1."""

    def figure(self, answers: Sequence[Measured]) -> float | None:
        """Return the measure of one case from a contender's answers, without failed ones."""
        figures = [self.of_answer(answer) for answer in answers]
        known = [figure for figure in figures if figure is not None]
        return fmean(known) if known and len(known) == len(figures) else None

    def of_answer(self, answer: Measured) -> float | None:
        raise NotImplementedError

    def prepared(self, answers: Iterable[str]) -> Self:
        """Return the measure, ready for the job's training answers. Raises JobError."""
        del answers
        return self


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


class Turns(Measure):
    """Answers of the model in a dialogue, until it ended."""

    type: Literal["turns"] = "turns"
    name: str = "turns"

    def of_answer(self, answer: Measured) -> float | None:
        return answer.turns


class ToolErrors(Measure):
    """Calls of a dialogue whose result is an error, such as those of an unknown tool."""

    type: Literal["tool_errors"] = "tool_errors"
    name: str = "tool_errors"

    def of_answer(self, answer: Measured) -> float | None:
        return answer.tool_errors


class Consistency(Measure):
    """Agreement of repeated answers to one case.

    The share of pairs of repeats that agree. Why: being right four times of five may be chance on
    every case or certainty on four of five cases. Pairs are used because the share of the most
    frequent answer depends on the number of repeats. It leaves out whether the answer is right, and
    equivalent wording: texts are compared exactly, apart from outer whitespace.
    """

    is_share = True
    type: Literal["consistency"] = "consistency"
    name: str = "consistency"

    def figure(self, answers: Sequence[Measured]) -> float | None:
        n = len(answers)
        if n < 2:
            return None
        counts = Counter(answer.text.strip() for answer in answers)
        return sum(count * (count - 1) for count in counts.values()) / (n * (n - 1))


class _Reliability(Measure):
    is_share = True
    required_score: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Lowest score by the deciding scorer that counts as right."""

    def right_of(self, answers: Sequence[Measured]) -> tuple[int, int]:
        """Return the numbers of right and of scored answers."""
        known = [answer.score for answer in answers if answer.score is not None]
        return sum(score >= self.required_score for score in known), len(known)


class PassK(_Reliability):
    """Chance that k answers to one case are all right (pass^k).

    With c right answers of n, the share C(c, k) / C(n, k) of the sets of k answers that are all
    right. Why: users meet the worst of several answers, and a mean score of 80 % may be four right
    cases of five or four right answers of five in every case. (c / n)^k would overestimate it if n
    is small. It leaves out how wrong the others are. Needs `evaluate.repeats` of at least k.

    Source: Yao et al. 2024, arXiv 2406.12045, equation 2.
    """

    type: Literal["pass_k"] = "pass_k"
    k: Annotated[int, Field(ge=2)] = 2
    """Number of answers that must all be right."""
    name: str = "pass_k"
    """Name in reports; by default ``pass^`` with k."""

    @model_validator(mode="before")
    @classmethod
    def _named_by_k(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        options = cast("dict[str, Any]", value)
        return {"name": f"pass^{options.get('k', 2)}", **options}

    def figure(self, answers: Sequence[Measured]) -> float | None:
        right, n = self.right_of(answers)
        return comb(right, self.k) / comb(n, self.k) if n >= self.k else None


class Unstable(_Reliability):
    """Share of cases that are sometimes right and sometimes wrong.

    Why: tests of such a case are flaky. The share grows with `evaluate.repeats`, so compare only
    figures with equal repeats. It leaves out how often the case is right.
    """

    type: Literal["unstable"] = "unstable"
    name: str = "unstable"

    def figure(self, answers: Sequence[Measured]) -> float | None:
        right, n = self.right_of(answers)
        return float(0 < right < n) if n >= 2 else None


class Stability(Measure):
    """Share of cases whose score stays under a harmless change of the question.

    `evaluate.robustness` adds it. The first unchanged answer is compared, which has the same seed.
    """

    is_share = True
    change: Change
    tolerance: float
    """Largest difference between scores that count as equal."""

    @classmethod
    def type_name(cls) -> str:
        return "stability"

    def figure(self, answers: Sequence[Measured]) -> float | None:
        if not answers or answers[0].score is None or self.change not in answers[0].changed:
            return None
        return float(abs(answers[0].changed[self.change] - answers[0].score) <= self.tolerance)
