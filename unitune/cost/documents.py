"""What a job costs at one backend, as a document: `Estimate`, made of a `Line` for each item.

A line whose price or quantity is not known is unknown, and so is every sum that it stands in: never
zero. Money is Decimal throughout. How it is computed is `unitune.cost.estimate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Literal

from unitune.cost.spread import Spread
from unitune.cost.tokens import Count
from unitune.job.prices import PriceRow
from unitune.security.spec import Frozen

Item = Literal["training", "validation", "graders", "evaluation", "hosting", "storage"]
# What the vendor charges for the training itself: what a job's budget is held against
LAUNCH: frozenset[Item] = frozenset({"training", "validation", "graders"})
MONTHLY: frozenset[Item] = frozenset({"hosting", "storage"})


class Line(Frozen):
    """One item that costs money."""

    item: Item
    what: str = ""
    """Which contender, for evaluation; which run, for the training of a sweep."""
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


class Estimate(Frozen):
    """What one job costs at one backend."""

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

    def of_sweep(self, runs: Mapping[str, Estimate]) -> Estimate:
        """Return the estimate of a sweep: a line for each run's launch, the rest as it is here."""
        made = tuple(runs.values())
        launches = (_launch_line(name, run) for name, run in runs.items())
        others = (line for line in self.lines if line.item not in LAUNCH)
        prices = {row.id: row for each in (*made, self) for row in each.prices}
        return self.model_copy(
            update={
                "epochs": sum((run.epochs for run in made), start=Count()),
                "epoch_tokens": _around([run.epoch_tokens for run in made]),
                "lines": (*launches, *others),
                "prices": tuple(prices.values()),
                "minimum_usd": None,  # of each run, and in its line
                "assumptions": tuple(
                    dict.fromkeys(each for part in (self, *made) for each in part.assumptions)
                ),
            }
        )

    def of(self, item: Item) -> tuple[Line, ...]:
        """Return the lines of one kind."""
        return tuple(line for line in self.lines if line.item == item)

    def price(self, line: Line) -> PriceRow | None:
        """Return the price row of a line."""
        return next((row for row in self.prices if row.id == line.price), None)


def _launch_line(name: str, run: Estimate) -> Line:
    lines = [line for line in run.lines if line.item in LAUNCH]
    tokens = [line.tokens for line in lines if line.tokens is not None]
    return lines[0].model_copy(
        update={
            "what": name,
            "tokens": sum(tokens, start=Count()) if tokens else None,
            "usd": run.launch_usd,
            "because": next((line.because for line in lines if line.usd is None), ""),
        }
    )


def _around(counts: Sequence[Count | None]) -> Count | None:
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        return None
    expected = sum(count.expected for count in known) // len(known)
    low, high = min(count.low for count in known), max(count.high for count in known)
    return Count(low, expected, high)


def _sum(lines: Iterable[Line]) -> Spread | None:
    parts = [line.usd for line in lines]
    known = [usd for usd in parts if usd is not None]
    return Spread.total(known) if parts and len(known) == len(parts) else None
