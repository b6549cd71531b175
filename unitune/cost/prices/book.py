"""Find the price that applies, by backend, model and day.

The first source that has a price wins: a flag, the job, the project's ``prices.yaml``, the user's
own file, the offer and, for answers, the package genai-prices; but first-party rows come before
third-party ones. A job and the files next to it may be a stranger's, so they cannot lower a price
that is known without them.

    prices:                                  # written by people
      - {backend: azure, tier: global, training: 21.25, source: contract 7, as_of: 2026-11-01}
      - {backend: local, machine: 0.85}      # an hour of a local machine
    discounts: {openai: 0.90}                # fraction of the list price; the user's file only
    refreshed: …                             # written by `unitune.cost.prices.refresh`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from unitune.backends import registry
from unitune.backends.offer import ModelUpdate, Offer
from unitune.backends.tiers import without_region
from unitune.cost.prices import inference
from unitune.documents import Spec
from unitune.errors import JobError
from unitune.files import yaml_file
from unitune.job.job import Job
from unitune.job.prices import OF_ANSWERS, Kind, Origin, PriceEntry, PriceRow, as_written, rows_of
from unitune.workspace import user_config
from unitune.workspace.user_settings import current, today

NAME = "prices.yaml"
Share = Annotated[Decimal, BeforeValidator(as_written), Field(gt=0, le=1)]
ORIGINS: tuple[Origin, ...] = get_args(Origin)
OF_FOLDER: frozenset[Origin] = frozenset({"job", "project"})  # may be a stranger's


class Refreshed(Spec):
    """Facts that vendors stated after an offer was written."""

    prices: tuple[PriceEntry, ...] = ()
    models: tuple[ModelUpdate, ...] = ()


class PricesFile(Spec):
    """Prices that a project or a user keeps."""

    version: Literal[1] = 1
    prices: tuple[PriceEntry, ...] = ()
    discounts: dict[str, Share] = {}  # noqa: RUF012 - pydantic copies it
    """Fraction of the list price that is paid, by backend: 0.85 is 15 % off."""
    refreshed: Refreshed = Refreshed()

    @model_validator(mode="after")
    def _prices_name_a_backend(self) -> Self:
        self.rows("project")
        return self

    def rows(self, origin: Literal["project", "user"]) -> tuple[PriceRow, ...]:
        """Return all prices of the file, those written by people first."""
        return tuple(
            row
            for entries in (self.prices, self.refreshed.prices)
            for row in rows_of(entries, origin=origin, day=today())
        )


def user_file() -> Path:
    """Return the path of the user's own prices file, which may not exist."""
    return user_config.folder() / NAME


def read_prices(path: Path) -> PricesFile:
    """Return the content of a prices file, or an empty one. Raises JobError if it is not valid."""
    return load_prices(path) if path.exists() else PricesFile()


def load_prices(path: Path) -> PricesFile:
    """Return the content of a prices file. Raises JobError if it is missing or not valid."""
    return yaml_file.load(path, PricesFile, kind="a prices file", floats=False)


