"""How the model will be used, figure by figure, each with where it comes from.

A figure is what the command line or the job says; else what the newest comparison measured; else
what the rows count to; else an assumption, named as one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict

from unitune.backends.output_limit import REASONING
from unitune.cost.tokens import Count
from unitune.job.job import Job
from unitune.job.usage import Usage
from unitune.tco.counted import Counted
from unitune.tco.horizon import hours_a_month
from unitune.tco.measured import MeanTokens, Measured
from unitune.tco.request import BEST_HIT_RATE, WORST_HIT_RATE

Source = Literal["option", "job", "measured", "counted", "assumed"]

USUAL_HIT_RATE = Decimal("0.5")
"""The middle of what the range reckons with, for want of anything known."""
PLAIN = (Decimal(1), Decimal(1), Decimal(1))


class Figure(BaseModel):
    """A figure of the usage, with where it comes from."""

    model_config = ConfigDict(frozen=True)
    name: str
    value: str
    source: Source
    detail: str = ""
    """Which comparison, which rows, or what is assumed."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of a usual request to one model.

    Args:
        prompt: Of its prompt.
        answer: Of its answer.
        shared: Tokens that all of its prompts begin with.
        hidden: Whether hidden reasoning is in the answer already, because a vendor counted it.
    """

    prompt: Count
    answer: Count
    shared: Count
    hidden: bool


@dataclass(frozen=True, slots=True)
class Profile:
    """How the model will be used.

    Args:
        requests_month: Requests a month.
        prompted: A request to the base with the best prompt.
        tuned: A request to the tuned model.
        alternative: A request to the newest untuned model with the best prompt.
        hit_rate: Share of requests whose beginning is cached.
        reasoning: Factor of hidden reasoning, where a model reasons: low, expected, high.
        hosting_hours: Hours a month that a deployment stands, as planned.
        figures: All of that for people.
        notes: How it was counted, where it was.
    """

    requests_month: int
    prompted: Tokens
    tuned: Tokens
    alternative: Tokens
    hit_rate: Decimal
    reasoning: tuple[Decimal, Decimal, Decimal]
    hosting_hours: Decimal
    figures: tuple[Figure, ...]
    notes: tuple[str, ...]


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
        requests_month: As the command line says.
        measured: The newest comparison's tokens.
        counted: The rows' tokens; None only where the job says all of them.
    """
    gathered = _Gathering(job.usage, measured, counted)
    prompted, tuned = gathered.prompted(), gathered.tuned()
    newest = gathered.alternative(alternative, prompted)
    volume = gathered.volume(requests_month)
    gathered.plan()
    usage, factor = job.usage, job.usage.reasoning_factor
    return Profile(
        requests_month=volume,
        prompted=prompted,
        tuned=tuned,
        alternative=newest,
        hit_rate=USUAL_HIT_RATE if usage.cache_hit_rate == "auto" else usage.cache_hit_rate,
        reasoning=REASONING if factor == "auto" else (factor, factor, factor),
        hosting_hours=hours_a_month(usage.hosting_hours_day),
        figures=tuple(gathered.figures),
        notes=counted.how
        if counted and any(one.source == "counted" for one in gathered.figures)
        else (),
    )


