"""Read today's date."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime

from unitune.errors import UserError


def today() -> date:
    """Return today's date (UTC), or that of ``UNITUNE_TODAY=YYYY-MM-DD`` if set."""
    given = os.environ.get("UNITUNE_TODAY", "").strip()
    if not given:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(given)
    except ValueError as error:
        raise UserError(f"UNITUNE_TODAY is {given!r}. Write it as YYYY-MM-DD.") from error
