"""Lists at OpenAI: one page of items after an id, and the metadata that a list is filtered by."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import cast

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest
from unitune.testing.vendor_setup import Refused

Json = dict[str, JsonValue]
FILTER = re.compile(r"^metadata\[(?P<key>.+)\]$")


def paged(
    request: VendorRequest,
    items: Sequence[Json],
    default: int,
    *,
    most: int = 100,
    overlap: int = 0,
    turned: bool = False,
) -> Json:
    """Return the page that a request is for."""
    value = request.first("limit")
    limit = default if value is None else int(value) if value.isdecimal() else 0
    if not 1 <= limit <= most:
        message = f"Invalid 'limit': expected an integer between 1 and {most}, but got {value!r}."
        raise Refused(400, message, param="limit")
    after, start = request.first("after"), 0
    if after is not None:
        ids = [item["id"] for item in items]
        if after not in ids:
            raise Refused(404, f"No such object: {after}", param="after")
        start = ids.index(after) + 1
    page = items[max(0, start - overlap) : start + limit]
    more = start + limit < len(items)
    return {"object": "list", "data": [*page[:: -1 if turned else 1]], "has_more": more}


def with_ends(page: Json, empty: str | None = None) -> Json:
    """Return a page as the vendor writes it where it names the first and the last item."""
    items = cast("list[Json]", page["data"])
    first, last = (items[0], items[-1]) if items else ({}, {})
    return {**page, "first_id": first.get("id", empty), "last_id": last.get("id", empty)}


def metadata_filter(request: VendorRequest) -> Mapping[str, str]:
    """Return the pairs that a list is filtered by, as in ``?metadata[run]=abc``."""
    filters = ((FILTER.match(name), values) for name, values in request.query.items())
    return {match["key"]: values[0] for match, values in filters if match}