class _Gathering:
    """Finds each figure and notes where it was found."""

    def __init__(self, usage: Usage, measured: Measured | None, counted: Counted | None) -> None:
        self._usage = usage
        self._measured = measured
        self._counted = counted
        self.figures: list[Figure] = []

    def volume(self, given: int | None) -> int:
        if given is not None:
            self._note("requests a month", f"{given:,}", "option", "--requests")
            return given
        planned = self._usage.requests_month
        self._said("requests a month", f"{planned:,}", "requests_month", "an example")
        return planned

    def plan(self) -> None:
        """Note what else the plan says or leaves to assumptions."""
        usage = self._usage
        rate = USUAL_HIT_RATE if usage.cache_hit_rate == "auto" else usage.cache_hit_rate
        factor = (
            f"{REASONING[0]} to {REASONING[2]}"
            if usage.reasoning_factor == "auto"
            else f"{usage.reasoning_factor}"
        )
        self._said("months", f"{usage.months}", "months", "a year")
        self._said(
            "cache hit rate",
            f"{rate:.0%} ({WORST_HIT_RATE:.0%} to {BEST_HIT_RATE:.0%})",
            "cache_hit_rate",
            "the middle",
        )
        self._said(
            "hidden reasoning", f"{factor} times the answer", "reasoning_factor", "if it reasons"
        )
        self._said(
            "deployment stands",
            f"{usage.hosting_hours_day:f} h a day",
            "hosting_hours_day",
            "always",
        )
        self._said("trainings", f"{usage.runs}", "runs", "none fails or is repeated")
        self._said(
            "preparing rows", f"${usage.preparation_usd:,f}", "preparation_usd", "not counted"
        )

    def tuned(self) -> Tokens:
        found = self._measured and self._measured.candidate
        usage, counted = self._usage, self._counted
        prompt = self._tokens(
            "tuned prompt", usage.tuned_tokens, found and found.prompt, counted and counted.tuned
        )
        answer = self._tokens(
            "tuned answer", usage.answer_tokens, found and found.answer, counted and counted.answer
        )
        shared = counted.shared_tuned if counted else Count()
        return Tokens(prompt, answer, shared, hidden=self._is_billed(found))

    def prompted(self) -> Tokens:
        found = self._measured and self._measured.baseline
        usage, counted = self._usage, self._counted
        prompt = self._tokens(
            "prompted prompt",
            usage.prompted_tokens,
            found and found.prompt,
            counted and counted.prompted,
            counted.prompt if counted else "",
        )
        answer = self._tokens(
            "prompted answer",
            usage.answer_tokens,
            found and found.answer,
            counted and counted.answer,
        )
        return Tokens(prompt, answer, self._shared(), hidden=self._is_billed(found))

    def alternative(self, name: str | None, prompted: Tokens) -> Tokens:
        """Return its request: as measured where it competed, else as the prompted one's."""
        found = self._measured.others.get(name) if self._measured and name else None
        if found is None or self._usage.prompted_tokens != "auto":
            return replace(prompted, hidden=False)
        self._note("newest model's prompt", f"{found.prompt:,} tokens", "measured", self._origin)
        self._note("newest model's answer", f"{found.answer:,} tokens", "measured", self._origin)
        return Tokens(Count.of(found.prompt), Count.of(found.answer), prompted.shared, hidden=True)

    def _is_billed(self, found: MeanTokens | None) -> bool:
        """Whether the answer's tokens are those of a bill, hidden reasoning included."""
        return found is not None and self._usage.answer_tokens == "auto"

    def _shared(self) -> Count:
        """Return what all prompts of the prompted model begin with."""
        usage, measured, counted = self._usage, self._measured, self._counted
        begun = counted.shared_tuned if counted else Count()
        shared = counted.shared_prompted if counted else Count()
        found: int | None = None
        if measured and measured.baseline and measured.nearest_shots:
            shared = begun  # each case's own shots come right after the system prompt
        elif measured and measured.baseline and measured.candidate:
            # What the best prompt adds to a row stands before its question.
            added = measured.baseline.prompt - measured.candidate.prompt
            found = begun.expected + max(0, added)
        return self._tokens("shared beginning", usage.shared_tokens, found, shared)

    def _tokens(
        self,
        name: str,
        said: int | Literal["auto"],
        found: int | None,
        counted: Count | None,
        which: str = "",
    ) -> Count:
        """Return a number of tokens from the first that knows it."""
        if said != "auto":
            self._note(name, f"{said:,} tokens", "job", "")
            return Count.of(said)
        if found is not None:
            self._note(name, f"{found:,} tokens", "measured", self._origin)
            return Count.of(found)
        assert counted is not None
        self._note(name, f"{_range(counted)} tokens", "counted", which)
        return counted

    def _said(self, name: str, value: str, key: str, assumed: str) -> None:
        """Note a figure that the job says, or that is assumed where it does not."""
        if key in self._usage.model_fields_set and getattr(self._usage, key) != "auto":
            self._note(name, value, "job", f"usage.{key}")
        else:
            self._note(name, value, "assumed", f"{assumed}; usage.{key} says otherwise")

    def _note(self, name: str, value: str, source: Source, detail: str) -> None:
        self.figures.append(Figure(name=name, value=value, source=source, detail=detail))

    @property
    def _origin(self) -> str:
        return self._measured.origin if self._measured else ""


def _range(count: Count) -> str:
    if count.exact:
        return f"{count.expected:,}"
    return f"{count.expected:,} ({count.low:,} to {count.high:,})"
