"""AWS's rest-json as Bedrock on loopback speaks it: errors, members, and pages of a list."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest
from unitune.testing.vendor_setup import Refused, ServerBehavior

STATUS = {
    "AccessDeniedException": 403,
    "ConflictException": 400,
    "ModelNotReadyException": 429,
    "ResourceNotFoundException": 404,
    "UnrecognizedClientException": 403,
    "ValidationException": 400,
}
PAGE = 2
"""Most items on a page, whatever was asked for: a vendor may give fewer."""


def refused(code: str, message: str) -> Refused:
    """Return the refusal of a request."""
    return Refused(STATUS[code], message, code=code)


def texts_of(request: VendorRequest) -> dict[str, Any]:
    """Return the members of a query as texts, but for counts."""
    texts: dict[str, Any] = {name: values[0] for name, values in request.query.items()}
    if "maxResults" in texts:
        texts["maxResults"] = request.number("maxResults", PAGE)
    return texts


def moment(text: str) -> float:
    """Return a time of a query in seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


class Lists:
    """Lists in pages."""

    def __init__(self, behavior: ServerBehavior) -> None:
        self._behavior = behavior
        self._rotations = itertools.count()

    def page(
        self, name: str, items: Iterable[dict[str, JsonValue]], request: VendorRequest
    ) -> dict[str, JsonValue]:
        """Return one page; its token keeps the order of the first page to the last."""
        shown = list(items)
        token = request.first("nextToken")
        rotation, start = map(int, token.split("-")) if token else (next(self._rotations), 0)
        repeats = self._behavior.lists_repeat and bool(shown)
        if repeats:
            shown = shown[rotation % len(shown) :] + shown[: rotation % len(shown)]
        stop = start + min(PAGE, request.number("maxResults", PAGE))
        page: dict[str, JsonValue] = {name: list[JsonValue](shown[start:stop])}
        if stop < len(shown):
            # With repeats, the last of this page is the first of the next.
            page["nextToken"] = f"{rotation}-{stop - 1 if repeats else stop}"
        return page
