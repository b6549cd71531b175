"""Lists at OpenAI: one page of items after an id, and the metadata that a list is filtered by."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest
from vendors.openai.checks import Refused

Json = dict[str, JsonValue]
FILTER = re.compile(r"^metadata\[(?P<key>.+)\]$")


@dataclass(frozen=True, slots=True)
class Paged:
    """A page of a list.

    Args:
        items: In the vendor's order.
        more: Whether others follow.
    """

    items: Sequence[Json]
    more: bool

    def as_json(self, *, empty: str | None = None) -> Json:
        """Return the page as the vendor tells it.

        Args:
            empty: What first_id and last_id are when the page is empty.
        """
        first, last = (self.items[0], self.items[-1]) if self.items else ({}, {})
        return {
            "object": "list",
            "data": [*self.items],
            "first_id": first.get("id", empty),
            "last_id": last.get("id", empty),
            "has_more": self.more,
        }

    @property
    def without_ends(self) -> Json:
        """The page as the vendor tells it where it does not name the ends."""
        return {"object": "list", "data": [*self.items], "has_more": self.more}


def paged(
    asked: VendorRequest, items: Sequence[Json], default: int, *, most: int = 100, overlap: int = 0
) -> Paged:
    """Return the page that a request asks for.

    Args:
        asked: Its `after` and `limit` are read.
        items: All of the list.
        default: Limit when none is asked for.
        most: Largest limit.
        overlap: How many items of the page before are repeated.

    Raises:
        Refused: The limit is none, or there is no item to begin after.
    """
    wish = asked.first("limit")
    limit = int(wish) if wish is not None and wish.isdecimal() else default
    if (wish is not None and not wish.isdecimal()) or not 1 <= limit <= most:
        words = f"Invalid 'limit': expected an integer between 1 and {most}, but got {wish!r}."
        raise Refused(words, param="limit")
    after, start = asked.first("after"), 0
    if after is not None:
        ids = [item["id"] for item in items]
        if after not in ids:
            raise Refused(f"No such object: {after}", 404, param="after")
        start = ids.index(after) + 1
    page = items[max(0, start - overlap) : start + limit]
    return Paged(page, start + limit < len(items))


def metadata_asked_for(asked: VendorRequest) -> Mapping[str, str]:
    """Return the pairs that a list is filtered by, as in ``?metadata[run]=abc``."""
    found = ((FILTER.match(name), values) for name, values in asked.query.items())
    return {match["key"]: values[0] for match, values in found if match}
