"""Compile the figures of a model's usage, each with its source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, NamedTuple

from unitune.backends.output_limit import REASONING
from unitune.cost.tokens import Count
from unitune.job.job import Job
from unitune.job.tuning import Usage
from unitune.tco.documents import Figure, Role, Source
from unitune.tco.serving import BEST_HIT_RATE, WORST_HIT_RATE, Request, hit_rate
from unitune.tco.tokens import Tokens


class Use(NamedTuple):
    """Average request per serving option, and all figures with their sources."""

    requests: dict[Role, Request]
    figures: tuple[Figure, ...]
    notes: tuple[str, ...]


def says_all_tokens(usage: Usage) -> bool:
    """Return whether the job gives all token counts, so that nothing is counted or measured."""
    tokens = (usage.prompted_tokens, usage.tuned_tokens, usage.shared_tokens, usage.answer_tokens)
    return "auto" not in tokens


def use_of(job: Job, measured: Tokens, counted: Tokens, requests_month: int | None) -> Use:
    """Return how a job's model will be used. `counted` may be empty if the job gives all tokens."""
    usage, figures = job.usage, list[Figure]()

    def take(name: str, given: int | Literal["auto"]) -> Count:
        """Return a number of tokens from the first source that has it, and record the source."""
        source: Source
        if given != "auto":
            source, detail, count = "job", "", Count.of(given)
        elif name in measured.counts:
            source, detail, count = "measured", measured.detail, measured.counts[name]
        else:
            source, count = "counted", counted.counts[name]
            detail = counted.detail if name == "prompted prompt" else ""
        span = "" if count.exact else f" ({count.low:,} to {count.high:,})"
        value = f"{count.expected:,}{span} tokens"
        figures.append(Figure(name=name, value=value, source=source, detail=detail))
        return count

    def request(side: str, given: int | Literal["auto"], answer: int | Literal["auto"]) -> Request:
        prompt, written = take(f"{side} prompt", given), take(f"{side} answer", answer)
        return Request(prompt, written, shows_all=figures[-1].source == "measured")

    prompted = request("prompted", usage.prompted_tokens, usage.answer_tokens)
    prompted = replace(prompted, shared=take("shared beginning", usage.shared_tokens))
    tuned = request("tuned", usage.tuned_tokens, usage.answer_tokens)
    newest = replace(prompted, shows_all=False)
    if "newest model's prompt" in measured.counts and usage.prompted_tokens == "auto":
        newest = replace(request("newest model's", "auto", "auto"), shared=prompted.shared)
    is_counted = any(each.source == "counted" for each in figures)
    return Use(
        {
            "prompted": prompted,
            "tuned": replace(tuned, shared=counted.shared_tuned),
            "newest": newest,
        },
        (*figures, *_planned(usage, requests_month)),
        counted.notes if is_counted else (),
    )


def _planned(usage: Usage, requests_month: int | None) -> Iterator[Figure]:
    rate = hit_rate(usage)
    span = f"{100 * WORST_HIT_RATE:.0f} % to {100 * BEST_HIT_RATE:.0f} %"
    factor = usage.reasoning_factor
    reasoning = f"{REASONING[0]} to {REASONING[2]}" if factor == "auto" else f"{factor}"
    hours, prepared = usage.hosting_hours_day, usage.preparation_usd
    for key, name, value, assumed in (
        ("requests_month", "requests a month", f"{usage.requests_month:,}", "an example"),
        ("months", "months", f"{usage.months}", "a year"),
        ("cache_hit_rate", "cache hit rate", f"{100 * rate:.0f} % ({span})", "the middle"),
        ("reasoning_factor", "hidden reasoning", f"{reasoning} times the answer", "if any"),
        ("hosting_hours_day", "deployment running", f"{hours:f} h a day", "always"),
        ("runs", "trainings", f"{usage.runs}", "no failed or repeated trainings"),
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
