"""Print price lists: as JSON, as a line per backend, or one backend in full."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pydantic import BaseModel
from rich.table import Table
from rich.text import Text

from unitune.backends import registry
from unitune.backends.offer import Offer
from unitune.cli.output import console, new_table
from unitune.cost.prices.book import PriceBook, book_here, rank
from unitune.cost.prices.refresh import Freshness, freshness
from unitune.job.prices import ANY_MODEL, OF_ANSWERS, PriceRow, SourceKind, Unit
from unitune.render.typography import counted
from unitune.workspace.user_settings import today

AGE_STYLES: dict[Freshness, str] = {
    "fresh": "green",
    "aging": "cyan",
    "old": "yellow",
    "stale": "red",
}
AGE_WORDS: dict[Freshness, str] = {
    "fresh": "",
    "aging": ", getting old",
    "old": ", old: check it",
    "stale": ", too old to rely on",
}
SOURCE_NAMES: dict[SourceKind, str] = {
    "first-party-api": "its API",
    "first-party-page": "its own page",
    "sdk": "its SDK",
    "third-party": "third parties",
    "own": "you",
}
SHORT_UNITS: dict[Unit, str] = {
    "million-tokens": "",
    "hour": "/h",
    "gpu-hour": "/GPU h",
    "month": "/month",
    "gb-month": "/GB month",
}
COLUMNS = ("training", "input", "cached", "output", "by time")
Source = tuple[str, date, str]


class PriceView(BaseModel):
    """Price with its age."""

    price: PriceRow
    age_days: int
    freshness: Freshness
    overridden: bool
    """True if another row on the same subject has a different price and takes precedence."""


class BackendPrices(BaseModel):
    """All prices of a backend."""

    backend: str
    standing: str
    """Note on a closed, free or inference-only backend, or one without launches; else empty."""
    prices: tuple[PriceView, ...]


class PriceList(BaseModel):
    """Price list as `unitune prices --json` prints it."""

    schema_version: int = 1
    day: date
    backends: tuple[BackendPrices, ...]


def price_list(names: Iterable[str]) -> PriceList:
    """Return the prices of backends that are known in this folder."""
    book, day = book_here(Path()), today()
    return PriceList(day=day, backends=tuple(_backend_prices(book, name, day) for name in names))


def _backend_prices(book: PriceBook, name: str, day: date) -> BackendPrices:
    rows = book.rows(name)
    best: dict[object, PriceRow] = {}
    for row in sorted(rows, key=lambda row: rank(row, day)):
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


def print_all(prices: PriceList) -> None:
    """Print all backends, one per line."""
    headings = ("backend", "prices", "oldest", "source", "")
    table = new_table(*headings, right=("prices", "oldest"), fold=("source", ""))
    table.columns[-1].style = "yellow"
    for backend in prices.backends:
        used = [view for view in backend.prices if not view.overridden]
        table.add_row(
            Text(backend.backend, "bold"),
            str(len(used)) if used else Text("none", "dim"),
            _age(max(used, key=lambda view: view.age_days)) if used else "",
            ", ".join(dict.fromkeys(SOURCE_NAMES[view.price.source_kind] for view in used)),
            backend.standing,
        )
    console().print(table)
    console().print(
        "Details of one: unitune prices NAME. The extra `prices` adds the prices of untuned "
        "models in genai-prices.",
        style="dim",
    )


def _age(view: PriceView) -> Text:
    return Text(counted(view.age_days, "day"), AGE_STYLES[view.freshness])


@dataclass(frozen=True)
class _Line:
    """Prices of a model that differ only in their columns."""

    label: str
    overridden: bool
    source: Source
    views: dict[str, PriceView]  # by column

    @property
    def amounts(self) -> dict[str, str]:
        return {
            column: f"{view.price.written}{SHORT_UNITS[view.price.per]}"
            for column, view in self.views.items()
        }

    @property
    def notes(self) -> list[str]:
        return [view.price.note for view in self.views.values() if view.price.note]


def print_backend(prices: BackendPrices, day: date) -> None:
    """Print all prices of a backend, each with the number of its source below."""
    summary = registry.offer(prices.backend).summary
    console().print(Text.assemble((prices.backend, "bold"), f": {summary}"))
    if prices.standing:
        console().print(prices.standing, style="yellow")
    if not prices.prices:
        console().print("\nNo price is known; an estimate says unknown, never nothing.")
        return
    sources: dict[Source, PriceView] = {}
    for view in prices.prices:
        sources.setdefault(_source(view), view)
    numbers = {
        source: Text(f"[{number}]", AGE_STYLES[view.freshness])
        for number, (source, view) in enumerate(sources.items(), start=1)
    }
    groups = _alike(_lines_by_model(prices.prices))
    console().print()
    console().print(_price_table(groups, numbers))
    console().print()
    table = Table.grid(padding=(0, 1))
    for source, view in sources.items():
        table.add_row(numbers[source], _source_text(view))
    console().print(table)
    console().print(f"Tokens by the million; ages as of {day}.", style="dim")


def _lines_by_model(views: Iterable[PriceView]) -> dict[str, list[_Line]]:
    models: dict[str, list[_Line]] = {}
    for view in views:
        row = view.price
        lines = models.setdefault("any model" if row.model == ANY_MODEL else row.model, [])
        key = (_label(row), view.overridden, _source(view))
        line = next(
            (each for each in lines if (each.label, each.overridden, each.source) == key), None
        )
        if line is None or _column(row) in line.views:
            line = _Line(*key, {})
            lines.append(line)
        line.views[_column(row)] = view
    return models


def _label(row: PriceRow) -> str:
    """Return the parts of a price, other than its column, that differ from others of its model."""
    by_time = row.per != "million-tokens"
    parts = (row.tier, row.method, "tuned" if row.tuned else "", row.kind if by_time else "")
    usual = "untuned" if row.kind in OF_ANSWERS else "training"
    return ", ".join(filter(None, parts)) or usual


def _column(row: PriceRow) -> str:
    if row.per != "million-tokens":
        return "by time"
    return "cached" if row.kind == "cached-input" else row.kind


def _source(view: PriceView) -> Source:
    return view.price.source, view.price.as_of, view.price.origin


def _alike(models: dict[str, list[_Line]]) -> list[tuple[list[str], list[_Line]]]:
    groups: dict[str, tuple[list[str], list[_Line]]] = {}
    for name, lines in models.items():
        content = [
            (line.label, line.amounts, line.notes, line.overridden, line.source) for line in lines
        ]
        groups.setdefault(repr(content), ([], lines))[0].append(name)
    return list(groups.values())


def _price_table(
    groups: Sequence[tuple[list[str], list[_Line]]], numbers: dict[Source, Text]
) -> Table:
    used = {column for _, lines in groups for line in lines for column in line.views}
    columns = [column for column in COLUMNS if column in used]
    table = new_table("US dollars", *columns, "", right=(*columns, ""), fold=("US dollars",))
    table.padding = (0, 1, 0, 0)
    for names, lines in groups:
        table.add_row(Text(", ".join(names), "bold"))
        for line in lines:
            style = "dim strike" if line.overridden else ""
            amounts = (Text(line.amounts.get(column, ""), style) for column in columns)
            table.add_row(f"  {line.label}", *amounts, numbers[line.source])
        for note in dict.fromkeys(note for line in lines for note in line.notes):
            labels = [line.label for line in lines if note in line.notes]
            whose = "" if len(labels) == len(lines) else f"{'; '.join(labels)}: "
            table.add_row(Text(f"  {whose}{note}", "dim"))
    return table


def _source_text(view: PriceView) -> Text:
    row = view.price
    origin = "" if row.origin == "offer" else f" [{row.origin}]"
    return Text.assemble(
        f"{row.as_of}, ",
        _age(view),
        f"{AGE_WORDS[view.freshness]} · {SOURCE_NAMES[row.source_kind]}{origin}\n",
        (row.source, "dim"),
    )
