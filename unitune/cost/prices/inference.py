"""Look up prices of answers in the package genai-prices (extra `prices`), which works offline.

Its prices have no date, so the newest price change that it contains is taken as their day.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING

from unitune.backends.offer import Offer
from unitune.job.prices import Kind, PriceRow

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot

PACKAGE = "genai_prices"
FIELDS: dict[Kind, str] = {
    "input": "input_mtok",
    "cached-input": "cache_read_mtok",
    "output": "output_mtok",
}


def find(offer: Offer, model: str, kind: Kind, on: date) -> PriceRow | None:
    """Return the price of an untuned model's answers on a day, or None if unknown."""
    if offer.inference_prices is None or importlib.util.find_spec(PACKAGE) is None:
        return None
    try:
        _, info = _snapshot().find_provider_model(model, None, offer.inference_prices, None)
    except LookupError:
        return None
    usd = getattr(info.get_prices(datetime.combine(on, time(12), UTC)), FIELDS[kind], None)
    changes = [day for day in _changes() if day <= on]
    if not isinstance(usd, Decimal) or not changes:  # unknown, or depends on the prompt length
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
    models = (model for provider in _snapshot().providers for model in provider.models)
    histories = (model.prices for model in models if isinstance(model.prices, list))
    starts = (getattr(price.constraint, "start_date", None) for past in histories for price in past)
    return frozenset(day for day in starts if isinstance(day, date))


@cache
def _snapshot() -> DataSnapshot:
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 - slow, from an extra

    return get_snapshot()
