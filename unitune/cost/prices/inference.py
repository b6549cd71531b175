"""Prices of answers from the package genai-prices (extra `prices`), where no row of ours says one.

The package carries its prices with it and asks nobody. It is third-party, has no training or
hosting prices, and is imported only when it is asked, because that takes half a second. It does not
say of which day its prices are; the latest change of a price that it knows is the day that is safe
to say.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache
from typing import Protocol, cast

from unitune.backends.offer import Offer
from unitune.job.prices import Kind, PriceRow

PACKAGE = "genai_prices"
FIELDS: dict[Kind, str] = {
    "input": "input_mtok",
    "cached-input": "cache_read_mtok",
    "output": "output_mtok",
}


class _Dated(Protocol):
    constraint: object


class _Model(Protocol):
    prices: list[_Dated] | None
    """In truth prices as such where they never changed; only a history is looked at here."""

    def get_prices(self, request_timestamp: datetime) -> object: ...


class _Provider(Protocol):
    models: Iterable[_Model]


class _Snapshot(Protocol):
    providers: Iterable[_Provider]

    def find_provider_model(
        self, model_ref: str, provider: None, provider_id: str, provider_api_url: None
    ) -> tuple[object, _Model]: ...


def find(offer: Offer, model: str, kind: Kind, on: date) -> PriceRow | None:
    """Return what an untuned model's answers cost on a day; None where it is not known.

    Args:
        offer: Of the backend that answers; says under which name the package has its vendor.
        model: The backend's name of it.
        kind: input, cached-input or output.
        on: The day.
    """
    if offer.inference_prices is None or importlib.util.find_spec(PACKAGE) is None:
        return None
    snapshot = _snapshot()
    try:
        _, known = snapshot.find_provider_model(model, None, offer.inference_prices, None)
    except LookupError:
        return None
    prices = known.get_prices(datetime.combine(on, time(12), UTC))
    usd = getattr(prices, FIELDS[kind], None)
    changes = [day for day in _changes() if day <= on]
    if not isinstance(usd, Decimal) or not changes:  # unknown, or by the length of the prompt
        return None
    return PriceRow(
        backend=offer.name,
        model=model,
        kind=kind,
        usd=usd,
        per="million-tokens",
        as_of=max(changes),
        source=f"genai-prices {importlib.metadata.version('genai-prices')}",
        source_kind="third-party",
        origin="genai-prices",
    )


@cache
def _changes() -> frozenset[date]:
    """Return the days on which a price of any model changed, as far as the package knows."""
    days: set[date] = set()
    for provider in _snapshot().providers:
        for model in provider.models:
            for each in model.prices if isinstance(model.prices, list) else ():
                start = getattr(each.constraint, "start_date", None)
                days |= {start} if isinstance(start, date) else set()
    return frozenset(days)


@cache
def _snapshot() -> _Snapshot:
    return cast("_Snapshot", importlib.import_module(f"{PACKAGE}.data_snapshot").get_snapshot())