@dataclass(frozen=True, slots=True)
class PriceBook:
    """All known prices."""

    # Rows from flags, job, project and user; an offer's rows are read when needed
    own: tuple[PriceRow, ...] = ()
    # Fraction of the list price that is paid, by backend
    discounts: Mapping[str, Decimal] = field(default_factory=dict[str, Decimal])
    # Facts that vendors stated about their models after the offers were written
    updates: tuple[ModelUpdate, ...] = ()
    # Offers that replace the installed ones, by backend
    offers: Mapping[str, Offer] = field(default_factory=dict[str, Offer])
    _listed: dict[str, tuple[PriceRow, ...]] = field(
        default_factory=dict[str, tuple[PriceRow, ...]], init=False, repr=False, compare=False
    )
    _offers: dict[str, Offer] = field(
        default_factory=dict[str, Offer], init=False, repr=False, compare=False
    )

    def offer(self, backend: str) -> Offer:
        """Return a backend's offer with later facts from its vendor. Raises NotFoundError."""
        if backend not in self._offers:
            offer = self.offers.get(backend) or registry.offer(backend)
            self._offers[backend] = offer.updated(self.updates)
        return self._offers[backend]

    def rows(self, backend: str) -> tuple[PriceRow, ...]:
        """Return all rows of a backend in lookup order."""
        own = [row for row in self.own if row.backend == backend]
        if backend not in self._listed:
            rows = self.offer(backend).price_rows()
            self._listed[backend] = tuple(self._discounted(row) for row in rows)
        return (*sorted(own, key=lambda row: ORIGINS.index(row.origin)), *self._listed[backend])

    @property
    def known(self) -> PriceBook:
        """Prices that are known without the job and the files next to it."""
        return replace(self, own=tuple(row for row in self.own if row.origin not in OF_FOLDER))

    def find(  # noqa: PLR0913 - everything that a price depends on
        self,
        backend: str,
        model: str,
        kind: Kind,
        *,
        method: str | None = None,
        tier: str | None = None,
        tuned: bool = False,
        on: date,
        as_written: bool = False,
    ) -> PriceRow | None:
        """Return the row that applies, or None if the price is unknown.

        A row of the job or of a file next to it applies only if it is not below the known price,
        unless `as_written`. A row past its last day is returned only if no other applies. Without a
        tier, the backend's usual tier is used. `tuned` is for answers of tuned models.
        """
        offer = self.offer(backend)
        name = _offered_name(offer, model)
        tier_here = tier or offer.tier({}, name)
        tiers = (tier_here, without_region(tier_here), None)
        fitting = [
            row
            for row in self.rows(backend)
            if row.kind == kind
            and row.fits(name)
            and row.tuned == tuned
            and row.method in (method, None)
            and row.tier in tiers
            and (row.valid_from is None or row.valid_from <= on)
        ]
        if fitting:
            row = min(fitting, key=lambda row: rank(row, on))
            if as_written or row.origin not in OF_FOLDER:
                return row
            known = self.known.find(
                backend, model, kind, method=method, tier=tier, tuned=tuned, on=on
            )
            return not_below(row, known)
        if kind in OF_ANSWERS and not tuned and tier is None:
            listed = inference.find(offer, name, kind, on)
            return self._discounted(listed) if listed else None
        return None

    def same_price(
        self, row: PriceRow, model: str, on: date, *, as_written: bool = False
    ) -> PriceRow | None:
        """Return the row that on a day prices the same thing as an earlier row."""
        return self.find(
            row.backend,
            model,
            row.kind,
            method=row.method,
            tier=row.tier,
            tuned=row.tuned,
            on=on,
            as_written=as_written,
        )

    def hosting(
        self, backend: str, model: str, *, tier: str | None = None, on: date
    ) -> tuple[PriceRow, PriceRow] | None:
        """Return the cheapest and the most expensive hosting row, or None if none is known.

        They are the same if one row applies. If hosting depends on a machine that the job does not
        name, the machines' rows are the range.
        """
        row = self.find(backend, model, "hosting", tier=tier, on=on)
        if row is not None and row.origin in OF_FOLDER:
            known = self.known.hosting(backend, model, tier=tier, on=on)
            return known if known and not_below(row, known[1]) is not row else (row, row)
        if row is not None:
            return row, row
        offer = self.offer(backend)
        machines = [
            row
            for row in self.rows(backend)
            if row.kind == "hosting"
            and row.fits(_offered_name(offer, model))
            and row.holds_on(on)
            and (offer.tiers is None or without_region(row.tier) not in offer.tiers.names)
        ]
        if not machines:
            return None
        return min(machines, key=lambda row: row.usd), max(machines, key=lambda row: row.usd)

    def _discounted(self, row: PriceRow) -> PriceRow:
        share = self.discounts.get(row.backend)
        if share is None:
            return row
        note = f"{row.note + '; ' if row.note else ''}{share} of the list price"
        least = None if row.usd_least is None else row.usd_least * share
        return row.model_copy(update={"usd": row.usd * share, "usd_least": least, "note": note})


