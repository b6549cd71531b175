"""Read Amazon Bedrock's customization prices from the AWS Price List, without a key or an SDK.

The list has one file per region. A product's usage type, which begins with the region, shows what
it measures: "USE1-Nova2.0Lite-Customization-Training". If regions differ, a price is a range. The
end of a base model comes from Bedrock itself, which needs AWS credentials and the extra `bedrock`.

Source: docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/price-changes (bulk files); usage types
as quoted by public programs that read AmazonBedrock in us-east-1 on 2026-08-02 and 2026-08-21
(among them aToy0m0/bedrock-pricing). Those of mantle's models were not seen and are assumed to have
the same form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal, InvalidOperation

from unitune.backends.credentials import environment_address
from unitune.backends.offer import ModelUpdate, Offer, PriceUpdate
from unitune.cost.prices.refresh import contradictions
from unitune.errors import BackendError, UnituneError
from unitune.job.prices import OF_ANSWERS, Kind, Unit
from unitune.security.json_fields import Fields
from unitune_providers.prices import get, range_row

URL = "https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws/AmazonBedrock/current"
URL_VARIABLE = "AWS_PRICE_LIST_URL"  # another address of the same files, such as a mirror
REGIONS = ("us-east-1", "us-west-2")  # regions that train the models of the two offers
SOURCE = "AWS Price List, AmazonBedrock"
LIFECYCLE_SOURCE = "Amazon Bedrock, modelLifecycle of GetFoundationModel"
# Ending of a usage type, what it measures, and the only method that it applies to
METERS: tuple[tuple[str, Kind, str | None], ...] = (
    ("Customization-Training", "training", None),
    ("RFT-Training-Hours", "training", "rft"),
    ("Customization-Storage", "storage", None),
    ("input-tokens-custom-model", "input", None),
    ("output-tokens-custom-model", "output", None),
)
# Unit of a product, factor for its price, and the resulting unit
UNITS: tuple[tuple[str, int, Unit], ...] = (
    (r"1k ?tokens", 1000, "million-tokens"),
    (r"1m ?tokens|million tokens", 1, "million-tokens"),
    (r"hours?|hrs?", 1, "hour"),
    (r".*month.*", 1, "month"),
)


class BedrockPrices:
    """Reader of the AWS Price List and of the end dates of Bedrock's models."""

    def read_prices(self, offer: Offer, day: date) -> PriceUpdate:
        """Return today's customization prices and end dates; see `RefreshesPrices`."""
        address = environment_address(URL_VARIABLE) or URL
        amounts: dict[tuple[str, Kind, str | None, Unit], list[Decimal]] = {}
        for region in REGIONS:
            listed = get("aws", f"{address}/{region}/index.json")
            for meter, usd in _meters(listed, offer):
                amounts.setdefault(meter, []).append(usd)
        rows = tuple(
            range_row(
                amounts[model, kind, method, per],
                backend=offer.name,
                model=model,
                kind=kind,
                method=method,
                tuned=kind in OF_ANSWERS,
                per=per,
                as_of=day,
                source=SOURCE,
            )
            for model, kind, method, per in amounts
        )
        wrong = contradictions(rows)
        clean = tuple(row for row in rows if row.id not in wrong)
        if not clean:
            raise BackendError(f"{SOURCE} has no price of a model that {offer.name} tunes.")
        notes = [f"left out: {reason}" for reason in dict.fromkeys(wrong.values())]
        trained = {row.model for row in clean if row.kind == "training"}
        notes += [
            f"{name}: no training price is listed" for name in sorted(_names(offer) - trained)
        ]
        models = tuple(_ends(offer, day, notes)) if offer.name == "bedrock" else ()
        return PriceUpdate(rows=clean, models=models, notes=tuple(notes))


def _meters(
    listed: object, offer: Offer
) -> Iterator[tuple[tuple[str, Kind, str | None, Unit], Decimal]]:
    """Yield the meters in a region that the offer needs, with their prices."""
    file = Fields(listed)
    products, terms = file.fields("products"), file.fields("terms").fields("OnDemand")
    if not products.all or not terms.all:
        raise BackendError(f"{SOURCE} did not answer in its documented format.")
    models = {_letters(name): name for name in _names(offer)}
    for sku in products.all:
        usage = products.fields(sku).fields("attributes").text("usagetype") or ""
        for ending, kind, method in METERS:
            family = usage.removesuffix(f"-{ending}").partition("-")[2]
            model = models.get(_letters(family)) if usage.endswith(f"-{ending}") else None
            priced = _price(terms.fields(sku)) if method in (None, *offer.methods) else None
            if model is not None and priced is not None:
                yield (model, kind, method, priced[1]), priced[0]


def _price(terms: Fields) -> tuple[Decimal, Unit] | None:
    for term in terms.all:
        dimensions = terms.fields(term).fields("priceDimensions")
        for name in dimensions.all:
            dimension = dimensions.fields(name)
            unit = (dimension.text("unit") or "").strip().lower()
            usd = dimension.fields("pricePerUnit").text("USD")
            for pattern, times, per in UNITS:
                if usd and re.fullmatch(pattern, unit):
                    try:
                        return Decimal(usd) * times, per
                    except InvalidOperation:
                        return None
    return None


def _names(offer: Offer) -> set[str]:
    return {model.name for model in offer.models}


def _letters(name: str) -> str:
    """Reduce a model's name or that in a usage type to a common form.

    Examples:
        >>> _letters("amazon.nova-2-lite-v1:0:256k") == _letters("Nova2.0Lite")
        True
        >>> _letters("meta.llama3-3-70b-instruct-v1:0:128k") == _letters("Llama3-3-70B")
        True
    """
    bare = re.sub(r"^[a-z]+\.|(-instruct)?-v\d.*$", "", name.lower())
    return re.sub(r"[^a-z0-9]", "", bare.replace("2.0", "2"))


def _ends(offer: Offer, day: date, notes: list[str]) -> Iterator[ModelUpdate]:
    try:
        from unitune_providers.bedrock.clients import Clients, call_or_none  # noqa: PLC0415 - extra

        bedrock = Clients().bedrock
        for name in sorted(_names(offer)):
            action = f"read the lifecycle of {name}"
            found = call_or_none(action, bedrock.get_foundation_model, modelIdentifier=name)
            lifecycle = (found or Fields({})).fields("modelDetails").fields("modelLifecycle")
            end: object = lifecycle.all.get("endOfLifeTime")
            if isinstance(end, datetime):
                yield ModelUpdate(
                    backend=offer.name,
                    model=name,
                    retires_on=end.date(),
                    as_of=day,
                    source=LIFECYCLE_SOURCE,
                )
    except (ImportError, UnituneError) as problem:
        notes.append(f"end dates of models were not read: {problem}")
