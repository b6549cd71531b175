"""Find old prices, compare them with what a vendor states now, and write a prices file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from itertools import groupby, pairwise
from pathlib import Path
from typing import Literal

from unitune.backends.offer import Limits, ModelUpdate, Offer, PriceUpdate
from unitune.cost.prices.book import OF_FOLDER, PriceBook, Refreshed, read_prices
from unitune.documents import Frozen
from unitune.files import yaml_file
from unitune.files.filesystem import replacing
from unitune.findings import Finding, error, note, warning
from unitune.job.job import Job
from unitune.job.prices import (
    ANY_MODEL,
    OF_ANSWERS,
    OWN_WORD,
    USUAL_UNIT,
    Kind,
    PriceEntry,
    PriceRow,
    rows_of,
)
from unitune.workspace.user_settings import today

COMMON = {"backend", "as_of", "valid_from", "valid_to", "source", "source_kind"}
OF_A_ROW = {"model", "method", "tier", "tuned", "note"}
MARK = "# Below: written by `unitune prices refresh`; edits are lost."


class Change(Frozen):
    """Fact that a vendor states, with the value known before."""

    subject: str
    """Subject of the fact, such as "gpt-4.1-2025-04-14 training, global"."""
    before: str | None
    """Previous value; None if it was unknown."""
    after: str
    source: str

    @property
    def changed(self) -> bool:
        """True if it differs from the known value."""
        return self.before != self.after


def changes(book: PriceBook, backend: str, update: PriceUpdate) -> tuple[Change, ...]:
    """Return the facts that a vendor states, those that changed first."""
    known, offer = book.rows(backend), book.offer(backend)
    listed = [_price_change(known, row) for row in update.rows]
    listed += [change for model in update.models for change in _model_changes(offer, model)]
    return tuple(sorted(listed, key=lambda change: not change.changed))


def contradictions(rows: Iterable[PriceRow]) -> dict[str, str]:
    """Return reasons why prices of one model, tier, day and source cannot be right, by row id.

    Cached input above input, input above output, or free training without a note occurred in every
    public price list that was read.
    """
    reasons: dict[str, str] = {}
    groups: dict[tuple[object, ...], dict[Kind, PriceRow]] = {}
    for row in rows:
        if row.kind == "training" and row.usd == 0 and not row.note:
            reasons[row.id] = f"{row.id}: training is free without a note"
        if row.kind in OF_ANSWERS:
            key = (row.backend, row.model, row.tier, row.tuned, row.as_of, row.source)
            groups.setdefault(key, {})[row.kind] = row
    for group in groups.values():
        present = [group[kind] for kind in ("cached-input", "input", "output") if kind in group]
        for low, high in pairwise(present):
            if low.usd > high.usd:
                reason = f"{low.id} is more expensive than {high.id}"
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


def write_refreshed(path: Path, refreshed: Refreshed) -> None:
    """Replace the vendors' facts in a prices file. Raises JobError for a key ``refreshed``."""
    mine = path.read_text(encoding="utf-8-sig").partition(MARK)[0] if path.exists() else ""
    content = refreshed.model_dump(mode="json", exclude_defaults=True)
    text = f"{mine.rstrip()}\n\n{MARK}\n" if mine.strip() else f"{MARK}\n"
    text += yaml_file.dump({"refreshed": content})
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        draft.write(text)
        draft.flush()
        read_prices(Path(draft.name))


def merged(
    old: Refreshed, rows: tuple[PriceRow, ...], models: tuple[ModelUpdate, ...]
) -> Refreshed:
    """Return the facts after a refresh: new ones replace old ones with the same subject."""
    priced = {row.subject for row in rows}
    kept = rows_of(old.prices, origin="project", day=today())
    still_valid = [row for row in kept if row.subject not in priced]
    updated = {(update.backend, update.model) for update in models}
    others = tuple(each for each in old.models if (each.backend, each.model) not in updated)
    return Refreshed(prices=entries_of([*still_valid, *rows]), models=(*others, *models))


def entries_of(rows: Iterable[PriceRow]) -> tuple[PriceEntry, ...]:
    """Return rows as entries of a prices file; values that neighbours share are written once."""
    grouped = groupby(rows, key=lambda row: row.model_dump(include=COMMON, exclude_none=True))
    return tuple(
        PriceEntry.model_validate({**common, "rows": [_line(row) for row in group]})
        for common, group in grouped
    )


def _line(row: PriceRow) -> dict[str, object]:
    unit = "" if row.per == USUAL_UNIT[row.kind] else f"/{row.per}"
    values = row.model_dump(include=OF_A_ROW, exclude_defaults=True)
    return {**values, row.kind: f"{row.written}{unit}"}


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
    offer, options = book.offer(row.backend), job.options.get(row.backend, {})
    tier_of = offer.serving_tier if row.kind == "hosting" or row.tuned else offer.tier
    tier = row.tier or tier_of(options, model)
    scoped = row.model_copy(update={"method": job.method, "tier": tier})
    return book.same_price(scoped, model, day, as_written=True)
