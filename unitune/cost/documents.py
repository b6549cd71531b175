"""What a job costs at one backend, as a document: `Estimate`, made of a `Line` for each item.

A line whose price or quantity is not known is unknown, and so is every sum that it stands in: never
zero. Money is Decimal throughout. How it is computed is `unitune.cost.estimate`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict

from unitune.cost.spread import Spread
from unitune.cost.tokens import Count
from unitune.job.prices import PriceRow

Item = Literal["training", "validation", "graders", "evaluation", "hosting", "storage"]
LAUNCH: frozenset[Item] = frozenset({"training", "validation", "graders"})
"""What the vendor charges for the training itself: what a job's budget is held against."""
MONTHLY: frozenset[Item] = frozenset({"hosting", "storage"})


class Line(BaseModel):
    """One item that costs money."""

    model_config = ConfigDict(frozen=True)
    item: Item
    what: str = ""
    """Which contender, for evaluation."""
    tokens: Count | None = None
    """For what is priced by the token."""
    units: Spread | None = None
    """Hours or months, as the price says, for what is not priced by the token."""
    price: str | None = None
    """`PriceRow.id` of its price, in `Estimate.prices`."""
    usd: Spread | None = None
    """US dollars; None: unknown."""
    because: str = ""
    """Why it is unknown."""


class Estimate(BaseModel):
    """What one job costs at one backend."""

    model_config = ConfigDict(frozen=True)
    backend: str
    model: str
    day: date
    """Whose prices were taken."""
    basis: str
    """What tokens were counted with."""
    rows: int
    """Training rows."""
    epochs: Count
    epoch_tokens: Count | None
    """Of one pass over the training rows, as charged."""
    counted_epochs: Count
    """Before earlier bills have narrowed them; so are the next."""
    counted_tokens: Count | None
    lines: tuple[Line, ...]
    prices: tuple[PriceRow, ...]
    """The rows that the lines name."""
    minimum_usd: Decimal | None = None
    """The least that the vendor charges for a training."""
    assumptions: tuple[str, ...]

    @property
    def launch_usd(self) -> Spread | None:
        """What the launch costs: training, validation and graders; None: unknown."""
        total = _sum(line for line in self.lines if line.item in LAUNCH)
        least = self.minimum_usd
        if total is None or least is None:
            return total
        return Spread(*(max(end, least) for end in (total.low, total.expected, total.high)))

    @property
    def evaluation_usd(self) -> Spread | None:
        """What the answers of the contenders cost."""
        return _sum(line for line in self.lines if line.item == "evaluation")

    @property
    def month_usd(self) -> Spread | None:
        """What a month costs after the training, whether it is used or not: hosting and storage."""
        return _sum(line for line in self.lines if line.item in MONTHLY)

    @property
    def trained_tokens(self) -> Count | None:
        """Charged training tokens of all epochs."""
        tokens = self.epoch_tokens
        return None if tokens is None else self.epochs * tokens

    @property
    def launch_prices(self) -> tuple[PriceRow, ...]:
        """The price rows that the launch rests on."""
        used = {line.price for line in self.lines if line.item in LAUNCH}
        return tuple(row for row in self.prices if row.id in used)

    def of(self, item: Item) -> tuple[Line, ...]:
        """Return the lines of one kind."""
        return tuple(line for line in self.lines if line.item == item)

    def price(self, line: Line) -> PriceRow | None:
        """Return the price row of a line."""
        return next((row for row in self.prices if row.id == line.price), None)


def _sum(lines: Iterable[Line]) -> Spread | None:
    parts = [line.usd for line in lines]
    known = [usd for usd in parts if usd is not None]
    return Spread.total(known) if parts and len(known) == len(parts) else None
