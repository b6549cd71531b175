"""What a refresh would change: what a vendor tells now, beside what is known here.

Asking the vendor is not here (entry points ``unitune.prices``), nor writing it down
(`unitune.cost.prices.files`). Nothing refreshes by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from pydantic import BaseModel, ConfigDict

from unitune.backends.offer import Limits, ModelUpdate, Offer, PriceUpdate
from unitune.cost.prices.book import PriceBook
from unitune.job.prices import ANY_MODEL, PriceRow, Unit

A_UNIT: dict[Unit, str] = {
    "million-tokens": "a million",
    "hour": "an hour",
    "gpu-hour": "a GPU hour",
    "month": "a month",
    "gb-month": "a GB and month",
}


class Change(BaseModel):
    """One thing that a vendor tells, beside what was known of it."""

    model_config = ConfigDict(frozen=True)
    subject: str
    """What it is about, such as "gpt-4.1-2025-04-14 training, global"."""
    before: str | None
    """None: it was not known."""
    after: str
    source: str

    @property
    def changed(self) -> bool:
        """Whether it is another than was known."""
        return self.before != self.after


def changes(book: PriceBook, backend: str, told: PriceUpdate) -> tuple[Change, ...]:
    """Return what a vendor tells beside what is known here, the changed first.

    Args:
        book: What is known.
        backend: The vendor.
        told: What it tells.
    """
    known = book.rows(backend)
    found = [*(_of_row(known, row) for row in told.rows)]
    found += [change for update in told.models for change in _of_model(book.offer(backend), update)]
    return tuple(sorted(found, key=lambda change: not change.changed))


def amount(row: PriceRow) -> str:
    """Return a price with what it is for, such as ``$1.70 an hour``."""
    return f"{row.amount} {A_UNIT[row.per]}"


def _of_row(known: tuple[PriceRow, ...], row: PriceRow) -> Change:
    earlier = next((one for one in known if one.subject == row.subject), None)
    after, where = amount(row), f", {row.tier}" if row.tier else ""
    what = f"{row.model} {'tuned ' if row.tuned else ''}{row.kind}{where}"
    return Change(
        subject=what.removeprefix(f"{ANY_MODEL} "),
        before=None if earlier is None else after if _equal(earlier, row) else amount(earlier),
        after=after,
        source=row.source,
    )


def _equal(one: PriceRow, other: PriceRow) -> bool:
    return (one.usd_least, one.usd, one.per) == (other.usd_least, other.usd, other.per)


def _of_model(offer: Offer, update: ModelUpdate) -> Iterator[Change]:
    model = offer.model(update.model)
    if update.retires_on is not None:
        before = model.retires_on if model else None
        yield _change(f"{update.model} stops", before, update.retires_on, update.source)
    now = (update.limits or Limits()).model_dump(exclude_none=True)
    earlier = offer.limits_for(update.model).model_dump()
    for name, value in now.items():
        what = f"{update.model} {name.replace('_', ' ')}"
        yield _change(what, earlier[name], value, update.source)


def _change(subject: str, before: date | int | None, after: date | int, source: str) -> Change:
    told = None if before is None else str(before)
    return Change(subject=subject, before=told, after=str(after), source=source)
