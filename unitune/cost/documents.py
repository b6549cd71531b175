"""Document of a job's cost on one backend. A sum with an unknown line is unknown, never zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Literal

from unitune.cost.spread import Spread
from unitune.cost.tokens import Count
from unitune.documents import Frozen
from unitune.job.prices import PriceRow

Item = Literal["training", "validation", "sampling", "graders", "evaluation", "hosting", "storage"]
# Items of the training itself, which a job's budget limits
LAUNCH: frozenset[Item] = frozenset({"training", "validation", "sampling", "graders"})
MONTHLY: frozenset[Item] = frozenset({"hosting", "storage"})


class Line(Frozen):
    """Item that costs money."""

    item: Item
    what: str = ""
    """Contender of an evaluation, or run of a sweep's training."""
    tokens: Count | None = None
    """Quantity of items priced per token."""
    units: Spread | None = None
    """Hours or months of items not priced per token."""
    price: str | None = None
    """`PriceRow.id` of the item's price in `Estimate.prices`."""
    usd: Spread | None = None
    """US dollars; None if unknown."""
    because: str = ""
    """Reason why the cost is unknown."""


class Estimate(Frozen):
    """Cost of one job on one backend."""

    backend: str
    model: str
    day: date
    """Day of the prices."""
    basis: str
    """Tokenizer that counted the tokens."""
    rows: int
    """Number of training rows."""
    epochs: Count
    epoch_tokens: Count | None
    """Charged tokens of one pass over the training rows."""
    counted_epochs: Count
    """Epochs before they were narrowed by earlier bills."""
    counted_tokens: Count | None
    lines: tuple[Line, ...]
    prices: tuple[PriceRow, ...]
    """Price rows that the lines name."""
    minimum_usd: Decimal | None = None
    """Vendor's minimum charge for a training."""
    assumptions: tuple[str, ...]

    @property
    def launch_usd(self) -> Spread | None:
        """Cost of the launch (training, validation, sampling, graders); None if unknown."""
        total = _sum(line for line in self.lines if line.item in LAUNCH)
        least = self.minimum_usd
        if total is None or least is None:
            return total
        return Spread(*(max(end, least) for end in (total.low, total.expected, total.high)))

    @property
    def charge(self) -> Literal["estimated", "unknown"]:
        """Whether the cost of the launch is known."""
        return "unknown" if self.launch_usd is None else "estimated"

    @property
    def evaluation_usd(self) -> Spread | None:
        """Cost of the contenders' answers."""
        return _sum(line for line in self.lines if line.item == "evaluation")

    @property
    def pays_for_answers(self) -> bool:
        """True if some answers have a known price that is not zero."""
        return any(line.usd and line.usd.high for line in self.of("evaluation"))

    @property
    def month_usd(self) -> Spread | None:
        """Monthly cost of hosting and storage after the training, regardless of use."""
        return _sum(line for line in self.lines if line.item in MONTHLY)

    @property
    def trained_tokens(self) -> Count | None:
        """Charged training tokens of all epochs."""
        tokens = self.epoch_tokens
        return None if tokens is None else self.epochs * tokens

    @property
    def launch_prices(self) -> tuple[PriceRow, ...]:
        """Price rows of the launch."""
        used = {line.price for line in self.lines if line.item in LAUNCH}
        return tuple(row for row in self.prices if row.id in used)

    def of_sweep(self, runs: Mapping[str, Estimate]) -> Estimate:
        """Return the estimate of a sweep: a line for each run's launch, other lines unchanged."""
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
                "minimum_usd": None,  # included in the line of each run
                "assumptions": tuple(
                    dict.fromkeys(each for part in (self, *made) for each in part.assumptions)
                ),
            }
        )

    def of(self, item: Item) -> tuple[Line, ...]:
        """Return the lines of one item."""
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
