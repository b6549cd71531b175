"""Read Azure's fine-tuning prices from its public Retail Prices API, without a key or an SDK.

The name of a meter shows what it measures, in abbreviations that differ between products
("gpt-4o-0806-FT-Trng-regnl tkn Tokens", "4.1 mini ft training Dz Tokens"); `meter_of` parses them.
If regions differ, a price is a range, and those in which the offer's model trains have rows, too
(tier `regional/swedencentral`). Meters of models that grade reinforcement have the tier `grader`.
Contradictory meters are left out: that of cached input for developer gpt-4o costs sixteen times its
output (read 2026-08-11). Priority tiers, discounts by volume and later prices are not read.

Source: learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices, api-version
2023-01-01-preview (2026-11-25); names as in azure-genai-prices 0.2.0, snapshot of 2026-08-11.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from decimal import Decimal
from typing import cast
from urllib.parse import urlsplit

from unitune.backends.credentials import environment_address
from unitune.backends.offer import Offer, PriceUpdate
from unitune.cost.prices.refresh import contradictions
from unitune.errors import BackendError
from unitune.job.prices import OF_ANSWERS, Kind, PriceRow, Unit
from unitune_providers.prices import get, range_row

URL = "https://prices.azure.com/api/retail/prices"
URL_VARIABLE = "AZURE_RETAIL_PRICES_URL"  # another address of the same API, such as a mirror
API_VERSION = "2023-01-01-preview"
# Beginnings of the names of products with fine-tuning meters; one query for each
PRODUCTS = ("Azure OpenAI", "Azure Llama", "Azure Mistral")
PAGES_MOST = 100  # all prices are a few dozen pages of 1,000; more is an endless list
SOURCE = "Azure Retail Prices API"

# Models by pattern in a meter's name, the more specific first
MODELS: tuple[tuple[str, str], ...] = (
    (r"\b4\.1 nano\b", "gpt-4.1-nano-2025-04-14"),
    (r"\b4\.1 mini\b", "gpt-4.1-mini-2025-04-14"),
    (r"\b4\.1\b", "gpt-4.1-2025-04-14"),
    (r"\b4o mini\b", "gpt-4o-mini-2024-07-18"),
    (r"\b4o\b", "gpt-4o-2024-08-06"),
    (r"\bo4 mini\b", "o4-mini-2025-04-16"),
    (r"\b20b\b", "gpt-oss-20b"),
    (r"\b(ministral|mnstrl) 3b\b", "Ministral-3B"),
    (r"\b(3\.3 70b|llama3\.3)\b", "Llama-3.3-70B-Instruct"),
)
GRADERS: tuple[tuple[str, str], ...] = (  # models that only grade
    *MODELS,
    (r"\bo3 mini\b", "o3-mini-2025-01-31"),
    (r"\bo3\b", "o3-2025-04-16"),
    (r"\bo1\b", "o1-2024-12-17"),
)
GRADER = "grader"
# Kinds by pattern; a token meter without any is for training
KINDS: tuple[tuple[str, Kind], ...] = (
    (r"\b(hosting|hstng)\b", "hosting"),
    (r"\b(training|trng)\b", "training"),
    (r"\b(cached|cchd|cched|cd)\b", "cached-input"),
    (r"\b(input|inpt|inp|in)\b", "input"),
    (r"\b(output|outp|opt|out)\b", "output"),
)
REGIONAL = "regional"
TIERS: tuple[tuple[str, str], ...] = (
    (r"\bdev\b", "developer"),
    (r"\b(dz|datazone)\b", "data-zone"),
    (r"\b(regional|regnl)\b", REGIONAL),
    (r"\b(global|glbl|glb)\b", "global"),
)
GOVERNMENT = "usgov"  # regions of a separate cloud, more expensive and closed to others
# Factor for a meter's price, and the resulting unit
UNITS: Mapping[str, tuple[Decimal, Unit]] = {
    "1K": (Decimal(1000), "million-tokens"),
    "1M": (Decimal(1), "million-tokens"),
    "1 Hour": (Decimal(1), "hour"),
    "1/Hour": (Decimal(1), "hour"),
}


@dataclass(frozen=True, slots=True)
class Meter:
    """What a meter measures."""

    model: str  # name of the model in the offer
    kind: Kind  # training, hosting, input, …
    tier: str | None  # global, regional, data-zone, developer, grader; None if it has one price
    method: str | None  # rft for a meter of reinforcement only


class AzurePrices:
    """Reader of Azure's retail prices."""

    def read_prices(self, offer: Offer, day: date) -> PriceUpdate:
        """Return today's fine-tuning prices; see `RefreshesPrices`."""
        rows = tuple(rows_of_items(_items(), offer, day))
        wrong = contradictions(rows)
        clean = tuple(row for row in rows if row.id not in wrong)
        notes = tuple(f"left out: {reason}" for reason in dict.fromkeys(wrong.values()))
        if not clean:
            raise BackendError(f"{SOURCE} has no known fine-tuning meter.")
        return PriceUpdate(rows=clean, notes=notes)


