"""Token prices of a comparison's answers: of contenders, general questions and scorers.

A price is the job's own under `evaluate.prices`, else the vendor's (`unitune.cost.prices`). What
costs money and has neither is named, since no budget can hold it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from unitune.cost.prices.book import PriceBook
from unitune.cost.prices.staleness import freshness
from unitune.errors import OverBudget
from unitune.job.contenders import ContenderSpec, Model, Recorded, Server, Tuned, ZeroShot
from unitune.job.job import Job, TokenPrice
from unitune.job.prices import Kind
from unitune.scorers.embedding import Embedding
from unitune.workspace.today import today


@dataclass(frozen=True, slots=True)
class AnswerPrices:
    """The known token prices of a comparison's answers.

    Args:
        contenders: By contender.
        retention: Of general questions: of ``base`` and ``tuned``.
        scorers: Of scorers that call a model, by scorer.
        unpriced: What costs money at a vendor, at an unknown price.
    """

    contenders: dict[str, TokenPrice] = field(default_factory=dict[str, TokenPrice])
    retention: dict[str, TokenPrice] = field(default_factory=dict[str, TokenPrice])
    scorers: dict[str, TokenPrice] = field(default_factory=dict[str, TokenPrice])
    unpriced: tuple[str, ...] = ()

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
        allow_unpriced: Whether the user accepts prices that are unknown or stale.

    Raises:
        OverBudget: The answers have a budget, and something that costs money has no price.
    """
    budget = job.evaluate.budget
    lookup = _Lookup(job, book, stale=allow_unpriced or budget is None)
    contenders = {spec.name: lookup.price(spec) for spec in job.evaluate.contenders}
    retention = lookup.retention() if job.evaluate.retention else {}
    scorers = {
        spec.name: lookup.scorer_price(spec)
        for spec in job.evaluate.scorers
        if isinstance(spec, Embedding)
    }
    prices = AnswerPrices(
        contenders=_known(contenders),
        retention=_known(retention),
        scorers=_known(scorers),
        unpriced=tuple(lookup.unpriced),
    )
    unknown = (*lookup.unpriced, *lookup.unsaid)
    if budget is not None and unknown and not allow_unpriced:
        raise OverBudget(
            f"evaluate.budget is ${budget.usd}, and no price is known of "
            f"{', '.join(unknown)}. Give it under evaluate.prices, by name: "
            f"{{{unknown[0]}: {{input: 0.15, output: 0.60}}}}, in US dollars a million tokens (0 "
            "where nothing is charged), or accept that with --allow-unpriced."
        )
    return prices


def _known(prices: dict[str, TokenPrice | None]) -> dict[str, TokenPrice]:
    return {name: price for name, price in prices.items() if price is not None}


@dataclass(slots=True)
class _Lookup:
    """Looks prices up, and keeps the names of what has none.

    `unsaid` may cost money, at a server or an endpoint that only the user knows.
    """

    job: Job
    book: PriceBook
    stale: bool
    unpriced: list[str] = field(default_factory=list[str])
    unsaid: list[str] = field(default_factory=list[str])

    def price(self, spec: ContenderSpec, name: str = "") -> TokenPrice | None:
        """Return a contender's price; without one, keep its name where it may cost money."""
        price = self._of_job(spec) or self._of_vendor(spec)
        if price is None and isinstance(spec, Server):
            self.unsaid.append(spec.name)
        elif price is None and not self._is_free(spec):
            self.unpriced.append(name or spec.name)
        return price

    def retention(self) -> dict[str, TokenPrice | None]:
        """Return the prices of base and tuned model, also by those of contenders that are these."""
        prices: dict[str, TokenPrice | None] = {}
        for name, default in (("base", ZeroShot()), ("tuned", Tuned())):
            of_job = (
                self._of_job(spec)
                for spec in self.job.evaluate.contenders
                if not isinstance(spec, Model | Server | Recorded)
                and isinstance(spec, Tuned) == isinstance(default, Tuned)
            )
            known = next(filter(None, of_job), None)
            prices[name] = known or self.price(default, f"retention ({name})")
        return prices

    def scorer_price(self, spec: Embedding) -> TokenPrice | None:
        prices = self.job.evaluate.prices
        price = prices.get(spec.name) or prices.get(spec.model)
        if price is None:
            at_vendor = "base_url" not in spec.model_fields_set
            (self.unpriced if at_vendor else self.unsaid).append(spec.name)
        return price

    def _of_job(self, spec: ContenderSpec) -> TokenPrice | None:
        """Return the job's own price; for untuned models also by the model's name."""
        prices = self.job.evaluate.prices
        match spec:
            case Tuned() | Recorded():
                return prices.get(spec.name)
            case Model() | Server():
                return prices.get(spec.name) or prices.get(spec.model)
            case _:
                return prices.get(spec.name) or prices.get(self.job.base_model)

    def _of_vendor(self, spec: ContenderSpec) -> TokenPrice | None:
        """Return the vendor's price; None where no answer is charged, or the price is not known."""
        if isinstance(spec, Server) or self._is_uncharged(spec):
            return None
        read, written = self._usd(spec, "input"), self._usd(spec, "output")
        if read is None or written is None:
            return None
        if not read and not written and self._is_hosted_by_the_hour(spec):
            return None  # the deployment costs, and no answer
        return TokenPrice(input=read, output=written)

    def _usd(self, spec: ContenderSpec, kind: Kind) -> Decimal | None:
        backend = self._backend(spec)
        row = self.book.find(
            backend,
            spec.model if isinstance(spec, Model) else self.job.base_model,
            kind,
            tier=None if isinstance(spec, Model) else self._tier(backend),
            tuned=isinstance(spec, Tuned),
            on=today(),
        )
        if row is None or row.per != "million-tokens":
            return None
        return row.usd if self.stale or freshness(row, today()) != "stale" else None

    def _is_free(self, spec: ContenderSpec) -> bool:
        """Whether nothing is paid by the token."""
        return self._is_uncharged(spec) or self._is_hosted_by_the_hour(spec)

    def _is_uncharged(self, spec: ContenderSpec) -> bool:
        if isinstance(spec, Recorded):
            return True
        return self.book.offer(self._backend(spec)).training_price == "none"

    def _is_hosted_by_the_hour(self, spec: ContenderSpec) -> bool:
        if not isinstance(spec, Tuned):
            return False
        backend = self.job.backend
        tier, base = self._tier(backend), self.job.base_model
        ends = self.book.hosting(backend, base, tier=tier, on=today())
        return ends is not None and bool(ends[1].usd) and ends[1].per in ("hour", "gpu-hour")

    def _tier(self, backend: str) -> str | None:
        return self.book.offer(backend).tier(self.job.options.get(backend, {}))

    def _backend(self, spec: ContenderSpec) -> str:
        return spec.backend if isinstance(spec, Model) else self.job.backend
