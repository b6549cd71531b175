"""What is known of a backend without calling it or importing its SDK: dated, sourced data.

An offer stands as ``NAME.yaml`` beside its backend and is read by `unitune.registry.offer`. Plan,
check, convert and estimate work from it where no extra is installed. What is not known is left
out, and is then unknown, never zero.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from unitune.price_specs import PriceEntry, PriceRow, Usd, rows_of


class Fact(BaseModel):
    """Data that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Limits(Fact):
    """What a vendor takes at most, and at least."""

    rows_least: int | None = None
    """Fewest training rows."""
    rows_most: int | None = None
    """Most training rows."""
    file_bytes: int | None = None
    """Largest training file, in bytes."""
    validation_rows_most: int | None = None
    """Most validation rows; 0: it takes none."""
    epochs_most: int | None = None
    """Most passes over the rows."""
    row_tokens: int | None = None
    """Longest row, in tokens."""


class Billing(Fact):
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
    over_long: Literal["truncated", "dropped", "refused"] | None = None
    """What becomes of rows longer than the limit."""
    cancelled: Literal["completed-steps", "nothing", "everything"] | None = None
    """What a cancelled job is charged."""
    failed: Literal["completed-steps", "nothing", "everything"] | None = None
    """What a failed job is charged."""
    source: str = ""
    """Where this stands."""


class OfferedModel(Fact):
    """A base model that a backend can tune."""

    name: str
    aliases: tuple[str, ...] = ()
    """Other names of the same weights, at this backend or elsewhere."""
    parameters: int | None = None
    licence: str | None = None
    note: str = ""
    methods: tuple[str, ...] | None = None
    """Methods that this model can be tuned by; None: all of the offer's."""
    formats: dict[str, str] | None = None
    """Wire format by method, where it is not the offer's."""
    limits: Limits | None = None
    """Where they are not the offer's."""
    tunable_until: date | None = None
    """Last day on which a training can be started."""
    tunable_until_source: str = ""
    """Where that day stands; third-party sources are named as such."""
    stops: date | None = None
    """Day on which the base, and what was tuned from it, is switched off."""
    stops_source: str = ""
    """Likewise."""


class Refused(Fact):
    """Base models that are asked for and cannot be tuned here, with the reason."""

    pattern: str
    """Regular expression over the model's name."""
    reason: str
    """Why not, since when, and what can be done instead."""


class Caching(Fact):
    """How a vendor caches the beginning of prompts."""

    minimum_tokens: Annotated[int, Field(ge=0)]
    """A shorter beginning is not cached."""
    step_tokens: Annotated[int, Field(ge=1)] = 1
    """It is cached in multiples of so many tokens."""
    write_factor: Annotated[Usd, Field(ge=1)] = Decimal(1)
    """What writing a token to the cache costs, in prices of plain input."""


class Serving(Fact):
    """How models answer; the first whose pattern is found in a model's name applies."""

    pattern: str
    """Regular expression over the model's name."""
    caching: Caching | None = None
    """None: not known."""
    reasons: bool = False
    """Whether answers are billed with hidden reasoning."""
    source: str
    """Where it stands."""


class Newest(Fact):
    """The newest model that answers, untuned: what a tuned older one is held against."""

    model: str
    source: str
    """Where it stands."""


class Offer(Fact):
    """What a backend offers."""

    name: str
    summary: str
    as_of: date
    """Day of the facts below."""
    source: str = ""
    """Where they come from."""
    methods: tuple[str, ...]
    """Methods that it can tune by; none: it only answers."""
    any_model: bool = False
    """Whether models beyond `models` are taken."""
    models: tuple[OfferedModel, ...] = ()
    refuses: tuple[Refused, ...] = ()
    honours: tuple[str, ...] = ()
    """Tuning settings that may be set explicitly, dotted: epochs, lora.rank, …"""
    formats: dict[str, str] = {}
    """Wire format by method (names in the entry points ``unitune.formats``); a method without one
    takes canonical JSON Lines."""
    limits: Limits = Limits()
    billing: Billing = Billing()
    prices: tuple[PriceEntry, ...] = ()
    usual_tier: str | None = None
    """Tier of `prices` that applies when a job names none."""
    serving: tuple[Serving, ...] = ()
    newest: Newest | None = None
    """Of about the size that is tuned here."""
    settle_seconds: Annotated[float, Field(ge=0)] = 120.0
    """How long after a create call without an answer its job may still turn up in lists."""
    training_price: Literal["none"] | None = None
    """"none": no charge for training. None: what the models say, or not known."""
    install_mb: int | None = None
    """What its extra adds to a plain install, in megabytes on disk, dependencies included."""
    needs: tuple[str, ...] = ()
    """What the user must have: environment variables, roles, buckets; for people to read."""
    lacks: tuple[str, ...] = ()
    """What one might expect and it cannot do; for people to read."""

    def price_rows(self) -> tuple[PriceRow, ...]:
        """Return the offer's prices, a row each."""
        return rows_of(self.prices, backend=self.name, origin="offer")

    def model(self, name: str) -> OfferedModel | None:
        """Return the offered model of a name or alias."""
        for offered in self.models:
            if name == offered.name or name in offered.aliases:
                return offered
        return None

    def serving_of(self, name: str) -> Serving | None:
        """Return how a model of this name answers; None where that is not known."""
        import re  # noqa: PLC0415 - only here

        return next((one for one in self.serving if re.search(one.pattern, name)), None)

    def refusal(self, name: str) -> str | None:
        """Return why a model is refused by name, or None."""
        import re  # noqa: PLC0415 - only here

        found = (one.reason for one in self.refuses if re.search(one.pattern, name))
        return next(found, None)

    def format_name(self, method: str, model: str) -> str | None:
        """Return the name of the wire format of a method and model; None: canonical."""
        offered = self.model(model)
        own = offered.formats if offered and offered.formats else {}
        return own.get(method) or self.formats.get(method)

    def limits_for(self, model: str) -> Limits:
        """Return the limits for a base model."""
        offered = self.model(model)
        return offered.limits if offered and offered.limits else self.limits
