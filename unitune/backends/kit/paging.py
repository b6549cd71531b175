"""How lists are paged: `by_token`, `by_last_id`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from unitune.security.json_fields import Fields

Query = Mapping[str, str | int | list[str]]
NextPage = Callable[[Fields], Query | None]
"""Returns what the request for the next page adds to the query; None after the last page."""


def by_token(parameter: str = "pageToken", field: str = "nextPageToken") -> NextPage:
    """Return the paging of a list whose page has the token of the next in a field."""
    return lambda page: {parameter: token} if (token := page.text(field)) else None


def by_last_id(items: str = "data", parameter: str = "after") -> NextPage:
    """Return the paging of a list whose next page comes after the id of the last item.

    A page in another order may end with an id that was used already; the last unused one is taken.

    Args:
        items: Field of the page that holds its items.
        parameter: Query parameter that takes the id.
    """
    used = set[str]()

    def next_page(page: Fields) -> Query | None:
        if page.all.get("has_more") is False:
            return None
        ids = [item.text("id") for item in reversed(page.items(items))]
        last = next((name for name in ids if name and name not in used), None)
        used.add(last or "")
        return {parameter: last} if last else None

    return next_page


def item_key(item: Fields) -> str:
    """Return the id of an item of a list, or all of its content where it has none."""
    return item.text("id") or item.text("name") or repr(item.all)
