"""What is known of a backend without calling it or importing its SDK: dated, sourced data.

An offer stands as ``NAME.yaml`` beside its backend and is read by
`unitune.backends.registry.offer`. Plan, check, convert and estimate work from it where no extra is
installed. What is not known is left out, and is then unknown, never zero.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Annotated, Literal, Protocol, Self, runtime_checkable

from pydantic import Field, model_validator

from unitune.job.prices import PriceEntry, PriceRow, Usd, rows_of
from unitune.security.spec import Spec


class Limits(Spec):
    """What a vendor takes at most, and at least."""

    min_rows: int | None = None
    """Fewest training rows."""
    max_rows: int | None = None
    """Most training rows."""
    file_bytes: int | None = None
    """Largest training file, in bytes."""
    validation_rows_most: int | None = None
    """Most validation rows; 0: it takes none."""
    epochs_most: int | None = None
    """Most passes over the rows."""
    row_tokens: int | None = None
    """Longest row, in tokens."""


class BetaRange(Spec):
    """Which values of `tuning.preference.beta` a vendor takes; each is above 0."""

    at_most: Decimal | None = None
    below: Decimal | None = None

    def refusal(self, beta: float) -> str | None:
        """Return what is allowed instead of a value; None: it is."""
        if self.at_most is not None and beta > self.at_most:
            return f"at most {self.at_most:g}"
        if self.below is not None and beta >= self.below:
            return f"below {self.below:g}"
        return None


class Billing(Spec):
    """What a vendor charges for beside the price itself; what is left out is unknown."""

    counted: Literal["all-tokens", "answer-tokens"] | None = None
    """Which tokens of a training row are charged: all, or those that carry loss."""
    preferences: Literal["prompt-once", "prompt-twice"] | None = None
    """Whether the prompt of a preference row is charged with each of its two answers."""
    epochs_auto: Annotated[int, Field(ge=1)] | Literal["openai-cookbook"] | None = None
    """Passes that it makes when epochs is auto. openai-cookbook: by the number of rows, as in
    OpenAI's cookbook (examples/Chat_finetuning_data_prep.ipynb), which is close, not exact."""
    packing_off: Literal["rows-times-longest"] | None = None
    """What is charged when rows are not packed together: rows times the longest length."""
    validation: Literal["each-evaluation", "once", "free"] | None = None
    """When validation tokens are charged."""
    evaluations_auto: Annotated[int, Field(ge=0)] | None = None
    """Passes over the validation rows when the job sets none."""
    minimum_usd: Usd | None = None
    """The least that a job is charged; 0: no minimum."""
    overlength: Literal["truncated", "dropped", "refused"] | None = None
    """What becomes of rows longer than the limit."""
    cancelled: Literal["completed-steps", "nothing", "everything"] | None = None
    """What a cancelled job is charged."""
    failed: Literal["completed-steps", "to-checkpoint", "nothing", "everything"] | None = None
    """What a failed job is charged. to-checkpoint: what it did until the last checkpoint."""
    source: str = ""
    """Where this stands."""


class ClosedTo(Spec):
    """Who can no longer tune, though others still can."""

    whom: str
    """Such as "organisations that never tuned"."""
    since: date
    source: str


class Closed(Spec):
    """That a vendor tunes no more, for anyone."""

    by: date
    """Day by which it had ended."""
    reason: str
    """What ended and how that is known, with its dates."""
    source: str


class Tiers(Spec):
    """Where a vendor trains at different prices, and how a job says so."""

    usual: str
    """Tier of `Offer.prices` when the job names none."""
    option: str = ""
    """Option of the backend that chooses, as in ``options.azure.training_type``."""
    chosen: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    """Tier by the option's value."""

    @property
    def names(self) -> frozenset[str]:
        """All tiers that a training can have; a price of another tier is of a machine."""
        return frozenset({self.usual, *self.chosen.values()})


class OfferedModel(Spec):
    """A base model that a backend can tune."""

    name: str
    aliases: tuple[str, ...] = ()
    """Other names of the same weights, at this backend or elsewhere."""
    parameters: int | None = None
    licence: str | None = None
    hub_name: str | None = None
    """Of the model on the Hugging Face Hub whose weights these are, where its own name is not."""
    note: str = ""
    methods: tuple[str, ...] | None = None
    """Methods that this model can be tuned by; None: all of the offer's."""
    continues: tuple[str, ...] | None = None
    """Methods that can go on from a tuned model of this base; None: as the offer says."""
    formats: dict[str, str] | None = None
    """Wire format by method, where it is not the offer's."""
    limits: Limits | None = None
    """Where they are not the offer's."""
    billing: Billing | None = None
    """Rules that are this model's own, beside the offer's."""
    tunable_until: date | None = None
    """Day from which no training can be started any more."""
    tunable_until_source: str = ""
    """Where that day stands; third-party sources are named as such."""
    closed_to: tuple[ClosedTo, ...] = ()
    """Who can tune it no longer before that."""
    retires_on: date | None = None
    """Day on which the base, and what was tuned from it, is switched off."""
    retires_on_source: str = ""


