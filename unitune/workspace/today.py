"""Today, read in this one place, so that whatever depends on it can be shown for any day."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime

from unitune.errors import UserError


def today() -> date:
    """Return today's date (UTC), or the one that ``UNITUNE_TODAY=YYYY-MM-DD`` says, if anything.

    Raises:
        UserError: UNITUNE_TODAY is no date.
    """
    given = os.environ.get("UNITUNE_TODAY", "").strip()
    if not given:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(given)
    except ValueError as error:
        raise UserError(f"UNITUNE_TODAY is {given!r}; write it as YYYY-MM-DD.") from error