@dataclass(frozen=True, slots=True)
class PriceLookup:
    """Price lookup for one base model on one day, which records the rows used."""

    book: PriceBook
    backend: str
    model: str
    day: date
    method: str | None = None
    tier: str | None = None  # where it trains; None for the backend's usual tier
    serving_tier: str | None = None  # where tuned models answer; None if it is `tier`
    # Rows returned so far, by id
    used: dict[str, PriceRow] = field(default_factory=dict[str, PriceRow])

    def of_training(self, job: Job) -> PriceLookup:
        """Return the lookup for the model that another job tuned."""
        return replace(self, backend=job.backend, model=job.base_model).with_options(job)

    def with_options(self, job: Job) -> PriceLookup:
        """Return the lookup with the tiers that a job's options choose."""
        offer, options = self.book.offer(self.backend), job.options.get(self.backend, {})
        tier, serving = offer.tier(options, self.model), offer.serving_tier(options, self.model)
        return replace(self, tier=tier, serving_tier=serving)

    def find(self, kind: Kind) -> PriceRow | None:
        """Return the row that applies, or None if the price is unknown."""
        row = self._row(kind, self.tier)
        return self._use(row) if row else None

    def tokens(self, kind: Kind, *, tuned: bool) -> PriceRow | None:
        """Return the row of answer tokens, or None without a price per million tokens.

        It is looked up at the tier where the model answers. If base and tuned model cost the same,
        either's row counts; for a base model, so does the row of its usual tier.
        """
        serving = self.book.offer(self.backend).terms(self.model).serving
        same = serving is not None and serving.tuned_as_base
        tier = (self.serving_tier or self.tier) if tuned else self.tier
        choices = [(tuned, tier)]
        choices += [(not tuned, tier)] if same else []
        choices += [(False, None)] if same or not tuned else []
        rows = (self._row(kind, tier, tuned=of_tuned) for of_tuned, tier in choices)
        row = self._not_lowered(
            next((row for row in rows if row is not None), None),
            lambda known: known.tokens(kind, tuned=tuned),
        )
        return self._use(row) if row is not None and row.per == "million-tokens" else None

    def validation(self) -> PriceRow | None:
        """Return the row of validation tokens, or else that of trained tokens."""
        row = self._not_lowered(
            self._row("validation", self.tier) or self._row("training", self.tier),
            PriceLookup.validation,
        )
        return self._use(row) if row else None

    def _not_lowered(
        self, row: PriceRow | None, find: Callable[[PriceLookup], PriceRow | None]
    ) -> PriceRow | None:
        """Return a row, or the known one from `find` that it may not lower."""
        if row is None or row.origin not in OF_FOLDER:
            return row
        return not_below(row, find(replace(self, book=self.book.known, used={})))

    def hosting(self) -> tuple[PriceRow, PriceRow] | None:
        """Return the cheapest and the most expensive hosting row; see `PriceBook.hosting`."""
        tier = self.serving_tier or self.tier
        ends = self.book.hosting(self.backend, self.model, tier=tier, on=self.day)
        return ends and (self._use(ends[0]), self._use(ends[1]))

    def _row(self, kind: Kind, tier: str | None, *, tuned: bool = False) -> PriceRow | None:
        return self.book.find(
            self.backend, self.model, kind, method=self.method, tier=tier, tuned=tuned, on=self.day
        )

    def _use(self, row: PriceRow) -> PriceRow:
        self.used[row.id] = row
        return row


def not_below(row: PriceRow, known: PriceRow | None) -> PriceRow:
    """Return a row, or the known one if that is more expensive or has another unit."""
    if known is None or (row.per == known.per and row.usd >= known.usd):
        return row
    return known


def _offered_name(offer: Offer, model: str) -> str:
    offered = offer.model(model)
    return offered.name if offered else model


def rank(row: PriceRow, day: date) -> tuple[bool, bool, int, bool, bool, bool, bool, int]:
    """Return the sort key of a row, most important part first; the smallest wins."""
    return (
        not row.holds_on(day),
        row.source_kind == "third-party",
        ORIGINS.index(row.origin),
        row.tier is None,
        "/" not in (row.tier or ""),
        row.method is None,
        "*" in row.model,
        -row.as_of.toordinal(),
    )


def book_here(folder: Path) -> PriceBook:
    """Return the prices known in a folder, including its ``prices.yaml``.

    Raises:
        JobError: A prices file is not valid, or the folder's has discounts.
    """
    project, own = read_prices(folder / NAME), current().prices
    user = own if isinstance(own, PricesFile) else read_prices(user_file())
    if project.discounts:
        raise JobError(
            f"{folder / NAME}: discounts are allowed only in your own prices file, because a "
            f"project may be someone else's. Move them to {user_file()}."
        )
    return PriceBook(
        own=(*project.rows("project"), *user.rows("user")),
        discounts=user.discounts,
        updates=(*user.refreshed.models, *project.refreshed.models),
    )


def book_for(job: Job) -> PriceBook:
    """Return the prices known for a job, from all sources. Raises JobError like `book_here`."""
    book = book_here(job.folder)
    flags = rows_of(job.given_prices, origin="flag", day=today())
    return replace(book, own=(*flags, *rows_of(job.prices, origin="job", day=today()), *book.own))
