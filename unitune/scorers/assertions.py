"""Check an answer against an entry of a row's `scorers`: a scorer within bounds, or a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Self, TypeAlias, cast

from pydantic import Field, JsonValue, model_validator

from unitune.documents import Spec
from unitune.scorers.interface import (
    Attempt,
    Case,
    Entry,
    Score,
    Scorer,
    ToolCalls,
    Turn,
    Unscorable,
)
from unitune.scorers.measures import Measure
from unitune.text import clip

SHOWN = 80  # characters of an entry shown in a reason
Bound: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]


class Terms(Spec):
    """Options of an entry of a row's `scorers` in addition to those of the scorer."""

    expected: str | None = None
    """Text to compare the answer with; by default the row's expected answer."""
    any_of: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Several texts to compare with; the best score counts."""
    all_of: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Several texts to compare with; the worst score counts."""
    negate: bool = False
    """Invert the entry."""
    at_least: Bound | None = None
    """Lowest score or figure that passes; by default 1 for scorers."""
    at_most: Bound | None = None
    """Highest score or figure that passes."""
    weight: Annotated[Bound, Field(ge=0)] = 1.0
    """Weight in the mean of a list with `at_least`; 0 means no effect."""

    @model_validator(mode="after")
    def _one_expectation(self) -> Self:
        if sum(each is not None for each in (self.expected, self.any_of, self.all_of)) > 1:
            raise ValueError("give one of expected, any_of and all_of")
        return self

    @property
    def texts(self) -> tuple[str, ...]:
        """Texts to compare with; empty for the row's expected answer."""
        return (self.expected,) if self.expected is not None else self.any_of or self.all_of or ()

    def hold(self, value: float, default: float | None) -> bool:
        """Return whether a score or figure is within the bounds."""
        low = default if self.at_least is None and self.at_most is None else self.at_least
        inside = (low is None or value >= low) and (self.at_most is None or value <= self.at_most)
        return inside is not self.negate


@dataclass(frozen=True, slots=True)
class Judged:
    """Result of an entry: whether it passes, its value in a mean, and why it fails."""

    holds: bool
    value: float
    why: str


@dataclass(frozen=True, slots=True)
class Expecting:
    """A case with a different expected answer."""

    case: Case
    answer: str | None

    @property
    def case_id(self) -> str:
        return self.case.case_id

    @property
    def messages(self) -> Sequence[Turn]:
        return self.case.messages

    @property
    def tools(self) -> ToolCalls | None:
        return self.case.tools

    @property
    def content(self) -> dict[str, JsonValue]:
        return self.case.content


