"""Define prices: flat rows (`PriceRow`), and the short form that people write (`PriceEntry`).

Amounts are text until they are `Decimal`, never floats.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import date
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self, cast, get_args

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    computed_field,
    model_serializer,
    model_validator,
)

from unitune.documents import Spec

Kind = Literal[  # Billed items. machine: an hour of hardware, rented or owned.
    "training",
    "validation",
    "grader",
    "input",
    "cached-input",
    "output",
    "hosting",
    "storage",
    "machine",
]
Unit = Literal["million-tokens", "hour", "gpu-hour", "month", "gb-month"]
# own: the user's own statement, such as a contract's price
SourceKind = Literal["first-party-page", "first-party-api", "sdk", "third-party", "own"]
# Place of a row, in lookup order
Origin = Literal["flag", "job", "project", "user", "offer", "genai-prices"]

KINDS: tuple[Kind, ...] = get_args(Kind)
UNITS: tuple[Unit, ...] = get_args(Unit)
USUAL_UNIT: dict[Kind, Unit] = {  # unit of an amount without one
    **dict[Kind, Unit].fromkeys(KINDS, "million-tokens"),
    "hosting": "hour",
    "storage": "gb-month",
    "machine": "hour",
}
UNIT_NAMES: dict[Unit, str] = {
    "million-tokens": "a million tokens",
    "hour": "an hour",
    "gpu-hour": "an hour of a GPU",
    "month": "a month",
    "gb-month": "a gigabyte and month",
}
OF_A_METHOD: frozenset[Kind] = frozenset({"training", "validation", "grader"})
OF_ANSWERS: frozenset[Kind] = frozenset({"input", "cached-input", "output"})
ANY_MODEL = "*"
OWN_WORD: dict[Origin, str] = {  # default source of a row
    "flag": "given on the command line",
    "job": "the job file",
    "project": "prices.yaml",
    "user": "your own prices file",
}
# The lowest regional price, the amount, and the unit
AMOUNT = re.compile(r"(?:(\d+(?:\.\d+)?)-)?(\d+(?:\.\d+)?)(?:/([a-z-]+))?")
# Upper bound of any price, so that sums can be computed and printed
MOST_USD = 10**9


def as_written(value: object) -> object:
    """Return a number as its text; YAML's floats are exact up to 15 digits."""
    if not isinstance(value, int | float | Decimal):
        return value
    return str(value) if isinstance(value, int) else f"{Decimal(str(value)):f}"


def _amount(value: object) -> object:
    text = as_written(value)
    parts = AMOUNT.fullmatch(text) if isinstance(text, str) else None
    if parts is None or parts[3] not in (None, *UNITS):
        raise ValueError(
            "a price is an amount of US dollars such as 3.00, a range 2.75-3.00 over regions, or "
            f"an amount with its unit 100/hour; units are {', '.join(UNITS)}"
        )
    if Decimal(parts[2]) > MOST_USD:
        raise ValueError(f"a price is at most ${MOST_USD:,}")
    return text


# US dollars
Usd = Annotated[Decimal, BeforeValidator(as_written), Field(ge=0, allow_inf_nan=False)]
# US dollars as written: ``3.00``, ``2.75-3.00`` over regions, or ``100/hour`` with another unit
# than the kind's usual one
Amount = Annotated[
    str,
    BeforeValidator(_amount),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": f"^{AMOUNT.pattern}$"}, {"type": "number"}]}
    ),
]


class PriceRow(Spec):
    """Price of one item at a backend, with its dates and source."""

    backend: str
    model: str = ANY_MODEL
    """Backend's name of a base model, or a pattern with ``*``."""
    kind: Kind
    method: str | None = None
    """sft, dpo or rft; None for any method."""
    tier: str | None = None
    """Service tier of the price: global, developer, batch, or a machine's name; None for the only
    or usual one."""
    tuned: bool = False
    """True if the price of answers is for models tuned from the model."""
    usd: Usd
    """Price, in the most expensive region if regions differ."""
    usd_least: Usd | None = None
    """Price in the cheapest region; None if all are equal."""
    per: Unit
    as_of: date
    """Day when the source was read."""
    valid_from: date | None = None
    valid_to: date | None = None
    """Last day of validity."""
    source: str
    source_kind: SourceKind
    note: str = ""
    origin: Origin = "offer"

    @model_validator(mode="before")
    @classmethod
    def _id_is_computed(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: each for key, each in cast("dict[str, Any]", value).items() if key != "id"}

    @model_validator(mode="after")
    def _only_where_it_means_something(self) -> Self:
        if self.method and self.kind not in OF_A_METHOD:
            raise ValueError(f"{self.kind} has one price for every method; remove method")
        if self.tuned and self.kind not in OF_ANSWERS:
            raise ValueError(f"tuned applies only to {', '.join(sorted(OF_ANSWERS))}")
        if self.usd_least is not None and self.usd_least >= self.usd:
            raise ValueError(
                f"a price range must go from the lowest to the highest; {self.amount} does not"
            )
        return self

    @property
    def written(self) -> str:
        """The amount as written: 3.00, or 2.75-3.00."""
        least = "" if self.usd_least is None else f"{self.usd_least:f}-"
        return f"{least}{self.usd:f}"

    @property
    def amount(self) -> str:
        """The amount in words: $3.00, or $2.75 to $3.00."""
        return f"${self.written.replace('-', ' to $')}"

    @property
    def rate(self) -> str:
        """The amount with its unit: $3.00 a million tokens."""
        return f"{self.amount} {UNIT_NAMES[self.per]}"

    @computed_field
    @property
    def id(self) -> str:
        """Id of the price, its day and its place; a second price with the same id replaces it."""
        what = "/".join(part for part in (self.kind, self.method, self.tier) if part)
        who = f"{self.model}{'+tuned' if self.tuned else ''}"
        held = "".join(f"/{day}" for day in (self.valid_from, self.valid_to) if day)
        return f"{self.origin}:{self.backend}/{who}/{what}@{self.as_of}{held}"

    @property
    def subject(self) -> tuple[str, str, Kind, str | None, str | None, bool]:
        """Key of the row; rows with the same key contradict each other."""
        return self.backend, self.model, self.kind, self.method, self.tier, self.tuned

    def fits(self, model: str) -> bool:
        """Return whether the row applies to a model."""
        return fnmatchcase(model, self.model)

    def holds_on(self, day: date) -> bool:
        """Return whether the row is valid on a day."""
        begun = self.valid_from is None or self.valid_from <= day
        return begun and (self.valid_to is None or day <= self.valid_to)


