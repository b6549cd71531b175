"""Which price applies: rows from everywhere they are written, looked up by backend, model and day.

The order is the user's own word first: a flag, the job, the project's ``prices.yaml``, the user's
own file, the offer, and for answers the package genai-prices. A row of a third party never wins
over one that is first-party or the user's own, wherever either is written. What no row says is
unknown.

    book = book_for(job)
    book.find("openai", "gpt-4o-mini", "training", method="sft", on=today())

Reading files is not here (`unitune.cost.prices.files`), nor what an old row means
(`unitune.cost.prices.staleness`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import get_args

from unitune.backends import registry
from unitune.backends.offer import ModelUpdate, Offer
from unitune.cost.prices import inference
from unitune.cost.prices.files import NAME, read_prices, user_file
from unitune.job.job import Job
from unitune.job.prices import OF_ANSWERS, Kind, Origin, PriceRow, rows_of
from unitune.workspace.today import today

ORIGINS: tuple[Origin, ...] = get_args(Origin)


def _offer(name: str) -> Offer:
    """Look the offer up when it is asked for, so that a test can put another in its place."""
    return registry.offer(name)


@dataclass(frozen=True, slots=True)
class PriceBook:
    """All prices that are known here.

    Args:
        own: Rows of flags, job, project and user; an offer's are read when they are asked for.
        discounts: What is paid of each list price, by backend.
        updates: What vendors said of their models since the offers were written.
        offered: Gives the offer of a backend by its name.
    """

    own: tuple[PriceRow, ...] = ()
    discounts: Mapping[str, Decimal] = field(default_factory=dict[str, Decimal])
    updates: tuple[ModelUpdate, ...] = ()
    offered: Callable[[str], Offer] = _offer
    _listed: dict[str, tuple[PriceRow, ...]] = field(
        default_factory=dict[str, tuple[PriceRow, ...]], init=False, repr=False, compare=False
    )
    """Rows of the offers that were asked for."""

    def offer(self, backend: str) -> Offer:
        """Return a backend's offer, with what its vendor has said since.

        Raises:
            NotFoundError: No installed package brings it.
        """
        return self.offered(backend).updated(self.updates)

    def without_own(self) -> PriceBook:
        """Return the book as it is without rows of flags, job, project and user."""
        return replace(self, own=())

    def rows(self, backend: str) -> tuple[PriceRow, ...]:
        """Return all written rows of a backend, in the order in which they are looked up."""
        own = [row for row in self.own if row.backend == backend]
        if backend not in self._listed:
            listed = self.offered(backend).price_rows()
            self._listed[backend] = tuple(self._discounted(row) for row in listed)
        return (*sorted(own, key=lambda row: ORIGINS.index(row.origin)), *self._listed[backend])

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
        offer = self.offered(backend)
        known = offer.model(model)
        name = known.name if known else model
        wanted_tiers = (tier or offer.tier({}), None)
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
        found = min(fitting, key=lambda row: rank(row, on), default=None)
        if found is None and kind in OF_ANSWERS and not tuned and tier is None:
            listed = inference.find(offer, name, kind, on)
            return self._discounted(listed) if listed else None
        return found

    def hosting(
        self, backend: str, model: str, *, tier: str | None = None, on: date
    ) -> tuple[PriceRow, PriceRow] | None:
        """Return the cheapest and the dearest row of hosting that may apply; None: none is known.

        They are the same where one applies; where hosting depends on a machine that has not been
        named, the machines' rows are the range.

        Args:
            backend: Its name.
            model: A base model, by any of its names.
            tier: Where it runs; None: that is not said.
            on: The day.
        """
        row = self.find(backend, model, "hosting", tier=tier, on=on)
        if row is not None:
            return row, row
        offer = self.offered(backend)
        known = offer.model(model)
        machines = [
            one
            for one in self.rows(backend)
            if one.kind == "hosting"
            and one.fits(known.name if known else model)
            and one.holds_on(on)
            and (offer.tiers is None or one.tier not in offer.tiers.names)
        ]
        if not machines:
            return None
        return min(machines, key=_usd), max(machines, key=_usd)

    def _discounted(self, row: PriceRow) -> PriceRow:
        share = self.discounts.get(row.backend)
        if share is None:
            return row
        note = f"{row.note + '; ' if row.note else ''}{share} of the list price"
        least = None if row.usd_least is None else row.usd_least * share
        return row.model_copy(update={"usd": row.usd * share, "usd_least": least, "note": note})


def _usd(row: PriceRow) -> Decimal:
    return row.usd


def rank(row: PriceRow, day: date) -> tuple[bool, bool, int, bool, bool, bool, int]:
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


def book_here(folder: Path) -> PriceBook:
    """Return the prices that are known in a folder.

    Args:
        folder: Of the project; its ``prices.yaml`` counts.

    Raises:
        JobError: A prices file is not valid.
    """
    return _book(folder, ())


def book_for(job: Job) -> PriceBook:
    """Return the prices that are known for a job: the command line's, its own, and all others.

    Args:
        job: Whose prices and folder count.

    Raises:
        JobError: A prices file is not valid.
    """
    flags = rows_of(job.given_prices, origin="flag", day=today())
    return _book(job.folder, (*flags, *rows_of(job.prices, origin="job", day=today())))


def _book(folder: Path, rows: tuple[PriceRow, ...]) -> PriceBook:
    project, user = read_prices(folder / NAME), read_prices(user_file())
    return PriceBook(
        own=(*rows, *project.rows("project"), *user.rows("user")),
        discounts={**user.discounts, **project.discounts},
        updates=(*user.refreshed.models, *project.refreshed.models),
    )