def meter_of(name: str) -> Meter | None:
    """Parse a meter such as "gpt-4o-0806-FT-Trng-glbl tkn Tokens"; None if not for fine-tuning."""
    words = re.sub(r"[-_ ]+", " ", name.lower())
    if not re.search(r"\br?ft\b", words):
        return None
    grades = re.search(r"\b(grader|grdr)\b", words) is not None
    model = _first(GRADERS if grades else MODELS, words)
    named: Kind | None = next((kind for pattern, kind in KINDS if re.search(pattern, words)), None)
    if model is None or (named is None and not words.endswith("tokens")):
        return None
    if grades:
        return Meter(model, named, GRADER, None) if named else None
    method = "rft" if re.search(r"\brft\b", words) else None
    kind: Kind = named or "training"
    return Meter(model, kind, _first(TIERS, words), method if kind == "training" else None)


def rows_of_items(
    items: Iterable[Mapping[str, object]], offer: Offer, day: date
) -> Iterator[PriceRow]:
    """Yield a row for each model, tier and kind of the API's meters."""
    prices: dict[Meter, dict[str, Decimal]] = {}
    units: dict[Meter, Unit] = {}
    for item in sorted(items, key=_begins):  # of one meter and region, the newest price is last
        region = str(item.get("armRegionName", ""))
        meter = meter_of(str(item.get("meterName", "")))
        unit = UNITS.get(str(item.get("unitOfMeasure", "")))
        price = item.get("retailPrice")
        if meter is None or unit is None or not isinstance(price, int | Decimal):
            continue
        by_volume, later = bool(item.get("tierMinimumUnits")), _begins(item) > str(day)
        if region.startswith(GOVERNMENT) or by_volume or later:
            continue
        prices.setdefault(meter, {})[region] = price * unit[0]
        units[meter] = unit[1]
    for meter, amounts in list(prices.items()):
        if len(set(amounts.values())) > 1:
            for region in sorted(amounts.keys() & _trains_in(offer, meter)):
                place = replace(meter, tier=f"{meter.tier}/{region}")
                prices[place], units[place] = {region: amounts[region]}, units[meter]
    for meter, amounts in prices.items():
        yield range_row(
            list(amounts.values()),
            backend=offer.name,
            **asdict(meter),
            tuned=meter.kind in OF_ANSWERS and meter.tier != GRADER,
            per=units[meter],
            as_of=day,
            source=SOURCE,
        )


def _begins(item: Mapping[str, object]) -> str:
    """Return the first day of a price, as text; empty if it is not given."""
    return str(item.get("effectiveStartDate") or "")[:10]


def _trains_in(offer: Offer, meter: Meter) -> frozenset[str]:
    """Return the regions where a meter's model is trained."""
    offered = offer.model(meter.model) if meter.tier == REGIONAL else None
    return frozenset(offered.tiers.get(REGIONAL, ()) if offered else ())


def _first(patterns: Iterable[tuple[str, str]], words: str) -> str | None:
    return next((name for pattern, name in patterns if re.search(pattern, words)), None)


def _items() -> Iterator[Mapping[str, object]]:
    address = environment_address(URL_VARIABLE) or URL
    for product in PRODUCTS:
        parameters = {
            "api-version": API_VERSION,
            "$filter": f"startswith(productName, '{product}') and priceType eq 'Consumption'",
        }
        page = _page(get("azure", address, parameters))
        for _ in range(PAGES_MOST):
            yield from cast("list[Mapping[str, object]]", page.get("Items") or [])
            following = page.get("NextPageLink")
            if not isinstance(following, str) or not following:
                break
            if urlsplit(following).netloc != urlsplit(address).netloc:
                raise BackendError(f"azure's next page of prices is on another host: {following}.")
            page = _page(get("azure", following))


def _page(answer: object) -> Mapping[str, object]:
    if not isinstance(answer, dict) or "Items" not in answer:
        raise BackendError(f"{SOURCE} did not answer in its documented format.")
    return cast("dict[str, object]", answer)
