"""What the answers of a comparison cost by the token: of contenders, general questions and scorers.

A price is what the job says under `evaluate.prices`, else what is known of the vendor
(`unitune.cost.prices`). What costs money and has neither is named, since no budget can hold it.

Not here: what is spent (`unitune.evaluate.inference.budget`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from unitune.cost.prices.book import PriceBook
from unitune.cost.prices.staleness import freshness
from unitune.errors import OverBudget
from unitune.job.contenders import (
    ContenderSpec,
    FewShot,
    Instructed,
    Model,
    Recorded,
    Server,
    Tuned,
    ZeroShot,
)
from unitune.job.job import Job, TokenPrice
from unitune.job.prices import Kind
from unitune.scorers.embedding import Embedding
from unitune.workspace.today import today


@dataclass(frozen=True, slots=True)
class AnswerPrices:
    """What is known of the prices of a comparison's answers.

    Args:
        contenders: By contender.
        retention: Of general questions: of ``base`` and ``tuned``.
        scorers: Of scorers that ask a model, by scorer.
        unpriced: What costs money at a vendor, and nobody knows how much.
        unsaid: What may cost money, at a server or an endpoint that only the user knows.
    """

    contenders: dict[str, TokenPrice] = field(default_factory=dict[str, TokenPrice])
    retention: dict[str, TokenPrice] = field(default_factory=dict[str, TokenPrice])
    scorers: dict[str, TokenPrice] = field(default_factory=dict[str, TokenPrice])
    unpriced: tuple[str, ...] = ()
    unsaid: tuple[str, ...] = ()

    @property
    def charged(self) -> bool:
        """Whether a vendor takes money, as far as that is known."""
        known = (*self.contenders.values(), *self.retention.values(), *self.scorers.values())
        return bool(self.unpriced) or any(price.input or price.output for price in known)


def answer_prices(job: Job, book: PriceBook, *, allow_unpriced: bool = False) -> AnswerPrices:
    """Return the prices of a comparison's answers, as far as they are known.

    Args:
        job: With the offer's own name of its model.
        book: All prices; a stale one is not relied on where the answers have a budget.
        allow_unpriced: Whether the user takes prices that are unknown or stale all the same.

    Raises:
        OverBudget: The answers have a budget, and something that costs money has no price: then
            nobody could say when it is spent.
    """
    looking = _Looking(job, book, stale=allow_unpriced or job.evaluate.budget is None)
    found = AnswerPrices(
        contenders=looking.contenders(),
        retention=looking.retention() if job.evaluate.retention else {},
        scorers=looking.scorers(),
        unpriced=tuple(looking.unpriced),
        unsaid=tuple(looking.unsaid),
    )
    unknown = (*found.unpriced, *found.unsaid)
    if job.evaluate.budget is not None and unknown and not allow_unpriced:
        raise OverBudget(
            f"evaluate.budget is ${job.evaluate.budget.usd}, and no price is known of "
            f"{', '.join(unknown)}. Give it under evaluate.prices, by name: "
            f"{{{unknown[0]}: {{input: 0.15, output: 0.60}}}}, in US dollars a million tokens (0 "
            "where nothing is charged), or take it all the same with --allow-unpriced."
        )
    return found


@dataclass(slots=True)
class _Looking:
    """Looks prices up, and keeps the names of what has none."""

    job: Job
    book: PriceBook
    stale: bool
    unpriced: list[str] = field(default_factory=list[str])
    unsaid: list[str] = field(default_factory=list[str])

    def contenders(self) -> dict[str, TokenPrice]:
        known: dict[str, TokenPrice] = {}
        for spec in self.job.evaluate.contenders:
            price = self._said(spec) or self._listed(spec)
            if price is not None:
                known[spec.name] = price
            elif isinstance(spec, Server):
                self.unsaid.append(spec.name)
            elif not self._costs_nothing(spec):
                self.unpriced.append(spec.name)
        return known

    def retention(self) -> dict[str, TokenPrice]:
        specs = self.job.evaluate.contenders
        sides = {"base": ZeroShot | Instructed | FewShot, "tuned": Tuned}
        known: dict[str, TokenPrice] = {}
        for name, kind in sides.items():
            said = (self._said(spec) for spec in specs if isinstance(spec, kind))
            asked = ZeroShot() if name == "base" else Tuned()
            price = next(filter(None, said), None) or self._said(asked) or self._listed(asked)
            if price is not None:
                known[name] = price
            elif not self._costs_nothing(asked):
                self.unpriced.append(f"retention ({name})")
        return known

    def scorers(self) -> dict[str, TokenPrice]:
        known: dict[str, TokenPrice] = {}
        for spec in self.job.evaluate.scorers:
            if not isinstance(spec, Embedding):
                continue
            own = self.job.evaluate.prices
            price = own.get(spec.name) or own.get(spec.model)
            if price is not None:
                known[spec.name] = price
            else:
                at_vendor = "base_url" not in spec.model_fields_set
                (self.unpriced if at_vendor else self.unsaid).append(spec.name)
        return known

    def _said(self, spec: ContenderSpec) -> TokenPrice | None:
        """Return the job's own price; for untuned models also by the model's name."""
        own = self.job.evaluate.prices
        match spec:
            case ZeroShot() | Instructed() | FewShot():
                return own.get(spec.name) or own.get(self.job.base_model)
            case Model() | Server():
                return own.get(spec.name) or own.get(spec.model)
            case _:
                return own.get(spec.name)

    def _listed(self, spec: ContenderSpec) -> TokenPrice | None:
        """Return the vendor's price; where nobody charges, none stands beside an answer."""
        if isinstance(spec, Recorded | Server) or self._charges_nothing(spec):
            return None
        read, written = self._usd(spec, "input"), self._usd(spec, "output")
        if read is None or written is None:
            return None
        by_the_hour = isinstance(spec, Tuned) and self._hosted_by_the_hour()
        if by_the_hour and not read and not written:
            return None  # what it costs is the deployment's, and no answer's
        return TokenPrice(input=read, output=written)

    def _usd(self, spec: ContenderSpec, kind: Kind) -> Decimal | None:
        backend, options = self._backend(spec), self.job.options
        elsewhere = isinstance(spec, Model)
        row = self.book.find(
            backend,
            spec.model if isinstance(spec, Model) else self.job.base_model,
            kind,
            tier=None if elsewhere else self.book.offer(backend).tier(options.get(backend, {})),
            tuned=isinstance(spec, Tuned),
            on=today(),
        )
        if row is None or row.per != "million-tokens":
            return None
        return row.usd if self.stale or freshness(row, today()) != "stale" else None

    def _costs_nothing(self, spec: ContenderSpec) -> bool:
        """Whether nothing is paid by the token: nobody charges, or a deployment is paid for."""
        if isinstance(spec, Recorded) or self._charges_nothing(spec):
            return True
        return isinstance(spec, Tuned) and self._hosted_by_the_hour()

    def _charges_nothing(self, spec: ContenderSpec) -> bool:
        return self.book.offer(self._backend(spec)).training_price == "none"

    def _hosted_by_the_hour(self) -> bool:
        backend = self.job.backend
        tier = self.book.offer(backend).tier(self.job.options.get(backend, {}))
        ends = self.book.hosting(backend, self.job.base_model, tier=tier, on=today())
        return ends is not None and bool(ends[1].usd) and ends[1].per in ("hour", "gpu-hour")

    def _backend(self, spec: ContenderSpec) -> str:
        return spec.backend if isinstance(spec, Model) else self.job.backend
