"""Total cost of ownership, as frozen data that the terminal and JSON read.

Money is in US dollars; null is unknown, and never zero. Nothing here computes.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Literal

from unitune._shown import Printed
from unitune.cost.break_even import Crossovers, ServingCost
from unitune.cost.spread import Spread
from unitune.job.prices import PriceRow
from unitune.security.spec import Frozen

Role = Literal["prompted", "tuned", "newest"]
Source = Literal["option", "job", "measured", "counted", "assumed"]


class Figure(Frozen):
    """A figure of the usage, with where it comes from."""

    name: str
    value: str
    source: Source
    detail: str = ""
    """Which comparison, which rows, or what is assumed."""


class Horizon(Frozen):
    """How long the model will be used."""

    months: Decimal
    """As planned, or until the model is switched off; a month is 730 hours."""
    planned: int
    begins: date
    ends: date | None = None
    """Day on which the model is switched off, where that is sooner than planned."""


class Column(ServingCost):
    """Cost of one way of answering."""

    role: Role
    backend: str
    model: str
    """Name of the model; for the tuned one, of its base."""
    retires_on: date | None
    """Day on which it is switched off, where one is announced."""
    total_usd: Spread | None
    """Cost over the horizon, at the planned volume."""
    by_volume_usd: dict[int, Spread | None]
    """Cost a month by requests a month, with its share of the one-time cost."""


class TotalCost(Printed, Frozen):
    """Total cost of ownership of a tuned model, against prompting."""

    schema_version: int = 1
    job: str
    backend: str
    model: str
    method: str
    requests_month: int
    prompted_tokens: int
    """Expected tokens of a request and its answer, if the base is prompted."""
    tuned_tokens: int
    """The same for the tuned model."""
    horizon: Horizon
    columns: tuple[Column, ...]
    """Prompted, tuned and, where one is named, the newest untuned model."""
    break_even: Crossovers | None
    """At which requests a month the tuned model costs less than the prompted one over the horizon;
    null: a price is not known."""
    pays_back: Crossovers | None
    """After how many months it has, at the planned volume."""
    figures: tuple[Figure, ...]
    """The usage, each figure with its source."""
    notes: tuple[str, ...]
    """What is not known or was assumed."""
    prices: tuple[PriceRow, ...]
    """The rows that were used."""

    def __repr__(self) -> str:
        return f"<TotalCost {self.job!r} on {self.backend}>"


class TotalCostList(Frozen):
    """Total cost of ownership of a tuned model on each of some backends."""

    schema_version: int = 1
    backends: tuple[TotalCost, ...]
    left_out: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    """Why no total cost can be given, by backend."""
