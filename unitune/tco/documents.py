"""Documents of the total cost of ownership, in US dollars. Null means unknown, never zero."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Literal

from unitune._shown import Printed
from unitune.cost.break_even import Crossovers, ServingCost
from unitune.cost.spread import Spread
from unitune.documents import Frozen
from unitune.job.prices import PriceRow

Role = Literal["prompted", "tuned", "newest"]
Source = Literal["option", "job", "measured", "counted", "assumed"]


class Figure(Frozen):
    """Figure of the usage, with its source."""

    name: str
    value: str
    source: Source
    detail: str = ""
    """Comparison or rows that it comes from, or what is assumed."""


class Horizon(Frozen):
    """Period of use."""

    months: Decimal
    """Planned months, or fewer if the model is switched off earlier; a month is 730 hours."""
    planned: int
    begins: date
    ends: date | None = None
    """Day on which the model is switched off, if that is earlier than planned."""


class Column(ServingCost):
    """Cost of one serving option."""

    role: Role
    backend: str
    model: str
    """Name of the model; for the tuned model, its base."""
    retires_on: date | None
    """Announced retirement day of the model, if any."""
    total_usd: Spread | None
    """Cost over the horizon at the planned volume."""
    by_volume_usd: dict[int, Spread | None]
    """Monthly cost by requests per month, including a share of the one-time cost."""


class TotalCost(Printed, Frozen):
    """Total cost of ownership of a tuned model, compared with prompting."""

    schema_version: int = 1
    job: str
    backend: str
    model: str
    method: str
    requests_month: int
    prompted_tokens: int
    """Expected tokens of a request and its answer when prompting the base model."""
    tuned_tokens: int
    """Expected tokens of a request to the tuned model and its answer."""
    horizon: Horizon
    columns: tuple[Column, ...]
    """Prompted, tuned and, if one is named, the newest untuned model."""
    break_even: Crossovers | None
    """Requests per month from which the tuned model costs less; null if a price is unknown."""
    pays_back: Crossovers | None
    """Months after which the tuned model costs less, at the planned volume."""
    figures: tuple[Figure, ...]
    """Figures of the usage with their sources."""
    notes: tuple[str, ...]
    """Unknown and assumed values."""
    prices: tuple[PriceRow, ...]
    """Price rows used."""

    def __repr__(self) -> str:
        return f"<TotalCost {self.job!r} on {self.backend}>"


class TotalCostList(Frozen):
    """Total costs of ownership of a tuned model on several backends."""

    schema_version: int = 1
    backends: tuple[TotalCost, ...]
    left_out: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    """Reason why a backend has no total cost, by backend."""
