"""Describe what a backend offers as dated, sourced data, without calling it or importing its SDK.

An offer is in ``NAME.yaml`` next to its backend and is read by `unitune.backends.registry.offer`.
An omitted value is unknown, never zero.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Annotated, Literal, Protocol, Self, runtime_checkable

from pydantic import Field, JsonValue, model_validator

from unitune.backends.image_rules import Images
from unitune.backends.tiers import Tiers, without_region
from unitune.documents import Spec
from unitune.job.prices import PriceEntry, PriceRow, Usd, rows_of


class Limits(Spec):
    """Limits of a vendor for a training."""

    min_rows: int | None = None  # minimum number of training rows
    max_rows: int | None = None  # maximum number of training rows
    file_bytes: int | None = None  # maximum size of the training file in bytes
    validation_rows_most: int | None = None
    epochs_most: int | None = None  # maximum number of epochs
    row_tokens: int | None = None  # maximum length of a row in tokens


class BetaRange(Spec):
    """Values of `tuning.preference.beta` that a vendor accepts, all above 0."""

    at_most: Decimal | None = None
    below: Decimal | None = None

    def refusal(self, beta: float) -> str | None:
        """Return the allowed range if a value is not in it, else None."""
        if self.at_most is not None and beta > self.at_most:
            return f"at most {self.at_most:g}"
        if self.below is not None and beta >= self.below:
            return f"below {self.below:g}"
        return None


class Billing(Spec):
    """Billing rules of a vendor; an omitted rule is unknown."""

    # Tokens of a training row that are charged: all, or those that are trained on
    counted: Literal["all-tokens", "answer-tokens"] | None = None
    # Whether the prompt of a preference row is charged once or with each answer
    preferences: Literal["prompt-once", "prompt-twice"] | None = None
    # Epochs if the job sets auto. openai-cookbook: by the number of rows, as in OpenAI's cookbook
    # (examples/Chat_finetuning_data_prep.ipynb), which is close but not exact.
    epochs_auto: Annotated[int, Field(ge=1)] | Literal["openai-cookbook"] | None = None
    # Charge for rows that are not packed: rows times the longest length
    packing_off: Literal["rows-times-longest"] | None = None
    validation: Literal["each-evaluation", "once", "free"] | None = None
    # Passes over the validation rows if the job does not set them
    evaluations_auto: Annotated[int, Field(ge=0)] | None = None
    # Of vendors of steps, whose loop unitune runs: cost of the steps between two checkpoints, most
    # of which may be paid for again after the loop's process dies
    checkpoint_usd: Usd | None = None
    minimum_usd: Usd | None = None  # minimum charge of a job; 0 for no minimum
    overlength: Literal["truncated", "dropped", "refused"] | None = None
    cancelled: Literal["completed-steps", "nothing", "everything"] | None = None
    # Charge for a failed job. to-checkpoint: steps up to the last checkpoint.
    failed: Literal["completed-steps", "to-checkpoint", "nothing", "everything"] | None = None
    grader_tier: str | None = None  # tier of the prices of models that grade; None: the usual one
    pauses_at_usd: Usd | None = None  # cost at which the vendor pauses a training
    source: str = ""  # source of these rules


class ClosedTo(Spec):
    """A group of customers that can no longer tune while others can."""

    whom: str  # group, such as "organisations that never tuned"
    since: date
    source: str


class Closed(Spec):
    """End of a vendor's fine-tuning for all customers."""

    by: date  # day by which it had ended
    reason: str  # description of what ended, how that is known, and its dates
    source: str


class OfferedModel(Spec):
    """A base model that a backend can tune."""

    name: str
    aliases: tuple[str, ...] = ()  # other names of the same weights, at this backend or elsewhere
    parameters: int | None = None
    licence: str | None = None
    hub_name: str | None = None  # name of the same weights on the Hugging Face Hub, if it differs
    note: str = ""
    methods: tuple[str, ...] | None = None  # methods for this model; None for all of the offer's
    # Methods that can continue from a tuned model of this base; None for the offer's
    continues: tuple[str, ...] | None = None
    formats: dict[str, str] | None = None  # wire format by method, if it differs from the offer's
    limits: Limits | None = None  # limits, if they differ from the offer's
    billing: Billing | None = None  # billing rules of this model that differ from the offer's
    # Tiers that train it, the default first, with their regions; empty if unknown
    tiers: dict[str, tuple[str, ...]] = {}  # noqa: RUF012 - pydantic copies it
    # Tiers of its deployments, the default first; None if unknown, empty if it cannot be deployed
    serving_tiers: tuple[str, ...] | None = None
    tunable_until: date | None = None  # day from which trainings can no longer be started
    tunable_until_source: str = ""  # source of that day; third-party sources are named as such
    closed_to: tuple[ClosedTo, ...] = ()  # groups that can no longer tune it before that day
    # Day on which the base and models tuned from it are switched off
    retires_on: date | None = None
    retires_on_source: str = ""


