"""Public price lists on loopback: AWS's files, Azure's retail prices, Hugging Face's machines.

Source: learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices (2026-11-25);
huggingface_hub 2.4.0, JobHardwareInfo, whose own client reads `HardwareList`; the AWS Price List's
bulk files: docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/reading-service-price-list-file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlencode

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest, VendorResponse

Item = dict[str, JsonValue]
RETAIL_PATH = "/api/retail/prices"
HARDWARE_PATH = "/api/jobs/hardware"
FILTER = re.compile(r"startswith\(productName, '([^']+)'\) and priceType eq 'Consumption'")


# One item of the list, as its documentation shows one
RETAIL_ITEM: dict[str, type | tuple[type, ...]] = {
    "currencyCode": str,
    "tierMinimumUnits": float,
    "retailPrice": float,
    "unitPrice": float,
    "armRegionName": str,
    "location": str,
    "effectiveStartDate": str,
    "meterId": str,
    "meterName": str,
    "productId": str,
    "skuId": str,
    "productName": str,
    "skuName": str,
    "serviceName": str,
    "serviceId": str,
    "serviceFamily": str,
    "unitOfMeasure": str,
    "type": str,
    "isPrimaryMeterRegion": bool,
    "armSkuName": str,
}
RETAIL_PAGE = (
    "BillingCurrency",
    "CustomerEntityId",
    "CustomerEntityType",
    "Items",
    "NextPageLink",
    "Count",
)


def retail_item(
    product: str, meter: str, unit: str, usd: str, region: str, **changes: object
) -> Item:
    """Return a meter with all documented fields; changes replace some."""
    identity = f"{abs(hash((product, meter, region))):032x}"
    item: dict[str, object] = {
        "currencyCode": "USD",
        "tierMinimumUnits": 0.0,
        "retailPrice": float(usd),  # JSON has no other numbers
        "unitPrice": float(usd),
        "armRegionName": region,
        "location": region.upper(),
        "effectiveStartDate": "2026-03-01T00:00:00Z",
        "meterId": identity,
        "meterName": meter,
        "productId": f"DZH{identity[:9]}",
        "skuId": f"DZH{identity[:9]}/0001",
        "productName": product,
        "skuName": meter.removesuffix(" Tokens"),
        "serviceName": "Foundry Models",
        "serviceId": identity[:12],
        "serviceFamily": "AI + Machine Learning",
        "unitOfMeasure": unit,
        "type": "Consumption",
        "isPrimaryMeterRegion": True,
        "armSkuName": "",
        **changes,
    }
    return cast("Item", item)


@dataclass(slots=True)
class RetailPrices:
    """Azure's list of meters."""

    # meters with productName, meterName, unitOfMeasure, retailPrice, armRegionName, …
    items: Sequence[Item]
    page: int = 100  # items on a page; the real one has 1,000
    elsewhere: str | None = None  # address of the second page; None for this one

    def answer(self, asked: VendorRequest) -> VendorResponse:
        """Answer a request for a page."""
        wanted = FILTER.fullmatch(asked.first("$filter") or "")
        if asked.method != "GET" or asked.path != RETAIL_PATH or wanted is None:
            return VendorResponse(
                {"Error": {"Code": "BadRequest", "Message": "Invalid OData"}}, 400
            )
        found = [item for item in self.items if str(item["productName"]).startswith(wanted[1])]
        start = int(asked.first("$skip") or 0)
        rest = start + self.page
        content: JsonValue = {
            "BillingCurrency": "USD",
            "CustomerEntityId": "Default",
            "CustomerEntityType": "Retail",
            "Items": cast("JsonValue", found[start:rest]),
            "NextPageLink": self._next(asked, rest) if rest < len(found) else None,
            "Count": len(found[start:rest]),
        }
        return VendorResponse(content)

    def _next(self, asked: VendorRequest, start: int) -> str:
        here = self.elsewhere or f"http://{asked.headers['host']}"
        query = {name: values[0] for name, values in asked.query.items()} | {"$skip": str(start)}
        return f"{here}{RETAIL_PATH}?{urlencode(query)}"


@dataclass(slots=True)
class HardwareList:
    """Hugging Face's machines."""

    # machines with name, prettyName, cpu, ram, unitCostMicroUSD, unitCostUSD, unitLabel, …
    machines: Sequence[Item]

    def answer(self, asked: VendorRequest) -> VendorResponse:
        """Answer a request for the list."""
        if asked.method != "GET" or asked.path != HARDWARE_PATH:
            return VendorResponse({"error": "Not found"}, 404)
        return VendorResponse(cast("JsonValue", list(self.machines)))


@dataclass(slots=True)
class PriceList:
    """AWS's price list of a service, a file for each region."""

    # usage type, unit and US dollars of one, by region
    meters: Mapping[str, Sequence[tuple[str, str, str]]]

    def answer(self, asked: VendorRequest) -> VendorResponse:
        """Answer a request for a region's file."""
        region = asked.path.strip("/").partition("/")[0]
        if asked.method != "GET" or asked.path != f"/{region}/index.json":
            return VendorResponse({"message": "Not found"}, 404)
        products: dict[str, JsonValue] = {}
        on_demand: dict[str, JsonValue] = {}
        for number, (usage, unit, usd) in enumerate(self.meters.get(region, ())):
            sku = f"SKU{region}{number}"
            attributes = {"servicecode": "AmazonBedrock", "usagetype": usage, "regionCode": region}
            products[sku] = {"sku": sku, "attributes": cast("JsonValue", attributes)}
            dimension: JsonValue = {"unit": unit, "pricePerUnit": {"USD": usd}, "beginRange": "0"}
            term: JsonValue = {"sku": sku, "priceDimensions": {f"{sku}.T.D": dimension}}
            on_demand[sku] = {f"{sku}.T": term}
        content: JsonValue = {
            "formatVersion": "v1.0",
            "offerCode": "AmazonBedrock",
            "publicationDate": "2026-08-20T13:01:14Z",
            "products": products,
            "terms": {"OnDemand": on_demand},
        }
        return VendorResponse(content)
