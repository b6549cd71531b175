"""Looking up what a model's answers and its hosting cost, and remembering which rows were used."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from unitune.backends.offer import Offer
from unitune.cost.prices.book import PriceBook
from unitune.job.prices import Kind, PriceRow
from unitune.tco.request import Rates


@dataclass(frozen=True, slots=True)
class Pricing:
    """Looks prices up and keeps those that it found.

    Args:
        book: All prices.
        backend: Whose.
        model: Of which base.
        on: The day.
        tier: Where it runs; None: where it usually does.
    """

    book: PriceBook
    backend: str
    model: str
    on: date
    tier: str | None = None
    rows: list[PriceRow] = field(default_factory=list[PriceRow])

    @property
    def offer(self) -> Offer:
        """The backend's, as vendors have updated it."""
        return self.book.offer(self.backend)

    @property
    def retires_on(self) -> date | None:
        """Day on which the model is switched off, where one is announced."""
        offered = self.offer.model(self.model)
        return offered.retires_on if offered else None

    def find(self, kind: Kind) -> PriceRow | None:
        """Return the row that applies, and keep it; None where the price is unknown."""
        return self._kept(self._row(kind, self.tier))

    def hosting(self) -> tuple[PriceRow, PriceRow] | None:
        """Return the cheapest and the dearest row of hosting, and keep them; None: not known."""
        ends = self.book.hosting(self.backend, self.model, tier=self.tier, on=self.on)
        for one in ends or ():
            self._kept(one)
        return ends

    def rates(self, *, tuned: bool) -> Rates:
        """Return the prices of tokens."""
        plain = self._tokens("input", tuned=tuned)
        cached = self._tokens("cached-input", tuned=tuned)
        # Rows of two origins may not fit together: no vendor charges more for what it has cached.
        fits = plain is not None and cached is not None and cached <= plain
        return Rates(plain, self._tokens("output", tuned=tuned), cached if fits else None)

    def _tokens(self, kind: Kind, *, tuned: bool) -> Decimal | None:
        """Return the price of a million tokens.

        Looked for where the job runs; there at the other rate, where both are said to be the same;
        and for a base at its usual price.
        """
        serving = self.offer.serving_of(self.model)
        alike = serving is not None and serving.tuned_as_base
        places = [(tuned, self.tier)]
        places += [(not tuned, self.tier)] if alike else []
        places += [(False, None)] if alike or not tuned else []
        rows = (self._row(kind, tier, tuned=rate) for rate, tier in places)
        row = self._kept(next(filter(None, rows), None))
        return row.usd if row is not None and row.per == "million-tokens" else None

    def _row(self, kind: Kind, tier: str | None, *, tuned: bool = False) -> PriceRow | None:
        return self.book.find(self.backend, self.model, kind, tier=tier, tuned=tuned, on=self.on)

    def _kept(self, row: PriceRow | None) -> PriceRow | None:
        if row is not None and row not in self.rows:
            self.rows.append(row)
        return row