class ModelUpdate(Spec):
    """Facts about a model published by a vendor after the offer was written."""

    backend: str
    model: str  # the backend's name of the model
    retires_on: date | None = None
    limits: Limits | None = None
    as_of: date
    source: str


class Refused(Spec):
    """Base models that users request but that cannot be tuned here."""

    pattern: str  # regular expression for the model's name
    reason: str  # reason, date and alternative


class Caching(Spec):
    """Prompt caching of a vendor."""

    minimum_tokens: Annotated[int, Field(ge=0)]  # minimum length of a cached prefix
    step_tokens: Annotated[int, Field(ge=1)] = 1  # granularity of a cached prefix
    # Price of writing a token to the cache, as a multiple of the input price
    write_factor: Annotated[Usd, Field(ge=1)] = Decimal(1)


class Serving(Spec):
    """How models answer; the first whose pattern matches the model's name applies."""

    pattern: str  # regular expression for the model's name
    caching: Caching | None = None  # prompt caching; None if unknown
    reasons: bool = False  # whether hidden reasoning is billed with answers
    tuned_as_base: bool = False  # whether tokens of a tuned model cost as much as those of its base
    source: str


class OutputTerms(Spec):
    """A vendor's terms on training other models on its answers."""

    # no-competing-models: training competing models is not allowed
    training: Literal["no-competing-models"]
    as_of: date
    source: str


class Newest(Spec):
    """The newest untuned model, with which a tuned older model is compared."""

    model: str
    source: str  # source of this


