"""Options that many commands share; imports nothing heavy, so that ``--help`` stays fast."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer

from unitune.errors import UserError

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
    typer.Option("--allow-unpriced", help="Launch although the price is unknown or old."),
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
