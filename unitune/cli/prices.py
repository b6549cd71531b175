"""Commands about prices: what is known, how old it is, and what vendors say now."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from unitune.cli.options import Json

if TYPE_CHECKING:
    from typer._click.core import Context  # typer carries its own click

    from unitune.backends.offer import PriceUpdate
    from unitune.cli.pricelist import Refreshing


class _ShowsByDefault(TyperGroup):
    """Takes ``prices openai`` for ``prices show openai``."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        asks_for_help = args[:1] in (["-h"], ["--help"])
        known = bool(args) and (args[0] in self.commands or asks_for_help)
        return super().parse_args(ctx, args if known else ["show", *args])


prices = typer.Typer(
    name="prices",
    cls=_ShowsByDefault,
    help="Show prices with their age and source; `refresh` asks vendors for theirs.",
)

Whose = Annotated[
    str | None, typer.Argument(metavar="BACKEND", help="Only this one's.", show_default=False)
]


@prices.command()
def show(backend: Whose = None, *, json: Json = False) -> None:
    """List the prices of all backends in short, or of one in full: age, source, who wrote them.

    Nobody is called. Your own prices come from ./prices.yaml and ~/.config/unitune/prices.yaml.

    [dim]$ unitune prices
    $ unitune prices openai[/dim]
    """
    from unitune.backends import registry
    from unitune.cli.output import print_json
    from unitune.cli.pricelist import price_list, print_all
    from unitune.cli.pricetable import print_one

    names = [one for one in registry.offer_names() if one != "fake"]
    found = price_list([backend] if backend else names, Path())
    if json:
        print_json(found)
    elif backend:
        print_one(found.backends[0], found.day)
    else:
        print_all(found)


@prices.command()
def refresh(
    backend: Whose = None,
    *,
    user: Annotated[
        bool, typer.Option("--user", help="Write your own file instead of ./prices.yaml.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write without asking.")] = False,
    json: Json = False,
) -> None:
    """Ask vendors for their prices, limits and dates; show what changes, and write it if you agree.

    Only what they say by machine: Azure's and Hugging Face's prices, the days on which OpenAI's
    models stop, Together's limits. It never runs by itself.

    [dim]$ unitune prices refresh azure
    $ unitune prices refresh --user --yes[/dim]
    """
    from unitune.cli.output import aside, console, print_json
    from unitune.cli.pricelist import Refreshing, print_refreshing
    from unitune.cost.prices.book import book_here
    from unitune.cost.prices.files import NAME, user_file
    from unitune.cost.prices.refresh import changes

    file = user_file() if user else Path(NAME)
    told, failed = _told(backend)
    book = book_here(Path())
    found = Refreshing(
        file=file,
        changes=tuple(one for name, said in told.items() for one in changes(book, name, said)),
        notes=(*(f"{name}: {note}" for name in told for note in told[name].notes), *failed),
    )
    if not json:
        print_refreshing(found)
    if found.changes and (yes or (not json and _agreed(found))):
        _write(file, told)
        found = found.model_copy(update={"written": True})
    if json:
        print_json(found)
    elif found.written:
        console().print(f"Written to {file}.")
    elif found.changes:
        aside().print(f"Nothing written; --yes writes to {file}.")


def _told(backend: str | None) -> tuple[dict[str, PriceUpdate], list[str]]:
    """Ask one vendor, or all; of all, those that cannot be asked are told as notes."""
    from unitune.backends import registry
    from unitune.errors import BackendError, UnituneError
    from unitune.workspace.today import today

    if backend is not None:
        reader = registry.price_reader(backend)
        return {backend: reader.read_prices(registry.offer(backend), today())}, []
    told: dict[str, PriceUpdate] = {}
    failed: list[str] = []
    for name in registry.refreshable_names():
        try:
            told[name] = registry.price_reader(name).read_prices(registry.offer(name), today())
        except UnituneError as error:
            failed.append(f"{name} was not asked: {error}")
    if not told:
        raise BackendError("\n".join(["nobody told anything.", *failed]))
    return told, failed


def _agreed(found: Refreshing) -> bool:
    from unitune.cli.output import confirmed

    return sys.stdin.isatty() and confirmed(f"Write this to {found.file}?", err=False)


def _write(file: Path, told: dict[str, PriceUpdate]) -> None:
    from unitune.cost.prices.files import merged, read_prices, write_refreshed

    refreshed = read_prices(file).refreshed
    for said in told.values():
        refreshed = merged(refreshed, said.rows, said.models)
    write_refreshed(file, refreshed)