class PriceEntry(Spec):
    """Prices as people write them; missing values are inherited from the enclosing entry.

    Examples:
        >>> entry = PriceEntry.model_validate(
        ...     {"as_of": "2026-11-25", "source": "contract 7", "rows": [
        ...         {"model": "gpt-4o-mini-2024-07-18", "training": "2.40", "hosting": "0"}]})
        >>> [(row.kind, row.usd) for row in rows_of([entry], backend="azure", origin="user")]
        [('training', Decimal('2.40')), ('hosting', Decimal('0'))]
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    backend: str | None = None
    model: str | tuple[str, ...] | None = None
    """A base model, several, or a pattern with ``*``; by default all of the backend's."""
    method: str | None = None
    tier: str | None = None
    tuned: bool | None = None
    """True if the prices of answers are for models tuned from the model."""
    training: Amount | None = None
    validation: Amount | None = None
    grader: Amount | None = None
    input: Amount | None = None
    cached_input: Annotated[Amount | None, Field(alias="cached-input")] = None
    output: Amount | None = None
    hosting: Amount | None = None
    storage: Amount | None = None
    machine: Amount | None = None
    as_of: date | None = None
    valid_from: date | None = None
    valid_to: date | None = None
    source: str | None = None
    source_kind: SourceKind | None = None
    note: str | None = None
    rows: tuple[PriceEntry, ...] = ()

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.rows and not any(self._amounts()):
            raise ValueError(f"the entry has no price; add one of {', '.join(KINDS)}, or rows")
        return self

    @model_serializer(mode="wrap")
    def _shortest(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        return {key: value for key, value in content.items() if value not in (None, (), [])}

    def _amounts(self) -> Iterator[tuple[Kind, str]]:
        for kind in KINDS:
            amount: str | None = getattr(self, kind.replace("-", "_"))
            if amount is not None:
                yield kind, amount

    def _inside(self, around: PriceEntry) -> PriceEntry:
        mine = {name: getattr(self, name) for name in CONTEXT if getattr(self, name) is not None}
        return self.model_copy(update={name: getattr(around, name) for name in CONTEXT} | mine)

    def flat(self) -> Iterator[PriceEntry]:
        """Yield the entry and its rows, each without rows."""
        if any(self._amounts()):
            yield self.model_copy(update={"rows": ()})
        for row in self.rows:
            yield from row._inside(self).flat()  # noqa: SLF001 - one of its own kind

    def priced(self, *, origin: Origin, backend: str, day: date | None) -> Iterator[PriceRow]:
        """Yield a row per model and kind of a flat entry; see `rows_of`."""
        models = (self.model,) if isinstance(self.model, str) else self.model or (ANY_MODEL,)
        as_of = self.as_of or day
        whose = self.backend or backend
        if not whose:
            raise ValueError(
                f"the price for {', '.join(models)} has no backend; add `backend: NAME`"
            )
        if as_of is None or (self.source is None and origin == "offer"):
            raise ValueError(f"the price of {whose} for {', '.join(models)} lacks as_of or source")
        for model in models:
            for kind, amount in self._amounts():
                written = AMOUNT.fullmatch(amount)
                assert written is not None, "validated above"
                least, most, unit = written.groups()
                yield PriceRow.model_validate(
                    {
                        "backend": whose,
                        "model": model,
                        "kind": kind,
                        "method": self.method if kind in OF_A_METHOD else None,
                        "tier": self.tier,
                        "tuned": bool(self.tuned) and kind in OF_ANSWERS,
                        "usd": most,
                        "usd_least": least,
                        "per": unit or USUAL_UNIT[kind],
                        "as_of": as_of,
                        "valid_from": self.valid_from,
                        "valid_to": self.valid_to,
                        "source": self.source or OWN_WORD[origin],
                        "source_kind": self.source_kind or "own",
                        "note": self.note or "",
                        "origin": origin,
                    }
                )


CONTEXT = tuple(  # values that an entry passes to the rows inside it
    name
    for name in PriceEntry.model_fields
    if name != "rows" and name.replace("_", "-") not in KINDS
)


def rows_of(
    entries: Iterable[PriceEntry], *, origin: Origin, backend: str = "", day: date | None = None
) -> tuple[PriceRow, ...]:
    """Return the price rows of entries; raises `ValueError` if one lacks backend, day or source.

    `backend` and `day` are defaults for the entries.
    """
    return tuple(
        row
        for entry in entries
        for flat in entry.flat()
        for row in flat.priced(origin=origin, backend=backend, day=day)
    )
