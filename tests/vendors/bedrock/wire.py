"""AWS's rest-json as Bedrock on loopback speaks it: refusals, members, and pages of a list."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest, VendorResponse
from unitune.testing.vendor_setup import ServerBehavior

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


class Refusal(Exception):
    """What AWS says no with.

    Args:
        code: AWS's name of the error.
        message: In AWS's words, more or less.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def refused(refusal: Refusal, request_id: str) -> VendorResponse:
    """Return a refusal as AWS writes it.

    Args:
        refusal: What AWS says no with.
        request_id: AWS's id for the request.
    """
    headers = {"x-amzn-ErrorType": refusal.code, "x-amzn-RequestId": request_id}
    return VendorResponse({"message": refusal.message}, STATUS[refusal.code], headers)


def texts_of(asked: VendorRequest) -> dict[str, Any]:
    """Return the members of a query as texts, but for counts.

    Raises:
        Malformed: A count is none.
    """
    texts: dict[str, Any] = {name: values[0] for name, values in asked.query.items()}
    if "maxResults" in texts:
        texts["maxResults"] = asked.number("maxResults", PAGE)
    return texts


def moment(text: str) -> float:
    """Return a time of a query in seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


class Lists:
    """Lists in pages.

    Args:
        behavior: Whether they repeat and reorder.
    """

    def __init__(self, behavior: ServerBehavior) -> None:
        self._conduct = behavior
        self._turns = itertools.count()

    def page(
        self, name: str, items: Iterable[dict[str, JsonValue]], asked: VendorRequest
    ) -> dict[str, JsonValue]:
        """Return one page; its token keeps the order of the first page to the last.

        Args:
            name: Under which the items stand.
            items: All of the list.
            asked: The request.
        """
        shown = list(items)
        token = asked.first("nextToken")
        turn, start = map(int, token.split("-")) if token else (next(self._turns), 0)
        repeats = self._conduct.lists_repeat and bool(shown)
        if repeats:
            shown = shown[turn % len(shown) :] + shown[: turn % len(shown)]
        stop = start + min(PAGE, asked.number("maxResults", PAGE))
        page: dict[str, JsonValue] = {name: list[JsonValue](shown[start:stop])}
        if stop < len(shown):
            # With repeats, the last of this page is the first of the next.
            page["nextToken"] = f"{turn}-{stop - 1 if repeats else stop}"
        return page
