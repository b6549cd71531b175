"""Which price applies: rows from everywhere they are written, looked up by backend, model and day.

The order is the user's own word first: a flag, the job, the project's ``prices.yaml``, the user's
own file, the offer, and for answers the package genai-prices. A row of a third party never wins
over one that is first-party or the user's own, wherever either is written. What no row says is
unknown.

Reading files is not here (`unitune.cost.prices.files`), nor what an old row means
(`unitune.cost.prices.staleness`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import get_args

from unitune import registry
from unitune.offer import Offer
from unitune.price_specs import Kind, Origin, PriceRow

ORIGINS: tuple[Origin, ...] = get_args(Origin)


@dataclass(frozen=True, slots=True)
class PriceBook:
    """All prices that are known here.

    Args:
        own: Rows of flags, job, project and user; an offer's are read when they are asked for.
        offer: Gives the offer of a backend by its name.
    """

    own: tuple[PriceRow, ...] = ()
    offer: Callable[[str], Offer] = field(default=registry.offer)

    def rows(self, backend: str) -> tuple[PriceRow, ...]:
        """Return all rows of a backend, in the order in which they are looked up."""
        found = [row for row in self.own if row.backend == backend]
        found += self.offer(backend).price_rows()
        return tuple(sorted(found, key=lambda row: ORIGINS.index(row.origin)))

    def find(  # noqa: PLR0913 - what a price depends on
        self,
        backend: str,
        model: str,
        kind: Kind,
        *,
        method: str | None = None,
        tier: str | None = None,
        tuned: bool = False,
        on: date,
    ) -> PriceRow | None:
        """Return the row that applies; None where the price is unknown.

        Args:
            backend: Its name.
            model: A base model, by any of its names.
            kind: What is paid for.
            method: sft, dpo or rft; for training, validation and grader.
            tier: Where it runs; None: where the backend runs it when nothing is said.
            tuned: Whether answers are of what was tuned from the model.
            on: The day. A row that is past its own last day is returned only where no other is;
                `unitune.cost.prices.staleness` then refuses it.
        """
        offer = self.offer(backend)
        known = offer.model(model)
        name = known.name if known else model
        wanted_tiers = (tier or offer.usual_tier, None)
        fitting = [
            row
            for row in self.rows(backend)
            if row.kind == kind
            and row.fits(name)
            and row.tuned == tuned
            and row.method in (method, None)
            and row.tier in wanted_tiers
            and (row.valid_from is None or row.valid_from <= on)
        ]
        return min(fitting, key=lambda row: _rank(row, on), default=None)


def _rank(row: PriceRow, day: date) -> tuple[bool, bool, int, bool, bool, bool, int]:
    """Return what decides between rows, the weightiest first; the smallest wins."""
    return (
        not row.holds_on(day),
        row.source_kind == "third-party",
        ORIGINS.index(row.origin),
        row.tier is None,
        row.method is None,
        "*" in row.model,
        -row.as_of.toordinal(),
    )


def of_offers(offers: Iterable[Offer]) -> PriceBook:
    """Return the prices of these offers alone."""
    known = {offer.name: offer for offer in offers}
    return PriceBook(offer=known.__getitem__)
