"""Price lists of all backends: as JSON by their models, and for a person a line each.

One backend in full is printed by `unitune.cli.pricetable`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from pathlib import Path

from pydantic import BaseModel
from rich.table import Table
from rich.text import Text

from unitune.backends import registry
from unitune.backends.offer import Offer
from unitune.cli.output import console
from unitune.cost.prices.book import PriceBook, book_here, rank
from unitune.cost.prices.refresh import Change
from unitune.cost.prices.staleness import Freshness, freshness
from unitune.job.prices import PriceRow, SourceKind
from unitune.workspace.today import today

AGE_STYLES: dict[Freshness, str] = {
    "fresh": "green",
    "aging": "cyan",
    "old": "yellow",
    "stale": "red",
}
SPEAKERS: dict[SourceKind, str] = {
    "first-party-api": "its API",
    "first-party-page": "its own page",
    "sdk": "its SDK",
    "third-party": "third parties",
    "own": "you",
}


class PriceView(BaseModel):
    """A price with its age."""

    price: PriceRow
    age_days: int
    freshness: Freshness
    overridden: bool
    """Whether another row says something else of the same thing, and wins."""


class BackendPrices(BaseModel):
    """All prices of a backend."""

    backend: str
    standing: str
    """That it has closed, charges nothing, only answers, or is not launched at yet; or nothing."""
    prices: tuple[PriceView, ...]


class PriceList(BaseModel):
    """What `unitune prices --json` prints."""

    schema_version: int = 1
    day: date
    backends: tuple[BackendPrices, ...]


class Refreshing(BaseModel):
    """What `unitune prices refresh --json` prints."""

    schema_version: int = 1
    file: Path
    written: bool = False
    changes: tuple[Change, ...]
    notes: tuple[str, ...]


def price_list(names: Iterable[str], folder: Path) -> PriceList:
    """Return the prices of backends, as they are known in a folder."""
    book, day = book_here(folder), today()
    return PriceList(day=day, backends=tuple(_backend(book, name, day) for name in names))


def _backend(book: PriceBook, name: str, day: date) -> BackendPrices:
    rows = book.rows(name)
    best: dict[object, PriceRow] = {}
    for row in sorted(rows, key=lambda one: rank(one, day)):
        best.setdefault(row.subject, row)
    views = (
        PriceView(
            price=row,
            age_days=(day - row.as_of).days,
            freshness=freshness(row, day),
            overridden=best[row.subject] is not row,
        )
        for row in rows
    )
    return BackendPrices(backend=name, standing=_standing(book.offer(name)), prices=tuple(views))


def _standing(offer: Offer) -> str:
    if offer.closed is not None:
        return f"closed by {offer.closed.by}"
    if offer.training_price == "none":
        return "no charge for training"
    if not offer.methods:
        return "only answers"
    return "" if offer.name in registry.backend_names() else "no launch from here yet"


def print_all(found: PriceList) -> None:
    """Print all backends, a line each."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("backend", no_wrap=True)
    table.add_column("prices", justify="right", no_wrap=True)
    table.add_column("oldest", justify="right", no_wrap=True)
    table.add_column("said by", overflow="fold")
    table.add_column("", style="yellow", overflow="fold")
    for each in found.backends:
        used = [view for view in each.prices if not view.overridden]
        table.add_row(
            Text(each.backend, "bold"),
            str(len(used)) if used else Text("none", "dim"),
            aged(max(used, key=lambda view: view.age_days)) if used else "",
            ", ".join(dict.fromkeys(SPEAKERS[view.price.source_kind] for view in used)),
            each.standing,
        )
    console().print(table)
    console().print(
        "More of one: unitune prices NAME. Answers of untuned models come from genai-prices "
        "too, where it is installed (extra `prices`).",
        style="dim",
    )


def aged(view: PriceView) -> Text:
    """Return how old a price is, coloured by what that means."""
    days = "1 day" if view.age_days == 1 else f"{view.age_days} days"
    return Text(days, AGE_STYLES[view.freshness])


def print_refreshing(found: Refreshing) -> None:
    """Print what a refresh would change."""
    changed = [change for change in found.changes if change.changed]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("what", "known", "told now"):
        table.add_column(heading, overflow="fold")
    for change in changed:
        before = Text(change.before, "red") if change.before else Text("nothing", "dim")
        table.add_row(change.subject, before, Text(change.after, "green"))
    if changed:
        console().print(table)
    same = len(found.changes) - len(changed)
    console().print(f"{len(changed)} changed or new, {same} confirmed.")
    for note in found.notes:
        console().print(note, style="dim")
