"""What the parts of the Together on loopback share: ids, times, fields of a request."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

from unitune.testing.vendor_setup import Refused

NAMESPACE = "loopback"
"""Slug of the one project, and the first part of every name in it."""
PROJECT_ID = "proj_loopback"

Fields = dict[str, Any]


def missing(what: str, name: str) -> Refused:
    """Return the refusal for something that is not there."""
    return Refused(404, f"{what} {name} not found")


def moment(seconds: float) -> str:
    """Return a time as the vendor writes it."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def fresh(prefix: str) -> str:
    """Return a new id."""
    return f"{prefix}{secrets.token_hex(8)}"


def field(body: Fields, name: str, *kinds: type) -> Any:
    """Return a field of a request, None when it was left out."""
    value = body.get(name)
    wrong = isinstance(value, bool) and bool not in kinds
    if value is not None and (wrong or not isinstance(value, kinds)):
        raise Refused(422, f"{name} must be {' or '.join(kind.__name__ for kind in kinds)}")
    return value


def needed(body: Fields, name: str, *kinds: type) -> Any:
    """Return a field that a request must have."""
    value = field(body, name, *kinds)
    if value is None:
        raise Refused(422, f"{name} is required")
    return value