class ModelUpdate(Spec):
    """What a vendor published about a model after the offer was written."""

    backend: str
    model: str
    """The backend's own name."""
    retires_on: date | None = None
    limits: Limits | None = None
    as_of: date
    source: str


class Refused(Spec):
    """Base models that users request and cannot be tuned here, with the reason."""

    pattern: str
    """Regular expression over the model's name."""
    reason: str
    """Why not, since when, and what can be done instead."""


class Caching(Spec):
    """How a vendor caches the beginning of prompts."""

    minimum_tokens: Annotated[int, Field(ge=0)]
    """A shorter beginning is not cached."""
    step_tokens: Annotated[int, Field(ge=1)] = 1
    """It is cached in multiples of so many tokens."""
    write_factor: Annotated[Usd, Field(ge=1)] = Decimal(1)
    """What writing a token to the cache costs, in prices of plain input."""


class Serving(Spec):
    """How models answer; the first whose pattern is found in a model's name applies."""

    pattern: str
    """Regular expression over the model's name."""
    caching: Caching | None = None
    """None: not known."""
    reasons: bool = False
    """Whether answers are billed with hidden reasoning."""
    tuned_as_base: bool = False
    """Whether the tokens of a tuned model cost what those of its base do."""
    source: str


class OutputTerms(Spec):
    """What a vendor's terms say of training other models on its answers."""

    training: Literal["no-competing-models"]
    """no-competing-models: of models that compete with its own."""
    as_of: date
    source: str