@dataclass(frozen=True, slots=True)
class Terms:
    """Terms of one base model: its own, or else the offer's."""

    model: OfferedModel | None  # None if the offer does not list it
    methods: tuple[str, ...]
    continues: tuple[str, ...]  # methods that can continue from a tuned model
    # Wire format by method; methods without one use canonical JSON Lines
    formats: Mapping[str, str]
    limits: Limits
    billing: Billing
    serving: Serving | None  # how it answers; None if unknown
    images: Images | None  # rules for images in training rows; None if they are not accepted
    refusal: str | None  # reason if its name is refused

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names of the same weights."""
        return self.model.aliases if self.model else ()


class Offer(Spec):
    """Offer of a backend."""

    name: str
    summary: str
    as_of: date  # day on which the facts below were checked
    source: str = ""  # source of the facts
    methods: tuple[str, ...]  # tuning methods; empty if it only answers
    continues: tuple[str, ...] = ()  # methods that can continue from a model tuned there
    any_model: bool = False  # whether models not in `models` are accepted
    # Regular expression for the names of such models. Other names must be given for this backend,
    # as in ``model: {openai: NAME}``.
    open_names: str | None = None
    # Whether any model of the Hugging Face Hub is accepted by its name there
    hub_models: bool = False
    models: tuple[OfferedModel, ...] = ()
    refuses: tuple[Refused, ...] = ()
    unvalidated: tuple[str, ...] = ()  # methods that do not accept validation rows
    # Tuning settings that a job may set, dotted: epochs, lora.rank, …
    supported_settings: tuple[str, ...] = ()
    # Required unit of `tuning.warmup`; None for both
    warmup_as: Literal["steps", "share"] | None = None
    # Losses of method dpo and the allowed beta of each
    preference_losses: dict[str, BetaRange] = {}  # noqa: RUF012 - pydantic copies it
    # Wire format by method (names of the entry points ``unitune.formats``); methods without one use
    # canonical JSON Lines
    formats: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    limits: Limits = Limits()
    billing: Billing = Billing()
    prices: tuple[PriceEntry, ...] = ()
    serving: tuple[Serving, ...] = ()
    images: tuple[Images, ...] = ()
    newest: Newest | None = None  # newest model of about the size that is tuned here
    outputs: OutputTerms | None = None  # terms on training on its answers; None if unknown
    tiers: Tiers | None = None  # price tiers; None if each kind has one price
    # Days without a request after which the vendor deletes a deployment; None if it does not
    idle_deletion_days: int | None = None
    # Vendor name in the package genai-prices, the source of prices of untuned models
    inference_prices: str | None = None
    closed: Closed | None = None  # end of fine-tuning; None if it still tunes
    # Model of the job options under ``options.NAME``, as ``module:Class``; importing it must not
    # need the vendor's packages
    options: str | None = None
    deploy_options: str | None = None  # model of the deployment options, as ``module:Class``
    # Time after an unanswered create call in which its job may still appear in lists
    settle_seconds: Annotated[float, Field(ge=0)] = 120.0
    # "none": training is free. None: as the models define, or unknown.
    training_price: Literal["none"] | None = None
    # Hardware that trains; only models of a vendor answer at the vendor
    trains_on: Literal["vendor", "cluster", "rented", "this-machine"] = "vendor"
    # Peak rates of rented machines in 16 bits, in 10^12 operations a second, by price tier
    machines: dict[str, Usd] = {}  # noqa: RUF012 - pydantic copies it
    extra_is_optional: bool = False  # True if the backend also works without its extra
    # Megabytes on disk that its extra adds to a plain install, with dependencies
    install_mb: int | None = None
    # Requirements for people to read: environment variables, roles, buckets
    needs: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()  # missing features for people to read

    @model_validator(mode="after")
    def _prices_are_dated_and_sourced(self) -> Self:
        self.price_rows()
        return self

    @property
    def trains_here(self) -> bool:
        """True if trainings use this machine and therefore run one after another."""
        return self.trains_on == "this-machine"

    @property
    def is_own(self) -> bool:
        """True if hardware that the user owns or rents trains; models then answer here."""
        return self.trains_on != "vendor"

    @property
    def unavailable(self) -> str:
        """Reason why a vendor without a backend cannot launch anything."""
        if self.closed is not None:
            return (
                f"{self.name} stopped offering fine-tuning by {self.closed.by}: "
                f"{self.closed.reason}"
            )
        return (
            f"unitune cannot launch at {self.name} yet. Run `unitune prices {self.name}` to see "
            "its known prices."
        )

    @property
    def idle_deletion(self) -> str:
        """Sentence on the vendor's deletion of unused deployments; empty if there is none."""
        days = self.idle_deletion_days
        what = f"{self.name} deletes a deployment that had no request for {days} days"
        return f"{what}; the model stays." if days else ""

    def price_rows(self) -> tuple[PriceRow, ...]:
        """Return the offer's prices as rows."""
        return rows_of(self.prices, backend=self.name, origin="offer")

    def updated(self, updates: Iterable[ModelUpdate]) -> Self:
        """Return the offer with its vendor's updates; the newest wins."""
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
        """Return the offered model with this name or alias."""
        for offered in self.models:
            if name == offered.name or name in offered.aliases:
                return offered
        return None

    def terms(self, name: str, method: str | None = None) -> Terms:
        """Return the terms of a model, listed or not, and a method."""
        offered = self.model(name) or OfferedModel(name=name)
        own_billing = offered.billing.model_dump(exclude_defaults=True) if offered.billing else {}
        refused = (each for each in self.refuses if re.search(each.pattern, offered.name))
        limits = offered.limits or self.limits
        if method in self.unvalidated:
            limits = limits.model_copy(update={"validation_rows_most": 0})
        images = (each for each in self.images if re.search(each.pattern, offered.name))
        servings = (each for each in self.serving if re.search(each.pattern, offered.name))
        return Terms(
            model=self.model(name),
            methods=offered.methods or self.methods,
            continues=self.continues if offered.continues is None else offered.continues,
            formats=self.formats | (offered.formats or {}),
            limits=limits,
            billing=self.billing.model_copy(update=own_billing),
            serving=next(servings, None),
            images=next(images, None),
            refusal=next((each.reason for each in refused), None),
        )

    def tier(self, options: Mapping[str, object], model: str = "") -> str | None:
        """Return the tier whose prices apply to a training with these options for the backend."""
        if self.tiers is None:
            return None
        offered = self.model(model)
        known = tuple(offered.tiers) if offered else ()
        usual = self.tiers.usual if not known or self.tiers.usual in known else known[0]
        return self._in_region(
            self.tiers.chosen.get(str(options.get(self.tiers.option)), usual), options
        )

    def _in_region(self, tier: str, options: Mapping[str, object]) -> str:
        region = options.get(self.tiers.region_option) if self.tiers else None
        return f"{tier}/{region}" if region else tier

    def serving_tier(self, options: Mapping[str, object], model: str = "") -> str | None:
        """Return the tier whose prices apply to a deployment of the tuned model."""
        tiers, tier = self.tiers, self.tier(options, model)
        if tiers is None or tier is None or not tiers.serving:
            return tier
        offered = self.model(model)
        known = (offered and offered.serving_tiers) or ()
        usual = tiers.usual_serving.get(without_region(tier), without_region(tier))
        usual = usual if not known or usual in known else known[0]
        chosen = tiers.serving.get(str(options.get(tiers.serving_option)), usual)
        return self._in_region(chosen, options)

    def serving_options(
        self, options: Mapping[str, JsonValue], given: Mapping[str, JsonValue], model: str
    ) -> dict[str, JsonValue]:
        """Return the options of a deployment: the given ones, and the tier that a job chose."""
        tiers = self.tiers
        if tiers is None or not tiers.serving or tiers.serving_option in given:
            return dict(given)
        tier = self.serving_tier(options, model)
        value = tier and tiers.value_of("deployment", tier)
        return {**given, tiers.serving_option: value} if value else dict(given)


@dataclass(frozen=True, slots=True)
class PriceUpdate:
    """Current prices, limits and dates of a vendor, and notes on unreadable parts."""

    rows: tuple[PriceRow, ...] = ()
    models: tuple[ModelUpdate, ...] = ()
    notes: tuple[str, ...] = ()


@runtime_checkable
class RefreshesPrices(Protocol):
    """A reader of a vendor's prices, found by the entry point ``unitune.prices``."""

    def read_prices(self, offer: Offer, day: date) -> PriceUpdate:
        """Read today's prices at the vendor, when the user requests a refresh."""
        ...
