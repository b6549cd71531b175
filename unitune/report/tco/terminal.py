"""Total cost in the terminal: a table, what follows from it, and where its figures come from.

Everything fits 80 columns and needs no colour to be understood.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from unitune.report.tco import words
from unitune.report.tco.words import Line
from unitune.report.terminal import plain
from unitune.tco.documents import TotalCost

MARK = "* "
"""Before the cheapest of a line."""


def total_cost_view(cost: TotalCost) -> Group:
    """Return all that is known of the total cost on one backend."""
    results = (
        (each.term, f"{each.value} ({each.ends})" if each.ends else each.value)
        for each in words.results(cost)
    )
    prices = (
        Text.assemble(plain(name), "\n  ", plain(price, "dim"))
        for name, price in words.prices(cost)
    )
    return Group(
        plain(f"{cost.job}: {cost.method} of {cost.model} on {cost.backend}", "bold"),
        Text(),
        plain(f"{words.headline(cost)}. {words.reason(cost)}"),
        Text(),
        _columns(cost),
        plain(
            "* the cheapest. Below: a month, all in, with its share of what is paid once.", "dim"
        ),
        Text(),
        _pairs(results),
        *_section("Where the figures come from", _pairs(words.sources(cost))),
        *_section("Not known, or assumed", *(plain(f"- {note}") for note in cost.notes)),
        *_section("Prices", *prices),
    )


def _columns(cost: TotalCost) -> Table:
    """Return the ways of answering side by side, with a month at several volumes."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    for column in cost.columns:
        # Prompted and tuned are named above the table.
        model = column.model if column.role == "newest" else ""
        header = Text.assemble(plain(words.NAMES[column.role], "bold"), "\n", plain(model))
        table.add_column(header, justify="right", overflow="fold", ratio=1)
    for line in words.lines(cost):
        table.add_row(plain(line.name), *_cells(line))
    table.add_row()
    table.add_row(plain("requests a month", "dim"))
    for line in words.volumes(cost):
        table.add_row(plain(f"  {line.name}"), *_cells(line))
    return table


def _cells(line: Line) -> list[Text]:
    return [
        Text.assemble(
            MARK if at == line.cheapest else "",
            plain(words.usd(value and value.expected), "bold" if at == line.cheapest else ""),
            *(["\n", plain(ends, "dim")] if (ends := words.spread(value)) else []),
        )
        for at, value in enumerate(line.values)
    ]


def _section(title: str, *lines: RenderableType) -> tuple[RenderableType, ...]:
    """Return lines under a heading; nothing where there are none."""
    return (Text(), plain(title, "bold"), *lines) if lines else ()


def _pairs(pairs: Iterable[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", max_width=26, overflow="fold")
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(plain(name), plain(value))
    return table
