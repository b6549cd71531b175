"""How the model will be used, figure by figure, each with where it comes from.

A figure is what the command line or the job says; else what the newest comparison measured; else
what the rows count to; else an assumption, named as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from unitune.backends.output_limit import REASONING
from unitune.cost.tokens import Count
from unitune.job.job import Job
from unitune.job.tuning import Usage
from unitune.tco.documents import Figure, Source
from unitune.tco.tokens import Counted, Measured

BEST_HIT_RATE, WORST_HIT_RATE = Decimal("0.95"), Decimal(0)
"""Ends of the range beside the expected rate: some requests always come first, or after the vendor
has forgotten the prompt; and traffic may be so thin that none finds it."""
USUAL_HIT_RATE = Decimal("0.5")
"""The middle of the range, where nothing is known."""


@dataclass(frozen=True, slots=True)
class RequestTokens:
    """Tokens of a usual request to one model."""

    prompt: Count
    answer: Count
    shared: Count
    """That all of its prompts begin with."""
    hidden: bool
    """Whether hidden reasoning is in the answer already, because a vendor counted it."""


@dataclass(frozen=True, slots=True)
class Profile:
    """How the model will be used."""

    requests_month: int
    prompted: RequestTokens
    """A request to the base with the best prompt."""
    tuned: RequestTokens
    alternative: RequestTokens
    """A request to the newest untuned model with the best prompt."""
    hit_rate: Decimal
    reasoning: tuple[Decimal, Decimal, Decimal]
    """Factor of hidden reasoning, where a model reasons: low, expected, high."""
    hours_day: Decimal
    """Hours a day that a deployment stands, as planned."""
    figures: tuple[Figure, ...]
    """All of that for people."""
    notes: tuple[str, ...]
    """How tokens were counted, where they were."""


def says_all_tokens(usage: Usage) -> bool:
    """Whether nothing has to be counted or measured."""
    tokens = (usage.prompted_tokens, usage.tuned_tokens, usage.shared_tokens, usage.answer_tokens)
    return "auto" not in tokens


def profile(
    job: Job,
    *,
    alternative: str | None,
    requests_month: int | None,
    measured: Measured | None,
    counted: Counted | None,
) -> Profile:
    """Return how a job's model will be used.

    Args:
        job: Its `usage` goes before all but the next.
        alternative: Name of the newest untuned model.
        requests_month: Of the command line.
        measured: The newest comparison's tokens.
        counted: The rows' tokens; None only where the job says all of them.
    """
    usage, tokens = job.usage, _Tokens(measured, counted)
    best, candidate = (measured.baseline, measured.candidate) if measured else (None, None)
    newest = measured.contenders.get(alternative or "") if measured else None
    answer = usage.answer_tokens
    prompted = RequestTokens(
        tokens.take("prompted prompt", usage.prompted_tokens, best and best.prompt),
        tokens.take("prompted answer", answer, best and best.answer),
        tokens.take("shared beginning", usage.shared_tokens, _shared_mean(measured, counted)),
        hidden=best is not None and answer == "auto",
    )
    tuned = RequestTokens(
        tokens.take("tuned prompt", usage.tuned_tokens, candidate and candidate.prompt),
        tokens.take("tuned answer", answer, candidate and candidate.answer),
        counted.shared_tuned if counted else Count(),
        hidden=candidate is not None and answer == "auto",
    )
    other = RequestTokens(prompted.prompt, prompted.answer, prompted.shared, hidden=False)
    if newest is not None and usage.prompted_tokens == "auto":
        prompt = tokens.take("newest model's prompt", "auto", newest.prompt)
        written = tokens.take("newest model's answer", "auto", newest.answer)
        other = RequestTokens(prompt, written, prompted.shared, hidden=True)
    figures = (*tokens.figures, *_planned(usage, requests_month))
    factor = usage.reasoning_factor
    return Profile(
        requests_month=usage.requests_month if requests_month is None else requests_month,
        prompted=prompted,
        tuned=tuned,
        alternative=other,
        hit_rate=USUAL_HIT_RATE if usage.cache_hit_rate == "auto" else usage.cache_hit_rate,
        reasoning=REASONING if factor == "auto" else (factor, factor, factor),
        hours_day=usage.hosting_hours_day,
        figures=figures,
        notes=counted.how if counted and any(each.source == "counted" for each in figures) else (),
    )


class _Tokens:
    """Takes each number of tokens from the first source that has it, and notes which that was."""

    def __init__(self, measured: Measured | None, counted: Counted | None) -> None:
        self.figures: list[Figure] = []
        self._origin = measured.origin if measured else ""
        self._prompt = counted.prompt if counted else ""
        self._counts: dict[str, Count] = {}
        if counted is not None:
            # Each case's own shots come right after the system prompt.
            nearest = measured and measured.baseline and measured.nearest_shots
            self._counts = {
                "prompted prompt": counted.prompted,
                "prompted answer": counted.answer,
                "tuned prompt": counted.tuned,
                "tuned answer": counted.answer,
                "shared beginning": counted.shared_tuned if nearest else counted.shared_prompted,
            }

    def take(self, name: str, given: int | Literal["auto"], mean: int | None) -> Count:
        source: Source
        if given != "auto":
            source, detail, count = "job", "", Count.of(given)
        elif mean is not None:
            source, detail, count = "measured", self._origin, Count.of(mean)
        else:
            source, count = "counted", self._counts[name]
            detail = self._prompt if name == "prompted prompt" else ""
        span = "" if count.exact else f" ({count.low:,} to {count.high:,})"
        value = f"{count.expected:,}{span} tokens"
        self.figures.append(Figure(name=name, value=value, source=source, detail=detail))
        return count


def _shared_mean(measured: Measured | None, counted: Counted | None) -> int | None:
    """Return what all prompts of the prompted model begin with, as far as it was measured."""
    if measured is None or measured.nearest_shots or not (measured.baseline and measured.candidate):
        return None
    # What the best prompt adds to a row stands before its question.
    added = measured.baseline.prompt - measured.candidate.prompt
    return (counted.shared_tuned.expected if counted else 0) + max(0, added)


def _planned(usage: Usage, requests_month: int | None) -> Iterator[Figure]:
    """Yield what else the plan says or leaves to assumptions."""
    rate = USUAL_HIT_RATE if usage.cache_hit_rate == "auto" else usage.cache_hit_rate
    span = f"{100 * WORST_HIT_RATE:.0f} % to {100 * BEST_HIT_RATE:.0f} %"
    factor = usage.reasoning_factor
    reasoning = f"{REASONING[0]} to {REASONING[2]}" if factor == "auto" else f"{factor}"
    hours, prepared = usage.hosting_hours_day, usage.preparation_usd
    for key, name, value, assumed in (
        ("requests_month", "requests a month", f"{usage.requests_month:,}", "an example"),
        ("months", "months", f"{usage.months}", "a year"),
        ("cache_hit_rate", "cache hit rate", f"{100 * rate:.0f} % ({span})", "the middle"),
        ("reasoning_factor", "hidden reasoning", f"{reasoning} times the answer", "if any"),
        ("hosting_hours_day", "deployment stands", f"{hours:f} h a day", "always"),
        ("runs", "trainings", f"{usage.runs}", "none fails or is repeated"),
        ("preparation_usd", "preparing rows", f"${prepared:,f}", "not counted"),
    ):
        if key == "requests_month" and requests_month is not None:
            said = f"{requests_month:,}"
            yield Figure(name=name, value=said, source="option", detail="--requests")
        elif key in usage.model_fields_set and getattr(usage, key) != "auto":
            yield Figure(name=name, value=value, source="job", detail=f"usage.{key}")
        else:
            detail = f"{assumed}; usage.{key} sets it"
            yield Figure(name=name, value=value, source="assumed", detail=detail)
