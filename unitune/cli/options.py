"""Options that several commands share; imports nothing heavy, so that ``--help`` stays fast."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unitune.cli.completion import complete_backend, complete_run
from unitune.errors import UserError

if TYPE_CHECKING:
    from pydantic import JsonValue

    from unitune.job.prices import PriceEntry


def parse_usd(text: str) -> Decimal:
    """Return an amount such as ``2.50`` or ``$2.50``."""
    if re.fullmatch(r"\$?\d+(\.\d+)?", text.strip()) is None:
        raise typer.BadParameter(f"{text!r}; write an amount of US dollars such as 2.50.")
    return Decimal(text.strip().removeprefix("$"))


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only the result; no progress.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Detach = Annotated[bool, typer.Option("--detach", help="Print the run's id and return at once.")]
JobFile = Annotated[Path, typer.Argument(metavar="FILE", help="A job file.")]
JOB_FILE = Path("unitune.yaml")  # the job of a command that names none
RunId = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run's id, the first letters of it, newest, NAME:3 or NAME@ALIAS.",
        autocompletion=complete_run,
    ),
]
NEWEST = "newest"  # as of `unitune.run.run`, which ``--help`` need not load


def backend_option(meaning: str) -> Any:
    """Return the option ``--backend``; its names are completed."""
    return typer.Option("--backend", metavar="NAME", help=meaning, autocompletion=complete_backend)


OtherBackend = Annotated[str | None, backend_option("As if the job file named this backend.")]
BudgetUsd = Annotated[
    Decimal | None,
    typer.Option(metavar="USD", parser=parse_usd, help="The most that it may cost."),
]
AllowUnpriced = Annotated[
    bool, typer.Option("--allow-unpriced", help="Go on although a price is unknown or old.")
]
AllowDuplicate = Annotated[
    bool,
    typer.Option("--allow-duplicate", help="Train although the same training was run before."),
]
OwnPrices = Annotated[
    list[str],
    typer.Option(
        metavar="[BACKEND:]KIND=USD",
        help="A price of your own for this once, such as training=2.40 or local:machine=0.85; "
        "wins over all others.",
        default_factory=list,
        show_default=False,
    ),
]
MAX_REQUESTS = 10**10  # as of `unitune.job.tuning`, which ``--help`` need not load
RequestsMonth = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, max=MAX_REQUESTS, help="Requests a month, for the total cost."
    ),
]
DeployOptions = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="For a deployment, the backend's own, such as hardware; repeatable.",
    ),
]


def parse_prices(texts: list[str], backend: str) -> list[PriceEntry]:
    """Return the prices that `OwnPrices` stands for.

    Raises:
        UserError: A text is no price.
    """
    from unitune.job.prices import KINDS, UNITS, PriceEntry

    prices: list[PriceEntry] = []
    for text in texts:
        what, _, amount = text.partition("=")
        other, _, kind = what.rpartition(":")
        try:
            prices.append(PriceEntry.model_validate({"backend": other or backend, kind: amount}))
        except ValueError as error:
            raise UserError(
                f"--price is {text!r}; write KIND=USD such as training=2.40 or hosting=1.70/hour. "
                f"Kinds: {', '.join(KINDS)}. Units: {', '.join(UNITS)}."
            ) from error
    return prices


def parse_deploy_options(pairs: list[str] | None) -> dict[str, JsonValue]:
    """Return the options of a deployment that `DeployOptions` stands for.

    Raises:
        UserError: A pair is no KEY=VALUE.
    """
    options: dict[str, JsonValue] = {}
    for pair in pairs or ():
        key, _, value = pair.partition("=")
        if not (key and value):
            raise UserError(f"--option is {pair!r}; write KEY=VALUE.")
        options[key] = value
    return options
