"""Implement the commands for prices: show the known ones and refresh them from vendors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from unitune.cli.options import CommandGroup, Json
from unitune.cli.output import aside, confirmed, console, new_table, print_json
from unitune.errors import BackendError, UnituneError

if TYPE_CHECKING:
    from unitune.backends.offer import PriceUpdate
    from unitune.cost.prices.refresh import Change


prices = typer.Typer(
    name="prices",
    cls=CommandGroup,
    help="Show prices with age and source, or fetch current ones from vendors.",
)

Whose = Annotated[
    str | None,
    typer.Argument(metavar="BACKEND", help="Backend (default: all).", show_default=False),
]


@prices.command()
def show(backend: Whose = None, *, json: Json = False) -> None:
    """List the prices of all backends, or of one with age, source and author.

    No vendor is called. Your own prices are in ./prices.yaml and ~/.config/unitune/prices.yaml.

    [dim]$ unitune prices
    $ unitune prices openai[/dim]
    """
    from unitune.backends import registry
    from unitune.cli.price_view import price_list, print_all, print_backend

    names = [name for name in registry.offer_names() if name != "fake"]
    listed = price_list([backend] if backend else names)
    if json:
        print_json(listed)
    elif backend:
        print_backend(listed.backends[0], listed.day)
    else:
        print_all(listed)


@prices.command()
def refresh(
    backend: Whose = None,
    *,
    user: Annotated[
        bool,
        typer.Option("--user", help="Write to ~/.config/unitune/prices.yaml, not ./prices.yaml."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write without asking.")] = False,
    json: Json = False,
) -> None:
    """Fetch prices, limits and dates from vendors, and write them if you agree.

    Covers the data that vendors publish in machine-readable form: prices of AWS, Azure and Hugging
    Face, retirement dates of OpenAI's and Bedrock's models, and Together's limits. It never runs
    automatically. ./prices.yaml can only raise a known price; your own file (--user) can also lower
    it.

    [dim]$ unitune prices refresh azure
    $ unitune prices refresh --user --yes[/dim]
    """
    from unitune.cost.prices.book import NAME, book_here, read_prices, user_file
    from unitune.cost.prices.refresh import changes, merged, write_refreshed

    file = user_file() if user else Path(NAME)
    updates, failures = _fetch(backend)
    book = book_here(Path())
    changed = [change for name, update in updates.items() for change in changes(book, name, update)]
    notes = [f"{name}: {note}" for name, update in updates.items() for note in update.notes]
    notes += failures
    if not json:
        _print_changes(changed, notes)
    written = bool(changed) and (
        yes or (not json and sys.stdin.isatty() and confirmed(f"Write this to {file}?", err=False))
    )
    if written:
        refreshed = read_prices(file).refreshed
        for update in updates.values():
            refreshed = merged(refreshed, update.rows, update.models)
        write_refreshed(file, refreshed)
    if json:
        outcome = {"file": file, "written": written, "changes": changed, "notes": notes}
        print_json({"schema_version": 1, **outcome})
    elif written:
        console().print(f"Written to {file}.")
    elif changed:
        aside().print(f"Nothing was written. Pass --yes to write to {file}.")


def _fetch(backend: str | None) -> tuple[dict[str, PriceUpdate], list[str]]:
    """Return what one or all vendors publish, and a message per vendor that failed."""
    from unitune.backends import registry
    from unitune.workspace.user_settings import today

    updates: dict[str, PriceUpdate] = {}
    failures: list[str] = []
    for name in [backend] if backend else registry.refreshable_names():
        try:
            updates[name] = registry.price_reader(name).read_prices(registry.offer(name), today())
        except UnituneError as error:
            if backend:
                raise
            failures.append(f"{name} could not be read: {error}")
    if not updates:
        raise BackendError("\n".join(["no vendor could be read.", *failures]))
    return updates, failures


def _print_changes(changes: Sequence[Change], notes: Sequence[str]) -> None:
    headings = ("what", "known", "now")
    table = new_table(*headings, fold=headings)
    new = [change for change in changes if change.changed]
    for change in new:
        before = Text(change.before, "red") if change.before else Text("nothing", "dim")
        table.add_row(change.subject, before, Text(change.after, "green"))
    if new:
        console().print(table)
    console().print(f"{len(new)} changed or new, {len(changes) - len(new)} confirmed.")
    for note in notes:
        console().print(note, style="dim")
