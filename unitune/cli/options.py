"""Options that many commands share; imports nothing heavy, so that ``--help`` stays fast."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unitune.errors import UserError

if TYPE_CHECKING:
    from pydantic import JsonValue

    from unitune.job.prices import PriceEntry

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only the result; no progress.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
JobFile = Annotated[Path, typer.Argument(metavar="FILE", help="A job file, e.g. unitune.yaml.")]
RunId = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, or the first letters of it.")
]
OtherBackend = Annotated[
    str | None,
    typer.Option("--backend", metavar="NAME", help="As if the job file named this backend."),
]

BudgetUsd = Annotated[
    str | None,
    typer.Option("--budget", metavar="USD", help="The most that the training may cost."),
]
AllowUnpriced = Annotated[
    bool,
    typer.Option("--allow-unpriced", help="Go on although a price is unknown or old."),
]
GivenPrices = Annotated[
    list[str],
    typer.Option(
        "--price",
        metavar="[BACKEND:]KIND=USD",
        help="A price of your own for this once, such as training=2.40 or local:machine=0.85; "
        "wins over all others.",
        default_factory=list,
        show_default=False,
    ),
]

UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_of(option: str, text: str) -> float:
    """Return a time such as ``90m``, ``2h`` or ``1d`` in seconds.

    Args:
        option: Its name, for the message.
        text: What was given.

    Raises:
        UserError: It is no time.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", text.strip())
    if found is None or float(found[1]) == 0:
        raise UserError(f"{option} is {text!r}; write a time such as 30m, 2h or 1d.")
    return float(found[1]) * UNITS[found[2]]


def prices_given(texts: list[str], backend: str) -> list[PriceEntry]:
    """Return the prices that `GivenPrices` stands for.

    Args:
        texts: As given.
        backend: Whose prices they are where one does not say.

    Raises:
        UserError: One is no price.
    """
    return [_price_given(text, backend) for text in texts]


def _price_given(text: str, backend: str) -> PriceEntry:
    from unitune.job.prices import KINDS, UNITS, PriceEntry

    what, _, amount = text.partition("=")
    whose, _, kind = what.rpartition(":")
    try:
        return PriceEntry.model_validate({"backend": whose or backend, kind: amount})
    except ValueError as error:
        raise UserError(
            f"--price is {text!r}; write KIND=USD such as training=2.40 or hosting=1.70/hour. "
            f"Kinds: {', '.join(KINDS)}. Units: {', '.join(UNITS)}."
        ) from error


def usd_of(option: str, text: str) -> Decimal:
    """Return an amount of US dollars.

    Args:
        option: Its name, for the message.
        text: What was given, such as ``2.50`` or ``$2.50``.

    Raises:
        UserError: It is no amount.
    """
    if re.fullmatch(r"\$?\d+(\.\d+)?", text.strip()) is None:
        raise UserError(f"{option} is {text!r}; write an amount of US dollars such as 2.50.")
    return Decimal(text.strip().removeprefix("$"))


DeployOption = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="KEY=VALUE",
        help="For a deployment, the backend's own, such as hardware; repeatable.",
    ),
]


def deploy_options_of(pairs: list[str] | None) -> dict[str, JsonValue]:
    """Return the options of a deployment.

    Args:
        pairs: As given by ``--option``.

    Raises:
        UserError: One is no KEY=VALUE.
    """
    found: dict[str, JsonValue] = {}
    for pair in pairs or ():
        key, _, value = pair.partition("=")
        if not (key and value):
            raise UserError(f"--option is {pair!r}; write KEY=VALUE.")
        found[key] = value
    return found
