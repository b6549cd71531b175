"""What a refresh would change: what a vendor states now, beside what is known here.

Reading the vendor's page or API is not here (entry points ``unitune.prices``), nor writing it down
(`unitune.cost.prices.files`). Nothing refreshes by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from itertools import pairwise

from pydantic import BaseModel, ConfigDict

from unitune.backends.offer import Limits, ModelUpdate, Offer, PriceUpdate
from unitune.cost.prices.book import PriceBook
from unitune.job.prices import ANY_MODEL, OF_ANSWERS, Kind, PriceRow


class Change(BaseModel):
    """A fact that a vendor states, beside what was known of it."""

    model_config = ConfigDict(frozen=True)
    subject: str
    """What it is about, such as "gpt-4.1-2025-04-14 training, global"."""
    before: str | None
    """None: it was not known."""
    after: str
    source: str

    @property
    def changed(self) -> bool:
        """Whether it differs from what was known."""
        return self.before != self.after


def changes(book: PriceBook, backend: str, update: PriceUpdate) -> tuple[Change, ...]:
    """Return what a vendor states beside what is known here, the changed first."""
    known, offer = book.rows(backend), book.offer(backend)
    listed = [_price_change(known, row) for row in update.rows]
    listed += [change for model in update.models for change in _model_changes(offer, model)]
    return tuple(sorted(listed, key=lambda change: not change.changed))


def contradictions(rows: Iterable[PriceRow]) -> dict[str, str]:
    """Return why prices cannot be meant, in words, by the id of the row.

    Cached input dearer than input, input dearer than output, training for nothing: such rows stood
    in every public price list that was read, first-party ones too.

    Rows of one model, tier, day and source are compared.
    """
    reasons: dict[str, str] = {}
    groups: dict[tuple[object, ...], dict[Kind, PriceRow]] = {}
    for row in rows:
        if row.kind == "training" and row.usd == 0:
            reasons[row.id] = f"{row.id}: training for nothing"
        if row.kind in OF_ANSWERS:
            key = (row.backend, row.model, row.tier, row.tuned, row.as_of, row.source)
            groups.setdefault(key, {})[row.kind] = row
    for group in groups.values():
        present = [group[kind] for kind in ("cached-input", "input", "output") if kind in group]
        for low, high in pairwise(present):
            if low.usd > high.usd:
                reason = f"{low.id} is dearer than {high.id}"
                reasons |= dict.fromkeys((row.id for row in present), reason)
    return reasons


def _price_change(known: tuple[PriceRow, ...], row: PriceRow) -> Change:
    earlier = next((each for each in known if each.subject == row.subject), None)
    after, tier = row.rate, f", {row.tier}" if row.tier else ""
    what = f"{row.model} {'tuned ' if row.tuned else ''}{row.kind}{tier}"
    same = earlier is not None and (earlier.usd_least, earlier.usd, earlier.per) == (
        row.usd_least,
        row.usd,
        row.per,
    )
    return Change(
        subject=what.removeprefix(f"{ANY_MODEL} "),
        before=after if same else earlier and earlier.rate,
        after=after,
        source=row.source,
    )


def _model_changes(offer: Offer, update: ModelUpdate) -> Iterator[Change]:
    model = offer.model(update.model)
    if update.retires_on is not None:
        before = model.retires_on if model else None
        yield _change(f"{update.model} stops", before, update.retires_on, update.source)
    earlier = offer.terms(update.model).limits.model_dump()
    limits = update.limits or Limits()
    for name, value in limits.model_dump(exclude_none=True).items():
        what = f"{update.model} {name.replace('_', ' ')}"
        yield _change(what, earlier[name], value, update.source)


def _change(subject: str, before: date | int | None, after: date | int, source: str) -> Change:
    known = None if before is None else str(before)
    return Change(subject=subject, before=known, after=str(after), source=source)
