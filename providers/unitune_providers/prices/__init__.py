"""Readers of vendors' prices and dates, used when the user requests a refresh."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import partial

from unitune.backends.kit.api import Api
from unitune.backends.kit.connection import LARGEST_ANSWER
from unitune.backends.kit.errors import Endpoint, Vendor
from unitune.backends.retry import retry_rate_limited
from unitune.errors import BackendError
from unitune.job.prices import PriceRow

# How long rate-limited requests are retried; Azure limits them during a full reading
TIMEOUT_SECONDS = 120.0


def get(vendor: str, url: str, parameters: Mapping[str, str] | None = None) -> object:
    """Return the JSON at an address, without sending any secret, or raise `BackendError`."""
    api = Api(Endpoint(Vendor(vendor, url=url), url))
    action = f"return its prices at {url}"
    read = partial(api.content, action=action, query=parameters, largest=LARGEST_ANSWER)
    content = retry_rate_limited(read, TIMEOUT_SECONDS)
    try:
        return json.loads(content, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise BackendError(f"{vendor} did not answer with JSON at {url}: {error}.") from error


def range_row(amounts: Sequence[Decimal], **about: object) -> PriceRow:
    """Return the row of a price that differs by region, as a range."""
    least, most = _plain(min(amounts)), _plain(max(amounts))
    prices = {"usd": most, "usd_least": least if least < most else None}
    fixed = {"source_kind": "first-party-api", "origin": "project"}
    return PriceRow.model_validate(prices | fixed | about)


def _plain(usd: Decimal) -> Decimal:
    """Return an amount with at least two decimals and no further trailing zeros."""
    short = usd.normalize()
    return short if short.as_tuple().exponent < -2 else usd.quantize(Decimal("0.01"))  # pyright: ignore[reportOperatorIssue] - finite
