"""What speaks against relying on a price: its age, or that only the job's folder states it.

Prices of this field change within weeks, and undated tables rot: one package on PyPI had a model's
training a third too cheap after a price change. So each row carries the day on which its source
gave it, and is a notice, a warning or a refusal (exit 6) by its age; past its own last day it is
refused at any.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from typing import Literal

from unitune.cost.prices.book import OF_FOLDER, PriceBook
from unitune.findings import Finding, error, note, warning
from unitune.job.job import Job
from unitune.job.prices import OWN_WORD, PriceRow

Freshness = Literal["fresh", "aging", "old", "stale"]
# Older than this is a notice, a warning, a refusal. Vendors announce changes one to three months
# ahead, and half a year is longer than any price list of 2026 stood still.
AGING_DAYS, OLD_DAYS, STALE_DAYS = 45, 90, 180
STALE_CODE = "stale-price"


def freshness(row: PriceRow, day: date) -> Freshness:
    """Return how far a row can be relied on."""
    age = (day - row.as_of).days
    if age > STALE_DAYS or not row.holds_on(day):
        return "stale"
    if age > OLD_DAYS:
        return "old"
    return "aging" if age > AGING_DAYS else "fresh"


def age_findings(
    rows: Iterable[PriceRow], day: date, *, allow_stale: bool = False
) -> tuple[Finding, ...]:
    """Return what the age of prices says against relying on them, once for each source and day."""
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
        age = f" and held until {row.valid_to}"
    what = f"the price of {row.backend} for {kinds} is of {row.as_of}{age} ({row.source})."
    fix = (
        f"Look there, and write today's price into prices.yaml; `unitune prices {row.backend}` "
        "shows all rows."
    )
    if state == "aging":
        return note("aging-price", what)
    if state == "old":
        return warning("old-price", what, fix)
    kind = warning if allow_stale else error
    return kind(STALE_CODE, what, f"{fix} --allow-unpriced uses it all the same.")


def folder_findings(
    rows: Iterable[PriceRow], book: PriceBook, job: Job, day: date
) -> Iterator[Finding]:
    """Warn of prices that only the job or a file beside it states: they may be a stranger's.

    Args:
        rows: The prices that are used.
        book: Where they come from.
        job: Its model, method and options.
        day: Whose prices are taken.
    """
    for row in rows:
        if row.origin in OF_FOLDER and not row.usd and not _known_price(row, book.known, job, day):
            yield warning(
                "free-by-own-price",
                f"{row.kind} costs $0 according to {OWN_WORD[row.origin]}, and no other price is "
                "known, so no budget limits it.",
                f"Remove the price unless {row.backend} charges you nothing.",
            )
        stated = None if row.origin in OF_FOLDER else _known_price(row, book, job, day)
        if stated is not None and stated.origin in OF_FOLDER:
            yield warning(
                "lower-price",
                f"{OWN_WORD[stated.origin]} says {stated.rate} for {row.kind}. The known price "
                f"applies: {row.rate}.",
                "Only --price and your own prices file can lower a known price.",
            )


def _known_price(row: PriceRow, book: PriceBook, job: Job, day: date) -> PriceRow | None:
    model = job.base_model if row.fits(job.base_model) else row.model
    tier = row.tier or book.offer(row.backend).tier(job.options.get(row.backend, {}))
    scoped = row.model_copy(update={"method": job.method, "tier": tier})
    return book.same_price(scoped, model, day, as_written=True)
