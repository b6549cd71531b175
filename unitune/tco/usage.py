"""How the model will be used, figure by figure, each with where it comes from.

A figure is what the command line or the job says; else what the newest comparison measured; else
what the rows count to; else an assumption, named as one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal

from unitune.backends.output_limit import REASONING
from unitune.cost.tokens import Count
from unitune.job.job import Job
from unitune.job.usage import Usage
from unitune.tco.documents import Figure, Source
from unitune.tco.request import BEST_HIT_RATE, WORST_HIT_RATE
from unitune.tco.tokens import Counted, MeanTokens, Measured

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
    usage, gathered = job.usage, _Gathering(job.usage, measured, counted)
    prompted, tuned = gathered.prompted(), gathered.tuned()
    newest = gathered.alternative(alternative, prompted)
    if requests_month is not None:
        gathered.note("requests a month", f"{requests_month:,}", "option", "--requests")
    gathered.note_plan(with_volume=requests_month is None)
    was_counted = any(figure.source == "counted" for figure in gathered.figures)
    factor = usage.reasoning_factor
    return Profile(
        requests_month=usage.requests_month if requests_month is None else requests_month,
        prompted=prompted,
        tuned=tuned,
        alternative=newest,
        hit_rate=USUAL_HIT_RATE if usage.cache_hit_rate == "auto" else usage.cache_hit_rate,
        reasoning=REASONING if factor == "auto" else (factor, factor, factor),
        hours_day=usage.hosting_hours_day,
        figures=tuple(gathered.figures),
        notes=counted.how if counted and was_counted else (),
    )


class _Gathering:
    """Takes each figure from the first source that has it, and notes which that was."""

    def __init__(self, usage: Usage, measured: Measured | None, counted: Counted | None) -> None:
        self._usage = usage
        self._measured = measured
        self._counted = counted
        self.figures: list[Figure] = []

    def note(self, name: str, value: str, source: Source, detail: str = "") -> None:
        self.figures.append(Figure(name=name, value=value, source=source, detail=detail))

    def note_plan(self, *, with_volume: bool) -> None:
        """Note what else the plan says or leaves to assumptions."""
        usage, span = self._usage, f"{WORST_HIT_RATE:.0%} to {BEST_HIT_RATE:.0%}"
        rate = USUAL_HIT_RATE if usage.cache_hit_rate == "auto" else usage.cache_hit_rate
        factor = usage.reasoning_factor
        reasoning = f"{REASONING[0]} to {REASONING[2]}" if factor == "auto" else f"{factor}"
        hours, prepared = usage.hosting_hours_day, usage.preparation_usd
        volume = ("requests_month", "requests a month", f"{usage.requests_month:,}", "an example")
        for key, name, value, assumed in (
            *([volume] if with_volume else []),
            ("months", "months", f"{usage.months}", "a year"),
            ("cache_hit_rate", "cache hit rate", f"{rate:.0%} ({span})", "the middle"),
            ("reasoning_factor", "hidden reasoning", f"{reasoning} times the answer", "if any"),
            ("hosting_hours_day", "deployment stands", f"{hours:f} h a day", "always"),
            ("runs", "trainings", f"{usage.runs}", "none fails or is repeated"),
            ("preparation_usd", "preparing rows", f"${prepared:,f}", "not counted"),
        ):
            if key in usage.model_fields_set and getattr(usage, key) != "auto":
                self.note(name, value, "job", f"usage.{key}")
            else:
                self.note(name, value, "assumed", f"{assumed}; usage.{key} sets it")

    def tuned(self) -> RequestTokens:
        mean, counted = self._measured and self._measured.candidate, self._counted
        given, rows = self._usage.tuned_tokens, counted and counted.tuned
        prompt = self._tokens("tuned prompt", given, mean and mean.prompt, rows)
        answer = self._answer("tuned answer", mean)
        shared = counted.shared_tuned if counted else Count()
        return RequestTokens(prompt, answer, shared, hidden=self._is_billed(mean))

    def prompted(self) -> RequestTokens:
        mean, counted = self._measured and self._measured.baseline, self._counted
        given, rows = self._usage.prompted_tokens, counted and counted.prompted
        which = counted.prompt if counted else ""
        prompt = self._tokens("prompted prompt", given, mean and mean.prompt, rows, which)
        answer = self._answer("prompted answer", mean)
        return RequestTokens(prompt, answer, self._shared(), hidden=self._is_billed(mean))

    def alternative(self, name: str | None, prompted: RequestTokens) -> RequestTokens:
        """Return its request: as measured where it competed, else as the prompted one's."""
        mean = self._measured.contenders.get(name) if self._measured and name else None
        if mean is None or self._usage.prompted_tokens != "auto":
            return replace(prompted, hidden=False)
        prompt = self._tokens("newest model's prompt", "auto", mean.prompt, None)
        answer = self._tokens("newest model's answer", "auto", mean.answer, None)
        return RequestTokens(prompt, answer, prompted.shared, hidden=True)

    def _answer(self, name: str, mean: MeanTokens | None) -> Count:
        given, rows = self._usage.answer_tokens, self._counted and self._counted.answer
        return self._tokens(name, given, mean and mean.answer, rows)

    def _is_billed(self, mean: MeanTokens | None) -> bool:
        """Whether the answer's tokens are those of a bill, hidden reasoning included."""
        return mean is not None and self._usage.answer_tokens == "auto"

    def _shared(self) -> Count:
        """Return what all prompts of the prompted model begin with."""
        measured, counted = self._measured, self._counted
        system = counted.shared_tuned if counted else Count()
        shared, mean = counted.shared_prompted if counted else Count(), None
        if measured and measured.baseline and measured.nearest_shots:
            shared = system  # each case's own shots come right after the system prompt
        elif measured and measured.baseline and measured.candidate:
            # What the best prompt adds to a row stands before its question.
            added = measured.baseline.prompt - measured.candidate.prompt
            mean = system.expected + max(0, added)
        return self._tokens("shared beginning", self._usage.shared_tokens, mean, shared)

    def _tokens(
        self,
        name: str,
        given: int | Literal["auto"],
        mean: int | None,
        counted: Count | None,
        which: str = "",
    ) -> Count:
        """Return a number of tokens from the first source that has it."""
        if given != "auto":
            self.note(name, f"{given:,} tokens", "job")
            return Count.of(given)
        if mean is not None:
            origin = self._measured.origin if self._measured else ""
            self.note(name, f"{mean:,} tokens", "measured", origin)
            return Count.of(mean)
        assert counted is not None
        span = "" if counted.exact else f" ({counted.low:,} to {counted.high:,})"
        self.note(name, f"{counted.expected:,}{span} tokens", "counted", which)
        return counted