class Newest(Spec):
    """The newest model that answers, untuned: what a tuned older model is held against."""

    model: str
    source: str
    """Where it stands."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for one base model: what it has of its own, else what the offer has for all."""

    model: OfferedModel | None  # none where the offer does not list it
    methods: tuple[str, ...]
    continues: tuple[str, ...]  # methods that can go on from a tuned model
    # Wire format by method; a method without one takes canonical JSON Lines
    formats: Mapping[str, str]
    limits: Limits
    billing: Billing
    serving: Serving | None  # how it answers; None where that is not known
    refusal: str | None  # why it is refused by name

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names of the same weights."""
        return self.model.aliases if self.model else ()


class Offer(Spec):
    """What a backend offers."""

    name: str
    summary: str
    as_of: date
    """Day of the facts below."""
    source: str = ""
    """Where they come from."""
    methods: tuple[str, ...]
    """Methods that it can tune by; none: it only answers."""
    continues: tuple[str, ...] = ()
    """Those of them that can go on from a model that was tuned there."""
    any_model: bool = False
    """Whether models beyond `models` are taken."""
    open_names: str | None = None
    """Regular expression of such models' names. A name that it does not match must be given for
    this backend, as in ``model: {openai: NAME}``."""
    hub_models: bool = False
    """Whether any model of the Hugging Face hub is taken by its name there."""
    models: tuple[OfferedModel, ...] = ()
    refuses: tuple[Refused, ...] = ()
    unvalidated: tuple[str, ...] = ()
    """Methods whose trainings take no validation rows."""
    supported_settings: tuple[str, ...] = ()
    """Tuning settings that may be set explicitly, dotted: epochs, lora.rank, …"""
    warmup_as: Literal["steps", "share"] | None = None
    """How `tuning.warmup` must be said; None: either way."""
    preference_losses: dict[str, BetaRange] = {}  # noqa: RUF012 - pydantic copies it
    """For method dpo: the losses that it trains with, and the beta that each takes."""
    formats: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    """Wire format by method (names in the entry points ``unitune.formats``); a method without one
    takes canonical JSON Lines."""
    limits: Limits = Limits()
    billing: Billing = Billing()
    prices: tuple[PriceEntry, ...] = ()
    serving: tuple[Serving, ...] = ()
    newest: Newest | None = None
    """Of about the size that is tuned here."""
    outputs: OutputTerms | None = None
    """What may be trained on its answers; None: not known."""
    tiers: Tiers | None = None
    """None: there is one price for each kind."""
    inference_prices: str | None = None
    """Name of the vendor in the package genai-prices, which prices answers of untuned models."""
    closed: Closed | None = None
    """None: it tunes."""
    options: str | None = None
    """Model of what a job may say under ``options.NAME``, as ``module:Class``; none of the vendor's
    packages is needed to import it."""
    deploy_options: str | None = None
    """Likewise, of the options of a deployment."""
    settle_seconds: Annotated[float, Field(ge=0)] = 120.0
    """How long after a create call without an answer its job may still turn up in lists."""
    training_price: Literal["none"] | None = None
    """"none": no charge for training. None: what the models say, or not known."""
    trains_on: Literal["vendor", "cluster", "this-machine"] = "vendor"
    """Whose hardware trains: a vendor's, or the user's own, which answers on this machine."""
    install_mb: int | None = None
    """What its extra adds to a plain install, in megabytes on disk, dependencies included."""
    needs: tuple[str, ...] = ()
    """What the user must have: environment variables, roles, buckets; for people to read."""
    lacks: tuple[str, ...] = ()
    """What one might expect and it cannot do; for people to read."""

    @model_validator(mode="after")
    def _prices_are_dated_and_sourced(self) -> Self:
        self.price_rows()
        return self

    @property
    def trains_here(self) -> bool:
        """Whether trainings take this machine, and so come one after another."""
        return self.trains_on == "this-machine"

    @property
    def is_own(self) -> bool:
        """Whether the user's own hardware trains; its models are files, and answer here."""
        return self.trains_on != "vendor"

    @property
    def unavailable(self) -> str:
        """Why nothing can be launched there, of a vendor that has no backend."""
        if self.closed is not None:
            return (
                f"{self.name} no longer offers fine-tuning, since {self.closed.by} at the latest: "
                f"{self.closed.reason}"
            )
        return (
            f"unitune cannot launch at {self.name} yet. `unitune prices {self.name}` shows what is "
            "known of its prices."
        )

    def price_rows(self) -> tuple[PriceRow, ...]:
        """Return the offer's prices, a row each."""
        return rows_of(self.prices, backend=self.name, origin="offer")

    def updated(self, updates: Iterable[ModelUpdate]) -> Self:
        """Return the offer with those updates that are its vendor's; the newest wins."""
        changes: dict[str, dict[str, object]] = {}
        for update in sorted(updates, key=lambda item: item.as_of):
            if update.backend == self.name and self.model(update.model):
                change = changes.setdefault(update.model, {})
                if update.retires_on is not None:
                    change |= {"retires_on": update.retires_on, "retires_on_source": update.source}
                if update.limits is not None:
                    limits = update.limits.model_dump(exclude_none=True)
                    change["limits"] = self.terms(update.model).limits.model_copy(update=limits)
        models = (model.model_copy(update=changes.get(model.name, {})) for model in self.models)
        return self.model_copy(update={"models": tuple(models)}) if changes else self

    def model(self, name: str) -> OfferedModel | None:
        """Return the offered model of a name or alias."""
        for offered in self.models:
            if name == offered.name or name in offered.aliases:
                return offered
        return None

    def terms(self, name: str, method: str | None = None) -> Terms:
        """Return what holds for a model, listed or not, by its name or alias, and for a method."""
        offered = self.model(name) or OfferedModel(name=name)
        own_billing = offered.billing.model_dump(exclude_defaults=True) if offered.billing else {}
        refused = (each for each in self.refuses if re.search(each.pattern, offered.name))
        limits = offered.limits or self.limits
        if method in self.unvalidated:
            limits = limits.model_copy(update={"validation_rows_most": 0})
        servings = (each for each in self.serving if re.search(each.pattern, offered.name))
        return Terms(
            model=self.model(name),
            methods=offered.methods or self.methods,
            continues=self.continues if offered.continues is None else offered.continues,
            formats=self.formats | (offered.formats or {}),
            limits=limits,
            billing=self.billing.model_copy(update=own_billing),
            serving=next(servings, None),
            refusal=next((each.reason for each in refused), None),
        )

    def tier(self, options: Mapping[str, object]) -> str | None:
        """Return the tier whose prices apply to a job with these options for the backend."""
        if self.tiers is None:
            return None
        return self.tiers.chosen.get(str(options.get(self.tiers.option)), self.tiers.usual)


@dataclass(frozen=True, slots=True)
class PriceUpdate:
    """A vendor's own prices, limits and dates of today, and what could not be read of them."""

    rows: tuple[PriceRow, ...] = ()
    models: tuple[ModelUpdate, ...] = ()
    notes: tuple[str, ...] = ()


@runtime_checkable
class RefreshesPrices(Protocol):
    """Who reads a vendor's prices by machine; found by entry point ``unitune.prices``.

    A backend may be one, and a vendor without a backend may have one.
    """

    def read_prices(self, offer: Offer, day: date) -> PriceUpdate:
        """Read today's prices at the vendor; called only when the user asks for a refresh."""
        ...
