"""One backend's prices in full, for a person: a line for what is sold together, sources below."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date

from rich.table import Table
from rich.text import Text

from unitune.backends import registry
from unitune.cli.output import console
from unitune.cli.pricelist import AGE_STYLES, SPEAKERS, BackendPrices, PriceView, aged
from unitune.cost.prices.staleness import Freshness
from unitune.job.prices import ANY_MODEL, OF_ANSWERS, PriceRow, Unit

AGE_WORDS: dict[Freshness, str] = {
    "fresh": "",
    "aging": "getting old",
    "old": "old: check it",
    "stale": "too old to rely on",
}
SHORT_UNIT: dict[Unit, str] = {
    "million-tokens": "",
    "hour": "/h",
    "gpu-hour": "/GPU h",
    "month": "/month",
    "gb-month": "/GB month",
}
COLUMNS = {"training": 9, "input": 7, "cached": 7, "output": 7, "by time": 13, "": 4}
"""Width of each; what is left is the line's name, so that 80 columns are enough."""
PADDING = 1
WIDEST = 100


def print_one(found: BackendPrices, day: date) -> None:
    """Print all prices of a backend, each with a number that leads to its source below."""
    offer = registry.offer(found.backend)
    console().print(Text.assemble((found.backend, "bold"), f": {offer.summary}"))
    if found.standing:
        console().print(found.standing, style="yellow")
    if not found.prices:
        console().print("\nNo price is known; an estimate says unknown, never nothing.")
        return
    sources = {_source(view): number for number, view in _first_of_each(found.prices)}
    console().print()
    console().print(_grid([["US dollars", *COLUMNS]], style="dim"))
    for models, lines in _alike(_by_model(found.prices)):
        console().print(", ".join(models), style="bold")
        console().print(_grid([_cells(line, sources[_source(line[0])]) for line in lines]))
        for note in _notes(lines):
            console().print(f"  {note}", style="dim")
    _print_sources(found.prices, sources, day)


def _grid(rows: Iterable[Sequence[str | Text]], style: str = "") -> Table:
    """Return rows in the columns that all parts of a price list share."""
    width = min(console().width, WIDEST)
    table = Table.grid(padding=(0, PADDING))
    taken = sum(COLUMNS.values()) + PADDING * len(COLUMNS)
    table.add_column(width=width - taken, overflow="fold", style=style)
    for each in COLUMNS.values():
        table.add_column(width=each, justify="right", no_wrap=True, style=style)
    for row in rows:
        table.add_row(*row)
    return table


def _source(view: PriceView) -> tuple[str, date, str]:
    return view.price.source, view.price.as_of, view.price.origin


def _first_of_each(views: Iterable[PriceView]) -> list[tuple[int, PriceView]]:
    firsts: dict[tuple[str, date, str], PriceView] = {}
    for view in views:
        firsts.setdefault(_source(view), view)
    return list(enumerate(firsts.values(), start=1))


def _by_model(views: Iterable[PriceView]) -> dict[str, list[list[PriceView]]]:
    """Return the lines of each model: prices that stand side by side, each in its own column."""
    models: dict[str, list[list[PriceView]]] = {}
    for view in views:
        name = "any model" if view.price.model == ANY_MODEL else view.price.model
        lines = models.setdefault(name, [])
        line = next((one for one in lines if _goes_with(view, one)), None)
        if line is None:
            lines.append([view])
        else:
            line.append(view)
    return models


def _alike(
    models: dict[str, list[list[PriceView]]],
) -> list[tuple[list[str], list[list[PriceView]]]]:
    """Put models together whose lines say the same."""
    groups: dict[str, tuple[list[str], list[list[PriceView]]]] = {}
    for name, lines in models.items():
        told = repr([(_cells(line, 0), _source(line[0]), _notes([line])) for line in lines])
        groups.setdefault(told, ([], lines))[0].append(name)
    return list(groups.values())


def _goes_with(view: PriceView, line: list[PriceView]) -> bool:
    first, row = line[0].price, view.price
    same_line = (row.tier, row.tuned, view.overridden, _source(view)) == (
        first.tier,
        first.tuned,
        line[0].overridden,
        _source(line[0]),
    )
    methods = {one.price.method for one in line} | {row.method}
    return (
        same_line
        and len(methods - {None}) <= 1
        and _column(row) not in {_column(one.price) for one in line}
    )


def _column(row: PriceRow) -> str:
    if row.per != "million-tokens":
        return "by time"
    return "cached" if row.kind == "cached-input" else row.kind


def _cells(line: list[PriceView], number: int) -> list[Text]:
    amounts = dict.fromkeys(list(COLUMNS)[:-1], Text())
    for view in line:
        amount = f"{view.price.written}{SHORT_UNIT[view.price.per]}"
        amounts[_column(view.price)] = Text(amount, "dim strike" if view.overridden else "")
    mark = Text(f"[{number}]", AGE_STYLES[line[0].freshness])
    return [Text(f"  {_label(line)}"), *amounts.values(), mark]


def _label(line: list[PriceView]) -> str:
    """Return what tells a line from the others of its model."""
    kinds = {view.price.kind for view in line}
    methods = {view.price.method for view in line} - {None}
    parts = [line[0].price.tier, *methods, "tuned" if line[0].price.tuned else ""]
    if kinds <= {"hosting", "storage", "machine"}:
        parts += kinds
    usual = "untuned" if kinds & OF_ANSWERS else "training"
    return ", ".join(part for part in parts if part) or usual


def _notes(lines: list[list[PriceView]]) -> list[str]:
    """Return the notes of a model's lines, each once, with the lines that it is of."""
    labels: dict[str, list[str]] = {}
    for line in lines:
        for note in dict.fromkeys(view.price.note for view in line if view.price.note):
            labels.setdefault(note, []).append(_label(line))
    return [
        note if len(whose) == len(lines) else f"{'; '.join(whose)}: {note}"
        for note, whose in labels.items()
    ]


def _print_sources(
    views: Iterable[PriceView], sources: dict[tuple[str, date, str], int], day: date
) -> None:
    table = Table.grid(padding=(0, 1))
    for _ in range(2):
        table.add_column(overflow="fold")
    firsts = {_source(view): view for _, view in _first_of_each(views)}
    for source, number in sources.items():
        view = firsts[source]
        words = AGE_WORDS[view.freshness]
        who = SPEAKERS[view.price.source_kind]
        origin = "" if view.price.origin == "offer" else f" [{view.price.origin}]"
        said = Text.assemble(
            f"{view.price.as_of}, ",
            aged(view),
            f"{f', {words}' if words else ''} · {who}{origin}\n",
            (source[0], "dim"),
        )
        table.add_row(f"[{number}]", said)
    console().print()
    console().print(table)
    console().print(f"Tokens by the million; ages as of {day}.", style="dim")