@dataclass(frozen=True, slots=True)
class Assertion:
    """A scorer or measure with its bounds."""

    entry: Entry
    terms: Terms

    @property
    def words(self) -> str:
        """The requirement, for a reason: ``not contains 'Paris'``."""
        options = {**_options(self.entry), **_options(self.terms)}
        texts = [
            _shown(value)
            if key in ("expected", "pattern")
            else f"{key.replace('_', ' ')} {_shown(value)}"
            for key, value in options.items()
            if key not in ("type", "name", "negate", "weight") and not isinstance(value, dict)
        ]
        negated = "not " if self.terms.negate else ""
        text = f"{negated}{self.entry.name} {' '.join(texts)}".strip()
        return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"

    def judge(self, attempt: Attempt) -> Judged:
        """Score an answer against the bounds; raises `Unscorable`."""
        if isinstance(self.entry, Measure):
            figure = attempt.measured and self.entry.figure([attempt.measured])
            if figure is None:
                raise Unscorable(f"{self.words}: the answer's {self.entry.name} is unknown")
            holds = self.terms.hold(figure, None)
            return Judged(holds, float(holds), f"{self.words}: {figure:g}")
        score = self._score(attempt)
        holds = self.terms.hold(score.value, 1.0)
        value = 1 - score.value if self.terms.negate else score.value
        graded = f"scored {score.value:.2f}" if 0 < score.value < 1 else ""
        return Judged(holds, value, ": ".join(filter(None, [self.words, graded, score.reason])))

    def _score(self, attempt: Attempt) -> Score:
        scorer = cast("Scorer", self.entry)
        scores = [scorer.score(each) for each in self._attempts(attempt)]
        if failed := next((score for score in scores if score.failed), None):
            raise Unscorable(f"{self.words}: {failed.reason}")
        best = max if self.terms.any_of else min
        return best(scores, key=lambda score: score.value)

    def _attempts(self, attempt: Attempt) -> list[Attempt]:
        texts = self.terms.texts
        return [replace(attempt, case=Expecting(attempt.case, text)) for text in texts] or [attempt]

    def wrong_already(self, attempt: Attempt) -> bool:
        """Return whether a truncated answer fails whatever would have followed."""
        if isinstance(self.entry, Measure) or self.terms.negate:
            return False
        scorer, every = cast("Scorer", self.entry), all if self.terms.any_of else any
        return every(scorer.wrong_already(each) for each in self._attempts(attempt))

    def refusal(self, case: Case) -> str | None:
        """Return why no answer could pass, or None."""
        if isinstance(self.entry, Measure) or self.terms.negate:
            return None
        if self.entry.needs_expected and not self.terms.texts and case.answer is None:
            return "neither the entry nor the row has `expected`"
        cases = [Expecting(case, text) for text in self.terms.texts] or [case]
        reasons = [cast("Scorer", self.entry).refusal(each) for each in cases]
        return next(filter(None, reasons), None)

    def indulgence(self, case: Case) -> str | None:
        """Return why every answer would pass, or None."""
        if isinstance(self.entry, Measure) or self.terms.negate:
            return None
        return cast("Scorer", self.entry).indulgence(case)


@dataclass(frozen=True, slots=True)
class Entries:
    """A list of entries: all must pass, or their weighted mean must reach `at_least`."""

    parts: tuple[Assertion | Entries, ...]
    terms: Terms

    @property
    def words(self) -> str:
        """The requirements, one line each."""
        lines = [
            part.words if isinstance(part, Assertion) else f"({part.words.replace(chr(10), '; ')})"
            for part in self.parts
        ]
        if self.terms.at_least is not None:
            lines.append(f"mean at least {self.terms.at_least:g}")
        return "\n".join(lines)

    def judge(self, attempt: Attempt) -> Judged:
        pairs = [(part.judge(attempt), part.terms.weight) for part in self.parts]
        total = sum(weight for _, weight in pairs)
        mean = sum(each.value * weight for each, weight in pairs) / total if total else 0.0
        failed = [each.why for each, weight in pairs if weight and not each.holds]
        why = "; ".join(failed)
        if self.terms.at_least is None:
            return Judged(not failed, mean, why)
        below = f"mean {mean:.2f}, below {self.terms.at_least:g}: {why}"
        return Judged(mean >= self.terms.at_least, mean, below)

    def wrong_already(self, attempt: Attempt) -> bool:
        counted = [part for part in self.parts if part.terms.weight]
        return self.terms.at_least is None and any(part.wrong_already(attempt) for part in counted)

    def refusal(self, case: Case) -> str | None:
        """Return why no answer could pass, with the entry's number, or None."""
        if self.terms.at_least is not None:
            return None
        for index, part in enumerate(self.parts):
            if part.terms.weight and (why := part.refusal(case)):
                return f"`scorers[{index}]`: {why}"
        return None

    def indulgence(self, case: Case) -> str | None:
        """Return why every answer would pass, or None."""
        counted = [part for part in self.parts if part.terms.weight]
        reasons = [part.indulgence(case) for part in counted]
        return next(iter(reasons), "no entry has a weight") if all(reasons) else None


def _options(spec: Spec) -> dict[str, object]:
    fields = type(spec).model_fields.items()
    return {key: value for key, field in fields if (value := getattr(spec, key)) != field.default}


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_shown, cast("tuple[object, ...]", value)))
    return f"{value:g}" if isinstance(value, float) else clip(value)
