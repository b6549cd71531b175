"""Reading public JSON over HTTP, with money kept exact: numbers with a point become `Decimal`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal

import httpx

from unitune.backends.kit.bodies import GZIP_ONLY, BodyError, hooks
from unitune.backends.rate_limits import parse_retry_after
from unitune.backends.retry import retry_rate_limited
from unitune.errors import BackendError, Unreachable

TIMEOUT_SECONDS = 60.0
PATIENCE_SECONDS = 120.0
"""How long a vendor may say that it is asked too often; Azure does within a full reading."""


def get(vendor: str, url: str, parameters: Mapping[str, str] | None = None) -> object:
    """Return the JSON that an address answers with; nothing secret is sent.

    Args:
        vendor: For messages.
        url: Where.
        parameters: Of the query.

    Raises:
        Unreachable: It did not answer.
        BackendError: It answered with an error, or with no JSON.
    """
    return retry_rate_limited(lambda: _ask(vendor, url, parameters), PATIENCE_SECONDS)


def _ask(vendor: str, url: str, parameters: Mapping[str, str] | None) -> object:
    try:
        with httpx.Client(
            event_hooks=hooks(), headers=GZIP_ONLY, timeout=TIMEOUT_SECONDS
        ) as client:
            answer = client.get(url, params=parameters)
    except BodyError as error:
        raise BackendError(f"{vendor}'s prices at {url} cannot be read: {error}.") from error
    except httpx.HTTPError as error:
        raise Unreachable(f"{vendor}'s prices could not be read from {url}: {error}.") from error
    if not answer.is_success:
        raise BackendError(
            f"{vendor}'s prices could not be read from {url} (HTTP {answer.status_code}).",
            status=answer.status_code,
            retry_after=parse_retry_after(answer.headers),
        )
    try:
        return json.loads(answer.content, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise BackendError(f"{vendor} answered at {url} with no JSON: {error}.") from error
