"""Price lists: as JSON by their models, and for a person all backends in short or one in full."""

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
from unitune.cost.prices.staleness import Freshness, freshness
from unitune.job.prices import ANY_MODEL, OF_ANSWERS, PriceRow, SourceKind, Unit
from unitune.workspace.today import today

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
MAX_WIDTH = 100
MIN_LABEL_WIDTH = 12


class PriceView(BaseModel):
    """A price with its age."""

    price: PriceRow
    age_days: int
    freshness: Freshness
    overridden: bool
    """Whether another row about the same subject differs, and wins."""


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


def price_list(names: Iterable[str], folder: Path) -> PriceList:
    """Return the prices of backends, as they are known in a folder."""
    book, day = book_here(folder), today()
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
    """Print all backends, a line each."""
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
        "More of one: unitune prices NAME. Answers of untuned models come from genai-prices "
        "too, where it is installed (extra `prices`).",
        style="dim",
    )


def _age(view: PriceView) -> Text:
    days = "1 day" if view.age_days == 1 else f"{view.age_days} days"
    return Text(days, AGE_STYLES[view.freshness])


@dataclass
class _Line:
    """Prices of a model that stand side by side, by their columns."""

    views: dict[str, PriceView]

    @property
    def first(self) -> PriceView:
        return next(iter(self.views.values()))

    def takes(self, view: PriceView) -> bool:
        """Whether a price belongs here: its column is free, and all else is the same."""
        row, first = view.price, self.first
        methods = {each.price.method for each in (*self.views.values(), view)} - {None}
        return (
            _column(row) not in self.views
            and len(methods) <= 1
            and (row.tier, row.tuned) == (first.price.tier, first.price.tuned)
            and view.overridden == first.overridden
            and _source(view) == _source(first)
        )

    @property
    def label(self) -> str:
        """What sets the line apart from the others of its model."""
        rows = [view.price for view in self.views.values()]
        kinds = {row.kind for row in rows}
        parts = [rows[0].tier, *({row.method for row in rows} - {None})]
        parts.append("tuned" if rows[0].tuned else "")
        if kinds <= {"hosting", "storage", "machine"}:
            parts += kinds
        usual = "untuned" if kinds & OF_ANSWERS else "training"
        return ", ".join(part for part in parts if part) or usual

    @property
    def amounts(self) -> list[str]:
        """One for each of `COLUMNS`; empty where there is no price."""
        views = (self.views.get(column) for column in COLUMNS)
        return [
            f"{view.price.written}{SHORT_UNITS[view.price.per]}" if view else "" for view in views
        ]

    @property
    def notes(self) -> list[str]:
        return list(dict.fromkeys(v.price.note for v in self.views.values() if v.price.note))


def _column(row: PriceRow) -> str:
    if row.per != "million-tokens":
        return "by time"
    return "cached" if row.kind == "cached-input" else row.kind


def _source(view: PriceView) -> tuple[str, date, str]:
    return view.price.source, view.price.as_of, view.price.origin


def print_backend(prices: BackendPrices, day: date) -> None:
    """Print all prices of a backend, each with a number that leads to its source below."""
    summary = registry.offer(prices.backend).summary
    console().print(Text.assemble((prices.backend, "bold"), f": {summary}"))
    if prices.standing:
        console().print(prices.standing, style="yellow")
    if not prices.prices:
        console().print("\nNo price is known; an estimate says unknown, never nothing.")
        return
    sources: dict[tuple[str, date, str], PriceView] = {}
    for view in prices.prices:
        sources.setdefault(_source(view), view)
    numbers = {source: f"[{number}]" for number, source in enumerate(sources, start=1)}
    models = _lines_by_model(prices.prices)
    amounts = [line.amounts for lines in models.values() for line in lines]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *amounts, strict=True)]
    console().print()
    console().print(_grid(widths, [["US dollars", *COLUMNS, ""]], style="dim"))
    for names, lines in _alike(models):
        console().print(", ".join(names), style="bold")
        console().print(_grid(widths, [_cells(line, numbers) for line in lines]))
        for note in _notes(lines):
            console().print(f"  {note}", style="dim")
    _print_sources({numbers[source]: view for source, view in sources.items()}, day)


def _lines_by_model(views: Iterable[PriceView]) -> dict[str, list[_Line]]:
    models: dict[str, list[_Line]] = {}
    for view in views:
        name = "any model" if view.price.model == ANY_MODEL else view.price.model
        lines = models.setdefault(name, [])
        line = next((line for line in lines if line.takes(view)), None)
        if line is None:
            lines.append(_Line({_column(view.price): view}))
        else:
            line.views[_column(view.price)] = view
    return models


def _alike(models: dict[str, list[_Line]]) -> list[tuple[list[str], list[_Line]]]:
    """Group models whose prices are the same."""
    groups: dict[str, tuple[list[str], list[_Line]]] = {}
    for name, lines in models.items():
        content = [
            (line.label, line.amounts, line.notes, line.first.overridden, _source(line.first))
            for line in lines
        ]
        groups.setdefault(repr(content), ([], lines))[0].append(name)
    return list(groups.values())


def _grid(widths: Sequence[int], rows: Iterable[Sequence[str | Text]], style: str = "") -> Table:
    """Return rows in the columns that all parts of a price list share."""
    table = Table.grid(padding=(0, 1))
    columns = [*widths, 4]  # the number of a source, such as [12]
    label = min(console().width, MAX_WIDTH) - sum(columns) - len(columns)
    table.add_column(width=max(label, MIN_LABEL_WIDTH), overflow="fold", style=style)
    for width in columns:
        table.add_column(width=width, justify="right", no_wrap=True, style=style)
    for row in rows:
        table.add_row(*row)
    return table


def _cells(line: _Line, numbers: dict[tuple[str, date, str], str]) -> list[Text]:
    style = "dim strike" if line.first.overridden else ""
    number = Text(numbers[_source(line.first)], AGE_STYLES[line.first.freshness])
    return [Text(f"  {line.label}"), *(Text(text, style) for text in line.amounts), number]


def _notes(lines: Sequence[_Line]) -> list[str]:
    """Return the notes of a model's lines, each once, with the lines that it is of."""
    labels: dict[str, list[str]] = {}
    for line in lines:
        for note in line.notes:
            labels.setdefault(note, []).append(line.label)
    return [
        note if len(names) == len(lines) else f"{'; '.join(names)}: {note}"
        for note, names in labels.items()
    ]


def _print_sources(sources: dict[str, PriceView], day: date) -> None:
    table = Table.grid(padding=(0, 1))
    for _ in range(2):
        table.add_column(overflow="fold")
    for number, view in sources.items():
        row = view.price
        origin = "" if row.origin == "offer" else f" [{row.origin}]"
        text = Text.assemble(
            f"{row.as_of}, ",
            _age(view),
            f"{AGE_WORDS[view.freshness]} · {SOURCE_NAMES[row.source_kind]}{origin}\n",
            (row.source, "dim"),
        )
        table.add_row(number, text)
    console().print()
    console().print(table)
    console().print(f"Tokens by the million; ages as of {day}.", style="dim")
