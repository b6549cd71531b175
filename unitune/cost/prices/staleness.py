"""Warn about prices that are old, or that only the job's folder states."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from typing import Literal

from unitune.cost.prices.book import OF_FOLDER, PriceBook
from unitune.findings import Finding, error, note, warning
from unitune.job.job import Job
from unitune.job.prices import OWN_WORD, PriceRow

Freshness = Literal["fresh", "aging", "old", "stale"]
# Age in days for a note, a warning and an error. Vendors announce changes one to three months
# ahead, and no price list of 2026 stayed the same for half a year.
AGING_DAYS, OLD_DAYS, STALE_DAYS = 45, 90, 180
STALE_CODE = "stale-price"


def freshness(row: PriceRow, day: date) -> Freshness:
    """Return how reliable a row is by its age."""
    age = (day - row.as_of).days
    if age > STALE_DAYS or not row.holds_on(day):
        return "stale"
    if age > OLD_DAYS:
        return "old"
    return "aging" if age > AGING_DAYS else "fresh"


def age_findings(
    rows: Iterable[PriceRow], day: date, *, allow_stale: bool = False
) -> tuple[Finding, ...]:
    """Return findings about old prices, one per source and day."""
    sources: dict[tuple[str, str, date, date | None], list[PriceRow]] = {}
    for row in {row.id: row for row in rows}.values():
        sources.setdefault((row.backend, row.source, row.as_of, row.valid_to), []).append(row)
    findings = (_finding(group, day, allow_stale=allow_stale) for group in sources.values())
    return tuple(finding for finding in findings if finding is not None)


def _finding(rows: list[PriceRow], day: date, *, allow_stale: bool) -> Finding | None:
    row, state = rows[0], freshness(rows[0], day)
    if state == "fresh":
        return None
    kinds = ", ".join(dict.fromkeys(row.kind for row in rows))
    age = f", {(day - row.as_of).days} days ago"
    if row.valid_to is not None and day > row.valid_to:
        age = f" and valid until {row.valid_to}"
    what = f"the price of {row.backend} for {kinds} is from {row.as_of}{age} ({row.source})."
    fix = (
        "Check the source and write today's price into prices.yaml; `unitune prices "
        f"{row.backend}` shows all rows."
    )
    if state == "aging":
        return note("aging-price", what)
    if state == "old":
        return warning("old-price", what, fix)
    kind = warning if allow_stale else error
    return kind(STALE_CODE, what, f"{fix} Use --allow-unpriced to accept it.")


def folder_findings(
    rows: Iterable[PriceRow], book: PriceBook, job: Job, day: date
) -> Iterator[Finding]:
    """Yield warnings about prices that only the job or a stranger's file next to it may state."""
    for row in rows:
        if row.origin in OF_FOLDER and not row.usd and not _known_price(row, book.known, job, day):
            yield warning(
                "free-by-own-price",
                f"{row.kind} costs $0 according to {OWN_WORD[row.origin]}, and no other price is "
                "known, so no budget limits it.",
                f"Remove the price unless {row.backend} is free for you.",
            )
        stated = None if row.origin in OF_FOLDER else _known_price(row, book, job, day)
        if stated is not None and stated.origin in OF_FOLDER:
            yield warning(
                "lower-price",
                f"{OWN_WORD[stated.origin]} sets {stated.rate} for {row.kind}, but the known "
                f"price applies: {row.rate}.",
                "Only --price and your own prices file can lower a known price.",
            )


def _known_price(row: PriceRow, book: PriceBook, job: Job, day: date) -> PriceRow | None:
    model = job.base_model if row.fits(job.base_model) else row.model
    tier = row.tier or book.offer(row.backend).tier(job.options.get(row.backend, {}))
    scoped = row.model_copy(update={"method": job.method, "tier": tier})
    return book.same_price(scoped, model, day, as_written=True)
